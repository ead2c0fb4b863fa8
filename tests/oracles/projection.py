"""The deconvolutional network, walked down by hand: Zeiler & Fergus 2014, arXiv:1311.2901, §2.1. NumPy, one picture.

Going up, every max-pool remembers which cell of each window won (its switch). Going down from one activation (value
kept, all others 0), a layer after the other:

    max-pool      the value goes to its switch, 0 elsewhere (windows that overlap add up)
    rectifier     max(0, ·), whatever went up through it
    convolution   the transposed kernels, no bias:  ĝ[i, s y − p + d u] += Σ_o W[o, i, u] g[o, y]

and for what the paper did not meet (specification §1.1): batch-norm in evaluation · γ/√(σ² + ε), average pool spread
evenly, sum of branches: a copy into each, concatenation: split, a linear layer Wᵀ, local response norm: passed over.
A network is a list of torch layers, `Sum` and `Concat`.
"""

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from .fields import many, out_length

RECTIFIERS = (nn.ReLU, nn.ReLU6, nn.LeakyReLU, nn.GELU, nn.SiLU, nn.ELU, nn.Hardswish)
PASSED = (nn.Identity, nn.Dropout, nn.LocalResponseNorm)


@dataclass(frozen=True)
class Sum:
    """Branches that get the same input and are added; an empty branch is the shortcut."""

    branches: tuple[list[Any], ...]


@dataclass(frozen=True)
class Concat:
    """Branches that get the same input and are laid side by side along the channels."""

    branches: tuple[list[Any], ...]


