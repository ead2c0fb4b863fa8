"""Relevance propagation in dense matrices, written slowly from the papers: one image, one output unit at a time.

z_ij = w_ji x_i is what input i gives to output j, z_j = Σ_i z_ij + b_j, s(z) = +1 where z >= 0, else −1, 0/0 = 0.
A rule maps `(x, W, b, R)`, all flat, to the relevance of the inputs; what b and ε receive is lost to them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor, nn

Function = Callable[[Tensor], Tensor]
Rule = Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]


def dense(f: Function, x: Tensor) -> tuple[Tensor, Tensor]:
    """W (outputs, inputs) and b of an affine function of one image `(1, …)`, column by column, in float64."""
    zero = torch.zeros_like(x, dtype=torch.float64)
    with torch.no_grad():
        b = f(zero).flatten()
        columns = []
        for i in range(x.numel()):
            unit = zero.clone()
            unit.view(-1)[i] = 1
            columns.append(f(unit).flatten() - b)
    return torch.stack(columns, 1), b


def _share(numerator: float, denominator: float) -> float:
    return 0.0 if denominator == 0 else numerator / denominator


def _spread(parts: Tensor, denominators: Tensor, relevance: Tensor) -> Tensor:
    """R_i = Σ_j parts_ji / denominator_j · R_j, one output after the other."""
    found = torch.zeros(parts.shape[1], dtype=torch.float64)
    for j in range(parts.shape[0]):
        found += parts[j] * _share(float(relevance[j]), float(denominators[j]))
    return found


def epsilon(eps: float = 0.0) -> Rule:
    """Bach et al. 2015, eq. 58: R_i = Σ_j z_ij / (z_j + ε s(z_j)) R_j; ε = 0 is LRP-0 (eq. 56)."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        z = w @ x + b
        return _spread(w * x, z + eps * torch.where(z >= 0, 1.0, -1.0).double(), r)

    return rule


def gamma(g: float) -> Rule:
    """Montavon et al. 2019, §10.2.3, for x >= 0: w + γ w⁺ in place of w, b + γ b⁺ in place of b."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        parts = x * (w + g * w.clamp(min=0))
        return _spread(parts, parts.sum(1) + b + g * b.clamp(min=0), r)

    return rule


def signed_gamma(g: float) -> Rule:
    """Andéol et al. 2021, app. A: outputs z_j > 0 favour positive contributions, z_j < 0 negative ones.

    z_j > 0: Σ_i x_i⁺(w + γ w⁺) + x_i⁻(w + γ w⁻), the bias b + γ b⁺; z_j < 0: w⁺ and w⁻ swap, b + γ b⁻; z_j = 0: 0.
    """

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        z = w @ x + b
        found = torch.zeros_like(x)
        up, down = x.clamp(min=0), x.clamp(max=0)
        for j in range(len(z)):
            plus, minus = w[j].clamp(min=0), w[j].clamp(max=0)
            if z[j] > 0:
                parts, bias = up * (w[j] + g * plus) + down * (w[j] + g * minus), b[j] + g * b[j].clamp(min=0)
            elif z[j] < 0:
                parts, bias = up * (w[j] + g * minus) + down * (w[j] + g * plus), b[j] + g * b[j].clamp(max=0)
            else:
                continue
            found += parts * _share(float(r[j]), float(parts.sum() + bias))
        return found

    return rule


def alpha_beta(alpha: float, beta: float, bias: bool = True) -> Rule:
    """Bach et al. 2015, eq. 60: R_i = Σ_j (α z_ij⁺/z_j⁺ − β z_ij⁻/z_j⁻) R_j, z_j± with b_j± unless `bias` is False."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        b = b if bias else torch.zeros_like(b)
        plus, minus = (w * x).clamp(min=0), (w * x).clamp(max=0)
        up = _spread(plus, plus.sum(1) + b.clamp(min=0), r)
        return alpha * up - beta * _spread(minus, minus.sum(1) + b.clamp(max=0), r)

    return rule


