"""Matrices as pictures: zero is neutral, limits are printed, every row and column is named."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from pellucid.render import paint
from pellucid.render.sheet import FAINT, INK, shortened, wrapped
from pellucid.render.visible import drawable

CELL_PX, WRITTEN_PX, MOST_WORDS_PX, MARGIN_PX = 16, 40, 150, 12
LARGEST_PX = 900


def matrix_picture(
    matrix: Float[np.ndarray, "rows columns"],
    title: str,
    rows: Sequence[str],
    columns: Sequence[str],
    *,
    sides: tuple[str, str] = ("", ""),
    units: str = "",
    diverging: bool = True,
    cuts: tuple[Sequence[int], Sequence[int]] = ((), ()),
    written: bool = False,
) -> Image.Image:
    """A matrix with its rows and columns named, and its colour bar.

    Args:
        sides: what the rows are, and what the columns are.
        units: of the numbers, beside the colour bar.
        cuts: lines are drawn before these rows and columns.
        written: the numbers stand in the cells, and a cell that is NaN stays white.
    """
    height, width = matrix.shape
    tall, broad = (WRITTEN_PX if written else max(1, min(CELL_PX, LARGEST_PX // max(n, 1))) for n in (height, width))
    font = ImageFont.load_default(11)
    left, top = _room(rows, tall, font), _room(columns, broad, font)
    end = paint.limit(matrix, 99.5)
    heat = paint.draw(matrix, end, diverging).resize((width * broad, height * tall), Image.Resampling.NEAREST)
    wide = max(left + heat.width + 20, 420)
    heads, feet = wrapped(title, wide, ImageFont.load_default(14)), wrapped(units, wide, font)
    x, y = MARGIN_PX + 20 + left, 32 + 18 * len(heads) + top
    canvas = Image.new("RGB", (wide + 2 * MARGIN_PX, y + heat.height + 62 + 15 * len(feet)), "white")
    pen = ImageDraw.Draw(canvas)
    _written(pen, heads, 8, 18, INK, ImageFont.load_default(14))
    canvas.paste(heat, (x, y))
    if written:
        _numbers(pen, matrix, end, (x, y), font)
    _ruled(pen, (x, y), (heat.width, heat.height), [c * tall for c in cuts[0]], [c * broad for c in cuts[1]])
    for number, words in enumerate(rows if left else ()):
        told = shortened(words, left - 6, font)
        pen.text((x - 5, y + (number + 0.5) * tall), told, fill=INK, font=font, anchor="rm")
    for number, words in enumerate(columns if top else ()):
        _upright(canvas, shortened(words, top - 6, font), (x + round((number + 0.5) * broad), y - 4), font)
    pen.text((x, y - top - 18), drawable(sides[1]), fill=FAINT, font=font)
    if sides[0]:
        _upright(canvas, drawable(sides[0]), (MARGIN_PX + 6, y + min(heat.height, 240)), font, FAINT)
    canvas.paste(paint.colour_bar(end, diverging, width_px=min(max(heat.width, 160), 256)), (x, y + heat.height + 12))
    _written(pen, feet, y + heat.height + 50, 15, FAINT, font)
    return canvas


def _room(words: Sequence[str], cell: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """How many pixels the names need; none where cells are too small to be named."""
    if cell < 11:
        return 0
    return min(max([round(font.getlength(drawable(w))) for w in words], default=0) + 10, MOST_WORDS_PX)


def _written(
    pen: ImageDraw.ImageDraw,
    lines: Sequence[str],
    top: int,
    line_px: int,
    ink: tuple[int, int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    for number, words in enumerate(lines):
        pen.text((MARGIN_PX, top + line_px * number), words, fill=ink, font=font)


def _numbers(
    pen: ImageDraw.ImageDraw,
    matrix: Float[np.ndarray, "rows columns"],
    end: float,
    corner: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    """The numbers in their cells, light on dark ones; what is missing is white."""
    for (row, column), value in np.ndenumerate(matrix):
        x, y = corner[0] + column * WRITTEN_PX, corner[1] + row * WRITTEN_PX
        if np.isnan(value):
            pen.rectangle((x, y, x + WRITTEN_PX, y + WRITTEN_PX), fill="white")
            continue
        ink = "white" if abs(value) > 0.55 * end else INK
        pen.text((x + WRITTEN_PX // 2, y + WRITTEN_PX // 2), f"{value:.2f}", fill=ink, font=font, anchor="mm")


def _ruled(
    pen: ImageDraw.ImageDraw,
    corner: tuple[int, int],
    size: tuple[int, int],
    across: Sequence[int],
    down: Sequence[int],
) -> None:
    """A frame, with lines across and down at some distances from its corner."""
    (x, y), (width, height) = corner, size
    pen.rectangle((x - 1, y - 1, x + width, y + height), outline=FAINT)
    for cut in across:
        pen.line((x, y + cut, x + width, y + cut), fill=INK)
    for cut in down:
        pen.line((x + cut, y, x + cut, y + height), fill=INK)


def _upright(
    canvas: Image.Image,
    words: str,
    foot: tuple[int, int],
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
    ink: tuple[int, int, int] = INK,
) -> None:
    """Words written upwards from a point."""
    long = max(1, round(font.getlength(words)) + 2)
    slip = Image.new("RGB", (long, 16), "white")
    ImageDraw.Draw(slip).text((0, 1), words, fill=ink, font=font)
    canvas.paste(slip.rotate(90, expand=True), (foot[0] - 8, foot[1] - long))
