"""Where pictures lie: found in folders, zips, lists and data sets, named, labelled, and not read yet."""

import os
import threading
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any
from zipfile import BadZipFile, ZipFile, ZipInfo, is_zipfile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from pellucid.core.errors import ImageError
from pellucid.images.decode import Limits, Picture

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")
ONE = (bytes, bytearray, memoryview, Image.Image, Picture)


@dataclass(frozen=True, eq=False)
class Listing:
    """Pictures that were found."""

    sources: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[str | None]


class Archive:
    """A zip from which entries are read into memory, one at a time, by any thread; nothing is unpacked to disk."""

    def __init__(self, path: Path) -> None:
        self.path, self._lock = path, threading.Lock()
        try:
            self._zip = ZipFile(path)
        except (BadZipFile, OSError, ValueError) as error:
            raise ImageError(f'"{path}" can\'t be opened as a zip ({error}); get the file again') from error

    def entries(self) -> list[ZipInfo]:
        """The pictures in it, by name."""
        found = [info for info in self._zip.infolist() if not info.is_dir() and _is_picture(info.filename)]
        return sorted(found, key=lambda info: info.filename)

    def read(self, info: ZipInfo, limits: Limits) -> bytes:
        """One entry, never more than the limit, whatever size its header names."""
        if info.file_size > limits.max_bytes:
            raise ImageError(f'"{info.filename}" in {self.path.name} is larger than {limits.max_bytes:,} bytes')
        try:
            with self._lock, self._zip.open(info) as file:
                data = file.read(limits.max_bytes + 1)
        except (BadZipFile, OSError, RuntimeError, NotImplementedError, EOFError, ValueError) as error:
            raise ImageError(f'"{info.filename}" in {self.path.name} can\'t be unpacked: {error}') from error
        except Exception as error:  # zlib, bz2 and lzma have errors of their own
            raise ImageError(f'"{info.filename}" in {self.path.name} is damaged: {error}') from error
        if len(data) > limits.max_bytes:
            raise ImageError(f'"{info.filename}" in {self.path.name} is larger than {limits.max_bytes:,} bytes')
        return data


@dataclass(frozen=True, eq=False)
class Archived:
    """One entry of a zip."""

    archive: Archive
    info: ZipInfo

    def read(self) -> bytes:
        return self.archive.read(self.info, Limits())

    @property
    def version(self) -> str:
        """Something that changes with the picture."""
        return f"{self.info.file_size} {self.info.CRC}"


@dataclass(frozen=True, eq=False)
class Item:
    """One item of a torch data set, read when it is needed."""

    dataset: Any
    number: int

    def read(self) -> tuple[Any, str | None]:
        """The picture or input, and its label.

        Raises:
            ImageError: the data set could not give it.
        """
        try:
            item = self.dataset[self.number]
        except (OSError, ValueError, RuntimeError, IndexError, KeyError, SyntaxError) as error:
            raise ImageError(f"the data set could not give item {self.number}: {error}") from error
        picture, label = parted(item)
        return picture, named(label, getattr(self.dataset, "classes", None))


def listed(data: Any, *, batched: bool, limit: int | None) -> Listing:
    """The pictures that data holds, as `pictures` describes.

    Args:
        batched: tensors of four axes in an iterable are batches of inputs.
        limit: how many to take at most out of what has no length.
    """
    if isinstance(data, str | os.PathLike):
        return _of_path(Path(data))
    if isinstance(data, Tensor):
        return _of_tensor(data)
    if isinstance(data, ONE) or (isinstance(data, np.ndarray) and _one_array(data)):
        return Listing([data], ["0"], [None])
    if isinstance(data, torch.utils.data.DataLoader):
        return _of_loader(data, batched, limit)
    if not isinstance(data, Sequence | np.ndarray) and hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        return _of_dataset(data, range(len(data)))
    if not isinstance(data, Iterable):
        raise ImageError(
            f"pictures can't be made from {type(data).__name__}; give a folder, a .zip, a list of pictures, a tensor "
            "of inputs or a torch data set"
        )
    return _of_items(data, batched, limit)


def parted(item: Any) -> tuple[Any, Any]:
    """A picture or input and its label, out of what data sets give."""
    if isinstance(item, dict):
        picture = next((item[key] for key in ("image", "pixel_values", "img", "x") if key in item), None)
        if picture is None:
            raise ImageError(f"an item of the data set has {', '.join(map(str, item))}, but no image")
        return picture, next((item[key] for key in ("label", "labels", "target", "y") if key in item), None)
    if isinstance(item, tuple | list) and item:
        return item[0], item[1] if len(item) > 1 else None
    return item, None


def named(label: Any, classes: Sequence[str] | None = None) -> str | None:
    """A label as text; None for what is not one class."""
    if isinstance(label, Tensor | np.ndarray | np.generic):
        label = label.item() if label.size == 1 or getattr(label, "numel", lambda: 0)() == 1 else None
    if isinstance(label, bool | int) and classes is not None and 0 <= label < len(classes):
        return str(classes[label])
    return str(label) if isinstance(label, str | bool | int) else None


def _of_path(path: Path) -> Listing:
    try:
        folder, file = path.is_dir(), path.is_file()
    except (OSError, ValueError) as error:
        raise ImageError(f"{str(path)[:80]!r} can't be the name of a folder ({error})") from error
    if folder:
        return _of_folder(path)
    if not file:
        raise ImageError(f'there is no folder or file "{path}" (looked from {os.getcwd()})')
    if path.suffix.lower() == ".zip" or (path.suffix.lower() not in SUFFIXES and is_zipfile(path)):
        return _of_zip(path)
    return Listing([path], [path.name], [None])


