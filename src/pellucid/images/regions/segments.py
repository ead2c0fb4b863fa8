"""Regions found in the picture itself: a grid, and three segmentations by scikit-image."""

from itertools import product
from math import log, prod
from types import ModuleType
from warnings import catch_warnings

import numpy as np
import torch
from jaxtyping import Float, Int64
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import MissingExtraError, SettingError

QUICKSHIFT_PIXELS = 2**18  # larger pictures are reduced for it
KINDS = ("grid", "slic", "felzenszwalb", "quickshift")
_COUNT_WEIGHT = 4.0  # how much the number of cells matters against their squareness
_SCALES = (1e-3, 1e6)  # between which Felzenszwalb's scale is looked for
_SCALE_TRIES, _SLIC_TRIES = 12, 4
_NEAR_FRACTION = 0.05  # of the count wanted
_MOST_PAIRS = 5e8  # that quickshift compares, a few seconds; it looks three kernels far on every side
_COLOUR_RATIO = 0.5  # what a step in Lab colour weighs against a pixel of distance in quickshift
_GREY_COMPACTNESS = 0.1  # for channels that are no colours, in [0, 1] instead of Lab's 100


def grid(space: tuple[int, ...], count: int | tuple[int, ...]) -> Int64[Tensor, "*space"]:
    """Boxes of nearly one size in the order of the pixels, on any number of axes.

    Args:
        count: about how many, with sides as equal as they can be; or how many along each axis.

    Raises:
        SettingError: more along an axis than it has pixels.
    """
    cells = _cells(space, count) if isinstance(count, int) else count
    if len(cells) != len(space) or any(not 1 <= k <= size for k, size in zip(cells, space, strict=True)):
        raise SettingError(
            f"a grid of {' x '.join(map(str, cells))} came for {' x '.join(map(str, space))} pixels; give one whole "
            "number for each axis, from 1 to its pixels"
        )
    labels = torch.zeros(space, dtype=torch.int64)
    for axis, (k, size) in enumerate(zip(cells, space, strict=True)):
        number = torch.arange(size) * k // size
        labels = labels * k + number.view([-1 if a == axis else 1 for a in range(len(space))])
    return labels


def _cells(space: tuple[int, ...], count: int) -> tuple[int, ...]:
    """How many along each axis: the best of those around cells with equal sides."""
    side = (prod(space) / count) ** (1 / len(space))
    around = [
        sorted({min(max(1, k), size) for k in range(round(size / side) - 2, round(size / side) + 3)}) for size in space
    ]

    def worse(cells: tuple[int, ...]) -> float:
        sides = [size / k for size, k in zip(space, cells, strict=True) if size > 1] or [1.0]
        return log(max(sides) / min(sides)) + _COUNT_WEIGHT * abs(log(prod(cells) / count))

    return min(product(*around), key=worse)


def slic(pixels: Float[Tensor, "c *space"], count: int) -> Int64[Tensor, "*space"]:
    """SLIC superpixels of a picture or a volume: k-means in colour (Lab) and place, connected.

    Since small ones are merged, fewer come out than were asked for; a few numbers are tried, the nearest is taken.

    Source:
        Achanta et al. 2012, doi:10.1109/TPAMI.2012.120; computed by scikit-image, with labels from 0 (its own start at
        1, whence the superpixel that LIME never covers).
    """
    array, colours = _channels_last(pixels)
    segment, compactness = _segmentation().slic, 10.0 if colours else _GREY_COMPACTNESS
    best, away, asked = np.zeros(0, np.int64), float("inf"), float(count)
    for _ in range(_SLIC_TRIES):
        found = segment(
            array, round(asked), compactness=compactness, start_label=0, channel_axis=-1, convert2lab=colours
        )
        number = len(np.unique(found))
        if abs(number - count) < away:
            best, away = found, abs(number - count)
        if away <= _NEAR_FRACTION * count:
            break
        asked = min(max(1.0, asked * count / number), found.size)
    return torch.from_numpy(best.astype(np.int64))


