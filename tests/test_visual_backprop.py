"""VisualBackProp: the paper's chain by a slow oracle, and what is decided about every other graph."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import D, close, heat, outcome, random_input, undrawn
from networks import zoo
from networks.awkward import AWKWARD, example
from networks.common import seeded
from oracles import visual_backprop as slow
from oracles import wiring
from pellucid.core.errors import MethodError
from pellucid.core.record import record
from pellucid.methods import METHODS, visual_backprop
from test_gradient_methods import SINGLE, class_per_image


def headed(body: nn.Sequential, x: Tensor) -> nn.Module:
    """A chain with a linear head behind global average pooling, float64."""
    axes, k = x.dim() - 2, body(x).shape[1]
    pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1]
    return nn.Sequential(body, pool(1), nn.Flatten(), seeded(lambda: nn.Linear(k, 5))().to(D)).eval()


def chain(make) -> nn.Sequential:
    return seeded(lambda: nn.Sequential(*make()))().to(D)


CHAINS = {
    "strided": lambda: [nn.Conv2d(3, 4, 5, 2), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 5, 3), nn.ReLU()],
    "padded": lambda: [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), nn.Conv2d(4, 6, 3, 1, 2, dilation=2), nn.ReLU()],
    "pooled": lambda: [
        *[nn.Conv2d(3, 4, 3, padding=1), nn.BatchNorm2d(4), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2, 1)],
        *[nn.Conv2d(4, 6, 3), nn.ReLU(), nn.AvgPool2d(2), nn.Conv2d(6, 4, 2), nn.ReLU()],
    ],
    "ceiling": lambda: [
        nn.Conv2d(3, 4, 3),
        nn.ReLU(),
        nn.MaxPool2d(3, 2, ceil_mode=True),
        nn.Conv2d(4, 4, 2),
        nn.ReLU(),
    ],
    "transposed": lambda: [
        *[nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.ConvTranspose2d(4, 5, 3, 2, 1, 1), nn.ReLU()],
        *[nn.Conv2d(5, 4, 3), nn.ReLU()],
    ],
    "unrectified": lambda: [nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.ReLU(), nn.Conv2d(4, 4, 3)],
}


@pytest.mark.parametrize("name", CHAINS)
def test_a_chain_is_the_papers(name: str):
    body, x = chain(CHAINS[name]), random_input(2, 3, 16, 18)
    model = headed(body, x)
    last = max(i for i, layer in enumerate(body) if isinstance(layer, nn.ReLU))
    expected = slow.visual_backprop(body[: last + 1], x)
    close(heat(model, x, "visual_backprop"), expected, 1e-12)
    assert visual_backprop.visual_backprop.doctor(record(model, x)).fit == "exact"


@pytest.mark.parametrize("name", ["strided", "padded", "pooled"])
def test_a_chain_by_another_hand(name: str):
    body, x = chain(CHAINS[name]), random_input(1, 3, 16, 18)
    expected = torch.from_numpy(wiring.visual_backprop(body, x))
    close(heat(headed(body, x), x, "visual_backprop")[0], expected / expected.max(), 1e-12)


def test_both_slow_definitions_agree():
    body, x = chain(CHAINS["strided"]), random_input(2, 3, 17, 19)
    close(slow.by_deconvolution(body, x), slow.visual_backprop(body, x), 1e-12)
    close(heat(headed(body, x), x, "visual_backprop"), slow.by_deconvolution(body, x), 1e-12)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes: int):
    conv, pool = {1: (nn.Conv1d, nn.MaxPool1d), 3: (nn.Conv3d, nn.MaxPool3d)}[axes]
    body = chain(lambda: [conv(2, 4, 3, padding=1), nn.ReLU(), pool(2), conv(4, 3, 2), nn.ReLU()])
    x = random_input(2, 2, *[6, 8, 7][:axes])
    close(heat(headed(body, x), x, "visual_backprop"), slow.visual_backprop(body, x), 1e-12)


class Halves(nn.Module):
    """A layer, whole or as two halves that are concatenated; functional calls."""

    def __init__(self, whole: bool) -> None:
        super().__init__()
        self.whole = whole
        self.first, self.second = nn.Conv2d(3, 6, 3, 2, 1), nn.Conv2d(6, 5, 3)
        self.head = nn.Linear(5, 3)

    def forward(self, x: Tensor) -> Tensor:
        w, b = self.first.weight, self.first.bias
        assert b is not None
        if self.whole:
            x = F.relu(self.first(x))
        else:
            x = torch.cat([F.relu_(F.conv2d(x, w[:2], b[:2], 2, 1)), F.conv2d(x, w[2:], b[2:], 2, 1).clamp(min=0)], 1)
        return self.head(F.relu(self.second(x)).mean((2, 3)))


def test_two_halves_of_a_layer_give_the_map_of_the_whole():
    whole, halves = (seeded(lambda w=w: Halves(w))().to(D) for w in (True, False))
    x = random_input(2, 3, 12, 13)
    expected = slow.visual_backprop(nn.Sequential(whole.first, nn.ReLU(), whole.second, nn.ReLU()), x)
    close(heat(whole, x, "visual_backprop"), expected, 1e-12)
    close(heat(halves, x, "visual_backprop"), expected, 1e-12)


class Residual(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3, padding=1), nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.a(x))
        x = F.relu_(x + F.relu(self.b(x)))
        return self.head(x.mean((2, 3)))


def test_what_comes_back_over_a_residual_branch_is_added():
    model, x = seeded(Residual)().to(D), random_input(2, 3, 9, 9)
    first = F.relu(model.a(x))
    branch = F.relu(model.b(first))
    ones = torch.ones(1, 1, 3, 3, dtype=D)
    last = F.relu(first + branch).mean(1, keepdim=True)
    back = first.mean(1, keepdim=True) * (last + F.conv2d(last * branch.mean(1, keepdim=True), ones, padding=1))
    expected = F.conv_transpose2d(back, ones)[:, 0]
    found = outcome(model, x, "visual_backprop")
    close(found.attribution, (expected / expected.amax((1, 2), keepdim=True)).detach(), 1e-12)
    assert "branches" in found.receipts[0].approximate[0]
    assert visual_backprop.visual_backprop.doctor(record(model, x)).fit == "approximate"


def test_channels_last_layers_and_smooth_rectifiers():
    body = chain(lambda: [nn.Conv2d(3, 4, 3, 2), nn.ReLU(), nn.Conv2d(4, 6, 1), nn.ReLU()])

    class Last(nn.Module):
        def __init__(self, act) -> None:
            super().__init__()
            self.body, self.act = body, act

        def forward(self, x: Tensor) -> Tensor:
            x = self.act(self.body[0](x)).permute(0, 2, 3, 1)
            conv = self.body[2]
            return self.act(F.linear(x, conv.weight[:, :, 0, 0], conv.bias)).mean((1, 2))

    x = random_input(2, 3, 11, 12)
    close(heat(Last(F.relu).eval(), x, "visual_backprop"), slow.visual_backprop(body, x), 1e-12)
    (smooth,) = outcome(Last(F.gelu).eval(), x, "visual_backprop").receipts[0].approximate[:1]
    assert smooth.startswith("gelu")


def test_a_unit_looks_no_further_than_its_layer():
    body, x = chain(CHAINS["strided"]), random_input(2, 3, 16, 18)
    found = heat(headed(body, x), x, "visual_backprop", pel.unit("0.3", 1))
    close(found, slow.visual_backprop(body[:4], x), 1e-12)


def test_without_rectified_maps_it_is_refused():
    model, x = (
        headed(chain(lambda: [nn.Conv2d(3, 4, 3), nn.Tanh()]), random_input(1, 3, 8, 8)),
        random_input(1, 3, 8, 8),
    )
    with pytest.raises(MethodError, match="no rectifier"):
        heat(model, x, "visual_backprop")
    assert METHODS["visual_backprop"].doctor(record(model, x)).fit == "impossible"


def test_a_way_without_positions_is_told():
    class Narrow(nn.Module):
        """An autoencoder whose code is a vector."""

        def __init__(self) -> None:
            super().__init__()
            self.a, self.code, self.b = nn.Conv2d(3, 4, 3), nn.Linear(4 * 36, 4 * 36), nn.Conv2d(4, 3, 3)

        def forward(self, x: Tensor) -> Tensor:
            x = F.relu(self.a(x))
            x = self.code(x.flatten(1)).view(-1, 4, 6, 6)
            return F.relu(self.b(x)).mean((2, 3))

    model, x = seeded(Narrow)().to(D), random_input(2, 3, 8, 8)
    found = outcome(model, x, "visual_backprop")
    assert any("can't be followed" in words for words in found.receipts[0].approximate)
    close(found.attribution, slow.visual_backprop(nn.Sequential(model.a, nn.ReLU()), x), 1e-12)


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_awkward_networks_give_finite_maps_image_by_image(name: str):
    model, x = AWKWARD[name][0]().to(D), example(AWKWARD[name][1], dtype=D)
    try:
        found = heat(model, x, "visual_backprop", pel.custom(class_per_image))
    except MethodError:
        assert METHODS["visual_backprop"].doctor(record(model, *x)).fit == "impossible"
        return
    assert torch.isfinite(found).all() and bool((found >= 0).all()) and float(found.max()) <= 1


@pytest.mark.parametrize("name", ["resnet18", "squeezenet1_1", "mobilenet_v3_small"])
def test_architectures(name: str):
    found = outcome(zoo.build(name), zoo.picture(name), "visual_backprop")
    assert found.attribution.shape == (1, 64, 64)
    assert float(found.attribution.max()) == pytest.approx(1)


def test_a_batch_is_its_images_and_nothing_is_touched(untouched):
    model, x = pel.load("builtin:photos"), random_input(3, 3, 32, 32, dtype=torch.float32)
    with untouched(model.module), undrawn():
        together = heat(model, x, "visual_backprop")
    close(together, torch.cat([heat(model, x[i : i + 1], "visual_backprop") for i in range(3)]), 1e-5)


def test_a_bright_patch_stands_out_on_a_real_network(data: Path):
    from test_real_photos import network

    model = network(data, "squeezenet1_1")
    x = torch.zeros(1, 3, 224, 224)
    x[:, :, 60:100, 120:160] = torch.randn(3, 40, 40, generator=torch.Generator().manual_seed(0)) * 2
    found = heat(model, x, "visual_backprop")[0]
    inside = torch.zeros(224, 224, dtype=torch.bool)
    inside[50:110, 110:170] = True
    assert found[inside].mean() > 3 * found[~inside].mean()
