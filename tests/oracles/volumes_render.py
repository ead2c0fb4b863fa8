"""A volume drawn voxel by voxel from its description, in plain Python."""

from math import floor

from pellucid.images.volumes import REGIONS, Part, Volume
from pellucid.images.volumes.anatomy import TABLE, Region

MASK = 2**64 - 1


def place(index: int, volume: Volume, axis: int) -> float:
    return ((index + 0.5) * 32 / volume.voxels - 16 - volume.shift[axis]) / volume.size


def needed(region: Region, part: Part, at: tuple[float, ...], folds: float) -> float:
    """The smallest share with which the region would reach this point; infinite where none does."""
    h = at[1] - part.centre[1]
    u = [
        (at[0] - part.centre[0] - region.lean * h) / part.half[0],
        h / part.half[1],
        (at[2] - part.centre[2]) / part.half[2],
    ]
    along = abs(u.pop(region.long))
    if region.shape == "box":
        return max(map(abs, u)) ** 2 if along < 1 else float("inf")
    room = 1 - along**2 + region.folds * folds
    return (u[0] ** 2 + u[1] ** 2) / room if room > 0 else float("inf")


def fold(at: tuple[float, ...], begin: tuple[float, ...]) -> float:
    """Mean of three waves of parabolas of length 5: -1 at the furrows, 1 half-way."""
    phases = [x / 5 + start - floor(x / 5 + start) for x, start in zip(at, begin, strict=True)]
    return sum(1 - 2 * (2 * phase - 1) ** 2 for phase in phases) / 3


def look(volume: Volume, at: tuple[float, ...]) -> tuple[int, bool, float]:
    """Region, whether it is room it has lost, and brightness without bias and noise."""
    folds = fold(at, volume.folds)
    white = volume.parts[1].brightness
    for label in range(len(TABLE), 0, -1):
        region, part = TABLE[label - 1], volume.parts[label - 1]
        share = needed(region, part, at, folds)
        covered = not region.inside or needed(TABLE[0], volume.parts[0], at, folds) < 1
        widest = 1.0 if region.vacated is None else 1.05
        if not part.present or share >= widest or not covered:
            continue
        if region.vacated is None or share < part.share:
            return label, False, part.brightness
        return label, True, volume.fluid if region.vacated == "fluid" else white
    return 0, False, 0.03


def scramble(number: int) -> int:
    """SplitMix64's finaliser."""
    number = (number ^ (number >> 30)) * 0xBF58476D1CE4E5B9 & MASK
    number = (number ^ (number >> 27)) * 0x94D049BB133111EB & MASK
    return number ^ (number >> 31)


def noise(seed: int, number: int) -> float:
    bits = scramble(((number + 1) * 0x9E3779B97F4A7C15 + scramble(seed)) & MASK)
    total = sum(bits >> shift & 0xFFFF for shift in (0, 16, 32, 48))
    return (total - 2 * 65535) / 65536 * 3**0.5


def draw(volume: Volume) -> tuple[list[int], list[bool], list[bool], list[float]]:
    """Atlas, lost room, lesions, and brightness in 1/255 before rounding, in the order d, h, w."""
    n = volume.voxels
    atlas, lost, lesions, levels = [], [], [], []
    for number in range(n**3):
        index = (number // n**2, number // n % n, number % n)
        at = tuple(place(index[axis], volume, axis) for axis in range(3))
        label, gone, value = look(volume, at)
        hit = [
            one.brightness
            for one in volume.lesions
            if sum((x - c) ** 2 for x, c in zip(at, one.centre, strict=True)) < one.radius**2
        ]
        seen = bool(hit) and REGIONS[label] in ("cortex", "white matter")
        x = [2 * (i + 0.5) / n - 1 for i in index]
        bias = sum(volume.bias[k] * x[k] + volume.bias[k + 3] * x[k] ** 2 for k in range(3))
        bright = (hit[-1] if seen else value) * (1 + bias) + volume.noise * noise(volume.seed, number)
        atlas.append(label)
        lost.append(gone)
        lesions.append(seen)
        levels.append(255 * min(max(bright, 0.0), 1.0))
    return atlas, lost, lesions, levels
