"""Masks over the picture: RISE, extremal and meaningful perturbations, by explicit loops. m = 1 shows, m = 0 hides.

RISE (Petsiuk et al. 2018, §3.2), for h × w cells of CH × CW pixels: a grid of 0 and 1, enlarged linearly, cropped after
a shift of less than one cell. Text and authors' code differ: the text says an enlarged size of (h+1)·CH and cells of
⌊H/h⌋, the code ⌈H/h⌉; the code enlarges the s × s grid to s + 1 cells. Both divide by N·p; later codes by Σ m.
"""

import itertools
from collections.abc import Callable, Sequence
from math import ceil, exp

import torch
from torch import Tensor

from .occlusion import Network, ask

D = torch.float64


# -------------------------------------------------------------------------------------------------------------- RISE


def source(place: int, size: int, old: int) -> list[tuple[int, float]]:
    """Which cells of `old` a pixel of `size` is mixed from: pixel centres, (place + ½)·old/size − ½, edges repeated."""
    at = min(max((place + 0.5) * old / size - 0.5, 0.0), old - 1.0)
    low = min(int(at), old - 1)
    return [(low, 1 - (at - low)), (min(low + 1, old - 1), at - low)]


def enlarged(grid: Tensor, size: Sequence[int]) -> Tensor:
    """(Bi-, tri-)linear, pixel centres, no anti-aliasing (PyTorch's align_corners=False). `(*size)`."""
    out = torch.zeros(tuple(size), dtype=D)
    for place in itertools.product(*(range(n) for n in size)):
        for corners in itertools.product(*(source(p, n, o) for p, n, o in zip(place, size, grid.shape, strict=True))):
            weight = 1.0
            for _, share in corners:
                weight *= share
            out[place] += weight * float(grid[tuple(cell for cell, _ in corners)])
    return out


def rise_mask(grid: Tensor, shift: Sequence[int], space: Sequence[int], cell: Sequence[int] | None = None) -> Tensor:
    """One mask: the grid enlarged to (cells + 1)·cell pixels, cut to `space` from `shift` on; cell = ⌈size/cells⌉."""
    cell = cell or [ceil(n / g) for n, g in zip(space, grid.shape, strict=True)]
    big = enlarged(grid, [(g + 1) * c for g, c in zip(grid.shape, cell, strict=True)])
    return big[tuple(slice(s, s + n) for s, n in zip(shift, space, strict=True))]


def mixed(x: Tensor, mask: Tensor, paint: Tensor) -> Tensor:
    """m x + (1 − m) paint, channel by channel."""
    return torch.stack([mask * a + (1 - mask) * b for a, b in zip(x, paint, strict=True)])


def rise(f: Network, x: Tensor, paint: Tensor, target: int, masks: Sequence[Tensor], p: float) -> Tensor:
    """Eq. 6: S = 1/(p N) Σ_n f(x ⊙ M_n) M_n. `(*space)`."""
    total = torch.zeros(x.shape[1:], dtype=D)
    for mask in masks:
        total = total + ask(f, mixed(x, mask, paint), target) * mask
    return total / (p * len(masks))


def rise_by_coverage(f: Network, x: Tensor, paint: Tensor, target: int, masks: Sequence[Tensor]) -> Tensor:
    """Σ f M / Σ M: the mean score over the masks, by how far each shows the pixel; 0 where none does."""
    total, shown = torch.zeros(x.shape[1:], dtype=D), torch.zeros(x.shape[1:], dtype=D)
    for mask in masks:
        total = total + ask(f, mixed(x, mask, paint), target) * mask
        shown = shown + mask
    return torch.where(shown > 0, total / torch.where(shown > 0, shown, 1), 0)


# ------------------------------------------------------------------------------------------------ extremal perturbation


def area_loss(mask: Tensor, area: float, mean: bool = True) -> float:
    """Fong et al. 2019, eq. 5: ‖vecsort(m) − r_a‖², r_a = (1−a)|Ω| zeros, then a|Ω| ones; TorchRay takes the mean.

    The number of ones is rounded half to even where a|Ω| is not whole (the paper leaves it open).
    """
    values = sorted(mask.flatten().tolist())
    ones = round(area * len(values))
    wanted = [0.0] * (len(values) - ones) + [1.0] * ones
    total = sum((v - r) ** 2 for v, r in zip(values, wanted, strict=True))
    return total / len(values) if mean else total


def smooth_max(values: Sequence[float], temperature: float = 1 / 20) -> float:
    """Σ v e^{v/T} / Σ e^{v/T}: the largest as T → 0, the mean as T → ∞. (T = 1/20 in TorchRay.)"""
    highest = max(values)
    shares = [exp((v - highest) / temperature) for v in values]
    return sum(v * s for v, s in zip(values, shares, strict=True)) / sum(shares)


def smooth_kernel(distance: float, sigma: float) -> float:
    """TorchRay's radial kernel, exp(−2 max(d/σ − ½, 0)²)."""
    return exp(-2 * max(distance / sigma - 0.5, 0.0) ** 2)


def smooth_max_convolution(
    parameters: Tensor,
    centres: Sequence[Sequence[float]],
    space: Sequence[int],
    kernel: Callable[[float], float],
    temperature: float = 1 / 20,
    reach: float = float("inf"),
) -> Tensor:
    """m(u) = smax_v k(‖u − v‖) m̄(v), over the parameters v whose centres lie within `reach` of u. `(*space)`."""
    out = torch.zeros(tuple(space), dtype=D)
    for place in itertools.product(*(range(n) for n in space)):
        values = []
        for value, centre in zip(parameters.flatten().tolist(), centres, strict=True):
            distance = sum((a - b) ** 2 for a, b in zip(place, centre, strict=True)) ** 0.5
            if distance <= reach:
                values.append(kernel(distance) * value)
        out[place] = smooth_max(values, temperature)
    return out


# ---------------------------------------------------------------------------------------------- meaningful perturbation


def total_variation(mask: Tensor, beta: float) -> float:
    """Σ over neighbouring pixels of |m(u) − m(u')|^β (anisotropic; the authors' code averages instead of summing)."""
    total = 0.0
    for axis in range(mask.ndim):
        total += float(mask.diff(dim=axis).abs().pow(beta).sum())
    return total


def meaningful_objective(
    f: Network, x: Tensor, paint: Tensor, target: int, mask: Tensor, area: float, rough: float, beta: float
) -> float:
    """Fong & Vedaldi 2017, eq. 3 and 4: f_c(m x + (1 − m) paint) + λ₁ ‖1 − m‖₁ + λ₂ Σ ‖∇m‖^β; f gives probabilities."""
    kept = ask(f, mixed(x, mask, paint), target)
    return kept + area * float((1 - mask).abs().sum()) + rough * total_variation(mask, beta)
