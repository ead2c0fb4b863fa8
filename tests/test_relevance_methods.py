"""The relevance methods against slow definitions, zennit and iNNvestigate's tables; receipts and refusals."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from compare import but_pythons_numbers, class_seed, relative
from method_cases import COLOURS, check, heat, outcome, pooled, random_input
from networks import zoo
from networks.awkward import AWKWARD, example
from networks.common import seeded
from oracles import relevance as oracle
from pellucid.core.errors import MethodError, SettingError
from pellucid.core.record import record
from pellucid.methods.run import attribute
from pellucid.models.model import wrap
from pellucid.rules import composites as c
from pellucid.rules import linear_rules as linear
from pellucid.rules.composites import BASE, Choice, Composite
from pellucid.rules.relevance import Epsilon
from relevance_cases import walked

F64 = torch.float64
METHODS = ["lrp", "lrp_layer", "deep_taylor", "excitation_backprop", "contrastive_excitation_backprop", "sglrp", "clrp"]
AT_LAYERS = {"lrp_layer", "contrastive_excitation_backprop"}


def net() -> nn.Sequential:
    """Small enough for dense matrices: convolution with BatchNorm, max-pool, convolution, mean, linear."""

    def make() -> nn.Module:
        parts = [nn.Conv2d(3, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4), nn.ReLU(), nn.MaxPool2d(2)]
        return nn.Sequential(
            *parts, nn.Conv2d(4, 5, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 4)
        )

    return seeded(make)().double()  # type: ignore[return-value]


def steps_of(model: nn.Sequential) -> list[oracle.Step]:
    return [oracle.Merged(model[0], model[1]), *model[2:]]


def x8() -> Tensor:
    return random_input(2, 3, 6, 6)


def slowly(steps: list[oracle.Step], x: Tensor, explain: Callable[[Tensor], Tensor]) -> Tensor:
    return torch.cat([explain(one) for one in x.split(1)])


# ------------------------------------------------------------------------------- against the slow definitions


def test_lrp_with_every_composite() -> None:
    model, x, steps = net(), x8(), steps_of(net())
    eps = oracle.epsilon(1e-6)
    rules = {
        "zero": oracle.Rules(oracle.epsilon()),
        "epsilon": oracle.Rules(eps),
        "epsilon_plus": oracle.Rules(eps, oracle.z_plus()),
        "epsilon_alpha2_beta1": oracle.Rules(eps, oracle.alpha_beta(2, 1)),
        "epsilon_gamma": oracle.Rules(eps, oracle.signed_gamma(0.25)),
        "epsilon_plus_flat": oracle.Rules(eps, oracle.z_plus(), oracle.flat()),
        "epsilon_alpha2_beta1_flat": oracle.Rules(eps, oracle.alpha_beta(2, 1), oracle.flat()),
    }
    assert {*rules} == {*c.PRESETS}
    for name, slow in rules.items():
        expected = slowly(steps, x, lambda one, slow=slow: oracle.pull(steps, one, start(model, one), slow))
        assert relative(heat(model, x, "lrp", composite=name), expected) <= 1e-4, name  # ε
        if name == "zero":
            assert relative(heat(model, x, "lrp", composite=name), expected) <= 1e-9


def start(model: nn.Module, x: Tensor, target: int = 1) -> Tensor:
    return oracle.one_class(model(x).detach(), target)


def box_bounds(x: Tensor) -> tuple[Tensor, Tensor]:
    """Black and white as `COLOURS` sees them."""
    mean, std = (torch.tensor(v, dtype=F64).view(1, 3, 1, 1) for v in (COLOURS.mean, COLOURS.std))
    return tuple(((v - mean) / std).expand_as(x[:1]) for v in (0.0, 1.0))  # type: ignore[return-value]


def test_the_box_is_black_and_white_in_the_networks_units() -> None:
    model, x, steps = net(), x8(), steps_of(net())
    low, high = box_bounds(x)
    x = torch.minimum(torch.maximum(x, low), high)
    first = oracle.box(low.flatten(), high.flatten())
    slow = oracle.Rules(oracle.epsilon(1e-6), oracle.signed_gamma(0.25), first)
    expected = slowly(steps, x, lambda one: oracle.pull(steps, one, start(model, one), slow))
    assert relative(heat(model, x, "lrp", composite="epsilon_gamma_box", preprocess=COLOURS), expected) <= 1e-4
    with pytest.raises(SettingError, match="give preprocess="):
        heat(model, x, "lrp", composite="epsilon_gamma_box")


@pytest.mark.parametrize("target", [0, 1, 2])
def test_deep_taylor(target: int) -> None:
    model, x, steps = net(), x8(), steps_of(net())
    low, high = box_bounds(x)
    expected = slowly(steps, x, lambda one: oracle.deep_taylor(steps, one, target, low, high))
    assert relative(heat(model, x, "deep_taylor", target, preprocess=COLOURS), expected) <= 1e-3
    found = outcome(model, x, "deep_taylor", target)
    assert any("w²" in note for note in found.receipts[0].notes)


def test_excitation_backprop_down_to_the_features() -> None:
    model, x, steps = net(), x8(), steps_of(net())
    features = model[:4](x).detach()
    expected = slowly(steps[3:], features, lambda one: oracle.excitation_backprop(steps[3:], one, 1))
    found = record(model, x)
    walk = found.pull({found.output: class_seed(found)}, c.excitation())
    assert relative(walk.at("3"), expected) <= 1e-4


def test_softmax_gradient_and_contrastive_starts() -> None:
    """Without biases one signed walk from the paper's start is the whole method, up to p (1 − p)."""
    model, x = net(), x8()
    model[8].bias = model[4].bias = None  # type: ignore[assignment]
    with torch.no_grad():
        model[1].bias.zero_(), model[1].running_mean.zero_()  # type: ignore[union-attr]
    steps, slow = steps_of(model), oracle.Rules(oracle.epsilon(1e-6), oracle.z_plus())

    def signed(of: Callable[[Tensor, int], Tensor]) -> Tensor:
        return slowly(steps, x, lambda one: oracle.pull(steps, one, of(model(one).detach(), 1), slow))

    y = torch.softmax(model(x), 1)[:, 1].view(-1, 1, 1, 1)
    expected = signed(oracle.sglrp_start) / (y * (1 - y)).detach()
    assert relative(heat(model, x, "sglrp", composite="epsilon_plus"), expected) <= 1e-3
    logit = model(x)[:, 1].view(-1, 1, 1, 1).detach()
    found = heat(model, x, "clrp", composite="epsilon_plus")
    assert relative(found, (signed(oracle.clrp1_start) / logit).clamp(min=0)) <= 1e-3
    assert float(found.min()) == 0 and float(found.max()) > 0


