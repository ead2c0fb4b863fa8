"""What an earlier run left in a folder, told from the user's own files by what is in them, not by their names.

A report, a picture and a `.pel` carry a mark. CSV has no place for one: a table is ours if the `.pel` beside it says
the same, so one that the user has edited is the user's.
"""

import json
import os
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open

from pellucid.core.errors import FileError, PellucidError
from pellucid.core.tables import Table
from pellucid.render.pel import tables_of
from pellucid.render.tabular import csv_names, csv_text
from pellucid.store.files import as_bytes

REPORT = "report.html"
_MARK = '<meta name="generator" content="pellucid">'
_MARK_WITHIN_BYTES = 4096
_NUMBERED = re.compile(r"\d{3,}-.+\.(pel|png|csv)")


def is_ours(path: Path) -> bool:
    """Whether pellucid wrote this file; False for whatever can't be told."""
    try:
        if path.suffix == ".html":
            with path.open("rb") as file:
                return _MARK.encode() in file.read(_MARK_WITHIN_BYTES)
        if path.suffix == ".png":
            with Image.open(path, formats=("PNG",)) as picture:
                return "pellucid" in picture.info
        if path.suffix == ".csv":
            return _is_our_table(path)
        return "pellucid" in _metadata(path)
    except (OSError, SafetensorError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def table_names(stem: str, tables: Sequence[Table]) -> list[str]:
    """The CSV files that go with the map `stem`, one for each table."""
    return [f"{stem}.{name}" for name in csv_names(tables)]


def _is_our_table(path: Path) -> bool:
    """Whether the `.pel` beside a CSV file would write the same bytes."""
    stem = path.name.rsplit(".", 2)[0]
    try:
        tables = tables_of(json.loads(_metadata(path.with_name(f"{stem}.pel"))["pellucid"]))
    except (KeyError, TypeError, AttributeError, RecursionError, PellucidError):
        return False
    table = dict(zip(table_names(stem, tables), tables, strict=True)).get(path.name)
    if table is None:
        return False
    ours = as_bytes(csv_text(table))
    return path.stat().st_size == len(ours) and path.read_bytes() == ours


def _metadata(path: Path) -> dict[str, str]:
    with safe_open(str(path), framework="np") as file:
        return file.metadata() or {}


def refuse_foreign(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace a file that pellucid did not write.

    Raises:
        FileError: names the first such file.
    """
    for name in names:
        path = folder / name
        if os.path.lexists(path) and not is_ours(path):
            raise FileError(
                f"{path} was not written by pellucid, or was changed since, and is not replaced; name another folder"
            )


def leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """Numbered maps and tables of an earlier run that are not among `names`; tables come before their map.

    To be asked before the new files are there: a table is known by the map beside it.
    """
    if not folder.is_dir():
        return []
    kept = set(names)
    found = (path for path in sorted(folder.iterdir()) if _NUMBERED.fullmatch(path.name) and path.name not in kept)
    ours = [path for path in found if not path.is_symlink() and path.is_file() and is_ours(path)]
    return sorted(ours, key=lambda path: path.suffix != ".csv")


def check_place(folder: Path, overwrite: bool) -> None:
    """Refuse, before any work, a folder that results can't go into; nothing is made or changed.

    Raises:
        FileError: it is a file, can't be written, or holds something that must not be replaced.
    """
    if os.path.lexists(folder) and not folder.is_dir():
        raise FileError(f"{folder} is no folder; name another one")
    if folder.is_dir() and any(folder.iterdir()):
        if not overwrite:
            raise FileError(f"{folder} exists and is not empty; name another folder, or add --overwrite")
        refuse_foreign(folder, [REPORT])
    place = folder.absolute()
    existing = next(parent for parent in (place, *place.parents) if parent.exists())
    if not existing.is_dir() or not os.access(existing, os.W_OK | os.X_OK):
        raise FileError(f"nothing can be written in {existing}; name another folder")
