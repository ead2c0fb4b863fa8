"""Positions of a layer on the pixels of the input, by the centres of what its units see."""

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor

from pellucid.core.errors import LayerError
from pellucid.core.fields import Field

Places = tuple[Float64[np.ndarray, "_"], ...]  # one array for each axis


def centres(field: Field, positions: tuple[int, ...], layer: str) -> Places:
    """Where each position of a layer lies along each axis of the input, pixel i covering [i, i + 1).

    A unit lies at the middle of its receptive field. Where several neighbours see the same pixels (behind an
    enlargement), they are spread over the way to the next; where all see the same, they share the input in equal cells.

    Raises:
        LayerError: the layer's positions are not places of the input.
    """
    if len(positions) != len(field.input_px):
        raise LayerError(
            f'the positions of layer "{layer}", {positions}, are not places of an input of {field.input_px} px; '
            "choose a layer with maps"
        )
    if field.positions != positions:
        return tuple(_cells(m, n) for m, n in zip(positions, field.input_px, strict=True))
    sides = zip(field.low, field.high, field.input_px, strict=True)
    return tuple(_spread((low + high + 1) / 2, n) for low, high, n in sides)


def weights(at: Float64[np.ndarray, "m"], pixels: Float64[np.ndarray, "n"]) -> Float64[np.ndarray, "n m"]:
    """Linear interpolation between positions, constant beyond the outermost: each row sums to 1."""
    order = np.argsort(at, kind="stable")
    places = at[order]
    right = np.clip(np.searchsorted(places, pixels), 1, max(len(at) - 1, 1))
    if len(at) == 1:
        return np.ones((len(pixels), 1))
    left = right - 1
    share = np.clip((pixels - places[left]) / np.maximum(places[right] - places[left], 1e-12), 0.0, 1.0)
    found, rows = np.zeros((len(pixels), len(at))), np.arange(len(pixels))
    found[rows, order[left]] = 1 - share
    found[rows, order[right]] += share
    return found


def laid(maps: Float[Tensor, "c *space"], at: Places, size: tuple[int, ...]) -> Tensor:
    """Maps on the pixels of the input, `(c, *size)`."""
    found = maps
    for axis, (places, n) in enumerate(zip(at, size, strict=True), start=1):
        found = through(found, weights(places, np.arange(n) + 0.5), axis)
    return found


def through(maps: Tensor, matrix: Float64[np.ndarray, "n m"], axis: int) -> Tensor:
    """A matrix applied along one axis."""
    w = torch.from_numpy(matrix).to(maps)
    return (maps.movedim(axis, -1) @ w.T).movedim(-1, axis)


def _cells(count: int, length: int) -> Float64[np.ndarray, "n"]:
    return (np.arange(count) + 0.5) * length / count


def _spread(places: Float64[np.ndarray, "n"], length: int) -> Float64[np.ndarray, "n"]:
    """The places, where runs of equal ones share the step to the next run."""
    kept, first, count = np.unique(places, return_index=True, return_counts=True)
    if len(kept) == len(places):
        return places
    if len(kept) == 1:
        return _cells(len(places), length)
    steps = np.append(np.diff(kept), kept[-1] - kept[-2])
    _, run = np.unique(places, return_inverse=True)
    number = np.arange(len(places)) - first[run]
    return places + (number - (count[run] - 1) / 2) * steps[run] / count[run]
