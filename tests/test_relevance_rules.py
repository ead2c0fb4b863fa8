"""Every rule on every linear operation against dense matrices; the rules of sums, pools, gates and attention."""

import math

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compare import relative
from networks.awkward import VARIANTS, unsettle
from oracles import relevance as oracle
from pellucid.core.record import record
from pellucid.rules import linear_rules as linear
from pellucid.rules.composites import BASE, Choice, Composite, epsilon_plus
from pellucid.rules.relevance import Epsilon, Gate, Product, Ratio, Softmax
from relevance_cases import OPERATIONS, RULES, Call, everywhere, expected, made, walked, whole

NEAR = 1e-10
F64 = torch.float64


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("name", OPERATIONS)
def test_a_rule_on_a_linear_operation(name: str, rule: str) -> None:
    model, x = made(name)
    ours, slow = RULES[rule](x[:1])
    seed = torch.randn_like(model(x))
    found = walked(model, x, everywhere(ours), seed)
    assert relative(found.heat, expected(model, x, seed, slow)) <= NEAR
    assert float(found.ledger.closing().max()) <= NEAR * float(seed.abs().sum())


@pytest.mark.parametrize("rule", ["alpha2_beta1", "signed_gamma", "z_plus"])
@pytest.mark.parametrize("name", ["conv1d", "conv2d_normed", "transposed2d_grouped", "linear", "batch_norm2d"])
def test_inputs_that_are_not_negative(name: str, rule: str) -> None:
    """Half of the products need not be computed then; also with exact zeros."""
    model, x = made(name, positive=True)
    x[x < 0.3] = 0
    ours, slow = RULES[rule](x[:1])
    seed = torch.randn_like(model(x))
    assert relative(walked(model, x, everywhere(ours), seed).heat, expected(model, x, seed, slow)) <= NEAR


@pytest.mark.parametrize("rule", sorted({*RULES} - {"box"}))
@pytest.mark.parametrize("name", ["conv2d_normed", "transposed_normed", "linear", "addmm"])
def test_the_negated_rule_is_the_rule_of_the_negated_layer(name: str, rule: str) -> None:
    model, x = made(name)
    seed = torch.randn_like(model(x))
    ours, slow = RULES[rule](x[:1])
    found = walked(model, x, everywhere(ours.negated()), seed)
    assert relative(found.heat, expected(lambda t: -model(t), x, seed, slow)) <= NEAR


def test_what_meets_a_zero_denominator_stays_there_and_is_told() -> None:
    """A place whose neighbourhood is empty can send nothing on."""
    conv = nn.Conv2d(1, 1, 3, bias=False).double()
    x = torch.rand(1, 1, 3, 6, dtype=F64)
    x[..., :3] = 0
    seed = torch.ones(1, 1, 1, 4, dtype=F64)
    for rule in (linear.zero(), linear.z_plus(0.0), linear.z_plus(), linear.epsilon()):
        found = walked(conv, x, everywhere(rule), seed)
        kept = found.ledger.totals()
        assert float(kept["epsilon" if rule.epsilon else "zero denominator"]) == pytest.approx(1.0, abs=1e-3)
        assert torch.isfinite(found.heat).all() and not found.heat[..., :3].any()
        assert float(found.ledger.closing().max()) <= 1e-12


# ---------------------------------------------------------------------------------------- no linear operations


class Both(nn.Module):
    """A function of two inputs."""

    def __init__(self, function: object) -> None:
        super().__init__()
        self.function = function

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.function(a, b)  # type: ignore[operator]


def pulled(function: object, a: Tensor, b: Tensor, seed: Tensor, *choices: Choice) -> list[Tensor]:
    trace = record(Both(function), a, b)
    walk = trace.pull({trace.output: seed}, Composite("two", (*choices, *BASE)))
    return [walk.input(0), walk.input(1)]


def pair(shape: tuple[int, ...] = (1, 3, 4)) -> tuple[Tensor, Tensor, Tensor]:
    return torch.randn(shape, dtype=F64), torch.randn(shape, dtype=F64), torch.randn(shape, dtype=F64)


@pytest.mark.parametrize(
    ("function", "signs"),
    [
        (lambda a, b: a + b, (1.0, 1.0)),
        (torch.add, (1.0, 1.0)),
        (lambda a, b: a.clone().add_(b), (1.0, 1.0)),
        (lambda a, b: a - b, (1.0, -1.0)),
        (lambda a, b: torch.add(a, b, alpha=-0.5), (1.0, -0.5)),
        (lambda a, b: torch.rsub(a, b, alpha=2), (-2.0, 1.0)),
    ],
)
def test_a_sum_is_split_by_size_or_in_proportion(function: object, signs: tuple[float, float]) -> None:
    a, b, seed = pair()
    for rule, slow in [(Ratio(), oracle.ratio_sum), (Epsilon(0.1), oracle.epsilon_sum(0.1))]:
        got = pulled(function, a, b, seed, Choice(rule, "sum"))
        wanted = slow(signs[0] * a, signs[1] * b, seed)
        assert max(relative(g, w) for g, w in zip(got, wanted, strict=True)) <= NEAR


