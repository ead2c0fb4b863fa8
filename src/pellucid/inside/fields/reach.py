"""What the units of a layer see of the input, or of another layer: where each field begins, and how large it is."""

from dataclasses import dataclass
from itertools import product

import numpy as np
from jaxtyping import Float, Int64

from pellucid.core.errors import LayerError
from pellucid.core.fields import Field, fields
from pellucid.inside.opened import Opened

INPUT = "input"


@dataclass(frozen=True, eq=False)
class Reach:
    """The fields of one layer in another layer or in the input, all of one size.

    Attributes:
        source, target: names of the layers; `"input"` for the input.
        size: a field's sides, in positions of the source.
        corners: for each axis of the source, the first position that each unit sees; may lie beyond the
            border; none where every unit sees all of it.
        lengths: the source's sides.
        positions: the target's sides.
        field: where these numbers are from.
    """

    source: str
    target: str
    size: tuple[int, ...]
    corners: tuple[Int64[np.ndarray, "..."], ...]
    lengths: tuple[int, ...]
    positions: tuple[int, ...]
    field: Field

    @property
    def whole(self) -> bool:
        """Whether every unit's field is all of the source."""
        return not self.corners

    def corner(self, position: tuple[int, ...]) -> tuple[int, ...]:
        """Where the field of a unit begins."""
        if self.whole:
            return (0,) * len(self.size)
        axes = self.field.axes or range(len(self.corners))
        return tuple(int(c[position[p]]) for c, p in zip(self.corners, axes, strict=True))

    def inside(self, position: tuple[int, ...]) -> bool:
        """Whether a unit's whole field lies within the source."""
        parts = zip(self.corner(position), self.size, self.lengths, strict=True)
        return all(c >= 0 and c + s <= n for c, s, n in parts)

    def every(self) -> list[tuple[int, ...]]:
        """All positions of the target; `()` where it has none."""
        return list(product(*map(range, self.positions)))

    def groups(self, positions: list[tuple[int, ...]]) -> list[list[tuple[int, ...]]]:
        """Positions whose fields don't overlap belong to one group; each is alone where all see everything."""
        if self.field.everywhere or self.whole or self.field.axes:
            return [[p] for p in positions]
        apart = [_apart(corners, size) for corners, size in zip(self.corners, self.size, strict=True)]
        found: dict[tuple[int, ...], list[tuple[int, ...]]] = {}
        for position in positions:
            found.setdefault(tuple(p % k for p, k in zip(position, apart, strict=True)), []).append(position)
        return list(found.values())

    def windows(self, position: tuple[int, ...]) -> tuple[tuple[slice, ...], tuple[slice, ...]]:
        """The part of the source that a unit sees, and where it lies in the field's map."""
        of, into = [], []
        for c, s, n in zip(self.corner(position), self.size, self.lengths, strict=True):
            first, last = min(max(c, 0), n), max(min(c + s, n), 0)
            of.append(slice(first, max(first, last)))
            into.append(slice(first - c, first - c + max(0, last - first)))
        return tuple(of), tuple(into)

    def outside(self, heat: Float[np.ndarray, "*space"]) -> float:
        """The share of a field's mass that lies beyond the border, on average over all positions."""
        total = heat.sum()
        if not total > 0:
            return float("nan")
        sums = np.pad(heat, [(1, 0)] * heat.ndim)
        for axis in range(heat.ndim):
            sums = sums.cumsum(axis)
        inside = [_box_sum(sums, self.windows(position)[1]) for position in self.every()]
        return float(max(0.0, 1 - np.mean(inside) / total))


def _box_sum(sums: Float[np.ndarray, "*space"], box: tuple[slice, ...]) -> float:
    """The sum over a box, from running sums that begin with 0."""
    total = 0.0
    for ends in product((0, 1), repeat=len(box)):
        sign = (-1) ** (len(box) - sum(ends))
        total += sign * float(sums[tuple(b.stop if e else b.start for b, e in zip(box, ends, strict=True))])
    return total


def _apart(corners: Int64[np.ndarray, "..."], size: int) -> int:
    """So many positions apart, fields don't overlap."""
    count = len(corners)
    for k in range(1, count):
        if (np.abs(corners[k:] - corners[:-k]) >= size).all():
            return k if _stays(corners, size, k) else count
    return max(count, 1)


def _stays(corners: Int64[np.ndarray, "..."], size: int, k: int) -> bool:
    """Whether the corners run one way, so that positions further apart don't overlap either."""
    steps = np.sign(np.diff(corners[::k]))
    return bool((steps == steps[0]).all()) if len(steps) else True


def reach(asked: Opened, target: str, source: str = INPUT) -> Reach:
    """The fields of a layer in an earlier one.

    Raises:
        LayerError: the layer does not depend on the source, or the source has no positions.
    """
    start = asked.trace.inputs[0] if source == INPUT else asked.value(source)
    found = fields(asked.trace, None if source == INPUT else start)
    value = asked.value(target)
    if value not in found:
        raise LayerError(f'layer "{target}" does not come from "{source}"; name an earlier layer as the source')
    lengths = tuple(start.shape[2:]) if source == INPUT else asked.positions(source)
    field, positions = found[value], asked.positions(target)
    if not field.low or field.positions != positions:  # each unit sees all of it
        return Reach(source, target, lengths, (), lengths, positions, field)
    sizes = field.size_px
    corners = tuple(_corner(low, high, s) for low, high, s in zip(field.low, field.high, sizes, strict=True))
    return Reach(source, target, sizes, corners, lengths, positions, field)


def _corner(low: Int64[np.ndarray, "..."], high: Int64[np.ndarray, "..."], size: int) -> Int64[np.ndarray, "..."]:
    """Where boxes of one size begin, their centres those of the fields; what wraps around the border is beyond it."""
    width = high - low + 1
    return np.where(width > size, -size, low - (size - width) // 2)
