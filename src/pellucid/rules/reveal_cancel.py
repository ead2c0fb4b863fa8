"""RevealCancel: positive and negative contributions to an activation kept apart through the linear operation before."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.trace import Node, Trace
from pellucid.rules.differences import Reference, function_of, slope_of
from pellucid.rules.linear_map import linear_map
from pellucid.rules.structure import is_linear, structure


def producer(node: Node, trace: Trace) -> Node | None:
    """The linear operation (with its BatchNorm), the average or the sum of two that an activation reads."""
    value = node.inputs[0 if node.gate is None else node.gate[1]]
    if value.node is None:
        return None
    made_by = structure(trace).merged.get(value.node, value.node)
    return made_by if is_linear(made_by) or _is_sum_of_two(made_by) or _is_average(made_by) else None


def _is_average(node: Node) -> bool:
    return node.kind == "average_pool" and len(node.inputs) == 1


def _is_sum_of_two(node: Node) -> bool:
    if node.base not in ("add", "sub") or len(node.inputs) != 2 or node.inputs[0] is node.inputs[1]:
        return False
    return all(v.shape == node.output.shape for v in node.inputs)


def reveal_cancel(node: Node, grads: Grads, reference: Reference, linear: Node) -> Grads:
    """Positive and negative contributions apart (Shrikumar et al. 2017, section 3.5.2).

    `Δy⁺ = ½ [f(x⁰+Δx⁺) − f(x⁰)] + ½ [f(x⁰+Δx⁻+Δx⁺) − f(x⁰+Δx⁻)]`, Δy⁻ alike, `m± = Δy±/Δx±`; `Δx±` are the sums of the
    positive and negative contributions of the linear operation before, which sends each on by itself. What is sent to
    x itself is the multiplier of the whole Δx, `m Δy/Δx`.
    """
    x = node.inputs[0 if node.gate is None else node.gate[1]]
    m, f, start = grads[0], function_of(node), reference.before(x)
    if m is None:
        return [None] * len(node.inputs)
    up, down = (t.reshape(x.shape) for t in _contributions(linear, reference))
    y_up = (f(start + up) - f(start) + f(start + down + up) - f(start + down)) / 2
    y_down = (f(start + down) - f(start) + f(start + up + down) - f(start + up)) / 2
    slope = slope_of(node, x.data)
    parts = [
        m * torch.where(d == 0, slope, y / torch.where(d == 0, torch.ones_like(d), d))
        for y, d in ((y_up, up), (y_down, down))
    ]
    place = 0 if node.gate is None else node.gate[1]
    whole = m * reference.share(reference.change(node.output), x, slope)
    reference.revealed.setdefault(linear, {})[node] = (parts[0], parts[1], whole)
    return [whole if i == place else None for i in range(len(node.inputs))]


def linear_of_two(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`m_i = Σ_j w_ij m_j⁺` where `w_ij Δx_i > 0`, `Σ_j w_ij m_j⁻` where it is negative, their mean where `Δx_i = 0`.

    What other readers of the output sent goes on by the plain derivative.
    """
    behind = reference.revealed[node]
    m_up, m_down, sent = (_total(list(parts)) for parts in zip(*behind.values(), strict=True))
    back = _sum_of_two if _is_sum_of_two(node) else _average_of_two if _is_average(node) else _map_of_two
    found = back(node, m_up.reshape(node.output.shape), m_down.reshape(node.output.shape), reference)
    facts = structure(reference.trace)
    merged = facts.behind.get(node)
    value = node.output if merged is None else merged.output
    if grads[0] is None or (set(facts.uses.get(value, ())) <= set(behind) and value not in reference.trace.outputs):
        return found
    passed = sent if merged is None else exact(merged, [sent])[0]
    others = exact(node, [grads[0] if passed is None else grads[0] - passed.reshape(node.output.shape)])
    return [b if a is None else a if b is None else a + b for a, b in zip(found, others, strict=True)]


def _contributions(node: Node, reference: Reference) -> tuple[Tensor, Tensor]:
    """The sums of the positive and of the negative `w_ij Δx_i`, for each output."""
    if _is_sum_of_two(node):
        terms = [factor * reference.change(v) for v, factor in zip(node.inputs, _factors(node), strict=True)]
        return _total([t.clamp(min=0) for t in terms]), _total([t.clamp(max=0) for t in terms])
    dx = reference.change(node.inputs[0])
    up, down = dx.clamp(min=0), dx.clamp(max=0)
    if _is_average(node):
        return node.run({node.inputs[0]: up}), node.run({node.inputs[0]: down})
    m = linear_map(node, structure(reference.trace))
    w_up, w_down = m.weight.clamp(min=0), m.weight.clamp(max=0)
    return m.apply(up, w_up) + m.apply(down, w_down), m.apply(up, w_down) + m.apply(down, w_up)


def _total(parts: list[Tensor]) -> Tensor:
    return torch.stack(parts).sum(0)


def _factors(node: Node) -> tuple[float, float]:
    """The factors of the two terms of a sum or a difference."""
    alpha = argument(node, "alpha", 1)
    return 1.0, float(alpha if node.base == "add" else -alpha)


def _map_of_two(node: Node, m_up: Tensor, m_down: Tensor, reference: Reference) -> Grads:
    m = linear_map(node, structure(reference.trace))
    w_up, w_down = m.weight.clamp(min=0), m.weight.clamp(max=0)
    rising = _transposed(m.apply, m.x, w_up, m_up) + _transposed(m.apply, m.x, w_down, m_down)
    falling = _transposed(m.apply, m.x, w_down, m_up) + _transposed(m.apply, m.x, w_up, m_down)
    return [_by_sign(reference.change(node.inputs[0]), rising, falling)]


def _average_of_two(node: Node, m_up: Tensor, m_down: Tensor, reference: Reference) -> Grads:
    (rising,), (falling,) = exact(node, [m_up]), exact(node, [m_down])
    if rising is None or falling is None:
        return [None]
    return [_by_sign(reference.change(node.inputs[0]), rising, falling)]


def _sum_of_two(node: Node, m_up: Tensor, m_down: Tensor, reference: Reference) -> Grads:
    pairs = zip(node.inputs, _factors(node), strict=True)
    return [factor * _by_sign(factor * reference.change(v), m_up, m_down) for v, factor in pairs]


def _by_sign(change: Tensor, rising: Tensor, falling: Tensor) -> Tensor:
    return torch.where(change > 0, rising, torch.where(change < 0, falling, (rising + falling) / 2))


def _transposed(apply: Callable[[Tensor, Tensor], Tensor], x: Tensor, weight: Tensor, s: Tensor) -> Tensor:
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        z = apply(leaf, weight)
    return torch.autograd.grad(z, leaf, s)[0]
