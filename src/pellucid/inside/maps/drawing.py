"""One map of a contact sheet, and the colour bar that goes with all of them."""

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from pellucid.render import paint
from pellucid.render.sheet import FAINT, INK

CELL_PX, COLUMNS = 112, 8


def plane(values: Float[np.ndarray, "*space"]) -> Float[np.ndarray, "h w"]:
    """What is drawn of one map: a series as one row, of a volume the middle slice along its first axis."""
    while values.ndim > 2:
        values = values[len(values) // 2]
    return np.atleast_2d(values)


def cell(values: Float[np.ndarray, "*space"], low: float, high: float, signed: bool, side_px: int) -> Image.Image:
    """One map as large as its cell, every position a block of one colour.

    Args:
        low, high: where the colours begin and end; about zero, as far as the larger of both, for signed values.
    """
    shown = plane(values).astype(np.float64)
    end = max(abs(low), abs(high)) if signed else high - low
    drawn = paint.draw(shown if signed else shown - low, end, signed)
    height = round(side_px * shown.shape[0] / shown.shape[1])
    return drawn.resize((side_px, min(max(height, side_px // 7), 2 * side_px)), Image.Resampling.NEAREST)


def key(low: str, high: str, signed: bool, words: str) -> Image.Image:
    """A colour bar with words at its ends and a line about it."""
    font, width = ImageFont.load_default(12), 256
    height = 14 + 18 * (1 + bool(words))
    canvas = Image.new("RGB", (max(width, round(font.getlength(words))) + 2, height), "white")
    canvas.paste(Image.fromarray(paint.strip(signed)).resize((width, 14), Image.Resampling.NEAREST), (0, 0))
    pen = ImageDraw.Draw(canvas)
    pen.text((1, 16), low, fill=INK, font=font)
    pen.text((width, 16), high, fill=INK, font=font, anchor="ra")
    if signed:
        pen.text((width / 2, 16), "0", fill=INK, font=font, anchor="ma")
    pen.text((1, 32), words, fill=FAINT, font=font)
    return canvas
