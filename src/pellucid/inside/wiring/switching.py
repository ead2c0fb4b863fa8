"""Units switched off one at a time, and what becomes of a later place."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pellucid.core.ahead import answers
from pellucid.core.edits import Box
from pellucid.core.progress import Progress
from pellucid.core.trace import Trace
from pellucid.images.datasets import Pictures
from pellucid.inside.opened import Opened
from pellucid.inside.wiring.places import Means, Place, place, recordings
from pellucid.inside.wiring.tally import Tally
from pellucid.models.model import Model


class Off:
    """A layer with one unit of one picture at a constant, everywhere; see `pellucid.core.edits.OfChannels`.

    Args:
        pairs: number of the picture and of the unit, for each edit.
        fill: the constant of every unit.
    """

    def __init__(self, at: Place, pairs: Sequence[tuple[int, int]], fill: Float[Tensor, " units"]) -> None:
        self.at, self.fill = at, fill.to(at.value.data)
        self.axis = 1 if at.axis is None else at.axis
        self.rows: Sequence[int] = [row for row, _ in pairs]
        self.channels: Sequence[int] = [unit for _, unit in pairs]
        self.boxes: Sequence[Box] | None = None

    def channel(self, which: Sequence[int]) -> Float[Tensor, "n *space"]:
        space = [n for axis, n in enumerate(self.at.value.shape) if axis not in (0, self.axis)]
        values = self.fill[[self.channels[i] for i in which]]
        return values.view(-1, *[1] * len(space)).expand(-1, *space)

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n *shape"]:
        found = self.at.value.data[[self.rows[i] for i in which]]
        for number, i in enumerate(which):
            found[number].select(self.axis - 1, self.channels[i]).fill_(self.fill[self.channels[i]])
        return found

    def inside(self, which: int) -> Float[Tensor, "*box"]:
        return self.inputs([which])[0]


def without(
    trace: Trace, source: Place, units: Sequence[int], fill: Float[Tensor, " all"], read: Place, bar: Progress
) -> Float[Tensor, "b units read"]:
    """The means of every unit of a later place, with each unit of an earlier one at its fill.

    Only what lies between the two is run again, and nothing where a unit is at its fill already.
    """
    before = read.means(read.value.data)
    found = before[:, None].expand(-1, len(units), -1).clone()
    change = source.per_unit(source.value.data) != source.unlike(fill)
    live = change.flatten(2).any(2) if change.dim() > 2 else change
    pairs = [(row, number) for row in range(trace.batch) for number, unit in enumerate(units) if live[row, unit]]
    bar.advance(trace.batch * len(units) - len(pairs), f"units of {source.name}")
    if pairs:
        edits = Off(source, [(row, units[number]) for row, number in pairs], fill)
        rows, numbers = (torch.tensor(column) for column in zip(*pairs, strict=True))
        found[rows, numbers] = answers(trace, edits, Means(read), place=source.value, progress=bar).values.to(found)
    return found


def fills(model: Model, data: Pictures, first: Opened, name: str, fill: str) -> Float[Tensor, " units"]:
    """What stands for a unit that is off: zero, or its own mean over all positions of all pictures."""
    at = place(first.trace, name)
    if fill == "zero":
        return at.value.data.new_zeros(at.units)
    return torch.from_numpy(means_of(model, data, first, [name])[0]).to(at.value.data)


def means_of(model: Model, data: Pictures, first: Opened, names: Sequence[str]) -> list[Float64[np.ndarray, " units"]]:
    """Each unit's mean over all positions of all pictures, for several places."""
    tallies = [Tally() for _ in names]
    for _, now in recordings(model, data, first):
        for name, tally in zip(names, tallies, strict=True):
            at = place(now.trace, name)
            tally.add(at.means(at.value.data))
    return [tally.mean for tally in tallies]