def test_contrast_to_the_opposite_of_the_class() -> None:
    model, x = net(), x8()
    steps = steps_of(model)
    slow = oracle.Rules(oracle.z_plus(False), first=oracle.w_square(), average=oracle.z_plus(False))
    signed = slowly(steps, x, lambda one: oracle.clrp2(steps, one, 1, slow, model[8]))  # type: ignore[arg-type]
    expected = (signed / model(x)[:, 1].view(-1, 1, 1, 1).detach()).clamp(min=0)
    assert relative(heat(model, x, "clrp", dual="opposite", composite="deep_taylor"), expected) <= 1e-3
    assert float(expected.max()) > 0


def test_contrastive_excitation_sums_to_zero() -> None:
    found = heat(pooled(), random_input(2, 3, 8, 8), "contrastive_excitation_backprop", layers="2")
    assert float(found.sum().abs()) <= 1e-2 * float(found.abs().sum()) and float(found.abs().sum()) > 0


def test_at_a_layer_and_from_one() -> None:
    model, x = net(), x8()
    trace = record(model, x)
    seed = class_seed(trace)
    walk = trace.pull({trace.output: seed * trace.scores}, c.epsilon_plus())
    found = outcome(model, x, "lrp_layer", layers="2")
    assert torch.equal(found.attribution, walk.at("2").sum(1))
    assert check(found, "conservation error") == pytest.approx(0.0, abs=1e-12)
    ones = heat(model, x, "lrp", start="one") * model(x)[:, 1].detach().view(-1, 1, 1, 1)
    assert relative(ones, heat(model, x, "lrp")) <= 1e-10


