"""A curve as inline SVG: lines that differ in colour and in dashes, limits printed beside the axes, a legend.

The lines are stretched to the width of the page, the letters are not. Nothing here needs a style attribute, which
the security policy of the report forbids; `report.css` holds the colours for light and dark.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from sys import float_info

from pellucid.core.tables import Cell, Table
from pellucid.render import paint
from pellucid.render.notebook import escape

COLOURS, DASHES = 5, 4
MOST_LINES = COLOURS * DASHES
_MOST_POINTS, _MOST_DOTS = 1000, 30
_WIDE, _HIGH = 1000, 400
_CLOSE = 0.14
MAX = float_info.max


@dataclass(frozen=True)
class Axis:
    """One direction: its name, and the numbers at its ends."""

    name: str
    low: float
    high: float

    def share(self, value: float) -> float:
        """Where a value lies between the ends, in 0..1; also where their distance is beyond a float."""
        size = max(abs(self.low), abs(self.high)) or 1.0
        return (value / size - self.low / size) / (self.high / size - self.low / size)


def curve(table: Table) -> str:
    """A table of kind "curve" drawn: the first column is x, every other one a line over it."""
    step = max(1, -(-len(table.rows) // _MOST_POINTS))
    rows = [*table.rows[::step], *(table.rows[-1:] if (len(table.rows) - 1) % step else ())]
    names = table.columns[1 : MOST_LINES + 1]
    lines = [[_finite(row[k]) for row in rows] for k in range(1, len(names) + 1)]
    x = _across([row[0] for row in rows] if table.columns else [])
    across = _axis(table.columns[0] if names else "", x)
    up = _axis(names[0] if len(names) == 1 else "", [value for line in lines for value in line])
    drawn = "".join(_line(k, x, line, across, up) for k, line in enumerate(lines)) if across and up else ""
    if not (across and up and drawn):
        return '<p class="quiet">no numbers to draw</p>'
    zero = f'<path class="zero" d="M0 {_HIGH * (1 - up.share(0.0)):.1f}H{_WIDE}"/>' if up.low < 0 < up.high else ""
    return (
        f'<figure class="curve">{_title(up)}{_levels(up)}'
        f'<svg class="plot" viewBox="0 0 {_WIDE} {_HIGH}" preserveAspectRatio="none" role="img" '
        f'aria-label="{escape(_told(across.name, names, x, lines))}">'
        f'{zero}<path class="axes" d="M0 0V{_HIGH}H{_WIDE}"/>{drawn}</svg>'
        f'<p class="ends"><span class="low">{paint.number(across.low)}</span><span class="name">{escape(across.name)}'
        f'</span><span class="high">{paint.number(across.high)}</span></p>'
        f"{_legend(names, len(table.columns) - 1)}</figure>"
    )


def _line(k: int, x: Sequence[float | None], y: Sequence[float | None], across: Axis, up: Axis) -> str:
    """One line, broken where a number is missing; few points are also dotted."""
    steps, pen = [], "M"
    for a, b in zip(x, y, strict=True):
        if a is None or b is None:
            pen = "M"
            continue
        steps.append(f"{pen}{_WIDE * across.share(a):.1f} {_HIGH * (1 - up.share(b)):.1f}")
        pen = "L"
    places = [step[1:] for step in steps]
    alone = len(places) == 1
    dots = "".join(f"M{place}h0" for place in places) if len(places) <= _MOST_DOTS or alone else ""
    marks = f'<path class="dots c{k % COLOURS}" d="{dots}"/>' if dots else ""
    return f'<path class="line c{k % COLOURS} d{k % DASHES}" d="{"".join(steps)}"/>{marks}' if steps else ""


def _levels(up: Axis) -> str:
    """The numbers beside the upright axis: both ends, and zero where it lies well between them."""
    values = [(up.high, 0.0), (up.low, 1.0)]
    if up.low < 0 < up.high and _CLOSE < up.share(0.0) < 1 - _CLOSE:
        values.insert(1, (0.0, 1 - up.share(0.0)))
    texts = "".join(f'<text x="100%" y="{100 * at:.1f}%" dy="{_drop(at)}">{paint.number(v)}</text>' for v, at in values)
    return f'<svg class="levels">{texts}</svg>'


def _drop(at: float) -> str:
    """Letters hang from the upper end and stand on the lower one."""
    return {0.0: "0.8em", 1.0: "0"}.get(at, "0.3em")


def _title(up: Axis) -> str:
    return f"<figcaption>{escape(up.name)}</figcaption>" if up.name else ""


def _legend(names: Sequence[str], columns: int) -> str:
    if len(names) < 2:
        return ""
    entries = "".join(
        f'<li><svg viewBox="0 0 34 8" width="34" height="8" aria-hidden="true">'
        f'<path class="line c{k % COLOURS} d{k % DASHES}" d="M1 4H33"/></svg> {escape(name)}</li>'
        for k, name in enumerate(names)
    )
    more = f"<li>and {columns - len(names)} more, among the numbers</li>" if columns > len(names) else ""
    return f'<ul class="legend">{entries}{more}</ul>'


def _told(over: str, names: Sequence[str], x: Sequence[float | None], lines: Sequence[Sequence[float | None]]) -> str:
    """The curve in words, for those who can't see it."""
    found = []
    for name, line in zip(names[:3], lines, strict=False):
        ends = [(a, b) for a, b in zip(x, line, strict=True) if a is not None and b is not None]
        if ends:
            (a, b), (c, d) = ends[0], ends[-1]
            start, stop = (f"{paint.number(v)} at {paint.number(u)}" for u, v in ((a, b), (c, d)))
            found.append(f"{name} from {start} to {stop}")
    return f"Curve over {over}: {'; '.join(found)}"


def _across(cells: Sequence[Cell]) -> list[float | None]:
    """The places of x; rows are counted where the cells are no numbers."""
    values = [_finite(cell) for cell in cells]
    return values if any(value is not None for value in values) else [float(n) for n in range(1, len(cells) + 1)]


def _axis(name: str, values: Sequence[float | None]) -> Axis | None:
    finite = [value for value in values if value is not None]
    if not finite:
        return None
    low, high = min(finite), max(finite)
    if low == high:
        room = abs(low) / 2 or 1.0
        low, high = max(low - room, -MAX), min(high + room, MAX)
    return Axis(name, low, high)


def _finite(cell: Cell) -> float | None:
    """A cell as a number that can be drawn; None for the others."""
    if isinstance(cell, bool) or not isinstance(cell, int | float):
        return None
    try:
        value = float(cell)
    except OverflowError:
        return None
    return value if isfinite(value) else None
