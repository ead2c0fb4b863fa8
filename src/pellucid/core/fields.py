"""Theoretical receptive fields: which input pixels a unit can see, read off the recording itself, for any graph."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Int64
from torch import Tensor

from pellucid.core.boxes import NOTHING, Boxes, thinned
from pellucid.core.layout import layout
from pellucid.core.seen import Seen, after
from pellucid.core.trace import Trace, Value

Box = tuple[tuple[int, int], ...]  # first pixel, and one behind the last, along each axis
LAGS = 64  # positions after which an enlargement's steps repeat themselves, at most


@dataclass(frozen=True, eq=False)
class Field:
    """What the units of one layer can see of the input.

    Along axis a of the input, the unit at position o sees the pixels `low[a][o]` to `high[a][o]`, both included; they
    may lie beyond the border, where there is padding. A unit that sees nothing has `high < low`.

    Attributes:
        low, high: one array per spatial axis of the input; none for a layer without positions, which sees everything.
        input_px: the input's size along each axis.
        everywhere: the operation through which each unit sees the whole input as well; "" where there is none.
        aligned: whether all ways from the input to the layer are centred alike.
        axes: for each axis of the input, the axis of the layer's positions that runs along it; in order where empty.
    """

    low: tuple[Int64[np.ndarray, "..."], ...]
    high: tuple[Int64[np.ndarray, "..."], ...]
    input_px: tuple[int, ...]
    everywhere: str = ""
    aligned: bool = True
    axes: tuple[int, ...] = ()

    @property
    def size_px(self) -> tuple[int, ...]:
        """The field's side along each axis, border or not: the largest in the middle half of the positions."""
        sides = tuple(int(_middle(h - w).max()) + 1 for w, h in zip(self.low, self.high, strict=True))
        return sides or self.input_px

    @property
    def stride_px(self) -> tuple[float, ...]:
        """Input pixels from one position to the next, along each axis; 0 where there is one position."""
        shared = len(set(self.axes)) < len(self.axes)
        return tuple(_step(np.unique(w) if shared else w) for w in self.low)

    @property
    def positions(self) -> tuple[int, ...]:
        axes = self.axes or tuple(range(len(self.low)))
        return tuple(len(self.low[axes.index(p)]) if p in axes else 1 for p in range(max(axes, default=-1) + 1))

    def box(self, position: Sequence[int]) -> Box:
        """The pixels of the input that the unit at a position can see, cut at the border."""
        if self.everywhere or not self.low:
            return tuple((0, n) for n in self.input_px)
        pairs = zip(self.reach(position), self.input_px, strict=True)
        return tuple(_cut(first, last, n) for (first, last), n in pairs)

    def reach(self, position: Sequence[int]) -> tuple[tuple[int, int], ...]:
        """First and last pixel along each axis, maybe beyond the border; without the ways that see everything."""
        axes = self.axes or range(len(self.low))
        return tuple(
            (int(w[position[p]]), int(h[position[p]])) for w, h, p in zip(self.low, self.high, axes, strict=True)
        )

    def centre(self, position: Sequence[int]) -> tuple[float, ...]:
        """The middle of the field in continuous coordinates: pixel i covers [i, i + 1)."""
        return tuple((first + last + 1) / 2 for first, last in self.reach(position))


def fields(trace: Trace, source: Value | None = None) -> dict[Value, Field]:
    """The field of every value that depends on the first input, or on another value.

    An output o of an operation with kernel k, stride s, padding p and dilation d reads the inputs `o s − p + i d`
    (i < k). The box of pixels that each element can see is carried through every operation, views and shuffles
    included; where ways meet it is the smallest box around all, so a field is never too small. An operation that
    draws all positions together (a global pool, attention, an operation without a rule) is named in `everywhere`,
    and the ways around it stay.

    Args:
        source: the value whose positions count as pixels; the first input where it is None.

    Source: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill.
    """
    start = trace.inputs[0] if source is None else source
    found: dict[Value, dict[Value, Field]] = trace.memo.setdefault("fields", {})
    if start not in found:
        with torch.inference_mode(False), torch.no_grad():
            found[start] = _walk(trace, start)
    return found[start]