def _of_folder(root: Path) -> Listing:
    found = sorted((p.relative_to(root).as_posix(), p) for p in _files(root) if _is_picture(p.name))
    if not found:
        raise ImageError(f'no pictures in the folder "{root}"; files that end in {", ".join(SUFFIXES)} are read')
    names = [name for name, _ in found]
    return Listing([path for _, path in found], names, _folders(names))


def _files(root: Path) -> Iterator[Path]:
    """All files below a folder, each folder once: real ones first, then those behind links, in the order of names."""
    seen, waiting, links = {root.resolve()}, [root], list[Path]()
    while waiting or links:
        folder = waiting.pop() if waiting else links.pop(0)
        try:
            entries = sorted(folder.iterdir())
        except OSError:
            continue
        for entry in entries:
            if entry.name.startswith("."):
                continue
            if not entry.is_dir():
                yield entry
                continue
            if entry.is_symlink():
                links.append(entry)
            elif entry.resolve() not in seen:
                seen.add(entry.resolve())
                waiting.append(entry)
        while links and not waiting and links[0].resolve() in seen:
            links.pop(0)
        if links and not waiting:
            seen.add(links[0].resolve())


def _of_zip(path: Path) -> Listing:
    archive = Archive(path)
    entries = archive.entries()
    if not entries:
        raise ImageError(f'no pictures in "{path}"; entries that end in {", ".join(SUFFIXES)} are read')
    names = [info.filename for info in entries]
    return Listing([Archived(archive, info) for info in entries], names, _folders(names))


def _folders(names: Sequence[str]) -> list[str | None]:
    """The folder of each picture as its class; one folder around everything is no class."""
    found = [PurePosixPath(name).parent.name or None for name in names]
    return [None] * len(names) if len(set(found)) == 1 else found


def _is_picture(name: str) -> bool:
    parts = PurePosixPath(name).parts
    hidden = any(part.startswith((".", "__MACOSX")) for part in parts)
    return name.lower().endswith(SUFFIXES) and not hidden


def _of_tensor(x: Tensor) -> Listing:
    if x.dim() < 2 or not x.is_floating_point():
        raise ImageError(f"a tensor of shape {tuple(x.shape)} and {x.dtype} came; give floating inputs (n, c, …)")
    return Listing(list(x.detach()), [f"input {i}" for i in range(len(x))], [None] * len(x))


def _one_array(array: np.ndarray) -> bool:
    """Whether an array is one picture and not a stack of them."""
    return array.ndim == 2 or (array.ndim == 3 and array.shape[2] in (1, 3, 4))


def _of_dataset(data: Any, numbers: Sequence[int]) -> Listing:
    """Items by number; labels at once where the data set lists them."""
    targets, classes = getattr(data, "targets", None), getattr(data, "classes", None)
    known = targets is not None and len(targets) == len(data)
    labels = [named(targets[n], classes) if known and targets is not None else None for n in numbers]
    _steady(data, numbers)
    return Listing([Item(data, n) for n in numbers], [f"item {n}" for n in numbers], labels)


def _steady(data: Any, numbers: Sequence[int]) -> None:
    """
    Raises:
        ImageError: the data set changes its pictures at random, so that none could be shown again.
    """
    if not len(numbers):
        return
    try:
        first, second = (parted(data[numbers[0]])[0] for _ in range(2))
    except (OSError, ValueError, RuntimeError, SyntaxError):
        return
    plain = (Tensor, np.ndarray, Image.Image)
    if (
        isinstance(first, plain)
        and isinstance(second, plain)
        and not np.array_equal(_values(first), _values(second), equal_nan=True)
    ):
        raise ImageError("the data set gives something else each time it is asked; turn its random augmentation off")


def _values(item: Any) -> np.ndarray:
    return item.detach().cpu().numpy() if isinstance(item, Tensor) else np.asarray(item)


def _of_loader(loader: Any, batched: bool, limit: int | None) -> Listing:
    """The data set behind a loader, in its own order; a loader of a stream is read through once."""
    data, sampler = loader.dataset, getattr(loader, "sampler", None)
    if hasattr(data, "__getitem__") and hasattr(data, "__len__"):
        chosen = getattr(sampler, "indices", None)
        numbers = range(len(data)) if chosen is None else sorted({int(n) for n in chosen})
        return _of_dataset(data, numbers)
    if loader.batch_size is None:
        return _of_items(loader, batched, limit)
    return _of_items((one for batch in loader for one in _singles(batch, whole=True)), False, limit)


def _of_items(items: Iterable[Any], batched: bool, limit: int | None) -> Listing:
    """Pictures, inputs, pairs with a label, or batches of these, one after another."""
    sources, names, labels = list[Any](), list[str](), list[str | None]()
    endless = not hasattr(items, "__len__")
    for item in items:
        for source, label in _singles(item, whole=False, batched=batched):
            if endless and limit is not None and len(sources) == limit:
                return Listing(sources, names, labels)
            sources.append(source)
            labels.append(named(label))
            names.append(Path(source).name if isinstance(source, str | os.PathLike) else str(len(names)))
    return Listing(sources, names, labels)


def _singles(item: Any, *, whole: bool, batched: bool = False) -> Iterator[tuple[Any, Any]]:
    """The pictures and labels of one item, which may be a batch."""
    x, labels = parted(item)
    many = isinstance(x, Tensor) and x.dim() > 1
    several = many and np.ndim(labels) == 1 and len(labels) == len(x) > 0
    if many and (whole or several or (batched and x.dim() == 4)):
        known = list(labels) if several else [None] * len(x)
        yield from zip(x, known, strict=True)
    else:
        yield x, labels
