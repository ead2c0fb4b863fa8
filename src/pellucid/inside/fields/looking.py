"""The data that a field is measured on: inputs of one size, a network opened on the first, positions to look at."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import ImageError, SettingError
from pellucid.core.watch import Watch
from pellucid.images.datasets import Data, Pictures, pictures
from pellucid.inside.fields.reach import INPUT, Reach, reach
from pellucid.inside.fields.slopes import Position, Slopes
from pellucid.inside.opened import Opened, opened
from pellucid.methods.pictures import home_of
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

BATCH, MOST_PLACES = 16, 8  # pictures a pass; sizes of pictures for which a recording is kept
Values = Callable[[Tensor], tuple[Tensor, Tensor]]


@dataclass(eq=False)
class Place:
    """A network opened on inputs of one size, and what the units of a layer see there."""

    asked: Opened
    seen: Reach

    @cached_property
    def slopes(self) -> Slopes:
        """Gradients of the layer's units."""
        return Slopes(self.asked, self.seen.target, self.seen.source)

    @cached_property
    def values(self) -> Values:
        """What the layer and its source give for inputs, channels second."""
        asked, source = self.asked, self.seen.source
        watch = Watch(asked.trace, [self.seen.target, *([] if source == INPUT else [source])])

        def values(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.no_grad():
                given = watch(x)
            sources = x if source == INPUT else asked.maps(source, given[1])
            return asked.maps(self.seen.target, given[0]), sources

        return values

    @cached_property
    def groups(self) -> list[list[Position]]:
        """All positions, those together whose fields don't overlap."""
        return self.seen.groups(self.seen.every())


@dataclass(eq=False)
class Looked:
    """Pictures, and a network opened on the first of them; sizes may differ.

    Attributes:
        asked: the network.
        data: the pictures.
        target, source: the layers between which it is looked.
        notes: what was done on the way.
    """

    asked: Opened
    data: Pictures
    target: str
    source: str
    notes: list[str] = field(default_factory=list)
    _places: dict[tuple[int, ...], Place] = field(default_factory=dict)

    @cached_property
    def first(self) -> Place:
        """Where the first picture is looked at."""
        return Place(self.asked, reach(self.asked, self.target, self.source))

    def batches(self) -> Iterator[tuple[Place, Float[Tensor, "b c *space"]]]:
        """A few pictures of one size at a time.

        Raises:
            ImageError: pictures of several sizes, and fields as large as the input.
        """
        home = home_of(self.asked.model.module)
        for _, x in self.data.batches(BATCH):
            yield self._place(x), x.to(home)
        if self.data.failed:
            self.told(f"{len(self.data.failed)} pictures could not be used and were passed over")

    def _place(self, x: Tensor) -> Place:
        shape = tuple(x.shape[1:])
        if shape == tuple(self.asked.trace.inputs[0].shape[1:]):
            return self.first
        if shape not in self._places:
            asked = opened(self.asked.model, x[:1])
            place = Place(asked, reach(asked, self.target, self.source))
            if place.seen.size != self.first.seen.size:
                raise ImageError(
                    f"inputs of {by(self.first.seen.lengths)} and {by(place.seen.lengths)} came, and the fields of "
                    f'"{self.target}" differ: {by(self.first.seen.size)} and {by(place.seen.size)}; give pictures of '
                    "one size, or a preprocessing that makes them so"
                )
            if len(self._places) >= MOST_PLACES:
                self._places.pop(next(iter(self._places)))
            self._places[shape] = place
        return self._places[shape]

    def told(self, words: str) -> None:
        """A note, once."""
        if words not in self.notes:
            self.notes.append(words)


def looked(model: Model | nn.Module | str, data: Data, most: int | None = None) -> tuple[Opened, Pictures]:
    """A network opened on the first picture of a data set that can be read, and the pictures.

    Args:
        most: so many pictures are taken, spread evenly, where there are more.

    Raises:
        ImageError: no picture can be read.
    """
    chosen = the_model(model)
    found = pictures(data, chosen.preprocess, limit=most)
    _, x = next(found.batches(1))
    return opened(chosen, x), found


def positions_of(seen: Reach, border: str, told: Callable[[str], None]) -> list[Position]:
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
        told(
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
