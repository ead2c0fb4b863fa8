"""Theoretical receptive fields: never too small, and no larger than what is seen, on networks of every kind."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from oracles.fields import Twin, box, recursion, steps_of, support_by_gradient
from pellucid.core.fields import Field, fields
from pellucid.core.record import record


class Does(nn.Module):
    """A function of the input and of positive weights."""

    def __init__(self, function: Callable[..., Tensor], *layers: nn.Module) -> None:
        super().__init__()
        self.function, self.layers = function, nn.ModuleList(layers)
        for parameter in self.parameters():
            nn.init.uniform_(parameter, 0.1, 1.0)

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, *self.layers)


def conv(before: int, after: int, kernel: int, **how: Any) -> nn.Conv2d:
    return nn.Conv2d(before, after, kernel, bias=False, **how)


def places(field: Field, most: int = 40) -> Iterator[tuple[int, ...]]:
    every = list(product(*map(range, field.positions)))
    yield from every[:: max(1, len(every) // most)]


def seen(net: nn.Module, x: Tensor, position: Sequence[int]) -> list[tuple[int, int]] | None:
    """First and one behind the last pixel with a gradient, along each axis, over all channels."""
    leaf = x.clone().requires_grad_()
    y = net(leaf)
    (g,) = torch.autograd.grad(y[(0, slice(None), *position)].sum(), leaf, allow_unused=True)
    hit = (g[0] != 0).any(0).nonzero()
    return [(int(h.min()), int(h.max()) + 1) for h in hit.T] if len(hit) else None


def check(net: nn.Module, x: Tensor) -> Field:
    """The field of the output is the box of what has a gradient; where padding joins in, it may be the larger."""
    trace = record(net, x)
    field = fields(trace)[trace.output]
    for position in places(field):
        found = seen(net, x, position)
        told = field.box(position)
        inside = all(a >= 0 and b < n for (a, b), n in zip(field.reach(position), x.shape[2:], strict=True))
        if found is None:
            assert not inside or any(low == high for low, high in told)
        else:
            assert all(a <= c and d <= b for (a, b), (c, d) in zip(told, found, strict=True)), (position, told, found)
            assert list(told) == found or not inside, (position, told, found)
    return field


def shuffle_back(x: Tensor, first: nn.Module, second: nn.Module) -> Tensor:
    return F.pixel_shuffle(second(F.pixel_unshuffle(first(x), 2)), 2)


def focus(x: Tensor, first: nn.Module) -> Tensor:
    corners = [x[..., ::2, ::2], x[..., 1::2, ::2], x[..., ::2, 1::2], x[..., 1::2, 1::2]]
    return first(torch.cat(corners, 1))


def unet(x: Tensor, down: nn.Module, up: nn.Module, last: nn.Module) -> Tensor:
    deep = F.avg_pool2d(down(x), 2)
    return last(torch.cat([x, up(deep)], 1))


def written(x: Tensor, first: nn.Module) -> Tensor:
    y = first(x) * 1
    y[:, :, 2:-2] += F.avg_pool2d(first(x), 3, 1, 1)[:, :, 2:-2]
    return y


def segnet(x: Tensor, first: nn.Module) -> Tensor:
    pooled, winners = F.max_pool2d(x, 2, return_indices=True)
    return F.max_unpool2d(first(pooled), winners, [2, 2])


def windows(x: Tensor) -> Tensor:
    """The mean over windows of 4 x 4, after a roll by two, as windowed attention lays them out."""
    n, c, h, w = x.shape
    rolled = torch.roll(x, (-2, -2), (2, 3)).permute(0, 2, 3, 1)
    cut = rolled.view(n, h // 4, 4, w // 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(-1, 16, c)
    mixed = cut + cut.mean(1, keepdim=True)
    back = mixed.view(n, h // 4, w // 4, 4, 4, c).permute(0, 1, 3, 2, 4, 5).reshape(n, h, w, c)
    return back.permute(0, 3, 1, 2)


TIGHT: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "conv": (Does(lambda x, a: a(x), conv(2, 3, 3, stride=2, padding=1, dilation=2)), (1, 2, 17, 20)),
    "kernel by kernel": (Does(lambda x, a, b: b(a(x)), conv(1, 2, 5), conv(2, 1, 3, stride=3)), (1, 1, 21, 16)),
    "grouped": (Does(lambda x, a: a(x), conv(4, 4, 3, groups=2, padding=1)), (1, 4, 9, 9)),
    "same": (Does(lambda x, a: a(x), conv(1, 1, 4, padding="same")), (1, 1, 9, 9)),
    "oblong": (Does(lambda x, a: a(x), nn.Conv2d(1, 1, (5, 1), (2, 1), (2, 0), bias=False)), (1, 1, 12, 7)),
    "transposed": (
        Does(lambda x, a: a(x), nn.ConvTranspose2d(1, 2, 4, stride=2, padding=1, bias=False)), (1, 1, 7, 6)
    ),
    "transposed, dilated": (
        Does(lambda x, a: a(x), nn.ConvTranspose2d(1, 2, 3, 3, 1, output_padding=1, dilation=2, bias=False)),
        (1, 1, 6, 6),
    ),
    "holes": (Does(lambda x, a: a(x), nn.ConvTranspose2d(1, 1, 2, stride=3, bias=False)), (1, 1, 5, 5)),
    "nearest": (Does(lambda x, a: F.interpolate(a(x), scale_factor=2), conv(1, 1, 3, padding=1)), (1, 1, 8, 8)),
    "nearest, odd": (Does(lambda x: F.interpolate(x, size=(11, 5))), (1, 1, 8, 8)),
    "bilinear": (
        Does(lambda x, a: a(F.interpolate(x, scale_factor=2, mode="bilinear")), conv(1, 1, 3, padding=1)), (1, 1, 8, 9)
    ),
    "bilinear, corners": (
        Does(lambda x: F.interpolate(x, size=(13, 9), mode="bilinear", align_corners=True)), (1, 1, 7, 9)
    ),
    "bicubic": (Does(lambda x: F.interpolate(x, size=(15, 21), mode="bicubic")), (1, 1, 9, 11)),
    "smaller, smoothed": (
        Does(lambda x: F.interpolate(x, size=(5, 6), mode="bilinear", antialias=True)), (1, 1, 13, 12)
    ),
    "uneven pool": (Does(lambda x: F.adaptive_avg_pool2d(x, (5, 3))), (1, 1, 13, 7)),
    "ceil": (Does(lambda x: F.avg_pool2d(x, 3, 2, ceil_mode=True)), (1, 1, 8, 10)),
    "reflect": (
        Does(lambda x, a, b: b(a(x)), *(conv(1, 1, 5, padding=2, padding_mode="reflect") for _ in "ab")), (1, 1, 12, 9)
    ),
    "replicate": (Does(lambda x, a: a(x), conv(1, 1, 3, padding=1, padding_mode="replicate")), (1, 1, 7, 7)),
    "circular": (Does(lambda x, a: a(x), conv(1, 1, 3, padding=1, padding_mode="circular")), (1, 1, 8, 8)),
    "crop": (Does(lambda x, a: F.pad(a(x), (-2, 0, -1, -3)), conv(1, 1, 3)), (1, 1, 12, 12)),
    "roll": (Does(lambda x, a: torch.roll(a(x), (2, -3), (2, 3)), conv(1, 1, 3, padding=1)), (1, 1, 9, 9)),
    "flip": (Does(lambda x, a, b: b(a(x).flip(3)), conv(1, 1, 3), conv(1, 1, 3, stride=2)), (1, 1, 11, 11)),
    "turned": (Does(lambda x, a: a(x).transpose(2, 3), conv(1, 1, 3, stride=2)), (1, 1, 9, 13)),
    "unshuffled": (Does(lambda x, a: a(F.pixel_unshuffle(x, 3)), conv(9, 1, 3, padding=1)), (1, 1, 15, 12)),
    "shuffled back": (Does(shuffle_back, conv(1, 2, 3, padding=1), conv(8, 4, 1)), (1, 1, 8, 8)),
    "focus": (Does(focus, conv(4, 2, 3, padding=1)), (1, 1, 12, 10)),
    "steps": (Does(lambda x, a: a(x)[:, :, 1::3, -5::2], conv(1, 1, 3, padding=1)), (1, 1, 13, 13)),
    "last": (
        Does(lambda x, a: a(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2), nn.Linear(2, 3, bias=False)), (1, 2, 5, 6)
    ),
    "unet": (Does(unet, conv(1, 2, 3, padding=1), nn.ConvTranspose2d(2, 1, 2, 2), conv(2, 1, 3)), (1, 1, 12, 12)),
    "written into": (Does(written, conv(1, 1, 3, padding=1)), (1, 1, 12, 8)),
    "windows": (Does(windows), (1, 2, 12, 8)),
    "stacked": (Does(lambda x: torch.stack(x.split(3, 3)[:2], 4).sum(4)), (1, 1, 4, 7)),
    "unfold": (Does(lambda x: F.unfold(x, 3, padding=1).view(1, 9, 6, 7)), (1, 1, 6, 7)),
    "sides": (Does(lambda x: x + x.mean(3, keepdim=True)), (1, 1, 5, 6)),
    "sequence": (Does(lambda x, a: F.avg_pool1d(a(x), 2), nn.Conv1d(2, 3, 5, 2, bias=False)), (1, 2, 31)),
    "volume": (
        Does(lambda x, a: F.avg_pool3d(a(x), 2), nn.Conv3d(1, 2, 3, padding=1, bias=False)), (1, 1, 6, 8, 7)
    ),
}  # fmt: skip
LOOSE: dict[str, tuple[nn.Module, tuple[int, ...]]] = {
    "segnet": (Does(segnet, conv(1, 1, 3, padding=1)), (1, 1, 8, 8)),
    "max-pools": (Does(lambda x, a: F.max_pool2d(a(x), 3, 2, 1, 1, True), conv(1, 1, 3, padding=1)), (1, 1, 12, 9)),
    "uneven max-pool": (Does(lambda x: F.adaptive_max_pool2d(x, (5, 3))), (1, 1, 13, 7)),
    "layer norm": (
        Does(lambda x, a, n: n(a(x).movedim(1, 3)).movedim(3, 1), conv(1, 3, 3, padding=1), nn.LayerNorm(3)),
        (1, 1, 7, 7),
    ),
    "local response": (Does(lambda x, a: F.local_response_norm(a(x), 3), conv(1, 5, 3, padding=1)), (1, 1, 7, 7)),
    "channel attention": (Does(lambda x, a: a(x) * a(x).softmax(1), conv(1, 3, 3, padding=1)), (1, 1, 7, 7)),
}  # fmt: skip


@pytest.mark.parametrize("name", TIGHT)
def test_a_field_is_what_has_a_gradient(name: str) -> None:
    net, shape = TIGHT[name]
    check(net.eval(), torch.rand(shape) + 0.1)


@pytest.mark.parametrize("name", TIGHT | LOOSE)
def test_pixels_outside_a_field_do_not_matter(name: str) -> None:
    net, shape = (TIGHT | LOOSE)[name]
    x = torch.randn(shape)
    trace = record(net.eval(), x)
    field = fields(trace)[trace.output]
    for position in places(field, 8):
        other = torch.randn(shape) * 10
        inside = (slice(None), slice(None), *(slice(*side) for side in field.box(position)))
        other[inside] = x[inside]
        assert name not in LOOSE or not torch.equal(other, x), "something lies outside"
        with torch.no_grad():
            assert torch.equal(net(other)[(0, slice(None), *position)], trace.scores[(0, slice(None), *position)])


def test_tokens_are_places_too() -> None:
    net = Does(lambda x, a: a(x).flatten(2).transpose(1, 2), conv(1, 3, 4, stride=4))
    trace = record(net.eval(), torch.rand(1, 1, 12, 8))
    field = fields(trace)[trace.output]
    assert field.positions == (6,)
    assert [field.box((n,)) for n in range(6)] == [
        ((4 * r, 4 * r + 4), (4 * c, 4 * c + 4)) for r, c in product(range(3), range(2))
    ]
    assert field.stride_px == (4.0, 4.0)


def squeeze(x: Tensor, a: nn.Module, b: nn.Module) -> Tensor:
    y = a(x)
    return y * torch.sigmoid(b(y.mean((2, 3), keepdim=True)))


def attend(x: Tensor, a: nn.Module) -> Tensor:
    y = a(x)
    tokens = y.flatten(2).transpose(1, 2)
    mixed = (tokens @ tokens.transpose(1, 2)).softmax(-1) @ tokens
    return y + mixed.transpose(1, 2).reshape(y.shape)


def attend_at_once(x: Tensor, a: nn.Module) -> Tensor:
    y = a(x)
    tokens = y.flatten(2).transpose(1, 2)
    return y + F.scaled_dot_product_attention(tokens, tokens, tokens).transpose(1, 2).reshape(y.shape)


GLOBAL = {
    "mean": Does(squeeze, conv(1, 2, 3, padding=1), conv(2, 2, 1)),
    "matmul": Does(attend, conv(1, 2, 3, padding=1)),
    "scaled_dot_product_attention": Does(attend_at_once, conv(1, 2, 3, padding=1)),
    "group_norm": Does(lambda x, a, n: n(a(x)), conv(1, 2, 3, padding=1), nn.GroupNorm(1, 2)),
    "instance_norm": Does(lambda x, a, n: n(a(x)), conv(1, 2, 3, padding=1), nn.InstanceNorm2d(2, affine=True)),
    "grid_sampler": Does(
        lambda x, a: a(x) + F.grid_sample(x, torch.zeros(1, 8, 8, 2), align_corners=False), conv(1, 1, 3, padding=1)
    ),
}


@pytest.mark.parametrize("name", GLOBAL)
def test_what_sees_everything_is_named_and_the_local_way_stays(name: str) -> None:
    trace = record(GLOBAL[name].eval(), torch.rand(1, 1, 8, 8))
    field = fields(trace)[trace.output]
    assert field.everywhere.startswith(name)
    assert field.box((3, 4)) == ((0, 8), (0, 8))
    assert field.reach((3, 4)) == ((2, 4), (3, 5)), "the way around it"


def test_a_head_sees_everything() -> None:
    net = nn.Sequential(conv(1, 2, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(2, 3)).eval()
    trace = record(net, torch.rand(1, 1, 8, 8))
    found = fields(trace)
    pooled, scores = found[trace.at("1")], found[trace.output]
    assert pooled.everywhere == "adaptive_avg_pool2d in 1" and pooled.box((0, 0)) == ((0, 8), (0, 8))
    assert scores.positions == () and scores.box(()) == ((0, 8), (0, 8)) and scores.size_px == (8, 8)
    assert found[trace.at("0")].everywhere == ""


def test_an_index_that_hangs_on_the_picture_can_fetch_anything() -> None:
    net = Does(lambda x, a: a(x).gather(3, a(x).argmax(3, keepdim=True).expand(-1, -1, -1, 6)), conv(1, 1, 3))
    trace = record(net, torch.rand(1, 1, 8, 8))
    assert fields(trace)[trace.output].everywhere.startswith("gather")


def test_ways_that_are_centred_differently_are_told() -> None:
    straight = Does(lambda x, a, b: a(x) + b(x), conv(1, 1, 3, padding=1, stride=2), conv(1, 1, 1, stride=2))
    shifted = Does(lambda x, a: a(x) + F.avg_pool2d(x, 2), conv(1, 1, 3, padding=1, stride=2))
    joined = Does(lambda x, a: torch.cat([a(x), x[:, :, 1:-1, :-2]], 1), conv(1, 1, 3))
    told = []
    for net in (straight, shifted, joined):
        trace = record(net, torch.rand(1, 1, 16, 16))
        told.append(fields(trace)[trace.output].aligned)
    assert told == [True, False, False]


def test_a_batch_and_one_picture_have_the_same_fields() -> None:
    net = Does(windows)
    one, many = (record(net, torch.rand(n, 2, 12, 8)) for n in (1, 3))
    a, b = fields(one)[one.output], fields(many)[many.output]
    assert all(np.array_equal(x, y) for x, y in zip((*a.low, *a.high), (*b.low, *b.high), strict=True))


def test_a_plain_sequence_follows_the_recursion() -> None:
    net = nn.Sequential(
        conv(3, 4, 7, stride=2, padding=3), nn.MaxPool2d(3, 2, 1), conv(4, 4, 3, padding=2, dilation=2), nn.AvgPool2d(2)
    ).eval()
    trace = record(net, torch.rand(1, 3, 90, 120))
    field, told = fields(trace)[trace.output], recursion(steps_of(list(net)))
    assert field.size_px == (told.size, told.size) and field.stride_px == (told.stride, told.stride)
    assert field.centre((0, 0)) == (told.start + 0.5, told.start + 0.5)


def test_the_border_is_cut_and_a_unit_in_the_padding_sees_nothing() -> None:
    trace = record(conv(1, 1, 1, padding=2).eval(), torch.rand(1, 1, 5, 5))
    field = fields(trace)[trace.output]
    assert field.reach((0, 2)) == ((-2, -2), (0, 0)) and field.box((0, 2)) == ((0, 0), (0, 1))
    assert field.box((8, 2))[0] == (5, 5)


REFERENCE = {
    "alexnet": ("features", 195, 32),
    "vgg16": ("features", 212, 32),
    "resnet18": ("layer4", 435, 32),
    "resnet50": ("layer4", 427, 32),
    "squeezenet1_1": ("features", 207, 16),
    "mobilenet_v2": ("features.17", 491, 32),
}


@pytest.mark.parametrize("name", REFERENCE)
def test_the_reference_table(name: str) -> None:
    """Sizes and strides of published networks: the specification's §1.11; Araujo et al. 2019, table 1."""
    models = pytest.importorskip("torchvision").models
    layer, size, stride = REFERENCE[name]
    trace = record(getattr(models, name)(weights=None).eval(), torch.zeros(1, 3, 224, 224))
    field = fields(trace)[trace.at(layer)]
    assert field.size_px == (size, size) and field.stride_px == (stride, stride)
    assert field.aligned and not field.everywhere