def felzenszwalb(pixels: Float[Tensor, "c h w"], count: int) -> Int64[Tensor, "h w"]:
    """Felzenszwalb's graph-based regions; the scale that comes nearest to the count is looked for by bisection.

    Source:
        Felzenszwalb & Huttenlocher 2004, doi:10.1023/B:VISI.0000022288.19776.77; computed by scikit-image.
    """
    segment = _segmentation().felzenszwalb
    array, _ = _channels_last(pixels)
    smallest = max(1, prod(pixels.shape[1:]) // (4 * count))
    low, high = map(log, _SCALES)
    best, away = np.zeros(0, np.int64), float("inf")
    for _ in range(_SCALE_TRIES):
        middle = (low + high) / 2
        with catch_warnings(category=RuntimeWarning, action="ignore"):  # more than three channels are meant
            found = segment(array, scale=float(np.exp(middle)), sigma=0.8, min_size=smallest, channel_axis=-1)
        number = int(found.max()) + 1
        if abs(number - count) < away:
            best, away = found, abs(number - count)
        if away <= _NEAR_FRACTION * count:
            break
        low, high = (middle, high) if number > count else (low, middle)
    return torch.from_numpy(best.astype(np.int64))


def quickshift(pixels: Float[Tensor, "c h w"], count: int, seed: int) -> Int64[Tensor, "h w"]:
    """Quickshift regions: each pixel belongs to the nearest one of higher density; the longest links are cut.

    The tree is built once; cutting its `count - roots` longest links gives the count exactly, where it has fewer roots.
    Since the time grows with the square of the regions' size, a picture beyond `QUICKSHIFT_PIXELS` is reduced to it,
    and each pixel gets the label of the nearest.

    Source:
        Vedaldi & Soatto 2008, doi:10.1007/978-3-540-88693-8_52; the tree is computed by scikit-image.
    """
    space = pixels.shape[1:]
    shrink = (QUICKSHIFT_PIXELS / prod(space)) ** 0.5
    if shrink < 1:
        small = [max(1, int(size * shrink)) for size in space]
        found = quickshift(F.interpolate(pixels[None].float(), small, mode="bilinear", antialias=True)[0], count, seed)
        rows, columns = (torch.arange(size) * few // size for size, few in zip(space, small, strict=True))
        return found[rows][:, columns]
    array, colours = _channels_last(pixels)
    side = (prod(space) / count) ** 0.5
    widest = (_MOST_PAIRS / prod(space)) ** 0.5 / 6
    kernel = max(1.0, min(side / 6, widest))
    far = float(sum(space) + 1e3)  # beyond every link
    _, parent, distance = _segmentation().quickshift(
        array, ratio=_COLOUR_RATIO, kernel_size=kernel, max_dist=far, return_tree=True, convert2lab=colours, rng=seed
    )
    parent, distance = np.array(parent, dtype=np.int64).ravel(), np.asarray(distance).ravel()
    number = np.arange(len(parent))
    links = number[parent != number]
    cut = max(0, count - (len(parent) - len(links)))
    longest = links[np.argsort(-distance[links], kind="stable")[:cut]]
    parent[longest] = longest
    while not np.array_equal(parent, parent[parent]):
        parent = parent[parent]
    return torch.from_numpy(parent.reshape(space))


def _channels_last(pixels: Tensor) -> tuple[np.ndarray, bool]:
    """Channels last in double precision, and whether they are colours; a grey picture has three equal ones."""
    shown = pixels.expand(3, *pixels.shape[1:]) if len(pixels) == 1 else pixels
    return np.ascontiguousarray(shown.detach().double().movedim(0, -1).cpu().numpy()), len(shown) == 3


def _segmentation() -> ModuleType:
    try:
        from skimage import segmentation
    except ImportError as error:
        raise MissingExtraError("scikit-image", "segment", "superpixels (a grid works without)") from error
    return segmentation