def test_equal_summands_and_broadcast_ones() -> None:
    a, b, seed = pair()
    zero = torch.zeros_like(a)
    assert all(torch.equal(part, seed / 2) for part in pulled(lambda a, b: a + b, zero, zero, seed))
    assert torch.equal(pulled(lambda a, b: a + a + 0 * b, a, b, seed, Choice(Ratio(), "sum"))[0], seed)
    narrow = b[..., :1].clone()
    left, right = pulled(lambda a, b: a + b, a, narrow, seed)
    wanted = oracle.ratio_sum(a, narrow.expand_as(a), seed)
    assert relative(left, wanted[0]) <= NEAR and relative(right, wanted[1].sum(-1, keepdim=True)) <= NEAR


def test_a_constant_summand_keeps_its_share() -> None:
    x, _, seed = pair()
    found = walked(Call(lambda x, w: x + w, w=(1, 3, 4)).double(), x, epsilon_plus(), seed)
    w = found.trace.module.weights["w"].detach()  # type: ignore[index]
    to_x, to_w = oracle.ratio_sum(x, w, seed)
    assert relative(found.heat, to_x) <= NEAR
    assert float(found.ledger.totals()["bias"]) == pytest.approx(float(to_w.sum()))


MAX_POOLS = [
    (nn.MaxPool1d(3, 2, 1), (2, 2, 7)),
    (nn.MaxPool2d(2), (2, 2, 4, 6)),
    (nn.MaxPool2d(3, 1, 1, dilation=2), (1, 2, 6, 6)),
    (nn.MaxPool3d(2, 1), (1, 2, 3, 3, 3)),
]


@pytest.mark.parametrize(("pool", "shape"), MAX_POOLS)
def test_max_pools_give_all_to_the_winner(pool: nn.Module, shape: tuple[int, ...]) -> None:
    x = torch.randn(shape, dtype=F64)
    seed = torch.randn_like(pool(x))
    assert relative(walked(pool, x, epsilon_plus(), seed).heat, oracle.winner(pool, x, seed)) <= NEAR
    x = torch.zeros(shape, dtype=F64)  # all alike: the first
    assert relative(walked(pool, x, epsilon_plus(), seed).heat, oracle.winner(pool, x, seed)) <= NEAR


AVERAGES = [
    (lambda x: F.avg_pool1d(x, 3, 2, 1), (2, 2, 7)),
    (lambda x: F.avg_pool2d(x, 3, 2, 1, ceil_mode=True, count_include_pad=False), (2, 2, 6, 5)),
    (lambda x: F.avg_pool3d(x, 2, 1), (1, 2, 3, 3, 3)),
    (lambda x: F.adaptive_avg_pool2d(x, (3, 2)), (2, 2, 5, 5)),
    (lambda x: F.adaptive_avg_pool2d(x, 1), (2, 2, 5, 5)),
    (lambda x: x.mean((2, 3)), (2, 2, 3, 4)),
    (lambda x: x.mean(-1, keepdim=True), (2, 2, 3, 4)),
    (lambda x: x.sum((1, 3)), (2, 2, 3, 4)),
    (lambda x: F.interpolate(x, scale_factor=2.0, mode="bilinear"), (2, 2, 3, 4)),
    (lambda x: F.interpolate(x, size=7, mode="linear", align_corners=True), (2, 2, 4)),
]


@pytest.mark.parametrize(("pool", "shape"), AVERAGES)
def test_averages_are_shared_in_proportion(pool: object, shape: tuple[int, ...]) -> None:
    """Of positive numbers the ratio rule is LRP-0; of any numbers the ε rule is what its name says."""
    x = torch.randn(shape, dtype=F64)
    model = Call(pool)  # type: ignore[arg-type]
    seed = torch.randn_like(model(x))
    slow = expected(model, x.abs(), seed, oracle.epsilon())
    assert relative(walked(model, x.abs(), epsilon_plus(), seed).heat, slow) <= NEAR
    assert relative(walked(model, x, epsilon_plus(), seed).heat, slow) <= NEAR
    rule = Epsilon(0.2)
    chosen = Composite("epsilon", (*(Choice(rule, kind) for kind in ("average_pool", "upsample")), *BASE))
    assert relative(walked(model, x, chosen, seed).heat, expected(model, x, seed, oracle.epsilon(0.2))) <= NEAR


