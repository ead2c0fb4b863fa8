"""The ways in which a network can be asked about edits: a rerun of the recording, or the network itself."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor

from pellucid.core.edits import Edits, OfChannels
from pellucid.core.errors import TraceError
from pellucid.core.preserve import preserved
from pellucid.core.record import main_output, record
from pellucid.core.replay import replayed
from pellucid.core.rerun import Rerun
from pellucid.core.trace import Trace, Value, filled

SAME = {torch.float64: 1e-8, torch.float32: 1e-4}
ROUGHLY = 0.05  # half precision


@runtime_checkable
class Readout(Protocol):
    """What is read from the network, such as a `Target`: a number, or a row of numbers, per image."""

    def value(self, trace: Trace, /) -> Value: ...
    def read(self, tensor: Tensor, rows: Sequence[int], /) -> Tensor: ...


@dataclass(frozen=True, eq=False)
class Runner:
    """One way.

    Attributes:
        plan: `incremental`, `head only` or `full`, in words for a receipt.
        run: numbers of edits -> what is read for each.
        bytes_each: memory that one edit takes, about.
        trusted: it is the network itself.
    """

    plan: str
    run: Callable[[Sequence[int]], Tensor]
    bytes_each: int = 0
    trusted: bool = False


@dataclass(frozen=True, eq=False)
class Question:
    """Edits of one image of a recording (or of the value `place` for it), and what is to be read."""

    trace: Trace
    edits: Edits
    readout: Readout
    place: Value
    row: int

    @property
    def at_input(self) -> bool:
        return self.place is self.trace.inputs[0]

    def rerun(self, *, windowed: bool, half: bool) -> Runner:
        """By a rerun of the recording.

        Raises:
            CannotRerunError: the recording can't be run with another number of images.
        """
        rerun = prepared(self.trace, self.place, self.readout.value(self.trace), self.row, half)
        thin = windowed and isinstance(self.edits, OfChannels)
        windowed = thin or (windowed and self.edits.boxes is not None and self.place in rerun.space)
        boxes = (
            [None] if not windowed or self.edits.boxes is None else self.edits.boxes[:: 1 + len(self.edits.boxes) // 8]
        )
        each = max(rerun.reach(box)[1] for box in boxes)
        plan = "incremental" if windowed and not thin else "full" if self.at_input else "head only"
        return Runner(plan, lambda which: self._read(rerun(self.edits, which, windowed=windowed)), each)

    def share(self) -> float:
        """The part of all multiplications that boxes need on average."""
        rerun = prepared(self.trace, self.place, self.readout.value(self.trace), self.row, False)
        boxes = [] if self.edits.boxes is None else self.edits.boxes[:: 1 + len(self.edits.boxes) // 8]
        return sum(rerun.reach(box)[0] for box in boxes) / len(boxes) if boxes else 1.0

    def network(self) -> Runner:
        """By the network itself; edits of a layer by a replay in the recorded batch."""
        if not self.at_input:
            return Runner("head only", lambda which: torch.cat([self._in_its_batch(i) for i in which]), trusted=True)
        trace = self.trace
        largest = max((prod(v.shape) for n in trace.nodes for v in n.outputs if v is not None), default=1)
        each = 3 * largest * trace.scores.element_size() // trace.batch
        inside = self.readout.value(trace) is not trace.output or any(n.function for n in trace.nodes)
        plain = not inside and self._forward_is_pure()
        run = self._forward if plain else self._recorded
        if trace.reads:  # one at a time: what is read off a batch would decide for all of it
            return Runner("full", lambda which: torch.cat([run([i]) for i in which]), trusted=True)
        return Runner("full", run, each if plain else 4 * each, trusted=True)

    def _forward(self, which: Sequence[int]) -> Tensor:
        args, kwargs = further_arguments(self.trace, [self.row] * len(which))
        with preserved(self.trace.module), torch.no_grad():
            output = main_output(self.trace.module(self.edits.inputs(which), *args, **kwargs))[0]
        if output is None:
            raise TraceError("the network gave no tensor for an edited image")
        return self._read(output)

    def _forward_is_pure(self) -> bool:
        """Whether a plain forward writes into no buffer and says what the recording says; tried once."""
        memo = self.trace.memo
        if "forward is pure" not in memo:
            memo["forward is pure"] = self._tried_forward()
        return memo["forward is pure"]

    def _tried_forward(self) -> bool:
        module, buffers = self.trace.module, dict(self.trace.module.named_buffers())
        if buffers and any(isinstance(m, torch.jit.ScriptModule) for m in module.modules()):
            return False
        copies = {name: buffer.clone() for name, buffer in buffers.items()}
        args, kwargs = further_arguments(self.trace, [self.row])
        x = self.trace.inputs[0].data[self.row : self.row + 1].clone()
        with preserved(module), torch.no_grad():
            output = main_output(torch.func.functional_call(module, copies, (x, *args), kwargs))[0]
        if output is None or any(not torch.equal(copies[name], buffer) for name, buffer in buffers.items()):
            return False
        recorded = self.trace.scores[self.row : self.row + 1]
        return output.shape == recorded.shape and difference(output, recorded) <= bound(output.dtype)

    def _recorded(self, which: Sequence[int]) -> Tensor:
        args, kwargs = further_arguments(self.trace, [self.row] * len(which))
        again = record(self.trace.module, self.edits.inputs(which), *args, **kwargs)
        return self._read(self.readout.value(again).data)

    def _in_its_batch(self, i: int) -> Tensor:
        """One edit of a layer with the other images of the recording beside it."""
        data = self.place.data.clone()
        data[self.row] = self.edits.inputs([i])[0]
        wanted = self.readout.value(self.trace)
        found = replayed(self.trace, edits={self.place: data}).get(wanted, wanted.data)
        return self.readout.read(found, list(range(self.trace.batch)))[self.row : self.row + 1]

    def _read(self, tensor: Tensor) -> Tensor:
        return self.readout.read(tensor, [self.row] * len(tensor))


def prepared(trace: Trace, place: Value, end: Value, row: int, half: bool) -> Rerun:
    """A rerun that is kept with the recording until another one is wanted."""
    key = (id(place), id(end), row, half)
    kept = trace.memo.get("rerun")
    if kept is None or kept[0] != key:
        trace.memo["rerun"] = kept = (key, Rerun(trace, place, end, row, half=half))
    return kept[1]


def further_arguments(trace: Trace, rows: Sequence[int]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """What the network takes besides the first input, repeated to go with variants of these images."""

    def of_rows(argument: Any) -> Any:
        per_image = isinstance(argument, Tensor) and argument.dim() > 0 and argument.shape[0] == trace.batch
        return argument[list(rows)] if per_image else argument

    args, kwargs = filled(trace.arguments)
    return tuple(map(of_rows, args[1:])), {name: of_rows(value) for name, value in kwargs.items()}


def difference(mine: Tensor, theirs: Tensor) -> float:
    """Largest difference over the largest value."""
    size = theirs.abs().max().clamp(min=torch.finfo(theirs.dtype).tiny)
    return float((mine.to(theirs) - theirs).abs().max() / size)


def bound(dtype: torch.dtype, half: bool = False) -> float:
    """How far two ways may differ by rounding."""
    return ROUGHLY if half else SAME.get(dtype, ROUGHLY)
