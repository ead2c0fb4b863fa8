"""Numbers of every channel of a layer in one picture, and which units are dead or saturated."""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import torch
from jaxtyping import Bool, Float64, Int64
from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.errors import check_known
from pellucid.core.trace import Value
from pellucid.inside.opened import Opened

SORTS = ("number", "mean", "max", "variance", "sparsity", "support")
KEEPS_LIMITS = frozenset({"view", "dropout", "max_pool", "average_pool"})
NEAR = 1e-3  # a smooth squash counts as at its limit from here on
Numbers = Float64[np.ndarray, "c"]


class Limits(NamedTuple):
    """Where an activation ends, None where it does not, and how near to an end counts as there."""

    low: float | None = None
    high: float | None = None
    near: float = 0.0


LIMITS = {
    "relu6": Limits(high=6.0),
    "hardsigmoid": Limits(high=1.0),
    "sigmoid": Limits(0.0, 1.0, NEAR),
    "tanh": Limits(-1.0, 1.0, NEAR),
}


@dataclass(frozen=True, eq=False)
class Channels:
    """One entry for each channel.

    Attributes:
        mean, max, min, variance: over the positions, in the layer's own unit.
        sparsity: fraction of the positions that are exactly zero.
        support: `Σ_positions a · ∂S/∂a`, what the channel adds to the target to first order.
        at_limit: fraction of the positions at a limit of the activation, such as 6 of ReLU6.
        silent: zero everywhere in this picture.
        dead: zero everywhere, in this picture and in the data set where one was given; without a data set, a unit
            that has one position only is never called so.
        saturated: everywhere at a limit, or the same number other than zero at all of several positions.
    """

    mean: Numbers
    max: Numbers
    min: Numbers
    variance: Numbers
    sparsity: Numbers
    support: Numbers
    at_limit: Numbers
    silent: Bool[np.ndarray, "c"]
    dead: Bool[np.ndarray, "c"]
    saturated: Bool[np.ndarray, "c"]

    def order(self, by: str = "variance") -> Int64[np.ndarray, "c"]:
        """The channels' numbers, the largest first and the lower number first among equals; by number, as they are.

        Raises:
            SettingError: not one of number, mean, max, variance, sparsity and support.
        """
        check_known("order", by, SORTS)
        numbers = np.arange(len(self.mean))
        if by == "number":
            return numbers
        key = getattr(self, by)
        return np.lexsort((numbers, -np.where(np.isnan(key), -np.inf, key)))

    def mark(self, channel: int) -> str:
        """`dead`, `silent here`, `saturated`, or nothing."""
        if self.dead[channel]:
            return "dead"
        return "silent here" if self.silent[channel] else "saturated" if self.saturated[channel] else ""


def usable(inside: Opened, value: Value) -> bool:
    """Whether a value holds numbers of one picture, and it is known which axis counts its units."""
    if not value.differentiable or value.node is None or len(value.shape) < 2 or value.shape[0] != 1:
        return False
    return inside.unit_axis(value) is not None


def measured(maps: Tensor, support: Tensor, limits: Limits, alive: Bool[np.ndarray, "c"] | None = None) -> Channels:
    """The numbers of maps `(c, *space)`.

    Args:
        support: of each channel, `(c,)`.
        limits: see `limits_of`.
        alive: whether a channel is other than zero anywhere in the data set; None without one.
    """
    flat = maps.detach().double().reshape(len(maps), -1)
    low, high = flat.amin(1), flat.amax(1)
    at_limit = _at_limit(flat, limits)
    silent = (flat == 0).all(1).cpu().numpy()
    constant = (low == high) & (low != 0) if flat.shape[1] > 1 else torch.zeros_like(low, dtype=torch.bool)
    saturated = ((at_limit == 1) | constant).cpu().numpy() & ~silent
    alone = flat.shape[1] == 1  # one zero alone says little
    zeros, dead = (flat == 0).double().mean(1), silent & (not alone) if alive is None else silent & ~alive
    numbers = (flat.mean(1), high, low, flat.var(1, correction=0), zeros, support, at_limit)
    return Channels(*map(_plain, numbers), silent=silent, dead=dead, saturated=saturated)


def _plain(numbers: Tensor) -> Numbers:
    return numbers.detach().double().cpu().numpy()


def limits_of(value: Value) -> Limits:
    """Between which numbers the activation that made a layer's output can lie.

    A rectifier's zero is no such limit: a unit held there is silent.
    """
    node = value.node
    while node is not None and node.kind in KEEPS_LIMITS and node.inputs:
        node = node.inputs[0].node
    if node is None:
        return Limits()
    if node.base in ("hardtanh", "clamp"):
        names = ("min_val", "max_val") if node.base == "hardtanh" else ("min", "max")
        low, high = (_number(argument(node, name)) for name in names)
        return Limits(low or None, high)
    return LIMITS.get(node.base, Limits())


def _at_limit(flat: Tensor, limits: Limits) -> Tensor:
    """The fraction of positions at either end."""
    there = torch.zeros_like(flat, dtype=torch.bool)
    if limits.high is not None:
        there |= flat >= limits.high - limits.near
    if limits.low is not None:
        there |= flat <= limits.low + limits.near
    return there.double().mean(1)


def _number(limit: object) -> float | None:
    return float(limit) if isinstance(limit, int | float) and not isinstance(limit, bool) else None
