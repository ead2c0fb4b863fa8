"""Many pictures, one after another: a folder, files, arrays or tensors, as inputs of a network."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import ImageError
from pellucid.images.decode import Picture, decode
from pellucid.images.placement import Placement
from pellucid.images.transforms import Preprocess

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".gif", ".tif", ".tiff", ".bmp")

Data = Any  # a folder, a list of pictures, a tensor (n, c, ...), or a `Pictures`


@dataclass(eq=False)
class Pictures:
    """Pictures in a fixed order, read when they are needed.

    Attributes:
        sources: what each is read from: a path, an array, or a tensor that is an input already.
        names: what each is called: the path below the folder, or its number.
        labels: the folder that holds each one, where pictures lie in folders by class; else None.
        preprocess: how a picture becomes an input.
        failed: number -> why it could not be read; such a picture is passed over.
    """

    sources: Sequence[Any]
    names: Sequence[str]
    labels: Sequence[str | None]
    preprocess: Preprocess | None
    failed: dict[int, str] = field(default_factory=dict)

    def __len__(self) -> int:
        return len(self.sources)

    def input(self, number: int) -> Float[Tensor, "c *space"]:
        """One picture as the network's input."""
        source = self.sources[number]
        if isinstance(source, Tensor):
            return source
        return self._prepared(number)[1]

    def picture(self, number: int) -> tuple[Picture | None, Placement | None]:
        """One picture as people see it, and where the input lies on it; None for a tensor of inputs."""
        if isinstance(self.sources[number], Tensor):
            return None, None
        picture, _, placement = self._prepared(number)
        return picture, placement

    def batches(self, size: int, start: int = 0) -> Iterator[tuple[list[int], Float[Tensor, "b c *space"]]]:
        """Numbers and inputs of neighbours of one input size, a few at a time; unreadable ones are passed over."""
        numbers: list[int] = []
        inputs: list[Tensor] = []
        for number in range(start, len(self)):
            try:
                x = self.input(number)
            except ImageError as error:
                self.failed[number] = str(error)
                continue
            if inputs and (len(inputs) == size or x.shape != inputs[0].shape):
                yield numbers, torch.stack(inputs)
                numbers, inputs = [], []
            numbers, inputs = [*numbers, number], [*inputs, x]
        if inputs:
            yield numbers, torch.stack(inputs)

    def _prepared(self, number: int) -> tuple[Picture, Tensor, Placement]:
        picture = decode(self.sources[number])
        assert self.preprocess is not None
        ready = self.preprocess(picture)
        return picture, self.preprocess.normalise(ready.pixels), ready.placement


def pictures(data: Data, preprocess: Preprocess | None) -> Pictures:
    """Pictures out of a folder (with or without one folder a class), files, arrays, or a tensor of inputs.

    Raises:
        ImageError: nothing there, or pictures for a network whose preprocessing is not known.
    """
    if isinstance(data, Pictures):
        return data
    if isinstance(data, Tensor):
        return Pictures(list(data), [f"input {i}" for i in range(len(data))], [None] * len(data), preprocess)
    if isinstance(data, str | PathLike):
        root = Path(data)
        paths = sorted(p for p in root.rglob("*") if p.suffix.lower() in SUFFIXES)
        names = [str(p.relative_to(root)) for p in paths]
        labels = [p.parent.name if p.parent != root else None for p in paths]
        return Pictures(paths, names, labels, preprocess)
    sources = list(data) if isinstance(data, Iterable) else [data]
    return Pictures(sources, [str(i) for i in range(len(sources))], [None] * len(sources), preprocess)
