"""Where the values of each channel lie over a data set: streamed once, in bounded memory."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor

from pellucid.core.errors import ImageError, LayerError
from pellucid.core.progress import Progress, watching
from pellucid.core.watch import Watch
from pellucid.images.datasets import pictures
from pellucid.inside.exemplars.result import Exemplars
from pellucid.inside.exemplars.unit import UnitExemplars
from pellucid.inside.opened import Opened, Unit, untaken
from pellucid.methods.pictures import home_of

LOWER, UPPER = 0.001, 0.999
BINS = 1024
BATCH = 8


@dataclass(frozen=True, eq=False)
class Spread:
    """The distribution of every channel of one layer over all positions of all pictures.

    Attributes:
        low, high: the 0.1 and the 99.9 percentile; from histograms right to a bin, at most 1/512 of the channel's
            range, from `Exemplars` as right as they say.
        alive: whether the channel is other than zero anywhere.
        rank: `(channel, value)` -> the fraction of the data set's values that lie below, as right as the percentiles.
        pictures: how many were asked.
    """

    low: Float64[np.ndarray, "c"]
    high: Float64[np.ndarray, "c"]
    alive: Bool[np.ndarray, "c"]
    rank: Callable[[int, float], float]
    pictures: int


def spreads(inside: Opened, names: Sequence[str], data: Any, progress: Progress | bool | None) -> dict[str, Spread]:
    """The spread of each layer over a data set, in one pass; memory does not grow with the number of pictures.

    Args:
        data: whatever `images.datasets.pictures` takes; or `Exemplars`, which hold percentiles already.

    Raises:
        ImageError: no picture of the data set can be read.
        LayerError: the exemplars are of other layers.
        ModelError, TraceError: the network can't take a picture of the data.
    """
    if isinstance(data, Exemplars):
        return _gathered(inside, names, data)
    given = pictures(data, inside.model.preprocess)
    watch, count = Watch(inside.trace, names), 0
    found = {name: Histograms(inside.units(name)) for name in names}
    with watching(progress) as bar, torch.no_grad():
        bar.expect(len(given))
        for numbers, x in given.batches(BATCH):
            try:
                outputs = watch(x.to(home_of(inside.model.module)))
            except RuntimeError as error:
                raise untaken(inside.model, x, error) from error
            for name, output in zip(names, outputs, strict=True):
                found[name].add(_by_channel(inside, name, output, len(x)))
            count += len(numbers)
            bar.advance(len(numbers), "how channels behave over the data set")
    if not count:
        why = next(iter(given.failed.values()), "it is empty")
        raise ImageError(f"no picture of the data set can be used: {why}")
    return {name: one.spread(count) for name, one in found.items()}


def _gathered(inside: Opened, names: Sequence[str], found: Exemplars) -> dict[str, Spread]:
    """What exemplars say of those layers all of whose units they have watched."""
    known = [name for name in names if found.channels.get(name) == list(range(inside.units(name)))]
    if not known:
        watched = ", ".join(found.channels)
        raise LayerError(f"the exemplars are of {watched}; gather those of all units of {', '.join(names[:3])}")
    return {name: _from_units([found.of(Unit(name, c)) for c in found.channels[name]], found.read) for name in known}


def _from_units(units: Sequence[UnitExemplars], pictures: int) -> Spread:
    ends = np.array([[unit.quantile(q) for q in (LOWER, UPPER)] for unit in units])
    alive = np.array([unit.highest > 0 or unit.quantile(0.0) < 0 for unit in units])
    return Spread(ends[:, 0], ends[:, 1], alive, lambda c, value: units[c].percentile(value) / 100, pictures)


def _by_channel(inside: Opened, name: str, output: Tensor, images: int) -> Float[Tensor, "c n"]:
    if len(output) != images:
        raise LayerError(f'layer "{name}" mixes the pictures of a batch; leave it out of layers=')
    return inside.maps(name, output).movedim(1, 0).flatten(1)


class Histograms:
    """One histogram of 1024 bins for each channel, whose range doubles, bins merged in pairs, when values lie outside.

    Example:
        >>> one = Histograms(1)
        >>> for start in (0, 100):
        ...     one.add(torch.arange(start, start + 100.0)[None])
        >>> one.counts.sum().item(), (one.low <= 0).item(), (one.high >= 199).item()
        (199, True, True)
    """

    def __init__(self, channels: int) -> None:
        self.counts = torch.zeros(channels, BINS, dtype=torch.int64)
        self.low = self.high = self.least = self.most = torch.empty(0)
        self.zeros = torch.zeros(channels, dtype=torch.int64)

    def add(self, values: Float[Tensor, "c n"]) -> None:
        """Count further values; those that are not finite are left out."""
        values = values.detach().double().cpu()
        usual = torch.isfinite(values)
        least, most = (
            torch.where(usual, values, end).aminmax(dim=1)[k] for k, end in enumerate((torch.inf, -torch.inf))
        )
        none = ~usual.any(1)
        self._begin(least.where(~none, 0), most.where(~none, 0))
        self._widen(least.where(~none, self.low), most.where(~none, self.low))
        self.least, self.most = torch.minimum(self.least, least), torch.maximum(self.most, most)
        self.zeros += (values == 0).sum(1)
        usual &= values != 0
        place = ((values - self.low[:, None]) / (self.high - self.low)[:, None] * BINS).nan_to_num().long()
        place = place.clamp(0, BINS - 1) + BINS * torch.arange(len(values))[:, None]
        self.counts += torch.bincount(place[usual], minlength=self.counts.numel()).view_as(self.counts)

    def spread(self, pictures: int) -> Spread:
        """What was found; exact zeros, the most frequent value behind a rectifier, are no part of any bin."""
        total = (self.counts.sum(1) + self.zeros).clamp(min=1)
        edges = torch.lerp(self.low[:, None], self.high[:, None], torch.linspace(0, 1, BINS + 1).double()).numpy()
        below = (torch.nn.functional.pad(self.counts.cumsum(1), (1, 0)) / total[:, None]).numpy()
        zeros = (self.zeros / total).numpy()

        def rank(channel: int, value: float) -> float:
            return float(np.interp(value, edges[channel], below[channel]) + zeros[channel] * (value > 0))

        def at(channel: int, q: float) -> float:
            negative = np.interp(0.0, edges[channel], below[channel])
            if negative < q <= negative + zeros[channel]:
                return 0.0
            return float(np.interp(q - zeros[channel] * (q > negative), below[channel], edges[channel]))

        ends = np.array([[at(c, q) for q in (LOWER, UPPER)] for c in range(len(edges))])
        low, high = (np.clip(ends[:, k], self.least.numpy(), self.most.numpy()) for k in (0, 1))
        return Spread(low, high, (self.counts.sum(1) > 0).numpy(), rank, pictures)

    def _begin(self, least: Tensor, most: Tensor) -> None:
        if len(self.low):
            return
        room = (most - least).clamp(min=torch.finfo(torch.float32).eps).maximum(1e-6 * least.abs())
        self.low, self.high, self.least, self.most = least, least + room, least.clone(), most.clone()

    def _widen(self, least: Tensor, most: Tensor) -> None:
        """Double the ranges that are too narrow until every value lies inside."""
        while (above := most > self.high).any() or (least < self.low).any():
            below = (least < self.low) & ~above
            pairs = self.counts.view(len(self.counts), -1, 2).sum(2)
            nothing = torch.zeros_like(pairs)
            up, down = torch.cat([pairs, nothing], 1), torch.cat([nothing, pairs], 1)
            self.counts = torch.where(above[:, None], up, torch.where(below[:, None], down, self.counts))
            room = self.high - self.low
            self.high, self.low = self.high + room * above, self.low - room * below
