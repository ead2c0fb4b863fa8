"""FullGrad: the shares add up to the score on every kind of network, and the map is the paper's."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import D, check, close, error, heat, outcome, plain, pooled, random_input, score
from networks import zoo
from networks.awkward import AWKWARD, BATCH_DEPENDENT, example, twin
from networks.common import seeded
from oracles import cams
from pellucid.core.layout import layout
from pellucid.core.record import record
from test_gradient_methods import SINGLE, class_per_image

ARCHITECTURES = (
    "resnet18",
    "squeezenet1_1",
    "mobilenet_v2",
    "mobilenet_v3_small",
    "efficientnet_b0",
    "convnext_tiny",
    "vit_b_32",
    "swin_t",
)


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_complete_on_every_awkward_network(name: str):
    x = example(AWKWARD[name][1], dtype=D)
    found = outcome(AWKWARD[name][0]().to(D), x, "fullgrad", pel.custom(class_per_image))
    for image in range(len(found.receipts)):
        assert check(found, "completeness residual", image) <= 1e-8


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_complete_on_architectures(name: str):
    found = outcome(zoo.build(name).to(D), zoo.picture(name, dtype=D), "fullgrad")
    assert check(found, "completeness residual") <= 1e-8
    assert found.attribution.shape == (1, 64, 64)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("make", [plain, pooled])
def test_the_map_in_one_two_and_three_axes(axes: int, make):
    model, x = make(axes), random_input(2, 3, *[8] * axes)
    close(heat(model, x, "fullgrad"), cams.full_grad(model, x, score()), 1e-11)


@pytest.mark.parametrize("name", ["inplace_residual", "view_relu", "dense_concat", "functional_relu_reused", "padding"])
def test_the_map_on_awkward_networks_with_relu(name: str):
    (x,) = example(AWKWARD[name][1], dtype=D)
    model = Rectified(AWKWARD[twin(name)][0]().to(D))
    assert cams.full_gradient(model, x, score()).residual().abs() < 1e-10
    close(heat(model, x, "fullgrad"), cams.full_grad(model, x, score()), 1e-9)


class Rectified(nn.Module):
    """The network with every tanh (the trunk of the awkward networks ends in one) replaced by a ReLU."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside = inside
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        original, torch.tanh = torch.tanh, torch.relu
        try:
            return self.inside(x)
        finally:
            torch.tanh = original


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1"])
def test_the_map_on_architectures(name: str):
    model, x = zoo.build(name).to(D), zoo.picture(name, dtype=D)
    parts = cams.full_gradient(model, x, score())
    assert abs(float(parts.residual() / parts.value)) < 1e-10
    close(heat(model, x, "fullgrad"), cams.full_grad(model, x, score()), 1e-8)


class ChannelsLast(nn.Module):
    """Linear layers on (b, h, w, c), as in ConvNeXt and Swin, but with ReLU: the slow definition is complete on it."""

    def __init__(self, last: bool) -> None:
        super().__init__()
        self.last = last
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Linear(7, 4)
        self.wide, self.narrow = nn.Linear(6, 12), nn.Linear(12, 7)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x))
        if self.last:
            x = F.relu(self.narrow(F.relu(self.wide(x.permute(0, 2, 3, 1))))).permute(0, 3, 1, 2)
        else:
            for layer in (self.wide, self.narrow):
                x = F.relu(F.conv2d(x, layer.weight[:, :, None, None], layer.bias))
        return self.head(x.mean((2, 3)))


def test_channels_last_gives_the_map_of_channels_first():
    first, last = (seeded(lambda flag=flag: ChannelsLast(flag))().to(D) for flag in (False, True))
    x = random_input(2, 3, 8, 8)
    close(last(x), first(x), 1e-12)
    expected = cams.full_grad(first, x, score())
    close(heat(first, x, "fullgrad"), expected, 1e-10)
    close(heat(last, x, "fullgrad"), expected, 1e-10)
    close(cams.full_grad(last, x, score()), expected, 1e-10)


