"""RevealCancel: positive and negative contributions to an activation kept apart through the linear operation before."""

from collections.abc import Callable

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.trace import Node, Trace
from pellucid.rules.differences import Reference, function_of, rescale, slope_of
from pellucid.rules.linear_map import linear_map
from pellucid.rules.structure import is_linear, structure


def producer(node: Node, trace: Trace) -> Node | None:
    """The linear operation (with its BatchNorm) or the sum of two that an activation reads."""
    value = node.inputs[0 if node.gate is None else node.gate[1]]
    if value.node is None:
        return None
    made_by = structure(trace).merged.get(value.node, value.node)
    return made_by if is_linear(made_by) or _is_sum_of_two(made_by) else None


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
    reference.revealed.setdefault(linear, {})[node] = (parts[0], parts[1])
    return rescale(node, grads, reference)


def linear_of_two(node: Node, grads: Grads, reference: Reference) -> Grads:
    """`m_i = Σ_j w_ij m_j⁺` where `w_ij Δx_i > 0`, `Σ_j w_ij m_j⁻` where it is negative, their mean where `Δx_i = 0`.

    What other readers of the output sent goes on by the plain derivative.
    """
    behind = reference.revealed[node]
    split = [t for t in (sum(parts).reshape(node.output.shape) for parts in zip(*behind.values(), strict=True))]
    back = (_sum_of_two if _is_sum_of_two(node) else _map_of_two)(node, split[0], split[1], reference)
    rest = _from_others(node, grads, reference, list(behind))
    if rest is None:
        return back
    others = exact(node, [rest])
    return [a if b is None else b if a is None else a + b for a, b in zip(back, others, strict=True)]


def _from_others(node: Node, grads: Grads, reference: Reference, activations: list[Node]) -> Tensor | None:
    """What arrived from readers other than the activations: None where nothing did."""
    merged = structure(reference.trace).batch_norm_of.get(node)
    value = node.output if merged is None else merged.output
    readers = {n for n in structure(reference.trace).uses.get(value, ())}
    if readers <= set(activations) and value not in reference.trace.outputs:
        return None
    arrived = grads[0]
    return arrived
