"""The effective field: the part of its theoretical field that moves a unit in fact."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Data
from pellucid.inside.fields.looking import Looked, looked, noise
from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import INPUT
from pellucid.inside.fields.results import EffectiveField
from pellucid.inside.fields.slopes import Task
from pellucid.inside.fields.spread import spread
from pellucid.inside.opened import Opened, Unit, opened
from pellucid.methods.pictures import seen as as_seen
from pellucid.methods.run import check_seed
from pellucid.models.model import Model


def effective_field(
    model: Model | nn.Module | str,
    unit: Unit | str,
    data: Data | None = None,
    *,
    position: Sequence[int] | None = None,
    squared: bool = False,
    samples: int = 100,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> EffectiveField:
    """The mean size of a unit's gradient at each pixel: `E_x Σ_c |∂a/∂x_c|`.

    Args:
        unit: `"LAYER:CHANNEL"`.
        data: pictures or inputs; noise of the network's input size where it is None.
        position: of the unit on its map; the middle where it is None.
        squared: `E_x Σ_c (∂a/∂x_c)²` instead.
        samples: so many inputs, spread evenly over the data.
        seed: of the noise.

    Returns:
        The field on the input, with σ, area, its part of the theoretical field, and the mass in the padding: the
        share that lies beyond the border when this field is laid at every position.

    Raises:
        LayerError: no such unit or position.
        ImageError: no picture can be read.

    Source: Luo, Li, Urtasun & Zemel 2016, "Understanding the effective receptive field", arXiv:1701.04128.
    """
    if samples < 1:
        raise SettingError(f"samples={samples} came; give at least 1")
    check_seed(seed)
    if data is None:
        asked = opened(model)
        asked, found = looked(asked.model, noise(tuple(asked.trace.inputs[0].shape[1:]), samples, seed))
    else:
        asked, found = looked(model, data, samples)
    chosen = asked.unit(unit)
    at = Looked(asked, found, chosen.layer, INPUT)
    with watching(progress) as bar, torch.inference_mode(False):
        bar.expect(len(found))
        sums = _summed(at, chosen, position, squared, bar)
    settings = {"squared": squared, "samples": samples, "seed": seed}
    return sums.result(at, chosen, _position(asked, chosen, position), data is None, settings)


def _position(asked: Opened, unit: Unit, given: Sequence[int] | None) -> tuple[int, ...]:
    """The middle where none is named.

    Raises:
        LayerError: there is no such position.
    """
    sides = asked.positions(unit.layer)
    if given is None:
        return tuple(n // 2 for n in sides)
    place = tuple(int(p) for p in given)
    if len(place) != len(sides) or any(not 0 <= p < n for p, n in zip(place, sides, strict=True)):
        raise LayerError(
            f'position {place} came; layer "{unit.layer}" has {" × ".join(map(str, sides)) or "no"} positions'
        )
    return place


@dataclass(eq=False)
class _Sums:
    """What adds up over pictures: in the window of the field, and over inputs of the first one's size."""

    field: Float[Tensor, "*size"]
    heat: Float[Tensor, "*space"]
    inside: float = 0.0
    everywhere: float = 0.0
    pictures: int = 0
    of_one_size: int = 0

    def add(self, size: Tensor, corner: tuple[int, ...]) -> None:
        """One picture's gradient."""
        window = patches(size[None], [corner], self.field.shape)[0][0, 0]
        self.field += window
        if size.shape == self.heat.shape:
            self.heat += size.cpu()
            self.of_one_size += 1
        self.inside, self.everywhere = self.inside + float(window.sum()), self.everywhere + float(size.sum())
        self.pictures += 1

    def result(
        self, at: Looked, unit: Unit, place: tuple[int, ...], on_noise: bool, settings: dict[str, Any]
    ) -> EffectiveField:
        """The means."""
        seen, asked, x = at.first.seen, at.asked, at.asked.trace.inputs[0].data
        field = (self.field / self.pictures).numpy()
        reached = tuple((c, c + s - 1) for c, s in zip(seen.corner(place), seen.size, strict=True))
        if any(a < 0 or b >= n for (a, b), n in zip(reached, seen.lengths, strict=True)):
            at.told("the field goes over the border of the input: its width is measured on the part that lies within")
        everywhere = seen.field.everywhere
        return EffectiveField(
            heat=(self.heat / self.of_one_size).numpy(),
            field=field,
            unit=unit,
            position=place,
            model=asked.model.name,
            reached=reached,
            spread=spread(field, seen.outside(field)),
            outside_fraction=max(0.0, 1 - self.inside / self.everywhere) if everywhere and self.everywhere else 0.0,
            everywhere=everywhere,
            pictures=self.pictures,
            on_noise=on_noise,
            settings=settings,
            shown=as_seen(x[0], asked.model.preprocess) if x.dim() == 4 else None,
            notes=tuple(at.notes),
        )


def _summed(at: Looked, unit: Unit, position: Sequence[int] | None, squared: bool, bar: Progress) -> _Sums:
    """Over the data; a picture of another size counts in the window of the field only."""
    first = at.first.seen
    sums = _Sums(torch.zeros(first.size, dtype=torch.float64), torch.zeros(first.lengths, dtype=torch.float64))
    for place, x in at.batches():
        if place is not at.first:
            at.told("pictures of several sizes came; the map on the input is that of the first size")
        spot = _position(place.asked, unit, position)
        tasks = [Task(row, unit.channel, (spot,)) for row in range(len(x))]
        for slope in place.slopes(x, tasks, at.told):
            size = slope.gradient.double()
            sums.add((size.square() if squared else size.abs()).sum(0), place.seen.corner(spot))
            bar.advance(1, "pictures")
    return sums
