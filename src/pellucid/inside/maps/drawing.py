"""Contact sheets of maps, bars for layers without maps, and the colour bar that goes with them."""

from collections.abc import Sequence

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from pellucid.render import paint
from pellucid.render.bars import COLD, WARM
from pellucid.render.sheet import FAINT, INK, Panel, shortened

CELL_PX, COLUMNS = 112, 8
BAR_PX, LABEL_PX, ROW_PX = 420, 190, 18


def digits(value: float) -> str:
    """Three digits that count, in the letters that Pillow's own font has."""
    return f"{value:.3g}"


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


def fitted(picture: Image.Image, side_px: int) -> Image.Image:
    """A picture no larger than a square of this side."""
    scale = side_px / max(picture.size)
    size = tuple(max(1, round(n * scale)) for n in picture.size)
    return picture.resize((size[0], size[1]), Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST)


def rows(panels: Sequence[Panel], columns: int = COLUMNS) -> list[Sequence[Panel]]:
    """Panels in rows."""
    return [panels[start : start + columns] for start in range(0, len(panels), columns)]


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


def bars(names: Sequence[str], values: Sequence[float]) -> Image.Image:
    """Numbers as bars from zero, one a row, with their numbers."""
    finite = [v for v in values if np.isfinite(v)]
    lowest, highest = min([*finite, 0.0]), max([*finite, 0.0])
    span = (highest - lowest) or 1.0
    zero = LABEL_PX + BAR_PX * -lowest / span
    canvas = Image.new("RGB", (LABEL_PX + BAR_PX + 70, ROW_PX * len(values) + 4), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    for number, (name, value) in enumerate(zip(names, values, strict=True)):
        top = number * ROW_PX + 2
        pen.text((0, top), shortened(name, LABEL_PX - 8, font), fill=INK, font=font)
        end = zero + BAR_PX * value / span if np.isfinite(value) else zero
        pen.rectangle((min(zero, end), top + 2, max(zero, end), top + ROW_PX - 4), fill=WARM if value > 0 else COLD)
        pen.text((LABEL_PX + BAR_PX + 6, top), digits(value), fill=INK, font=font)
    pen.line((zero, 0, zero, canvas.height), fill=FAINT)
    return canvas
