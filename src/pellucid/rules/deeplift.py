"""DeepLIFT: multipliers of differences from a reference, played backwards over a recording and its reference.

Every operation sends back `m_Δx = Σ_y m_Δy · Δy/Δx`, so that `Σ_i m_i Δx_i` is the same number at every cut: the
change of the score from the reference. Linear operations send their derivative.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, exact
from pellucid.core.patterns import rectifier_of
from pellucid.core.pull import Rule, Rules
from pellucid.core.trace import Node, Trace, Value
from pellucid.rules.linear_map import linear_map
from pellucid.rules.structure import is_linear, structure

Nonlinearity = Literal["rescale", "reveal_cancel", "genomics"]
NEAR = 1e-7  # a smaller difference takes the derivative in place of the quotient
POINTS = 16
LINEAR_KINDS = frozenset({"average_pool", "view", "concatenate", "sum", "upsample", "dropout"})
LINEAR_BASES = frozenset("write sum neg".split())
ELEMENTWISE = frozenset({"rectifier", "squash", "clamp"})


@dataclass(eq=False)
class Reference:
    """The recording's values for a reference input, in the same order of operations."""

    trace: Trace
    values: Mapping[Value, Tensor]
    approximate: set[str] = field(default_factory=set)
    revealed: dict[Node, tuple[Tensor, Tensor]] = field(default_factory=dict)

    def before(self, value: Value) -> Tensor:
        """A value for the reference; the recorded one where it does not hang on the input."""
        return self.values.get(value, value.data)

    def change(self, value: Value) -> Tensor:
        """`Δx = x − x⁰`."""
        return value.data - self.before(value)


@dataclass(frozen=True)
class DeepLiftRules(Rules):
    """The rule table for one recording and one reference."""

    reference: Reference = field(kw_only=True)
    nonlinearity: Nonlinearity = field(kw_only=True, default="rescale")

    def pick(self, node: Node) -> Rule:
        return lambda node, grads: self._rule(node)(node, grads, self.reference)

    def _rule(self, node: Node) -> "DifferenceRule":
        if node.gate is not None or (node.kind in ELEMENTWISE and len(node.inputs) == 1):
            return self._bend
        if node in self.reference.revealed:
            return _linear_of_two
        if node.kind == "detach":
            return lambda node, grads, reference: grads
        if is_linear(node) or node.kind in ("batch_norm", *LINEAR_KINDS) or node.base in LINEAR_BASES:
            return _derivative
        if node.kind == "max_pool" and len(node.inputs) == 1:
            return max_pool
        return midpoint if _is_bilinear(node) else along_the_path

    def _bend(self, node: Node, grads: Grads, reference: Reference) -> Grads:
        linear = _producer(node, reference.trace)
        wanted = self.nonlinearity == "reveal_cancel" or (
            self.nonlinearity == "genomics" and linear is not None and linear.kind == "linear"
        )
        if wanted and linear is not None:
            return reveal_cancel(node, grads, reference, linear)
        return rescale(node, grads, reference)


DifferenceRule = Callable[[Node, Grads, Reference], Grads]