def z_plus(bias: bool = True) -> Rule:
    """Montavon et al. 2017, eq. 14 (there without bias): α = 1, β = 0."""
    return alpha_beta(1.0, 0.0, bias)


def box(low: Tensor, high: Tensor) -> Rule:
    """Montavon et al. 2017, eq. 16: R_i = Σ_j (x w − l w⁺ − h w⁻)_ij / Σ_i (…) R_j; l, h shaped as x, flat."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        parts = x * w - low * w.clamp(min=0) - high * w.clamp(max=0)
        return _spread(parts, parts.sum(1), r)

    return rule


def w_square() -> Rule:
    """Montavon et al. 2017, eq. 12: R_i = Σ_j w_ij² / Σ_i w_ij² R_j; at a border only the weights inside the image."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        return _spread(w**2, (w**2).sum(1), r)

    return rule


def flat() -> Rule:
    """Lapuschkin 2019, §2.2: R_i = Σ_j 1/n_j R_j over the n_j inputs that reach output j."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        reached = (w != 0).double()
        return _spread(reached, reached.sum(1), r)

    return rule


def excitation() -> Rule:
    """Zhang et al. 2018, eq. 5: P_i = Σ_j x_i w_ij⁺ / Σ_k x_k w_kj⁺ P_j for x >= 0, no bias; x⁻ gets nothing."""

    def rule(x: Tensor, w: Tensor, b: Tensor, r: Tensor) -> Tensor:
        parts = x.clamp(min=0) * w.clamp(min=0)
        return _spread(parts, parts.sum(1), r)

    return rule


# ------------------------------------------------------------------------------------- what is no linear layer


def ratio_sum(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
    """Otsuki et al. 2024, eq. 8: R_a = |a| / (|a| + |b|) R; halves where both are zero."""
    total = a.abs() + b.abs()
    share = torch.where(total > 0, a.abs() / torch.where(total > 0, total, 1.0), 0.5)
    return share * r, (1 - share) * r


def epsilon_sum(eps: float) -> Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]]:
    """R_a = a / (a + b + ε s) R."""

    def split(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        z = a + b
        z = z + eps * torch.where(z >= 0, 1.0, -1.0).double()
        scaled = torch.where(z == 0, 0.0, r / torch.where(z == 0, 1.0, z))
        return a * scaled, b * scaled

    return split


def _tuple(value: int | Sequence[int], n: int) -> tuple[int, ...]:
    return (value,) * n if isinstance(value, int) else tuple(value)


def winner(pool: nn.Module, x: Tensor, r: Tensor) -> Tensor:
    """Max-pooling by the winner: each window's relevance to the first of its largest values."""
    n = x.ndim - 2
    kernel, stride = _tuple(pool.kernel_size, n), _tuple(pool.stride, n)  # type: ignore[arg-type]
    padding, dilation = _tuple(pool.padding, n), _tuple(pool.dilation, n)  # type: ignore[arg-type]
    found = torch.zeros_like(x)
    for place in itertools.product(*[range(size) for size in r.shape]):
        best: tuple[int, ...] | None = None
        for offset in itertools.product(*[range(k) for k in kernel]):
            spans = (place[2:], stride, padding, offset, dilation)
            inside = [o * s - p + k * d for o, s, p, k, d in zip(*spans, strict=True)]
            if all(0 <= i < size for i, size in zip(inside, x.shape[2:], strict=True)):
                here = (*place[:2], *inside)
                best = here if best is None or x[here] > x[best] else best
        assert best is not None
        found[best] += r[place]
    return found


def softmax(x: Tensor, r: Tensor) -> Tensor:
    """AttnLRP (Achtibat et al. 2024), proposition 3.1: R_i = x_i (R_i − s_i Σ_j R_j) along the last axis."""
    s = torch.softmax(x, -1)
    return x * (r - s * r.sum(-1, keepdim=True))


