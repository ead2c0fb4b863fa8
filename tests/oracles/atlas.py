"""Activation atlas and dense maps. NumPy and torch.

Atlas: Carter et al. 2019, doi 10.23915/distill.00015, and specification §1.6. Dense maps: shift-and-stitch, Sermanet et
al. 2014 (arXiv:1312.6229, §3.3) and Long et al. 2015 (arXiv:1411.4038, §3.2); à trous, Chen et al. 2015
(arXiv:1412.7062); specification §2.9.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .exemplars import quantile
from .fields import many, out_length

Cell = tuple[int, ...]

# ------------------------------------------------------------------------------------------------------------- layout


def bounds(points: np.ndarray, low: float = 1, high: float = 99, margin: float = 0.1) -> list[tuple[float, float]]:
    """(q_low − margin · span, q_high + margin · span) along each axis, span = q_high − q_low, both of the same span.

    Lucid takes the upper margin from the lower bound it has already moved: 1.1 times as wide.
    """
    found = []
    for column in points.T:
        a, b = quantile(column, low / 100), quantile(column, high / 100)
        found.append((a - margin * (b - a), b + margin * (b - a)))
    return found


def layout(points: np.ndarray, low: float = 1, high: float = 99, margin: float = 0.1, by: str = "data") -> np.ndarray:
    """Points `(N, 2)` clipped to the bounds, then scaled to [0, 1] by the clipped `data` (as Lucid) or the `bounds`."""
    out = np.zeros(points.shape)
    for axis, (a, b) in enumerate(bounds(points, low, high, margin)):
        clipped = [min(max(float(v), a), b) for v in points[:, axis]]
        first, last = (min(clipped), max(clipped)) if by == "data" else (a, b)
        out[:, axis] = [(v - first) / (last - first) if last > first else 0.5 for v in clipped]
    return out


def cell_of(point: np.ndarray, side: int) -> Cell:
    """(⌊u n⌋, ⌊v n⌋), the far edge counted to the last cell: every point of [0, 1]² is in exactly one."""
    return tuple(min(int(np.floor(v * side)), side - 1) for v in point)


def counts(points: np.ndarray, side: int) -> np.ndarray:
    """How many points lie in each cell, `(side, side)`; they sum to N."""
    out = np.zeros((side, side), dtype=int)
    for point in points:
        out[cell_of(point, side)] += 1
    return out


def cell_means(points: np.ndarray, activations: np.ndarray, side: int, more_than: int = 5) -> dict[Cell, np.ndarray]:
    """The mean activation `(K,)` of every cell with more than so many points."""
    members: dict[Cell, list[np.ndarray]] = {}
    for point, activation in zip(points, activations, strict=True):
        members.setdefault(cell_of(point, side), []).append(activation)
    return {cell: sum(rows) / len(rows) for cell, rows in members.items() if len(rows) > more_than}


def cell_labels(points: np.ndarray, attributions: np.ndarray, side: int, more_than: int = 5) -> dict[Cell, int]:
    """The class of the highest mean attribution; attributions `(N, classes)`; of equal ones the first."""
    return {cell: int(np.argmax(mean)) for cell, mean in cell_means(points, attributions, side, more_than).items()}


def purity(points: np.ndarray, labels: Sequence[int], side: int) -> float:
    """The share of points whose label is their cell's most frequent."""
    members: dict[Cell, list[int]] = {}
    for point, label in zip(points, labels, strict=True):
        members.setdefault(cell_of(point, side), []).append(label)
    return sum(max(row.count(v) for v in set(row)) for row in members.values()) / len(points)


# --------------------------------------------------------------------------------------------------------- directions


def second_moment(activations: np.ndarray) -> np.ndarray:
    """E[h hᵀ] of `(N, K)`, not centred."""
    return sum(np.outer(h, h) for h in activations) / len(activations)


def whitening(activations: np.ndarray, ridge: float = 0.0) -> np.ndarray:
    """S = (E[h hᵀ] + ridge I)⁻¹."""
    moment = second_moment(activations)
    return np.linalg.inv(moment + ridge * np.eye(len(moment)))


def cell_objective(h: np.ndarray, v: np.ndarray, s: np.ndarray | None = None, power: float = 2, to: str = "v") -> float:
    """h·(S v) · max(0.1, cos(h, v))^p; `to="Sv"` takes the cosine to S v.

    Lucid's "cosine" is mean(h ∘ S v)/(1e-4 + ‖h‖): to S v, divided by K and not by ‖S v‖.
    """
    target = v if s is None else s @ v
    other = target if to == "Sv" else v
    size = np.sqrt((h**2).sum() * (other**2).sum())
    angle = float(h @ other / size) if size > 0 else 0.0
    return float(h @ target) * max(0.1, angle) ** power


# --------------------------------------------------------------------------------------------------------- dense maps


