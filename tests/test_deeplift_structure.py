"""DeepLIFT between two layers, and against other people's numbers: published ones, and Captum's where it is right."""

import json
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from compare import but_pythons_numbers
from method_cases import D, check, close, error, heat, outcome, pooled, random_input, undrawn
from networks.awkward import AWKWARD
from networks.common import seeded
from oracles.deeplift import Graph
from pellucid.core.errors import Cancelled, LayerError
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.methods.deeplift import deep_lift_walk, influence
from pellucid.rules.deeplift import Nonlinearity

NONLINEARITIES: tuple[Nonlinearity, ...] = ("rescale", "reveal_cancel")


def mlp() -> nn.Sequential:
    def make() -> nn.Module:
        parts = [nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 5), nn.SiLU(), nn.Linear(5, 4), nn.Tanh(), nn.Linear(4, 3)]
        return nn.Sequential(*parts)

    model = seeded(make)().to(D)
    assert isinstance(model, nn.Sequential)
    return model


def change(trace: Trace, layer: str, start: Tensor) -> Tensor:
    """Δ of a layer's channels, summed over positions."""
    _, reference = deep_lift_walk(trace, {}, start)
    delta = reference.change(trace.at(layer))
    return delta.flatten(2).sum(2) if delta.dim() > 2 else delta


@pytest.mark.parametrize("nonlinearity", NONLINEARITIES)
@pytest.mark.parametrize(("source", "target"), [("1", "4"), ("2", "5"), ("0", "8"), ("5", "8"), ("6", "8")])
def test_what_a_channel_receives_is_its_change(source: str, target: str, nonlinearity: Nonlinearity):
    x, start = random_input(2, 3, 8, 8), random_input(2, 3, 8, 8, seed=1)
    trace = record(pooled(), x)
    found = influence(trace, source, target, start, nonlinearity=nonlinearity)
    assert found.shape == (2, trace.at(source).shape[1], trace.at(target).shape[1])
    close(found.sum(1), change(trace, target, start), 1e-11)


def test_influence_in_matrices():
    model, x, start = mlp(), random_input(1, 4), random_input(1, 4, seed=1)
    graph = Graph((4,))
    graph.sequential(graph.input, *model)
    found = influence(record(model, x), "1", "4", start)
    hidden, target = graph.nodes[2], graph.nodes[5]
    delta = graph.values(x[0])[hidden] - graph.values(start[0])[hidden]
    columns = [graph.multipliers(x[0], start[0], target, j)[hidden] * delta for j in range(4)]
    close(found[0], torch.stack(columns, 1), 1e-12)


def test_a_weight_of_zero_is_no_edge():
    model = mlp()
    with torch.no_grad():
        model[2].weight[3, 1] = 0
    found = influence(record(model, random_input(2, 4)), "1", "2", random_input(2, 4, seed=1))
    assert not found[:, 1, 3].any()
    assert found[:, [0, 2, 3, 4, 5], 3].any()


def test_multipliers_chain():
    """m_AB m_BC = m_AC, for single units of layers of vectors."""
    model, x, start = mlp(), random_input(1, 4), random_input(1, 4, seed=1)
    trace = record(model, x)

    def multipliers(source: str, target: str) -> Tensor:
        rows = []
        for unit in range(trace.at(target).shape[1]):
            seed = torch.zeros(trace.at(target).shape, dtype=D)
            seed[:, unit] = 1
            rows.append(deep_lift_walk(trace, {trace.at(target): seed}, start)[0].at(source)[0])
        return torch.stack(rows, 1)

    close(multipliers("1", "3") @ multipliers("3", "6"), multipliers("1", "6"), 1e-12)
    delta = change(trace, "1", start)[0]
    close(multipliers("1", "6") * delta[:, None], influence(trace, "1", "6", start)[0], 1e-12)


def test_a_target_that_is_a_unit_of_a_layer():
    x, start = random_input(2, 3, 8, 8), random_input(2, 3, 8, 8, seed=1)
    found = outcome(pooled(), x, "deep_lift", pel.unit("4", 2), baseline=start)
    trace = record(pooled(), x)
    delta = change(trace, "4", start)[:, 2] / 16
    close(found.attribution.flatten(1).sum(1), delta, 1e-11)
    close(16 * found.attribution.flatten(2).sum(2).sum(1), influence(trace, "0", "4", start)[:, :, 2].sum(1), 1e-10)