def matmul(a: Tensor, v: Tensor, r: Tensor, eps: float = 0.0) -> tuple[Tensor, Tensor]:
    """AttnLRP, proposition 3.3: R(A)_ji = Σ_p A_ji V_ip R_jp / (2 O_jp + ε), the same over j for V; one matrix each."""
    o = a @ v
    to_a, to_v = torch.zeros_like(a), torch.zeros_like(v)
    for j, p in itertools.product(range(o.shape[0]), range(o.shape[1])):
        bottom = float(2 * o[j, p])
        factor = _share(float(r[j, p]), bottom + (eps if bottom >= 0 else -eps))
        for i in range(a.shape[1]):
            to_a[j, i] += a[j, i] * v[i, p] * factor
            to_v[i, p] += a[j, i] * v[i, p] * factor
    return to_a, to_v


# ------------------------------------------------------------------------------------------- whole networks


@dataclass
class Residual:
    """Body(x) + skip(x); an empty skip is the identity."""

    body: list[Step]
    skip: list[Step] = field(default_factory=list)


@dataclass
class Gate:
    """x · body(x), body's relevance nothing: the gate counts as a constant (Arras et al. 2017)."""

    body: list[Step]


@dataclass
class Concat:
    """Several branches side by side along the channels."""

    branches: list[list[Step]]


@dataclass
class Merged:
    """A linear layer and the BatchNorm behind it, as one linear layer."""

    linear: nn.Module
    norm: nn.Module


Step = nn.Module | Residual | Gate | Concat | Merged
_MAX = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)
_AVERAGE = (nn.AvgPool1d, nn.AvgPool2d, nn.AvgPool3d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d)
_PASS = (nn.ReLU, nn.ReLU6, nn.SiLU, nn.GELU, nn.Hardswish, nn.Tanh, nn.ELU, nn.LeakyReLU, nn.Identity, nn.Dropout)


@dataclass
class Rules:
    """A rule for each kind of step.

    Attributes:
        linear: Fully connected layers, BatchNorm alone, and convolutions without a rule of their own.
        convolution: Convolutions.
        first: The first linear layers behind the picture.
        average: Average pooling; proportional by default.
        add: The split of a sum.
    """

    linear: Rule
    convolution: Rule | None = None
    first: Rule | None = None
    average: Rule = field(default_factory=epsilon)
    add: Callable[[Tensor, Tensor, Tensor], tuple[Tensor, Tensor]] = ratio_sum


def run(steps: list[Step], x: Tensor) -> Tensor:
    """The forward."""
    for step in steps:
        x = _forward(step, x)
    return x


def _forward(step: Step, x: Tensor) -> Tensor:
    if isinstance(step, Residual):
        return run(step.body, x) + run(step.skip, x)
    if isinstance(step, Gate):
        return x * run(step.body, x)
    if isinstance(step, Concat):
        return torch.cat([run(branch, x) for branch in step.branches], 1)
    if isinstance(step, Merged):
        return step.norm(step.linear(x))
    return step(x)


def pull(steps: list[Step], x: Tensor, relevance: Tensor, rules: Rules) -> Tensor:
    """Relevance of one image `(1, …)` from the relevance of the output, step by step from the top."""
    inputs = [x]
    with torch.no_grad():
        for step in steps:
            inputs.append(_forward(step, inputs[-1]))
        for index in reversed(range(len(steps))):
            first = rules.first is not None and not any(_has_linear(step) for step in steps[:index])
            here = rules if first else replace(rules, first=None)
            relevance = _backward(steps[index], inputs[index], relevance, here)
    return relevance


def _has_linear(step: Step) -> bool:
    if isinstance(step, nn.Module):
        return not isinstance(step, (*_MAX, *_AVERAGE, *_PASS, nn.Flatten))
    return True


