"""Guided backpropagation and deconvnet against independent references, on every spelling of a rectifier."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compare import EXACT, class_seed, relative
from networks import zoo
from networks.awkward import AWKWARD, SMOOTH_VARIANTS, VARIANT_SHAPES, VARIANTS, class_one, example, seeded, twin
from networks.common import Trunk
from networks.operators import CustomFunction, HandSwish, Pools
from oracles import rectifiers
from pellucid.core.record import record
from pellucid.rules.rectifiers import DECONVNET, GUIDED

RULES = {"guided": (GUIDED, rectifiers.guided_backprop), "deconvnet": (DECONVNET, rectifiers.deconvnet)}


class HandSwishTwin(HandSwish):
    """With torch's own names, which the reference sees."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.silu(x)
        return x.sigmoid() * self.conv2(x) + F.hardswish(x)


class CustomFunctionTwin(CustomFunction):
    def middle(self, x: Tensor) -> Tensor:
        return F.silu(self.conv2(F.silu(x)))


class PoolsTwin(Pools):
    """`F.lp_pool2d` holds a relu that the reference does not look into."""

    def middle(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(x), 3, stride=2, padding=1, ceil_mode=True)
        y, where = F.max_pool2d(x, 2, return_indices=True)
        y = F.max_unpool2d(y, where, 2, output_size=x.shape[2:])
        z = F.adaptive_avg_pool2d(x, (5, 3)).repeat(1, 1, 1, 2) + F.adaptive_max_pool2d(y, (5, 6))
        mean = F.avg_pool2d((z.abs() + 0.1) ** 2, 2, 1)
        z = (torch.sign(mean) * F.relu(mean.abs()) * 4) ** 0.5
        return F.avg_pool2d(z, 3, 1, 1, ceil_mode=True, count_include_pad=False)


TWINS: dict[str, Callable[[], nn.Module]] = {
    "hand_swish": seeded(HandSwishTwin),
    "custom_function": seeded(CustomFunctionTwin),
    "pools": seeded(PoolsTwin),
}
CASES = [(n, d) for n in AWKWARD for d in EXACT if n != "scripted_frozen" or d == torch.float32]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_equal_to_the_reference(name: str, dtype: torch.dtype, rule: str) -> None:
    factory, shapes = AWKWARD[name]
    inputs = example(shapes, dtype=dtype)
    trace = record(factory().to(dtype), *inputs)
    other = TWINS.get(name, AWKWARD[twin(name)][0])().to(dtype)
    rules, oracle = RULES[rule]
    walk = trace.pull(class_seed(trace), rules)
    for which, expected in enumerate(oracle(other, inputs, class_one)):
        assert relative(walk.input(which), expected) <= EXACT[dtype]


ZOO = ["resnet18", "squeezenet1_1", "mobilenet_v2", "efficientnet_b0", "googlenet", "convnext_tiny"]
LEFT_OUT_BY_HOOKS = ["mobilenet_v2", "efficientnet_b0", "googlenet", "convnext_tiny"]


@pytest.mark.parametrize("name", ZOO)
def test_equal_to_the_reference_on_architectures(name: str) -> None:
    model, x = zoo.build(name).double(), zoo.picture(name, dtype=torch.float64)
    trace = record(model, x)
    exact = trace.pull(class_seed(trace)).input()
    for rules, oracle in RULES.values():
        found = trace.pull(class_seed(trace), rules).input()
        assert relative(found, oracle(model, x, zoo.class_score)) <= 1e-10
        assert relative(found, exact) > 0.1


@pytest.mark.parametrize("name", LEFT_OUT_BY_HOOKS)
def test_every_rectifier_of_an_architecture_is_met(name: str) -> None:
    model, x = zoo.build(name), zoo.picture(name)
    trace = record(model, x)
    seen = rectifiers.rectifiers(model, x, zoo.class_score)
    walk = trace.pull(class_seed(trace), GUIDED)
    walk.input()
    met = {base: count for (rule, base), count in walk.met.items() if rule == "guided"}
    assert sum(met.values()) == seen.total() > 9
    cosine = F.cosine_similarity(walk.input().flatten(), trace.pull(class_seed(trace)).input().flatten(), dim=0)
    assert cosine < 0.9


@pytest.mark.parametrize("rules", [None, GUIDED, DECONVNET], ids=["gradient", "guided", "deconvnet"])
@pytest.mark.parametrize("table", ["sharp", "smooth"])
def test_spelling_does_not_matter(table: str, rules: Any) -> None:
    variants = VARIANTS if table == "sharp" else SMOOTH_VARIANTS
    x = example(VARIANT_SHAPES)[0]
    plain = record(variants["functional"](), x)
    expected = plain.pull(class_seed(plain), rules).input()
    for name, factory in variants.items():
        trace = record(factory(), x)
        assert relative(trace.pull(class_seed(trace), rules).input(), expected) <= 1e-6, name


class Call(Trunk):
    """A rectifier in the middle of a network, in any spelling."""

    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.functions = (function,)

    def middle(self, x: Tensor) -> Tensor:
        return self.functions[0](self.conv2(self.functions[0](2 * x)))


