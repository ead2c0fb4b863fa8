"""A scene as a value, and how one is drawn at random from a seed."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from math import cos, pi, sin
from typing import Literal, TypeVar

from pellucid.core.errors import SettingError, check_known
from pellucid.images.scenes.blueprints import CLASSES, DISTRACTORS, KINDS, OCCLUDERS, Outline, sibling, thinnest
from pellucid.images.scenes.shortcuts import Mark, Shortcut, checked, mark_of
from pellucid.images.scenes.vocabulary import BACKDROPS, COLOURS, MATERIALS, TEXTURES

T = TypeVar("T")
Role = Literal["main", "distractor", "occluder"]
LEAST_PX, MOST_PX, LARGEST_SEED = 64, 512, 2**62
HALF_SIZE = (0.22, 0.29)  # of a main thing, as a fraction of the picture's side
PAIR_SHARE = 0.62  # how large the two things of a relation are beside the others
OCCLUDED_FRACTION = 0.35  # a share of pictures has something in front of the main thing


@dataclass(frozen=True)
class Surface:
    """What covers a part: its three words, the seed of its grain, and a small deviation of its colour."""

    colour: str
    texture: str
    material: str
    seed: int
    shift: tuple[float, float, float] = (0.0, 0.0, 0.0)


@dataclass(frozen=True)
class Part:
    """One piece of a thing, in units of the thing's half-size."""

    name: str
    outline: Outline
    surface: Surface


@dataclass(frozen=True)
class Thing:
    """Parts that stand together.

    Attributes:
        name: the word it is labelled with.
        y, x: centre, as fractions of the picture's side.
        size: half-size, likewise.
        turn: in radians, clockwise.
        parts: back to front.
    """

    name: str
    role: Role
    y: float
    x: float
    size: float
    turn: float
    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Backdrop:
    """Sky above ground.

    Attributes:
        horizon: how far down the ground begins, as a fraction of the picture's side; the row it crosses is ground.
    """

    name: str
    sky: Surface
    ground: Surface
    horizon: float


@dataclass(frozen=True)
class Light:
    """Brightness in the middle (`gain`), and how much it rises from there to the lower and to the right edge."""

    gain: float
    down: float
    right: float


@dataclass(frozen=True)
class Scene:
    """Everything a picture shows; `render` paints it, the edits give the same scene with one thing changed.

    Attributes:
        px: side of the square picture.
        seed: of every random number in it.
        label: the class it was made as; `truth` says what an edited scene is.
        things: back to front.
        marks: planted shortcuts.
    """

    px: int
    seed: int
    label: str
    backdrop: Backdrop
    things: tuple[Thing, ...]
    light: Light
    marks: tuple[Mark, ...] = ()

    @property
    def parts(self) -> tuple[str, ...]:
        """Names of everything that can be taken away: parts of the main things, distractors, the occluder."""
        return tuple(name for name, _, _ in named_parts(self))

    def __repr__(self) -> str:
        marks = f", {', '.join(m.kind for m in self.marks)}" if self.marks else ""
        return f"Scene({self.label}, {self.backdrop.name}, seed {self.seed}, {self.px} px{marks})"


def named_parts(scene: Scene) -> Iterator[tuple[str, Thing, Part]]:
    """Every part with its name in the scene; a distractor and the occluder are one part each."""
    count = 0
    for thing in scene.things:
        if thing.role == "distractor":
            yield f"distractor {count}", thing, thing.parts[0]
            count += 1
        else:
            for part in thing.parts:
                yield ("occluder" if thing.role == "occluder" else part.name), thing, part


class Draw:
    """Random numbers whose stream Python guarantees: only `random()` of a Mersenne twister seeded by a text."""

    def __init__(self, *words: object) -> None:
        self._random = random.Random(" ".join(map(str, words))).random

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self._random()

    def pick(self, some: Sequence[T]) -> T:
        return some[int(self._random() * len(some))]

    def chance(self, fraction: float) -> bool:
        return self._random() < fraction

    def whole(self) -> int:
        return int(self._random() * 2**48)

    def few(self, some: Sequence[T], count: int) -> list[T]:
        """Different ones, in random order."""
        rest = list(some)
        return [rest.pop(int(self._random() * len(rest))) for _ in range(count)]


