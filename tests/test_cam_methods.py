"""B1 to B3: the CAM family against its slow definitions, also on layers that are overwritten in place."""

from collections import OrderedDict
from functools import cache

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import D, check, close, heat, outcome, outcomes, plain, pooled, random_input, score
from networks import zoo
from networks.awkward import AWKWARD, class_one, example, twin
from networks.common import seeded
from oracles import cams
from pellucid.core.errors import LayerError, MethodError

WITH_GRADIENT = {
    "grad_cam": cams.grad_cam,
    "grad_cam_plus_plus": cams.grad_cam_plus_plus,
    "xgrad_cam": cams.xgrad_cam,
    "hires_cam": cams.hires_cam,
    "layer_cam": cams.layer_cam,
}
EIGEN = {"eigen_cam": lambda A, G: cams.eigen_cam(A), "eigen_grad_cam": cams.eigen_grad_cam}
FAMILY = {**WITH_GRADIENT, **EIGEN}
LAYERS = {
    "resnet18": ["layer4", "layer3.1.bn2", "layer3.1.relu", "layer2.0.downsample.1", "conv1", "bn1"],
    "mobilenet_v2": ["features.18", "features.3.conv.2", "features.10"],
    "squeezenet1_1": ["features.12.expand3x3", "features.4.squeeze", "classifier.1"],
    "googlenet": ["inception5b", "inception4a.branch2.1.bn"],
    "densenet121": ["features.denseblock4.denselayer16.norm1"],
    "efficientnet_b0": ["features.8", "features.4.0.block.2.scale_activation"],
    "convnext_tiny": ["features.7.2"],
}


@cache
def built(name: str) -> nn.Module:
    return zoo.build(name).to(D)


def agree(model: nn.Module, x: Tensor, layer: str, bound: float, call: int = -1, name: str | None = None) -> None:
    A, G = cams.activation_and_gradient(model, layer, x, score(), call)
    panel = pel.attribute(model, x, methods=list(FAMILY), targets=1, layers=name or layer)
    for method, made in zip(FAMILY, panel, strict=True):
        expected, found = cams.each(FAMILY[method], A, G), made.attribution
        if method in EIGEN:
            found = torch.stack([cams.up_to_sign(f, e) for f, e in zip(found, expected, strict=True)])
        close(found, expected, bound)


@pytest.mark.parametrize(("name", "layer"), [(n, layer) for n, layers in LAYERS.items() for layer in layers])
def test_the_family_on_architectures(name: str, layer: str):
    agree(built(name), zoo.picture(name, dtype=D), layer, 1e-9)


def test_the_activation_before_it_was_overwritten_is_used():
    """pytorch-grad-cam and torchcam hold a tensor here that later operations overwrite: their maps are off by 300 %."""
    model, x = built("resnet18"), zoo.picture("resnet18", dtype=D)
    before, after = (heat(model, x, "eigen_cam", layers=layer) for layer in ("layer3.1.bn2", "layer3.1.relu#1"))
    assert float((before - after).abs().max() / before.abs().max()) > 0.1


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("layer", ["0", "1", "2", "4"])
def test_the_family_in_one_two_and_three_axes(axes: int, layer: str):
    agree(pooled(axes), random_input(2, 3, *[8] * axes), layer, 1e-11)
    agree(plain(axes), random_input(2, 3, *[8] * axes), layer, 1e-11)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_guided_grad_cam(axes: int):
    model, x = pooled(axes), random_input(2, 3, *[8] * axes)
    close(heat(model, x, "guided_grad_cam", layers="4"), cams.guided_grad_cam(model, "4", x, score()), 1e-11)


def test_guided_grad_cam_on_a_network_with_in_place_blocks():
    model, x = built("resnet18"), zoo.picture("resnet18", batch=2, dtype=D)
    found = heat(model, x, "guided_grad_cam", layers="layer3.1.bn2")
    close(found, cams.guided_grad_cam(model, "layer3.1.bn2", x, score()), 1e-9)


@pytest.mark.parametrize("name", ["inplace_residual", "view_relu", "module_relu_reused", "dense_concat", "norms"])
def test_the_family_on_awkward_networks(name: str):
    model = AWKWARD[twin(name)][0]().to(D)
    (x,) = example(AWKWARD[name][1], dtype=D)
    layer = "bn2" if name == "inplace_residual" else "conv2" if hasattr(model, "conv2") else "conv1"
    A, G = cams.activation_and_gradient(model, layer, x, class_one)
    close(heat(model, x, "grad_cam", layers=layer), cams.each(cams.grad_cam, A, G), 1e-10)


@pytest.mark.parametrize("call", [0, 1])
def test_a_call_of_a_reused_layer(call: int):
    model, x = built("resnet18"), zoo.picture("resnet18", dtype=D)
    agree(model, x, "layer3.1.relu", 1e-9, call, f"layer3.1.relu#{call}")


