"""Where a made picture stands among the pictures of a data set, and how it looks beside them."""

from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pellucid.core.errors import SettingError
from pellucid.render.fitting import fitted
from pellucid.render.sheet import Panel, sheet

if TYPE_CHECKING:
    from pellucid.inside.exemplars.result import Exemplars
    from pellucid.inside.optimise.optimised import Optimised

PATCH_PX = 144


def percentiles(found: "Optimised", exemplars: Any) -> list[float]:
    """For each picture the part of the data, in percent, whose highest value on the unit's map is below the picture's.

    Args:
        exemplars: `Exemplars`; or one array of values per picture, the highest value of its unit on each data picture.

    Raises:
        SettingError: a picture was not made for one unit, or the number of arrays is another.
    """
    units = [_unit(found, i) for i in range(len(found))]
    if hasattr(exemplars, "percentile"):
        return [exemplars.percentile(u, p, of="pictures") for u, p in zip(units, found.peaks, strict=True)]
    if len(exemplars) != len(found):
        raise SettingError(f"{len(exemplars)} arrays of values came for {len(found)} pictures")
    return [100 * float((np.asarray(v) < peak).mean()) for v, peak in zip(exemplars, found.peaks, strict=True)]


def sheet_beside(found: "Optimised", exemplars: "Exemplars", count: int) -> Image.Image:
    """One row per picture: the picture, then the patches of the data that excite its unit most."""
    from pellucid.inside.exemplars.drawing import crop_panel

    shares = percentiles(found, exemplars)
    rows: list[list[Panel]] = []
    for i, image in enumerate(found.images()):
        words = (found.names[i], f"peak {found.peaks[i]:.3g}", f"above {shares[i]:.4g} %")
        own = exemplars.of(_unit(found, i))
        patches = [crop_panel(own, one, one.name, PATCH_PX) for one in own.top[:count]]
        rows.append([(fitted(image, PATCH_PX), words), *patches])
    return sheet(f"{found.model}: made pictures, and what excites the units most in the data", [], rows)


def _unit(found: "Optimised", number: int) -> Any:
    unit = found.units[number]
    if unit is None:
        raise SettingError(f'"{found.names[number]}" is not one unit, so the data say nothing about where it stands')
    return unit
