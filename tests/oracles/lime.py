"""LIME: a weighted linear model of the network around one picture (Ribeiro et al. 2016), by explicit normal equations.

z is one row of 0 and 1, a region kept or covered; y the network's score. The rows are given by the caller.

Conventions that differ: the paper's kernel is exp(−d²/σ²); the authors' package takes its square root. The package's
distance for pictures is the cosine distance to the row of ones, its width 0.25, its model ridge with α = 1 and a free
intercept; its R² is weighted. The paper writes K-LASSO (features chosen by a lasso path, then least squares).
"""

from math import exp, sqrt

import torch
from torch import Tensor

D = torch.float64


def cosine_distance(z: Tensor) -> float:
    """1 − z·1 / (‖z‖ ‖1‖) = 1 − √(Σz / n) for rows of 0 and 1; 1 for the row of zeros (as scikit-learn has it)."""
    kept, n = float(z.sum()), len(z)
    return 1.0 if kept == 0 else 1 - kept / (sqrt(kept) * sqrt(n))


def kernel(z: Tensor, width: float = 0.25, root: bool = True) -> float:
    """exp(−d²/width²), with `root` its square root (the package)."""
    full = exp(-(cosine_distance(z) ** 2) / width**2)
    return sqrt(full) if root else full


def ridge(rows: Tensor, y: Tensor, weights: Tensor, alpha: float) -> tuple[Tensor, float]:
    """β and b that minimise Σ_r w_r (b + z_r·β − y_r)² + α ‖β‖²; the intercept is not shrunk.

    Normal equations of the rows (z, 1): Σ_r w_r (z,1)(z,1)ᵀ + α diag(1, …, 1, 0).
    """
    n = rows.shape[1]
    left, right = torch.zeros(n + 1, n + 1, dtype=D), torch.zeros(n + 1, dtype=D)
    for z, value, w in zip(rows, y, weights, strict=True):
        row = torch.cat([z.to(D), torch.ones(1, dtype=D)])
        left += w * torch.outer(row, row)
        right += w * value * row
    for i in range(n):
        left[i, i] += alpha
    solved = torch.linalg.solve(left, right)
    return solved[:n], float(solved[n])


def predictions(rows: Tensor, slopes: Tensor, intercept: float) -> Tensor:
    return torch.stack([intercept + (z.to(D) * slopes).sum() for z in rows])


def r_squared(rows: Tensor, y: Tensor, weights: Tensor, slopes: Tensor, intercept: float) -> float:
    """1 − Σ w (y − ŷ)² / Σ w (y − ȳ)², ȳ the weighted mean."""
    mean = (weights * y).sum() / weights.sum()
    wrong = (weights * (y - predictions(rows, slopes, intercept)) ** 2).sum()
    return float(1 - wrong / (weights * (y - mean) ** 2).sum())


def lasso_objective(rows: Tensor, y: Tensor, weights: Tensor, alpha: float, slopes: Tensor, intercept: float) -> float:
    """Σ w (y − ŷ)² / (2 Σ w) + α Σ |β|: scikit-learn's, with sample weights."""
    wrong = (weights * (y - predictions(rows, slopes, intercept)) ** 2).sum()
    return float(wrong / (2 * weights.sum()) + alpha * slopes.abs().sum())


def lasso(rows: Tensor, y: Tensor, weights: Tensor, alpha: float, sweeps: int = 5000) -> tuple[Tensor, float]:
    """The minimiser of `lasso_objective`, one coefficient after the other (the intercept is not shrunk)."""
    z, w = rows.to(D), weights.to(D) / weights.sum()
    slopes, intercept = torch.zeros(z.shape[1], dtype=D), 0.0
    for _ in range(sweeps):
        before = slopes.clone()
        intercept = float((w * (y - z @ slopes)).sum())
        for i in range(z.shape[1]):
            rest = y - intercept - z @ slopes + z[:, i] * slopes[i]
            pull, size = (w * z[:, i] * rest).sum(), (w * z[:, i] ** 2).sum()
            slopes[i] = torch.sign(pull) * max(float(pull.abs()) - alpha, 0.0) / size if size > 0 else 0.0
        if (slopes - before).abs().max() < 1e-15:
            break
    return slopes, intercept


def hinge_objective(
    rows: Tensor, t: Tensor, weights: Tensor, alpha: float, slopes: Tensor, intercept: Tensor
) -> Tensor:
    """½ α ‖β‖² + ½ Σ w max(0, 1 − t (b + z·β))²: a linear SVM with the squared hinge, for labels t of ±1."""
    short = (1 - t * (intercept + rows.to(D) @ slopes)).clamp(min=0)
    return alpha * slopes.square().sum() / 2 + (weights * short**2).sum() / 2


def hinge(rows: Tensor, t: Tensor, weights: Tensor, alpha: float, steps: int = 200) -> tuple[Tensor, float]:
    """Its minimiser, by PyTorch's L-BFGS with a line search; the intercept is not shrunk."""
    free = torch.zeros(rows.shape[1] + 1, dtype=D, requires_grad=True)
    settings = {"tolerance_grad": 1e-13, "tolerance_change": 0.0, "history_size": 50}
    search = torch.optim.LBFGS([free], max_iter=steps, line_search_fn="strong_wolfe", **settings)

    def closure() -> Tensor:
        search.zero_grad()
        value = hinge_objective(rows, t, weights, alpha, free[:-1], free[-1])
        value.backward()
        return value

    search.step(closure)
    found = free.detach()
    return found[:-1], float(found[-1])
