"""Many pictures, one after another: a folder, a zip, files, arrays, tensors or a data set, as inputs of a network."""

import os
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ImageError, ModelError, SettingError
from pellucid.images.decode import Picture, decode
from pellucid.images.placement import Placement
from pellucid.images.sources import SUFFIXES, Archived, Item, Listing, listed
from pellucid.images.transforms import Preprocess

__all__ = ["SUFFIXES", "Data", "Pictures", "pictures"]

READERS, AHEAD = 4, 2  # threads that read pictures, and batches that they may be ahead

Data = Any  # a folder, a zip, a list of pictures, a tensor (n, c, ...), a torch data set, or a `Pictures`


@dataclass(eq=False)
class Pictures:
    """Pictures in a fixed order, read when they are needed.

    Attributes:
        sources: what each is read from: a path, an array, an entry of a zip, or a tensor that is an input already.
        names: what each is called: the path below the folder, or its number.
        labels: the folder that holds each one, where pictures lie in folders by class, or what the data set says
            (where it says so only together with the picture: once that was read); else None.
        preprocess: how a picture becomes an input.
        failed: number -> why it could not be read, or holds no finite numbers; such a picture is passed over.
    """

    sources: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[str | None]
    preprocess: Preprocess | None
    failed: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    def __repr__(self) -> str:
        classes = len({label for label in self.labels if label is not None})
        failed = f", {len(self.failed)} unreadable" if self.failed else ""
        return f"Pictures({len(self)}{f' in {classes} classes' if classes else ''}{failed})"

    def input(self, number: int) -> Float[Tensor, "c *space"]:
        """One picture as the network's input.

        Raises:
            ImageError: it can't be read.
            ModelError: it is a picture, and how the network wants pictures is not known.
        """
        source = self._source(number)
        return _usual(source.detach()) if isinstance(source, Tensor) else self._prepared(source)[1]

    def picture(self, number: int) -> tuple[Picture | None, Placement | None]:
        """One picture as people see it, and where the input lies on it; None for a tensor of inputs."""
        source = self._source(number)
        if isinstance(source, Tensor):
            return None, None
        picture, _, placement = self._prepared(source)
        return picture, placement

    def batches(self, size: int, start: int = 0) -> Iterator[tuple[list[int], Float[Tensor, "b c *space"]]]:
        """Numbers and inputs of neighbours of one input size, a few at a time.

        Pictures are read ahead by other threads, at most two batches; unreadable ones are passed over.

        Raises:
            ImageError: none of all the pictures can be read.
        """
        numbers: list[int] = []
        inputs: list[Tensor] = []
        for number, x in self._ahead(range(start, len(self)), AHEAD * size):
            if inputs and (len(inputs) == size or x.shape != inputs[0].shape):
                yield numbers, torch.stack(inputs)
                numbers, inputs = [], []
            numbers, inputs = [*numbers, number], [*inputs, x]
        if inputs:
            yield numbers, torch.stack(inputs)
        elif len(self.failed) >= len(self):
            raise ImageError(_none_readable(self.failed))

    def digest(self) -> str:
        """A name for the data: names, when files were written and their sizes, or values, and how they are fed."""
        summary = blake2b(repr((list(self.names), self.preprocess)).encode("utf-8", "replace"), digest_size=16)
        for source in self.sources:
            summary.update(_trace_of(source))
        return summary.hexdigest()

    def _source(self, number: int) -> Any:
        source = self.sources[number]
        if isinstance(source, Item):
            source, label = source.read()
            if label is not None and isinstance(self.labels, list):
                self.labels[number] = label
        return source.read() if isinstance(source, Archived) else source

    def _prepared(self, source: Any) -> tuple[Picture, Tensor, Placement]:
        picture = decode(source)
        if self.preprocess is None:
            raise ModelError(UNKNOWN)
        ready = self.preprocess(picture)
        return picture, self.preprocess.normalise(ready.pixels), ready.placement

    def _ahead(self, numbers: range, most: int) -> Iterator[tuple[int, Tensor]]:
        """The inputs that can be read, in order; files are read by other threads before they are asked for."""
        if all(isinstance(self.sources[n], Tensor) for n in numbers):
            for number in numbers:
                yield from self._read(number, self.input)
            return
        own = any(isinstance(s, Item) for s in self.sources)  # a user's data set may not bear several threads
        with ThreadPoolExecutor(1 if own else READERS, "pellucid-pictures") as pool:
            waiting: deque[tuple[int, Future[Tensor]]] = deque()
            try:
                for number in numbers:
                    waiting.append((number, pool.submit(self.input, number)))
                    if len(waiting) > most:
                        yield from self._awaited(*waiting.popleft())
                while waiting:
                    yield from self._awaited(*waiting.popleft())
            finally:
                pool.shutdown(wait=False, cancel_futures=True)

    def _awaited(self, number: int, future: "Future[Tensor]") -> Iterator[tuple[int, Tensor]]:
        return self._read(number, lambda _: future.result())

    def _read(self, number: int, read: Callable[[int], Tensor]) -> Iterator[tuple[int, Tensor]]:
        try:
            x = read(number)
        except ImageError as error:
            self.failed[number] = str(error)
            return
        yield number, x