def test_branches_around_the_source_are_not_its_influence():
    """What reaches the target by another way is missing from the sum: the residual sum of a block."""
    model = AWKWARD["inplace_residual"][0]().to(D)
    x, start = random_input(1, 3, 12, 12), random_input(1, 3, 12, 12, seed=1)
    trace = record(model, x)
    found = influence(trace, "bn2", "relu#2", start)
    whole = influence(trace, "relu#0", "relu#2", start)
    close(whole.sum(1), change(trace, "relu#2", start), 1e-10)
    assert error(found.sum(1), whole.sum(1)) > 0.05


class Tokens(nn.Module):
    """Channels on the last axis."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide, self.head = nn.Conv2d(3, 4, 3), nn.Linear(4, 6), nn.Linear(6, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.gelu(self.wide(self.conv(x).permute(0, 2, 3, 1))).mean((1, 2)))


def test_channels_are_found_on_the_last_axis():
    x, start = random_input(2, 3, 6, 6), random_input(2, 3, 6, 6, seed=1)
    trace = record(seeded(Tokens)().to(D), x)
    found = influence(trace, "conv", "wide", start)
    assert found.shape == (2, 4, 6)
    _, reference = deep_lift_walk(trace, {}, start)
    close(found.sum(1), reference.change(trace.at("wide")).sum((1, 2)), 1e-11)


def test_influence_reports_stops_and_leaves_no_trace(untouched):
    model, x = pooled(), random_input(1, 3, 8, 8)
    seen: list[tuple[int, int]] = []
    progress = pel.Progress(on_event=lambda done, total, label: seen.append((done, total)))
    with but_pythons_numbers(untouched)(model):
        trace = record(model, x)
        influence(trace, "2", "4", torch.zeros_like(x), progress=progress)
        assert seen == [(n, 8) for n in range(1, 9)]
        with pytest.raises(LayerError, match='"2" does not depend on layer "4"'):
            influence(trace, "4", "2", torch.zeros_like(x))
        with pytest.raises(LayerError, match="nowhere"):
            influence(trace, "2", "nowhere", torch.zeros_like(x))
        progress.cancel()
        with pytest.raises(Cancelled):
            influence(trace, "2", "4", torch.zeros_like(x), progress=progress)


# ------------------------------------------------------------------------------------------- published numbers


class Simpler(nn.Module):
    """DeepExplain's: relu(relu(x A + a) B)."""

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(F.linear(x, torch.eye(2, dtype=x.dtype), torch.tensor([-1.0, 0.0], dtype=x.dtype)))
        return torch.relu(hidden @ torch.tensor([[1.0], [-1.0]], dtype=x.dtype))


class Multi(nn.Module):
    """DeepExplain's: relu(concat(3 x1, 2 x2)), summed."""

    def __init__(self, first: float, second: float) -> None:
        super().__init__()
        self.first, self.second = first, second

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        return torch.relu(torch.cat([self.first * x, self.second * y], 1)).sum(1, keepdim=True)


METHOD = {
    "saliency (absolute gradient)": ("saliency", {}),
    "gradient*input": ("gradient_x_input", {}),
    "integrated gradients, zero baseline": ("integrated_gradients", {"baseline": "zero"}),
    "integrated gradients": ("integrated_gradients", {}),
    "LRP-epsilon": ("lrp", {"composite": "epsilon"}),
    "DeepLIFT rescale, zero baseline": ("deep_lift", {"baseline": "zero"}),
    "DeepLIFT rescale": ("deep_lift", {}),
}


def expected(data: Path, net: str) -> list[dict]:
    path = data / "oracle_deepexplain" / "expected.json"
    if not path.is_file():
        pytest.skip(f"no {path.name} of DeepExplain at {path.parent}")
    return [case for case in json.loads(path.read_text())["cases"] if case["net"] == net]


