"""How the difference of an operation's output is shared among the differences of its inputs, operation by operation.

Each rule sends back `m_Δx` so that `Σ m_Δx Δx = Σ m_Δy Δy`: an identity in every rule here except `along_the_path`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.errors import TraceError
from pellucid.core.patterns import rectifier_of
from pellucid.core.trace import Node, Trace, Value

POINTS = 16
ROUNDING = 4  # a difference within so many units in the last place is none


@dataclass(eq=False)
class Reference:
    """The recording's values for a reference input, in the same order of operations.

    Attributes:
        approximate: operations whose derivative was averaged on the way from the reference, in words.
        whole: activations that were rescaled where RevealCancel was asked for, in words.
        revealed: linear operation -> activation behind it -> multipliers of the positive contributions, of the
            negative ones, and of the whole change.
    """

    trace: Trace
    values: Mapping[Value, Tensor]
    approximate: set[str] = field(default_factory=set)
    whole: set[str] = field(default_factory=set)
    revealed: dict[Node, dict[Node, tuple[Tensor, Tensor, Tensor]]] = field(default_factory=dict)

    def before(self, value: Value) -> Tensor:
        """A value for the reference; the recorded one where it does not hang on the input."""
        return self.values.get(value, value.data)

    def change(self, value: Value) -> Tensor:
        """`Δx = x − x⁰`."""
        return value.data - self.before(value)

    def toward(self, value: Value, t: float) -> Tensor:
        """`x⁰ + t Δx`; the recorded value where it holds no floating point numbers, or infinite ones."""
        x, before = value.data, self.before(value)
        return torch.where(x == before, x, torch.lerp(before, x, t)) if value.differentiable else x

    def share(self, rise: Tensor, value: Value, slope: Tensor) -> Tensor:
        """`rise / Δx`, and the slope where Δx is nothing but rounding."""
        x, before, dx = value.data, self.before(value), self.change(value)
        none = dx.abs() <= ROUNDING * torch.finfo(dx.dtype).eps * torch.maximum(x.abs(), before.abs())
        return torch.where(none, slope, rise / torch.where(none, torch.ones_like(dx), dx))

    def chooses_differently(self, node: Node) -> bool:
        """Whether the places, masks or counts that an operation takes are others for the reference."""
        return any(not v.differentiable and not torch.equal(v.data, self.before(v)) for v in set(node.inputs))


DifferenceRule = Callable[[Node, Grads, Reference], Grads]


def derivative(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The exact derivative of a linear operation."""
    return exact(node, grads)


def through(node: Node, grads: Grads, reference: Reference) -> Grads:
    """A copy that stops gradients only."""
    return grads


def function_of(node: Node) -> Callable[[Tensor], Tensor]:
    """An operation as a function of one tensor."""
    if node.gate is not None:
        return node.gate[0]
    f = rectifier_of(node) if node.kind == "rectifier" else lambda t: node.run({node.inputs[0]: t})
    return lambda t: out if isinstance(out := f(t), Tensor) else out[0]


def slope_of(node: Node, x: Tensor) -> Tensor:
    """`f'(x)` of an operation as a function of one tensor."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        y = function_of(node)(leaf)
        (slope,) = torch.autograd.grad(y.sum(), leaf, allow_unused=True)
    return torch.zeros_like(x) if slope is None else slope


def rescale(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`m_Δx = m_Δy Δy/Δx`, and the derivative where Δx is zero (Shrikumar et al. 2017, section 3.5.1)."""
    place = 0 if node.gate is None else node.gate[1]
    x, m = node.inputs[place], grads[0]
    if m is None:
        return [None] * len(node.inputs)
    sent = m * reference.share(reference.change(node.output), x, slope_of(node, x.data))
    return [sent if i == place else None for i in range(len(node.inputs))]