def shift_and_stitch(net: Callable[[Tensor], Tensor], x: Tensor, stride: int) -> tuple[Tensor, Tensor]:
    """The cell [i, j] of net(x[a:, b:]) goes to (a + s i, b + s j), for every shift (a, b) below s.

    `net` has total stride s. x `(1, C, H, W)`. Returns the dense map and where it is filled. The borders are the moved
    pictures' own: trust only cells q whose field begins at q mod s or later and ends inside the picture.
    """
    parts = {(a, b): net(x[:, :, a:, b:]) for a in range(stride) for b in range(stride)}
    height = max(a + stride * (p.shape[2] - 1) + 1 for (a, _), p in parts.items())
    width = max(b + stride * (p.shape[3] - 1) + 1 for (_, b), p in parts.items())
    first = parts[0, 0]
    dense = torch.zeros(1, first.shape[1], height, width, dtype=first.dtype)
    filled = torch.zeros(height, width, dtype=torch.bool)
    for (a, b), part in parts.items():
        for i in range(part.shape[2]):
            for j in range(part.shape[3]):
                dense[:, :, a + stride * i, b + stride * j] = part[:, :, i, j]
                filled[a + stride * i, b + stride * j] = True
    return dense, filled


def pooled(layer: Any, x: Tensor, rates: Sequence[int]) -> Tensor:
    """Every window of a pool, stride 1, its cells `rates` × the kernel's dilation apart, picture already padded with
    nan where nothing is: the maximum, or the average as torch divides it (see `dense_pool`)."""
    k, d = many(layer.kernel_size, 2), many(getattr(layer, "dilation", 1), 2)
    shifts = [(u * d[0] * rates[0], v * d[1] * rates[1]) for u in range(k[0]) for v in range(k[1])]
    height = x.shape[2] - (k[0] - 1) * d[0] * rates[0]
    width = x.shape[3] - (k[1] - 1) * d[1] * rates[1]
    cells = torch.stack([x[:, :, a : a + height, b : b + width] for a, b in shifts])
    if isinstance(layer, nn.MaxPool2d):
        return torch.where(cells.isnan(), -torch.inf, cells).amax(0)
    inside = (~cells.isnan()).sum(0)
    over = layer.divisor_override or (k[0] * k[1] if layer.count_include_pad else inside)
    return cells.nan_to_num(0.0).sum(0) / over


def dense_layers(
    layers: Sequence[nn.Module], x: Tensor, first: int, ceil_rule: bool = True
) -> tuple[Tensor, tuple[int, int]]:
    """The layers run with every stride from layer `first` on set to 1, and (r, r), how much denser the map is.

    With r the product of the strides left out so far, a kernel's dilation d becomes d r and its padding p becomes p r.
    A pool with `ceil_mode` gets r d (k − 1) of nothing at the right and bottom, and its map is cut to M s r, M the
    length it used to have (and to cells whose window starts inside the picture). Then dense[::r] = the usual map.
    `ceil_rule=False` forgets that, to show that it is needed. Average pools that count padding and have `ceil_mode`
    are refused: their divisors differ at the far border. Convolutions pad with zeros.
    """
    rates, usual = [1, 1], list(x.shape[2:])  # usual: what each length would be without any of this
    for number, layer in enumerate(layers):
        if number < first or not hasattr(layer, "kernel_size"):
            x = layer(x)
            usual = list(x.shape[2:]) if number < first else usual
            continue
        k, p = many(layer.kernel_size, 2), many(layer.padding, 2)
        s, d = many(layer.stride, 2), many(getattr(layer, "dilation", 1), 2)
        ceil = getattr(layer, "ceil_mode", False)
        before = list(x.shape[2:])
        usual = [out_length(n, k[a], s[a], p[a], d[a], ceil) for a, n in enumerate(usual)]
        pads = [p[a] * rates[a] for a in (0, 1)]
        if isinstance(layer, nn.Conv2d):
            wide = F.pad(x, (pads[1], pads[1], pads[0], pads[0]))
            spread = (d[0] * rates[0], d[1] * rates[1])
            x = F.conv2d(wide, layer.weight, layer.bias, dilation=spread, groups=layer.groups)
        else:
            x = dense_pool(layer, x, rates, pads, ceil and ceil_rule)
        for a in (0, 1):
            rates[a] *= s[a]
        if ceil and ceil_rule:
            ends = [min(usual[a] * rates[a], before[a] + pads[a]) for a in (0, 1)]
            x = x[:, :, : ends[0], : ends[1]]
    return x, (rates[0], rates[1])


def dense_pool(layer: Any, x: Tensor, rates: Sequence[int], pads: Sequence[int], ceil: bool) -> Tensor:
    """A pool at stride 1: padded with nothing on all sides, and further at the far ends with `ceil`."""
    if ceil and isinstance(layer, nn.AvgPool2d) and layer.count_include_pad and any(pads):
        raise NotImplementedError("ceil_mode with padding that counts")
    k, d = many(layer.kernel_size, 2), many(getattr(layer, "dilation", 1), 2)
    more = [rates[a] * d[a] * (k[a] - 1) if ceil else 0 for a in (0, 1)]
    nothing = (pads[1], pads[1] + more[1], pads[0], pads[0] + more[0])
    return pooled(layer, F.pad(x, nothing, value=torch.nan), rates)


def cover(fields: Sequence[Any], cells: Sequence[Cell], size: Sequence[int]) -> np.ndarray:
    """How many of the cells' fields hold each pixel: nowhere 0 if the regions cover the picture."""
    out = np.zeros(tuple(size), dtype=int)
    for cell in cells:
        spans = [axis.span(i) for axis, i in zip(fields, cell, strict=True)]
        for place in np.ndindex(*size):
            out[place] += all(first <= q <= last for q, (first, last) in zip(place, spans, strict=True))
    return out
