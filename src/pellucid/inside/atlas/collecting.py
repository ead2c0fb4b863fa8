"""Activations out of many pictures: from each a vector at a random place of a layer, and what it gives to classes."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod

import numpy as np
import torch
from jaxtyping import Float32, Int64
from torch import Tensor

from pellucid.core.chunks import in_chunks
from pellucid.core.errors import ImageError, LayerError, SettingError
from pellucid.core.fields import fields
from pellucid.core.progress import Progress
from pellucid.core.record import record
from pellucid.images.datasets import Pictures
from pellucid.inside.atlas.attributing import attributions
from pellucid.inside.opened import Opened
from pellucid.methods.pictures import home_of

USUAL = 8


@dataclass(frozen=True, eq=False)
class Samples:
    """One row for each vector.

    Attributes:
        vectors: the activations of all of a layer's units at one place.
        attributions: what the vector gives to the score of each class.
        pictures: the number of its picture in the data set.
        positions: the place on the layer's map.
        boxes: (first pixel, one behind the last) of what the place sees of the input, along each axis.
    """

    vectors: Float32[np.ndarray, "n c"]
    attributions: Float32[np.ndarray, "n k"]
    pictures: Int64[np.ndarray, "n"]
    positions: Int64[np.ndarray, "n axes"]
    boxes: Int64[np.ndarray, "n axes 2"]

    def __len__(self) -> int:
        return len(self.vectors)

    def only(self, which: np.ndarray) -> "Samples":
        """Some of the rows."""
        parts = (self.vectors, self.attributions, self.pictures, self.positions, self.boxes)
        return Samples(*(p[which] for p in parts))


def places(lengths: Sequence[int], picture: int, count: int, seed: int) -> list[tuple[int, ...]]:
    """Different random places of one map, the outermost rows and columns left out where others remain.

    What is drawn hangs on the seed and the picture's number alone, not on which pictures came before.

    Example:
        >>> places((3, 2), picture=7, count=1, seed=0)[0][0]
        1
    """
    inner = [range(1, n - 1) if n > 2 else range(n) for n in lengths]
    random = np.random.default_rng([seed, picture])
    total = prod(map(len, inner))
    flat = random.choice(total, size=min(count, total), replace=False)
    return [
        tuple(axis[int(i)] for axis, i in zip(inner, np.unravel_index(one, [len(a) for a in inner]), strict=True))
        for one in flat
    ]


def collect(
    inside: Opened, layer: str, given: Pictures, samples: int | None, seed: int, progress: Progress, told: list[str]
) -> Samples:
    """Vectors out of a data set: one from each picture, or as many as are asked for.

    Args:
        samples: how many; fewer than there are pictures leaves out a random part of them, more takes several places
            of each.

    Raises:
        ImageError: no picture can be used.
        LayerError: the layer mixes the pictures of a batch.
    """
    if samples is not None and (isinstance(samples, bool) or samples < 1):
        raise SettingError(f"samples={samples} came; take at least 1")
    if not len(given):
        raise ImageError("the data set is empty; give a folder with pictures, a list of them or inputs (n, c, h, w)")
    wanted = len(given) if samples is None else samples
    chosen = sorted(np.random.default_rng([seed, 0]).permutation(len(given))[:wanted].tolist())
    each = ceil(wanted / len(chosen))
    values = [v for node in inside.trace.nodes for v in node.outputs if v is not None]
    size = 2 * sum(v.shape.numel() * v.dtype.itemsize for v in values) // inside.trace.batch
    progress.expect(len(chosen))

    def work(which: Sequence[int]) -> list[Samples]:
        found = _of(inside, layer, given, which, each, seed)
        progress.advance(len(which), "activations of the data set")
        return found

    device = home_of(inside.model.module).device
    chunks = in_chunks(chosen, work, device=device, bytes_each=size, usual=USUAL, told=told.append)
    parts = [part for _, found in chunks for part in found]
    if not parts:
        raise ImageError(f"no picture of the data set can be used: {next(iter(given.failed.values()), 'it is empty')}")
    return _joined(parts, wanted)


def _joined(parts: Sequence[Samples], wanted: int) -> Samples:
    """All rows; where there are several from each picture, the last places give way so that `wanted` remain."""
    names = ("vectors", "attributions", "pictures", "positions", "boxes")
    whole = Samples(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))
    if len(whole) <= wanted:
        return whole
    turn = np.zeros(len(whole), np.int64)  # the how-manieth of its picture each row is
    seen: dict[int, int] = {}
    for row, picture in enumerate(whole.pictures.tolist()):
        turn[row] = seen[picture] = seen.get(picture, -1) + 1
    return whole.only(np.sort(np.argsort(turn, kind="stable")[:wanted]))


def _of(inside: Opened, layer: str, given: Pictures, which: Sequence[int], each: int, seed: int) -> list[Samples]:
    """The vectors of a few pictures, those of one size together."""
    by_shape: dict[tuple[int, ...], list[tuple[int, Tensor]]] = {}
    for number in which:
        try:
            x = given.input(number)
        except ImageError as error:
            given.failed[number] = str(error)
            continue
        by_shape.setdefault(tuple(x.shape), []).append((number, x))
    return [
        _same_size(inside, layer, [n for n, _ in group], torch.stack([x for _, x in group]), each, seed)
        for group in by_shape.values()
    ]


def _same_size(inside: Opened, layer: str, numbers: Sequence[int], x: Tensor, each: int, seed: int) -> Samples:
    module = inside.model.module
    trace = record(module, x.to(home_of(module)))
    value = trace.at(layer)
    maps = inside.maps(layer, value.data)
    if len(maps) != len(numbers):
        raise LayerError(f'layer "{layer}" mixes the pictures of a batch, so no vector belongs to one; choose another')
    field, seen = fields(trace)[value], x.shape[2:]
    drawn = [places(maps.shape[2:], number, each, seed) for number in numbers]
    vectors, shares, rows = [], [], []
    for turn in range(max(map(len, drawn))):
        tangent = torch.zeros_like(value.data)
        having = [k for k, mine in enumerate(drawn) if turn < len(mine)]
        for k in having:
            at = (k, slice(None), *drawn[k][turn])
            inside.maps(layer, tangent)[at] = maps[at]
        given_to = attributions(trace, value, tangent)
        for k in having:
            position = drawn[k][turn]
            vectors.append(maps[(k, slice(None), *position)].detach().float().cpu())
            shares.append(given_to[k])
            ends = zip(field.low, field.high, position, seen, strict=True) if field.low else ()
            box = [(max(int(w[p]), 0), min(int(h[p]) + 1, n)) for w, h, p, n in ends] or [(0, n) for n in seen]
            rows.append((numbers[k], position, box))
    return Samples(
        torch.stack(vectors).numpy(), torch.stack(shares).numpy(), np.array([r[0] for r in rows], np.int64),
        np.array([r[1] for r in rows], np.int64), np.array([r[2] for r in rows], np.int64),
    )  # fmt: skip
