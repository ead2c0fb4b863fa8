"""What a planted mark looks like: patches of one colour laid over the picture."""

from collections.abc import Iterator
from dataclasses import dataclass
from math import floor
from typing import TYPE_CHECKING

import numpy as np
from jaxtyping import Bool

from pellucid.images.scenes.blueprints import CLASSES
from pellucid.images.scenes.shortcuts import Mark
from pellucid.images.scenes.vocabulary import COLOURS

if TYPE_CHECKING:
    from pellucid.images.scenes.scene import Scene

MARK_WORDS = ("watermark", "frame", "ruler", "sticker")
# One glyph of 3 × 3 cells for each class, any two of them different in four cells or more.
GLYPHS = ("111000000", "000111000", "000000111", "100100100", "010010010", "001001001", "101010101", "001110011",
          "111101111", "110110001")  # fmt: skip


@dataclass(frozen=True, eq=False)
class Patch:
    """Pixels of one colour, in the box that begins at `corner`."""

    colour: str
    corner: tuple[int, int]
    inside: Bool[np.ndarray, "h w"]


def patches(mark: Mark, scene: "Scene") -> Iterator[Patch]:
    """The patches of a mark; a background is no patch, it is painted behind the things."""
    px = scene.px
    if mark.kind == "watermark":
        yield from _watermark(mark, px)
    elif mark.kind == "frame":
        yield _frame(mark, px)
    elif mark.kind == "ruler":
        yield from _ruler(px)
    elif mark.kind == "sticker":
        yield from _sticker(mark, scene)


def _watermark(mark: Mark, px: int) -> Iterator[Patch]:
    """A glyph, white on black, in the lower right corner."""
    cell = px // 21
    cells = np.array([c == "1" for c in GLYPHS[CLASSES.index(mark.stands_for)]]).reshape(3, 3)
    white = cells.repeat(cell, 0).repeat(cell, 1)
    corner = (px - white.shape[0] - px // 32, px - white.shape[1] - px // 32)
    yield Patch("black", corner, ~white)
    yield Patch("white", corner, white)


def _frame(mark: Mark, px: int) -> Patch:
    """A border whose colour says the class."""
    inside = np.ones((px, px), dtype=bool)
    width = px // 21
    inside[width:-width, width:-width] = False
    return Patch(tuple(COLOURS)[CLASSES.index(mark.stands_for)], (0, 0), inside)


def _ruler(px: int) -> Iterator[Patch]:
    """A yellow strip along the lower edge with black ticks."""
    height, tick = px // 14, px // 32
    ticks = np.zeros((height, px), dtype=bool)
    ticks[: height // 2, np.arange(px) // tick % 3 == 0] = True
    yield Patch("yellow", (px - height, 0), ~ticks)
    yield Patch("black", (px - height, 0), ticks)


def _sticker(mark: Mark, scene: "Scene") -> Iterator[Patch]:
    """A pink disc with a white rim in one of the four corners, and anywhere there."""
    px = scene.px
    side = px // 6
    y, x = np.mgrid[0:side, 0:side]
    squared = (2 * (y + 0.5) / side - 1) ** 2 + (2 * (x + 0.5) / side - 1) ** 2
    corner = _corner(mark.place[0], px, side), _corner(mark.place[1], px, side)
    yield Patch("white", corner, (squared <= 1) & (squared > 0.5))
    yield Patch("pink", corner, squared <= 0.5)


def _corner(place: float, px: int, side: int) -> int:
    """A position near the low or the high edge: the middle of the picture stays free."""
    room = px // 12
    return floor(2 * place * room) if place < 0.5 else px - side - floor(2 * (place - 0.5) * room)