def extremum(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The change of a maximum, shared by the winner now and the winner at the reference, so that it sums up.

    With `c = max(y, y⁰)`: `m (c − y⁰)` goes to the winner in x and `m (y − c)` to the winner in x⁰, divided by Δx;
    windows may overlap (Lundberg & Lee 2017's reading of Shrikumar et al. 2017). A minimum alike: `c = min(y, y⁰)`.
    """
    m = grads[0]
    if m is None:
        return [None] * len(node.inputs)
    y, before = node.output.data, reference.before(node.output)
    top = (torch.minimum if node.base in ("amin", "min", "minimum") else torch.maximum)(y, before)
    rest = [None] * (len(grads) - 1)
    now = exact(node, [m * (top - before), *rest])
    at_start = {v: reference.before(v) for v in node.inputs}
    then = _gradient_at(node, [m * (y - top), *rest], at_start)
    still = exact(node, [m, *rest])
    return [
        None if a is None or b is None or s is None else reference.share(a + b, v, s)
        for v, a, b, s in zip(node.inputs, now, then, still, strict=True)
    ]


def midpoint(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`Δ(ab) = Δa (b + b⁰)/2 + Δb (a + a⁰)/2`: exact, and even-handed between the factors."""
    return _gradient_at(node, grads, {v: reference.toward(v, 0.5) for v in node.inputs})


def quotient(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`a/b` as the product of a and `1/b`, whose rescaled slope is `−1/(b b⁰)`."""
    a, b, m = *node.inputs, grads[0]
    if m is None:
        return [None, None]
    y, z, a_sum = b.data, reference.before(b), a.data + reference.before(a)
    return [(m * (1 / y + 1 / z) / 2).sum_to_size(a.shape), (-m * a_sum / (2 * y * z)).sum_to_size(b.shape)]


def normalise(node: Node, grads: Grads, reference: Reference) -> Grads:
    """A normalisation in its steps, each by its own rule: `c = x − μ`, `v = mean c²`, `y = γ c (v + ε)^-½`.

    `m_c = m (r + r⁰)/2 + m_v (c + c⁰)/n`, where `m_v = Σ m (c + c⁰)/2 · Δr/Δv` and r is `(v + ε)^-½`.
    """
    x, m, eps = node.inputs[0], grads[0], _eps(node)
    if m is None:
        return [None]
    centred = node.base != "rms_norm"
    rows, scaled = _in_groups(node, x.data), _in_groups(node, _times_weight(node, m))
    first = _in_groups(node, reference.before(x))
    c, c0 = ((t - t.mean(-1, keepdim=True)) if centred else t for t in (rows, first))
    a, b = ((t.square().mean(-1, keepdim=True) + eps).sqrt() for t in (c, c0))
    both = c + c0
    m_variance = (scaled * both / 2).sum(-1, keepdim=True) * (-1 / (a * b * (a + b)))
    m_c = scaled * (1 / a + 1 / b) / 2 + m_variance * both / c.shape[-1]
    return [(m_c - m_c.mean(-1, keepdim=True) if centred else m_c).reshape(x.shape)]


def _eps(node: Node) -> float:
    eps = argument(node, "eps")
    return torch.finfo(node.output.dtype).eps if eps is None else float(eps)


def _in_groups(node: Node, t: Tensor) -> Tensor:
    """What is normalised together on the last axis."""
    if node.base == "group_norm":
        return t.reshape(t.shape[0], int(argument(node, "num_groups")), -1)
    if node.base == "instance_norm":
        return t.flatten(2)
    return t.flatten(-len(argument(node, "normalized_shape")))


def _times_weight(node: Node, m: Tensor) -> Tensor:
    weight = argument(node, "weight")
    if weight is None:
        return m
    along = node.base in ("group_norm", "instance_norm")
    return m * (weight.view(-1, *[1] * (m.dim() - 2)) if along else weight)


def along_the_path(node: Node, grads: Grads, reference: Reference) -> Grads:
    """The derivative averaged over the straight way from reference to input (Gauss-Legendre), for any operation.

    It sums up to the change as closely as the quadrature does; for a function of one number it is the rescale rule.
    """
    if not any(v in reference.values for v in node.inputs):
        return exact(node, grads)
    chosen = ", which chooses differently for the reference" if reference.chooses_differently(node) else ""
    reference.approximate.add(f"{node.name} in {node.path or 'the network'}{chosen}")
    total: list[Tensor | None] = [None] * len(node.inputs)
    for t, weight in quadrature():
        for i, part in enumerate(_gradient_at(node, grads, {v: reference.toward(v, t) for v in node.inputs})):
            if part is not None:
                old = total[i]
                total[i] = part * weight if old is None else old + part * weight
    return total


def quadrature() -> list[tuple[float, float]]:
    """Points between 0 and 1 with their weights, which sum to 1."""
    nodes, weights = np.polynomial.legendre.leggauss(POINTS)
    return [(float(t + 1) / 2, float(w) / 2) for t, w in zip(nodes, weights, strict=True)]


def _gradient_at(node: Node, grads: Grads, at: Mapping[Value, Tensor]) -> Grads:
    """The operation's derivative at other inputs than the recorded ones.

    Raises:
        TraceError: torch has none.
    """
    try:
        return _differentiated(node, grads, at)
    except RuntimeError as error:
        if "derivative for" not in str(error):
            raise
        raise TraceError(
            f"torch has no derivative of {node.name} in {node.path or 'the network'}, so no difference can be followed "
            "back through it; use a method that needs scores only"
        ) from error


def _differentiated(node: Node, grads: Grads, at: Mapping[Value, Tensor]) -> Grads:
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
