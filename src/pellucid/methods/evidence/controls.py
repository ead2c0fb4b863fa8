"""The paired control: the same mask in other places, sets of other units, and how the symptom ranks among them."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import prod

import numpy as np
import torch
from jaxtyping import Bool
from torch import Tensor

DECIMALS = 5


@dataclass(frozen=True)
class Move:
    """A way to lay a mask elsewhere that keeps its area to the pixel: axes exchanged, mirrored, rolled around.

    Attributes:
        order: which axis goes where; only axes of equal length are exchanged (a quarter turn is that and a mirror).
        mirrored: for each axis.
        shift: for each axis in pixels; what leaves at one edge enters at the other.
    """

    order: tuple[int, ...]
    mirrored: tuple[bool, ...]
    shift: tuple[int, ...]

    def __call__(self, mask: Bool[Tensor, "*space"]) -> Bool[Tensor, "*space"]:
        axes = range(mask.dim())
        turned = mask.permute(self.order).flip([a for a in axes if self.mirrored[a]])
        return turned.roll(self.shift, tuple(axes))

    @property
    def still(self) -> bool:
        """Whether everything stays where it is."""
        return self.order == tuple(range(len(self.order))) and not any(self.mirrored) and not any(self.shift)


def stay(axes: int) -> Move:
    """The move that moves nothing."""
    return Move(tuple(range(axes)), (False,) * axes, (0,) * axes)


def moves(shape: Sequence[int], count: int, seed: int) -> list[Move]:
    """Moves drawn evenly from all there are on a grid, but for the one that moves nothing."""
    random = np.random.default_rng([seed, 1])
    found: list[Move] = []
    while len(found) < count and prod(shape) > 1:
        order = _exchanged(shape, random)
        mirrored = tuple(bool(b) for b in random.integers(0, 2, len(shape)))
        move = Move(order, mirrored, tuple(int(random.integers(n)) for n in shape))
        found += [] if move.still else [move]
    return found


def other_units(units: int, size: int, count: int, seed: int) -> Bool[Tensor, "count units"]:
    """Random sets of units of one size."""
    random = np.random.default_rng([seed, 2])
    found = torch.zeros(count, units, dtype=torch.bool)
    for row in found:
        row[torch.from_numpy(random.permutation(units)[:size])] = True
    return found


def as_much(observed: int | float, others: Sequence[int | float]) -> int:
    """How many controls do as well, equal ones included."""
    return sum(o >= round(observed, DECIMALS) for o in _rounded(others))


def rank_p(observed: int | float, others: Sequence[int | float], random: np.random.Generator) -> float:
    """How seldom a control does as well: `p = (1 + #{T_r > T} + U) / (R + 1)`, U drawn from 0 … #{T_r = T}.

    Ties are broken at random, so that under exchangeability p is uniform on 1/(R+1), …, 1, whatever the ties.

    Args:
        observed: T, where large means much.
        others: the T_r of the controls.
    """
    above = sum(o > round(observed, DECIMALS) for o in _rounded(others))
    equal = as_much(observed, others) - above
    return float(1 + above + int(random.integers(equal + 1))) / (len(others) + 1)


def _rounded(numbers: Sequence[int | float]) -> list[float]:
    """Numbers as they are compared: what differs less is a tie."""
    return [round(number, DECIMALS) for number in numbers]


def _exchanged(shape: Sequence[int], random: np.random.Generator) -> tuple[int, ...]:
    order = list(range(len(shape)))
    for length in sorted(set(shape)):
        axes = [a for a, n in enumerate(shape) if n == length]
        for axis, other in zip(axes, random.permutation(axes).tolist(), strict=True):
            order[axis] = other
    return tuple(order)
