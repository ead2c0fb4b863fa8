"""Where a made picture stands among the pictures of a data set, and how it looks beside them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pellucid.core.errors import SettingError
from pellucid.render.sheet import Panel, sheet

if TYPE_CHECKING:
    from pellucid.inside.optimise.optimised import Optimised

PATCH_PX = 112


def percentiles(found: "Optimised", exemplars: Any) -> list[float]:
    """For each picture the part of the data, in percent, whose highest value on the unit's map is below the picture's.

    Args:
        exemplars: anything with `of(unit)` that gives a `histogram`, counts and edges; or one array of values per
            picture, the highest value of the unit on each data picture.

    Raises:
        SettingError: a picture was not made for one unit, or the number of arrays is another.
    """
    if hasattr(exemplars, "of"):
        histograms = [exemplars.of(_unit(found, i)).histogram for i in range(len(found))]
        return [_in_histogram(h[0], h[1], peak) for h, peak in zip(histograms, found.peaks, strict=True)]
    if len(exemplars) != len(found):
        raise SettingError(f"{len(exemplars)} arrays of values came for {len(found)} pictures")
    _ = [_unit(found, i) for i in range(len(found))]
    return [100 * float((np.asarray(v) < peak).mean()) for v, peak in zip(exemplars, found.peaks, strict=True)]


def sheet_beside(found: "Optimised", exemplars: Any, count: int) -> Image.Image:
    """One row per picture: the picture, then the patches of the data that excite its unit most."""
    from pellucid.inside.optimise.optimised import enlarged

    shares = percentiles(found, exemplars)
    rows: list[list[Panel]] = []
    for i, image in enumerate(found.images()):
        words = (found.names[i], f"highest {found.peaks[i]:.3g}, above {shares[i]:.4g} % of the data")
        row: list[Panel] = [(enlarged(image, PATCH_PX), words)]
        own = exemplars.of(_unit(found, i))
        for one in own.top[:count]:
            row.append((enlarged(own.crop(one), PATCH_PX), (str(one.name), f"{one.value:.3g}")))
        rows.append(row)
    return sheet(f"{found.title} beside what excites the units most in the data: {found.model}", [], rows)


def _unit(found: "Optimised", number: int) -> Any:
    unit = found.units[number]
    if unit is None:
        raise SettingError(f'"{found.names[number]}" is not one unit, so the data say nothing about where it stands')
    return unit


def _in_histogram(counts: Any, edges: Any, value: float) -> float:
    """Percent below a value, linear inside a bin."""
    counts, edges = np.asarray(counts, float), np.asarray(edges, float)
    below = np.concatenate([[0.0], counts.cumsum()])
    return 100 * float(np.interp(value, edges, below)) / max(float(counts.sum()), 1.0)
