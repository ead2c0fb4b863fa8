"""The value: a picture cut into regions."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property

import torch
from jaxtyping import Bool, Int64, Shaped
from torch import Tensor

from pellucid.core.edits import Box
from pellucid.core.errors import SettingError


@dataclass(frozen=True, eq=False)
class Regions:
    """The regions of one picture; `regions(…)` makes them from anything else.

    Attributes:
        labels: int64, the region of each pixel, 0 to count - 1, each of them somewhere; -1 where there is none. On the
            CPU.
        kind: how they were made: grid, slic, felzenszwalb, quickshift, labels or mask.
        names: one for each region; their numbers by default.
        notes: what was done on the way, one sentence each.

    Raises:
        SettingError: the labels are not such numbers, or the names are not as many.
    """

    labels: Shaped[Tensor, "*space"]
    kind: str = "labels"
    names: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if self.labels.dtype is not torch.int64 or self.labels.dim() == 0 or not bool((self.labels >= 0).any()):
            raise SettingError(
                f"labels of {self.labels.dtype} and shape {tuple(self.labels.shape)} came, the largest below 0 or not "
                "whole; regions need whole numbers from 0, and a pixel in at least one"
            )
        if int(self.labels.min()) < -1 or 0 in self.sizes:
            raise SettingError(
                "labels must run from 0 without a gap, with -1 for none; regions(labels, pixels) does it"
            )
        object.__setattr__(self, "labels", self.labels.detach().cpu())
        object.__setattr__(self, "names", self.names or tuple(map(str, range(self.count))))
        if len(self.names) != self.count:
            raise SettingError(f"{len(self.names)} names came for {self.count} regions; give one for each")

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Pixels of each region."""
        return tuple(torch.bincount(self.labels[self.labels >= 0].cpu()).tolist())

    @property
    def count(self) -> int:
        return len(self.sizes)

    def masks(self) -> Bool[Tensor, "regions *space"]:
        """One mask for each region, True inside it."""
        return self.labels == torch.arange(self.count).view(-1, *[1] * self.labels.dim())

    def boxes(self) -> tuple[Box, ...]:
        """The smallest box around each region: (start, stop) along every axis."""
        known = self.labels >= 0
        of, spans = self.labels[known], []
        for place in known.nonzero().unbind(1):
            low = torch.full((self.count,), int(place.max())).scatter_reduce(0, of, place, "amin")
            high = torch.zeros(self.count, dtype=torch.int64).scatter_reduce(0, of, place + 1, "amax")
            spans.append(zip(low.tolist(), high.tolist(), strict=True))
        return tuple(zip(*spans, strict=True))

    def __repr__(self) -> str:
        size = " x ".join(map(str, self.labels.shape))
        sizes = f"{min(self.sizes)} to {max(self.sizes)} px" if self.count > 1 else f"{self.sizes[0]} px"
        return f"Regions({self.kind}, {self.count} of {sizes}, on {size})"


def numbered(
    labels: Int64[Tensor, "*space"], kind: str, names: Mapping[int, str] | None = None, notes: tuple[str, ...] = ()
) -> Regions:
    """Regions from any labels: gaps are closed, whatever is below 0 becomes -1.

    Args:
        names: by label; a label without one keeps its number as name.
    """
    known, places = torch.unique(labels, return_inverse=True)
    below = int((known < 0).sum())
    kept = known[below:].tolist()
    words = tuple((names or {}).get(label, str(label)) for label in kept)
    return Regions((places - below).clamp(min=-1), kind, words, notes)
