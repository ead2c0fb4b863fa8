"""The oracles and the test networks themselves, on closed forms and by hand."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks import awkward, zoo
from networks.awkward import AWKWARD, HIDDEN, NO_AUTOGRAD, REFUSED, class_one, example, twin
from oracles import cams, gradients, rectifiers

D = torch.float64


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-12) -> None:
    torch.testing.assert_close(found, expected, rtol=tolerance, atol=tolerance)


def column(output: Tensor) -> Tensor:
    return output[:, 0].sum()


class Call(nn.Module):
    """A function or module as a network."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = (function,)

    def forward(self, x: Tensor) -> Tensor:
        return self.functions[0](x)


# ---------------------------------------------------------------------------------------------------------- rectifiers


class Toy(nn.Module):
    """y = v · relu(W x), small enough for paper."""

    def __init__(self) -> None:
        super().__init__()
        self.W = nn.Parameter(torch.tensor([[1.0, -2.0], [3.0, 1.0], [-1.0, 1.0]], dtype=D))
        self.v = nn.Parameter(torch.tensor([[2.0, -1.0, 4.0]], dtype=D))

    def forward(self, x: Tensor) -> Tensor:
        return F.relu(x @ self.W.T) @ self.v.T


def test_toy_by_hand() -> None:
    x = torch.tensor([[1.0, 0.25]], dtype=D)  # W x = (0.5, 3.25, -0.75): units 0 and 1 are on; signals 2, -1, 4
    close(rectifiers.plain(Toy(), x, column), torch.tensor([[2 - 3.0, -4 - 1.0]], dtype=D))
    close(rectifiers.guided_backprop(Toy(), x, column), torch.tensor([[2.0, -4.0]], dtype=D))
    close(rectifiers.deconvnet(Toy(), x, column), torch.tensor([[2 - 4.0, -4 + 4.0]], dtype=D))


def test_smooth_rectifier_by_hand() -> None:
    x = torch.tensor([[0.3, -0.8]], dtype=D)
    w = torch.tensor([2.0, -1.0], dtype=D)
    s = torch.sigmoid(x)
    slope = s + x * s * (1 - s)
    net = nn.SiLU(inplace=True)

    def score(output: Tensor) -> Tensor:
        return (output * w).sum()

    close(rectifiers.plain(net, x, score), slope * w)
    close(rectifiers.guided_backprop(net, x, score), slope * torch.tensor([2.0, 0.0], dtype=D))
    close(rectifiers.deconvnet(net, x, score), torch.tensor([[2.0, 0.0]], dtype=D))


_CALLS = {
    "relu": [F.relu, torch.relu, torch.ops.aten.relu.default, lambda x: x.relu(), lambda x: (1 * x).relu_()],
    "clamp": [lambda x: x.clamp(min=0), lambda x: torch.clip(x, 0.0), lambda x: (1 * x).clamp_min_(0)],
    "relu6": [F.relu6, nn.ReLU6(inplace=False), lambda x: x.clamp(0, 6), lambda x: F.hardtanh(x, 0, 6)],
    "leaky": [lambda x: F.leaky_relu(x, 0.2), lambda x: F.leaky_relu_(1 * x, 0.2), nn.LeakyReLU(0.2)],
    "prelu": [nn.PReLU(init=0.3).to(D), lambda x: torch.prelu(x, torch.tensor([0.3], dtype=D))],
    "rrelu": [lambda x: F.rrelu(x), nn.RReLU().eval()],
    "elu": [F.elu, lambda x: F.elu_(1 * x), nn.ELU(inplace=False), F.selu, torch.selu, F.celu, nn.CELU(0.4)],
    "smooth": [F.silu, F.gelu, nn.GELU("tanh"), F.hardswish, F.mish, F.softplus, nn.Softplus(3.0)],
    "threshold": [lambda x: F.threshold(x, 0.1, 0.0), lambda x: F.threshold_(1 * x, 0.1, 0.0)],
}