def compose(seed: int, *, px: int = 64, label: str | None = None, shortcuts: Sequence[Shortcut] = ()) -> Scene:
    """A scene drawn from a seed.

    The scene is the same with and without shortcuts, but for their marks.

    Args:
        seed: 0 to 2**62; the same seed gives the same scene and the same bytes.
        px: side of the picture, 64 to 512.
        label: the class; drawn where it is None.
        shortcuts: planted marks.

    Raises:
        SettingError: a size too small for the parts, an unknown class, a shortcut that can't be planted.
    """
    check_px(px)
    check_whole("seed", seed, LARGEST_SEED)
    if label is not None:
        check_known("class", label, CLASSES)
    label = label or Draw(seed, "class").pick(CLASSES)
    backdrop = drawn_backdrop(Draw(seed, "backdrop").pick(tuple(BACKDROPS)), seed)
    main = _main_things(label, seed, (backdrop.sky.colour, backdrop.ground.colour))
    draw = Draw(seed, "light")
    light = Light(draw.between(0.85, 1.08), draw.between(-0.12, 0.12), draw.between(-0.12, 0.12))
    things = (*_distractors(main, seed), *main, *_occluder(main, label, seed))
    marks = tuple(m for s in checked(shortcuts) if (m := _mark(s, label, seed)) is not None)
    return Scene(px, seed, label, backdrop, things, light, marks)


def stream(
    n: int, *, seed: int = 0, px: int = 64, split: str = "train", shortcuts: Sequence[Shortcut] = ()
) -> Iterator[Scene]:
    """n scenes with every class equally often; scene i depends on (seed, split, i) only, not on n.

    Raises:
        SettingError: n or seed is negative, or as for `compose`.
    """
    check_whole("n", n, LARGEST_SEED)
    check_whole("seed", seed, LARGEST_SEED)
    check_px(px)
    checked(shortcuts)
    return (
        compose(picture_seed(seed, split, i), px=px, label=CLASSES[i % len(CLASSES)], shortcuts=shortcuts)
        for i in range(n)
    )


def picture_seed(seed: int, split: str, i: int) -> int:
    """The seed of one picture of a stream."""
    return int.from_bytes(sha256(f"{seed}/{split}/{i}".encode()).digest()[:6], "big")


def check_whole(name: str, value: int, most: int) -> None:
    """
    Raises:
        SettingError: not a whole number from 0 to `most`.
    """
    if not isinstance(value, int) or isinstance(value, bool) or not 0 <= value <= most:
        raise SettingError(f"{name}={value!r} came; use a whole number from 0 to {most}")


def check_px(px: int) -> None:
    """
    Raises:
        SettingError: no whole number, too small for the thinnest part, or too large.
    """
    if not isinstance(px, int) or isinstance(px, bool):
        raise SettingError(f"px={px!r} came; use a whole number from {LEAST_PX} to {MOST_PX}")
    if px < LEAST_PX:
        thin = thinnest() * HALF_SIZE[0] * max(px, 0)
        raise SettingError(
            f"px={px} is too small: the thinnest part would be {thin:.1f} px wide; use {LEAST_PX} to {MOST_PX}"
        )
    if px > MOST_PX:
        raise SettingError(f"px={px} is too large; use {LEAST_PX} to {MOST_PX}")


def drawn_backdrop(name: str, seed: int) -> Backdrop:
    """A backdrop of that name with the scene's own horizon and grain."""
    draw = Draw(seed, "backdrop", name)
    sky, ground = (Surface(*words, draw.whole(), _shift(draw)) for words in BACKDROPS[name])
    return Backdrop(name, sky, ground, Draw(seed, "horizon").between(0.5, 0.8))


def _shift(draw: Draw) -> tuple[float, float, float]:
    grey = draw.between(-0.04, 0.04)
    return tuple(grey + draw.between(-0.03, 0.03) for _ in range(3))  # type: ignore[return-value]


def drawn_surface(draw: Draw, colour: str, texture: str | None = None) -> Surface:
    """A surface of one colour; its texture, unless given, is plain half of the time."""
    chosen = draw.pick(tuple(TEXTURES)) if draw.chance(0.5) else "plain"
    return Surface(colour, texture or chosen, draw.pick(tuple(MATERIALS)), draw.whole(), _shift(draw))


def _main_things(label: str, seed: int, taken: tuple[str, ...]) -> tuple[Thing, ...]:
    """The main things; their parts have different colours, none of them that of the backdrop."""
    draw, kind = Draw(seed, "main"), KINDS[label]
    size, turn = draw.between(*HALF_SIZE), draw.between(-0.12, 0.12)
    y, x = draw.between(0.36, 0.64), draw.between(0.34, 0.66)
    if kind.difference == "texture":
        turn *= 2
    if kind.difference == "relation":
        return _pair(label, draw, seed, taken, size, y, x)
    things = _thing(label, 0, seed, taken, (y, x), size, turn)
    return (things,)


