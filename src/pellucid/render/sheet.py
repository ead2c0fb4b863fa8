"""A sheet of panels: a large one on the left, rows of small ones beside it, something below."""

from collections.abc import Sequence

from PIL import Image, ImageDraw, ImageFont

from pellucid.render.visible import drawable

Panel = tuple[Image.Image, Sequence[str]]
GAP_PX, LINE_PX, WORDS_PX = 10, 15, 12
INK, FAINT = (30, 30, 30), (110, 110, 110)


def sheet(
    title: str, left: Sequence[Panel], rows: Sequence[Sequence[Panel]], below: Image.Image | None = None
) -> Image.Image:
    """All of them on white, each panel with its lines of words below it.

    Args:
        left: at most one, drawn first.
        rows: of panels of one size.
    """
    blocks = [stacked([side_by_side([panel]) for panel in left]), stacked([side_by_side(row) for row in rows if row])]
    body = beside([block for block in blocks if block is not None])
    parts = [part for part in (body, below) if part is not None]
    width = max([part.width for part in parts], default=0) + 2 * GAP_PX
    width = max(width, round(ImageFont.load_default(15).getlength(drawable(title))) + 2 * GAP_PX)
    height = 34 + sum(part.height + GAP_PX for part in parts)
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    pen.text((GAP_PX, 8), drawable(title), fill=INK, font=ImageFont.load_default(15))
    top = 34
    for part in parts:
        canvas.paste(part, (GAP_PX, top))
        top += part.height + GAP_PX
    return canvas


def side_by_side(panels: Sequence[Panel]) -> Image.Image:
    """One row of panels with their words."""
    lines = max(len(words) for _, words in panels)
    tall = max(image.height for image, _ in panels)
    width = sum(image.width for image, _ in panels) + GAP_PX * (len(panels) - 1)
    canvas = Image.new("RGB", (width, tall + lines * LINE_PX + 4), "white")
    pen, font, x = ImageDraw.Draw(canvas), ImageFont.load_default(WORDS_PX), 0
    for image, words in panels:
        canvas.paste(image, (x, 0))
        for number, line in enumerate(words):
            place = (x, image.height + 2 + number * LINE_PX)
            pen.text(place, shortened(line, image.width, font), fill=FAINT if number else INK, font=font)
        x += image.width + GAP_PX
    return canvas


def in_rows(panels: Sequence[Panel], columns: int) -> list[list[Panel]]:
    """The panels in rows of so many, the last with what is left."""
    return [list(panels[start : start + columns]) for start in range(0, len(panels), columns)]


def stacked(parts: Sequence[Image.Image]) -> Image.Image | None:
    """Below one another; None for nothing."""
    if not parts:
        return None
    canvas = Image.new("RGB", (max(p.width for p in parts), sum(p.height for p in parts)), "white")
    top = 0
    for part in parts:
        canvas.paste(part, (0, top))
        top += part.height
    return canvas


def beside(parts: Sequence[Image.Image]) -> Image.Image | None:
    """Beside one another, tops aligned; None for nothing."""
    if not parts:
        return None
    width = sum(p.width for p in parts) + GAP_PX * (len(parts) - 1)
    canvas = Image.new("RGB", (width, max(p.height for p in parts)), "white")
    x = 0
    for part in parts:
        canvas.paste(part, (x, 0))
        x += part.width + GAP_PX
    return canvas


def shortened(words: str, px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    """The words, cut with … where they are too long for their place."""
    shown = drawable(words)
    if font.getlength(shown) <= px:
        return shown
    while shown and font.getlength(shown + "…") > px:
        shown = shown[:-1]
    return shown.rstrip() + "…"


def wrapped(text: str, px: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> list[str]:
    """A text in lines that fit."""
    found = [""]
    for word in drawable(text).split(" "):
        longer = f"{found[-1]} {word}".strip()
        if found[-1] and font.getlength(longer) > px:
            found.append(word)
        else:
            found[-1] = longer
    return found