@pytest.mark.parametrize(
    "function",
    [
        lambda x: F.pixel_shuffle(x, 2),
        lambda x: F.channel_shuffle(x, 2),
        lambda x: F.interpolate(x, scale_factor=2, mode="nearest"),
        lambda x: x.flip(2).roll(1, 3).permute(0, 2, 3, 1).contiguous()[:, :2].repeat(1, 2, 1, 1),
        lambda x: torch.stack(x.unbind(1)[::-1], 1).unfold(2, 2, 1),
        lambda x: torch.cat([x, x[:, :1]], 1).flatten(1),
        lambda x: torch.gather(x, 3, torch.zeros(2, 4, 3, 1, dtype=torch.long)),
        lambda x: F.unfold(x, 2),
        lambda x: F.dropout(x, 0.5, training=False).detach().clone(),
    ],
)
def test_what_only_moves_numbers_moves_relevance(function: object) -> None:
    x = torch.randn(2, 4, 3, 3, dtype=F64)
    x[:, :2] = 0  # numbers that are zero can carry relevance too
    leaf = x.clone().requires_grad_()
    seed = torch.randn_like(function(x))  # type: ignore[operator]
    y = function(leaf)  # type: ignore[operator]
    (wanted,) = torch.autograd.grad(y, leaf, seed) if y.requires_grad else (seed,)
    assert relative(walked(Call(function), x, epsilon_plus(), seed).heat, wanted) <= NEAR  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "function",
    [
        *[F.relu, F.silu, F.gelu, F.hardswish, torch.tanh, torch.sigmoid, F.softsign, torch.abs, torch.neg],
        *[lambda x: -2.5 * x, lambda x: x / 3, lambda x: x.clamp(-0.1, 0.2), lambda x: x * torch.sigmoid(x)],
        *[lambda x: F.layer_norm(x, x.shape[1:]), lambda x: F.group_norm(x, 2), lambda x: x.abs().pow(0.5)],
        *[lambda x: x.relu_() if False else F.relu(x.clone(), inplace=True), lambda x: torch.rsub(x, 0.0)],
    ],
)
def test_functions_of_one_number_pass_relevance_on(function: object) -> None:
    x, seed = torch.randn(2, 4, 3, dtype=F64), torch.randn(2, 4, 3, dtype=F64)
    assert relative(walked(Call(function), x, epsilon_plus(), seed).heat, seed) <= NEAR  # type: ignore[arg-type]


def test_gates_are_constants() -> None:
    a, b, seed = pair((2, 3, 4, 4))
    for function in (
        lambda a, b: a * torch.sigmoid(b),
        lambda a, b: torch.sigmoid(b) * a,
        lambda a, b: a * b.mean((2, 3), keepdim=True),
        lambda a, b: a / (1 + b.mean((2, 3), keepdim=True)),
        lambda a, b: b[:, :, :1, :1].softmax(1).expand_as(a) * a,
    ):
        signal, gate = pulled(function, a, b, seed)
        assert relative(signal, seed) <= NEAR and not gate.any()
    for function, choices in ((lambda a, b: a * b, ()), (lambda a, b: a * b.sigmoid(), (Choice(Gate(True), "scale"),))):
        assert all(relative(part, seed / 2) <= NEAR for part in pulled(function, a, b, seed, *choices))
    assert relative(pulled(lambda a, b: a * a + 0 * b, a, b, seed)[0], seed) <= NEAR


# --------------------------------------------------------------------------------------------- attention


def test_a_matrix_product_is_shared_equally() -> None:
    a, v, seed = (torch.randn(shape, dtype=F64) for shape in ((2, 3, 4), (2, 4, 5), (2, 3, 5)))
    for function in (torch.bmm, torch.matmul, lambda a, b: torch.einsum("bij,bjk->bik", a, b)):
        got = pulled(function, a, v, seed, Choice(Product(0.01), "product"))
        for image in range(2):
            wanted = oracle.matmul(a[image], v[image], seed[image], 0.02)
            assert relative(got[0][image], wanted[0]) <= NEAR and relative(got[1][image], wanted[1]) <= NEAR
    square = torch.randn(1, 3, 3, dtype=F64)
    twice = pulled(lambda a, b: torch.bmm(a, a) + 0 * b, square, square, square, Choice(Product(0.0), "product"))[0]
    assert relative(twice, sum(oracle.matmul(square[0], square[0], square[0]))[None]) <= NEAR  # type: ignore[arg-type]


def test_softmax_is_linearised() -> None:
    x, _, seed = pair((2, 3, 5))
    choice = Composite("s", (Choice(Softmax(), "softmax"), *BASE))
    found = walked(Call(lambda x: torch.softmax(x, -1)), x, choice, seed)
    assert relative(found.heat, oracle.softmax(x, seed)) <= NEAR
    assert float(found.ledger.closing().max()) <= NEAR
    along = walked(Call(lambda x: torch.softmax(x, 1)), x, choice, seed).heat
    assert relative(along, oracle.softmax(x.mT, seed.mT).mT) <= NEAR


