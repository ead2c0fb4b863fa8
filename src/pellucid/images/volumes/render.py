"""Draw a described volume: only + - * / on doubles and hashes of integers, so it is the same bytes on every machine."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float32, UInt8

from pellucid.images.volumes.anatomy import DECIDING, OUTSIDE, REGIONS, SIDE, TABLE, Region, Triple
from pellucid.images.volumes.compose import Part, Volume, check_region, check_voxels, mean_anatomy

FOLD_LENGTH = 5.0  # from one furrow of the cortex to the next, in 1/32 of the side
NOISE_UNIT = 1.7320508075688772 / 65536.0  # to variance 1, from the sum of four numbers of 0 to 65535
GOLDEN, FIRST, SECOND = 0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB
LESION_ON = (REGIONS.index("cortex"), REGIONS.index("white matter"))

Window = tuple[slice, slice, slice]
Grid = tuple[np.ndarray, np.ndarray, np.ndarray]


@dataclass(frozen=True)
class Rendered3:
    """A volume, and what is known about each of its voxels.

    Attributes:
        voxels: brightness in [0, 1], in steps of 1/255; (1, d, h, w).
        atlas: the region each voxel belongs to, an index into `REGIONS`; 0 is outside. A region keeps the room it
            has lost to atrophy, so the atlas does not betray the class.
        decisive: the whole room of the deciding region: the voxels whose change may change the class.
        lost: room that its region does not fill: fluid after atrophy, white matter beside a narrow ventricle.
        lesions: where a lesion is seen.
    """

    voxels: Float32[np.ndarray, "1 d h w"]
    atlas: UInt8[np.ndarray, "d h w"]
    decisive: Bool[np.ndarray, "d h w"]
    lost: Bool[np.ndarray, "d h w"]
    lesions: Bool[np.ndarray, "d h w"]

    def region(self, name: str) -> Bool[np.ndarray, "d h w"]:
        """The room of one region.

        Raises:
            SettingError: there is no such region.
        """
        check_region(name, REGIONS)
        return self.atlas == REGIONS.index(name)


def render(volume: Volume) -> Rendered3:
    """Draw a volume.

        brightness = round₂₅₅(clip(anatomy · (1 + bias) + noise, 0, 1))

    Returns:
        Voxels and masks; (1, d, h, w) and (d, h, w) with d downwards, h backwards, w from the left to the right.
    """
    atlas, lost, anatomy = _paint(volume)
    lesions = _paint_lesions(volume, atlas, anatomy)
    voxels = anatomy * (1.0 + _bias(volume)) + volume.noise * _noise(volume.seed, volume.voxels)
    levels = np.rint(np.clip(voxels, 0.0, 1.0) * 255.0).astype(np.uint8)
    return Rendered3(
        (levels.astype(np.float32) / np.float32(255.0))[None], atlas, atlas == REGIONS.index(DECIDING), lost, lesions
    )


def atlas(voxels: int = 32) -> UInt8[np.ndarray, "d h w"]:
    """The regions of the mean anatomy, as indices into `REGIONS`, without any volume.

    Raises:
        SettingError: a number of voxels outside 32 to 96.
    """
    check_voxels(voxels)
    return _paint(mean_anatomy(voxels))[0]


def _axes(volume: Volume) -> Grid:
    """Voxel centres in the coordinates of the brain, along each axis."""
    centres = (np.arange(volume.voxels) + 0.5) * (SIDE / volume.voxels) - SIDE / 2
    d, h, w = ((centres - shift) / volume.size for shift in volume.shift)
    return d, h, w


def _paint(volume: Volume) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Atlas, lost room and brightness of the anatomy, region over region."""
    axes, side = _axes(volume), (volume.voxels,) * 3
    labels, lost, values = np.zeros(side, np.uint8), np.zeros(side, bool), np.full(side, OUTSIDE)
    folds, cerebrum = _folds(axes, volume.folds), np.zeros(side, bool)
    white = volume.part("white matter").brightness
    for index, (region, part) in enumerate(zip(TABLE, volume.parts, strict=True), 1):
        window, across, room = _reach(region, part, axes, folds)
        seen = across < region.widest * room
        if index == 1:
            cerebrum[window] = seen
        elif region.inside:
            seen &= cerebrum[window]
        if not part.present:
            continue
        filled = seen & (across < part.share * room)
        vacated = seen & ~filled
        labels[window][seen], values[window][filled] = index, part.brightness
        lost[window][seen] = vacated[seen]
        values[window][vacated] = volume.fluid if region.vacated == "fluid" else white
    return labels, lost, values


