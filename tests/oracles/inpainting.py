"""Filling by neighbours, ROAD's (Rong et al. 2022, "noisy linear imputation"), as one dense linear system.

Every hidden pixel is the weighted mean of its neighbours, hidden or not: x_u = Σ_v w_uv x_v / Σ_v w_uv. In 2-D the
weights are 1/6 for the four at its sides and 1/12 for the four at its corners; a neighbour outside the picture is left
out and the others share its weight (as in the authors' code). In other dimensions the weight is halved with every
further axis along which the neighbour differs: side 1, edge ½, corner ¼; for 2-D this is the same 2 : 1.
The paper adds small noise to hide where the fill is; none is added here.
"""

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

D = torch.float64


def neighbours(place: Sequence[int], space: Sequence[int]) -> Iterator[tuple[tuple[int, ...], float]]:
    """The neighbours inside the picture and their weights, not yet divided by the sum."""
    for offset in itertools.product((-1, 0, 1), repeat=len(space)):
        there = tuple(p + o for p, o in zip(place, offset, strict=True))
        differing = sum(o != 0 for o in offset)
        if differing and all(0 <= t < n for t, n in zip(there, space, strict=True)):
            yield there, 0.5 ** (differing - 1)


def system(hidden: Tensor) -> Tensor:
    """The matrix (pixels × pixels) M with M x = (x where known, 0 where hidden): rows of a hidden pixel x_u − mean."""
    places = list(itertools.product(*(range(n) for n in hidden.shape)))
    number = {place: i for i, place in enumerate(places)}
    matrix = torch.eye(len(places), dtype=D)
    for place in places:
        if hidden[place]:
            around = list(neighbours(place, hidden.shape))
            for there, weight in around:
                matrix[number[place], number[there]] -= weight / sum(w for _, w in around)
    return matrix


def inpaint(x: Tensor, hidden: Tensor) -> Tensor:
    """x `(channels, *space)` with the hidden pixels solved for; ValueError if all are hidden (not unique then)."""
    if bool(hidden.all()):
        raise ValueError("every pixel is hidden: nothing to interpolate from")
    known = torch.stack([torch.where(hidden, torch.zeros_like(c), c).flatten() for c in x.to(D)], 1)
    return torch.linalg.solve(system(hidden), known).T.reshape(x.shape)


def residual(x: Tensor, hidden: Tensor) -> float:
    """The largest distance of a hidden pixel from the weighted mean of its neighbours."""
    worst = 0.0
    for place in itertools.product(*(range(n) for n in hidden.shape)):
        if hidden[place]:
            around = list(neighbours(place, hidden.shape))
            for channel in x:
                mean = sum(w * float(channel[there]) for there, w in around) / sum(w for _, w in around)
                worst = max(worst, abs(float(channel[place]) - mean))
    return worst
