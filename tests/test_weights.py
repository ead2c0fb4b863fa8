"""Weights read off the recording: what was multiplied, what BatchNorm adds, dead and near-alike filters, and paths."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F
from torch.nn.utils import parametrizations

import pellucid as pel
from method_cases import D, pooled, random_input, undrawn
from networks.awkward import AWKWARD, example
from networks.common import seeded
from oracles import wiring as slow
from pellucid.core.errors import LayerError, ModelError
from pellucid.core.progress import Progress
from pellucid.core.record import record
from pellucid.inside.wiring import kernels as kernels_module
from pellucid.inside.wiring.kernels import Kernel, between_groups, filters_behind, kernels
from pellucid.inside.wiring.weights import strongest, weights
from pellucid.inside.wiring.weights_sheet import _averaged, tiles
from test_gradient_methods import SINGLE


def one_layer(layer: nn.Module, x: Tensor) -> Kernel:
    (found,) = kernels(record(nn.Sequential(layer).to(D).eval(), x), Progress(), seen=True)
    return found


LAYERS: dict[str, tuple[Callable[[], nn.Module], tuple[int, ...]]] = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, 2, 1), (1, 3, 9)),
    "conv2d": (lambda: nn.Conv2d(3, 4, (3, 2), 2, 1, dilation=2), (1, 3, 9, 8)),
    "conv3d": (lambda: nn.Conv3d(2, 4, 3, padding=1), (1, 2, 4, 5, 4)),
    "grouped": (lambda: nn.Conv2d(6, 4, 3, groups=2), (1, 6, 6, 5)),
    "depthwise": (lambda: nn.Conv2d(4, 8, 3, groups=4, padding=1), (1, 4, 5, 5)),
    "same": (lambda: nn.Conv2d(3, 4, (2, 4), padding="same"), (1, 3, 6, 7)),
    "circular": (lambda: nn.Conv2d(3, 4, 3, padding=1, padding_mode="circular"), (1, 3, 6, 7)),
    "transposed": (lambda: nn.ConvTranspose2d(3, 5, 3, 2, 1, 1), (1, 3, 5, 4)),
    "transposed_groups": (lambda: nn.ConvTranspose2d(6, 4, 3, 2, groups=2, bias=False), (1, 6, 4, 4)),
    "transposed1d": (lambda: nn.ConvTranspose1d(3, 4, 4, 2), (1, 3, 5)),
    "linear": (lambda: nn.Linear(5, 3), (1, 5)),
    "linear_everywhere": (lambda: nn.Linear(5, 3, bias=False), (1, 4, 4, 5)),
}


@pytest.mark.parametrize("name", LAYERS)
def test_each_connection_is_what_its_channel_alone_gives(name: str):
    """The slow definition: all channels but one set to zero, the biases taken away, everything summed up."""
    layer, x = LAYERS[name][0]().to(D), random_input(*LAYERS[name][1])
    found = one_layer(layer, x)
    axis = 1 if x.dim() > 2 and not isinstance(layer, nn.Linear) else x.dim() - 1
    assert found.paths is not None and found.paths.shape == (x.shape[axis], found.filters)
    empty = layer(torch.zeros_like(x))
    for channel in range(x.shape[axis]):
        alone = torch.zeros_like(x).index_copy_(axis, torch.tensor([channel]), x.narrow(axis, channel, 1))
        given = (layer(alone) - empty).movedim(axis, 0).flatten(1).sum(1).detach().numpy()
        np.testing.assert_allclose(found.paths[channel], given, rtol=1e-10, atol=1e-10)


@pytest.mark.parametrize("name", LAYERS)
def test_each_length_is_the_length_of_what_an_impulse_gives(name: str):
    """`matrix[i, o]`, by one channel of noise with spread 1: the mean square of what comes out over many positions."""
    layer = LAYERS[name][0]().to(D)
    found = one_layer(layer, random_input(*LAYERS[name][1]))
    raw = layer.weight.detach()
    assert found.matrix.shape == (found.channels, found.filters)
    np.testing.assert_allclose(np.square(found.matrix).sum(), float(raw.square().sum()), rtol=1e-12)
    np.testing.assert_allclose(found.norms, np.sqrt(np.square(found.matrix).sum(0)), rtol=1e-12)
    if isinstance(layer, nn.Linear):
        np.testing.assert_allclose(found.matrix, raw.abs().T, rtol=1e-12)
        return
    axes = raw.dim() - 2
    wide = torch.zeros(1, found.channels, *[15] * axes, dtype=D)
    wide[(0, 0, *[7] * axes)] = 1
    step = F.conv1d if axes == 1 else F.conv2d if axes == 2 else F.conv3d
    if "transposed" in name:
        step = F.conv_transpose1d if axes == 1 else F.conv_transpose2d
    out = step(wide, raw, groups=found.groups)[0]
    np.testing.assert_allclose(found.matrix[0], out.flatten(1).square().sum(1).sqrt(), rtol=1e-12)


def test_batch_norm_is_scale_and_shift_and_merges():
    model, x = pooled(), random_input(2, 3, 8, 8)
    first, second, _ = kernels(record(model, x), Progress())
    for kernel, conv, norm in ((first, model[0], model[1]), (second, model[3], model[4])):
        sigma = torch.sqrt(norm.running_var + norm.eps)
        np.testing.assert_allclose(kernel.norm.scale, (norm.weight / sigma).detach(), rtol=1e-12)
        np.testing.assert_allclose(kernel.norm.shift, (norm.bias - norm.running_mean * norm.weight / sigma).detach())
        given = norm(conv(torch.zeros(1, conv.in_channels, 9, 9, dtype=D)))[0, :, 4, 4].detach()
        np.testing.assert_allclose(kernel.merged_bias, given, rtol=1e-10)
        np.testing.assert_allclose(kernel.bias, conv.bias.detach())
    assert first.first and not second.first and second.name == "3" and second.norm.name == "4"


def test_norms_and_implicit_biases_by_another_hand():
    model, x = pooled(), random_input(2, 3, 8, 8)
    found = kernels(record(model, x), Progress())
    layers = {name: layer for name, layer in model.named_children() if hasattr(layer, "weight")}
    for kernel in found:
        np.testing.assert_allclose(kernel.matrix, slow.norm_matrix(layers[kernel.name]), rtol=1e-12)
        np.testing.assert_allclose(kernel.bias, slow.explicit_bias(layers[kernel.name]))
    np.testing.assert_allclose(found[0].norm.shift, slow.implicit_bias(layers["1"]), rtol=1e-12)
    grouped = nn.Conv2d(6, 4, 3, groups=2)
    given = one_layer(grouped, random_input(1, 6, 5, 5))
    np.testing.assert_allclose(given.matrix, slow.norm_matrix(grouped), rtol=1e-12)


def test_dead_and_alike_filters_are_found():
    def make() -> nn.Module:
        net = nn.Sequential(nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), nn.ReLU(), nn.Conv2d(6, 4, 3, groups=2), nn.ReLU())
        with torch.no_grad():
            net[0].weight[1] = 0
            net[0].weight[4] = 2.5 * net[0].weight[2] + 0.01 * torch.randn_like(net[0].weight[2])
            net[0].weight[5] = -net[0].weight[2]
            net[3].weight[3] = net[3].weight[0]
        return net

    model = seeded(make)()
    with torch.no_grad():
        model[1].weight[3] = 0
        model[0].weight[1] = 0
    found = weights(model, image=random_input(1, 3, 8, 8, dtype=torch.float32))
    first, second = found.kernels
    assert first.dead.tolist() == [False, True, False, True, False, False]
    assert [pair[:2] for pair in first.twins] == [(2, 4)] and 0.99 < first.twins[0][2] < 1
    assert second.twins == (), "filters 0 and 3 are of different groups: they look at other channels"
    assert "dead filters: 2 in 0" in found.sentence() and "cosine over 0.95: 1 in 0" in found.sentence()


def test_a_layer_of_zeros_is_dead():
    conv = nn.Conv2d(3, 2, 3)
    nn.init.zeros_(conv.weight)
    assert one_layer(conv, random_input(1, 3, 5, 5)).dead.all()


class Functional(nn.Module):
    """Weights that no module owns as its kernel, one used twice, one made in the forward, one parametrised."""

    def __init__(self) -> None:
        super().__init__()
        self.w, self.v = nn.Parameter(torch.randn(4, 3, 3, 3)), nn.Parameter(torch.randn(4, 4, 1, 1))
        self.normed = parametrizations.weight_norm(nn.Conv2d(4, 4, 3, padding=1))
        self.m = nn.Parameter(torch.randn(4, 5))
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        x = F.conv2d(x, self.w - self.w.mean((1, 2, 3), keepdim=True)).relu_()
        x = self.normed(self.normed(x)).relu() + F.conv2d(F.conv2d(x, self.v), self.v)
        return x.mean((2, 3)) @ self.m


def test_functional_reused_standardised_and_parametrised_weights():
    model, x = Functional(), random_input(1, 3, 7, 7, dtype=torch.float32)
    found = {k.name: k for k in kernels(record(model, x), Progress(), seen=True)}
    assert list(found) == [":conv2d#0", "normed", ":conv2d#1", ":matmul#2"]
    assert [k.calls for k in found.values()] == [1, 2, 2, 1]
    standard = (model.w - model.w.mean((1, 2, 3), keepdim=True)).detach()
    np.testing.assert_allclose(found[":conv2d#0"].weight, standard)
    np.testing.assert_allclose(found["normed"].weight, model.normed.weight.detach())
    np.testing.assert_allclose(found[":matmul#2"].weight, model.m.T.detach())
    h = F.conv2d(x, standard).relu()
    inner = model.v[:, :, 0, 0] * (h + F.conv2d(h, model.v)).sum((0, 2, 3))
    np.testing.assert_allclose(found[":conv2d#1"].paths, inner.T.detach(), rtol=2e-4, atol=1e-4)
    assert weights(model, "normed", x).kernels[0].calls == 2


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_on_awkward_networks_the_paths_sum_to_what_came_out_less_the_bias(name: str):
    trace = record(AWKWARD[name][0]().to(D), *example(AWKWARD[name][1], dtype=D))
    for kernel in kernels(trace, Progress(), seen=True):
        whole = 0.0
        for node in (trace.nodes[p] for p in kernel.positions):
            x = node.inputs[0]
            given, empty = (node.run({x: data}).double().sum() for data in (x.data, torch.zeros_like(x.data)))
            whole += float(given - empty) / trace.batch
        assert abs(kernel.paths.sum() - whole) <= 1e-9 * max(1, np.abs(kernel.paths).sum()), kernel


def test_what_is_shown_is_a_copy(untouched):
    model, x = pooled(), random_input(1, 3, 8, 8)
    with untouched(model), undrawn():
        found = weights(model, image=x)
        found.kernels[0].weight[:] = 7
        found.image()


def test_a_layer_without_weights_stands_for_those_that_make_it():
    model = pel.load("builtin:photos")
    assert [k.name for k in weights(model, "stem").kernels] == ["stem.0"]
    assert [k.name for k in weights(model, "stem.2").kernels] == ["stem.0"]
    assert len(weights(model, "stage2").kernels) == 4
    with pytest.raises(LayerError, match='did you mean "stage2"'):
        weights(model, "stage3")
    with pytest.raises(LayerError, match="no layer with constant weights"):
        weights(nn.Sequential(nn.ReLU()), image=random_input(1, 3, 4, 4))
    with pytest.raises(ModelError, match="input size"):
        weights(nn.Sequential(nn.Conv2d(3, 2, 1)))
    with pytest.raises(LayerError, match=r'did you mean "stem\.0"'):
        weights(model, "stem").of("stem.1")


class Branches(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(3, 2, 1), nn.Conv2d(3, 3, 1), nn.Conv2d(3, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(torch.cat([self.a(x), F.relu(self.b(x) + self.c(x))], 1))


def test_filters_behind_a_channel_of_sums_and_concatenations():
    trace = record(Branches().eval(), random_input(1, 3, 4, 4, dtype=torch.float32))
    named = [[(node.path, n) for node, n in filters_behind(trace.output, c)] for c in range(5)]
    assert named[0] == [("a", 0)] and named[1] == [("a", 1)]
    assert sorted(named[3]) == [("b", 1), ("c", 1)]


def test_between_groups_is_zero_elsewhere():
    found = between_groups(np.arange(1.0, 9).reshape(4, 2), 2)
    assert found.tolist() == [[1, 3, 0, 0], [2, 4, 0, 0], [0, 0, 5, 7], [0, 0, 6, 8]]


def test_a_bias_that_is_added_behind_is_the_layers():
    class Added(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(2, 3, 1, 1)), nn.Parameter(torch.tensor([1.0, -2.0]))

        def forward(self, x: Tensor) -> Tensor:
            return F.conv2d(x, self.w) + self.b[:, None, None]

    (found,) = kernels(record(Added().eval(), random_input(1, 3, 4, 4, dtype=torch.float32)), Progress())
    assert found.bias.tolist() == [1, -2]


# --------------------------------------------------------------------------------------------------- what it looks like


def tile_colours(weight: Tensor) -> np.ndarray:
    conv = nn.Conv2d(3, weight.shape[0], weight.shape[-1], bias=False)
    conv.weight.data[:] = weight
    panel = tiles(one_layer(conv, random_input(1, 3, 5, 5)))
    assert panel is not None
    return np.asarray(panel[0])


def test_grey_is_zero_and_colours_are_the_channels():
    weight = torch.zeros(1, 3, 1, 1)
    assert tile_colours(weight)[0, 0].tolist() == [128, 128, 128]
    weight[0, :, 0, 0] = torch.tensor([1.0, -1.0, 0.5])
    red, green, blue = tile_colours(weight)[0, 0].tolist()
    assert red == 255 and green == 0 and 185 < blue < 195


@pytest.mark.parametrize("channels", [1, 2, 3, 12, 40])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_every_kind_of_layer_is_drawn(axes: int, channels: int):
    conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1]
    net = nn.Sequential(conv(channels, 6, 3), nn.ReLU(), conv(6, 4, 1), nn.Flatten(), nn.LazyLinear(3)).eval()
    x = random_input(1, channels, *[5] * axes, dtype=torch.float32)
    net(x)
    found = weights(net, image=x)
    assert found.image().width > 200
    for kernel in found.kernels:
        assert weights(net, kernel.name, x).image().height > 100


def test_a_large_linear_layer_is_averaged_before_it_is_drawn():
    wide = torch.zeros(700, 6000)
    wide[350:, :3000] = 1
    layer = nn.Linear(6000, 700)
    layer.weight.data[:] = wide
    found = kernels(record(nn.Sequential(layer).eval(), torch.ones(1, 6000)), Progress())[0]
    assert found.matrix.shape == (6000, 700)
    small = _averaged(found.matrix, 150)
    assert small.shape == (150, 18) or small.shape == (150, 17)
    assert small[:75, -8:].min() == 1 and small[75:].max() == 0 and small[:, :8].max() == 0
    np.testing.assert_allclose(_averaged(np.arange(12.0).reshape(3, 4), 9), np.arange(12.0).reshape(3, 4))
    np.testing.assert_allclose(_averaged(np.arange(4.0).reshape(1, 4), 2), [[0.5, 2.5]])


def test_filters_that_are_too_many_are_not_compared(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(kernels_module, "MOST_PRODUCTS", 10)
    found = weights("builtin:photos", "stem")
    assert found.kernels[0].twins is None
    assert found.tables[0].column("alike") == [None] and "not compared" in found.sentence()


def test_gates_and_mixed_axes_make_no_channel():
    class Gated(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.gate, self.rows = nn.Conv2d(3, 4, 1), nn.Conv2d(4, 4, 1), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            x = self.conv(x)
            return self.rows(x * torch.sigmoid(self.gate(x.mean((2, 3), keepdim=True)))).relu()

    trace = record(Gated().eval(), random_input(1, 3, 4, 4, dtype=torch.float32))
    assert filters_behind(trace.output, 1) == [], "the linear layer mixes columns, not channels"
    before = trace.at("rows").node.inputs[0]
    assert [(node.path, n) for node, n in filters_behind(before, 1)] == [("conv", 1)]


def test_files_tables_and_words(tmp_path: Path):
    photo = Image.fromarray(np.random.default_rng(0).integers(0, 255, (40, 50, 3), np.uint8))
    found = weights("builtin:photos", "stem.0", photo)
    for suffix in (".png", ".html", ".json"):
        assert found.save(tmp_path / f"w{suffix}").stat().st_size > 1000
    facts = json.loads((tmp_path / "w.json").read_text())
    assert [t["name"] for t in facts["tables"]] == ["layers", "filters", "connections"]
    i, o, value, share = strongest(found.kernels[0], 1)[0]
    assert found.kernels[0].paths[i, o] == value and 0 < share < 1
    assert found.kernels[0].paths.shape == (3, 32)
    assert abs(found.kernels[0].paths).max() == abs(value)
    assert "9 layers with" in weights("builtin:photos").sentence()
    assert repr(weights("builtin:photos")) == "Weights(builtin:photos, 9 layers)"


@pytest.mark.parametrize(
    ("name", "count", "first"), [("squeezenet1_1", 26, (64, 3, 3, 3)), ("mobilenet_v2", 53, (32, 3, 3, 3))]
)
def test_real_networks(data: Path, name: str, count: int, first: tuple[int, ...]):
    from test_real_photos import network

    model = network(data, name)
    found = weights(model)
    assert len(found.kernels) == count and found.kernels[0].weight.shape == first and found.kernels[0].first
    owned = {n: m for n, m in model.module.named_modules() if isinstance(m, (nn.Conv2d, nn.Linear))}
    assert {k.name for k in found.kernels} == set(owned)
    for kernel in found.kernels:
        np.testing.assert_array_equal(kernel.weight, owned[kernel.name].weight.detach())
    assert found.image().width > 900