UNKNOWN = (
    "how the network wants its pictures is not known; give preprocess=pel.preprocess(resize_px=…, crop_px=…, mean=…, "
    "std=…) to pel.wrap or pel.load, or pass tensors of inputs"
)


def pictures(data: Data, preprocess: Preprocess | None, *, limit: int | None = None) -> Pictures:
    """Pictures in a fixed order, out of whatever holds them.

    Args:
        data: a folder (sub-folders and links followed, by name), a .zip, one picture or a list of anything `decode`
            reads, a tensor of inputs `(n, c, *space)` with any number of axes, a torch data set or loader, or an
            iterable of tensors or pairs (tensor, label). A loader's data set is taken in its own order. What can be
            gone through only once is kept in memory.
        preprocess: how a picture becomes an input; None will do where tensors come.
        limit: take at most so many, spread evenly over the data; the first ones of what has no length.

    Raises:
        ImageError: nothing there, or nothing that could be a picture.
        ModelError: pictures for a network whose preprocessing is not known.
        SettingError: a limit below 1.

    Example:
        >>> pictures(torch.zeros(5, 1, 8, 8), None, limit=2).names
        ['input 0', 'input 2']
    """
    if limit is not None and limit < 1:
        raise SettingError(f"limit is {limit}; take at least 1 picture, or leave limit=None for all")
    if isinstance(data, Pictures):
        found, failed = Listing(data.sources, data.names, data.labels), data.failed
        preprocess = data.preprocess or preprocess
        if limit is None or limit >= len(data):
            return data
    else:
        found, failed = listed(data, batched=preprocess is not None, limit=limit), {}
    if not len(found.sources):
        raise ImageError("the data is empty; give a folder, a .zip, a list of pictures or a tensor of inputs")
    if preprocess is None and not all(isinstance(s, Tensor | Item) for s in found.sources):
        raise ModelError(UNKNOWN)
    if limit is None or limit >= len(found.sources):
        return Pictures(found.sources, found.names, found.labels, preprocess)
    taken = [k * len(found.sources) // limit for k in range(limit)]
    kept = {new: failed[old] for new, old in enumerate(taken) if old in failed}
    sources, names = [found.sources[n] for n in taken], [found.names[n] for n in taken]
    return Pictures(sources, names, [found.labels[n] for n in taken], preprocess, kept)


def _usual(x: Tensor) -> Tensor:
    if not bool(x.sum().isfinite()) and not bool(x.isfinite().all()):  # the sum may only be too large for its dtype
        raise ImageError("the input holds numbers that are not finite; replace them, as by torch.nan_to_num")
    return x


def _none_readable(failed: dict[int, str]) -> str:
    why = next(iter(failed.values()))
    return f"none of {len(failed)} pictures can be read; the first of them: {why}"


def _trace_of(source: Any) -> bytes:
    """Something that changes when a picture does, without decoding it."""
    if isinstance(source, Tensor):
        flat = source.detach().cpu().double().flatten()
        return repr(
            (tuple(source.shape), float(flat.sum()), float(flat.square().sum()), float(flat[:1].sum()))
        ).encode()
    if isinstance(source, np.ndarray):
        return blake2b(np.ascontiguousarray(source).tobytes(), digest_size=8).digest()
    if isinstance(source, bytes | bytearray):
        return blake2b(bytes(source), digest_size=8).digest()
    if isinstance(source, Archived):
        return source.version.encode()
    try:
        facts = os.stat(source)
    except (OSError, TypeError, ValueError):
        return b""
    return f"{facts.st_size} {facts.st_mtime_ns}".encode()
