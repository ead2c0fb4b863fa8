"""Which voxels of a volume decide its class? Small schematic brains for which this is known."""

from pellucid.images.volumes.anatomy import CHANGING, CLASSES, DECIDING, REGIONS
from pellucid.images.volumes.changes import atrophied, healed, resized, without, without_lesions
from pellucid.images.volumes.compose import Lesion, Part, Volume, compose, stream, truth
from pellucid.images.volumes.render import Rendered3, atlas, render

__all__ = [
    "CHANGING",
    "CLASSES",
    "DECIDING",
    "REGIONS",
    "Lesion",
    "Part",
    "Rendered3",
    "Volume",
    "atlas",
    "atrophied",
    "compose",
    "healed",
    "render",
    "resized",
    "stream",
    "truth",
    "without",
    "without_lesions",
]
