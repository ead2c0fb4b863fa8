"""Where the network's input lies on the original picture, and how a heat map is laid back there."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from math import ceil, floor, isfinite
from typing import Any, TypeVar

import numpy as np
from jaxtyping import Float, Float32

from pellucid.core.errors import SettingError

Coordinate = TypeVar("Coordinate", float, np.ndarray)

_BLOCK_PX = 1 << 20  # pixels placed at a time, to bound the double-precision workspace


@dataclass(frozen=True)
class Placement:
    """Where the network's input lies on the original picture.

    Coordinates are continuous: pixel i covers [i, i + 1) and its centre is i + 0.5.

    Attributes:
        original_px: height and width of the original picture.
        input_px: height and width of the network's input.
        box: top, left, bottom, right of the input in original pixels; beyond the picture where padding was used.
    """

    original_px: tuple[int, int]
    input_px: tuple[int, int]
    box: tuple[float, float, float, float]

    def __post_init__(self) -> None:
        top, left, bottom, right = self.box
        if min(*self.original_px, *self.input_px) < 1 or not all(map(isfinite, self.box)):
            raise SettingError(f"a placement needs sizes of at least 1 px and a finite box, not {self}")
        if bottom <= top or right <= left:
            raise SettingError(f"a placement needs a box (top, left, bottom, right) with an inside, not {self.box}")

    @classmethod
    def identity(cls, h: int, w: int) -> "Placement":
        """The input is the whole picture, unscaled."""
        return cls((h, w), (h, w), (0.0, 0.0, float(h), float(w)))

    def place(self, heat: Float[np.ndarray, "a b"], smooth: bool = True) -> Float32[np.ndarray, "H W"]:
        """Lay a heat map over the original picture; linear in `heat`, and constants stay constant.

        Pixel centre y falls on grid coordinate g = (y - top) a / (bottom - top) - 1/2.

        Args:
            heat: any grid of equal cells that together cover the whole input.
            smooth: interpolate bilinearly between cell centres, held constant beyond the outermost (torch's
                `align_corners=False`; averaged like torch's `antialias=True` along a side where the grid is finer than
                the picture); otherwise every pixel shows the cell it lies in.

        Returns:
            Heat on the original grid, NaN where the network saw nothing.

        Raises:
            SettingError: `heat` is not a grid of rows and columns.
        """
        if heat.ndim != 2 or 0 in heat.shape:
            raise SettingError(f"a heat map to place has rows and columns, not shape {heat.shape}")
        top, left, bottom, right = self.box
        rows = _inside(top, bottom, self.original_px[0])
        columns = _inside(left, right, self.original_px[1])
        down = _taps(top, bottom, rows, heat.shape[0], smooth)
        across = _taps(left, right, columns, heat.shape[1], smooth)
        placed = np.full(self.original_px, np.nan, np.float32)
        stretched = _mix(heat.T.astype(np.float64), *across).T
        block = max(1, _BLOCK_PX // len(columns))
        for start in range(0, len(rows), block):
            part = slice(start, start + block)
            lines = rows[part]
            placed[lines.start : lines.stop, columns.start : columns.stop] = _mix(
                stretched, down[0][part], down[1][part]
            )
        return placed

    def to_original(self, y: Coordinate, x: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Where a point of the network's input lies on the original picture, in pixels."""
        top, left, bottom, right = self.box
        height, width = self.input_px
        return top + y * ((bottom - top) / height), left + x * ((right - left) / width)

    def to_input(self, y: Coordinate, x: Coordinate) -> tuple[Coordinate, Coordinate]:
        """Where a point of the original picture lies on the network's input, in pixels; may be outside it."""
        top, left, bottom, right = self.box
        height, width = self.input_px
        return (y - top) * (height / (bottom - top)), (x - left) * (width / (right - left))

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Placement":
        try:
            height, width = map(int, data["original_px"])
            input_height, input_width = map(int, data["input_px"])
            top, left, bottom, right = map(float, data["box"])
        except (KeyError, TypeError, ValueError) as error:
            raise SettingError(f"not the record of a placement: {data}") from error
        return cls((height, width), (input_height, input_width), (top, left, bottom, right))


def _inside(start: float, stop: float, pixels: int) -> range:
    """Pixels whose centres lie in [start, stop); the one nearest its middle where there is none."""
    first, last = max(0, ceil(start - 0.5)), min(pixels, ceil(stop - 0.5))
    if first < last:
        return range(first, last)
    middle = min(max(floor((start + stop) / 2), 0), pixels - 1)
    return range(middle, middle + 1)


def _taps(start: float, stop: float, pixels: range, cells: int, smooth: bool) -> tuple[np.ndarray, np.ndarray]:
    """For each pixel the cells it mixes and their weights (n, taps), which sum to 1: a triangle, or one cell."""
    centre = (np.arange(pixels.start, pixels.stop) + 0.5 - start) * cells / (stop - start)
    if not smooth:
        return np.clip(np.floor(centre).astype(int), 0, cells - 1)[:, None], np.ones((len(pixels), 1))
    centre = np.clip(centre, 0.5, cells - 0.5)
    reach = max(1.0, cells / (stop - start))
    first = np.floor(centre - 0.5 - reach).astype(int) + 1
    cell = first[:, None] + np.arange(ceil(2 * reach))
    weight = np.maximum(0.0, 1 - np.abs(cell + 0.5 - centre[:, None]) / reach) * ((cell >= 0) & (cell < cells))
    nearest = np.clip(np.floor(centre).astype(int), 0, cells - 1)[:, None]
    return np.where(weight > 0, cell, nearest), weight / weight.sum(axis=1, keepdims=True)


def _mix(values: np.ndarray, cell: np.ndarray, weight: np.ndarray) -> np.ndarray:
    """Weighted sums of rows: out_i = sum_t weight_it values[cell_it]; a weight of 0 lets no infinity through."""
    mixed = np.zeros((len(cell), values.shape[1]))
    with np.errstate(invalid="ignore"):  # infinite heat, where the map is not finite either way
        for tap in range(cell.shape[1]):
            share = weight[:, tap, None]
            mixed += np.where(share > 0, share * values[cell[:, tap]], 0.0)
    return mixed
