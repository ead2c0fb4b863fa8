"""What the commands about the inside of a network share: the file a finding goes to, and how it is told."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from pellucid.cli.printing import Print
    from pellucid.core.tables import Table
    from pellucid.inside.showing import Shows

FoundFile = Annotated[Path, typer.Option("--out", "-o", help="a picture (.png), a page (.html), or facts (.json)")]
FoundFileIfAny = Annotated[
    Path | None, typer.Option("--out", "-o", help="a picture (.png), a page (.html), or facts (.json)")
]
AnySeed = Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="for everything random")]


def check_file(out: Path | None, overwrite: bool, what: str, more: Sequence[str] = ()) -> None:
    """Refuse before the work what would be refused behind it.

    Args:
        what: the finding in words: `weights are`.
        more: suffixes besides those of every finding.

    Raises:
        FileError: another suffix, or a file that exists.
    """
    from pellucid.core.errors import FileError
    from pellucid.inside.showing import SUFFIXES

    suffixes = (*SUFFIXES, *more)
    if out is not None and out.suffix not in suffixes:
        raise FileError(f"{out} came; {what} saved as {', '.join(suffixes)}")
    refuse_existing(out, overwrite)


def refuse_existing(out: Path | None, overwrite: bool) -> None:
    """
    Raises:
        FileError: the place is taken.
    """
    from pellucid.core.errors import FileError

    if out is not None and out.exists() and not overwrite:
        raise FileError(f"{out} exists; add --overwrite, or name another place with --out")


def written(found: "Shows", out: Path, overwrite: bool) -> Path:
    """The finding in its file, and where that is."""
    from pellucid.core.errors import FileError

    try:
        out.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out.parent} can't be made ({error.strerror}); name another place with --out") from error
    return found.save(out, overwrite=overwrite).resolve()


def finished(
    found: "Shows", out: Path | None, overwrite: bool, called: str, *, as_json: bool, quiet: bool, **more: Any
) -> "Print":
    """Write the finding, print its facts as JSON if asked; what prints the rest: nothing where nothing may be.

    Args:
        called: what the file is: `sheet`.
        more: further facts.
    """
    from pellucid.cli.printing import echo_json, printer, safe

    file = None if out is None else written(found, out, overwrite)
    if as_json:
        echo_json({**found.facts(), "file": None if file is None else str(file), **more})
    show = printer(quiet or as_json)
    show(safe(found.sentence()))
    for note in getattr(found, "notes", ()):
        show(f"note: {safe(note)}")
    if file is not None:
        show(f"{called}: {safe(file)}")
    return show


def show_rows(one: "Table", show: "Print", most: int | None = None, columns: Sequence[str] = ()) -> None:
    """A table of numbers, or its first rows and some of its columns."""
    from pellucid.cli.printing import safe, table
    from pellucid.render.tabular import cell_text

    names = list(columns) or list(one.columns)
    drawn = table(*map(safe, names))
    places = [one.columns.index(name) for name in names]
    for row in one.rows[:most]:
        drawn.add_row(*(safe(cell_text(row[place])) for place in places))
    show(drawn)
    if most is not None and len(one.rows) > most:
        show(f"the first {most} of {len(one.rows)}; --json gives all of them")