def test_a_cam_at_a_channels_last_layer_is_the_cam_of_channels_first():
    last, x = seeded(lambda: ChannelsLast(True))().to(D), random_input(2, 3, 8, 8)
    A, G = cams.activation_and_gradient(last, "narrow", x, score())
    expected = cams.each(cams.hires_cam, A.movedim(3, 1), G.movedim(3, 1))
    close(heat(last, x, "hires_cam", layers="narrow"), expected, 1e-11)
    assert heat(last, x, "grad_cam", layers="narrow").shape == (2, 8, 8)


def test_axes_are_followed_through_permutations():
    model, x = seeded(lambda: ChannelsLast(True))().to(D), random_input(2, 3, 8, 8)
    trace = record(model, x)
    places = layout(trace)
    assert places[trace.at("conv")] == (0, 1)
    assert places[trace.at("wide")] == (0, 3)
    assert places[trace.at("head")].batch == 0


def test_fresh_batch_norm_adds_nothing():
    """Its shift is exactly zero; computed as a difference it is rounding, which rescaling would blow up to 0..1."""
    base = seeded(lambda: nn.Sequential(nn.Conv2d(3, 8, 3), nn.ReLU(), nn.Flatten(), nn.LazyLinear(4)))().to(D)
    x = random_input(2, 3, 8, 8)
    base(x)
    norm = nn.BatchNorm2d(8, eps=1e-3).to(D).eval()
    with_norm = nn.Sequential(base[0], norm, *base[1:]).eval()
    scaled = nn.Sequential(base[0], Times(float((1 + 1e-3) ** -0.5)), *base[1:]).eval()
    close(heat(with_norm, x, "fullgrad"), heat(scaled, x, "fullgrad"), 1e-10)
    close(heat(with_norm, x, "fullgrad"), cams.full_grad(with_norm, x, score()), 1e-10)


class Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        return x * self.factor


@pytest.mark.parametrize("act", [nn.SiLU, nn.GELU, nn.Tanh, nn.ReLU6])
def test_what_a_bent_operation_adds_is_on_the_map(act: type[nn.Module]):
    """y − y' x at each position, as one more bias per channel beside those of the convolutions."""
    model, x = plain(act=act), random_input(1, 3, 8, 8)
    slow = cams.full_grad(model, x, score())
    for place in (1, 3, 5):
        before = nn.Sequential(*list(model)[:place])(x)
        _, G = cams.activation_and_gradient(model, str(place), x, score())
        _, g = cams.activation_and_gradient(model, str(place - 1), x, score())
        share = (G * model[place](before) - g * before).abs()
        share = torch.where(share > 1e-13, share, 0)
        low, high = share.amin((2, 3), keepdim=True), share.amax((2, 3), keepdim=True)
        scaled = torch.where(high > low, (share - low) / (high - low).clamp(min=1e-300), 0)
        slow = slow + F.interpolate(scaled, size=(8, 8), mode="bilinear", align_corners=False).sum(1)
    close(heat(model, x, "fullgrad"), slow, 1e-9)


@pytest.mark.parametrize(
    "name", ["attention", "encoder", "squeeze_excite", "norms", "inplace_residual", "convnext_block"]
)
def test_a_batch_is_its_images(name: str):
    assert name not in BATCH_DEPENDENT
    model, x = AWKWARD[name][0]().to(D), random_input(3, *AWKWARD[name][1][0][1:])
    together = heat(model, x, "fullgrad", [1, 0, 2])
    alone = [heat(model, x[i : i + 1], "fullgrad", c) for i, c in enumerate([1, 0, 2])]
    close(together, torch.cat(alone), 1e-9)


def test_the_map_is_of_the_class():
    model, x = pooled(), random_input(1, 3, 8, 8)
    assert error(heat(model, x, "fullgrad", 2), heat(model, x, "fullgrad", 1)) > 0.01
