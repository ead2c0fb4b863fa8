"""Files that are either whole or absent: written beside their place, then moved into it in one step."""

import json
import os
import secrets
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from math import isfinite
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save as tensors_to_bytes
from torch import Tensor

from pellucid.core.errors import FileError

MAX_BYTES = 2 * 1024**3
_KEY = "pellucid"


@contextmanager
def whole_file(path: str | Path, *, overwrite: bool = True) -> Iterator[Path]:
    """Lends a temporary path in the same folder; what was written there appears at `path` only if nothing failed.

    Args:
        path: the file to write; a symbolic link is followed.
        overwrite: False refuses a file that exists already.

    Raises:
        FileError: the folder is missing, the path is a folder, exists, or can't be written.
    """
    place = _writable(Path(path), overwrite)
    temporary = place.with_name(_temporary_name(place))
    try:
        yield temporary
        _settle(temporary, place, overwrite)
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror or error}; try another folder") from error
    finally:
        temporary.unlink(missing_ok=True)


def write_bytes(path: str | Path, data: bytes, *, overwrite: bool = True) -> Path:
    """Writes a file in one step and returns its path; see `whole_file`."""
    with whole_file(path, overwrite=overwrite) as temporary:
        temporary.write_bytes(data)
    return Path(path)


def write_text(path: str | Path, text: str, *, overwrite: bool = True) -> Path:
    """Writes UTF-8 text in one step; characters that no file can hold (lone surrogates) become `?`."""
    return write_bytes(path, as_bytes(text), overwrite=overwrite)


def write_json(path: str | Path, facts: Any, *, overwrite: bool = True) -> Path:
    """Writes one JSON document in one step; see `json_text`."""
    return write_text(path, json_text(facts) + "\n", overwrite=overwrite)


def json_text(facts: Any) -> str:
    """Facts as JSON, with null for the numbers that it lacks (NaN, infinities).

    Example:
        >>> print(json_text({"a": (1.5, float("nan"))}).replace("\\n", ""))
        { "a": [  1.5,  null ]}
    """
    return json.dumps(_known(facts), indent=1, allow_nan=False)


def _known(facts: Any) -> Any:
    if isinstance(facts, Mapping):
        return {str(key): _known(value) for key, value in facts.items()}
    if isinstance(facts, list | tuple):
        return [_known(value) for value in facts]
    return None if isinstance(facts, float) and not isfinite(facts) else facts


def as_bytes(text: str) -> bytes:
    """What `write_text` writes."""
    return text.encode("utf-8", "replace")


def write_tensors(
    path: str | Path, tensors: Mapping[str, Tensor], facts: Mapping[str, Any], *, overwrite: bool = True
) -> Path:
    """Writes tensors and a JSON-able record of facts as one safetensors file.

    Raises:
        FileError: a fact is not JSON-able, or the file can't be written.
    """
    try:
        metadata = {_KEY: json.dumps(facts)}
    except (TypeError, ValueError) as error:
        raise FileError(f"can't write {path}: {error}; settings hold numbers, text, lists and dicts only") from error
    plain = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    return write_bytes(path, tensors_to_bytes(plain, metadata), overwrite=overwrite)


def read_tensors(path: str | Path, *, max_bytes: int = MAX_BYTES) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """Reads what `write_tensors` wrote; nothing in the file is ever run as code.

    Raises:
        FileError: no such file, larger than `max_bytes`, damaged, or not written by pellucid.
    """
    place = _readable(Path(path), max_bytes)
    try:
        with safe_open(str(place), framework="pt") as file:
            facts = json.loads((file.metadata() or {}).get(_KEY, "null"))
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError, ValueError, RecursionError) as error:
        raise FileError(f"{path} is damaged or not a pellucid file ({error}); save it again from Python") from error
    if not isinstance(facts, dict):
        raise FileError(f"{path} holds tensors, but not from pellucid; expected a file written by Explanation.save")
    return tensors, facts


@contextmanager
def whole_folder(path: str | Path, *, overwrite: bool = False) -> Iterator[Path]:
    """Lends a temporary folder beside `path`; its files move to `path` only if nothing failed.

    Args:
        path: the folder to fill; made if missing.
        overwrite: False refuses a folder that holds anything; True replaces files and folders of the same name and
            keeps others.

    Raises:
        FileError: the path is a file, holds something already, or can't be written.
    """
    place = _fillable(Path(path), overwrite)
    missing = [parent for parent in place.parents if not parent.exists()]
    temporary = (place if place.is_dir() else place.parent) / _temporary_name(place)
    try:
        temporary.mkdir(parents=True)
        yield temporary
        _settle_folder(temporary, place)
    except FileError as error:
        raise FileError(str(error).replace(str(temporary), str(path))) from error
    except OSError as error:
        raise FileError(f"can't write {path}: {error.strerror or error}; try another folder") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
        _remove_empty(missing)


def _temporary_name(place: Path) -> str:
    """A hidden name that also fits where the file's own name is as long as names may be."""
    return f".{place.name[:40]}.{secrets.token_hex(6)}.tmp"


def _remove_empty(folders: list[Path]) -> None:
    """Folders that were made on the way to one that was not; innermost first."""
    for folder in folders:
        with suppress(OSError):
            folder.rmdir()


def _settle(temporary: Path, place: Path, overwrite: bool) -> None:
    with temporary.open("rb") as file:
        os.fsync(file.fileno())
    if place.exists() and not overwrite:
        raise FileError(_occupied(place))
    os.replace(temporary, place)


def _settle_folder(temporary: Path, place: Path) -> None:
    if not place.exists():
        os.replace(temporary, place)
        return
    for number, file in enumerate(sorted(temporary.iterdir())):
        there = place / file.name
        if there.is_dir() and not there.is_symlink():  # a folder can't be replaced in one step: it goes away first
            os.replace(there, temporary / f".old{number}")
        os.replace(file, there)


def _writable(path: Path, overwrite: bool) -> Path:
    place = path.resolve()
    if place.is_dir():
        raise FileError(f"{path} is a folder; give the name of a file in it")
    if not place.parent.is_dir():
        raise FileError(f"can't write {path}: the folder {place.parent} does not exist; make it first")
    if place.exists() and not overwrite:
        raise FileError(_occupied(path))
    return place


def _fillable(path: Path, overwrite: bool) -> Path:
    try:
        place = path.resolve()
        place.exists()
    except (OSError, ValueError) as error:
        raise FileError(f"{str(path)[:80]!r} can't be the name of a folder ({error}); choose another name") from error
    if place.exists() and not place.is_dir():
        raise FileError(f"{path} is a file; give the name of a folder")
    if place.is_dir() and any(place.iterdir()) and not overwrite:
        raise FileError(_occupied(path))
    return place


def _readable(path: Path, max_bytes: int) -> Path:
    if not path.is_file():
        raise FileError(f"there is no file {path}; give the path of a .pel file")
    size = path.stat().st_size
    if size > max_bytes:
        raise FileError(f"{path} has {size:,} bytes, the limit is {max_bytes:,}; raise max_bytes if you trust it")
    return path


def _occupied(path: Path) -> str:
    return f"{path} exists already; choose another name or pass overwrite=True"