def test_several_classes_share_one_recording() -> None:
    model, x = net(), x8()
    both = attribute(wrap(model), x, methods="lrp", targets=["top1", 0, 2])
    assert all(
        relative(o.attribution, heat(model, x, "lrp", t)) <= 1e-12 for o, t in zip(both[1:], (0, 2), strict=True)
    )


# ------------------------------------------------------------------------------------------------- receipts


def test_the_receipt_shows_where_relevance_stayed() -> None:
    found = outcome(net(), x8(), "lrp")
    (closing,) = [k for k in found.receipts[0].checks if k.name == "conservation error"]
    assert closing.verdict == "pass" and abs(closing.value) <= 1e-9 and "bias" in closing.text
    assert not found.receipts[0].approximate
    assert found.receipts[0].operations["z_plus: conv2d"] == 2


class Cancels(nn.Module):
    """Two equal ways against each other, with a small rest: LRP-ε sees large parts of opposite sign."""

    def __init__(self, rest: float = 1e-4) -> None:
        super().__init__()
        self.a = nn.Conv2d(3, 4, 3, bias=False)
        self.b, self.head = nn.Conv2d(4, 4, 1, bias=False), nn.Linear(4, 3, bias=False)
        with torch.no_grad():
            self.a.weight[2:] = self.a.weight[:2]
            self.b.weight.copy_(torch.tensor([[1.0, 1, rest - 1, rest - 1]]).expand(4, 4)[..., None, None])
            self.head.weight.abs_()

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.b(self.a(x).relu()).mean((2, 3)))


def test_relevance_that_grows_and_cancels_is_told() -> None:
    model, x = seeded(Cancels)().double(), x8()
    grown = outcome(model, x, "lrp", composite="epsilon")
    assert check(grown, "largest relevance on the way") > 100
    (told,) = [k for k in grown.receipts[0].checks if k.name == "largest relevance on the way"]
    assert told.verdict == "warn" and "epsilon_plus" in told.text and "rounding" not in told.text
    assert check(grown, "conservation error") == pytest.approx(0.0, abs=1e-6)
    calm = outcome(model, x, "lrp")
    assert check(calm, "largest relevance on the way") < 2
    assert calm.receipts[0].verdict == "pass"
    small = seeded(lambda: nn.Sequential(nn.Flatten(), nn.Linear(2, 2, bias=False)))().double()
    with torch.no_grad():
        small[1].weight.copy_(torch.tensor([[1.0, 1.0], [1.0, -0.9999]]))  # type: ignore[union-attr]
    (told,) = [k for k in outcome(small, torch.ones(1, 2, dtype=F64), "lrp").receipts[0].checks if "largest" in k.name]
    assert told.verdict == "warn" and "deep_taylor" in told.text
    (told,) = [k for k in outcome(small.float(), torch.ones(1, 2), "lrp").receipts[0].checks if "largest" in k.name]
    assert told.verdict == "fail" and "rounding" in told.text


def test_an_operation_without_a_rule_is_refused_or_told() -> None:
    factory, shapes = AWKWARD["reductions"]
    x = example(shapes)[0]
    for method in METHODS:
        words = {"layers": "conv1"} if method in AT_LAYERS else {}
        with pytest.raises(MethodError, match=r"no faithful rule for \w+ in "):
            heat(factory(), x, method, **words)
    found = outcome(factory(), x, "lrp", unknown="generic")
    assert any(
        "no faithful rule is known for" in line and "reciprocal" in line for line in found.receipts[0].approximate
    )
    assert found.receipts[0].verdict in ("warn", "fail")
    own = c.Composite("own", c.epsilon_plus().choices, "generic")
    assert torch.equal(heat(factory(), x, "lrp", composite=own), found.attribution)


