"""Linear operations of every kind, every rule beside its oracle, and short ways to walk: for the tests of relevance."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from networks.awkward import unsettle
from oracles import relevance as oracle
from pellucid.core.pull import Walk
from pellucid.core.record import record
from pellucid.core.trace import Trace, Value
from pellucid.rules import linear_rules as linear
from pellucid.rules.composites import BASE, Choice, Composite, RelevanceRules
from pellucid.rules.ledger import Ledger

LOW, HIGH = -2.5, 3.0


class Call(nn.Module):
    """Parameters, and any function of them and the input."""

    def __init__(self, function: Callable[..., Tensor], **shapes: tuple[int, ...]) -> None:
        super().__init__()
        self.function = function
        self.weights = nn.ParameterDict({name: nn.Parameter(torch.randn(shape)) for name, shape in shapes.items()})

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x, **self.weights)


def _same(x: Tensor, w: Tensor, b: Tensor) -> Tensor:
    return F.conv2d(x, w, b, padding="same", dilation=2)


Case = tuple[Callable[[], nn.Module], tuple[int, ...]]
OPERATIONS: dict[str, Case] = {
    "conv1d": (lambda: nn.Conv1d(3, 4, 3, padding=1), (2, 3, 7)),
    "conv1d_strided_dilated": (lambda: nn.Conv1d(2, 4, 3, stride=2, padding=2, dilation=2, groups=2), (2, 2, 9)),
    "conv2d": (lambda: nn.Conv2d(2, 3, (3, 2), padding=(1, 0)), (2, 2, 5, 4)),
    "conv2d_no_bias": (lambda: nn.Conv2d(2, 3, 3, padding=2, bias=False), (2, 2, 4, 3)),
    "conv2d_strided": (lambda: nn.Conv2d(2, 4, 3, stride=(2, 1), padding=1), (2, 2, 6, 4)),
    "conv2d_dilated": (lambda: nn.Conv2d(2, 2, 3, dilation=2, padding=2), (2, 2, 5, 5)),
    "conv2d_grouped": (lambda: nn.Conv2d(4, 6, 3, padding=1, groups=2), (2, 4, 4, 3)),
    "conv2d_depthwise": (lambda: nn.Conv2d(3, 3, 3, padding=1, groups=3), (2, 3, 5, 4)),
    "conv3d": (lambda: nn.Conv3d(2, 3, (2, 3, 1), padding=(1, 1, 0)), (2, 2, 3, 4, 2)),
    "conv3d_depthwise_strided": (lambda: nn.Conv3d(2, 4, 2, stride=2, groups=2), (2, 2, 4, 4, 2)),
    "transposed1d": (lambda: nn.ConvTranspose1d(3, 2, 3, stride=2, padding=1, output_padding=1), (2, 3, 5)),
    "transposed2d_grouped": (
        lambda: nn.ConvTranspose2d(4, 6, 3, stride=2, padding=1, output_padding=1, groups=2),
        (2, 4, 3, 3),
    ),
    "transposed2d_dilated": (lambda: nn.ConvTranspose2d(2, 3, 2, dilation=2), (2, 2, 3, 4)),
    "transposed3d": (lambda: nn.ConvTranspose3d(2, 2, 2, stride=2), (2, 2, 2, 2, 2)),
    "linear": (lambda: nn.Linear(7, 5), (2, 7)),
    "linear_no_bias": (lambda: nn.Linear(7, 5, bias=False), (2, 7)),
    "linear_of_tokens": (lambda: nn.Linear(4, 5), (2, 3, 4)),
    "functional_linear": (lambda: Call(lambda x, w, b: F.linear(x, w, b), w=(5, 7), b=(5,)), (2, 7)),
    "functional_conv_same": (lambda: Call(_same, w=(3, 2, 3, 3), b=(3,)), (2, 2, 5, 4)),
    "addmm": (lambda: Call(lambda x, w, b: torch.addmm(b, x, w, beta=0.5, alpha=2.0), w=(7, 5), b=(5,)), (2, 7)),
    "mm": (lambda: Call(lambda x, w: torch.mm(x, w), w=(7, 5)), (2, 7)),
    "matmul": (lambda: Call(lambda x, w: x @ w, w=(7, 5)), (2, 7)),
    "matmul_of_tokens": (lambda: Call(lambda x, w: x @ w, w=(4, 5)), (2, 3, 4)),
    "batch_norm1d": (lambda: nn.BatchNorm1d(5), (2, 5)),
    "batch_norm2d": (lambda: nn.BatchNorm2d(3), (2, 3, 4, 3)),
    "batch_norm3d_no_affine": (lambda: nn.BatchNorm3d(2, affine=False), (2, 2, 3, 2, 2)),
    "conv1d_normed": (lambda: nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4)), (2, 3, 7)),
    "conv2d_normed": (lambda: nn.Sequential(nn.Conv2d(2, 4, 3, padding=1), nn.BatchNorm2d(4)), (2, 2, 4, 4)),
    "depthwise_normed": (
        lambda: nn.Sequential(nn.Conv2d(3, 3, 3, groups=3, bias=False), nn.BatchNorm2d(3)),
        (2, 3, 4, 4),
    ),
    "transposed_normed": (
        lambda: nn.Sequential(nn.ConvTranspose2d(4, 6, 2, stride=2, groups=2), nn.BatchNorm2d(6)),
        (2, 4, 2, 3),
    ),
    "linear_normed": (lambda: nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5)), (2, 6)),
    "linear_flatten_normed": (
        lambda: nn.Sequential(
            nn.Linear(4, 5, bias=False), nn.Flatten(0, 1), nn.BatchNorm1d(5), nn.Unflatten(0, (-1, 3))
        ),
        (2, 3, 4),
    ),
    "linear_dropout_normed": (lambda: nn.Sequential(nn.Linear(6, 5), nn.Dropout(0.5), nn.BatchNorm1d(5)), (2, 6)),
    "addmm_normed": (
        lambda: nn.Sequential(Call(lambda x, w, b: torch.addmm(b, x, w), w=(6, 5), b=(5,)), nn.BatchNorm1d(5)),
        (2, 6),
    ),
}
Pair = tuple[linear.LinearRule, oracle.Rule]


def box_oracle(x: Tensor) -> oracle.Rule:
    return oracle.box(torch.full_like(x, LOW).flatten(), torch.full_like(x, HIGH).flatten())


RULES: dict[str, Callable[[Tensor], Pair]] = {
    "zero": lambda x: (linear.zero(), oracle.epsilon(0.0)),
    "epsilon": lambda x: (linear.epsilon(0.3), oracle.epsilon(0.3)),
    "gamma": lambda x: (linear.gamma(0.25, 0.0), oracle.gamma(0.25)),
    "signed_gamma": lambda x: (linear.signed_gamma(0.4, 0.0), oracle.signed_gamma(0.4)),
    "alpha2_beta1": lambda x: (linear.alpha_beta(2.0, 1.0, 0.0), oracle.alpha_beta(2, 1)),
    "alpha3_beta2": lambda x: (linear.alpha_beta(3.0, 2.0, 0.0), oracle.alpha_beta(3, 2)),
    "z_plus": lambda x: (linear.z_plus(0.0), oracle.z_plus()),
    "z_plus_without_bias": lambda x: (linear.z_plus(0.0, "ignore"), oracle.z_plus(False)),
    "box": lambda x: (linear.box(torch.tensor(LOW), torch.tensor(HIGH), 0.0), box_oracle(x)),
    "w_square": lambda x: (linear.w_square(), oracle.w_square()),
    "flat": lambda x: (linear.flat(), oracle.flat()),
}


def made(name: str, *, positive: bool = False) -> tuple[nn.Module, Tensor]:
    """The operation in float64 with nothing idle, and an input for it."""
    factory, shape = OPERATIONS[name]
    torch.manual_seed(7)
    model = factory().double().eval()
    unsettle(model)
    x = torch.randn(shape, dtype=torch.float64)
    return model, x.abs() if positive else x


def everywhere(rule: Callable) -> Composite:
    """One rule in every linear operation, BatchNorm alone too."""
    kinds = ("convolution", "linear", "batch_norm")
    return Composite("everywhere", (*(Choice(rule, kind) for kind in kinds), *BASE))


@dataclass
class Walked:
    """A walk that reached the input, and its accounts."""

    trace: Trace
    walk: Walk
    ledger: Ledger
    heat: Tensor


def walked(
    model: nn.Module | Trace,
    x: Tensor | None,
    composite: Composite,
    seed: Tensor | Mapping[Value, Tensor] | None = None,
) -> Walked:
    """Relevance at the input; from the scores themselves where no seed is given."""
    trace = model if isinstance(model, Trace) else record(model, x)
    seeds = seed if isinstance(seed, Mapping) else {trace.output: trace.scores.clone() if seed is None else seed}
    rules = composite.on(trace)
    assert isinstance(rules, RelevanceRules)
    walk = Walk(trace, seeds, rules)
    return Walked(trace, walk, rules.ledger, walk.input())


def expected(model: nn.Module, x: Tensor, seed: Tensor, rule: oracle.Rule) -> Tensor:
    """The oracle on one linear operation, image by image."""
    return torch.cat([oracle.linear(model, one, r, rule) for one, r in zip(x.split(1), seed.split(1), strict=True)])


def whole(steps: list[oracle.Step], x: Tensor, seed: Tensor, rules: oracle.Rules) -> Tensor:
    """The oracle on a whole network, image by image."""
    found = [oracle.pull(steps, one, r, rules) for one, r in zip(x.split(1), seed.split(1), strict=True)]
    return torch.cat(found)
