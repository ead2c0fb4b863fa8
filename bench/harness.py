"""The ideal passes, what an ideal costs, and ratios of medians."""

import resource
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import product
from statistics import median, quantiles
from typing import Any

import torch
from nets import Network
from torch import Tensor

BATCHES = (4, 8)
FORWARD_BATCHES = (4, 8, 16)


def limit_memory(gigabytes: float) -> None:
    """An allocation beyond this fails with a message instead of taking the machine down."""
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


# -------------------------------------------------------------------------------------------------- the ideal passes


def forward(net: Network, count: int = 1) -> Tensor:
    """F: one forward of one image."""
    with torch.no_grad():
        return net.frozen(net.x.expand(count, -1, -1, -1))


def folded_forward(net: Network, count: int = 1) -> Tensor:
    """One forward, BatchNorm merged into the convolutions, channels last."""
    x = net.x.expand(count, -1, -1, -1)
    with torch.no_grad():
        return net.folded(x.contiguous(memory_format=torch.channels_last))


def to_input(net: Network, count: int = 1) -> Tensor:
    """FB: forward and backward to the input, no weight gradients."""
    leaf = net.x.repeat(count, 1, 1, 1).requires_grad_()
    scores = net.frozen(leaf)[:, net.target]
    return torch.autograd.grad(scores.sum(), leaf)[0]


def to_layer(net: Network) -> Tensor:
    """FL: the trunk without a graph, then the head forward and backward to the layer's output."""
    leaves: list[Tensor] = []

    def begin_graph(module: Any, inputs: Any, output: Tensor) -> Tensor:
        leaves.append(output.detach().requires_grad_())
        torch.set_grad_enabled(True)
        return leaves[0].clone()

    handle = net.frozen.get_submodule(net.layer).register_forward_hook(begin_graph)
    try:
        with torch.no_grad():
            return torch.autograd.grad(net.frozen(net.x)[0, net.target], leaves[0])[0]
    finally:
        handle.remove()


PASSES: dict[str, Callable[[Network], Tensor]] = {
    "F": forward,
    "FB": to_input,
    "FL": to_layer,
    **{f"FB×{n}": lambda net, n=n: to_input(net, n) for n in BATCHES},
    **{f"F×{n}": lambda net, n=n: forward(net, n) for n in FORWARD_BATCHES},
    **{f"folded F×{n}": lambda net, n=n: folded_forward(net, n) for n in (1, *FORWARD_BATCHES)},
}
UNITS: dict[str, tuple[str, ...]] = {  # unit of an ideal -> passes that it is worked out from
    "F": ("F",),
    "FB": ("FB",),
    "FL": ("FL",),
    "B": ("F", "FB"),
    "L": ("F", "FL"),
    "FB at the best batch": ("FB", *(f"FB×{n}" for n in BATCHES)),
    "F at the best batch": ("F", *(f"F×{n}" for n in FORWARD_BATCHES)),
    "folded F at the best batch": tuple(f"folded F×{n}" for n in (1, *FORWARD_BATCHES)),
}


def passes_for(ideal: Mapping[str, float]) -> list[str]:
    """The passes to measure for an ideal such as `{"F": 1, "B": 5}`."""
    return list(dict.fromkeys(p for unit in ideal for p in UNITS[unit]))


def cost(ideal: Mapping[str, float], ms: Mapping[str, float]) -> float:
    """Milliseconds of an ideal, from milliseconds of its passes."""
    return sum(count * _unit(name, ms) for name, count in ideal.items())


def _unit(name: str, ms: Mapping[str, float]) -> float:
    if name in ("B", "L"):
        return max(ms["FB" if name == "B" else "FL"] - ms["F"], 0.0)
    if name.endswith(" at the best batch"):
        return min(ms[one] / int(one.partition("×")[2] or 1) for one in UNITS[name])
    return ms[name]


# ------------------------------------------------------------------------------------------------------------- ratios


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the quartiles of the ratios of the single repeats."""

    value: float
    low: float
    high: float


def ratio(above: list[float], below: list[float]) -> Ratio:
    """Repeat by repeat; each against each where one has fewer."""
    pairs = zip(above, below, strict=True) if len(above) == len(below) else product(above, below)
    single = [a / b for a, b in pairs if b > 0]
    value = median(above) / median(below) if median(below) > 0 else float("inf")
    if len(single) < 2:
        return Ratio(value, value, value)
    low, _, high = quantiles(single, n=4, method="inclusive")
    return Ratio(value, min(low, value), max(high, value))


def in_ideals(times: list[float], ideal: Mapping[str, float], passes: Mapping[str, list[float]]) -> list[float]:
    """Every repeat over the ideal, whose passes were measured beside it."""
    each = [cost(ideal, {p: ms[turn] for p, ms in passes.items()}) for turn in range(len(times))]
    return [t / c if c > 0 else float("inf") for t, c in zip(times, each, strict=True)]


def over_ideal(times: list[float], ideal: Mapping[str, float], passes: Mapping[str, list[float]]) -> Ratio:
    """A contender's ratio to the ideal, whose passes were measured in the same repeats."""
    whole = cost(ideal, {p: median(ms) for p, ms in passes.items()})
    spread = ratio(in_ideals(times, ideal, passes), [1.0] * len(times))
    value = median(times) / whole if whole > 0 else float("inf")
    return Ratio(value, min(spread.low, value), max(spread.high, value))


def difference(mine: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value; infinite where the shapes differ."""
    mine, theirs = mine.detach().double().cpu(), theirs.detach().double().cpu()
    if mine.shape != theirs.shape:
        return float("inf")
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(torch.float64).tiny))