def test_attention_is_told() -> None:
    factory, shapes = AWKWARD["encoder"]
    assert any("AttnLRP" in line for line in outcome(factory(), example(shapes)[0], "lrp").receipts[0].approximate)


@pytest.mark.parametrize("method", METHODS)
def test_the_model_is_untouched(method: str, untouched: Any) -> None:
    guard = but_pythons_numbers(untouched)
    model, x = pooled().train(False), random_input(2, 3, 8, 8)
    with guard(model):
        heat(model, x, method)
    factory, shapes = AWKWARD["indexing"]
    refused = factory()
    with guard(refused), pytest.raises(MethodError):
        heat(refused, example(shapes)[0], method, **({"layers": "conv1"} if method in AT_LAYERS else {}))


def test_one_class_against_none_is_refused() -> None:
    one = nn.Sequential(nn.Flatten(), nn.Linear(12, 1)).double()
    for method in ("sglrp", "clrp"):
        with pytest.raises(MethodError, match="against the others"):
            heat(one, random_input(2, 12), method, 0)
    with pytest.raises(SettingError, match='no composite "epsilonplus"'):
        heat(net(), x8(), "lrp", composite="epsilonplus")


# --------------------------------------------------------------------------------------------------- peers


ZENNIT: dict[str, Callable[[], Composite]] = {
    "Epsilon": lambda: c.epsilon_only(1e-6),
    "EpsilonPlus": c.epsilon_plus,
    "EpsilonAlpha2Beta1": c.epsilon_alpha2_beta1,
    "EpsilonGammaBox": lambda: c.epsilon_gamma_box(torch.tensor(-3.0), torch.tensor(3.0)),
    "EpsilonPlusFlat": c.epsilon_plus_flat,
    "EpsilonAlpha2Beta1Flat": c.epsilon_alpha2_beta1_flat,
}


MORE = ["vgg11", "vgg11_bn", "vgg16"]


@pytest.mark.peers
@pytest.mark.parametrize("name", ZENNIT)
@pytest.mark.parametrize("architecture", ["resnet18", *(pytest.param(n, marks=pytest.mark.zoo) for n in MORE)])
def test_zennit(architecture: str, name: str) -> None:
    """With its own splits: ε at sums and averages. BatchNorm's eps is 0, which zennit's canonizer forgets."""
    zennit = pytest.importorskip("zennit", reason="zennit is not installed; pip install -e '.[peers]'")
    model, x = zoo.build(architecture).double(), zoo.picture(architecture, 2, dtype=F64).clamp(-3, 3)
    for module in model.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.eps = 0.0
    found = walked(model, x, as_zennit(ZENNIT[name]()), class_seed(record(model, x))).heat
    expected = zennits(zennit, model, x, name, architecture)
    assert relative(found, expected) <= 1e-8


def as_zennit(composite: Composite) -> Composite:
    """Its flat rule has a stabiliser too."""
    first = [Choice(linear.flat(1e-6), position="first")] if composite.name.endswith("flat") else []
    return composite.with_choices(*first, Choice(Epsilon(1e-6), "sum"), Choice(Epsilon(1e-6), "average_pool"))


def zennits(zennit: Any, model: nn.Module, x: Tensor, name: str, architecture: str) -> Tensor:
    import zennit.attribution
    import zennit.composites
    import zennit.rules
    import zennit.torchvision
    from zennit.types import Convolution, Linear

    canonizer = (
        zennit.torchvision.ResNetCanonizer if architecture == "resnet18" else zennit.torchvision.VGGCanonizer
    )()
    if name == "Epsilon":
        rule = zennit.rules.Epsilon(1e-6)
        layers = [(Convolution, rule), (Linear, rule)]
        base = zennit.composites.layer_map_base()
        composite = zennit.composites.LayerMapComposite([*layers, *base], canonizers=[canonizer])
    else:
        words = {"low": torch.full_like(x, -3.0), "high": torch.full_like(x, 3.0)} if "Box" in name else {}
        composite = getattr(zennit.composites, name)(canonizers=[canonizer], **words)
    with zennit.attribution.Gradient(model, composite) as attributor:
        seed = torch.zeros_like(model(x))
        seed[:, 1] = 1
        return attributor(x, seed)[1].detach()


