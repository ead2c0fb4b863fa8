"""Three weighted linear fits with a free intercept: ridge, lasso, and a linear support vector machine.

`Z` holds a row for each sample, `p` are the samples' weights divided by their sum, `s̄` is the mean of the columns'
weighted variances. Penalties are relative, so that one number means the same for any score and any number of samples.
"""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float64

LASSO_SWEEPS, LASSO_CLOSE = 10_000, 1e-12
SVM_STEPS, SVM_CLOSE = 200, 1e-12
SUFFICIENT, SHORTEST = 1e-4, 1e-10


@dataclass(frozen=True, eq=False)
class Fit:
    """`f(z) = z · weights + intercept`."""

    weights: Float64[np.ndarray, " n"]
    intercept: float

    def __call__(self, Z: Float64[np.ndarray, "m n"]) -> Float64[np.ndarray, " m"]:
        return Z @ self.weights + self.intercept


def ridge(
    Z: Float64[np.ndarray, "m n"], y: Float64[np.ndarray, " m"], p: Float64[np.ndarray, " m"], penalty: float
) -> Fit:
    """`argmin Σ_i p_i (y_i − f(z_i))² + penalty s̄ |β|²`; the smallest solution where there are many.

    A column of variance s̄ that goes with no other has its weight divided by `1 + penalty`.

    Example:
        >>> fit = ridge(np.array([[0.0], [1.0]]), np.array([1.0, 4.0]), np.array([0.5, 0.5]), 0.0)
        >>> round(float(fit.weights[0]), 9), round(fit.intercept, 9)
        (3.0, 1.0)
    """
    G, g, middle, mean = _moments(Z, y, p)
    size = penalty * np.trace(G) / len(G)
    beta = np.linalg.pinv(G + size * np.eye(len(G)), hermitian=True) @ g
    return Fit(beta, float(mean - middle @ beta))


def lasso(
    Z: Float64[np.ndarray, "m n"], y: Float64[np.ndarray, " m"], p: Float64[np.ndarray, " m"], penalty: float
) -> Fit:
    """`argmin ½ Σ_i p_i (y_i − f(z_i))² + penalty λ₀ |β|₁`, where at `λ₀` every weight is zero; by coordinate descent.

    With `G` the weighted covariance of the columns and `g` theirs with y, `λ₀ = max |g|`, and at the optimum
    `|g − G β| ≤ penalty λ₀`, with equality and the sign of β wherever β is not zero.
    """
    G, g, middle, mean = _moments(Z, y, p)
    bound = penalty * float(np.abs(g).max())
    beta, left, size = np.zeros_like(g), g.copy(), np.diag(G).copy()
    for _ in range(LASSO_SWEEPS):
        largest = 0.0
        for j in np.flatnonzero(size > 0):
            wanted = left[j] + size[j] * beta[j]
            step = np.sign(wanted) * max(abs(wanted) - bound, 0.0) / size[j] - beta[j]
            if step:
                beta[j] += step
                left -= step * G[j]
                largest = max(largest, abs(step) * size[j])
        if largest <= LASSO_CLOSE * float(np.abs(g).max()):
            break
    return Fit(beta, float(mean - middle @ beta))


def support_vectors(
    Z: Float64[np.ndarray, "m n"], t: Float64[np.ndarray, " m"], p: Float64[np.ndarray, " m"], penalty: float
) -> Fit:
    """`argmin ½ penalty s̄ |β|² + ½ Σ_i p_i max(0, 1 − t_i f(z_i))²` for labels t of ±1; by Newton's method.

    The squared hinge is smooth, so that the optimum is where the gradient vanishes; each step is a ridge fit to the
    samples inside the margin, shortened until the sum falls.

    Source:
        Keerthi & DeCoste 2005, A modified finite Newton method for fast solution of large scale linear SVMs, JMLR 6
        (from memory).
    """
    G, _, _, _ = _moments(Z, t, p)
    size = penalty * np.trace(G) / len(G)
    X = np.concatenate([Z, np.ones((len(Z), 1))], axis=1)
    held = np.append(np.full(Z.shape[1], size), 0.0)

    def loss(theta: np.ndarray) -> float:
        return float(held @ theta**2 + p @ np.maximum(1 - t * (X @ theta), 0) ** 2) / 2

    theta = np.zeros(X.shape[1])
    for _ in range(SVM_STEPS):
        f = X @ theta
        inside = t * f < 1
        XA, pA = X[inside], p[inside]
        gradient = held * theta - XA.T @ (pA * (t[inside] - f[inside]))
        if np.abs(gradient).max() <= SVM_CLOSE:
            break
        step = -np.linalg.pinv((XA * pA[:, None]).T @ XA + np.diag(held), hermitian=True) @ gradient
        length, now = 1.0, loss(theta)
        while length > SHORTEST and loss(theta + length * step) > now + SUFFICIENT * length * (gradient @ step):
            length /= 2
        theta = theta + length * step
    return Fit(theta[:-1], float(theta[-1]))


def _moments(Z: np.ndarray, y: np.ndarray, p: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray, float]:
    """Weighted covariances of the columns, theirs with y, and the means of both."""
    middle, mean = p @ Z, float(p @ y)
    centred = Z - middle
    weighted = centred * p[:, None]
    return weighted.T @ centred, weighted.T @ (y - mean), middle, mean
