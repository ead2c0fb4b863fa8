"""How wide a map of a receptive field is."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

CENTRE_LEVEL = 1 - 0.9545  # what a Gaussian has left two σ from its centre's mass, as Luo et al. measure the area
SCANS, TRIES = 30, 21


@dataclass(frozen=True)
class Spread:
    """The width of a map of the size of the theoretical field.

    Attributes:
        sigma_px: σ of the round Gaussian `A exp(−|q − centroid|² / 2σ²)` that fits best.
        sigmas_px: the square root of the second moment along each axis.
        centroid: along each axis, in pixels of the map.
        area_px: how many pixels have over 4.55 % of the centre's value.
        trf_fraction: that area over the whole theoretical field.
        reach_fraction: 4σ over the field's mean side.
        padding_mass: share of the map's mass that lies in the padding, on average over the layer's positions.
    """

    sigma_px: float
    sigmas_px: tuple[float, ...]
    centroid: tuple[float, ...]
    area_px: int
    trf_fraction: float
    reach_fraction: float
    padding_mass: float


def spread(heat: Float[np.ndarray, "*space"], padding_mass: float) -> Spread:
    """Of a map with values >= 0; NaN where there is no mass.

    Source: Luo, Li, Urtasun & Zemel 2016, arXiv:1701.04128, section 4 (area; σ of the fitted Gaussian).
    """
    heat = np.nan_to_num(heat.astype(np.float64))
    total = heat.sum()
    if not total > 0:
        none = (float("nan"),) * heat.ndim
        return Spread(float("nan"), none, none, 0, 0.0, float("nan"), float("nan"))
    centroid = tuple(float((heat * place).sum() / total) for place in np.indices(heat.shape))
    moments = tuple(
        float(np.sqrt((heat * (place - mean) ** 2).sum() / total))
        for place, mean in zip(np.indices(heat.shape), centroid, strict=True)
    )
    sigma = fitted_sigma(heat, centroid)
    middle = heat[tuple(n // 2 for n in heat.shape)]
    area = int((heat > CENTRE_LEVEL * middle).sum())
    side = float(np.mean(heat.shape))
    return Spread(sigma, moments, centroid, area, area / heat.size, 4 * sigma / side, padding_mass)


def fitted_sigma(heat: Float[np.ndarray, "*space"], centre: Sequence[int | float]) -> float:
    """`argmin_σ min_A Σ_q (h(q) − A exp(−|q − centre|² / 2σ²))²`, by ever finer scans."""
    squares = sum((place - mean) ** 2 for place, mean in zip(np.indices(heat.shape), centre, strict=True))
    low, high = 0.2, 2.0 * max(heat.shape)
    for _ in range(SCANS):
        tries = np.geomspace(low, high, TRIES)
        errors = []
        for sigma in tries:
            bell = np.exp(-squares / (2 * sigma**2))
            errors.append(-float((heat * bell).sum() ** 2 / (bell**2).sum()))
        best = int(np.argmin(errors))
        low, high = tries[max(0, best - 1)], tries[min(TRIES - 1, best + 1)]
        if high - low < 1e-6 * high:
            break
    return float((low + high) / 2)
