"""The data that a field is measured on: inputs of one size, a network opened on the first, positions to look at."""

from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import ImageError, SettingError
from pellucid.images.datasets import Data, Pictures, pictures
from pellucid.inside.fields.reach import Reach
from pellucid.inside.fields.slopes import Position
from pellucid.inside.opened import Opened, opened, the_model
from pellucid.methods.pictures import home_of
from pellucid.models.model import Model

BATCH = 16


@dataclass(eq=False)
class Looked:
    """Inputs of one size, and a network opened on the first of them.

    Attributes:
        asked: the network.
        data: the pictures.
        notes: what was done on the way.
    """

    asked: Opened
    data: Pictures
    notes: list[str] = field(default_factory=list)

    def inputs(self) -> Iterator[Float[Tensor, "b c *space"]]:
        """A few at a time.

        Raises:
            ImageError: inputs of several sizes.
        """
        home, shape = home_of(self.asked.model.module), tuple(self.asked.trace.inputs[0].shape[1:])
        for _, x in self.data.batches(BATCH):
            if tuple(x.shape[1:]) != shape:
                raise ImageError(
                    f"inputs of shape {shape} and {tuple(x.shape[1:])} came; positions are those of one size, so give "
                    "pictures of one size or a preprocessing that makes them so"
                )
            yield x.to(home)
        if self.data.failed:
            self.told(f"{len(self.data.failed)} pictures could not be read and were passed over")

    def told(self, words: str) -> None:
        """A note, once."""
        if words not in self.notes:
            self.notes.append(words)


def looked(model: Model | nn.Module | str, data: Data, most: int | None = None) -> Looked:
    """A network opened on the first picture of a data set that can be read.

    Args:
        most: so many pictures are taken, spread evenly, where there are more.

    Raises:
        ImageError: no picture can be read.
    """
    chosen = the_model(model)
    found = pictures(data, chosen.preprocess, limit=most)
    _, x = next(found.batches(1))
    return Looked(opened(chosen, x), found)


def positions_of(seen: Reach, border: str, told: list[str]) -> list[Position]:
    """The positions that are looked at.

    Raises:
        SettingError: an unknown way to treat the border.
    """
    if border not in ("exclude", "count"):
        raise SettingError(f'border="{border}" came; expected "exclude" or "count"')
    every = seen.every()
    inside = [p for p in every if seen.inside(p)]
    if border == "exclude" and inside:
        return inside
    if border == "exclude":
        told.append(
            f"no position's whole field, {by(seen.size)}, lies within {by(seen.lengths)}: all positions are counted, "
            "and what lies in the padding gives nothing"
        )
    return every


def by(sides: tuple[int, ...]) -> str:
    """Sides as people write them.

    Example:
        >>> by((3, 5))
        '3 × 5'
    """
    return " × ".join(map(str, sides))


def drawn(items: list, most: int, random: np.random.Generator) -> list:
    """At most so many of a list, in order."""
    if len(items) <= most:
        return items
    return [items[i] for i in np.sort(random.choice(len(items), most, replace=False))]


def noise(shape: tuple[int, ...], count: int, seed: int) -> Float[Tensor, "n ..."]:
    """Gaussian noise as inputs."""
    return torch.randn(count, *shape, generator=torch.Generator().manual_seed(seed))
