"""DeepLIFT and DeepSHAP: equal to matrices written from the paper, and adding up to the change of the score."""

from collections.abc import Callable
from itertools import permutations

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from method_cases import D, close, heat, outcome, random_input, score
from networks.common import seeded, unsettle
from oracles.deeplift import Graph, deep_shap

NONLINEARITIES = ("rescale", "reveal_cancel")
ACTS: dict[str, Callable[[], nn.Module]] = {
    "relu": nn.ReLU,
    "relu_inplace": lambda: nn.ReLU(inplace=True),
    "leaky_relu": lambda: nn.LeakyReLU(0.2),
    "elu": nn.ELU,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "hardswish": nn.Hardswish,
    "relu6": nn.ReLU6,
    "sigmoid": nn.Sigmoid,
    "tanh": nn.Tanh,
    "mish": nn.Mish,
    "softplus": nn.Softplus,
    "softsign": nn.Softsign,
    "softshrink": lambda: nn.Softshrink(0.1),
    "logsigmoid": nn.LogSigmoid,
}
SPREAD = 3.0  # activations on both sides of every bend


def linear_then(*parts: nn.Module) -> nn.Sequential:
    """One linear operation with what is merged into it: one matrix of the slow definition."""
    return nn.Sequential(*parts)


def stacks() -> dict[str, tuple[tuple[int, ...], Callable[[], list[nn.Module]]]]:
    """Name → shape of one example, and modules one after the other."""
    end = lambda n: [nn.Flatten(), nn.Linear(n, 3)]  # noqa: E731
    relu, conv = nn.ReLU, nn.Conv2d
    return {
        "linear": ((6,), lambda: [nn.Linear(6, 5), relu(), nn.Linear(5, 4), relu(), nn.Linear(4, 3)]),
        "linear_bn": ((6,), lambda: [linear_then(nn.Linear(6, 5), nn.BatchNorm1d(5)), relu(), nn.Linear(5, 3)]),
        "conv1d": ((2, 9), lambda: [nn.Conv1d(2, 3, 3, 2), relu(), nn.Conv1d(3, 4, 3, dilation=1), nn.ELU(), *end(8)]),
        "conv2d": ((2, 5, 4), lambda: [conv(2, 3, 3, padding=1), relu(), conv(3, 3, 2, 2), relu(), *end(12)]),
        "conv3d": ((1, 3, 4, 3), lambda: [nn.Conv3d(1, 2, 2), relu(), nn.Conv3d(2, 3, 2), relu(), *end(6)]),
        "grouped": ((4, 4, 4), lambda: [conv(4, 6, 3, groups=2), relu(), conv(6, 4, 1, groups=2), relu(), *end(16)]),
        "depthwise": ((3, 4, 4), lambda: [conv(3, 6, 3, padding=1, groups=3), relu(), conv(6, 2, 1), *end(32)]),
        "transposed": (
            (2, 3, 3),
            lambda: [
                linear_then(nn.ConvTranspose2d(2, 4, 3, 2, 1, 1, groups=2), nn.BatchNorm2d(4)),
                *[relu(), nn.ConvTranspose2d(4, 2, 2), relu(), *end(98)],
            ],
        ),
        "conv_bn": (
            (2, 4, 4),
            lambda: [
                *[linear_then(conv(2, 3, 3, bias=False), nn.BatchNorm2d(3)), relu()],
                *[linear_then(conv(3, 3, 1), nn.BatchNorm2d(3)), relu(), *end(12)],
            ],
        ),
        "bn_alone": (
            (2, 4, 4),
            lambda: [nn.BatchNorm2d(2), relu(), conv(2, 3, 3), relu(), nn.BatchNorm2d(3), nn.Tanh(), *end(12)],
        ),
        "average": ((2, 4, 4), lambda: [conv(2, 3, 3, padding=1), relu(), nn.AvgPool2d(2), nn.Sigmoid(), *end(12)]),
        "pool1d": ((2, 9), lambda: [nn.Conv1d(2, 3, 3), relu(), nn.MaxPool1d(3, 2), nn.Conv1d(3, 3, 2), *end(6)]),
        "pool2d": (
            (2, 6, 6),
            lambda: [conv(2, 3, 3, padding=1), relu(), nn.MaxPool2d(3, 2, 1), conv(3, 3, 2), nn.SiLU(), *end(12)],
        ),
        "pool2d_every_step": ((2, 5, 5), lambda: [conv(2, 3, 2), nn.MaxPool2d(2, 1), relu(), *end(27)]),
        "pool2d_dilated": ((2, 6, 6), lambda: [nn.MaxPool2d(2, 1, 0, 2), conv(2, 3, 2), relu(), *end(27)]),
        "pool3d": ((1, 4, 4, 4), lambda: [nn.Conv3d(1, 2, 2), nn.MaxPool3d(2, 1), relu(), *end(16)]),
        **{
            f"act_{name}": ((4,), lambda act=act: [nn.Linear(4, 6), act(), nn.Linear(6, 5), act(), nn.Linear(5, 3)])
            for name, act in ACTS.items()
        },
    }


