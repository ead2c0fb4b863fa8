"""The effective field: the part of its theoretical field that moves a unit in fact."""

from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Data
from pellucid.inside.fields.looking import Looked, looked, noise
from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import Reach, reach
from pellucid.inside.fields.results import EffectiveField
from pellucid.inside.fields.slopes import Slopes, Task
from pellucid.inside.fields.spread import spread
from pellucid.inside.opened import Opened, Unit, opened
from pellucid.methods.pictures import seen as as_seen
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
    if data is None:
        asked = opened(model)
        inputs = noise(tuple(asked.trace.inputs[0].shape[1:]), samples, seed)
        at = looked(asked.model, inputs)
    else:
        at = looked(model, data, samples)
    chosen = at.asked.unit(unit)
    seen = reach(at.asked, chosen.layer)
    place = _position(at.asked, chosen, position)
    with watching(progress) as bar:
        bar.expect(len(at.data))
        heat, count = _heat(at, chosen, place, squared, bar)
    settings = {"squared": squared, "samples": samples, "seed": seed}
    return _result(at, chosen, place, seen, heat, count, data is None, settings)


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


def _heat(at: Looked, unit: Unit, place: tuple[int, ...], squared: bool, bar: Progress) -> tuple[np.ndarray, int]:
    """The mean over the data, on the input."""
    slopes, total, count = Slopes(at.asked, unit.layer), None, 0
    for x in at.inputs():
        for slope in slopes(x, [Task(row, unit.channel, (place,)) for row in range(len(x))], at.told):
            size = slope.gradient.double()
            size = (size.square() if squared else size.abs()).sum(0)
            total, count = size if total is None else total + size, count + 1
            bar.advance(1, "pictures")
    assert total is not None, "one picture at least was read"
    return (total / count).cpu().numpy(), count


def _result(
    at: Looked,
    unit: Unit,
    place: tuple[int, ...],
    seen: Reach,
    heat: np.ndarray,
    count: int,
    on_noise: bool,
    settings: dict,
) -> EffectiveField:
    corner = seen.corner(place)
    field = patches(torch.from_numpy(heat)[None], [corner], seen.size)[0][0, 0].numpy()
    inside, total = float(field.sum()), float(heat.sum())
    reached = tuple((c, c + s - 1) for c, s in zip(corner, seen.size, strict=True))
    asked, x = at.asked, at.asked.trace.inputs[0].data
    cut_off = any(a < 0 or b >= n for (a, b), n in zip(reached, seen.lengths, strict=True))
    if cut_off:
        at.told("the field goes over the border of the input, so its width is measured on the part that lies within")
    return EffectiveField(
        heat=heat,
        field=field,
        unit=unit,
        position=place,
        model=asked.model.name,
        reached=reached,
        spread=spread(field, seen.outside(field)),
        outside_fraction=max(0.0, 1 - inside / total) if total > 0 and seen.field.everywhere else 0.0,
        everywhere=seen.field.everywhere,
        pictures=count,
        on_noise=on_noise,
        settings=settings,
        shown=as_seen(x[0], asked.model.preprocess) if x.dim() == 4 else None,
        notes=tuple(at.notes),
    )
