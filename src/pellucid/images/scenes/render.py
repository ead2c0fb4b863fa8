"""Paint a scene, and say of every pixel what it shows."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from math import ceil, cos, floor, sin

import numpy as np
from jaxtyping import Bool, Float64, Int16, UInt8

from pellucid.core.errors import check_known
from pellucid.images.scenes.blueprints import DISTRACTORS, KINDS, OCCLUDERS, Ellipse, Outline, Polygon
from pellucid.images.scenes.edits import decisive_parts
from pellucid.images.scenes.marks import MARK_WORDS, Patch, patches
from pellucid.images.scenes.scene import Backdrop, Scene, Surface, Thing, drawn_backdrop, named_parts
from pellucid.images.scenes.vocabulary import (
    BACKDROPS,
    COLOURS,
    MATERIALS,
    PERIOD,
    TEXTURES,
    Plane,
    Whole,
    hashed,
    two_tones,
)

NOTHING = "none"
OBJECTS = tuple(dict.fromkeys(name for kind in KINDS.values() for name in kind.objects))
PARTS = tuple(dict.fromkeys(name for kind in KINDS.values() for parts in kind.parts for name in parts))
CONCEPTS: dict[str, tuple[str, ...]] = {
    "scene": tuple(BACKDROPS),
    "object": (NOTHING, *OBJECTS, *DISTRACTORS, *OCCLUDERS, *MARK_WORDS),
    "part": (NOTHING, *PARTS),
    "material": tuple(MATERIALS),
    "texture": tuple(TEXTURES),
    "colour": tuple(COLOURS),
}
GRAIN = 6 / 255  # the width of the sensor's noise
LABEL_FROM = 0.5  # a mark at least this opaque is what the pixel is labelled with


@dataclass(frozen=True)
class Layer:
    """One painted thing: what it is called in the scene and in each kind of concept."""

    name: str
    object: str
    part: str
    surface: Surface
    is_mark: bool = False
    is_main: bool = False


@dataclass(frozen=True, eq=False)
class Rendered:
    """A painted scene.

    Attributes:
        pixels: RGB.
        top: for each pixel, the index in `layers` of what is seen there.
        mark: pixels that a planted shortcut changed.
        backdrop: the name of the one that is seen.
    """

    scene: Scene
    pixels: UInt8[np.ndarray, "h w 3"]
    top: Int16[np.ndarray, "h w"]
    mark: Bool[np.ndarray, "h w"]
    backdrop: str
    layers: tuple[Layer, ...]

    def labels(self, kind: str) -> Int16[np.ndarray, "h w"]:
        """For each pixel, the index in `CONCEPTS[kind]` of what it shows.

        Args:
            kind: "scene" (one word for the whole picture), "object", "part", "material", "texture" or "colour".

        Raises:
            SettingError: no such kind.
        """
        check_known("kind of concept", kind, CONCEPTS)
        words = CONCEPTS[kind]
        of_layer = [words.index(self._word(kind, layer)) for layer in self.layers]
        return np.array(of_layer, dtype=np.int16)[self.top]

    def _word(self, kind: str, layer: Layer) -> str:
        if kind == "scene":
            return self.backdrop
        return layer.object if kind == "object" else layer.part if kind == "part" else getattr(layer.surface, kind)

    def part(self, name: str) -> Bool[np.ndarray, "h w"]:
        """The pixels in which a part (a name of `scene.parts`) is seen; all False where it is hidden.

        Raises:
            SettingError: the scene has no such part.
        """
        check_known("part", name, self.scene.parts)
        return self._seen(lambda layer: layer.name == name)

    @cached_property
    def object(self) -> Bool[np.ndarray, "h w"]:
        """The pixels in which the main things are seen."""
        return self._seen(lambda layer: layer.is_main)

    @cached_property
    def decisive(self) -> Bool[np.ndarray, "h w"]:
        """The pixels whose change may change the class: where the parts that decide between siblings are seen."""
        names = decisive_parts(self.scene)
        return self._seen(lambda layer: layer.is_main and layer.name in names)

    @property
    def background(self) -> Bool[np.ndarray, "h w"]:
        """The pixels in which sky or ground are seen."""
        return self._seen(lambda layer: layer.object == NOTHING)

    def _seen(self, wanted: Callable[[Layer], bool]) -> Bool[np.ndarray, "h w"]:
        return np.array([wanted(layer) for layer in self.layers])[self.top]

    def __repr__(self) -> str:
        return f"Rendered({self.scene!r}, {int(self.decisive.sum())} decisive pixels)"


class _Canvas:
    """Layers painted over one another, with the index of the topmost at each pixel."""

    def __init__(self, px: int) -> None:
        self.px = px
        self.colour = np.zeros((px, px, 3))
        self.top = np.zeros((px, px), dtype=np.int16)
        self.mark = np.zeros((px, px), dtype=bool)
        self.layers: list[Layer] = []

    def paint(
        self,
        layer: Layer,
        inside: Bool[np.ndarray, "h w"],
        corner: tuple[int, int] = (0, 0),
        anchor: tuple[int, int] = (0, 0),
        opacity: float = 1.0,
    ) -> None:
        """Paint a layer where `inside` says so, in the box that begins at `corner`."""
        h, w = inside.shape
        box = np.s_[corner[0] : corner[0] + h, corner[1] : corner[1] + w]
        y, x = np.mgrid[box]
        painted = covered(layer.surface, y - anchor[0], x - anchor[1], self.px)
        old = self.colour[box]
        self.colour[box] = np.where(inside[..., None], old + opacity * (painted - old), old)
        if opacity >= LABEL_FROM:
            self.top[box][inside] = len(self.layers)
        self.mark[box][inside] = layer.is_mark
        self.layers.append(layer)


def covered(surface: Surface, y: Whole, x: Whole, px: int) -> Float64[np.ndarray, "h w 3"]:
    """The colour of a surface at integer coordinates: two tones by its texture, brighter and darker by its material."""
    first, second = two_tones(COLOURS[surface.colour])
    second_tone = TEXTURES[surface.texture]((y + 0.5) / (PERIOD * px), (x + 0.5) / (PERIOD * px))[..., None]
    grain = MATERIALS[surface.material](y, x, surface.seed, px)[..., None]
    return ((first + second_tone * (second - first)) + np.array(surface.shift)) * grain


def render(scene: Scene) -> Rendered:
    """Paint a scene; the same scene gives the same bytes.

    Everything but the marks is lit; the sensor's noise belongs to the place on the picture, so that an edited scene
    differs from the first only where the edit is seen.
    """
    px = scene.px
    canvas = _Canvas(px)
    _paint_backdrop(canvas, scene.backdrop, 1.0, is_mark=False)
    seen = scene.backdrop.name
    for mark in scene.marks:
        if mark.kind == "background":
            other = drawn_backdrop(backdrop_of(mark.stands_for), scene.seed)
            _paint_backdrop(canvas, other, mark.strength, is_mark=True)
            seen = other.name if mark.strength >= LABEL_FROM else seen
    for name, thing, part in named_parts(scene):
        word = part.name if thing.role == "main" else NOTHING
        layer = Layer(name, thing.name, word, part.surface, is_main=thing.role == "main")
        _paint_part(canvas, layer, part.outline, thing)
    _light(canvas, scene)
    for mark in scene.marks:
        for patch in patches(mark, scene):
            _paint_patch(canvas, patch, mark.kind, mark.strength)
    y, x = np.mgrid[0:px, 0:px]
    noise = np.stack([hashed(y, x, 3 * scene.seed + c) for c in range(3)], axis=-1) - 0.5
    pixels = np.floor(np.clip(canvas.colour + GRAIN * noise, 0, 1) * 255 + 0.5).astype(np.uint8)
    return Rendered(scene, pixels, canvas.top, canvas.mark, seen, tuple(canvas.layers))


def backdrop_of(label: str) -> str:
    """The backdrop that stands for a class where the background is the shortcut."""
    return tuple(BACKDROPS)[tuple(KINDS).index(label)]


def _paint_backdrop(canvas: _Canvas, backdrop: Backdrop, opacity: float, is_mark: bool) -> None:
    px = canvas.px
    whole, below = np.ones((px, px), dtype=bool), np.zeros((px, px), dtype=bool)
    below[floor(backdrop.horizon * px) :] = True
    for name, surface, inside in (("sky", backdrop.sky, whole & ~below), ("ground", backdrop.ground, below)):
        layer = Layer(f"{name} of {backdrop.name}", NOTHING, NOTHING, surface, is_mark)
        canvas.paint(layer, inside, opacity=opacity)


def _paint_part(canvas: _Canvas, layer: Layer, outline: Outline, thing: Thing) -> None:
    """Paint the pixels whose centres lie inside the outline; a part outside the picture paints nothing."""
    px = canvas.px
    reach = thing.size * max(abs(v) for piece in outline for v in piece.box) * 1.5
    top, left = max(0, floor((thing.y - reach) * px)), max(0, floor((thing.x - reach) * px))
    bottom, right = min(px, ceil((thing.y + reach) * px)), min(px, ceil((thing.x + reach) * px))
    if bottom <= top or right <= left:
        top = left = bottom = right = 0
    y, x = np.mgrid[top:bottom, left:right]
    v, u = ((y + 0.5) / px - thing.y) / thing.size, ((x + 0.5) / px - thing.x) / thing.size
    sine, cosine = sin(thing.turn), cos(thing.turn)
    inside = within(outline, cosine * v - sine * u, sine * v + cosine * u)
    canvas.paint(layer, inside, (top, left), (floor(thing.y * px), floor(thing.x * px)))


def within(outline: Outline, y: Plane, x: Plane) -> Bool[np.ndarray, "h w"]:
    """Whether points lie inside any piece of an outline."""
    inside = np.zeros(y.shape, dtype=bool)
    for piece in outline:
        inside |= _in_ellipse(piece, y, x) if isinstance(piece, Ellipse) else _in_polygon(piece, y, x)
    return inside


def _in_ellipse(one: Ellipse, y: Plane, x: Plane) -> Bool[np.ndarray, "h w"]:
    return ((y - one.y) / one.ry) ** 2 + ((x - one.x) / one.rx) ** 2 <= 1


def _in_polygon(one: Polygon, y: Plane, x: Plane) -> Bool[np.ndarray, "h w"]:
    """A ray to the right crosses the line an odd number of times."""
    odd = np.zeros(y.shape, dtype=bool)
    for (y1, x1), (y2, x2) in zip(one.corners, (*one.corners[1:], one.corners[0]), strict=True):
        if y1 != y2:
            crosses = (y1 > y) != (y2 > y)
            odd ^= crosses & (x < x1 + (y - y1) * ((x2 - x1) / (y2 - y1)))
    return odd


def _light(canvas: _Canvas, scene: Scene) -> None:
    along = (np.arange(canvas.px) + 0.5) / canvas.px * 2 - 1
    light = scene.light
    canvas.colour *= (light.gain + light.down * along[:, None] + light.right * along[None, :])[..., None]


def _paint_patch(canvas: _Canvas, patch: Patch, kind: str, strength: float) -> None:
    surface = Surface(patch.colour, "plain", "matte", 0)
    canvas.paint(Layer(kind, kind, NOTHING, surface, is_mark=True), patch.inside, patch.corner, opacity=strength)
