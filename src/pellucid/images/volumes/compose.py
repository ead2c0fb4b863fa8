"""Draw the description of a volume: anatomy, atrophy, lesions, bias field and noise from one seed."""

import hashlib
import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from pellucid.core.errors import SettingError, nearest
from pellucid.images.volumes.anatomy import CLASSES, DECIDING, FLUID, FULL, REGIONS, SHRUNK, TABLE, Region, Triple

LEAST_VOXELS, MOST_VOXELS = 32, 96
SEEDS = 1 << 63
MOST_LESIONS = 4
ORIGIN = (0.0, 0.0, 0.0)

Uniform = Callable[[float, float], float]


@dataclass(frozen=True)
class Part:
    """One region in one volume.

    Attributes:
        share: how much of its mean extent it fills, 0 to 1.05; the rest of its room is vacated.
        luck: in [0, 1): where the share lies within the range of a state, so that a state can be changed and back.
        present: False where it is taken away, and what surrounds it is seen.
    """

    name: str
    centre: Triple
    half: Triple
    brightness: float
    luck: float
    share: float
    present: bool = True


@dataclass(frozen=True)
class Lesion:
    """A small dark or bright ball, seen in cortex and white matter only."""

    centre: Triple
    radius: float
    brightness: float


@dataclass(frozen=True)
class Volume:
    """The description of one volume: everything that `render` draws, in 1/32 of the side.

    Attributes:
        voxels: per side; `dataclasses.replace(volume, voxels=64)` is the same brain, finer.
        label: the class it was composed as; `truth` is the class by the rules, also after a change.
        shift, size: the pose of the head.
        folds: where the folds begin along each axis, in [0, 1).
        bias: brightness is multiplied by 1 + Σ bias_k · (x, y, z, x², y², z²)_k with coordinates in [-1, 1].
        noise: standard deviation of the noise, in units of brightness (0 black, 1 white).
    """

    seed: int
    voxels: int
    label: str
    shift: Triple
    size: float
    folds: Triple
    fluid: float
    parts: tuple[Part, ...]
    lesions: tuple[Lesion, ...]
    bias: tuple[float, ...]
    noise: float

    def __post_init__(self) -> None:
        check_seed(self.seed)
        check_voxels(self.voxels)
        check_label(self.label)

    def part(self, name: str) -> Part:
        """One region's description.

        Raises:
            SettingError: there is no such region.
        """
        check_region(name)
        return next(part for part in self.parts if part.name == name)


def compose(seed: int, *, voxels: int = 32, label: str | None = None) -> Volume:
    """Draw one volume.

    Two labels with the same seed give volumes that differ in the share of the deciding region only.

    Args:
        seed: 0 to 2⁶³ - 1.
        voxels: per side, 32 to 96.
        label: "healthy" or "atrophy"; by default drawn, each as often.

    Raises:
        SettingError: a seed or a number of voxels outside its range, or no such label.

    Example:
        >>> compose(7, label="atrophy").part("left hippocampus").share < 0.65
        True
    """
    check_seed(seed)
    check_voxels(voxels)
    rng = random.Random(seed)

    def uniform(low: float, high: float) -> float:
        return low + (high - low) * rng.random()

    drawn = CLASSES[rng.random() < 0.5]
    label = drawn if label is None else check_label(label)
    fluid = FLUID * uniform(0.9, 1.1)
    return Volume(
        seed=seed,
        voxels=voxels,
        label=label,
        shift=_around(uniform, 1.5),
        size=uniform(0.93, 1.0),
        folds=(rng.random(), rng.random(), rng.random()),
        fluid=fluid,
        parts=tuple(_part(region, uniform, label, fluid) for region in TABLE),
        lesions=_lesions(uniform),
        bias=(*_around(uniform, 0.06), *_around(uniform, 0.05)),
        noise=uniform(0.01, 0.035),
    )


def stream(n: int, *, seed: int = 0, voxels: int = 32, split: str = "train") -> Iterator[Volume]:
    """Volumes one after the other, healthy and atrophied in turn; volume i depends on (seed, split, i) only.

    Args:
        n: how many.
        split: any name ("train", "test", …); each has volumes of its own.

    Raises:
        SettingError: n below 0, a seed or a number of voxels outside its range, or a split without a name.
    """
    if not _whole(n) or n < 0:
        raise SettingError(f"a stream has 0 or more volumes, not {n!r}")
    if not isinstance(split, str) or not split:
        raise SettingError(f'a split is named in words, not {split!r}; try "train" or "test"')
    check_seed(seed)
    check_voxels(voxels)
    return (compose(_seed_of(seed, split, i), voxels=voxels, label=CLASSES[i % len(CLASSES)]) for i in range(n))


