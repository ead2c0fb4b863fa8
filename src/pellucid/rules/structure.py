"""What relevance rules need to know about a recording as a whole, read off its data flow once."""

from dataclasses import dataclass, field

from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.layers import ancestors
from pellucid.core.target import class_scores
from pellucid.core.trace import Node, Trace, Value

LINEAR = frozenset({"convolution", "linear"})
READS = {"addmm": "mat1", "mm": "self", "matmul": "self"}  # the argument that is multiplied by the weight
COPIES = frozenset({"clone", "contiguous", "alias", "dropout", "detach"})
ROWS_MERGED = frozenset({"flatten", "view", "reshape", "_unsafe_view"})
SQUASHED = frozenset({"squash", "softmax"})
SHAPED_AS = frozenset({"expand_as", "view_as", "reshape_as", "type_as"})
CARRIED = frozenset({"view", "upsample", "dropout", "concatenate"})


@dataclass(frozen=True, eq=False)
class Structure:
    """Facts about a recording.

    Attributes:
        merged: BatchNorm, or the sum with a constant for each channel, that stands behind a convolution or a linear
            layer alone -> that layer.
        behind: the reverse.
        first: linear operations with no other linear operation before them.
        last: linear operations with none behind them on the way to the scores.
        uses: the operations that read a value.
    """

    merged: dict[Node, Node]
    behind: dict[Node, Node]
    first: frozenset[Node]
    last: frozenset[Node]
    uses: dict[Value, list[Node]] = field(repr=False)


def structure(trace: Trace) -> Structure:
    """The facts, found once for each recording."""
    if "structure" not in trace.memo:
        trace.memo["structure"] = _read(trace)
    return trace.memo["structure"]


def is_linear(node: Node) -> bool:
    """A convolution or a linear layer (`x @ W` too) of the recorded input with a constant weight."""
    if len(node.inputs) != 1 or (node.kind not in LINEAR and node.base != "matmul"):
        return False
    if argument(node, READS.get(node.base, "input")) is not node.inputs[0]:
        return False
    return node.base != "matmul" or argument(node, "other").dim() == 2


def _read(trace: Trace) -> Structure:
    uses: dict[Value, list[Node]] = {}
    for node in trace.nodes:
        for value in dict.fromkeys(node.inputs):
            uses.setdefault(value, []).append(node)
    ends = {*trace.outputs, trace.output}
    merged = {n: m for n in trace.nodes if n.kind == "batch_norm" and (m := _merges_into(n, uses, ends)) is not None}
    taken = set(merged.values())
    merged |= {n: m for n in trace.nodes if (m := _adds_bias_to(n, uses, ends)) is not None and m not in taken}
    leading = ancestors(trace, class_scores(trace))
    linear = [n for n in trace.nodes if is_linear(n) and n.output in leading]
    return Structure(merged, {m: n for n, m in merged.items()}, _first(trace, linear), _last(trace, linear), uses)


def _merges_into(node: Node, uses: dict[Value, list[Node]], ends: set[Value]) -> Node | None:
    """The linear operation whose output only this BatchNorm reads, through copies and merged rows."""
    if len(node.inputs) != 1 or argument(node, "running_var") is None:
        return None
    value = node.inputs[0]
    while value.node is not None and len(uses.get(value, ())) == 1 and value not in ends:
        before = value.node
        if is_linear(before):
            return before if _same_channels(before, node) else None
        keeps = before.base in ROWS_MERGED and before.inputs[0].shape[-1] == value.shape[-1] and len(value.shape) == 2
        if before.base not in COPIES and not (keeps and len(before.inputs) == 1):
            return None
        value = before.inputs[0]
    return None


def _adds_bias_to(node: Node, uses: dict[Value, list[Node]], ends: set[Value]) -> Node | None:
    """The linear operation whose output only this sum reads, which adds one constant to each of its channels."""
    if node.base not in ("add", "sub") or len(node.inputs) != 1 or argument(node, "self") is not node.inputs[0]:
        return None
    value, constant = node.inputs[0], argument(node, "other")
    if value.node is None or not is_linear(value.node) or len(uses[value]) != 1 or value in ends:
        return None
    if not isinstance(constant, Tensor) or node.output.shape != value.shape:
        return None
    channel = len(value.shape) - 1 if value.node.kind != "convolution" else 1
    places = [d - constant.dim() + len(value.shape) for d in range(constant.dim()) if constant.shape[d] != 1]
    return value.node if places in ([], [channel]) else None


def _same_channels(linear: Node, batch_norm: Node) -> bool:
    """Whether the channels that are normalised are the ones that the linear operation makes."""
    rows = len(batch_norm.inputs[0].shape) == 2
    if linear.kind != "convolution":
        return rows and linear.output.shape[-1] == batch_norm.inputs[0].shape[1]
    return linear.output.shape == batch_norm.inputs[0].shape and len(linear.output.shape) > 2


def _first(trace: Trace, linear: list[Node]) -> frozenset[Node]:
    behind: set[Value] = set()
    found = set()
    wanted = set(linear)
    for node in trace.nodes:
        reached = any(v in behind for v in node.inputs)
        if node in wanted and not reached:
            found.add(node)
        if reached or node in wanted:
            behind.update(v for v in node.outputs if v is not None)
    return frozenset(found)


def _last(trace: Trace, linear: list[Node]) -> frozenset[Node]:
    before: set[Value] = set()
    found = set()
    wanted = set(linear)
    for node in reversed(trace.nodes):
        reached = any(v in before for v in node.outputs if v is not None)
        if node in wanted and not reached:
            found.add(node)
        if reached or node in wanted:
            before.update(node.inputs)
    return frozenset(found)


def gate_of(node: Node) -> int | None:
    """Which of the two factors of a product is the gate: a mask, the one that is broadcast, or that was squashed."""
    a, b = node.inputs
    if a.differentiable != b.differentiable:
        return int(a.differentiable)
    if a.shape.numel() != b.shape.numel():
        return 0 if a.shape.numel() < b.shape.numel() else 1
    squashed = [_is_squashed(v) for v in (a, b)]
    return None if squashed[0] == squashed[1] else squashed.index(True)


def _is_squashed(value: Value) -> bool:
    while value.node is not None:
        if value.node.kind in SQUASHED:
            return True
        if value.node.kind not in CARRIED or (len(value.node.inputs) != 1 and value.node.base not in SHAPED_AS):
            return False
        value = value.node.inputs[0]
    return False
