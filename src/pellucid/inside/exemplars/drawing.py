"""Sheets of the pictures that units like best."""

from typing import TYPE_CHECKING

from PIL import Image, ImageDraw

from pellucid.inside.exemplars.crops import on_square, view
from pellucid.inside.exemplars.unit import Exemplar, UnitExemplars
from pellucid.render.fitting import fitted
from pellucid.render.sheet import Panel, sheet

if TYPE_CHECKING:
    from pellucid.inside.exemplars.result import Exemplars

SIDE_PX, SMALL_PX = 112, 72
MOST_UNITS, SHOWN = 12, 9
EDGE = (214, 40, 40)
KINDS = {"top": "highest", "bottom": "lowest", "random": "drawn", "stratified": "from low to high"}


def unit_sheet(one: UnitExemplars) -> Image.Image:
    """What the unit saw in each picture, and below it the picture with the place; one row for each kind."""
    rows = list[list[Panel]]()
    for kind, words in KINDS.items():
        found: list[Exemplar] = getattr(one, kind)[:SHOWN]
        if found:
            rows.append([crop_panel(one, e, words if number == 0 else "") for number, e in enumerate(found)])
            rows.append([(whole(one, e, SIDE_PX), [e.name.rpartition("/")[2], e.label or ""]) for e in found])
    dead = " (dead: never above zero)" if one.dead else ""
    return sheet(f"{one.title}{dead}", [], rows)


def overview(found: "Exemplars") -> Image.Image:
    """One row of crops for each of the first units."""
    shown = list(found)[:MOST_UNITS] if len(found) <= MOST_UNITS else _spread(list(found))
    rows = list[list[Panel]]()
    for one in shown:
        name = f"{one.unit}{' (dead)' if one.dead else ''}"
        panels = [crop_panel(one, e, "", SMALL_PX) for e in one.top[:SHOWN]]
        if panels:
            panels[0] = (panels[0][0], [name, *panels[0][1][:1]])
        rows.append(
            [
                (image, [words[0] if k == 0 else "", words[-1 if k == 0 else 0]])
                for k, (image, words) in enumerate(panels)
            ]
        )
    return sheet(found.title, [], rows)


def crop_panel(one: UnitExemplars, exemplar: Exemplar, words: str = "", side_px: int = SIDE_PX) -> Panel:
    """What the unit saw, with its value."""
    image = on_square(one.crop(exemplar, side_px), side_px)
    return image, [f"{exemplar.value:.3g}", words]


def whole(one: UnitExemplars, exemplar: Exemplar, side_px: int) -> Image.Image:
    """The whole picture with a frame around what the unit saw."""
    shown, box = view(one.found.data, exemplar.number), one.box(exemplar)
    image = fitted(Image.fromarray(shown.pixels), side_px, exact=True)
    if len(box) >= 2:
        (first, last), (left, right) = box[-2:]
        scale = image.width / shown.pixels.shape[1]
        corners = (
            shown.placement.to_original(float(first), float(left)),
            shown.placement.to_original(float(last + 1), float(right + 1)),
        )
        (y0, x0), (y1, x1) = ((y * scale, x * scale) for y, x in corners)
        edges = (max(x0, 0), max(y0, 0), min(x1, image.width) - 1, min(y1, image.height) - 1)
        if edges[2] > edges[0] and edges[3] > edges[1]:
            ImageDraw.Draw(image).rectangle(edges, outline=EDGE, width=2)
    return on_square(image, side_px)


def _spread(units: list[UnitExemplars]) -> list[UnitExemplars]:
    """Some of many, evenly."""
    return [units[k * len(units) // MOST_UNITS] for k in range(MOST_UNITS)]
