"""What things are made of, and the ten classes: five pairs of siblings that differ in one thing only."""

from dataclasses import dataclass
from typing import Literal

from pellucid.core.errors import check_known

Point = tuple[float, float]
Difference = Literal["part", "colour", "texture", "relation"]


@dataclass(frozen=True)
class Polygon:
    """Points inside a closed line; corners as (y, x) in units of the thing's half-size, y downwards."""

    corners: tuple[Point, ...]

    @property
    def box(self) -> tuple[float, float, float, float]:
        ys, xs = zip(*self.corners, strict=True)
        return min(ys), min(xs), max(ys), max(xs)


@dataclass(frozen=True)
class Ellipse:
    """Points inside an upright ellipse: centre and radii, in units of the thing's half-size."""

    y: float
    x: float
    ry: float
    rx: float

    @property
    def box(self) -> tuple[float, float, float, float]:
        return self.y - self.ry, self.x - self.rx, self.y + self.ry, self.x + self.rx


Outline = tuple[Polygon | Ellipse, ...]  # the union of its pieces


def _rectangle(top: float, left: float, bottom: float, right: float) -> Polygon:
    return Polygon(((top, left), (top, right), (bottom, right), (bottom, left)))


def _polygon(*corners: Point) -> Outline:
    return (Polygon(corners),)


CHIMNEY: Outline = (_rectangle(-0.95, 0.28, -0.05, 0.66),)
SPIRE: Outline = _polygon((-1.0, 0.47), (-0.05, 0.06), (-0.05, 0.88))
SAIL: Outline = _polygon((-1.0, -0.05), (0.34, -0.6), (0.34, 0.5))
FUNNEL: Outline = (_rectangle(-0.75, -0.24, 0.34, 0.2),)

# Parts from back to front.
BUILDING: dict[str, Outline] = {
    "roof": _polygon((-0.72, 0.0), (0.08, -0.98), (0.08, 0.98)),
    "wall": (_rectangle(0.05, -0.74, 1.0, 0.74),),
    "door": (_rectangle(0.38, -0.48, 1.0, -0.1),),
    "window": (_rectangle(0.3, 0.2, 0.66, 0.56),),
}
BOAT: dict[str, Outline] = {
    "cabin": (_rectangle(0.1, 0.3, 0.48, 0.78),),
    "flag": (_rectangle(-0.3, -0.95, 0.02, -0.56), _rectangle(-0.3, -0.95, 0.46, -0.8)),
    "hull": _polygon((0.42, -1.0), (0.42, 1.0), (0.92, 0.66), (0.92, -0.66)),
}
MUSHROOM: dict[str, Outline] = {
    "stem": (_rectangle(-0.1, -0.26, 0.9, 0.26),),
    "bulb": (Ellipse(0.84, 0.0, 0.18, 0.46),),
    "skirt": (_rectangle(0.1, -0.44, 0.34, 0.44),),
    "cap": _polygon(
        (0.0, -0.95), (-0.36, -0.88), (-0.66, -0.62), (-0.84, -0.22), (-0.84, 0.22), (-0.66, 0.62), (-0.36, 0.88),
        (0.0, 0.95),
    ),
}  # fmt: skip
BEETLE: dict[str, Outline] = {
    "left legs": tuple(_rectangle(y - 0.12, -1.0, y + 0.12, 0.0) for y in (-0.3, 0.2, 0.7)),
    "right legs": tuple(_rectangle(y - 0.12, 0.0, y + 0.12, 1.0) for y in (-0.3, 0.2, 0.7)),
    "head": (Ellipse(-0.7, 0.0, 0.3, 0.4),),
    "shell": (Ellipse(0.2, 0.0, 0.76, 0.72),),
}
TREE: dict[str, Outline] = {
    "trunk": (_rectangle(0.1, -0.2, 1.0, 0.2),),
    "crown": (Ellipse(-0.35, 0.0, 0.65, 0.72),),
}
CAR: dict[str, Outline] = {
    "cab": _polygon((-0.3, -0.45), (-0.3, 0.35), (0.2, 0.65), (0.2, -0.65)),
    "body": (_rectangle(0.12, -1.0, 0.68, 1.0),),
    "wheels": (Ellipse(0.72, -0.55, 0.28, 0.28), Ellipse(0.72, 0.55, 0.28, 0.28)),
}