def _derivative(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The exact derivative of a linear operation."""
    return exact(node, grads)


def _is_bilinear(node: Node) -> bool:
    if node.base == "mul" or (node.kind == "product" and node.base in ("bmm", "matmul")):
        return True
    return node.base == "div" and len(node.inputs) == 1 and node.args[0] is node.inputs[0]


def rescale(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`m_Δx = m_Δy Δy/Δx`, and the derivative where Δx is near zero (Shrikumar et al. 2017, section 3.5.1)."""
    place = 0 if node.gate is None else node.gate[1]
    x = node.inputs[place]
    dx, dy = reference.change(x), reference.change(node.output)
    slope = _slope(node, x.data)
    quotient = torch.where(dx.abs() < NEAR, slope, dy / torch.where(dx == 0, torch.ones_like(dx), dx))
    m = grads[0]
    return [None if m is None or i != place else m * quotient for i in range(len(node.inputs))]


def _slope(node: Node, x: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        (slope,) = torch.autograd.grad(rectifier_of(node)(leaf).sum(), leaf)
    return slope


def _producer(node: Node, trace: Trace) -> Node | None:
    """The linear operation (with its BatchNorm) whose output only this activation reads."""
    facts = structure(trace)
    value = node.inputs[0 if node.gate is None else node.gate[1]]
    readers = [n for n in facts.uses.get(value, ()) if n is not node]
    if value.node is None or value in trace.outputs or (readers and node.gate is None):
        return None
    made_by = facts.merged.get(value.node, value.node)
    return made_by if is_linear(made_by) else None


def reveal_cancel(node: Node, grads: Grads, reference: Reference, linear: Node) -> Grads:
    """Positive and negative contributions apart (Shrikumar et al. 2017, section 3.5.2).

    `Δy⁺ = ½ [f(x⁰+Δx⁺) − f(x⁰)] + ½ [f(x⁰+Δx⁻+Δx⁺) − f(x⁰+Δx⁻)]`, Δy⁻ alike, `m± = Δy±/Δx±`; `Δx±` are the sums of the
    positive and negative contributions of the linear operation before, which sends each on by itself.
    """
    place = 0 if node.gate is None else node.gate[1]
    x = node.inputs[place]
    m, f, start = grads[0], rectifier_of(node), reference.before(x)
    if m is None:
        return [None] * len(node.inputs)
    up, down = (t.view(x.shape) for t in _contributions(linear, reference))
    y_up = (f(start + up) - f(start) + f(start + down + up) - f(start + down)) / 2
    y_down = (f(start + down) - f(start) + f(start + up + down) - f(start + up)) / 2
    slope = _slope(node, x.data)
    parts = [
        m * torch.where(d.abs() < NEAR, slope, y / torch.where(d == 0, torch.ones_like(d), d))
        for y, d in ((y_up, up), (y_down, down))
    ]
    reference.revealed[linear] = (parts[0], parts[1])
    return [parts[0] if i == place else None for i in range(len(node.inputs))]


def _contributions(linear: Node, reference: Reference) -> tuple[Tensor, Tensor]:
    """The sums of the positive and of the negative `w_ij Δx_i`, for each output."""
    m = linear_map(linear, structure(reference.trace))
    dx = reference.change(linear.inputs[0])
    w = m.weight.clamp(min=0), m.weight.clamp(max=0)
    up, down = dx.clamp(min=0), dx.clamp(max=0)
    return m.apply(up, w[0]) + m.apply(down, w[1]), m.apply(up, w[1]) + m.apply(down, w[0])


def _linear_of_two(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`m_i = Σ_j w_ij m_j⁺` where `w_ij Δx_i > 0`, `Σ_j w_ij m_j⁻` where it is negative, their mean where `Δx_i = 0`."""
    m_up, m_down = (t.view(node.output.shape) for t in reference.revealed[node])
    m = linear_map(node, structure(reference.trace))
    dx = reference.change(node.inputs[0])
    w_up, w_down = m.weight.clamp(min=0), m.weight.clamp(max=0)
    back = lambda w, s: _transposed(m.apply, m.x, w, s)  # noqa: E731
    rising, falling = back(w_up, m_up) + back(w_down, m_down), back(w_down, m_up) + back(w_up, m_down)
    return [torch.where(dx > 0, rising, torch.where(dx < 0, falling, (rising + falling) / 2))]


def _transposed(apply: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, s: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        z = apply(leaf, weight)
    return torch.autograd.grad(z, leaf, s)[0]


def max_pool(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The change of a maximum, shared by the winner now and the winner at the reference, so that it sums up.

    With `c = max(y, y⁰)`: `m (c − y⁰)` goes to the winner in x and `m (y − c)` to the winner in x⁰, divided by Δx there;
    windows may overlap (Lundberg & Lee 2017's reading of Shrikumar et al. 2017).
    """
    x, m = node.inputs[0], grads[0]
    if m is None:
        return [None]
    y, before = node.output.data, reference.before(node.output)
    top = torch.maximum(y, before)
    now, then = _winners(node, x.data, m * (top - before)), _winners(node, reference.before(x), m * (y - top))
    dx = reference.change(x)
    total = now + then
    return [
        torch.where(dx.abs() < NEAR, _winners(node, x.data, m), total / torch.where(dx == 0, torch.ones_like(dx), dx))
    ]


def _winners(node: Node, x: Tensor, sent: Tensor) -> Tensor:
    """What a max-pool at x sends to the winners of its windows."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        out = node.run({node.inputs[0]: leaf})
        y = out if isinstance(out, Tensor) else out[0]
    return torch.autograd.grad(y, leaf, sent)[0]


def midpoint(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`Δ(ab) = Δa (b + b⁰)/2 + Δb (a + a⁰)/2`: exact, and even-handed between the factors."""
    halves = {v: (v.data + reference.before(v)) / 2 for v in node.inputs}
    return _gradient_at(node, grads, halves)


def along_the_path(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The derivative averaged over the straight way from reference to input (Gauss-Legendre), for any operation.

    It sums up to the change as closely as the quadrature does; for a function of one number it is the rescale rule.
    """
    if not any(_hangs(v, reference) for v in node.inputs):
        return exact(node, grads)
    reference.approximate.add(f"{node.name} in {node.path or 'the network'}")
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    total: list[Tensor | None] = [None] * len(node.inputs)
    for t, weight in zip((nodes + 1) / 2, weights / 2, strict=True):
        at = {v: torch.lerp(reference.before(v), v.data, float(t)) if v.differentiable else v.data for v in node.inputs}
        for i, part in enumerate(_gradient_at(node, grads, at)):
            if part is not None:
                old = total[i]
                total[i] = part * float(weight) if old is None else old + part * float(weight)
    return total


def _hangs(value: Value, reference: Reference) -> bool:
    return value in reference.values


def _gradient_at(node: Node, grads: Grads, at: Mapping[Value, Tensor]) -> Grads:
    """The operation's derivative at other inputs than the recorded ones."""
    leaves = {v: t.detach().requires_grad_(v.differentiable) for v, t in at.items()}
    with torch.enable_grad():
        out = node.run(leaves)
        results = [out] if isinstance(out, Tensor) else list(out)
        pairs = [(r, g) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
    wanted = [v for v in leaves if v.differentiable]
    if not pairs:
        return [None] * len(node.inputs)
    found = torch.autograd.grad(
        [r for r, _ in pairs], [leaves[v] for v in wanted], [g for _, g in pairs], allow_unused=True
    )
    by_value = dict(zip(wanted, found, strict=True))
    return [by_value.pop(v, None) for v in node.inputs]