def test_several_layers_at_once_are_each_alone():
    model, x = pooled(), random_input(2, 3, 8, 8)
    for method in FAMILY:
        together = outcomes(model, x, method, layers=["4", "0", "2"])
        assert [o.layer for o in together] == ["4", "0", "2"]
        for found in together:
            assert torch.equal(found.attribution, heat(model, x, method, layers=found.layer))
            assert not found.layer_chosen


def test_the_layer_is_chosen_and_named_when_none_is_given():
    found = outcome(pooled(), random_input(1, 3, 8, 8), "grad_cam")
    assert (found.layer, found.layer_chosen) == ("5", True)


@pytest.mark.parametrize(
    ("layer", "says"),
    [("featurs.12", "features.12"), ("features.3#4", "call 4"), ("nothing.like.it", "last ones|did you mean")],
)
def test_an_unknown_layer_is_our_error(layer: str, says: str):
    with pytest.raises(LayerError, match=says):
        heat(built("squeezenet1_1"), zoo.picture("squeezenet1_1", dtype=D), "grad_cam", layers=layer)


def test_a_layer_without_maps_is_our_error():
    for method in FAMILY:
        with pytest.raises(MethodError, match="no maps"):
            heat(pooled(), random_input(1, 3, 8, 8), method, layers="8")


# --------------------------------------------------------------------------------------------------------- exact CAM


class MeanHead(nn.Module):
    """`mean([2, 3])` and a linear layer, with optional BatchNorm and dropout between them, and a softmax behind."""

    def __init__(self, between: nn.Module | None = None, softmax: bool = False) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 8, 3, padding=1), nn.Linear(8, 5)
        self.between, self.softmax = between, softmax

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.conv(x)).mean([2, 3])
        x = self.head(x if self.between is None else self.between(x))
        return x.softmax(1) if self.softmax else x


def gap_heads() -> dict[str, nn.Module]:
    made = {
        "mean": MeanHead(),
        "mean and BatchNorm": MeanHead(nn.BatchNorm1d(8)),
        "mean and dropout": MeanHead(nn.Dropout(0.5)),
        "ends in softmax": MeanHead(softmax=True),
    }
    return {name: seeded(lambda m=m: m)().to(D) for name, m in made.items()} | {"pooled": pooled()}


def score_without_maps(model: nn.Module, x: Tensor) -> Tensor:
    """The class scores of a picture whose last maps are zero: what CAM calls the bias."""
    conv = model.conv if isinstance(model, MeanHead) else model[5]
    handle = conv.register_forward_hook(lambda m, i, out: torch.zeros_like(out))
    try:
        return model(x)
    finally:
        handle.remove()


@pytest.mark.parametrize("name", gap_heads())
def test_the_mean_of_cam_and_the_bias_are_the_score(name: str):
    model, x = gap_heads()[name], random_input(2, 3, 8, 8)
    found = outcome(model, x, "cam", [1, 3])
    if isinstance(model, MeanHead):
        model.softmax = False
    scores, bias = model(x), score_without_maps(model, x)
    rows, classes = torch.arange(2), torch.tensor([1, 3])
    close(found.attribution.mean((1, 2)) + bias[rows, classes], scores[rows, classes], 1e-12)
    close(found.scores, scores[rows, classes], 1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_grad_cam_on_a_pooled_network_is_cam(axes: int):
    model, x = pooled(axes), random_input(2, 3, *[8] * axes)
    cells = 4**axes
    exact = heat(model, x, "cam", 2)
    A, _ = cams.activation_and_gradient(model, "5", x, score(2))
    close(exact, cams.each(lambda a: cams.cam(a, model[-1].weight[2]), A), 1e-12)
    close(heat(model, x, "grad_cam", 2) * cells, exact.relu(), 1e-12)
    close(heat(model, x, "hires_cam", 2) * cells, exact.relu(), 1e-12)


def test_cam_of_a_fully_convolutional_head():
    model, x = built("squeezenet1_1"), zoo.picture("squeezenet1_1", batch=2, dtype=D)
    exact = heat(model, x, "cam", [4, 7])
    close(exact.mean((1, 2)), model(x)[torch.arange(2), [4, 7]], 1e-12)
    A, _ = cams.activation_and_gradient(model, "classifier.2", x, score())
    close(exact, torch.stack([A[0, 4], A[1, 7]]), 1e-12)
    cells = exact[0].numel()
    close(heat(model, x, "grad_cam", [4, 7]) * cells**2, exact * cells, 1e-12)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "efficientnet_b0", "densenet121"])
def test_cam_is_exact_on_architectures(name: str):
    model, x = built(name), zoo.picture(name, dtype=D)
    linear = [m for m in model.modules() if isinstance(m, nn.Linear)][-1]
    found = heat(model, x, "cam", 3)
    close(found.mean((1, 2)) + linear.bias[3], model(x)[:, 3], 1e-11)