def _backward(step: Step, x: Tensor, r: Tensor, rules: Rules) -> Tensor:
    if isinstance(step, Residual):
        to_body, to_skip = rules.add(run(step.body, x), run(step.skip, x), r)
        return pull(step.body, x, to_body, rules) + pull(step.skip, x, to_skip, rules)
    if isinstance(step, Gate):
        return r
    if isinstance(step, Concat):
        parts = r.split([run(branch, x).shape[1] for branch in step.branches], 1)
        pulled = [pull(branch, x, part, rules) for branch, part in zip(step.branches, parts, strict=True)]
        return sum(pulled[1:], pulled[0])
    if isinstance(step, _PASS):
        return r
    if isinstance(step, _MAX):
        return winner(step, x, r)
    if isinstance(step, nn.Flatten):
        return r.reshape(x.shape)
    return linear(lambda t: _forward(step, t), x, r, _rule(step, rules))


def _rule(step: Step, rules: Rules) -> Rule:
    if isinstance(step, _AVERAGE):
        return rules.average
    if rules.first is not None:
        return rules.first
    layer = step.linear if isinstance(step, Merged) else step
    convolves = isinstance(layer, nn.modules.conv._ConvNd)
    return rules.convolution if convolves and rules.convolution is not None else rules.linear


def linear(f: Function, x: Tensor, r: Tensor, rule: Rule) -> Tensor:
    """One linear operation under a rule; x and the answer `(1, …)`."""
    w, b = dense(f, x)
    return rule(x.flatten(), w, b, r.flatten()).reshape(x.shape)


# ------------------------------------------------------------------------------------------------- methods


def sglrp_start(logits: Tensor, target: int) -> Tensor:
    """Iwana et al. 2019, eq. 8: R_t = y_t (1 − y_t), R_n = −y_t y_n; logits `(1, classes)`."""
    y = torch.softmax(logits, 1)
    start = -y[:, target, None] * y
    start[:, target] = y[:, target] * (1 - y[:, target])
    return start


def clrp1_start(logits: Tensor, target: int) -> Tensor:
    """Gu et al. 2018, CLRP1: z_t for the class, −z_t / (N − 1) for every other."""
    z = logits[:, target, None]
    start = -z.expand_as(logits) / (logits.shape[1] - 1)
    start[:, target] = logits[:, target]
    return start


def one_class(logits: Tensor, target: int) -> Tensor:
    """The logit of one class, zero elsewhere."""
    start = torch.zeros_like(logits)
    start[:, target] = logits[:, target]
    return start


def clrp2(steps: list[Step], x: Tensor, target: int, rules: Rules, top: nn.Linear) -> Tensor:
    """Gu et al. 2018, CLRP2: R − R' ΣR/ΣR', R' of the network whose last layer has the target's weights negated."""
    with torch.no_grad():
        start = one_class(run(steps, x), target)
        real = pull(steps, x, start, rules)
        top.weight[target].neg_()
        dual = pull(steps, x, start, rules)
        top.weight[target].neg_()
    return real - dual * _share(float(real.sum()), float(dual.sum()))


def deep_taylor(steps: list[Step], x: Tensor, target: int, low: Tensor, high: Tensor) -> Tensor:
    """Montavon et al. 2017: R = max(0, z_t); box at the picture, z⁺ (no bias) above, sums and averages by z⁺ too."""

    def add(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return epsilon_sum(0.0)(a.clamp(min=0), b.clamp(min=0), r)

    rules = Rules(z_plus(False), first=box(low.flatten(), high.flatten()), average=z_plus(False), add=add)
    return pull(steps, x, one_class(run(steps, x), target).clamp(min=0), rules)


def excitation_backprop(steps: list[Step], x: Tensor, target: int) -> Tensor:
    """Zhang et al. 2018: P = 1 at the class, down to the features x >= 0 of the network's trunk."""
    start = torch.zeros_like(run(steps, x).detach())
    start[:, target] = 1

    def add(a: Tensor, b: Tensor, r: Tensor) -> tuple[Tensor, Tensor]:
        return epsilon_sum(0.0)(a.clamp(min=0), b.clamp(min=0), r)

    return pull(steps, x, start, Rules(excitation(), average=excitation(), add=add))
