"""The best, worst and drawn pictures of all units of one layer, kept while a data set streams by."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pellucid.inside.exemplars.sketch import Sketch

AT_ONCE = 4096  # maps that are searched in one step
PER_STRATUM = 64  # pictures that are drawn for each stratum, before one of each is taken


@dataclass(frozen=True)
class Wanted:
    """How many pictures of each kind every unit keeps, and how its values are summarised."""

    top: int
    bottom: int
    random: int
    quantile_bins: int
    seed: int
    kept: int

    @property
    def drawn(self) -> int:
        """Pictures drawn at random, for themselves and for the strata."""
        return max(self.random, PER_STRATUM * self.quantile_bins)


@dataclass(eq=False)
class Chosen:
    """For each unit some pictures, in order: values, numbers of the pictures, places of the values on the map."""

    values: Float[Tensor, "u k"]
    numbers: Int64[Tensor, "u k"]
    places: Int64[Tensor, "u k"]

    @classmethod
    def none(cls, units: int) -> "Chosen":
        return cls(torch.empty(units, 0), torch.empty(units, 0).long(), torch.empty(units, 0).long())

    def joined(self, other: "Chosen") -> "Chosen":
        return Chosen(
            torch.cat([self.values, other.values], 1),
            torch.cat([self.numbers, other.numbers], 1),
            torch.cat([self.places, other.places], 1),
        )

    def taken(self, order: Int64[Tensor, "u k"]) -> "Chosen":
        return Chosen(*(part.gather(1, order) for part in (self.values, self.numbers, self.places)))

    def best(self, count: int, *, highest: bool) -> "Chosen":
        """The first ones by value; of equal values the lower number comes first, whatever order they came in."""
        by_number = self.taken(self.numbers.sort(dim=1, stable=True).indices)
        return by_number.taken(by_number.values.sort(dim=1, descending=highest, stable=True).indices[:, :count])


class Tally:
    """Everything that is kept about the units of one layer.

    A unit's value for a picture is the highest of its map; its place is the first of equals, row by row.

    Args:
        units: how many units are watched.
        wanted: what to keep.
    """

    def __init__(self, units: int, wanted: Wanted) -> None:
        self.units, self.wanted = units, wanted
        self.top, self.bottom, self.drawn = (Chosen.none(units) for _ in range(3))
        self.highest = torch.full((units,), -torch.inf)
        self.sketch = Sketch(units, wanted.seed, wanted.kept)
        self.peaks = Sketch(units, wanted.seed + 1, wanted.kept)

    def add(self, numbers: list[int], maps: Float[Tensor, "b u n"], step: int = 1) -> None:
        """Count some pictures.

        Args:
            numbers: which pictures of the data set.
            maps: what the units give, positions in one row.
            step: every how manyth position goes into the distribution of values.
        """
        peaks = maps.amax(2)
        if bool(torch.isnan(peaks).any()):
            maps = torch.where(torch.isnan(maps), -torch.inf, maps)
            peaks = maps.amax(2)
        for picture in _thinned(maps, numbers, step, self.wanted.seed):
            self.sketch.add(picture)
        peaks = peaks.T.to(torch.promote_types(peaks.dtype, torch.float32)).cpu()
        self.peaks.add(peaks)
        self.highest = torch.maximum(self.highest, peaks.amax(1))
        which = torch.tensor(numbers).expand(self.units, -1)
        finder = _Places(maps)
        self.top = self._better(self.top, peaks, which, finder, self.wanted.top, highest=True)
        self.bottom = self._better(self.bottom, peaks, which, finder, self.wanted.bottom, highest=False)
        self._draw(peaks, numbers, finder)

    def _better(
        self, kept: Chosen, peaks: Tensor, which: Tensor, finder: "_Places", count: int, *, highest: bool
    ) -> Chosen:
        """What is kept, with those of the new pictures that belong to it."""
        if count == 0:
            return kept
        unknown = torch.full_like(which, -1)
        found = kept.joined(Chosen(peaks, which, unknown)).best(count, highest=highest)
        fresh = (found.places < 0).nonzero()
        if len(fresh):
            ordered = which[0].sort()
            rank = torch.searchsorted(ordered.values, found.numbers[fresh[:, 0], fresh[:, 1]])
            found.places[fresh[:, 0], fresh[:, 1]] = finder(ordered.indices[rank], fresh[:, 0])
        return found

    def _draw(self, peaks: Tensor, numbers: list[int], finder: "_Places") -> None:
        """Keep the pictures whose lots are lowest; a lot depends on seed and number alone."""
        count = self.wanted.drawn
        if count == 0:
            return
        mine = self.drawn.numbers[0].tolist() if self.drawn.numbers.shape[1] else []
        lots = {n: lot(self.wanted.seed, n) for n in (*mine, *numbers)}
        keep = sorted(lots, key=lambda n: (lots[n], n))[:count]
        old = [i for i, n in enumerate(mine) if n in keep]
        new = [i for i, n in enumerate(numbers) if n in keep]
        images = torch.tensor(new, dtype=torch.long)
        units = torch.arange(self.units)
        places = finder(images.repeat(self.units), units.repeat_interleave(len(new))).view(self.units, -1)
        fresh = Chosen(peaks[:, images], torch.tensor(numbers)[images].expand(self.units, -1), places)
        kept = Chosen(self.drawn.values[:, old], self.drawn.numbers[:, old], self.drawn.places[:, old]).joined(fresh)
        order = sorted(range(kept.numbers.shape[1]), key=lambda i: lots[int(kept.numbers[0, i])])
        self.drawn = kept.taken(torch.tensor(order, dtype=torch.long).expand(self.units, -1))

    def state(self) -> tuple[dict[str, Tensor], dict[str, Any]]:
        """Everything, as tensors and JSON values."""
        tensors = {"highest": self.highest}
        for name in ("top", "bottom", "drawn"):
            chosen: Chosen = getattr(self, name)
            tensors |= {f"{name}.{k}": getattr(chosen, k) for k in ("values", "numbers", "places")}
        facts: dict[str, Any] = {}
        for name in ("sketch", "peaks"):
            more, facts[name] = getattr(self, name).state()
            tensors |= {f"{name}.{k}": tensor for k, tensor in more.items()}
        return tensors, facts

    @classmethod
    def of(cls, units: int, wanted: Wanted, tensors: dict[str, Tensor], facts: dict[str, Any]) -> "Tally":
        """What `state` gave."""
        found = cls(units, wanted)
        found.highest = tensors["highest"]
        for name in ("top", "bottom", "drawn"):
            setattr(found, name, Chosen(*(tensors[f"{name}.{k}"] for k in ("values", "numbers", "places"))))
        for name in ("sketch", "peaks"):
            mine = {k.removeprefix(f"{name}."): t for k, t in tensors.items() if k.startswith(f"{name}.")}
            setattr(found, name, Sketch.of(units, mine, facts[name]))
        return found

    def strata(self, unit: int) -> list[int]:
        """Columns of `drawn`: one picture for each of the strata of equal numbers of pictures, lowest values first.

        Of N pictures ranked by value, stratum b of m holds the ranks ⌊bN/m⌋ to ⌊(b+1)N/m⌋ − 1; each gives the picture
        whose lot was lowest. Where not all pictures are among those drawn, ranks come from the sketch.
        """
        bins, total = self.wanted.quantile_bins, self.peaks.count
        values, numbers = self.drawn.values[unit].numpy(), self.drawn.numbers[unit].numpy()
        if len(values) == total:
            ranks = np.empty(total, int)
            ranks[np.lexsort((numbers, values))] = np.arange(total)
        else:
            ranks = np.minimum(self.peaks.below(unit, values) * total, total - 1).astype(int)
        found = dict[int, int]()
        for column, rank in enumerate(ranks.tolist()):
            found.setdefault(_stratum(rank, bins, total), column)
        return [found[b] for b in sorted(found)]


def _stratum(rank: int, bins: int, total: int) -> int:
    """b with ⌊bN/m⌋ ≤ rank < ⌊(b+1)N/m⌋."""
    return ((rank + 1) * bins - 1) // total


class _Places:
    """Where on its map a unit is highest, looked up only where somebody asks."""

    def __init__(self, maps: Float[Tensor, "b u n"]) -> None:
        self.maps = maps

    def __call__(self, images: Int64[Tensor, "m"], units: Int64[Tensor, "m"]) -> Int64[Tensor, "m"]:
        if self.maps.shape[2] == 1:
            return torch.zeros_like(images)
        home, parts = self.maps.device, zip(images.split(AT_ONCE), units.split(AT_ONCE), strict=True)
        found = [self.maps[i.to(home), u.to(home)].argmax(1).cpu() for i, u in parts]
        return torch.cat(found) if found else images


def _thinned(maps: Float[Tensor, "b u n"], numbers: list[int], step: int, seed: int) -> Float[Tensor, "b u m"]:
    """Every step-th position of each picture; where it starts depends on seed and picture alone."""
    if step == 1:
        return maps
    whole = maps.shape[2] // step
    spare = maps.shape[2] - whole * step
    lots = [lot(seed, n) for n in numbers]
    starts = torch.tensor([one % step + (one >> 32) % (spare + 1) for one in lots], device=maps.device)
    places = starts[:, None] + step * torch.arange(whole, device=maps.device)
    return maps.gather(2, places[:, None].expand(-1, maps.shape[1], -1))


def lot(seed: int, number: int) -> int:
    """A number in 0 … 2⁶⁴ − 1 that stands for chance: the same for the same seed and picture (SplitMix64)."""
    z = (seed * 0xD1342543DE82EF95 + (number + 1) * 0x9E3779B97F4A7C15) % 2**64
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % 2**64
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % 2**64
    return z ^ (z >> 31)