@pytest.mark.parametrize("kind", _CALLS)
def test_every_spelling_is_caught(kind: str) -> None:
    x = torch.linspace(-4.05, 7.15, 29, dtype=D)[None]
    w = torch.cos(torch.arange(29, dtype=D))
    for call in _CALLS[kind]:
        net = Call(call)

        def score(y: Tensor) -> Tensor:
            return (y * w).sum()

        exact = gradients.saliency(lambda t, net=net, score=score: score(net(t)), x)
        assert rectifiers.rectifiers(net, x, score).total() == 1
        close(rectifiers.plain(net, x, score), exact)
        slope = exact / w
        close(rectifiers.guided_backprop(net, x, score), slope * w.clamp(min=0))
        close(rectifiers.deconvnet(net, x, score), w.clamp(min=0)[None])


def test_not_rectifiers() -> None:
    net = Call(lambda x: torch.sigmoid(x) + torch.tanh(x) + F.hardsigmoid(x) + F.softmax(x, 1) + x.clamp(min=-1))
    x = torch.linspace(-2, 2, 7, dtype=D)[None]
    assert rectifiers.rectifiers(net, x, lambda y: -y.sum()).total() == 0
    close(rectifiers.guided_backprop(net, x, lambda y: -y[0, 0]), rectifiers.plain(net, x, lambda y: -y[0, 0]))


# ----------------------------------------------------------------------------------------------------------- gradients


def quadratic(x: Tensor) -> Tensor:
    return (x**2 * torch.arange(1, x.numel() + 1, dtype=D).view_as(x)).sum()


def test_gradients_closed_forms() -> None:
    x, base = torch.randn(1, 2, 3, dtype=D), torch.randn(1, 2, 3, dtype=D)
    weights = torch.arange(1, 7, dtype=D).view(1, 2, 3)
    close(gradients.saliency(quadratic, x), 2 * weights * x)
    places = gradients.some_places(x, 4)
    picked = torch.stack([(2 * weights * x)[p] for p in places])
    close(gradients.finite_differences(quadratic, x, places), picked, 1e-6)
    assert gradients.gradient_times_input(quadratic, x).sum() == pytest.approx(float(2 * quadratic(x)))
    for rule, points in (("midpoint", 3), ("trapezoid", 4), ("gauss-legendre", 2)):  # exact on a linear integrand
        heat = gradients.integrated_gradients(quadratic, x, base, *gradients.quadrature(rule, points))
        close(heat, weights * (x**2 - base**2))
        assert abs(gradients.completeness_residual(quadratic, x, base, heat)) < 1e-12


def test_quadrature_orders() -> None:
    for points in (1, 2, 5, 12):
        places, weights = gradients.quadrature("gauss-legendre", points)
        for power in range(2 * points):
            assert sum(w * p**power for p, w in zip(places, weights, strict=True)) == pytest.approx(1 / (power + 1))
    for rule, error in (("left", -0.05), ("right", 0.05), ("midpoint", 0.0), ("trapezoid", 0.0)):
        places, weights = gradients.quadrature(rule, 10)
        assert len(places) == 10
        assert sum(weights) == pytest.approx(1)
        assert sum(w * p for p, w in zip(places, weights, strict=True)) == pytest.approx(0.5 + error)


def test_noise_methods() -> None:
    x = torch.randn(1, 6, dtype=D)
    noises = list(0.3 * torch.randn(5, 1, 6, dtype=D))

    def explain(t: Tensor) -> Tensor:
        return 3 * t

    stack = torch.stack([3 * (x + n) for n in noises])
    close(gradients.smoothgrad(explain, x, noises), stack.mean(0))
    close(gradients.smoothgrad_squared(explain, x, noises), (stack**2).mean(0))
    close(gradients.vargrad(explain, x, noises), stack.var(0, correction=0))
    close(gradients.vargrad(explain, x, noises, 1), stack.var(0))
    close(gradients.smoothgrad(explain, x, [torch.zeros_like(x)]), explain(x))


def test_expected_gradients_is_the_mean_of_integrated_ones() -> None:
    x, bases = torch.randn(1, 6, dtype=D), torch.randn(3, 1, 6, dtype=D)
    places, _ = gradients.quadrature("midpoint", 4)
    pairs = [(b, a) for b in bases for a in places]
    heat = gradients.expected_gradients(quadratic, x, [b for b, _ in pairs], [a for _, a in pairs])
    assert abs(gradients.completeness_residual(quadratic, x, list(bases), heat)) < 1e-12


def test_over_channels() -> None:
    signed = torch.tensor([[[[1.0]], [[-3.0]]]])
    found = [float(gradients.over_channels(signed, how)) for how in ("max-abs", "sum-abs", "sum")]
    assert found == [3, 4, -2]


