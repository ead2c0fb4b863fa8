"""The patches a unit likes best, least, and in between, by sorting everything. NumPy.

Zeiler & Fergus 2014, arXiv:1311.2901 (the nine best, one place an image); Bau et al. 2017, arXiv:1704.05796 (quantile,
mask); specification §1.2. Maps are `(images, channels, *cells)`. A unit's value for an image is the highest of its map,
or the lowest, or the mean; of equal cells the first counts, row by row; of equal images the one with the lower number.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product

import numpy as np

from .fields import Axis


@dataclass(frozen=True)
class Found:
    value: float
    image: int
    place: tuple[int, ...]


def per_image(maps: np.ndarray, channel: int, statistic: str = "max") -> list[Found]:
    """One value an image: the `max` or `min` of the map with its first place; of the `mean`, the place of the max."""
    found = []
    for number, image in enumerate(maps):
        cells = image[channel]
        best: tuple[int, ...] | None = None
        for place in np.ndindex(*cells.shape):
            if best is None or (cells[place] < cells[best] if statistic == "min" else cells[place] > cells[best]):
                best = place
        assert best is not None
        value = cells.astype(np.float64).mean() if statistic == "mean" else cells[best]
        found.append(Found(float(value), number, best))
    return found


def top(maps: np.ndarray, channel: int, k: int, statistic: str = "max") -> list[Found]:
    """The k images of the highest value, the highest first."""
    return sorted(per_image(maps, channel, statistic), key=lambda f: (-f.value, f.image))[:k]


def bottom(maps: np.ndarray, channel: int, k: int, statistic: str = "max") -> list[Found]:
    """The k images of the lowest value, the lowest first."""
    return sorted(per_image(maps, channel, statistic), key=lambda f: (f.value, f.image))[:k]


def strata(maps: np.ndarray, channel: int, count: int, statistic: str = "max") -> list[list[Found]]:
    """The images from the lowest value up, cut by rank: of m parts, part b holds ranks ⌊bN/m⌋ … ⌊(b+1)N/m⌋ − 1."""
    ranked = sorted(per_image(maps, channel, statistic), key=lambda f: (f.value, f.image))
    n = len(ranked)
    return [ranked[b * n // count : (b + 1) * n // count] for b in range(count)]


def stratum_of(maps: np.ndarray, channel: int, count: int, image: int, statistic: str = "max") -> int:
    """The stratum an image is in: what a stratified sample has to hit."""
    parts = strata(maps, channel, count, statistic)
    return next(b for b, part in enumerate(parts) if any(f.image == image for f in part))


def quantile(values: np.ndarray, q: float) -> float:
    """The linear one: with x sorted, h = q (n − 1), x_⌊h⌋ + (h − ⌊h⌋)(x_⌊h⌋₊₁ − x_⌊h⌋)."""
    ranked = sorted(float(v) for v in np.asarray(values).ravel())
    h = q * (len(ranked) - 1)
    low = int(np.floor(h))
    high = min(low + 1, len(ranked) - 1)
    return ranked[low] + (h - low) * (ranked[high] - ranked[low])


def share_below(values: np.ndarray, value: float) -> float:
    """The percentile of a value: the share of values below it, equal ones half."""
    flat = [float(v) for v in np.asarray(values).ravel()]
    return (sum(v < value for v in flat) + 0.5 * sum(v == value for v in flat)) / len(flat)


def rank_error(values: np.ndarray, estimate: float, q: float) -> float:
    """How far q lies from the shares of values below and up to an estimate: 0 where it is a q-quantile."""
    flat = [float(v) for v in np.asarray(values).ravel()]
    below, upto = sum(v < estimate for v in flat) / len(flat), sum(v <= estimate for v in flat) / len(flat)
    return max(0.0, below - q, q - upto)


# -------------------------------------------------------------------------------------------------------------- crops


def crop_box(fields: Sequence[Axis], place: Sequence[int]) -> list[tuple[int, int]]:
    """First and last coordinate of the field of a cell along each axis; may lie outside the picture."""
    return [axis.span(i) for axis, i in zip(fields, place, strict=True)]


def crop(picture: np.ndarray, spans: Sequence[tuple[int, int]], grey: float = 0.5) -> np.ndarray:
    """The cells of `spans` of a picture `(C, *space)`, grey where the picture ends; never resized."""
    size = [last - first + 1 for first, last in spans]
    out = np.full((len(picture), *size), grey, dtype=picture.dtype)
    for cell in product(*map(range, size)):
        place = tuple(first + i for (first, _), i in zip(spans, cell, strict=True))
        if all(0 <= a < n for a, n in zip(place, picture.shape[1:], strict=True)):
            out[(slice(None), *cell)] = picture[(slice(None), *place)]
    return out


def crop_by_support(picture: np.ndarray, support: np.ndarray) -> np.ndarray:
    """The smallest box around a boolean support, inside the picture."""
    return picture[(slice(None), *(slice(int(hit.min()), int(hit.max()) + 1) for hit in np.nonzero(support)))]


def still_the_same(
    unit: Callable[[np.ndarray], float], picture: np.ndarray, spans: Sequence[tuple[int, int]], other: np.ndarray
) -> bool:
    """Whether the unit's value stays, bit by bit, when everything outside the spans comes from another picture."""
    mixed = other.copy()
    inside = (slice(None), *(slice(max(0, first), last + 1) for first, last in spans))
    mixed[inside] = picture[inside]
    return unit(mixed) == unit(picture)


# -------------------------------------------------------------------------------------------------------------- masks


def at_centres(cells: np.ndarray, fields: Sequence[Axis], size: Sequence[int]) -> np.ndarray:
    """A map drawn at the picture's size, each cell's value at the centre of its field, linear between, flat outside.

    Along an axis coordinate q lies at t = (q − start)/stride, clamped to 0 … n − 1, between the cells ⌊t⌋ and ⌊t⌋ + 1.
    """
    out = np.zeros(tuple(size))
    for place in product(*map(range, size)):
        for corner in product((0, 1), repeat=len(size)):
            weight, cell = 1.0, []
            for q, axis, n, upper in zip(place, fields, cells.shape, corner, strict=True):
                t = min(max((q - axis.start) / axis.stride, 0), n - 1)
                low = int(np.floor(t))
                weight *= t - low if upper else 1 - (t - low)
                cell.append(min(low + upper, n - 1))
            out[place] += weight * cells[tuple(cell)]
    return out


def show_mask(
    picture: np.ndarray, mask: np.ndarray, dim: float = 0.5, colour: tuple[float, ...] = (1, 1, 0)
) -> np.ndarray:
    """The picture, dimmed outside the mask; cells outside that touch it (of eight neighbours) get the colour."""
    out = picture.astype(np.float64).copy()
    height, width = mask.shape
    for y, x in product(range(height), range(width)):
        if mask[y, x]:
            continue
        near = product(range(max(0, y - 1), min(height, y + 2)), range(max(0, x - 1), min(width, x + 2)))
        out[:, y, x] = np.array(colour[: len(out)]) if any(mask[c] for c in near) else dim * picture[:, y, x]
    return out
