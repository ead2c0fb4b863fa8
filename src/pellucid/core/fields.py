"""Theoretical receptive fields: which input pixels a unit can see, read off the recording itself, for any graph."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from pellucid.core.local import Space, local
from pellucid.core.trace import Node, Trace, Value
from pellucid.core.windows import Axis

Box = tuple[tuple[int, int], ...]  # first pixel, and one behind the last, along each axis


@dataclass(frozen=True, eq=False)
class Field:
    """What the units of one layer can see of the input.

    Along axis a, the unit at position o sees the pixels `low[a][o]` to `high[a][o]`, both included; they may lie
    beyond the border, where there is padding.

    Attributes:
        low, high: one array per spatial axis; none for a layer without positions, which sees everything.
        input_px: the input's size along each axis.
        everywhere: the operation through which each unit sees the whole input as well; "" where there is none.
        aligned: whether all ways from the input to the layer have the same stride and are centred alike.
    """

    low: tuple[Int64[np.ndarray, "n"], ...]
    high: tuple[Int64[np.ndarray, "n"], ...]
    input_px: tuple[int, ...]
    everywhere: str = ""
    aligned: bool = True

    @property
    def size_px(self) -> tuple[int, ...]:
        """The field's side along each axis, border or not; the whole input for a layer without positions."""
        sides = tuple(int((h - w).max()) + 1 for w, h in zip(self.low, self.high, strict=True))
        return sides or self.input_px

    @property
    def stride_px(self) -> tuple[float, ...]:
        """Input pixels from one position to the next, along each axis; 0 where there is one position."""
        return tuple(float(w[-1] - w[0]) / (len(w) - 1) if len(w) > 1 else 0.0 for w in self.low)

    @property
    def positions(self) -> tuple[int, ...]:
        return tuple(len(w) for w in self.low)

    def box(self, position: Sequence[int]) -> Box:
        """The pixels of the input that the unit at a position can see, cut at the border."""
        if self.everywhere or not self.low:
            return tuple((0, n) for n in self.input_px)
        return tuple(
            (max(first, 0), min(last + 1, n))
            for (first, last), n in zip(self.reach(position), self.input_px, strict=True)
        )

    def reach(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """First and last pixel along each axis, maybe beyond the border; without the ways that see everything."""
        return tuple((int(w[p]), int(h[p])) for w, h, p in zip(self.low, self.high, position, strict=True))

    def centre(self, position: Sequence[int]) -> tuple[float, ...]:
        """The middle of the field in continuous coordinates: pixel i covers [i, i + 1)."""
        return tuple((first + last + 1) / 2 for first, last in self.reach(position))


def fields(trace: Trace) -> dict[Value, Field]:
    """The field of every value that depends on the first input.

    An output o of an operation with kernel k, stride s, padding p and dilation d reads the inputs `o s − p + i d`
    (i < k); fields are composed along every way, and where ways meet the field is the smallest box around all
    (Araujo, Norris & Sim 2019, Distill, "Computing receptive fields of convolutional neural networks").
    """
    if "fields" not in trace.memo:
        trace.memo["fields"] = _walk(trace)
    return trace.memo["fields"]


def _walk(trace: Trace) -> dict[Value, Field]:
    first = trace.inputs[0]
    lengths = tuple(first.shape[2:])
    every = tuple(np.arange(n) for n in lengths)
    found = {first: Field(every, every, lengths)}
    space: dict[Value, Space] = {first: tuple(range(2, len(first.shape)))}
    for node in trace.nodes:
        outputs = [v for v in node.outputs if v is not None]
        if not outputs or not any(v in found for v in node.inputs):
            continue
        reach = local(node, space)
        for value in outputs:
            if reach is None:
                found[value] = _whole(node, value, lengths)
                if found[value].low:
                    space[value] = tuple(range(2, len(value.shape)))
            else:
                found[value] = _composed(node, value, reach.axes, reach.space, found, space)
                space[value] = reach.space
    return found


def _whole(node: Node, value: Value, lengths: tuple[int, ...]) -> Field:
    """Of an operation that mixes all positions."""
    words = f"{node.base} in {node.path or 'the network'}"
    if len(value.shape) != len(lengths) + 2:
        return Field((), (), lengths, words)
    sides = value.shape[2:]
    low = tuple(np.zeros(n, np.int64) for n in sides)
    high = tuple(np.full(n, whole - 1, np.int64) for n, whole in zip(sides, lengths, strict=True))
    return Field(low, high, lengths, words)


def _composed(
    node: Node, value: Value, axes: Sequence[Axis], places: Space, found: dict[Value, Field], space: dict[Value, Space]
) -> Field:
    """The field of a local operation's output: the smallest box around what its inputs see."""
    ways = [
        _through(found[v], axes, [value.shape[a] for a in places]) for v in node.inputs if v in space and v in found
    ]
    out = ways[0]
    for way in ways[1:]:
        out = _around(out, way)
    seen = next((found[v] for v in node.inputs if v in found and v not in space), None)
    if seen is not None and not out.everywhere:  # such as the gates of squeeze and excitation
        out = replace(out, everywhere=seen.everywhere or f"{node.base} in {node.path or 'the network'}")
    return out


def _through(field: Field, axes: Sequence[Axis], lengths: Sequence[int]) -> Field:
    low, high = [], []
    for axis, length, w, h in zip(axes, lengths, field.low, field.high, strict=True):
        first = np.arange(length) * axis.stride - axis.before
        low.append(_extended(w, first))
        high.append(_extended(h, first + (axis.kernel - 1) * axis.dilation))
    return replace(field, low=tuple(low), high=tuple(high))


def _extended(values: Int64[np.ndarray, "n"], at: Int64[np.ndarray, "m"]) -> Int64[np.ndarray, "m"]:
    """Values at places that may lie beyond the ends, where they go on with the last step."""
    last = len(values) - 1
    step = int(values[1] - values[0]) if last else 0
    end = int(values[-1] - values[-2]) if last else 0
    inside = values[np.clip(at, 0, last)]
    return inside + np.minimum(at, 0) * step + np.maximum(at - last, 0) * end


def _around(a: Field, b: Field) -> Field:
    centred = all(np.array_equal(w + h, x + y) for w, h, x, y in zip(a.low, a.high, b.low, b.high, strict=True))
    return Field(
        tuple(map(np.minimum, a.low, b.low)),
        tuple(map(np.maximum, a.high, b.high)),
        a.input_px,
        a.everywhere or b.everywhere,
        a.aligned and b.aligned and centred,
    )
