"""Rectifiers that are written out in several operations, found by data flow."""

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.trace import Node, Value

Gate = tuple[Callable[[Tensor], Tensor], float]
SELF_GATED = {"sigmoid": F.silu, "hardsigmoid": F.hardswish}


def recognise(nodes: list[Node]) -> None:
    """Mark clamps at zero and products `x * s(x)` as the rectifiers that they are, in place.

    `clamp(x, 0)` and `maximum(x, 0)` are ReLU; `x * sigmoid(x)` is SiLU, `x * hardsigmoid(x)` (also spelled
    `x * relu6(x + 3) / 6`) Hardswish, `x * tanh(softplus(x))` Mish.
    """
    for node in nodes:
        if node.kind == "clamp" and _clamps_at_zero(node):
            node.kind = "rectifier"
        elif node.base == "mul" and len(node.inputs) == 2:
            for place in (0, 1):
                found = _gate(node.inputs[place], node.inputs[1 - place])
                if found is not None:
                    node.kind, node.gate = "rectifier", (found[0], place, found[1])


def _clamps_at_zero(node: Node) -> bool:
    if len(node.inputs) != 1:
        return False
    if node.base in ("maximum", "minimum"):
        other = next((a for a in node.args if isinstance(a, Tensor)), None)
        return node.base == "maximum" and other is not None and not bool(other.any())
    low = node.kwargs.get("min", node.args[1] if len(node.args) > 1 else None)
    return node.base != "clamp_max" and not isinstance(low, Tensor) and low == 0


def _gate(x: Value, gate: Value) -> Gate | None:
    """The rectifier `x * gate`, if the gate is a known function of x alone."""
    x, node = _original(x), gate.node
    if node is None or len(node.inputs) != 1:
        return None
    source = _original(node.inputs[0])
    if source is x and node.base in SELF_GATED:
        return SELF_GATED[node.base], 1.0
    if node.base == "tanh" and source.node is not None and source.node.base == "softplus":
        plain = all(given == usual for given, usual in zip(source.node.args[1:], (1, 20), strict=False))
        return (F.mish, 1.0) if plain and _original(source.node.inputs[0]) is x else None
    return _third(node, x)


def _original(value: Value) -> Value:
    """The value of which this one is a mere copy."""
    while value.node is not None and value.node.base in ("clone", "contiguous", "alias"):
        value = value.node.inputs[0]
    return value


def _third(node: Node, x: Value) -> Gate | None:
    """`relu6(x + 3)` with or without the division by six behind it."""
    scale = 1.0
    if node.base == "div" and node.args[1:] and node.args[1] == 6 and node.inputs[0].node is not None:
        node, scale = node.inputs[0].node, 1 / 6
    if node.base not in ("relu6", "hardtanh", "clamp") or node.inputs[0].node is None:
        return None
    shift = node.inputs[0].node
    bounds = (0, 6) if node.base == "relu6" else tuple(node.args[1:3])
    of_x = [_original(v) for v in shift.inputs] == [x]
    if bounds != (0, 6) or shift.base != "add" or not of_x or shift.args[1:2] != (3,):
        return None
    return ((lambda t: 6 * F.hardswish(t)), 6.0) if scale == 1.0 else (F.hardswish, 1.0)


def rectifier_of(node: Node) -> Callable[[Tensor], Tensor]:
    """The rectifier of a node as a function of its one input."""
    if node.gate is not None:
        return node.gate[0]
    x = node.inputs[0]
    return lambda t: torch.as_tensor(node.run({x: t}))