STACKS = stacks()


def two(shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
    """Two examples, and two references."""
    return SPREAD * random_input(2, *shape), SPREAD * random_input(2, *shape, seed=1)


def by_matrices(graph: Graph, x: Tensor, references: Tensor, unit: int = 1) -> Tensor:
    return torch.stack([graph.contributions(a, b, unit) for a, b in zip(x, references, strict=True)])


@pytest.mark.parametrize(
    ("name", "nonlinearity"),
    [
        (s, n) for s in STACKS for n in NONLINEARITIES if (s, n) != ("act_softsign", "reveal_cancel")
    ],  # seen as x/(1+|x|)
)
def test_the_paper_in_matrices(name: str, nonlinearity: str):
    shape, make = STACKS[name]
    parts = list(seeded(lambda: nn.Sequential(*make()))().to(D))
    x, start = two(shape)
    graph = Graph(shape)
    graph.sequential(graph.input, *parts, reveal=nonlinearity == "reveal_cancel")
    found = heat(nn.Sequential(*parts), x, "deep_lift", baseline=start, nonlinearity=nonlinearity)
    close(found, by_matrices(graph, x, start), 1e-12)


def test_genomics_reveals_in_dense_layers_only():
    make = STACKS["conv2d"][1]
    conv, last = (list(seeded(lambda: nn.Sequential(*make()))().to(D)))[:4], nn.Linear(12, 4)
    end = [nn.Flatten(), last, nn.ReLU(), nn.Linear(4, 3)]
    model = nn.Sequential(*conv, *end).to(D)
    x, start = two((2, 5, 4))
    graph = Graph((2, 5, 4))
    graph.sequential(graph.sequential(graph.input, *conv), *end, reveal=True)
    found = heat(model, x, "deep_lift", baseline=start, nonlinearity="genomics")
    close(found, by_matrices(graph, x, start), 1e-12)
    whole = heat(model, x, "deep_lift", baseline=start, nonlinearity="reveal_cancel")
    assert (found - whole).abs().max() > 1e-3 * found.abs().max()


class Joined(nn.Module):
    """Residual sum into a ReLU that was used before, a difference, a concatenation, a product with a constant."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(2, 2, 3, padding=1), nn.Conv2d(4, 3, 2)
        self.norm, self.relu, self.head = nn.BatchNorm2d(2), nn.ReLU(inplace=True), nn.Linear(27, 3)
        self.scale = nn.Parameter(torch.tensor([[[0.5]], [[-2.0]]]))

    def forward(self, x: Tensor) -> Tensor:
        y = self.relu(self.norm(self.a(x)))
        z = self.b(y)
        z += x
        z = self.relu(z)
        w = F.relu(torch.sub(self.scale * y, z, alpha=0.5))
        return self.head(F.relu(self.c(torch.cat([z, w], 1))).flatten(1))

    def graph(self, reveal: bool) -> Graph:
        g = Graph((2, 4, 4))
        y = g.elementwise(g.affine(g.input, lambda t: self.norm(self.a(t))), torch.relu, reveal)
        z = g.elementwise(g.add(g.affine(y, self.b), g.input), torch.relu, reveal)
        minus = g.add(g.affine(y, lambda t: self.scale * t), g.affine(z, lambda t: -0.5 * t))
        w = g.elementwise(minus, torch.relu, reveal)
        end = g.elementwise(g.affine(g.cat(z, w), self.c), torch.relu, reveal)
        g.affine(end, lambda t: self.head(t.flatten(1)))
        return g


class Gated(nn.Module):
    """Squeeze-and-excitation, a hand-written SiLU whose input goes on by itself too, and a product of branches."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.down, self.up = nn.Conv2d(2, 3, 3, padding=1), nn.Linear(3, 2), nn.Linear(2, 3)
        self.side, self.head = nn.Conv2d(3, 3, 1), nn.Linear(3, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.conv(x)
        y = x * torch.sigmoid(x) + 0.3 * x
        gate = torch.sigmoid(self.up(F.relu(self.down(y.mean((2, 3))))))
        z = y * gate[:, :, None, None]
        return self.head((self.side(z) * z).sum((2, 3)))

    def graph(self, reveal: bool) -> Graph:
        g = Graph((2, 3, 4))
        x = g.affine(g.input, self.conv)
        y = g.add(g.elementwise(x, F.silu, reveal), g.affine(x, lambda t: 0.3 * t))
        mean = g.affine(y, lambda t: t.mean((2, 3)))
        hidden = g.elementwise(g.affine(mean, self.down), torch.relu, reveal)
        gate = g.elementwise(g.affine(hidden, self.up), torch.sigmoid, reveal)
        z = g.product(y, g.affine(gate, lambda t: t[:, :, None, None].expand(-1, -1, 3, 4)))
        g.affine(g.product(g.affine(z, self.side), z), lambda t: self.head(t.sum((2, 3))))
        return g


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize("make", [Joined, Gated])
def test_branches_that_meet(make: type[Joined | Gated], nonlinearity: str):
    model = seeded(make)().to(D)
    assert isinstance(model, make)
    graph = model.graph(nonlinearity == "reveal_cancel")
    x, start = two(graph.input.shape)
    close(torch.stack([graph.values(t)[graph.nodes[-1]] for t in x]), model(x), 1e-12)
    found = outcome(model, x, "deep_lift", baseline=start, nonlinearity=nonlinearity)
    close(found.attribution, by_matrices(graph, x, start), 1e-11)
    assert not found.receipts[0].approximate
    parts = [
        heat(model, x[i : i + 1], "deep_lift", baseline=start[i : i + 1], nonlinearity=nonlinearity) for i in (0, 1)
    ]
    close(found.attribution, torch.cat(parts), 1e-12)


def test_what_was_rescaled_though_reveal_cancel_was_asked_for_is_noted():
    model = nn.Sequential(nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()
    notes = outcome(model, torch.randn(1, 2, 2, 2), "deep_lift", baseline="zero", nonlinearity="reveal_cancel")
    assert any("rescaled" in note and "relu in 1" in note for note in notes.receipts[0].notes)


# ------------------------------------------------------------------------------------------------ closed forms


class Minimum(nn.Module):
    """min(i1, i2) = i1 − relu(i1 − i2), the network of section 3.4."""

    def __init__(self) -> None:
        super().__init__()
        self.difference = nn.Linear(2, 1, bias=False)
        self.difference.weight.data = torch.tensor([[1.0, -1.0]])

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :1] - torch.relu(self.difference(x))


@pytest.mark.parametrize(("i1", "i2"), [(3.0, 1.0), (1.0, 3.0), (2.0, 2.0), (5.0, 0.5)])
def test_the_minimum_of_the_paper(i1: float, i2: float):
    """Rescale gives all to one input, RevealCancel half of the minimum to each."""
    model, x = Minimum().to(D), torch.tensor([[i1, i2]], dtype=D)
    least = min(i1, i2)
    found = heat(model, x, "deep_lift", 0, baseline="zero", nonlinearity="reveal_cancel")
    close(found, torch.full((1, 2), least / 2, dtype=D), 1e-12)
    if i1 != i2:
        expected = [0, least] if i1 > i2 else [least, 0]
        close(heat(model, x, "deep_lift", 0, baseline="zero"), torch.tensor([expected], dtype=D), 1e-12)


def test_contributions_of_one_sign_have_nothing_to_reveal():
    model = nn.Sequential(nn.Linear(4, 5), nn.Sigmoid(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2)).to(D)
    for layer in (model[0], model[2]):
        layer.weight.data.abs_()
    x = random_input(2, 4).abs()
    a, b = (heat(model, x, "deep_lift", baseline="zero", nonlinearity=n) for n in NONLINEARITIES)
    close(a, b, 1e-12)


def test_a_linear_network_gives_gradient_times_difference():
    model = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3), nn.AvgPool2d(2), nn.Flatten(), nn.Linear(3, 4))
    model, (x, start) = unsettle(model).to(D).eval(), two((2, 4, 4))
    expected = heat(model, x, "saliency") * (x - start)
    for nonlinearity in NONLINEARITIES:
        close(heat(model, x, "deep_lift", baseline=start, nonlinearity=nonlinearity), expected, 1e-12)