def two_layers_behind_the_pool() -> nn.Module:
    parts = [nn.Conv2d(3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 8), nn.ReLU(), nn.Linear(8, 5)]
    return seeded(lambda: nn.Sequential(OrderedDict((f"part{i}", p) for i, p in enumerate(parts))))().to(D)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (plain, "global average pooling.*none"),
        (lambda: zoo.build("vgg11").to(D), "global average pooling.*none"),
        (lambda: built("mobilenet_v3_small"), '"hardswish" in layer "classifier.1"'),
        (two_layers_behind_the_pool, '"relu" in layer "part4"'),
    ],
    ids=["plain", "vgg11", "mobilenet_v3_small", "two layers"],
)
def test_cam_is_refused_with_the_operation_that_decides_it(make, says: str):
    x = random_input(1, 3, 8, 8) if make is plain else random_input(1, 3, 64, 64)
    with pytest.raises(MethodError, match=says):
        heat(make(), x, "cam")


def test_the_receipt_of_cam_measures_its_completeness():
    model, x = pooled(), random_input(1, 3, 8, 8)
    for linear in (pel.logit(1), pel.contrast(1, 3)):
        found = outcome(model, x, "cam", linear)
        assert check(found, "completeness residual") <= 1e-12 and found.receipts[0].verdict == "pass"
    found = outcome(model, x, "cam", pel.probability(1))
    share, empty = model(x).softmax(1)[0, 1], score_without_maps(model, x).softmax(1)[0, 1]
    residual = abs(float((found.attribution.mean() + empty - share) / share))
    assert check(found, "completeness residual") == pytest.approx(residual, rel=1e-6)
    assert found.receipts[0].verdict == "fail", "a probability is not linear in the maps"


# ------------------------------------------------------------------------------------------------------- hard cases


class Fixed(nn.Module):
    """The layer "maps" gives out whatever it is told; the score is any function of it."""

    def __init__(self, read) -> None:
        super().__init__()
        self.maps, self.read = nn.Identity(), read

    def forward(self, x: Tensor) -> Tensor:
        return torch.stack([self.read(self.maps(x * 1.0))] * 2, 1)


def hard_maps() -> dict[str, Tensor]:
    base = random_input(1, 4, 3, 3)
    zero_sum = base - base.mean((2, 3), keepdim=True)
    zero_sum[0, :2] = torch.tensor([1.0, -1, 2, -2, 3, -3, 4, -4, 0], dtype=D).view(3, 3)  # sums to 0 exactly
    return {
        "zero": torch.zeros_like(base),
        "one channel zero": base * torch.tensor([0.0, 1, 1, 1], dtype=D).view(1, 4, 1, 1),
        "sums to zero": zero_sum,
        "negative": -base.abs() - 0.1,
        "mixed": base,
    }


@pytest.mark.parametrize("method", FAMILY)
@pytest.mark.parametrize("name", hard_maps())
@pytest.mark.parametrize("read", ["square", "rectified", "negative"])
def test_divisions_by_zero_and_negative_activations(method: str, name: str, read: str):
    reads = {
        "square": lambda a: (a[:, :3] ** 2).flatten(1).sum(1),  # channel 3 gets no gradient
        "rectified": lambda a: (F.relu(a) * torch.linspace(-1, 1, 36, dtype=D).view(4, 3, 3)).flatten(1).sum(1),
        "negative": lambda a: -a.flatten(1).sum(1),
    }
    model, x = Fixed(reads[read]).eval(), hard_maps()[name]
    A, G = cams.activation_and_gradient(model, "maps", x, score())
    found, expected = heat(model, x, method, layers="maps"), cams.each(FAMILY[method], A, G)
    assert torch.isfinite(found).all()
    if method in EIGEN:
        assert float(found.sum()) >= 0
        found = cams.up_to_sign(found, expected)
    assert float((found - expected).abs().max()) <= 1e-12 * max(1.0, float(expected.abs().max()))


@pytest.mark.parametrize("channels", [3, 40])
def test_eigen_cam_is_the_first_singular_pair(channels: int):
    model = seeded(lambda: nn.Sequential(nn.Conv2d(3, channels, 3, padding=1), nn.Flatten(), nn.LazyLinear(3)))
    with torch.no_grad():
        network = model().to(D)
        network(random_input(1, 3, 5, 5))
    x = random_input(2, 3, 5, 5)
    found = heat(network, x, "eigen_cam", layers="0")
    for one, maps in zip(found, network[0](x), strict=True):
        left, values, _ = torch.linalg.svd(maps.flatten(1).T, full_matrices=False)
        expected = (left[:, 0] * values[0]).view(5, 5)
        close(one, expected if expected.sum() >= 0 else -expected, 1e-11)