def _pair(
    label: str, draw: Draw, seed: int, taken: tuple[str, ...], size: float, y: float, x: float
) -> tuple[Thing, ...]:
    """Tree and car side by side, with a small gap; which is on the left is what decides."""
    size *= PAIR_SHARE
    gap, sign = draw.between(0.0, 0.05), -1 if KINDS[label].value == "tree" else 1
    half = (0.75 * size + size + gap) / 2
    middle = min(max(x, half + size), 1 - half - size)
    tree = _thing(label, 0, seed, taken, (y, middle + sign * half), size, 0.0)
    car = _thing(label, 1, seed, taken, (y + draw.between(0.0, 0.5) * size, middle - sign * half), size, 0.0)
    return tree, car


def _thing(
    label: str, index: int, seed: int, taken: tuple[str, ...], centre: tuple[float, float], size: float, turn: float
) -> Thing:
    """One main thing; siblings draw the same numbers, and no other part has a colour that decides between them."""
    kind = KINDS[label]
    siblings = {kind.value, KINDS[sibling(label)].value}
    draw = Draw(seed, "thing", *sorted(siblings), index)
    outlines = kind.parts[index]
    parts, free = [], [c for c in COLOURS if c not in taken and c not in siblings]
    for (name, outline), colour in zip(outlines.items(), draw.few(free, len(outlines)), strict=True):
        decides = name in kind.decisive
        chosen = kind.value if decides and kind.difference == "colour" else colour
        texture = kind.value if decides and kind.difference == "texture" else None
        surface = drawn_surface(draw, chosen, texture)
        if decides and kind.difference in ("part", "colour"):
            surface = replace(surface, texture="plain")
        parts.append(Part(name, outline, surface))
    return Thing(kind.objects[index], "main", *centre, size, turn, tuple(parts))


def _distractors(main: tuple[Thing, ...], seed: int) -> tuple[Thing, ...]:
    """One to three single shapes of any colour and texture, where there is room beside the main things.

    Two main things leave room for one another's place, so that both siblings have the same distractors.
    """
    draw = Draw(seed, "distractors")
    blocked = [replace(thing, x=other.x) for thing in main for other in main]
    found: list[Thing] = []
    for _ in range(1 + int(draw.between(0.0, 3.0))):
        size = draw.between(0.07, 0.12)
        for _ in range(12):
            y, x = draw.between(size, 1 - size), draw.between(size, 1 - size)
            if all(_apart(y, x, size, other) for other in (*blocked, *found)):
                name = draw.pick(tuple(DISTRACTORS))
                surface = drawn_surface(draw, draw.pick(tuple(COLOURS)))
                part = Part(name, DISTRACTORS[name], surface)
                found.append(Thing(name, "distractor", y, x, size, draw.between(-0.4, 0.4), (part,)))
                break
    return tuple(found)


def _apart(y: float, x: float, size: float, other: Thing) -> bool:
    reach = size + other.size
    return abs(y - other.y) > reach or abs(x - other.x) > reach


def _occluder(main: tuple[Thing, ...], label: str, seed: int) -> tuple[Thing, ...]:
    """In some pictures, a pole or a leaf before the main thing, off the middle of the part that decides."""
    draw = Draw(seed, "occluder")
    if not draw.chance(OCCLUDED_FRACTION):
        return ()
    thing = replace(draw.pick(sorted(main, key=lambda t: t.x)), y=main[0].y)  # the same place for both siblings
    name = draw.pick(tuple(OCCLUDERS))
    decisive = [p for p in thing.parts if p.name in KINDS[label].decisive and KINDS[label].difference == "part"]
    size = thing.size * draw.between(0.8, 1.1)
    surface = drawn_surface(draw, draw.pick(tuple(COLOURS)))
    side = draw.between(-0.8, 0.0) if decisive else draw.between(-0.8, 0.8)
    low = draw.between(0.1, 0.7) if name == "leaf" else draw.between(0.0, 0.4)
    sine, cosine = sin(thing.turn), cos(thing.turn)
    y = thing.y + thing.size * (low * cosine + side * sine)
    x = thing.x + thing.size * (side * cosine - low * sine)
    turn = draw.between(-pi / 8, pi / 8)
    return (Thing(name, "occluder", y, x, size, turn, (Part(name, OCCLUDERS[name], surface),)),)


def _mark(shortcut: Shortcut, label: str, seed: int) -> Mark | None:
    draw = Draw(seed, "mark", shortcut.kind)
    planted, place = draw.chance(shortcut.share), (draw.between(0.0, 1.0), draw.between(0.0, 1.0))
    return mark_of(shortcut, label, place) if planted else None
