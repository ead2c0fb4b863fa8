"""Laws of relevance: nothing is lost untold, limits of rules meet, linearity, the same in every layout and batch."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from compare import class_seed, gradients, relative
from method_cases import check, heat, outcome, pooled, random_input
from networks import zoo
from networks.awkward import AWKWARD, BATCH_DEPENDENT, example
from networks.common import seeded
from pellucid.core.errors import MethodError
from pellucid.core.record import record
from pellucid.core.target import class_scores
from pellucid.core.trace import Trace, Value
from pellucid.rules import composites as c
from pellucid.rules import linear_rules as linear
from pellucid.rules.composites import BASE, Choice, Composite
from pellucid.rules.relevance import Epsilon
from relevance_cases import Walked, everywhere, walked

F64 = torch.float64
COMPOSITES: dict[str, Callable[[], Composite]] = {
    "zero": c.PRESETS["zero"],
    "epsilon_plus": c.epsilon_plus,
    "epsilon_alpha2_beta1": c.epsilon_alpha2_beta1,
    "epsilon_gamma": c.epsilon_gamma,
    "epsilon_plus_flat": c.epsilon_plus_flat,
    "deep_taylor": c.deep_taylor,
}
# Networks with an operation for which no faithful rule is known, and that operation.
WITHOUT_RULE = {
    "masked_scale": "sin",
    "index_add": "scatter_add",
    "accumulate": "lerp",
    "pools": "sign",
    "spatial_transformer": "grid_sampler",
    "indexing": "cumsum",
    "reductions": "reciprocal",
}
SINGLE_PRECISION = {"scripted_frozen"}


def awkward(name: str, batch: int | None = None) -> tuple[nn.Module, tuple[Tensor, ...]]:
    factory, shapes = AWKWARD[name]
    dtype = torch.float32 if name in SINGLE_PRECISION else F64
    inputs = example(shapes, dtype=dtype)
    return factory().to(dtype), inputs if batch is None else tuple(x[:batch] for x in inputs)


def start_of(trace: Trace) -> dict[Value, Tensor]:
    """Class one of every image, with its score."""
    value = class_scores(trace)
    return {value: class_seed(trace) * value.data}


def closes(trace: Trace, composite: Composite, bound: float) -> Walked:
    """At every operation and end to end, each image for itself where images can be told apart."""
    found = walked(trace, None, composite, start_of(trace))
    ledger, scale = found.ledger, found.ledger.peak()
    (value, seed), *_ = start_of(trace).items()
    started, scale = ledger.amount(seed, value), torch.maximum(scale, ledger.size(seed, value))
    for node, entry in ledger.entries.items():
        assert (entry.closing.abs() <= bound * scale).all(), f"{node}: {entry}"
    arrived = [ledger.amount(found.walk.at(v), v) for v in trace.inputs if v.differentiable]
    left = started - sum(arrived) - sum(ledger.totals().values(), ledger.nothing)
    assert (left.abs() <= bound * scale).all(), f"{left} of {started}"
    assert torch.isfinite(found.heat).all()
    return found


@pytest.mark.parametrize("name", sorted({*AWKWARD} - {*WITHOUT_RULE}))
def test_the_ledger_closes_on_every_network(name: str) -> None:
    model, inputs = awkward(name)
    trace = record(model, *inputs)
    for composite in ("zero", "epsilon_plus"):
        closes(trace, COMPOSITES[composite](), 1e-4 if name in SINGLE_PRECISION else 1e-6 if name == "casts" else 1e-9)


@pytest.mark.parametrize("name", sorted(WITHOUT_RULE))
def test_an_operation_without_a_rule_is_refused_by_name(name: str) -> None:
    model, inputs = awkward(name)
    trace = record(model, *inputs)
    with pytest.raises(MethodError, match=rf'no faithful rule for {WITHOUT_RULE[name]}\w* in .*unknown="generic"'):
        walked(trace, None, c.epsilon_plus(), start_of(trace))
    closes(trace, Composite("told", c.epsilon_plus().choices, "generic"), 1e-9)


ZOO = "resnet18 mobilenet_v3_small shufflenet_v2_x0_5 squeezenet1_1 regnet_y_400mf".split()


def check_architecture(name: str, composites: list[str]) -> None:
    trace = record(zoo.build(name).double(), zoo.picture(name, dtype=F64))
    for composite in composites:
        found = closes(trace, COMPOSITES[composite](), 1e-6)
        assert found.heat.abs().sum() > 0


@pytest.mark.parametrize("name", ZOO)
def test_the_ledger_closes_on_architectures(name: str) -> None:
    check_architecture(name, ["epsilon_plus"])


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.torchvision_names())
def test_the_ledger_closes_on_every_architecture(name: str) -> None:
    check_architecture(name, ["epsilon_plus", "epsilon_gamma", "deep_taylor"])


# --------------------------------------------------------------------------------------------- without biases


def bias_free(residual: bool = False) -> nn.Module:
    """Convolutions and ReLUs, max-pools and means, no bias anywhere; residual sums if asked for."""

    class Net(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.down = nn.Conv2d(3, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, 2, bias=False)
            self.a, self.b = nn.Conv2d(8, 8, 3, padding=1, bias=False), nn.Conv2d(8, 8, 3, padding=1, bias=False)
            self.pool, self.head = nn.MaxPool2d(2), nn.Linear(8, 5, bias=False)

        def forward(self, x: Tensor) -> Tensor:
            x = self.pool(self.stem(x).relu())
            y = self.b(self.a(x).relu())
            x = self.down((x + y).relu() if residual else y.relu()).relu()
            return self.head(x.mean((2, 3)))

    return seeded(Net)().double()


@pytest.mark.parametrize("residual", [False, True])
def test_lrp_0_is_gradient_times_input(residual: bool) -> None:
    model, x = bias_free(residual), random_input(2, 3, 12, 12)
    sums = [Choice(Epsilon(0.0), kind) for kind in ("sum", "average_pool")]
    found = walked(model, x, c.epsilon_only(0.0).with_choices(*sums), class_seed(record(model, x)) * model(x).detach())
    assert relative(found.heat, x * gradients(model, (x,))[0]) <= 1e-10


@pytest.mark.parametrize("composite", ["zero", "epsilon_plus", "epsilon_gamma", "epsilon_plus_flat", "deep_taylor"])
@pytest.mark.parametrize("residual", [False, True])
def test_every_cut_holds_the_same_sum(residual: bool, composite: str) -> None:
    model, x = bias_free(residual), random_input(2, 3, 12, 12)
    trace = record(model, x)
    walk = trace.pull(start_of(trace), COMPOSITES[composite](), keep=[*trace.layers])
    cuts = ["pool", "stem", "down"] + ([] if residual else ["a", "b"])
    (seed,) = start_of(trace).values()
    for cut in cuts:
        lost = walk.at(cut).flatten(1).sum(1) - seed.sum(1)
        assert float((lost / seed.sum(1)).abs().max()) <= 2e-3  # the stabiliser's share
    assert relative(walk.input().flatten(1).sum(1), seed.sum(1)) <= 2e-3


def test_excitation_sums_to_one_and_is_never_negative() -> None:
    x = random_input(2, 3, 12, 12)
    for model in (bias_free(), bias_free(True)):
        for picture in (x, x.abs()):
            found = outcome(model, picture, "excitation_backprop")
            assert float(found.attribution.min()) >= 0
            sums = found.attribution.flatten(1).sum(1)
            assert sums.tolist() == pytest.approx([1.0, 1.0], abs=5e-3)  # the rest is the stabiliser's, and told
            assert check(found, "conservation error") == pytest.approx(0.0, abs=1e-12)


def test_deep_taylor_is_never_negative_and_keeps_the_score() -> None:
    """On a ReLU network whose biases are not positive (Montavon et al. 2017, section 5)."""
    model, x = pooled(), random_input(2, 3, 8, 8)
    model = nn.Sequential(*[m for m in model if not isinstance(m, nn.BatchNorm2d)])
    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if name.endswith("bias"):
                parameter.abs_().neg_()
        model[-1].bias.fill_(3.0)
    found = outcome(model, x, "deep_taylor")
    assert float(found.attribution.min()) >= 0
    assert relative(found.attribution.flatten(1).sum(1), found.scores) <= 1e-4
    assert check(found, "conservation error") == pytest.approx(0.0, abs=1e-9)


def test_softmax_gradient_lrp_sums_to_zero() -> None:
    for model in (pooled(), bias_free(True), zoo.build("mobilenet_v3_small").double()):
        x = random_input(2, 3, 64, 64) if len([*model.modules()]) > 60 else random_input(2, 3, 8, 8)
        found = heat(model, x, "sglrp", composite="epsilon_plus")
        assert float(found.flatten(1).sum(1).abs().max()) <= 1e-9 * float(found.abs().sum())
        assert float(found.abs().sum()) > 0


# ------------------------------------------------------------------------------------------- limits and sameness


def relevance(rule: linear.LinearRule, model: nn.Module, x: Tensor) -> Tensor:
    return walked(model, x, everywhere(rule)).heat


@pytest.mark.parametrize("make", [pooled, bias_free])
def test_limits_of_rules_meet(make: Callable[[], nn.Module]) -> None:
    model, x = make(), random_input(2, 3, 8, 8)
    plus, epsilon = linear.z_plus(), linear.epsilon()
    assert torch.equal(relevance(linear.alpha_beta(1.0, 0.0), model, x), relevance(plus, model, x))
    assert relative(relevance(linear.gamma(0.0), model, x), relevance(epsilon, model, x)) <= 1e-9
    assert relative(relevance(linear.signed_gamma(0.0), model, x), relevance(epsilon, model, x)) <= 1e-9
    first = model[0] if isinstance(model, nn.Sequential) else model.stem
    assert isinstance(first, nn.Conv2d)
    alone, positive = nn.Sequential(first, nn.ReLU()), x.abs()
    wide = relevance(linear.gamma(1e9, 0.0), alone, positive)
    assert relative(wide, relevance(linear.z_plus(0.0), alone, positive)) <= 1e-6
    none = torch.zeros(())
    box = everywhere(epsilon).with_choices(Choice(linear.box(none, none), position="first"))
    unbiased = linear.LinearRule("epsilon", epsilon.terms, bias="ignore")
    same = everywhere(epsilon).with_choices(Choice(unbiased, position="first"))
    assert relative(walked(model, x, box).heat, walked(model, x, same).heat) <= 1e-9


@pytest.mark.parametrize("composite", COMPOSITES)
def test_linear_in_the_start(composite: str) -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    trace = record(model, x)
    a, b = torch.randn(2, 2, 5, dtype=F64)
    maps = [walked(trace, None, COMPOSITES[composite](), seed).heat for seed in (a, b, 2 * a - 3 * b)]
    assert relative(maps[2], 2 * maps[0] - 3 * maps[1]) <= 1e-9


@pytest.mark.parametrize("composite", COMPOSITES)
def test_one_image_as_in_a_batch_and_any_memory_layout(composite: str) -> None:
    model, x = pooled(), random_input(3, 3, 8, 8)
    batch = walked(model, x, COMPOSITES[composite]()).heat
    single = torch.cat([walked(model, one, COMPOSITES[composite]()).heat for one in x.split(1)])
    assert relative(batch, single) <= 1e-10
    last = x.contiguous(memory_format=torch.channels_last)
    assert (
        relative(walked(pooled().to(memory_format=torch.channels_last), last, COMPOSITES[composite]()).heat, batch)
        <= 1e-10
    )


SEPARATE = sorted({*AWKWARD} - {*WITHOUT_RULE, "routing"} - BATCH_DEPENDENT - SINGLE_PRECISION)


@pytest.mark.zoo
@pytest.mark.parametrize("name", SEPARATE)
def test_one_image_as_in_a_batch_on_every_network(name: str) -> None:
    maps = [walked(t := record(*flat(awkward(name, n))), None, c.epsilon_plus(), start_of(t)).heat for n in (None, 1)]
    assert relative(maps[0][:1], maps[1]) <= 1e-8


def flat(pair: tuple[nn.Module, tuple[Tensor, ...]]) -> tuple[nn.Module, *tuple[Tensor, ...]]:
    return pair[0], *pair[1]


@pytest.mark.parametrize("composite", COMPOSITES)
def test_batch_norm_is_merged_as_if_fused(composite: str) -> None:
    model, x = pooled(), random_input(2, 3, 8, 8)
    parts = [*pooled()]
    fused = nn.Sequential(
        fuse_conv_bn_eval(parts[0], parts[1]), parts[2], fuse_conv_bn_eval(parts[3], parts[4]), *parts[5:]
    )
    maps = [walked(m, x, COMPOSITES[composite]()).heat for m in (model, fused)]
    assert relative(maps[0], maps[1]) <= 1e-9


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_keeps_the_books_in_single_precision(dtype: torch.dtype) -> None:
    factory, shapes = AWKWARD["eager_whole"]
    x = example(shapes)[0]
    whole = walked(factory(), x, c.epsilon_plus()).heat
    half = walked(factory().to(dtype), x.to(dtype), c.epsilon_plus())
    assert half.heat.dtype == torch.float32
    assert float(torch.cosine_similarity(half.heat.flatten(), whole.flatten(), 0)) > 0.99
    assert float(half.ledger.closing().max()) <= 1e-4 * float(half.ledger.peak().max())
    with torch.autocast("cpu", dtype):
        mixed = walked(factory(), x, c.epsilon_plus())
    assert mixed.heat.dtype == torch.float32
    assert float(torch.cosine_similarity(mixed.heat.flatten(), whole.flatten(), 0)) > 0.99
    assert float(mixed.ledger.closing().max()) <= 1e-4 * float(mixed.ledger.peak().max())


IN_BFLOAT16 = "attention convnext_block dense_concat einsum inplace_on_input mutates_buffers segmentation".split()


@pytest.mark.parametrize("name", IN_BFLOAT16)
def test_networks_in_bfloat16(name: str) -> None:
    factory, shapes = AWKWARD[name]
    trace = record(factory().bfloat16(), *example(shapes, dtype=torch.bfloat16))
    closes(trace, c.epsilon_plus(), 1e-4)
    closes(trace, Composite("sums", (Choice(Epsilon(), "sum"), *BASE)), 1e-3)


@pytest.mark.parametrize("composite", ["epsilon", "epsilon_plus", "epsilon_alpha2_beta1"])
def test_a_constant_that_is_added_to_each_channel_is_a_bias(composite: str) -> None:
    class Written(nn.Module):
        def __init__(self, twin: nn.Sequential) -> None:
            super().__init__()
            self.conv, self.head = twin[0], twin[3]

        def forward(self, x: Tensor) -> Tensor:
            y = nn.functional.conv2d(x, self.conv.weight) + self.conv.bias.view(-1, 1, 1)
            return y.relu().flatten(1) @ self.head.weight.T - (-self.head.bias)

    torch.manual_seed(0)
    twin = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Flatten(), nn.Linear(48, 4)).double().eval()
    x = torch.randn(2, 2, 6, 6, dtype=torch.float64)
    one, other = (outcome(net, x, "lrp", composite=composite).attribution for net in (twin, Written(twin)))
    assert torch.allclose(one, other, rtol=0, atol=1e-12)
    assert one.abs().max() > 1e-3
