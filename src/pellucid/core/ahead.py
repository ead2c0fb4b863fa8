"""What the network says to many edits: three exact plans, chosen by what they cost.

*Incremental*: an edit of a box computes, layer by layer, only the box that it can reach. *Head only*: an edit of a
layer runs what follows it. *Full*: the network itself, on whole edited images. A plan other than the network itself
is held against it on the first edit of each image before the rest is believed.
"""

from dataclasses import dataclass, field
from math import prod
from typing import Literal

import torch
from torch import Tensor

from pellucid.core.chunks import in_chunks
from pellucid.core.edits import Box, Edits
from pellucid.core.errors import SettingError, check_known
from pellucid.core.progress import Progress
from pellucid.core.rerun import CannotRerunError
from pellucid.core.runners import Question, Readout, Runner, bound, difference
from pellucid.core.trace import Trace, Value

PlanName = Literal["auto", "incremental", "full"]
Precision = Literal["full", "bf16"]
USUAL = {"full": (4, 64), "incremental": (16, 128), "head only": (32, 128)}  # edits a pass, on a CPU and elsewhere
MANY = 32  # edits for which it pays to prepare a full rerun
WORTH = 0.9  # an incremental run must save a tenth of the multiplications


@dataclass(frozen=True, eq=False)
class Answers:
    """What came out.

    Attributes:
        values: the readout for every edit, `(n, ...)`.
        plan: `incremental`, `head only` or `full`, or several of them.
        difference: of a plan's first answer from the network's own, over the larger; None where they are one thing.
        bound: how large that may be.
        notes: what happened on the way.
    """

    values: Tensor
    plan: str
    difference: float | None
    bound: float
    notes: tuple[str, ...]


def answers(
    trace: Trace,
    edits: Edits,
    readout: Readout,
    *,
    place: Value | None = None,
    plan: PlanName = "auto",
    precision: Precision = "full",
    progress: Progress | None = None,
) -> Answers:
    """The readout for every edit.

    Args:
        place: the value that is edited; the first input if it is None.
        plan: `auto` takes the cheapest; the answers are the same up to rounding.
        precision: `bf16` reruns convolutions in bfloat16, which is faster and approximate.

    Raises:
        SettingError: no edits, an unknown plan or precision.
    """
    if not len(edits.rows):
        raise SettingError("no edits came; give at least one")
    check_known("plan", plan, ("auto", "incremental", "full"))
    check_known("precision", precision, ("full", "bf16"))
    work = _Work(trace, edits, readout, trace.inputs[0] if place is None else place, progress or Progress())
    return work.done(plan, half=precision == "bf16")


@dataclass(eq=False)
class _Work:
    """One call of `answers`."""

    trace: Trace
    edits: Edits
    readout: Readout
    place: Value
    progress: Progress
    notes: list[str] = field(default_factory=list)
    worst: float | None = None

    def done(self, plan: PlanName, half: bool) -> Answers:
        found: list[Tensor] = [torch.empty(0)] * len(self.edits.rows)
        plans = []
        for row in dict.fromkeys(self.edits.rows):
            question = Question(self.trace, self.edits, self.readout, self.place, row)
            mine = [i for i, r in enumerate(self.edits.rows) if r == row]
            runner = self._runner(question, plan, half, len(mine))
            if not runner.trusted:
                runner = self._checked(question, runner, mine[0], half)
            plans.append(runner.plan)
            self._run(runner, mine, found)
        values = torch.stack(found)
        limit = bound(self.trace.scores.dtype, half)
        return Answers(values, " and ".join(dict.fromkeys(plans)), self.worst, limit, tuple(dict.fromkeys(self.notes)))

    def _runner(self, question: Question, plan: PlanName, half: bool, count: int) -> Runner:
        """The cheapest way for one image; a full rerun is quicker than the network, but has to be prepared."""
        try:
            if question.at_input and not half:
                pays = plan == "incremental" or (plan == "auto" and question.share() < WORTH)
                many = count >= MANY and plan == "auto"
                return question.rerun(windowed=pays, half=False) if pays or many else question.network()
            return question.rerun(windowed=plan != "full", half=half)
        except CannotRerunError as error:
            if question.at_input:
                self.notes.append(f"{error}, so every edit was run in full")
            else:
                self.notes.append(f"{error}, so edits were run one by one, the way that was recorded")
            return question.network()

    def _checked(self, question: Question, runner: Runner, first: int, half: bool) -> Runner:
        """The runner, if it says of one edit what the network itself says; otherwise the network."""
        network = question.network()
        found = difference(runner.run([first]), network.run([first]))
        if not found <= bound(self.trace.scores.dtype, half):
            self.notes.append(
                f"the {runner.plan} rerun was off by {found:.1g} on one edit, so the network was asked itself"
            )
            return network
        self.worst = max(found, self.worst or 0.0)
        return runner

    def _run(self, runner: Runner, mine: list[int], found: list[Tensor]) -> None:
        if runner.plan == "incremental" and self.edits.boxes is not None:
            boxes = self.edits.boxes
            mine = sorted(mine, key=lambda i: _volume(boxes[i]))  # chunks of like sizes
        device = self.trace.scores.device
        usual = USUAL[runner.plan][device.type != "cpu"]
        chunks = in_chunks(
            mine, runner.run, device=device, bytes_each=runner.bytes_each, usual=usual, told=self.notes.append
        )
        for which, values in chunks:
            for i, value in zip(which, values, strict=True):
                found[i] = value
            self.progress.advance(len(which))


def _volume(box: Box) -> int:
    return prod(stop - start for start, stop in box)