# ------------------------------------------------------------------------------------- iNNvestigate's tables


LOW, HIGH = torch.tensor(-10.0), torch.tensor(10.0)
FIRST = {"LRPZ_Flat_input_layer_rule": linear.flat(), "LRPZ_boxed_input_layer_rule": linear.box(LOW, HIGH, 0.0)}
INNVESTIGATE: dict[str, linear.LinearRule] = {
    "LRPZ": linear.zero(),
    "LRPZIgnoreBias": linear.zero(),
    "LRPEpsilon": linear.epsilon(1e-7),
    "LRPEpsilonIgnoreBias": linear.epsilon(1e-7),
    "LRPWSquare": linear.w_square(),
    "LRPFlat": linear.flat(),
    "LRPAlpha2Beta1": linear.alpha_beta(2.0, 1.0, 0.0),
    "LRPAlpha2Beta1IgnoreBias": linear.alpha_beta(2.0, 1.0, 0.0),
    "LRPAlpha1Beta0": linear.alpha_beta(1.0, 0.0, 0.0),
    "LRPAlpha1Beta0IgnoreBias": linear.alpha_beta(1.0, 0.0, 0.0),
    "LRPZPlus": linear.z_plus(0.0),
    "BoundedDeepTaylor": linear.box(torch.tensor(-128.0), torch.tensor(128.0), 0.0),
    **FIRST,
}


@pytest.fixture(scope="module")
def table(data: Path) -> Any:
    path = data / "oracle_innvestigate" / "innvestigate_layer_references.npz"
    if not path.is_file():
        pytest.skip(f"iNNvestigate's tables are not at {path}")
    return np.load(path)


def keras(table: Any, analyser: str, layer: str) -> tuple[nn.Module, Tensor, Tensor, Tensor]:
    """The layer as a network, channels first, the input, the output and the attribution that is expected."""
    x = torch.from_numpy(table["input"]).double().permute(0, 3, 1, 2)
    weight = torch.from_numpy(table[f"{analyser}/{layer}/weight0"]).double()
    made: nn.Module
    if layer.startswith("Conv2D"):
        made = nn.Conv2d(3, 5, 3, bias=False)
        made.weight = nn.Parameter(weight.permute(3, 2, 0, 1).contiguous())
    else:
        made = nn.Conv2d(3, 5, 1, bias=False)
        made.weight = nn.Parameter(weight.T[..., None, None].contiguous())
    wanted = torch.from_numpy(table[f"{analyser}/{layer}/attribution"]).double().permute(0, 3, 1, 2)
    output = torch.from_numpy(table[f"{analyser}/{layer}/output"]).double()
    return nn.Sequential(made, *([nn.ReLU()] if layer.endswith("relu") else [])).double(), x, output, wanted


@pytest.mark.parametrize("layer", ["Conv2D", "Conv2D_relu", "Dense", "Dense_relu"])
@pytest.mark.parametrize("analyser", sorted(INNVESTIGATE))
def test_innvestigates_tables(table: Any, analyser: str, layer: str) -> None:
    model, x, output, wanted = keras(table, analyser, layer)
    y = model(x).detach()
    flat = y.permute(0, 2, 3, 1).flatten(1)
    assert relative(flat, output) <= 1e-5
    seed = torch.zeros_like(flat).scatter_(1, flat.argmax(1, keepdim=True), flat.amax(1, keepdim=True))
    seed = seed.view(len(y), *y.shape[2:], y.shape[1]).permute(0, 3, 1, 2)
    rule = INNVESTIGATE[analyser]
    found = walked(model, x, Composite("one", (Choice(rule, "convolution"), *BASE)), seed).heat
    assert relative(found, wanted) <= 1e-6