def test_the_published_numbers_of_deep_explain(data: Path):
    cases = [c for c in expected(data, "simpler") if c["method"] in METHOD]
    assert len(cases) == 7
    for case in cases:
        name, words = METHOD[case["method"]]
        x, wanted = (torch.tensor(case[k], dtype=D) for k in ("x", "expected"))
        if "baseline" in case:
            words = {**words, "baseline": torch.tensor([case["baseline"]], dtype=D)}
        found = heat(Simpler().eval(), x, name, 0, **words)
        found = found.abs() if name == "saliency" else found
        assert float((found - wanted).abs().max()) <= 1e-5, (case["method"], found)


def test_the_published_numbers_for_two_inputs(data: Path):
    """Each input in turn as the one that is explained."""
    (case,) = expected(data, "multi")
    (x, y), (of_x, of_y) = (torch.tensor(case[k], dtype=D) for k in ("x", "expected"))
    methods = {"gradient_x_input": {}, "lrp": {"composite": "epsilon"}, "deep_lift": {"baseline": "zero"}}
    for name, words in methods.items():
        assert float((heat(Multi(3, 2).eval(), (x, y), name, 0, **words) - of_x).abs().max()) <= 1e-6, name
        assert float((heat(Multi(2, 3).eval(), (y, x), name, 0, **words) - of_y).abs().max()) <= 1e-6, name


# --------------------------------------------------------------------------------------------------- Captum


@pytest.fixture(scope="module")
def captum() -> ModuleType:
    return pytest.importorskip("captum.attr", reason="captum is not installed; pip install -e '.[peers]'")


def theirs(captum: ModuleType, model: nn.Module, x: Tensor, start: Tensor) -> Tensor:
    return captum.DeepLift(model).attribute(x.clone().requires_grad_(), start, target=1).detach()


def relu_net(*, pool: bool = False, act: type[nn.Module] = nn.ReLU) -> nn.Module:
    def make() -> nn.Module:
        middle: nn.Module = nn.MaxPool2d(3, 2) if pool else nn.AvgPool2d(3, 2)
        parts = [nn.Conv2d(3, 6, 3), nn.BatchNorm2d(6), act(), middle, nn.Conv2d(6, 8, 2), act()]
        return nn.Sequential(*parts, nn.Flatten(), nn.Linear(8 * 3 * 3, 4))

    return seeded(make)().to(D)


@pytest.mark.peers
@pytest.mark.parametrize("act", [nn.ReLU, nn.ELU, nn.Sigmoid, nn.Tanh, nn.LeakyReLU, nn.Softplus])
def test_captum_gives_the_same_on_plain_modules(captum: ModuleType, act: type[nn.Module]):
    model, x, start = relu_net(act=act), random_input(2, 3, 11, 11), random_input(2, 3, 11, 11, seed=1)
    close(heat(model, x, "deep_lift", baseline=start), theirs(captum, model, x, start), 1e-11)
    mean = torch.stack([theirs(captum, model, x[:1], s[None]) for s in start]).mean(0)
    close(heat(model, x[:1], "deep_shap", baseline=[s[None] for s in start]), mean, 1e-11)


class Functional(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = relu_net()

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.body.children():
            x = F.relu(x) if isinstance(layer, nn.ReLU) else layer(x)
        return x


@pytest.mark.peers
@pytest.mark.parametrize("name", ["max_pool", "functional", "silu"])
def test_where_captum_differs_completeness_judges(captum: ModuleType, name: str):
    """Overlapping max-pool, functional ReLU, SiLU: Captum's numbers don't add up to the difference, ours do."""
    models = {
        "max_pool": lambda: relu_net(pool=True),
        "functional": lambda: Functional().eval(),
        "silu": lambda: relu_net(act=nn.SiLU),
    }
    model, x, start = models[name](), random_input(2, 3, 11, 11), random_input(2, 3, 11, 11, seed=1)
    ours = outcome(model, x, "deep_lift", baseline=start)
    with undrawn():
        other = theirs(captum, model, x, start)
    change = (model(x) - model(start))[:, 1].detach()
    assert float((ours.attribution.flatten(1).sum(1) - change).abs().max()) < 1e-12
    assert check(ours, "summation-to-delta error") < 1e-10
    assert float((other.flatten(1).sum(1) - change).abs().max()) > 1e-3
    assert error(ours.attribution, other) > 1e-2
