"""Gradients of many units at once: each task seeds one copy of a picture at positions whose fields don't overlap."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.chunks import in_chunks
from pellucid.core.record import record
from pellucid.core.runners import further_arguments
from pellucid.core.trace import Trace, bytes_held
from pellucid.core.watch import Watch
from pellucid.inside.fields.reach import INPUT
from pellucid.inside.opened import Opened

Position = tuple[int, ...]
USUAL = (8, 64)  # pictures a pass, on a CPU and elsewhere


@dataclass(frozen=True)
class Task:
    """One backward pass: a picture of the batch, a channel of the target, the positions that it starts from."""

    row: int
    channel: int
    positions: tuple[Position, ...]


@dataclass(frozen=True, eq=False)
class Slope:
    """What came of a task.

    Attributes:
        values: what the target gives at the task's positions.
        source: what the source holds, `(c, *space)`.
        gradient: of the sum of those values in the source.
    """

    task: Task
    values: Float[Tensor, "n"]
    source: Float[Tensor, "c *space"]
    gradient: Float[Tensor, "c *space"]


class Slopes:
    """Gradients of a layer's units in the input or in an earlier layer.

    With the input as source the untouched network itself runs as far as the layer; else a recording is walked back.
    """

    def __init__(self, asked: Opened, target: str, source: str = INPUT) -> None:
        self.asked, self.target, self.source = asked, target, source
        self._watch = Watch(asked.trace, [target]) if source == INPUT else None

    def __call__(
        self, x: Float[Tensor, "b c *space"], tasks: Sequence[Task], told: Callable[[str], None] = lambda words: None
    ) -> Iterator[Slope]:
        """One after another, in order; a few in each pass."""
        trace = self.asked.trace
        each = 3 * bytes_held(trace) // trace.batch
        usual = USUAL[x.device.type != "cpu"]
        work = lambda which: self._pass(x, [tasks[i] for i in which])  # noqa: E731
        for _, found in in_chunks(range(len(tasks)), work, device=x.device, bytes_each=each, usual=usual, told=told):
            yield from found

    def _pass(self, x: Tensor, tasks: Sequence[Task]) -> list[Slope]:
        rows = x[[task.row for task in tasks]]
        found = None if self._watch is None else self._by_running(self._watch, rows, tasks)
        target, source, gradient = self._by_recording(rows, tasks) if found is None else found
        return [
            Slope(task, torch.stack([a[(task.channel, *p)] for p in task.positions]), s, g)
            for task, a, s, g in zip(tasks, target, source, gradient, strict=True)
        ]

    def _by_running(self, watch: Watch, rows: Tensor, tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor] | None:
        """By autograd through the network itself; None where it hides its gradient."""
        with torch.inference_mode(False), torch.enable_grad():
            leaf = rows.clone().requires_grad_()
            maps = self.asked.maps(self.target, watch(leaf)[0])
            if not maps.requires_grad:
                return None
            (gradient,) = torch.autograd.grad(maps, leaf, _seeds(maps, tasks), allow_unused=True)
        gradient = torch.zeros_like(rows) if gradient is None else gradient
        return maps.detach(), rows, gradient

    def _by_recording(self, rows: Tensor, tasks: Sequence[Task]) -> tuple[Tensor, Tensor, Tensor]:
        asked = self.asked
        args, kwargs = further_arguments(asked.trace, [0] * len(rows))
        trace = record(asked.trace.module, rows, *args, **kwargs)
        target, source = trace.at(self.target), _value(trace, self.source)
        maps = asked.maps(self.target, target.data)
        seeds = _seeds(maps, tasks).movedim(1, asked.channel_axis(self.target))
        arrived = trace.pull({target: seeds.contiguous()}).at(source)
        if self.source == INPUT:
            return maps, source.data, arrived
        return maps, asked.maps(self.source, source.data), asked.maps(self.source, arrived)


def _value(trace: Trace, source: str):  # noqa: ANN202
    return trace.inputs[0] if source == INPUT else trace.at(source)


def _seeds(maps: Tensor, tasks: Sequence[Task]) -> Tensor:
    """One at every position that a task starts from."""
    seeds = torch.zeros_like(maps)
    for row, task in enumerate(tasks):
        for position in task.positions:
            seeds[(row, task.channel, *position)] = 1
    return seeds
