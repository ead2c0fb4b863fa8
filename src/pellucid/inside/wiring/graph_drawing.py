"""A layered graph as a picture: a column for each layer, a line for each link, ordered so that few lines cross."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pellucid.render.bars import COLD, WARM
from pellucid.render.sheet import FAINT, INK, shortened
from pellucid.render.visible import drawable

Link = tuple[str, str, float]
FINE = 2  # drawn larger, then reduced
NODE_PX, ROW_PX, COLUMN_PX, MARGIN_PX, HEAD_PX, FOOT_PX = 24, 34, 250, 18, 64, 54
WIDEST_PX, SWEEPS, STEPS = 9, 8, 40
BOX = (238, 238, 234)


def graph_picture(
    title: str, layers: Sequence[str], nodes: Sequence[Sequence[str]], links: Sequence[Sequence[Link]]
) -> Image.Image:
    """Columns of named units with curves between neighbours: width by |strength| within its pair, colour by sign."""
    order = _ordered(nodes, links)
    rows = max(map(len, order))
    width, height = 2 * MARGIN_PX + COLUMN_PX * (len(layers) - 1) + 150, HEAD_PX + ROW_PX * rows + FOOT_PX
    canvas = Image.new("RGB", (width * FINE, height * FINE), "white")
    pen = ImageDraw.Draw(canvas)
    small, large = ImageFont.load_default(12 * FINE), ImageFont.load_default(14 * FINE)
    pen.text(
        (MARGIN_PX * FINE, 10 * FINE), shortened(title, (width - 2 * MARGIN_PX) * FINE, large), fill=INK, font=large
    )
    places, long = {}, [_box_px(names, small) for names in order]
    for column, names in enumerate(order):
        x = MARGIN_PX + column * COLUMN_PX
        pen.text((x * FINE, 40 * FINE), shortened(layers[column], 150 * FINE, small), fill=FAINT, font=small)
        top = HEAD_PX + (rows - len(names)) * ROW_PX / 2
        places |= {name: (float(x), top + (row + 0.5) * ROW_PX) for row, name in enumerate(names)}
    for column, pair in enumerate(links):
        _lines(pen, pair, places, long[column])
    for column, names in enumerate(order):
        for name in names:
            _node(pen, name.removeprefix(f"{layers[column]}:"), places[name], long[column], small)
    _legend(pen, height, small)
    return canvas.resize((width, height), Image.Resampling.LANCZOS)


def _ordered(nodes: Sequence[Sequence[str]], links: Sequence[Sequence[Link]]) -> list[list[str]]:
    """Each column sorted by the mean height of its neighbours, swept to and fro; without links last."""
    order = [list(names) for names in nodes]
    linked = [{n for pair in links for link in pair for n in link[:2]} & set(names) for names in order]
    order = [[n for n in names if n in known] for names, known in zip(order, linked, strict=True)]
    for sweep in range(SWEEPS):
        columns = range(len(order)) if sweep % 2 == 0 else range(len(order) - 1, -1, -1)
        for column in columns:
            height = {
                n: (row + 0.5) / len(names)
                for c in (column - 1, column + 1)
                if 0 <= c < len(order)
                for names in [order[c]]
                for row, n in enumerate(names)
            }
            order[column].sort(key=lambda n, c=column, h=height: _middle(n, c, links, h))
    return order


def _middle(name: str, column: int, links: Sequence[Sequence[Link]], height: dict[str, float]) -> float:
    near = [link for pair in links[max(column - 1, 0) : column + 1] for link in pair if name in link[:2]]
    others = [(height.get(b if a == name else a, 0.5), abs(strength)) for a, b, strength in near]
    total = sum(weight for _, weight in others)
    return sum(h * weight for h, weight in others) / total if total else 0.5


def _box_px(names: Sequence[str], font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> int:
    """The width of a column's boxes."""
    widest = max([font.getlength(drawable(n.rpartition(":")[2])) for n in names], default=0) / FINE
    return int(min(max(widest + 14, 40), 130))


def _lines(
    pen: ImageDraw.ImageDraw, links: Sequence[Link], places: dict[str, tuple[float, float]], box_px: int
) -> None:
    """The links of a pair of columns, the strongest on top."""
    most = max([abs(strength) for *_, strength in links], default=0) or 1.0
    for source, target, strength in sorted(links, key=lambda link: abs(link[2])):
        share = abs(strength) / most
        (x0, y0), (x1, y1) = places[source], places[target]
        x0 += box_px
        t = np.linspace(0, 1, STEPS)
        y = y0 + (y1 - y0) * t**2 * (3 - 2 * t)
        path = [(float(a) * FINE, float(b) * FINE) for a, b in zip(x0 + (x1 - x0) * t, y, strict=True)]
        colour = WARM if strength > 0 else COLD
        faded = tuple(round(255 + (c - 255) * (0.35 + 0.65 * share)) for c in colour)
        pen.line(path, fill=faded, width=max(1, round(WIDEST_PX * share * FINE)), joint="curve")


def _node(
    pen: ImageDraw.ImageDraw,
    name: str,
    place: tuple[float, float],
    wide_px: int,
    font: ImageFont.FreeTypeFont | ImageFont.ImageFont,
) -> None:
    x, y = place
    corners = [(x * FINE, (y - NODE_PX / 2) * FINE), ((x + wide_px) * FINE, (y + NODE_PX / 2) * FINE)]
    pen.rounded_rectangle(corners, 5 * FINE, fill=BOX, outline=FAINT, width=FINE)
    middle = ((x + wide_px / 2) * FINE, y * FINE)
    pen.text(middle, shortened(name, (wide_px - 6) * FINE, font), fill=INK, font=font, anchor="mm")


def _legend(pen: ImageDraw.ImageDraw, height: int, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> None:
    y = (height - 30) * FINE
    for x, colour, words in ((MARGIN_PX, WARM, "raises"), (MARGIN_PX + 90, COLD, "lowers")):
        pen.line((x * FINE, y, (x + 26) * FINE, y), fill=colour, width=5 * FINE)
        pen.text(((x + 32) * FINE, y), words, fill=INK, font=font, anchor="lm")
    told = "width: strength over the largest of the pair of layers"
    pen.text((MARGIN_PX * FINE, y + 10 * FINE), told, fill=FAINT, font=font)