def truth(volume: Volume) -> str | None:
    """The class by the rules: the share of the left hippocampus; None where a change left it between the classes.

    atrophy: 0.45 to 0.65 of its extent      healthy: 0.90 to 1.05
    """
    part = volume.part(DECIDING)
    if part.present and FULL[0] <= part.share <= FULL[1]:
        return "healthy"
    return "atrophy" if part.present and SHRUNK[0] <= part.share <= SHRUNK[1] else None


def share_in(region: Region, luck: float, atrophied: bool) -> float:
    """The share that a region fills in this state."""
    low, high = region.shares(atrophied)
    return low + (high - low) * luck


def mean_anatomy(voxels: int) -> Volume:
    """The brain without jitter, atrophy, lesions, bias or noise; every region fills its mean extent."""
    parts = tuple(Part(r.name, r.centre, r.half, r.brightness, 0.0, 1.0) for r in TABLE)
    return Volume(0, voxels, "healthy", ORIGIN, 1.0, ORIGIN, FLUID, parts, (), (0.0,) * 6, 0.0)


def check_region(name: str, known: tuple[str, ...] = REGIONS[1:]) -> None:
    """Refuse a region that the brain does not have, or that is not among those `known`."""
    if name in known:
        return
    if name in REGIONS[1:]:
        raise SettingError(f'"{name}" surrounds others and keeps its extent; those that change are: {", ".join(known)}')
    raise SettingError(f"no region {name!r}{nearest(str(name), known)}; there are: {', '.join(known)}")


def check_voxels(voxels: int) -> None:
    """Refuse a side that is too short for the smallest region, or too long."""
    if not _whole(voxels) or not 1 <= voxels <= MOST_VOXELS:
        raise SettingError(f"a volume has {LEAST_VOXELS} to {MOST_VOXELS} voxels a side, not {voxels!r}")
    if voxels < LEAST_VOXELS:
        least = min(TABLE, key=lambda region: region.count(LEAST_VOXELS))
        raise SettingError(
            f"{voxels} voxels a side would leave the {least.name} about {least.count(voxels)} voxels; "
            f"take {LEAST_VOXELS} (about {least.count(LEAST_VOXELS)}) to {MOST_VOXELS}"
        )


def check_seed(seed: int) -> None:
    """Refuse what is not a whole number from 0 to 2⁶³ - 1."""
    if not _whole(seed) or not 0 <= seed < SEEDS:
        raise SettingError(f"a seed is a whole number from 0 to 2**63 - 1, not {seed!r}")


def check_label(label: str) -> str:
    """The label, refused if it is none of the classes."""
    if label not in CLASSES:
        raise SettingError(f"no class {label!r}; a volume is one of: {', '.join(CLASSES)}")
    return label


def _whole(number: object) -> bool:
    return isinstance(number, int) and not isinstance(number, bool)


def _seed_of(seed: int, split: str, i: int) -> int:
    """A seed for volume i of a split, unrelated to its neighbours'."""
    digest = hashlib.sha256(f"pellucid volume {seed} {split} {i}".encode()).digest()
    return int.from_bytes(digest[:8], "little") % SEEDS


def _around(uniform: Uniform, reach: float) -> Triple:
    return uniform(-reach, reach), uniform(-reach, reach), uniform(-reach, reach)


def _part(region: Region, uniform: Uniform, label: str, fluid: float) -> Part:
    """A region with jitter; all but the deciding one shrink by chance, as often as that one does by its class."""
    jitter, luck, chance = _around(uniform, 0.35), uniform(0.0, 1.0), uniform(0.0, 1.0)
    stretch = uniform(0.95, 1.05), uniform(0.95, 1.05), uniform(0.95, 1.05)
    brightness = region.brightness * uniform(0.96, 1.04)
    atrophied = label == "atrophy" if region.name == DECIDING else chance < 0.5
    return Part(
        region.name,
        _combined(region.centre, jitter, lambda a, b: a + b),
        _combined(region.half, stretch, lambda a, b: a * b),
        fluid if region.brightness == FLUID else brightness,
        luck,
        1.0 if region.vacated is None else share_in(region, luck, atrophied),
    )


def _combined(a: Triple, b: Triple, how: Callable[[float, float], float]) -> Triple:
    return how(a[0], b[0]), how(a[1], b[1]), how(a[2], b[2])


def _lesions(uniform: Uniform) -> tuple[Lesion, ...]:
    """None to four lesions anywhere in the cerebrum, as many random numbers drawn whatever their count."""
    count = int(uniform(0.0, MOST_LESIONS + 1.0))
    drawn = []
    for _ in range(MOST_LESIONS):
        centre = (uniform(-9.0, 6.0), uniform(-11.0, 11.0), uniform(-9.5, 9.5))
        dark = uniform(0.0, 1.0) < 0.7
        drawn.append(Lesion(centre, uniform(0.9, 1.8), uniform(0.24, 0.34) if dark else uniform(0.82, 0.9)))
    return tuple(drawn[:count])
