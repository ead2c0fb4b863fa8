"""Tables that go with a map, as HTML for the report, as text for a terminal, as CSV for other programs."""

import re
from collections.abc import Sequence
from dataclasses import replace
from math import isinf, isnan

from pellucid.core.errors import FileError
from pellucid.core.tables import Cell, Table
from pellucid.render import paint
from pellucid.render.curves import curve
from pellucid.render.notebook import escape
from pellucid.render.visible import visible

FIRST_ROWS = 12
MOST_ROWS = 500
MOST_TABLES = 12
_FORMULA = re.compile(r"[\s\0]*[=+\-@\N{FULLWIDTH EQUALS SIGN}\N{FULLWIDTH PLUS SIGN}\uff0d\uff20]|[\t\r\n]")


def tables_html(tables: Sequence[Table]) -> str:
    """Every table under a map: rows folded after the first dozen, curves drawn with their numbers folded below."""
    shown = "".join(map(_section, tables[:MOST_TABLES]))
    rest = len(tables) - MOST_TABLES
    return shown + (f'<p class="quiet">and {_counted(rest, "more table")}, kept in the .pel file</p>' * (rest > 0))


def cell_text(cell: Cell) -> str:
    """One cell for a reader.

    Example:
        >>> [cell_text(cell) for cell in (-0.028456, -12544, None, True, float("nan"), "left eye")]
        ['−0.0285', '−12544', '–', 'yes', 'no number', 'left eye']
    """
    if cell is None:
        return "–"
    if isinstance(cell, bool):
        return "yes" if cell else "no"
    if isinstance(cell, int):
        return str(cell).replace("-", "\N{MINUS SIGN}")
    if not isinstance(cell, float):
        return str(cell)
    if isnan(cell):
        return "no number"
    return paint.number(cell) if not isinf(cell) else ("∞" if cell > 0 else "\N{MINUS SIGN}∞")


def csv_text(table: Table) -> str:
    """The table as CSV in which no text of others acts: neither as a formula of a spreadsheet nor on a terminal.

    Text that a spreadsheet would run gets an apostrophe before it (`=1+1` becomes `'=1+1`), control characters are
    shown by their code; numbers stay as they are.

    Source: OWASP, "CSV Injection" (from memory), with the full-width signs that some spreadsheets also read.
    """
    rows = tuple(tuple(map(_harmless, row)) for row in table.rows)
    return replace(table, columns=tuple(str(_harmless(name)) for name in table.columns), rows=rows).csv()


def named(tables: Sequence[Table], stem: str) -> Table:
    """The table that a CSV file of this stem is for: the only one, or the one whose name the stem ends in.

    Raises:
        FileError: there is none, or it can't be told which.
    """
    if not tables:
        raise FileError("this explanation has no tables to save as .csv; .npy keeps its heat")
    found = [table for table in tables if stem.casefold().endswith(table.name.casefold())]
    if len(tables) > 1 and not found:
        names = ", ".join(f'"{visible(table.name)}.csv"' for table in tables)
        raise FileError(f'"{stem}.csv" came, and there are {len(tables)} tables; name the file {names}')
    return max(found, key=lambda table: len(table.name)) if found else tables[0]


def csv_names(tables: Sequence[Table]) -> list[str]:
    """The end of a file's name for each table, all different also where capital letters don't count.

    Example:
        >>> from pellucid.core.tables import table
        >>> csv_names([table(name, ["a"], []) for name in ("regions", "../Regions", "Süß")])
        ['regions.csv', 'Regions-2.csv', 'S.csv']
    """
    names: list[str] = []
    taken: set[str] = set()
    for one in tables:
        stem = re.sub(r"[^A-Za-z0-9_]+", "-", one.name).strip("-")[:40] or "table"
        name, count = stem, 1
        while name.casefold() in taken:
            count += 1
            name = f"{stem}-{count}"
        taken.add(name.casefold())
        names.append(f"{name}.csv")
    return names


def _harmless(cell: Cell) -> Cell:
    if not isinstance(cell, str):
        return cell
    return visible(f"'{cell}" if _FORMULA.match(cell) else cell)


def _section(table: Table) -> str:
    note = f'<p class="quiet">{escape(table.note)}</p>' if table.note else ""
    body = curve(table) + _folded("Numbers of the curve", table) if table.kind == "curve" else _rows(table)
    return f'<section class="found"><h5>{escape(table.name)}</h5>{note}{body}</section>'


def _rows(table: Table) -> str:
    if not table.rows:
        return '<p class="quiet">no rows</p>'
    first = _grid(table, 0, FIRST_ROWS)
    rest = len(table.rows) - FIRST_ROWS
    return first + (_folded(_counted(rest, "more row"), table, FIRST_ROWS) if rest > 0 else "")


def _folded(summary: str, table: Table, start: int = 0) -> str:
    left = len(table.rows) - MOST_ROWS
    more = f'<p class="quiet">and {_counted(left, "more row")}, kept in the .pel file</p>' if left > 0 else ""
    return f"<details><summary>{summary}</summary>{_grid(table, start, MOST_ROWS)}{more}</details>"


def _grid(table: Table, start: int, stop: int) -> str:
    head = "".join(f'<th scope="col"{_side(table, i)}>{escape(name)}</th>' for i, name in enumerate(table.columns))
    body = "".join(_row(table, row) for row in table.rows[start:stop])
    return (
        f'<div class="wide" tabindex="0" role="region" aria-label="{escape(table.name)}"><table class="cells">'
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _row(table: Table, row: Sequence[Cell]) -> str:
    cells = [f"{_side(table, i)}>{escape(cell_text(cell))}" for i, cell in enumerate(row)]
    first, *rest = cells or [">"]
    return f'<tr><th scope="row"{first}</th>{"".join(f"<td{cell}</td>" for cell in rest)}</tr>'


def _side(table: Table, column: int) -> str:
    """Numbers stand at the right, so that their sizes can be compared."""
    cells = [row[column] for row in table.rows[:MOST_ROWS]]
    return "" if any(isinstance(cell, str) for cell in cells) or not cells else ' class="n"'


def _counted(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"