def _reach(region: Region, part: Part, axes: Grid, folds: np.ndarray) -> tuple[Window, np.ndarray, np.ndarray]:
    """The part of the grid a region may reach, and there across and room, whose quotient is the share it needs."""
    window = _window(region, part, axes)
    d, h, w = (x[where] - centre for x, where, centre in zip(axes, window, part.centre, strict=True))
    down = ((d[:, None] - region.lean * h) / part.half[0])[:, :, None]
    back, side = (h / part.half[1])[:, None], w / part.half[2]
    along, other = (down * down, back * back) if region.long == 0 else (back * back, down * down)
    if region.shape == "box":
        return window, np.maximum(other, side * side), 1.0 * (along < 1.0)
    room = 1.0 - along + region.folds * folds[window] if region.folds else 1.0 - along
    return window, other + side * side, room


def _window(region: Region, part: Part, axes: Grid) -> Window:
    """The slices of the grid beyond which a region, folded and leaning, never reaches."""
    slack = 1.1 + region.folds
    halves = (part.half[0] + abs(region.lean) * part.half[1], part.half[1], part.half[2])
    d, h, w = (
        slice(*np.searchsorted(x, (centre - slack * half, centre + slack * half)))
        for x, centre, half in zip(axes, part.centre, halves, strict=True)
    )
    return d, h, w


def _folds(axes: Grid, begin: Triple) -> np.ndarray:
    """The field of folds in [-1, 1]: the mean over the axes of a wave of parabolas, round ridges and sharp furrows."""
    waves = []
    for x, start in zip(axes, begin, strict=True):
        phase = x / FOLD_LENGTH + start
        phase = phase - np.floor(phase)
        waves.append(8.0 * phase * (1.0 - phase) - 1.0)
    return (waves[0][:, None, None] + waves[1][:, None] + waves[2]) / 3.0


def _paint_lesions(volume: Volume, labels: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Paint the lesions into `values`; where they are seen."""
    d, h, w = _axes(volume)
    allowed, seen = np.isin(labels, LESION_ON), np.zeros(labels.shape, bool)
    for lesion in volume.lesions:
        a, b, c = ((x - centre) / lesion.radius for x, centre in zip((d, h, w), lesion.centre, strict=True))
        ball = allowed & ((a * a)[:, None, None] + (b * b)[:, None] + c * c < 1.0)
        values[ball] = lesion.brightness
        seen |= ball
    return seen


def _bias(volume: Volume) -> np.ndarray:
    """The bias field less 1, a polynomial along each axis; coordinates in [-1, 1] over the grid."""
    x = (np.arange(volume.voxels) + 0.5) * (2.0 / volume.voxels) - 1.0
    d, h, w = (volume.bias[k] * x + volume.bias[k + 3] * (x * x) for k in range(3))
    return d[:, None, None] + h[:, None] + w


def _noise(seed: int, voxels: int) -> np.ndarray:
    """Noise of variance 1 by an integer hash of (seed, voxel): the sum of four 16-bit numbers, nearly Gaussian.

    Source: the mixing is that of SplitMix64 (Steele, Lea, Flood 2014, doi:10.1145/2660193.2660195).
    """
    start = _mixed(np.array([seed], np.uint64))
    mixed = _mixed(np.arange(1, voxels**3 + 1, dtype=np.uint64) * np.uint64(GOLDEN) + start)
    total = np.zeros(voxels**3)
    for bits in (0, 16, 32, 48):
        total += (mixed >> np.uint64(bits)) & np.uint64(0xFFFF)
    return (total - 131070.0).reshape((voxels,) * 3) * NOISE_UNIT


def _mixed(numbers: np.ndarray) -> np.ndarray:
    """Scramble 64-bit numbers, modulo 2⁶⁴."""
    numbers = (numbers ^ (numbers >> np.uint64(30))) * np.uint64(FIRST)
    numbers = (numbers ^ (numbers >> np.uint64(27))) * np.uint64(SECOND)
    return numbers ^ (numbers >> np.uint64(31))