def array(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy()


# ----------------------------------------------------------------------------------------------------------- going up


def windows(layer: Any, height: int, width: int) -> list[tuple[int, int, list[tuple[int, int]]]]:
    """For every output cell (y, x) of a pool: the input cells of its window that are inside the picture."""
    k, p = many(layer.kernel_size, 2), many(layer.padding, 2)
    s = k if layer.stride is None else many(layer.stride, 2)
    d = many(getattr(layer, "dilation", 1), 2)
    rows, columns = (out_length(n, k[a], s[a], p[a], d[a], layer.ceil_mode) for a, n in enumerate((height, width)))
    found = []
    for y in range(rows):
        for x in range(columns):
            cells = [(s[0] * y - p[0] + d[0] * u, s[1] * x - p[1] + d[1] * v) for u in range(k[0]) for v in range(k[1])]
            found.append((y, x, [(r, c) for r, c in cells if 0 <= r < height and 0 <= c < width]))
    return found


def divisor(layer: nn.AvgPool2d, y: int, x: int, inside: int, height: int, width: int) -> float:
    """What torch divides an average by: the cells inside the picture, or inside the padded picture."""
    if layer.divisor_override:
        return layer.divisor_override
    if not layer.count_include_pad:
        return inside
    k, p, s = many(layer.kernel_size, 2), many(layer.padding, 2), many(layer.stride, 2)
    firsts = (s[0] * y - p[0], s[1] * x - p[1])
    ends = [min(first + k[a], n + p[a]) for a, (first, n) in enumerate(zip(firsts, (height, width), strict=True))]
    return (ends[0] - firsts[0]) * (ends[1] - firsts[1])


def max_pool(layer: nn.MaxPool2d, x: np.ndarray) -> tuple[np.ndarray, dict[tuple[int, int, int], tuple[int, int]]]:
    """The pooled map and the switches; of equal cells the first, row by row."""
    every = windows(layer, *x.shape[1:])
    out = np.zeros((len(x), max(y for y, _, _ in every) + 1, max(c for _, c, _ in every) + 1))
    switches = {}
    for k in range(len(x)):
        for y, column, cells in every:
            best = max(cells, key=lambda cell: x[(k, *cell)])
            switches[k, y, column], out[k, y, column] = best, x[(k, *best)]
    return out, switches


def convolve(layer: nn.Conv2d, x: np.ndarray) -> np.ndarray:
    """y[o, i] = b[o] + Σ_c Σ_u W[o, c, u] x[c, s i − p + d u], groups kept apart, zeros outside."""
    w, p, s, d = array(layer.weight), many(layer.padding, 2), layer.stride, layer.dilation
    k = w.shape[2:]
    size = [out_length(n, k[a], s[a], p[a], d[a]) for a, n in enumerate(x.shape[1:])]
    out = np.zeros((len(w), *size)) + (0 if layer.bias is None else array(layer.bias)[:, None, None])
    per_in, per_out = len(x) // layer.groups, len(w) // layer.groups
    for o, y, c, u, v in np.ndindex(len(w), *size, *k):
        row, column = s[0] * y - p[0] + d[0] * u, s[1] * c - p[1] + d[1] * v
        if 0 <= row < x.shape[1] and 0 <= column < x.shape[2]:
            first = o // per_out * per_in
            out[o, y, c] += w[o, :, u, v] @ x[first : first + per_in, row, column]
    return out


def scale(layer: nn.BatchNorm2d) -> np.ndarray:
    """γ/√(σ² + ε), a number a channel."""
    gamma = np.ones(layer.num_features) if layer.weight is None else array(layer.weight)
    return gamma / np.sqrt(array(layer.running_var) + layer.eps)


def up(layer: Any, x: np.ndarray) -> tuple[np.ndarray, Any]:
    """One layer's output, and what going down needs to know."""
    if isinstance(layer, Sum | Concat):
        pairs = [climb(branch, x) for branch in layer.branches]
        outs, notes = [out for out, _ in pairs], [(note, len(out)) for out, note in pairs]
        return (np.sum(outs, 0) if isinstance(layer, Sum) else np.concatenate(outs)), notes
    if isinstance(layer, nn.MaxPool2d):
        out, switches = max_pool(layer, x)
        return out, (switches, x.shape)
    if isinstance(layer, nn.Conv2d):
        return convolve(layer, x), x.shape
    with torch.no_grad():  # elementwise, batch-norm, average, flatten, linear: torch's own
        return array(copy.deepcopy(layer).double().eval()(torch.tensor(x)[None])[0]), x.shape


def climb(layers: Sequence[Any], x: np.ndarray) -> tuple[np.ndarray, list[Any]]:
    notes = []
    for layer in layers:
        x, note = up(layer, x)
        notes.append(note)
    return x, notes


# --------------------------------------------------------------------------------------------------------- going down


def filter_back(layer: nn.Conv2d, g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """ĝ[c, s i − p + d u] += Σ_o W[o, c, u] g[o, i]: every output cell paints its kernel, the outside is dropped."""
    w, p, s, d = array(layer.weight), many(layer.padding, 2), layer.stride, layer.dilation
    back = np.zeros(shape)
    per_in, per_out = shape[0] // layer.groups, len(w) // layer.groups
    for o, y, c, u, v in np.ndindex(*g.shape, *w.shape[2:]):
        row, column = s[0] * y - p[0] + d[0] * u, s[1] * c - p[1] + d[1] * v
        if 0 <= row < shape[1] and 0 <= column < shape[2]:
            first = o // per_out * per_in
            back[first : first + per_in, row, column] += w[o, :, u, v] * g[o, y, c]
    return back


def average_back(layer: Any, g: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """Every output cell gives each cell of its window the same share of its value."""
    back = np.zeros(shape)
    if isinstance(layer, nn.AdaptiveAvgPool2d):  # window i is ⌊i n/m⌋ … ⌈(i+1) n/m⌉ − 1
        for y, c in np.ndindex(*g.shape[1:]):
            (r0, r1), (c0, c1) = (
                (i * n // m, -(-(i + 1) * n // m)) for i, n, m in zip((y, c), shape[1:], g.shape[1:], strict=True)
            )
            back[:, r0:r1, c0:c1] += (g[:, y, c] / ((r1 - r0) * (c1 - c0)))[:, None, None]
        return back
    for y, c, cells in windows(layer, *shape[1:]):
        share = g[:, y, c] / divisor(layer, y, c, len(cells), *shape[1:])
        for cell in cells:
            back[(slice(None), *cell)] += share
    return back


def down(layer: Any, g: np.ndarray, note: Any) -> np.ndarray:
    """What arrives below a layer when g arrives above it."""
    if isinstance(layer, Sum):
        return np.sum([descend(branch, g, n) for branch, (n, _) in zip(layer.branches, note, strict=True)], 0)
    if isinstance(layer, Concat):
        ends = np.cumsum([width for _, width in note])
        parts = np.split(g, ends[:-1])
        return np.sum([descend(b, p, n) for b, p, (n, _) in zip(layer.branches, parts, note, strict=True)], 0)
    if isinstance(layer, nn.MaxPool2d):
        switches, shape = note
        back = np.zeros(shape)
        for (k, y, x), cell in switches.items():
            back[(k, *cell)] += g[k, y, x]
        return back
    if isinstance(layer, nn.Conv2d):
        return filter_back(layer, g, note)
    if isinstance(layer, RECTIFIERS):
        return np.maximum(g, 0)
    if isinstance(layer, nn.BatchNorm2d):
        return g * scale(layer)[:, None, None]
    if isinstance(layer, nn.AvgPool2d | nn.AdaptiveAvgPool2d):
        return average_back(layer, g, note)
    if isinstance(layer, nn.Linear):
        return array(layer.weight).T @ g
    if isinstance(layer, nn.Flatten):
        return g.reshape(note)
    if isinstance(layer, PASSED):
        return g
    raise NotImplementedError(f"no way down through {layer}")


def descend(layers: Sequence[Any], g: np.ndarray, notes: Sequence[Any]) -> np.ndarray:
    for layer, note in list(zip(layers, notes, strict=True))[::-1]:
        g = down(layer, g, note)
    return g


def project(
    layers: Sequence[Any], x: np.ndarray, channel: int, place: tuple[int, ...] | None = None, value: float | None = None
) -> tuple[np.ndarray, float, tuple[int, ...]]:
    """The map `(C, H, W)` of one activation of the last of `layers`, the activation, and its place.

    Args:
        layers: From the picture up to the layer looked at.
        x: The picture `(C, H, W)`.
        place: The cell; by default the channel's highest, the first of equals.
        value: What goes down instead of the activation itself.
    """
    a, notes = climb(layers, np.asarray(x, dtype=np.float64))
    if place is None:
        place = tuple(int(i) for i in np.unravel_index(np.argmax(a[channel]), a[channel].shape))
    g = np.zeros(a.shape)
    g[(channel, *place)] = a[(channel, *place)] if value is None else value
    return descend(layers, g, notes), float(a[(channel, *place)]), place
