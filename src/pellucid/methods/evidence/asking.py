"""A picture put before a network, ready to be asked what the network would say if …"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.edits import Edits
from pellucid.core.errors import MethodError, TraceError
from pellucid.core.progress import Progress, watching
from pellucid.core.receipt import Receipt
from pellucid.core.record import record
from pellucid.core.target import logit
from pellucid.core.trace import Value
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods import pictures
from pellucid.methods.case import Case, Walks
from pellucid.methods.evidence.decisions import Decision, decision
from pellucid.methods.run import check_seed
from pellucid.models.model import Model, check_input
from pellucid.models.resolve import the_model


@dataclass(frozen=True, eq=False)
class Asked:
    """One picture and the recording of the network on it.

    Attributes:
        picture, placement: None where the input is no 2-D picture.
        before: the scores on the untouched picture.
        notes: what was done to the picture on the way.
    """

    model: Model
    picture: Picture | None
    placement: Placement | None
    case: Case
    decision: Decision
    before: Float[Tensor, " answers"]
    notes: tuple[str, ...]

    def receipt(self, *notes: str) -> Receipt:
        """Checks and notes of what was computed so far."""
        case = self.case
        told = dict.fromkeys((*self.notes, *case.notes, *case.trace.notes, *notes))
        approximate = dict.fromkeys((*case.approximate, *case.trace.strangers))
        return Receipt(tuple(case.checks[0]), tuple(approximate), tuple(told))

    @property
    def shape(self) -> tuple[int, ...]:
        """The network's input grid."""
        return tuple(self.case.x.shape[2:])

    def scores(self, edits: Edits, place: Value | None = None) -> Float[Tensor, "n answers"]:
        """The scores for every edit.

        Raises:
            MethodError: one of them is not a number.
        """
        return _finite(self.case.answers(edits, readout=self.decision, place=place).cpu().double())


@contextmanager
def asked_about(
    model: Model | nn.Module | str, image: Any, target: Any, seed: int, progress: Progress | bool | None
) -> Iterator[Asked]:
    """The network recorded on one picture.

    Args:
        image: whatever `decode` reads, or a tensor of the inputs of one picture, `(1, c, *space)`.

    Raises:
        PellucidError: the picture, the network or the target can't be used.
    """
    model = the_model(model)
    check_seed(seed)
    x, picture, placement, notes = pictures.one_image(model, image)
    x = x[None].to(pictures.home_of(model.module))
    try:
        trace = record(model.module, x)
    except TraceError:
        check_input(model, x)
        raise
    watched = decision(target, model, trace)
    with watching(progress) as bar:
        number = logit(0)
        walks = Walks(trace, number)
        case = Case(
            trace, number, walks, model.preprocess, seed=seed, progress=bar,
            placements=None if placement is None else [placement],
        )  # fmt: skip
        before = _finite(watched.read(watched.value(trace).data, [0]).cpu())[0]
        yield Asked(model, picture, placement, case, watched, before, notes)


def _finite(scores: Tensor) -> Tensor:
    if not torch.isfinite(scores).all():
        bad = int((~torch.isfinite(scores).all(1)).sum())
        raise MethodError(
            f"the network gave scores that are not numbers for {bad} of {len(scores)} pictures, and without numbers "
            "nothing can be compared; try another fill, or float32 where the network runs in half precision"
        )
    return scores
