"""Rank correlation."""

import numpy as np
from jaxtyping import Float, Float64

FEWEST = 3  # below, any two rankings agree or disagree wholly


def spearman(a: Float[np.ndarray, " p"], b: Float[np.ndarray, " p"]) -> float:
    """Spearman's rank correlation, equal values sharing the mean of their ranks.

    `ρ = cov(r(a), r(b)) / (σ(r(a)) σ(r(b)))`; NaN for fewer than 3 values, where one side is constant, or where a value
    is no finite number.
    """
    finite = np.isfinite(a).all() and np.isfinite(b).all()
    if len(a) < FEWEST or not finite or np.ptp(a) == 0 or np.ptp(b) == 0:
        return float("nan")
    first, second = (_ranks(values) - (len(values) - 1) / 2 for values in (a, b))
    return float(np.clip((first @ second) / np.sqrt((first @ first) * (second @ second)), -1, 1))


def _ranks(values: Float[np.ndarray, " p"]) -> Float64[np.ndarray, " p"]:
    """From 0; the mean rank for each group of equal values."""
    _, group, count = np.unique(values, return_inverse=True, return_counts=True)
    return (np.cumsum(count) - (count + 1) / 2)[group]