# ---------------------------------------------------------------------------------------------------------------- CAMs


class GapNet(nn.Module):
    """Convolutions with every kind of bias, in-place activations, overlapping pool, global average, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            *[nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6), nn.ReLU(inplace=True)],
            *[nn.MaxPool2d(3, 2, 1, ceil_mode=True), nn.Conv2d(6, 7, 3, bias=False), nn.BatchNorm2d(7, affine=False)],
            *[nn.LeakyReLU(0.1, inplace=True), nn.ConvTranspose2d(7, 5, 2, stride=2), nn.ReLU(inplace=True)],
        )
        self.head = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.features(x).mean((2, 3)))


@pytest.fixture
def gap() -> nn.Module:
    return awkward.seeded(GapNet)().to(D)


@pytest.fixture
def photo() -> Tensor:
    return torch.randn(2, 3, 11, 13, dtype=D)


def test_cam_of_a_gap_net(gap: GapNet, photo: Tensor) -> None:
    A, G = cams.activation_and_gradient(gap, "features", photo, column)
    maps = cams.each(lambda a: cams.cam(a, gap.head.weight[0].detach()), A)
    close(maps.mean((1, 2)) + gap.head.bias[0].detach(), gap(photo)[:, 0].detach())
    pixels = A[0, 0].numel()
    for method in (cams.grad_cam, cams.xgrad_cam, cams.hires_cam):  # G is constant over the map: all agree with CAM
        close(cams.each(lambda a, g, m=method: m(a, g, relu=False), A, G), maps / pixels)
    positive = (A[0] * G[0].clamp(min=0)).sum(0)
    close(cams.layer_cam(A[0], G[0]), positive)


def test_grad_cam_plus_plus_by_hand() -> None:
    A = torch.tensor([[[1.0, 2.0]], [[0.0, 4.0]]], dtype=D)
    G = torch.tensor([[[0.5, -1.0]], [[0.0, 0.25]]], dtype=D)
    first = 0.25 / (0.5 + 3 * 0.125) * 0.5  # (0, 0): α G; the second place has no positive gradient
    second = 0.0625 / (0.125 + 4 * 0.015625) * 0.25
    close(cams.grad_cam_plus_plus(A, G), first * A[0] + second * A[1])
    close(cams.xgrad_cam(A, G, relu=False), (0.5 - 2) / 3 * A[0] + 1 / 4 * A[1])
    close(cams.grad_cam(A, G), (-0.25 * A[0] + 0.125 * A[1]).clamp(min=0))


def test_eigen_cam_of_a_rank_one_activation() -> None:
    a, pixels = torch.tensor([3.0, 4.0], dtype=D), torch.tensor([[1.0, 0.0, -2.0], [5.0, 1.0, 0.5]], dtype=D)
    A = a[:, None, None] * pixels
    close(cams.eigen_cam(A), 5 * pixels)
    close(cams.eigen_cam(-A), -5 * pixels)
    close(cams.eigen_grad_cam(A, torch.full_like(A, -2)), -10 * pixels)
    close(cams.up_to_sign(-pixels, pixels), pixels)
    assert abs(cams.eigen_cam(A, centred=True).mean()) < 1e-12


def test_activation_is_not_overwritten_in_place(gap: GapNet, photo: Tensor) -> None:
    A, G = cams.activation_and_gradient(gap, "features.1", photo, column)
    close(A, gap.features[1](gap.features[0](photo)).detach())
    assert A.min() < 0
    rest = nn.Sequential(*gap.features[2:])
    leaf = A.clone().requires_grad_()
    close(G, torch.autograd.grad(column(gap.head(rest(leaf.clone()).mean((2, 3)))), leaf)[0])
    assert not gap.features[1]._forward_hooks


def test_call_of_a_reused_module() -> None:
    model = AWKWARD["module_relu_reused"][0]()
    x = example(awkward.VARIANT_SHAPES)[0]
    h = model.bn1(model.conv1(x)).relu()
    found = [cams.activation_and_gradient(model, "relu", x, class_one, call)[0] for call in (0, 1, -1)]
    close(found[0], h.detach(), 1e-6)
    close(found[1], (h - 0.3).relu().detach(), 1e-6)
    assert not torch.allclose(found[1], found[2])


def test_full_gradient_is_complete(gap: GapNet, photo: Tensor) -> None:
    parts = cams.full_gradient(gap, photo, column)
    assert len(parts.bias_terms) == 5  # conv, BN, BN, transposed conv, linear
    assert abs(parts.residual()) < 1e-12 * max(1, abs(float(parts.value)))
    for rescale in ("channel", "layer", "none"):
        assert cams.full_grad(gap, photo, column, rescale).shape == (2, 11, 13)
    together = cams.full_grad(gap, photo, column, "none").sum()
    assert together > 0


def test_guided_grad_cam(gap: GapNet, photo: Tensor) -> None:
    A, G = cams.activation_and_gradient(gap, "features", photo, column)
    small = cams.each(cams.grad_cam, A, G)
    found = cams.guided_grad_cam(gap, "features", photo, column)
    maps = F.interpolate(small[:, None], (11, 13), mode="bilinear", align_corners=False)
    close(found, rectifiers.guided_backprop(gap, photo, column) * maps)


# ------------------------------------------------------------------------------------------------------------ networks


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", AWKWARD)
def test_awkward_network(name: str) -> None:
    factory, shapes = AWKWARD[name]
    inputs = example(shapes)
    with torch.no_grad():
        first, again, other = (
            class_one(make()(*example(shapes))) for make in (factory, factory, AWKWARD[twin(name)][0])
        )
    assert torch.equal(first, again)
    assert math.isfinite(first)
    close(other, first, 1e-5)
    if name not in NO_AUTOGRAD and name not in HIDDEN:
        leaves = [t.clone().requires_grad_() for t in inputs]
        exact = torch.autograd.grad(class_one(factory()(*[t.clone() for t in leaves])), leaves)
        for found, expected in zip(rectifiers.plain(factory(), inputs, class_one), exact, strict=True):
            assert expected.abs().max() > 1e-6
            close(found, expected, 1e-5)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("name", NO_AUTOGRAD)
def test_twin_gradient_is_the_finite_difference(name: str) -> None:
    models = [AWKWARD[n][0]().to(D) for n in (name, twin(name))]
    x = example(AWKWARD[name][1], dtype=D)[0]
    places = gradients.some_places(x, 12)
    slow = gradients.finite_differences(lambda t: class_one(models[0](t)), x, places)
    exact = gradients.saliency(lambda t: class_one(models[1](t)), x)
    close(slow, torch.stack([exact[p] for p in places]), 1e-7)


@pytest.mark.parametrize("name", REFUSED)
def test_refused_network_runs_by_itself(name: str) -> None:
    factory, shapes, reason = REFUSED[name]
    with torch.no_grad():
        assert factory()(*example(shapes)) is not None
    assert reason


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("family", ["VARIANTS", "SMOOTH_VARIANTS"])
def test_variants_are_one_network(family: str) -> None:
    variants = getattr(awkward, family)
    x = example(awkward.VARIANT_SHAPES)[0]
    base = variants["functional"]()
    for name, make in variants.items():
        model = make()
        close(model(x.clone()).detach(), base(x.clone()).detach(), 1e-6)
        if name in ("scripted", "scripted_tail", "traced"):
            with pytest.raises(NotImplementedError):
                rectifiers.guided_backprop(model, x, class_one)
            continue
        for method in (rectifiers.guided_backprop, rectifiers.deconvnet):
            close(method(model, x, class_one), method(base, x, class_one), 1e-6)


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_zoo_network_is_awake(name: str) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    model, x = zoo.build(name), zoo.picture(name)
    assert not model.training
    assert all(p.numel() == 1 or p.min() < p.max() for p in model.parameters())
    heat = rectifiers.plain(model, x, zoo.class_score)
    assert heat.isfinite().all()
    assert heat.abs().max() > 1e-6
    guided = rectifiers.guided_backprop(model, x, zoo.class_score)
    assert (guided - heat).abs().max() > 1e-3 * heat.abs().max()
    assert torch.equal(model(x), zoo.build(name)(x))


def test_zoo_is_wide() -> None:
    assert len(zoo.torchvision_names()) >= 45


@pytest.mark.parametrize("name", zoo.REAL)
def test_real_network_is_right(name: str, data: Path) -> None:
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    found = zoo.REAL[name](data, zoo.shared_models(data))
    with torch.no_grad():
        assert int(found.model(found.x).argmax()) == found.label