DISTRACTORS: dict[str, Outline] = {
    "ball": (Ellipse(0.0, 0.0, 1.0, 1.0),),
    "crate": (_rectangle(-0.9, -0.9, 0.9, 0.9),),
    "cone": _polygon((-1.0, 0.0), (1.0, -0.8), (1.0, 0.8)),
    "gem": _polygon((-1.0, 0.0), (0.0, -0.85), (1.0, 0.0), (0.0, 0.85)),
    "cross": (_rectangle(-1.0, -0.35, 1.0, 0.35), _rectangle(-0.35, -1.0, 0.35, 1.0)),
}
OCCLUDERS: dict[str, Outline] = {
    "pole": (_rectangle(-1.0, -0.12, 1.0, 0.12),),
    "leaf": (Ellipse(0.0, 0.0, 0.2, 0.5),),
}


@dataclass(frozen=True)
class Kind:
    """A class: the things it shows, and the one value that sets it apart from its sibling.

    Attributes:
        objects: the names of its main things, as labelled.
        parts: outlines of each main thing, back to front.
        difference: in what it differs from its sibling.
        decisive: the parts that carry the difference.
        value: the deciding part's name, colour or texture, or the name of the thing on the left.
    """

    objects: tuple[str, ...]
    parts: tuple[dict[str, Outline], ...]
    difference: Difference
    decisive: tuple[str, ...]
    value: str


_PAIR = ("tree", "car")
_PAIR_PARTS = ("trunk", "crown", "cab", "body", "wheels")
KINDS: dict[str, Kind] = {
    "house": Kind(("house",), ({"chimney": CHIMNEY, **BUILDING},), "part", ("chimney",), "chimney"),
    "chapel": Kind(("chapel",), ({"spire": SPIRE, **BUILDING},), "part", ("spire",), "spire"),
    "sailboat": Kind(("sailboat",), ({"sail": SAIL, **BOAT},), "part", ("sail",), "sail"),
    "steamer": Kind(("steamer",), ({"funnel": FUNNEL, **BOAT},), "part", ("funnel",), "funnel"),
    "agaric": Kind(("mushroom",), (MUSHROOM,), "colour", ("cap",), "red"),
    "bolete": Kind(("mushroom",), (MUSHROOM,), "colour", ("cap",), "brown"),
    "striped beetle": Kind(("beetle",), (BEETLE,), "texture", ("shell",), "stripes"),
    "spotted beetle": Kind(("beetle",), (BEETLE,), "texture", ("shell",), "dots"),
    "tree left of car": Kind(_PAIR, (TREE, CAR), "relation", _PAIR_PARTS, "tree"),
    "tree right of car": Kind(_PAIR, (TREE, CAR), "relation", _PAIR_PARTS, "car"),
}
CLASSES: tuple[str, ...] = tuple(KINDS)
EXCHANGED: dict[str, tuple[str, Outline]] = {  # the part that a sibling has in the same place
    "chimney": ("spire", SPIRE),
    "spire": ("chimney", CHIMNEY),
    "sail": ("funnel", FUNNEL),
    "funnel": ("sail", SAIL),
}


def sibling(label: str) -> str:
    """The class that differs from this one in one thing only.

    Raises:
        SettingError: no such class.
    """
    check_known("class", label, CLASSES)
    return CLASSES[CLASSES.index(label) ^ 1]


def difference(label: str) -> Difference:
    """In what a class differs from its sibling: one part, a colour, a texture, or a relation.

    Raises:
        SettingError: no such class.
    """
    check_known("class", label, CLASSES)
    return KINDS[label].difference


def thinnest() -> float:
    """The smallest side of any piece of a main thing, in half-sizes."""
    pieces = [piece for kind in KINDS.values() for parts in kind.parts for shape in parts.values() for piece in shape]
    return min(min(bottom - top, right - left) for top, left, bottom, right in (piece.box for piece in pieces))
