"""Maps of fields with their colour bars, and fields as boxes on a picture."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from pellucid.render.colours import SEQUENTIAL
from pellucid.render.fitting import fitted
from pellucid.render.paint import colour_bar, draw, limit
from pellucid.render.sheet import Panel
from pellucid.render.visible import drawable

SIDE_PX, LEAST_PX = 260, 40
BEYOND = (225, 225, 225)  # what lies beyond the picture
BLACK, WHITE = (0, 0, 0), (255, 255, 255)
MARGIN = 0.5  # of the picture's side is shown beyond it, at most

Reached = tuple[tuple[int, int], ...]  # first and last pixel along each axis


@dataclass(frozen=True)
class Frame:
    """One field to draw on a picture."""

    reached: Reached
    colour: tuple[int, int, int]
    words: str = ""


def flat(values: Float[np.ndarray, "*space"]) -> Float[np.ndarray, "h w"]:
    """As rows and columns: a line as one row, a volume summed along its first axis."""
    while values.ndim > 2:
        values = values.sum(0)
    return np.ascontiguousarray(values if values.ndim == 2 else values.reshape(1, -1))


def map_panel(
    values: Float[np.ndarray, "*space"],
    words: Sequence[str],
    *,
    diverging: bool,
    end: float | None = None,
    side_px: int = SIDE_PX,
) -> Panel:
    """A map in colours, the limits printed below."""
    rows = flat(values)
    end = limit(rows, 100) if end is None else end
    drawn = fitted(draw(rows, end, diverging), side_px, cells=True, least_px=LEAST_PX)
    bar = colour_bar(end, diverging, width_px=max(drawn.width, 120))
    canvas = Image.new("RGB", (max(drawn.width, bar.width), drawn.height + 6 + bar.height), "white")
    canvas.paste(drawn, (0, 0))
    canvas.paste(bar, (0, drawn.height + 6))
    return canvas, words


def framed(picture: Image.Image, frames: Sequence[Frame], side_px: int = 2 * SIDE_PX) -> Image.Image:
    """Fields as frames on a picture, grey where they go beyond its border."""
    height, width = picture.height, picture.width
    pairs = [f.reached if len(f.reached) == 2 else ((0, height - 1), *f.reached[-1:]) for f in frames]
    margins = []
    for axis, n in enumerate((height, width)):
        over = [max(-p[axis][0], p[axis][1] - n + 1, 0) for p in pairs]
        margins.append(min(max(over, default=0), round(MARGIN * n)))
    tall, wide = height + 2 * margins[0], width + 2 * margins[1]
    scale = max(side_px / max(tall, wide), 1e-3)
    canvas = Image.new("RGB", (round(wide * scale), round(tall * scale)), BEYOND)
    resample = Image.Resampling.NEAREST if scale >= 2 else Image.Resampling.BICUBIC
    canvas.paste(picture.resize((round(width * scale), round(height * scale)), resample), _at(margins, scale))
    pen = ImageDraw.Draw(canvas)
    for frame, pair in zip(frames, pairs, strict=True):
        _frame(pen, frame, pair, margins, scale, canvas.size)
    return canvas


def _at(margins: Sequence[int], scale: float) -> tuple[int, int]:
    return round(margins[1] * scale), round(margins[0] * scale)


def _frame(
    pen: ImageDraw.ImageDraw, frame: Frame, pair: Reached, margins: Sequence[int], scale: float, size: tuple[int, int]
) -> None:
    """One frame, cut where the canvas ends, its words in its corner."""
    (top, bottom), (left, right) = pair
    x0, x1 = ((p + margins[1]) * scale for p in (left, right + 1))
    y0, y1 = ((p + margins[0]) * scale for p in (top, bottom + 1))
    x0, x1 = (min(max(x, 0), size[0] - 1) for x in (x0, x1))
    y0, y1 = (min(max(y, 0), size[1] - 1) for y in (y0, y1))
    pen.rectangle((x0, y0, x1, y1), outline=BLACK, width=4)
    if x1 - x0 > 4 and y1 - y0 > 4:
        pen.rectangle((x0 + 1, y0 + 1, x1 - 1, y1 - 1), outline=frame.colour, width=2)
    if frame.words:
        font = ImageFont.load_default(12)
        place = (x0 + 6, max(y1 - 18, y0 + 2))
        pen.text(place, drawable(frame.words), fill=WHITE, font=font, stroke_width=2, stroke_fill=BLACK)


def legend(frames: Sequence[Frame], height_px: int) -> Image.Image:
    """What each frame is, in its colour, largest first."""
    font = ImageFont.load_default(13)
    lines = [drawable(f.words) for f in frames]
    width = 34 + round(max((font.getlength(line) for line in lines), default=0))
    canvas = Image.new("RGB", (width, max(height_px, 24 * len(lines))), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (frame, line) in enumerate(zip(frames, lines, strict=True)):
        top = 24 * row
        pen.rectangle((2, top + 3, 18, top + 17), fill=frame.colour, outline=BLACK, width=2)
        pen.text((28, top + 1), line, fill=(30, 30, 30), font=font)
    return canvas


def shades(count: int) -> list[tuple[int, int, int]]:
    """Colours that stay apart, from light to dark."""
    steps = np.linspace(0.25, 0.85, max(count, 1))
    table = SEQUENTIAL[(steps * (len(SEQUENTIAL) - 1)).astype(int), :3]
    return [(int(r), int(g), int(b)) for r, g, b in table]
