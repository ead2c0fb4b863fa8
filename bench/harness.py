"""Interleaved repeats in one process, the ideal passes measured beside them, and ratios of medians."""

import gc
import resource
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from statistics import median, quantiles
from typing import Any

import torch
from nets import Network
from torch import Tensor

BATCHES = (4, 8)
FEWEST = 3


@dataclass
class Times:
    """Milliseconds of every repeat, processor and wall; the message of a contender that could not."""

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    error: str | None = None
    result: Any = None
    device_mb: float | None = None

    def on(self, clock: str) -> list[float]:
        return self.cpu if clock == "cpu" else self.wall


def clock_of(device: str, threads: int) -> str:
    """Processor time where one thread does all the work, else wall time."""
    return "cpu" if device == "cpu" and threads == 1 else "wall"


def compete(
    calls: Mapping[str, Callable[[], Any]], repeats: int, seconds: float, tidy: Callable[[], None], device: str = "cpu"
) -> dict[str, Times]:
    """Every call once per repeat, the order rotated by one each time.

    The first round is not counted: it warms up, gives the results that are compared, and drops what raises.

    Args:
        repeats: at most so many rounds; at least three, fewer than asked when `seconds` would not be enough.
        tidy: runs after each call, untimed.
    """
    found = {name: Times() for name in calls}
    began = time.perf_counter()
    for name, call in calls.items():
        _first(found[name], call, device)
        tidy()
    running = [name for name in calls if found[name].error is None]
    affordable = int(seconds / max(time.perf_counter() - began, 1e-9))
    for turn in range(min(repeats, max(affordable, FEWEST))):
        shift = turn % max(len(running), 1)
        for name in running[shift:] + running[:shift]:
            cpu, wall = _once(calls[name], device)
            found[name].cpu.append(cpu)
            found[name].wall.append(wall)
            tidy()
    return found


def _first(times: Times, call: Callable[[], Any], device: str) -> None:
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    try:
        times.result = call()
    except Exception as error:  # a contender may refuse in any way; the table tells its words
        times.error = told(error)
    if device == "cuda":
        times.device_mb = (torch.cuda.max_memory_allocated() - before) / 2**20


def _once(call: Callable[[], Any], device: str) -> tuple[float, float]:
    gc.collect()
    _wait(device)
    cpu, wall = time.process_time(), time.perf_counter()
    call()
    _wait(device)
    return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)


def _wait(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def told(error: BaseException) -> str:
    """A contender's own words, on one short line."""
    if isinstance(error, ImportError):
        return f"not installed ({error.name})" if error.name else f"can't be imported: {error}"
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:160]


def limit_memory(gigabytes: float) -> None:
    """An allocation beyond this fails with a message instead of taking the machine down."""
    limit = int(gigabytes * 2**30)
    resource.setrlimit(resource.RLIMIT_AS, (limit, resource.getrlimit(resource.RLIMIT_AS)[1]))


# -------------------------------------------------------------------------------------------------- the ideal passes


def forward(net: Network) -> Tensor:
    """F: one forward of one image."""
    with torch.no_grad():
        return net.frozen(net.x)


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
}
UNITS: dict[str, tuple[str, ...]] = {  # unit of an ideal -> passes that it is worked out from
    "F": ("F",),
    "FB": ("FB",),
    "FL": ("FL",),
    "B": ("F", "FB"),
    "L": ("F", "FL"),
    "FB at the best batch": ("FB", *(f"FB×{n}" for n in BATCHES)),
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
    if name == "FB at the best batch":
        return min(ms["FB"], *(ms[f"FB×{n}"] / n for n in BATCHES))
    return ms[name]


# ------------------------------------------------------------------------------------------------------------- ratios


@dataclass(frozen=True)
class Ratio:
    """A ratio of medians, and the quartiles of the ratios of the single repeats."""

    value: float
    low: float
    high: float


def ratio(above: list[float], below: list[float]) -> Ratio:
    single = [a / b for a, b in zip(above, below, strict=True) if b > 0]
    value = median(above) / median(below) if median(below) > 0 else float("inf")
    if len(single) < 2:
        return Ratio(value, value, value)
    low, _, high = quantiles(single, n=4, method="inclusive")
    return Ratio(value, min(low, value), max(high, value))


def over_ideal(times: list[float], ideal: Mapping[str, float], passes: Mapping[str, list[float]]) -> Ratio:
    """A contender's ratio to the ideal, whose passes were measured in the same repeats."""
    each = [cost(ideal, {p: ms[turn] for p, ms in passes.items()}) for turn in range(len(times))]
    whole = cost(ideal, {p: median(ms) for p, ms in passes.items()})
    spread = ratio(times, each)
    value = median(times) / whole if whole > 0 else float("inf")
    return Ratio(value, min(spread.low, value), max(spread.high, value))


def difference(mine: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value; infinite where the shapes differ."""
    mine, theirs = mine.detach().double().cpu(), theirs.detach().double().cpu()
    if mine.shape != theirs.shape:
        return float("inf")
    return float((mine - theirs).abs().max() / theirs.abs().max().clamp(min=torch.finfo(torch.float64).tiny))
