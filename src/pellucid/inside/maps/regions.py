"""Key points of a layer and the regions around them, by the energy of its positions."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float

from pellucid.core.errors import SettingError
from pellucid.core.fields import Box

LEVEL = 0.5  # a region holds what is at least this far up from the least energy to its key point's


@dataclass(frozen=True, eq=False)
class Region:
    """One active place of a layer.

    Attributes:
        position: the key point on the layer's grid: the position of the largest energy outside earlier regions.
        energy: `‖A‖₂` over the channels there.
        mask: the positions of the region, on the layer's grid.
        vector: the mean of every channel over the region.
        box: the pixels of the input that the key point can see: first, and one behind the last, along each axis.
    """

    position: tuple[int, ...]
    energy: float
    mask: Bool[np.ndarray, "*space"]
    vector: Float[np.ndarray, "c"]
    box: Box

    def __repr__(self) -> str:
        return f"Region({self.position}, energy {self.energy:.3g}, {int(self.mask.sum())} positions)"


def masks(
    energy: Float[np.ndarray, "*space"], count: int, level: int | float = LEVEL
) -> list[tuple[tuple[int, ...], Bool[np.ndarray, "*space"]]]:
    """Key points in falling order of energy, each with the connected positions around it.

    Args:
        level: how far up from the least energy to the key point's a position must be to belong to its region.

    Raises:
        SettingError: count below 1, or a level outside (0, 1].
    """
    if count < 1 or not 0 < level <= 1:
        raise SettingError(f"count={count}, level={level} came; ask for at least 1 region at a level in (0, 1]")
    usual = np.isfinite(energy)
    left, found, least = np.where(usual, energy, 0.0), [], float(energy[usual].min(initial=np.inf))
    while len(found) < count and left.max() > 0:
        point = np.unravel_index(int(left.argmax()), left.shape)
        mask = _connected(left >= least + level * (left[point] - least), point)
        found.append((tuple(int(p) for p in point), mask))
        left = np.where(mask, 0.0, left)
    return found


def _connected(allowed: Bool[np.ndarray, "*space"], start: tuple[np.intp, ...]) -> Bool[np.ndarray, "*space"]:
    """The allowed positions that can be reached from one of them, going along the axes."""
    found = np.zeros_like(allowed)
    found[start] = True
    while True:
        grown = found.copy()
        for axis in range(found.ndim):
            front, back = (np.moveaxis(a, axis, 0) for a in (grown, found))
            front[1:] |= back[:-1]
            front[:-1] |= back[1:]
        grown &= allowed
        if (grown == found).all():
            return found
        found = grown