def test_a_small_step_across_a_bend_is_a_step():
    """Differences of 1e-9 are no rounding in float64: y = relu(x) from −1e-9 to 1e-9 has m = 1/2."""
    model = nn.Sequential(nn.Linear(1, 1, bias=False), nn.ReLU(), nn.Linear(1, 1, bias=False)).to(D)
    for layer in (model[0], model[2]):
        layer.weight.data.fill_(1)
    x = torch.tensor([[1e-9]], dtype=D)
    close(heat(model, x, "deep_lift", 0, baseline=-x), x, 1e-12)


# ---------------------------------------------------------------------------------------------- several references


def test_deep_shap_is_the_mean_over_its_baselines():
    shape, make = STACKS["pool2d"]
    parts = list(seeded(lambda: nn.Sequential(*make()))().to(D))
    model, (x, start) = nn.Sequential(*parts), two(shape)
    graph, references = Graph(shape), [start[:1], start[1:], torch.zeros_like(start[:1])]
    graph.sequential(graph.input, *parts)
    found = outcome(model, x[:1], "deep_shap", baseline=references)
    close(found.attribution[0], deep_shap(graph, x[0], [r[0] for r in references], 1), 1e-12)
    mean = torch.stack([score()(model(r)) for r in references]).mean()
    assert abs(float(found.attribution.sum() - (score()(model(x[:1])) - mean))) < 1e-12
    alone = [heat(model, x[:1], "deep_lift", baseline=r) for r in references]
    close(found.attribution, torch.stack(alone).mean(0), 1e-12)


def test_deep_shap_on_a_linear_model_is_exactly_shapley():
    """Against all orders of the features, absent ones taken from each baseline in turn."""
    model, x, background = nn.Linear(4, 2).to(D), random_input(1, 4), random_input(3, 4, seed=1)
    expected = torch.zeros(1, 4, dtype=D)
    orders = list(permutations(range(4)))
    for base in background:
        for order in orders:
            now = base.clone()
            for i in order:
                before = model(now)[1]
                now[i] = x[0, i]
                expected[0, i] += (model(now)[1] - before) / (len(orders) * len(background))
    close(heat(model, x, "deep_shap", baseline=[b[None] for b in background]), expected.detach(), 1e-12)