SMALL = {
    "alexnet": ("features.6", 95, ()),
    "resnet18": ("layer2", 120, ()),
    "squeezenet1_1": ("features.9", 120, ()),
    "mobilenet_v2": ("features.8", 160, ()),
    "densenet121": ("features.denseblock2", 120, ()),
    "googlenet": ("inception4a", 200, ()),
    "shufflenet_v2_x1_0": ("stage2", 100, ()),
    "convnext_tiny": ("features.1.1", 64, ()),
    "inception_v3": ("Mixed_5c", 120, ()),
    "efficientnet_b0": ("features.3", 90, "SE"),
}


@pytest.mark.slow
@pytest.mark.parametrize("name", SMALL)
def test_fields_of_published_networks_are_what_their_positive_twin_sees(name: str) -> None:
    models = pytest.importorskip("torchvision").models
    layer, size, gates = SMALL[name]
    words = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    model = getattr(models, name)(weights=None, **words).eval()
    trace = record(model, torch.zeros(1, 3, size, size))
    field = fields(trace)[trace.at(layer)]
    bypass = [n for n, m in model.named_modules() if gates and "Squeeze" in type(m).__name__]
    assert bool(field.everywhere) == bool(gates)
    twin = Twin(model, layer, bypass)
    side = field.positions[0]
    for position in ((0, 0), (side // 2, side // 3), (side - 1, side // 2)):
        found = box(support_by_gradient(twin, position, 3, (size, size)))
        told = [(max(first, 0), min(last, size - 1)) for first, last in field.reach(position)]
        assert all(a <= c and d <= b for (a, b), (c, d) in zip(told, found, strict=True))
        inside = all(first >= 0 and last < size for first, last in field.reach(position))
        assert told == found or not inside


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet18", "swin_t", "convnext_tiny", "densenet121", "mobilenet_v2", "swin_v2_t"])
def test_pixels_outside_do_not_matter_in_published_networks(name: str) -> None:
    """Bit by bit, in every layer with maps whose field leaves something out."""
    models = pytest.importorskip("torchvision").models
    model = getattr(models, name)(weights=None).eval()
    x = torch.randn(1, 3, 224, 224)
    trace = record(model, x)
    found, tried = fields(trace), 0
    layers = [n for n in trace.layers if n.count(".") <= 1 and trace.layers[n] and len(trace.at(n).shape) == 4]
    for layer in layers:
        value = trace.at(layer)
        field = found[value]
        if len(field.positions) != 2 or field.everywhere:
            continue
        position = tuple(n // 5 for n in field.positions)
        inside = (slice(None), slice(None), *(slice(*side) for side in field.box(position)))
        other = torch.randn(1, 3, 224, 224) * 5
        other[inside] = x[inside]
        if torch.equal(other, x):
            continue
        axis = 1 if tuple(value.shape[2:]) == field.positions else 3
        then, now = (
            data.movedim(axis, 1)[(0, slice(None), *position)]
            for data in (value.data, record(model, other).at(layer).data)
        )
        assert torch.equal(then, now), layer
        tried += 1
    assert tried >= 3
