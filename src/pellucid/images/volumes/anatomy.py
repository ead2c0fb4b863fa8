"""The mean anatomy: where each region of the brain lies, how bright it is, and what it does when it atrophies.

Lengths are in 1/32 of the volume's side, from its centre: d downwards, h backwards, w from the left to the right.
"""

from dataclasses import dataclass, replace
from math import pi
from typing import Any, Literal

CLASSES = ("healthy", "atrophy")
DECIDING = "left hippocampus"
SIDE = 32.0
FULL = (0.90, 1.05)  # the share of its mean extent that a region fills
SHRUNK = (0.45, 0.65)
FLUID, OUTSIDE = 0.18, 0.03

Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Region:
    """One region of the mean anatomy.

    With u = (d, h, w) relative to `centre` and divided by `half`, it is where across < share · room, v being u along
    its long axis and a, b the two others:

        ellipsoid: across = a² + b²,        room = 1 - v² + folds · F
        box:       across = max(a², b²),    room = 1 where v² < 1, otherwise 0

    so that a share thins it about its long axis, and its volume is proportional to the share.

    Attributes:
        long: the axis along which it is not thinned: 0 is d, 1 is h.
        lean: how far it descends per length backwards.
        folds: how far its surface is folded; F in [-1, 1] is the field of folds.
        inside: seen only within the cerebrum.
        vacated: what is seen in the room that it does not fill: fluid, or white matter; None where it always fills it.
    """

    name: str
    shape: Literal["ellipsoid", "box"]
    centre: Triple
    half: Triple
    brightness: float
    long: Literal[0, 1] = 1
    lean: float = 0.0
    folds: float = 0.0
    inside: bool = False
    vacated: Literal["fluid", "white matter"] | None = None

    @property
    def widest(self) -> float:
        """The largest share there is; what it reaches is the room of the region."""
        return 1.0 if self.vacated is None else FULL[1]

    def count(self, voxels: int) -> int:
        """About how many voxels the region has in a volume of this side, were nothing on top of it."""
        d, h, w = (2 * half * voxels / SIDE for half in self.half)
        return int(d * h * w * (1.0 if self.shape == "box" else pi / 6))

    def shares(self, atrophied: bool) -> tuple[float, float]:
        """From which to which share the region fills in this state; atrophy of the brain widens a ventricle."""
        return SHRUNK if atrophied == (self.vacated == "fluid") else FULL


def _inner(name: str, centre: Triple, half: Triple, brightness: float, **more: Any) -> Region:
    return Region(name, "ellipsoid", centre, half, brightness, inside=True, **more)


def _pair(left: Region) -> tuple[Region, Region]:
    """A region on the left, and its mirror image on the right."""
    d, h, w = left.centre
    return left, replace(left, name=left.name.replace("left", "right"), centre=(d, h, -w))


TABLE = (  # painted in this order, the last on top
    Region("cortex", "ellipsoid", (-1.5, 0.0, 0.0), (10.5, 12.9, 11.4), 0.44, folds=0.06),
    Region("white matter", "ellipsoid", (-1.5, 0.0, 0.0), (8.5, 10.7, 9.2), 0.66, folds=0.24),
    Region("brainstem", "box", (8.0, 2.5, 0.0), (5.0, 1.9, 1.9), 0.60, long=0, vacated="fluid"),
    Region("cerebellum", "ellipsoid", (7.6, 7.6, 0.0), (3.6, 4.2, 6.6), 0.50, vacated="fluid"),
    Region("longitudinal fissure", "box", (-9.6, 0.0, 0.0), (3.2, 14.0, 0.7), FLUID, inside=True),
    Region("corpus callosum", "box", (-5.0, -0.5, 0.0), (1.1, 5.6, 3.0), 0.80, inside=True, vacated="fluid"),
    *_pair(_inner("left thalamus", (1.6, 1.0, -2.6), (2.2, 3.2, 2.0), 0.54, vacated="fluid")),
    *_pair(_inner("left ventricle", (-2.4, -0.5, -2.6), (2.2, 6.0, 1.6), FLUID, vacated="white matter")),
    *_pair(_inner("left hippocampus", (4.2, 1.2, -5.7), (2.0, 4.8, 2.0), 0.49, vacated="fluid", lean=-0.15)),
)
REGIONS = ("outside", *(region.name for region in TABLE))
CHANGING = tuple(region.name for region in TABLE if region.vacated is not None)
