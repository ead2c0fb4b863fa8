"""XRAI's ranking of regions (Kapishnikov et al. 2019, algorithm 1), given segments and a map of attributions.

Begin with nothing; again and again add the segment whose not yet added pixels have the highest mean attribution
(`gain="mean"`, the authors' code) or the highest sum (`gain="sum"`, for comparison); these pixels get that mean.
Segments may overlap. What the text leaves open: of equal ones the first listed wins; a segment with nothing left is
dropped, and so is one with fewer than `least` pixels left; pixels in no segment come last, as one group.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

D = torch.float64


@dataclass(frozen=True)
class Ranking:
    """The segments in the order in which they were added, the mean at which each was, the map, the rest."""

    order: list[int]
    gains: list[float]
    heat: Tensor
    rest: Tensor


def best(left: dict[int, Tensor], attribution: Tensor, gain: Literal["mean", "sum"]) -> int:
    """The first of the segments with the highest gain on their remaining pixels."""
    chosen, highest = -1, float("-inf")
    for index, pixels in left.items():
        values = attribution[pixels]
        value = float(values.mean() if gain == "mean" else values.sum())
        if value > highest:
            chosen, highest = index, value
    return chosen


def rank(
    segments: Sequence[Tensor], attribution: Tensor, least: int = 1, gain: Literal["mean", "sum"] = "mean"
) -> Ranking:
    """segments: bool arrays `(*space)`; attribution `(*space)`."""
    waiting = dict(enumerate(segments))
    taken, heat = torch.zeros(attribution.shape, dtype=torch.bool), torch.zeros(attribution.shape, dtype=D)
    order, gains = [], []
    while True:
        left = {i: s & ~taken for i, s in waiting.items() if int((s & ~taken).sum()) >= least}
        if not left:
            break
        index = best(left, attribution, gain)
        order.append(index)
        gains.append(float(attribution[left[index]].mean()))
        heat[left[index]] = gains[-1]
        taken, waiting = taken | segments[index], {i: s for i, s in waiting.items() if i != index}
    rest = ~taken
    if bool(rest.any()):
        heat[rest] = float(attribution[rest].mean())
    return Ranking(order, gains, heat, rest)
