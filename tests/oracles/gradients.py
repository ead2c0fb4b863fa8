"""Gradient methods, written slowly from their papers: one image, one step, one noise at a time.

`f` takes a batch and gives a scalar score; inputs are `(1, channels, *space)`, but any shape will do.
"""

import math
from collections.abc import Callable, Iterable
from typing import Literal

import torch
from torch import Tensor

Function = Callable[[Tensor], Tensor]
QuadratureRule = Literal["left", "right", "midpoint", "trapezoid", "gauss-legendre"]


def saliency(f: Function, x: Tensor) -> Tensor:
    """Simonyan et al. 2014, §3: ∂f/∂x by autograd, signed, shaped as x."""
    leaf = x.detach().clone().requires_grad_()
    with torch.enable_grad():
        (gradient,) = torch.autograd.grad(f(leaf.clone()), leaf)
    return gradient


def finite_differences(f: Function, x: Tensor, places: Iterable[tuple[int, ...]], step: float = 1e-6) -> Tensor:
    """(f(x + h e) − f(x − h e)) / 2h in float64 at some places (full indices); the network must be float64 too.

    At a kink (a ReLU or a max that changes sides within ±h) it means nothing: compare medians or use smooth nets.
    """
    assert x.dtype == torch.float64
    found = []
    with torch.no_grad():
        for place in places:
            up, down = x.clone(), x.clone()
            up[place] += step
            down[place] -= step
            found.append((f(up) - f(down)) / (2 * step))
    return torch.stack(found)


def some_places(x: Tensor, count: int, seed: int = 0) -> list[tuple[int, ...]]:
    """Random full indices into x."""
    random = torch.Generator().manual_seed(seed)
    flat = torch.randperm(x.numel(), generator=random)[:count]
    return [tuple(int(i) for i in place) for place in zip(*torch.unravel_index(flat, x.shape), strict=True)]


def over_channels(signed: Tensor, how: Literal["max-abs", "sum-abs", "sum"]) -> Tensor:
    """`(b, c, *space)` to `(b, *space)`: Simonyan's max |·|, the sum of |·|, or the signed sum."""
    if how == "max-abs":
        return signed.abs().amax(1)
    return signed.abs().sum(1) if how == "sum-abs" else signed.sum(1)


def gradient_times_input(f: Function, x: Tensor) -> Tensor:
    """Shrikumar et al. 2016: x ⊙ ∂f/∂x."""
    return x * saliency(f, x)


def quadrature(rule: QuadratureRule, points: int) -> tuple[list[float], list[float]]:
    """Places and weights on [0, 1]; `points` is always the number of gradients that are taken.

    left k/n, right (k+1)/n, midpoint (k+½)/n, all with weight 1/n; trapezoid k/(n−1) with weight 1/(n−1), halved at
    both ends; Gauss-Legendre by the eigenvalues of the Jacobi matrix (Golub & Welsch 1969).
    """
    n = points
    if rule == "gauss-legendre":
        return _gauss_legendre(n)
    if rule == "trapezoid":
        weights = [1 / (n - 1)] * n
        weights[0] = weights[-1] = 0.5 / (n - 1)
        return [k / (n - 1) for k in range(n)], weights
    shift = {"left": 0.0, "right": 1.0, "midpoint": 0.5}[rule]
    return [(k + shift) / n for k in range(n)], [1 / n] * n


def _gauss_legendre(n: int) -> tuple[list[float], list[float]]:
    beside = torch.tensor([k / math.sqrt(4 * k * k - 1) for k in range(1, n)], dtype=torch.float64)
    values, vectors = torch.linalg.eigh(torch.diag(beside, 1) + torch.diag(beside, -1))
    return ((values + 1) / 2).tolist(), (vectors[0] ** 2).tolist()


def integrated_gradients(
    f: Function, x: Tensor, baseline: Tensor, alphas: Iterable[float], weights: Iterable[float]
) -> Tensor:
    """Sundararajan et al. 2017, eq. 1: (x − x') ⊙ ∫₀¹ ∇f(x' + α (x − x')) dα, one step after the other."""
    total = torch.zeros_like(x)
    for alpha, weight in zip(alphas, weights, strict=True):
        total = total + weight * saliency(f, baseline + alpha * (x - baseline))
    return (x - baseline) * total


def smoothgrad(explain: Function, x: Tensor, noises: Iterable[Tensor]) -> Tensor:
    """Smilkov et al. 2017, §2: mean of the maps of x + noise; `explain` is any method, x ↦ map."""
    maps = [explain(x + noise) for noise in noises]
    return sum(maps[1:], maps[0]) / len(maps)


def smoothgrad_squared(explain: Function, x: Tensor, noises: Iterable[Tensor]) -> Tensor:
    """Hooker et al. 2019: mean of the squared maps."""
    return smoothgrad(lambda noisy: explain(noisy) ** 2, x, noises)


def vargrad(explain: Function, x: Tensor, noises: Iterable[Tensor], correction: int = 0) -> Tensor:
    """Adebayo et al. 2018: variance of the maps over the noises, divided by n − correction."""
    maps = [explain(x + noise) for noise in noises]
    mean = sum(maps[1:], maps[0]) / len(maps)
    squares = [(m - mean) ** 2 for m in maps]
    return sum(squares[1:], squares[0]) / (len(maps) - correction)


def expected_gradients(f: Function, x: Tensor, baselines: Iterable[Tensor], alphas: Iterable[float]) -> Tensor:
    """Erion et al. 2021: mean over pairs (x', α) of (x − x') ⊙ ∇f(x' + α (x − x')); the pairs are given."""
    maps = [
        (x - baseline) * saliency(f, baseline + alpha * (x - baseline))
        for baseline, alpha in zip(baselines, alphas, strict=True)
    ]
    return sum(maps[1:], maps[0]) / len(maps)


def completeness_residual(f: Function, x: Tensor, baselines: Tensor | Iterable[Tensor], heat: Tensor) -> Tensor:
    """Σ heat − (f(x) − mean f(x')); 0 for a complete method."""
    many = [baselines] if isinstance(baselines, Tensor) else list(baselines)
    with torch.no_grad():
        below = torch.stack([f(baseline.clone()) for baseline in many]).mean()
        return heat.sum() - (f(x.clone()) - below)
