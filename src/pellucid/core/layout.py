"""Which axis of a recorded value counts images, and which counts channels."""

from collections.abc import Sequence
from typing import NamedTuple

from pellucid.core.trace import Node, Trace, Value

ROWS_FIRST = frozenset({"convolution", "batch_norm", "average_pool", "max_pool", "upsample"})
FORGETS = frozenset({"product", "detach"})
RESHAPES = frozenset({"view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze"})


class Axes(NamedTuple):
    """Axis of the images and of the channels; None where the data flow doesn't show it."""

    batch: int | None
    channel: int | None


UNKNOWN = Axes(None, None)


def layout(trace: Trace) -> dict[Value, Axes]:
    """The axes of every value, followed from the input `(b, c, ...)` through permutations and reshapes."""
    if "layout" not in trace.memo:
        found = {v: Axes(0, 1) for v in trace.inputs if len(v.shape) > 1 and v.shape[0] == trace.batch}
        for node in trace.nodes:
            outputs = [v for v in node.outputs if v is not None]
            if outputs:
                axes = _after(node, found)
                found.update(dict.fromkeys(outputs, axes))
        trace.memo["layout"] = found
    return trace.memo["layout"]


def _after(node: Node, known: dict[Value, Axes]) -> Axes:
    """The axes of an operation's outputs."""
    source = _source(node, known)
    if source is None or node.kind in FORGETS:
        return UNKNOWN
    before, old, new = known[source], source.shape, node.output.shape
    if node.base in ("permute", "transpose", "t"):
        return _permuted(node, before, len(old))
    if node.kind in ROWS_FIRST and len(new) == len(old):
        return Axes(before.batch, 1)
    if node.base in RESHAPES and new != old:
        kept = before.batch == 0 and len(new) > 0 and new[0] == old[0]
        return Axes(0, _regrouped(before.channel, old, new)) if kept else UNKNOWN
    if len(new) != len(old):
        return Axes(0 if before.batch == 0 and len(new) > 0 and new[0] == old[0] else None, None)
    if node.kind == "linear" and before.channel is None:
        return Axes(before.batch, len(new) - 1)
    return before


def _regrouped(channel: int | None, old: Sequence[int], new: Sequence[int]) -> int | None:
    """Where the channels are behind a reshape that leaves them, and all before or behind them, as they were."""
    if channel is None:
        return None
    if tuple(old[: channel + 1]) == tuple(new[: channel + 1]):
        return channel
    behind = len(old) - channel
    return len(new) - behind if len(new) > behind and tuple(old[channel:]) == tuple(new[-behind:]) else None


def _source(node: Node, known: dict[Value, Axes]) -> Value | None:
    """The input whose axes the output has: of its shape, else of its number of axes, else any; the best known one."""
    inputs = [v for v in node.inputs if v in known]
    shape = node.output.shape
    same = [v for v in inputs if v.shape == shape] or [v for v in inputs if len(v.shape) == len(shape)] or inputs
    return min(same, key=lambda v: known[v].count(None), default=None)


def _permuted(node: Node, before: Axes, count: int) -> Axes:
    order = list(range(count))
    if node.base == "permute":
        order = [d % count for d in node.args[1]]
    else:
        first, second = (0, 1) if node.base == "t" else (d % count for d in node.args[1:3])
        order[first], order[second] = order[second], order[first]
    return Axes(*(None if axis is None else order.index(axis) for axis in before))
