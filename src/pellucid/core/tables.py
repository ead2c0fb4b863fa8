"""Numbers that go with a map: a table of regions, a curve, what a surrogate found."""

import csv
import io
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from pellucid.core.errors import SettingError

Cell = str | int | float | bool | None


@dataclass(frozen=True)
class Table:
    """Rows under named columns; a curve is a table whose first column is x and whose others are lines over it.

    Attributes:
        name: what it is called, also as a file: `regions`.
        columns: names with units, such as `effect (logit)`.
        rows: one cell for each column.
        kind: whether it is drawn as rows or as lines.
        note: one sentence for the reader.
    """

    name: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Cell, ...], ...]
    kind: Literal["table", "curve"] = "table"
    note: str = ""

    def __post_init__(self) -> None:
        wrong = next((row for row in self.rows if len(row) != len(self.columns)), None)
        if wrong is not None:
            raise SettingError(f'a row of {len(wrong)} cells came for the {len(self.columns)} columns of "{self.name}"')
        object.__setattr__(self, "rows", tuple(tuple(map(_plain, row)) for row in self.rows))

    def column(self, name: str) -> list[Cell]:
        """The cells under one name.

        Raises:
            SettingError: no such column.
        """
        if name not in self.columns:
            raise SettingError(f'table "{self.name}" has no column "{name}"; it has {", ".join(self.columns)}')
        place = self.columns.index(name)
        return [row[place] for row in self.rows]

    def csv(self) -> str:
        """The table as comma-separated values, names first, in the form of RFC 4180."""
        text = io.StringIO()
        writer = csv.writer(text, lineterminator="\r\n")
        writer.writerow(self.columns)
        writer.writerows(self.rows)
        return text.getvalue()

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> "Table":
        return cls(
            data["name"], tuple(data["columns"]), tuple(tuple(row) for row in data["rows"]), data["kind"], data["note"]
        )


def _plain(cell: Any) -> Cell:
    """A cell as Python's own value; numbers of NumPy and torch are unpacked.

    Raises:
        SettingError: it is neither text nor one number.
    """
    if cell is None or type(cell) in (str, int, float, bool):
        return cell
    try:
        value = cell.item()
    except (AttributeError, ValueError, RuntimeError):
        value = cell
    if type(value) not in (str, int, float, bool):
        raise SettingError(f"{type(cell).__name__} came as a cell of a table; give text or one number")
    return value


def table(name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> Table:
    """A table from any sequences."""
    return Table(name, tuple(columns), tuple(tuple(row) for row in rows), note=note)


def curve(name: str, columns: Sequence[str], rows: Sequence[Sequence[Cell]], note: str = "") -> Table:
    """A curve from any sequences; the first column is x."""
    return Table(name, tuple(columns), tuple(tuple(row) for row in rows), "curve", note)
