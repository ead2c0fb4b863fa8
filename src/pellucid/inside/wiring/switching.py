"""Units switched off one at a time, and what becomes of a later place."""

from collections.abc import Sequence

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pellucid.core.ahead import answers
from pellucid.core.edits import Box
from pellucid.core.progress import Progress
from pellucid.core.replay import replayed
from pellucid.core.trace import Trace
from pellucid.images.datasets import Pictures
from pellucid.inside.opened import Opened
from pellucid.inside.wiring.places import Means, Place, place, recordings
from pellucid.inside.wiring.tally import Tally


class Off:
    """A place with one unit of one picture at what stands for it; see `pellucid.core.edits.OfChannels`.

    Args:
        pairs: number of the picture and of the unit, for each edit.
        away: what stands for the units, in the form of the place with its units second.
    """

    def __init__(self, at: Place, pairs: Sequence[tuple[int, int]], away: Float[Tensor, "b units *space"]) -> None:
        self.at, self.away = at, away
        self.rows: Sequence[int] = [row for row, _ in pairs]
        self.channels: Sequence[int] = [unit for _, unit in pairs]
        self.boxes: Sequence[Box] | None = None

    def channel(self, which: Sequence[int]) -> Float[Tensor, "n *space"]:
        return self.away[[self.rows[i] for i in which], [self.channels[i] for i in which]]

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n *shape"]:
        found = self.at.value.data[[self.rows[i] for i in which]]
        self.at.per_unit(found)[list(range(len(which))), [self.channels[i] for i in which]] = self.channel(which)
        return found

    def inside(self, which: int) -> Float[Tensor, "*box"]:
        return self.inputs([which])[0]


def without(
    trace: Trace,
    source: Place,
    units: Sequence[int],
    away: Float[Tensor, "_ all *space"],
    read: Place,
    bar: Progress,
) -> Float[Tensor, "b units read"]:
    """The means of every unit of a later place, with each unit of an earlier one at what stands for it.

    Only what lies between the two is run again, and nothing where a unit is as if off already.

    Args:
        away: what stands for the units, with the units second; one for all pictures, or one for each.
    """
    before, now = read.means(read.value.data), source.per_unit(source.value.data)
    found, away = before[:, None].expand(-1, len(units), -1).clone(), away.to(now).expand_as(now)
    live = (now != away).flatten(2).any(2) if now.dim() > 2 else now != away
    if len(units) <= trace.batch and not trace.reads:
        for number, unit in enumerate(units):
            if live[:, unit].any():
                found[:, number] = _all_at_once(trace, source, unit, away, read).to(found)
            bar.advance(trace.batch, f"units of {source.name}")
        return found
    pairs = [(row, number) for row in range(trace.batch) for number, unit in enumerate(units) if live[row, unit]]
    bar.advance(trace.batch * len(units) - len(pairs), f"units of {source.name}")
    if pairs:
        edits = Off(source, [(row, units[number]) for row, number in pairs], away)
        rows, numbers = (torch.tensor(column) for column in zip(*pairs, strict=True))
        found[rows, numbers] = answers(trace, edits, Means(read), place=source.value, progress=bar).values.to(found)
    return found


def _all_at_once(
    trace: Trace, source: Place, unit: int, away: Float[Tensor, "b units *space"], read: Place
) -> Float[Tensor, "b read"]:
    """One unit off in every picture of a recording: for a few units quicker than picture by picture."""
    data = source.value.data.clone()
    source.per_unit(data)[:, unit] = away[:, unit]
    after = replayed(trace, edits={source.value: data}, stop=read.value.position + 1)
    return read.means(after.get(read.value, read.value.data))


def fills(data: Pictures, first: Opened, name: str, fill: str) -> Float[Tensor, "1 units *ones"]:
    """What stands for a unit that is off: zero, or its own mean over all positions of all pictures."""
    at = place(first.trace, name)
    constants = means_of(data, first, [name])[0] if fill == "mean" else np.zeros(at.units)
    return torch.from_numpy(constants).view(1, -1, *[1] * (at.per_unit(at.value.data).dim() - 2))


def means_of(data: Pictures, first: Opened, names: Sequence[str]) -> list[Float64[np.ndarray, " units"]]:
    """Each unit's mean over all positions of all pictures, for several places."""
    tallies = [Tally() for _ in names]
    for _, now in recordings(data, first):
        for name, tally in zip(names, tallies, strict=True):
            at = place(now.trace, name)
            tally.add(at.means(at.value.data))
    return [tally.mean for tally in tallies]
