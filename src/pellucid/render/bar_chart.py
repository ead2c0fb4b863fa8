"""Numbers with names as horizontal bars from zero: warm to the right, cold to the left."""

from collections.abc import Sequence
from math import isfinite

from PIL import Image, ImageDraw, ImageFont

from pellucid.render.bars import COLD, WARM
from pellucid.render.paint import plain
from pellucid.render.sheet import FAINT, INK, shortened, wrapped
from pellucid.render.visible import drawable

MARGIN_PX, MOST_NAME_PX, LONGEST_PX, NUMBER_PX, LINE_PX = 12, 230, 380, 66, 20


def bar_chart(
    names: Sequence[str],
    values: Sequence[int | float],
    *,
    title: str = "",
    errors: Sequence[int | float] = (),
    units: str = "",
) -> Image.Image:
    """One bar a row with its number at its tip; no bar where a value is not finite.

    Args:
        title: with a margin around all of it; without one the bars stand on a sheet with a margin of its own.
        errors: half the length of a whisker for each value, in its unit; NaN for none.
        units: what the numbers are, below the bars.
    """
    given = errors if len(errors) else [0.0] * len(values)
    whiskers = [e if isfinite(e) and isfinite(v) else 0.0 for v, e in zip(values, given, strict=True)]
    ends = [v + s * w for v, w in zip(values, whiskers, strict=True) if isfinite(v) for s in (-1, 1)]
    low, high = min([*ends, 0.0]), max([*ends, 0.0])
    span = (high - low) or 1.0
    font, large = ImageFont.load_default(12), ImageFont.load_default(14)
    margin = MARGIN_PX if title else 0
    room = min(max((round(font.getlength(drawable(n))) for n in names), default=0) + 10, MOST_NAME_PX)
    zero = margin + room + (NUMBER_PX if any(v < 0 for v in (*values, low)) else 0) - LONGEST_PX * (low / span)
    wide = max(round(zero + LONGEST_PX * (high / span)) + NUMBER_PX + margin, LONGEST_PX if title or units else 0)
    heads = wrapped(title, wide - 2 * margin, large) if title else []
    top = 16 + 18 * len(heads) if heads else 4
    bottom = top + LINE_PX * len(names)
    canvas = Image.new("RGB", (wide, bottom + (30 if units else 4)), "white")
    pen = ImageDraw.Draw(canvas)
    for number, words in enumerate(heads):
        pen.text((margin, 8 + 18 * number), words, fill=INK, font=large)
    for number, (name, value, whisker) in enumerate(zip(names, values, whiskers, strict=True)):
        y = top + LINE_PX * number
        pen.text((margin, y + 2), shortened(name, room - 6, font), fill=INK, font=font)
        _bar(pen, y, zero, value, whisker, span)
    pen.line((zero, top, zero, bottom), fill=INK)
    pen.text((margin, bottom + 8), shortened(units, wide - 2 * margin, font), fill=FAINT, font=font)
    return canvas


def _bar(pen: ImageDraw.ImageDraw, y: int, zero: float, value: float, whisker: float, span: float) -> None:
    tip, reach = zero + (LONGEST_PX * (value / span) if isfinite(value) else 0.0), LONGEST_PX * (whisker / span)
    pen.rectangle((min(zero, tip), y + 3, max(zero, tip), y + LINE_PX - 5), fill=WARM if value > 0 else COLD)
    if reach >= 1:
        pen.line((tip - reach, y + 9, tip + reach, y + 9), fill=INK)
    at, anchor = (tip + reach + 6, "la") if not value < 0 else (tip - reach - 6, "ra")
    pen.text((at, y + 2), plain(value), fill=INK, font=ImageFont.load_default(12), anchor=anchor)