def self_gated_(x: Tensor) -> Tensor:
    return x.mul_(x.sigmoid())


def six(x: Tensor) -> Tensor:
    return F.hardtanh(x + 3, 0.0, 6.0)


SPELLINGS: dict[str, tuple[Callable[[Tensor], Tensor], Callable[[Tensor], Tensor]]] = {
    "x * sigmoid(x)": (F.silu, lambda x: x * torch.sigmoid(x)),
    "sigmoid(x) * x": (F.silu, lambda x: x.sigmoid() * x),
    "x *= sigmoid(x)": (F.silu, lambda x: x.clone().mul_(torch.sigmoid(x))),
    "x * hardsigmoid(x)": (F.hardswish, lambda x: x * F.hardsigmoid(x)),
    "x * (relu6(x + 3) / 6)": (F.hardswish, lambda x: x * (F.relu6(x + 3) / 6)),
    "x * relu6(x + 3) / 6": (F.hardswish, lambda x: x * F.relu6(x + 3) / 6),
    "x * relu6(3 + x) * (1 / 6)": (F.hardswish, lambda x: x * F.relu6(3 + x) * (1 / 6)),
    "x * hardtanh(x + 3, 0, 6) / 6": (F.hardswish, lambda x: x * six(x) / 6),
    "x * clamp(x + 3, 0, 6) / 6": (F.hardswish, lambda x: x * (x + 3).clamp(0, 6) / 6),
    "x.mul_(sigmoid(x))": (F.silu, lambda x: self_gated_(1 * x)),
    "x * tanh(softplus(x))": (F.mish, lambda x: x * torch.tanh(F.softplus(x))),
    "clamp": (F.relu, lambda x: x.clamp(min=0)),
    "clamp_min": (F.relu, lambda x: torch.clamp_min(x, 0.0)),
    "clip": (F.relu6, lambda x: torch.clip(x, 0, 6)),
    "maximum with a zero": (F.relu, lambda x: torch.maximum(x, torch.zeros(()).to(x))),
    "maximum with zeros": (F.relu, lambda x: torch.maximum(torch.zeros_like(x), x)),
    "max with a zero": (F.relu, lambda x: torch.max(x, x.new_zeros(()))),
}


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("words", SPELLINGS)
def test_written_out_rectifiers_are_recognised(words: str, rule: str) -> None:
    whole, parts = SPELLINGS[words]
    x = example(((2, 3, 12, 12),), dtype=torch.float64)[0]
    rules, oracle = RULES[rule]
    trace = record(seeded(lambda: Call(parts))().double(), x)
    model = seeded(lambda: Call(whole))().double()
    found = trace.pull(class_seed(trace), rules).input()
    assert relative(found, oracle(model, x, class_one)) <= 1e-10


OTHERS: dict[str, Callable[[Tensor], Tensor]] = {
    "sigmoid gate of another tensor": lambda x: x * torch.sigmoid(x.flip(1)),
    "squared": lambda x: x * x,
    "mish of another slope": lambda x: x * torch.tanh(F.softplus(x, 2.0)),
    "sigmoid twice": lambda x: x * torch.sigmoid(x).sigmoid(),
    "shifted gate": lambda x: x * F.relu6(x + 2) / 6,
    "sigmoid of a scaled x": lambda x: x * torch.sigmoid(1.7 * x),
    "clamp elsewhere": lambda x: x.clamp(min=-0.5),
    "clamp from above": lambda x: x.clamp(max=0),
    "minimum": lambda x: torch.minimum(x, torch.zeros_like(x)),
    "maximum of two": lambda x: torch.maximum(x, x.flip(1)),
    "maximum with ones": lambda x: torch.maximum(x, torch.ones_like(x) / 9),
    "tanh": torch.tanh,
    "softmax": lambda x: 9 * x.softmax(1),
    "hardsigmoid": F.hardsigmoid,
}


@pytest.mark.parametrize("words", OTHERS)
def test_what_is_no_rectifier_keeps_its_derivative(words: str) -> None:
    x = example(((2, 3, 12, 12),), dtype=torch.float64)[0]
    trace = record(seeded(lambda: Call(OTHERS[words]))().double(), x)
    exact = trace.pull(class_seed(trace)).input()
    expected = {node.name for node in trace.nodes if node.base in ("relu6", "softplus")}
    assert {node.name for node in trace.nodes if node.kind == "rectifier"} == expected
    if not expected:
        assert torch.equal(trace.pull(class_seed(trace), GUIDED).input(), exact)
        assert torch.equal(trace.pull(class_seed(trace), DECONVNET).input(), exact)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
@pytest.mark.parametrize("name", ZOO)
def test_equal_to_the_reference_on_cuda(name: str) -> None:
    model, x = zoo.build(name).double().cuda(), zoo.picture(name, dtype=torch.float64).cuda()
    trace = record(model, x)
    for rules, oracle in RULES.values():
        found = trace.pull(class_seed(trace), rules).input()
        assert relative(found, oracle(model, x, zoo.class_score)) <= 1e-10
