"""What an earlier run left in a folder, told from the user's own files by what is in them, not by their names."""

import os
import re
from collections.abc import Iterable
from pathlib import Path

from PIL import Image
from safetensors import SafetensorError, safe_open

from pellucid.core.errors import FileError

REPORT = "report.html"
_MARK = '<meta name="generator" content="pellucid">'
_MARK_WITHIN_BYTES = 4096
_NUMBERED = re.compile(r"\d{3,}-.+\.(pel|png)")


def is_ours(path: Path) -> bool:
    """Whether pellucid wrote this file; False for whatever can't be told."""
    try:
        if path.suffix == ".html":
            with path.open("rb") as file:
                return _MARK.encode() in file.read(_MARK_WITHIN_BYTES)
        if path.suffix == ".png":
            with Image.open(path, formats=("PNG",)) as picture:
                return "pellucid" in picture.info
        with safe_open(str(path), framework="np") as file:
            return "pellucid" in (file.metadata() or {})
    except (OSError, SafetensorError, ValueError, SyntaxError, Image.DecompressionBombError):
        return False


def refuse_foreign(folder: Path, names: Iterable[str]) -> None:
    """Refuse to replace a file that pellucid did not write.

    Raises:
        FileError: names the first such file.
    """
    for name in names:
        path = folder / name
        if os.path.lexists(path) and not is_ours(path):
            raise FileError(f"{path} was not written by pellucid and is not replaced; name another folder")


def leftovers(folder: Path, names: Iterable[str]) -> list[Path]:
    """Numbered maps of an earlier run that are not among `names`."""
    kept = set(names)
    found = (path for path in sorted(folder.iterdir()) if _NUMBERED.fullmatch(path.name) and path.name not in kept)
    return [path for path in found if not path.is_symlink() and path.is_file() and is_ours(path)]


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
