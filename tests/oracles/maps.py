"""Feature maps and what a pixel activates: scaling, energy, hypercolumns, dead channels, what a layer does. NumPy.

Hypercolumns: Hariharan et al. 2015, arXiv:1411.5752, aligned here at the centres of the fields (specification §1.13).
Maps of one picture are `(K, *cells)`, of a data set `(images, K, *cells)`.
"""

from collections.abc import Sequence
from itertools import product

import numpy as np
import torch
from torch import Tensor, nn

from .exemplars import at_centres, quantile
from .fields import Axis


def min_max(A: np.ndarray) -> np.ndarray:
    """(a − min)/(max − min) of every channel over its own cells; 0 where nothing differs."""
    out = np.zeros(A.shape)
    for k, channel in enumerate(A):
        low, high = channel.min(), channel.max()
        if high > low:
            out[k] = (channel - low) / (high - low)
    return out


def against_data(A: np.ndarray, data: np.ndarray, low: float = 1, high: float = 99) -> np.ndarray:
    """(a − q_low)/(q_high − q_low) clipped to [0, 1], the percentiles of each channel over all images and cells.

    Where the percentiles are equal: 1 above them, else 0.
    """
    out = np.zeros(A.shape)
    for k in range(len(A)):
        first, last = quantile(data[:, k], low / 100), quantile(data[:, k], high / 100)
        for place in np.ndindex(*A.shape[1:]):
            value = A[(k, *place)]
            if last > first:
                out[(k, *place)] = min(max((value - first) / (last - first), 0), 1)
            else:
                out[(k, *place)] = float(value > last)
    return out


def energy(A: np.ndarray) -> np.ndarray:
    """‖A(p)‖₂ over the channels, `cells`."""
    out = np.zeros(A.shape[1:])
    for place in np.ndindex(*out.shape):
        out[place] = np.sqrt(sum(float(a) ** 2 for a in A[(slice(None), *place)]))
    return out


def key_point(A: np.ndarray) -> tuple[int, ...]:
    """The cell of the highest energy, the first of equals row by row."""
    heat = energy(A)
    best: tuple[int, ...] = (0,) * heat.ndim
    for place in np.ndindex(*heat.shape):
        if heat[place] > heat[best]:
            best = place
    return best


def region_vector(A: np.ndarray, region: np.ndarray) -> np.ndarray:
    """The mean of A over the cells of a boolean region, `(K,)`."""
    cells = [A[(slice(None), *place)] for place in np.ndindex(*region.shape) if region[place]]
    return sum(cells) / len(cells)


def variances(A: np.ndarray) -> list[float]:
    """The variance of every channel over its cells, dividing by n."""
    return [float(((channel - channel.mean()) ** 2).sum() / channel.size) for channel in A]


def sparsity(A: np.ndarray) -> list[float]:
    """The share of cells that are 0 or less, a number a channel."""
    return [sum(float(v) <= 0 for v in channel.ravel()) / channel.size for channel in A]


def dead(data: np.ndarray, floor: float = 0.0) -> list[bool]:
    """Channels that never rise above the floor, in any image at any cell."""
    return [all(float(v) <= floor for v in data[:, k].ravel()) for k in range(data.shape[1])]


def constant(data: np.ndarray) -> list[bool]:
    """Channels that are the same everywhere: dead before or without a rectifier."""
    return [float(data[:, k].max()) == float(data[:, k].min()) for k in range(data.shape[1])]


def saturated(data: np.ndarray, ceiling: float) -> list[float]:
    """The share of cells at the ceiling or above (6 for ReLU6), a number a channel, over all images."""
    return [sum(float(v) >= ceiling for v in data[:, k].ravel()) / data[:, k].size for k in range(data.shape[1])]


# ------------------------------------------------------------------------------------------------------- hypercolumns


def hypercolumn(layers: Sequence[tuple[np.ndarray, Sequence[Axis]]], size: Sequence[int]) -> np.ndarray:
    """All channels of all layers at every pixel, each map drawn at its fields' centres: `(Σ K, *size)`."""
    return np.stack([at_centres(channel, fields, size) for A, fields in layers for channel in A])


def column_at(layers: Sequence[tuple[np.ndarray, Sequence[Axis]]], place: Sequence[int]) -> np.ndarray:
    """The same at one pixel, written out for two axes: t = (q − start)/stride in 0 … n − 1, linear between cells."""
    found = []
    for A, fields in layers:
        t = [min(max((q - a.start) / a.stride, 0), n - 1) for q, a, n in zip(place, fields, A.shape[1:], strict=True)]
        low = [int(np.floor(v)) for v in t]
        high = [min(v + 1, n - 1) for v, n in zip(low, A.shape[1:], strict=True)]
        f, g = t[0] - low[0], t[1] - low[1]
        for channel in A:
            upper = (1 - g) * channel[low[0], low[1]] + g * channel[low[0], high[1]]
            lower = (1 - g) * channel[high[0], low[1]] + g * channel[high[0], high[1]]
            found.append((1 - f) * upper + f * lower)
    return np.array(found)


def reconstruction(columns: np.ndarray, picture: np.ndarray, ridge: float = 0.0) -> tuple[np.ndarray, float]:
    """The picture `(C, *size)` by least squares from the columns `(D, *size)` and a constant, and R² over all channels.

    B = (XᵀX + ridge I)⁻¹ Xᵀ Y, the pixels being the rows; the ridge spares the constant.
    """
    rows = columns.reshape(len(columns), -1).T
    X = np.concatenate([rows, np.ones((len(rows), 1))], 1)
    Y = picture.reshape(len(picture), -1).T
    shrink = ridge * np.eye(X.shape[1])
    shrink[-1, -1] = 0
    found = X @ (np.linalg.pinv(X.T @ X + shrink) @ X.T @ Y)
    error, spread = ((Y - found) ** 2).sum(), ((Y - Y.mean(0)) ** 2).sum()
    return found.T.reshape(picture.shape), float(1 - error / spread)


# ------------------------------------------------------------------------------------------------- what a layer does


def layer_effect(model: nn.Module, layer: str, images: Tensor, channels: Sequence[int] | None = None) -> Tensor:
    """f(x) − f(x with every channel of the layer at its mean over its cells), `(images, outputs)`, one picture a run.

    `channels` limits it to some channels. A layer without cells (after a flatten) has no mean to take: unchanged.
    """

    def put(module, inputs, output):
        flat = output.clone()
        for n, k in product(range(output.shape[0]), range(output.shape[1]) if channels is None else channels):
            flat[n, k] = output[n, k].mean()
        return flat

    found = []
    with torch.no_grad():
        for image in images:
            usual = model(image[None])
            handle = model.get_submodule(layer).register_forward_hook(put)
            try:
                found.append((usual - model(image[None]))[0])
            finally:
                handle.remove()
    return torch.stack(found)