@pytest.mark.parametrize("spelled", ["one operation", "by hand"])
def test_attention(spelled: str) -> None:
    """Q, K and V from one input of three rows of blocks; one head."""

    def forward(x: Tensor) -> Tensor:
        q, k, v = x.unbind(1)
        if spelled == "one operation":
            return F.scaled_dot_product_attention(q, k, v)
        return torch.softmax(q @ k.transpose(1, 2) / 2, -1) @ v

    x, seed = torch.randn(2, 3, 5, 4, dtype=F64), torch.randn(2, 5, 4, dtype=F64)
    found = walked(Call(forward), x, Composite("a", (Choice(Product(0.0), "product"), *BASE)), seed)
    for image in range(2):
        q, k, v = x[image]
        logits = q @ k.T / math.sqrt(4)
        to_shares, to_v = oracle.matmul(torch.softmax(logits, -1), v, seed[image])
        to_q, to_k = oracle.matmul(q, k.T, oracle.softmax(logits, to_shares))
        assert relative(found.heat[image], torch.stack([to_q, to_k.T, to_v])) <= 1e-9
    assert float(found.ledger.closing().max()) <= 1e-9 * float(found.heat.abs().sum())


# ------------------------------------------------------------------------------------------- whole networks


def residual_net() -> list[oracle.Step]:
    """Convolutions with BatchNorm, both kinds of pools, a residual sum, a gate, a concatenation, a linear head."""
    torch.manual_seed(3)
    inner: list[oracle.Step] = [oracle.Merged(nn.Conv2d(4, 4, 3, padding=1), nn.BatchNorm2d(4)), nn.ReLU()]
    steps: list[oracle.Step] = [
        *(
            oracle.Merged(nn.Conv2d(2, 4, 3, padding=1, bias=False), nn.BatchNorm2d(4)),
            nn.ReLU(),
            nn.MaxPool2d(3, 2, 1),
        ),
        *(oracle.Residual([*inner, nn.Conv2d(4, 4, 1)], [nn.Conv2d(4, 4, 1, bias=False)]), nn.ReLU()),
        oracle.Gate([nn.AdaptiveAvgPool2d(1), nn.Conv2d(4, 4, 1), nn.Sigmoid()]),
        oracle.Concat([[nn.AvgPool2d(2, 1)], [nn.Conv2d(4, 2, 2, groups=2), nn.ReLU()]]),
        *(nn.BatchNorm2d(6), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, 3)),
    ]
    for part in layers(steps):
        unsettle(part.double().eval())
    return steps


def layers(steps: list[oracle.Step]) -> list[nn.Module]:
    found: list[nn.Module] = []
    for step in steps:
        if isinstance(step, nn.Module):
            found.append(step)
        else:
            for part in vars(step).values():
                parts = part if isinstance(part, list) else [part]
                found += layers([p for inner in parts for p in (inner if isinstance(inner, list) else [inner])])
    return found


class Steps(nn.Module):
    def __init__(self, steps: list[oracle.Step]) -> None:
        super().__init__()
        self.steps, self.parts = steps, nn.ModuleList(layers(steps))

    def forward(self, x: Tensor) -> Tensor:
        return oracle.run(self.steps, x)


@pytest.mark.parametrize("rule", [name for name in RULES if name not in ("w_square", "flat", "box")])
def test_a_whole_network(rule: str) -> None:
    steps = residual_net()
    x = torch.randn(2, 2, 6, 6, dtype=F64)
    ours, slow = RULES[rule](x[:1])
    first, slow_first = linear.flat(), oracle.flat()
    composite = everywhere(ours).with_choices(Choice(first, position="first"))
    found = walked(Steps(steps), x, composite)
    assert relative(found.heat, whole(steps, x, found.trace.scores, oracle.Rules(slow, first=slow_first))) <= 1e-9


@pytest.mark.parametrize("name", sorted({*VARIANTS} - {"functional"}))
@pytest.mark.parametrize("rule", ["epsilon", "signed_gamma", "flat"])
def test_however_a_network_is_spelled(name: str, rule: str) -> None:
    """By functions, in place, reused, checkpointed, scripted, traced: the same relevance."""
    x = torch.randn(2, 3, 12, 12, dtype=F64)
    composite = everywhere(RULES[rule](x)[0])
    maps = [walked(VARIANTS[spelled]().double(), x, composite).heat for spelled in ("functional", name)]
    assert relative(maps[1], maps[0]) <= NEAR
