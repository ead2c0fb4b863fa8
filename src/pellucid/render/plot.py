"""An explanation in matplotlib axes."""

from typing import TYPE_CHECKING

import numpy as np

from pellucid.core.errors import MissingExtraError
from pellucid.render.colours import DIVERGING, SEQUENTIAL
from pellucid.render.explanation import Explanation

if TYPE_CHECKING:
    from matplotlib.axes import Axes

_LONGEST_PX = 1024


def plot(explanation: Explanation, ax: "Axes | None" = None) -> "Axes":
    """Draws picture, heat and colour bar; makes axes if none are given, and never shows a window.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib import pyplot
        from matplotlib.cm import ScalarMappable
        from matplotlib.colors import ListedColormap, Normalize
    except ImportError as error:
        raise MissingExtraError("matplotlib", "plot", "Explanation.plot") from error
    ax = pyplot.subplots()[1] if ax is None else ax
    height, width = explanation.picture.size_px
    ax.imshow(np.asarray(explanation.overlay(longest_px=_LONGEST_PX)), extent=(0, width, height, 0))
    table = DIVERGING if explanation.diverging else SEQUENTIAL
    low, high = explanation.limits()
    colours = ScalarMappable(Normalize(low, high), ListedColormap(table[:, :3] / 255))
    ax.figure.colorbar(colours, ax=ax, label=explanation.units or "heat")
    ax.set_title(f"{explanation.title}: {explanation.target}")
    ax.set_axis_off()
    return ax