def _walk(trace: Trace, start: Value) -> dict[Value, Field]:
    axes = layout(trace)
    channels = {v: known.channel for v, known in axes.items()}
    places = _places(start, channels.get(start))
    known = {start: Seen(_pixels(start, places))}
    for node in trace.nodes[start.position + 1 :]:
        outputs = [v for v in node.outputs if v is not None]
        if outputs and any(v in known for v in node.inputs):
            for value in outputs:
                known[value] = after(node, value, known)
    lengths = tuple(start.shape[a] for a in places)
    return {v: _field(v, seen, lengths, channels.get(v)) for v, seen in known.items()}


def _places(value: Value, channel: int | None) -> list[int]:
    """The axes of a tensor that are neither images nor channels."""
    return [a for a in range(1, len(value.shape)) if a != (1 if channel is None else channel)]


def _pixels(start: Value, places: Sequence[int]) -> Boxes:
    """Each pixel sees itself."""
    dims = len(start.shape)
    shape = [start.shape[a] if a in places else 1 for a in range(dims)]
    if not places:
        return torch.full((0, *shape), NOTHING)
    sides = [torch.arange(start.shape[a]).float().view(*(-1 if a == b else 1 for b in range(dims))) for a in places]
    low = torch.stack([s.expand(shape) for s in sides])
    return torch.cat([low, -low])


def _field(value: Value, seen: Seen, lengths: tuple[int, ...], channel: int | None) -> Field:
    """The boxes of a tensor as one pair of arrays for each axis of the input."""
    places = _places(value, channel)
    if not places:
        return Field((), (), lengths, seen.everywhere, seen.aligned)
    hull = seen.boxes.amin([a + 1 for a in range(len(value.shape)) if a not in places])
    count, low, high, axes = len(lengths), [], [], []
    for a, n in enumerate(lengths):
        pair = thinned(hull[[a, count + a]])
        axis, line = _line(pair, min(a, len(places) - 1))
        line = line.expand(2, value.shape[places[axis]])
        first, last = _ends(line.double().numpy(), n, bool(seen.everywhere))
        low.append(first)
        high.append(last)
        axes.append(axis)
    ordered = axes == list(range(len(places)))
    return Field(tuple(low), tuple(high), lengths, seen.everywhere, seen.aligned, () if ordered else tuple(axes))


def _line(pair: Boxes, usual: int) -> tuple[int, Tensor]:
    """The axis of the positions along which boxes change, and what they are there; around all if no single one does."""
    running = [p for p in range(pair.dim() - 1) if pair.shape[p + 1] > 1]
    for axis in running:
        line = pair.amin([p + 1 for p in running if p != axis], keepdim=True) if len(running) > 1 else pair
        if bool(((pair == line) | ~torch.isfinite(pair)).all()):
            return axis, line.reshape(2, -1)
    return usual, pair.flatten(1).amin(1, keepdim=True)


def _ends(line: np.ndarray, length: int, everywhere: bool) -> tuple[np.ndarray, np.ndarray]:
    """First and last pixel; for what sees nothing by itself the whole input, or nothing."""
    blind = ~np.isfinite(line).all(0)
    empty = (0, length - 1) if everywhere else (0, -1)
    first = np.where(blind, empty[0], np.where(blind, 0, line[0]))
    last = np.where(blind, empty[1], -np.where(blind, 0, line[1]))
    return first.astype(np.int64), last.astype(np.int64)


def _cut(first: int, last: int, length: int) -> tuple[int, int]:
    """At the border; one that lies in the padding altogether is empty."""
    start = min(max(first, 0), length)
    return start, min(max(last + 1, start), length)


def _middle(values: np.ndarray) -> np.ndarray:
    n = len(values)
    return values[n // 4 : n - n // 4]


def _step(low: np.ndarray) -> float:
    """Pixels from one position to the next, where steps may alternate: over the shortest lag that repeats itself."""
    n = len(low)
    for lag in range(1, min(LAGS, n // 2) + 1):
        steps = _middle(low[lag:] - low[:-lag])
        if (steps == steps[0]).all():
            return float(steps[0]) / lag
    return float(low[-1] - low[0]) / (n - 1) if n > 1 else 0.0
