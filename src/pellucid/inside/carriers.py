"""Which channels of a layer carry a score, and the filters and biases that make these channels."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float

from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.progress import Progress
from pellucid.core.target import Target
from pellucid.core.trace import Node, Trace, Value
from pellucid.inside.wiring.kernels import Kernel, filters_behind, kernels

MOST_FED = 3


@dataclass(frozen=True, eq=False)
class Filter:
    """One filter that makes a channel.

    Attributes:
        kernel: the layer that it belongs to, with the activation of each connection on the picture.
        number: which of its filters.
    """

    kernel: Kernel
    number: int

    @property
    def bias(self) -> float | None:
        return None if self.kernel.bias is None else float(self.kernel.bias[self.number])

    @property
    def scale(self) -> float | None:
        """What the BatchNorm behind multiplies with, `γ/σ`."""
        return None if self.kernel.norm is None else float(self.kernel.norm.scale[self.number])

    @property
    def shift(self) -> float | None:
        """The BatchNorm's implicit bias, `β − μγ/σ`."""
        return None if self.kernel.norm is None else float(self.kernel.norm.shift[self.number])

    @property
    def length(self) -> float:
        return float(self.kernel.norms[self.number])

    def fed(self, count: int = MOST_FED) -> list[tuple[int, float]]:
        """The channels through which most reaches it on the picture, with `Σ_positions w · a` of each."""
        if self.kernel.paths is None:
            return []
        column = self.kernel.paths[:, self.number]
        order = np.argsort(-np.abs(column), kind="stable")[:count]
        return [(int(i), float(column[i])) for i in order]

    def strongest_own(self, count: int) -> list[int]:
        """The same channels, numbered within the filter's own group."""
        own = self.kernel.weight.shape[1]
        start = self.number // (self.kernel.filters // self.kernel.groups) * own
        return [i - start for i, _ in self.fed(count) if start <= i < start + own]


@dataclass(frozen=True, eq=False)
class Carrier:
    """One channel of a layer.

    Attributes:
        channel: its number.
        weight: Grad-CAM's weight, the mean of `∂S/∂A` over the positions.
        carries: `Σ_positions A · ∂S/∂A`: the score that goes through the channel, biases behind it left out.
        activation: its map on the picture.
        filters: what makes it; several where a sum adds channels, none where that can't be followed.
    """

    channel: int
    weight: float
    carries: float
    activation: Float[np.ndarray, "*space"]
    filters: tuple[Filter, ...] = ()


def carriers(trace: Trace, target: Target, value: Value, bar: Progress, count: int = 6) -> tuple[Carrier, ...]:
    """The channels of a recorded value through which most of the first image's score goes, largest |share| first."""
    axis = layout(trace).get(value, UNKNOWN).channel or 1
    maps = value.data.movedim(axis, 1)[0]
    slopes = trace.pull(target).at(value).movedim(axis, 1)[0]
    shares = (maps * slopes).flatten(1).double().sum(1)
    weights = slopes.flatten(1).double().mean(1)
    order = [c for c in shares.abs().argsort(descending=True, stable=True)[:count].tolist() if shares[c] != 0]
    behind = {c: filters_behind(value, c, axis) for c in order}
    known = _known(trace, {node for found in behind.values() for node, _ in found}, bar)
    return tuple(
        Carrier(
            c,
            float(weights[c]),
            float(shares[c]),
            maps[c].float().cpu().numpy().copy(),
            tuple(Filter(known[node.position], number) for node, number in behind[c]),
        )
        for c in order
    )


def _known(trace: Trace, nodes: set[Node], bar: Progress) -> dict[int, Kernel]:
    """The kernels of some operations, by the operations' places."""
    found = kernels(trace, bar, seen=True, only=nodes) if nodes else []
    return {position: kernel for kernel in found for position in kernel.positions}
