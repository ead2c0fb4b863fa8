"""What a network decides, and what counts as a change of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Float, Float64, Int64
from torch import Tensor

from pellucid.core.errors import TargetError
from pellucid.core.target import Target, class_scores, contrast, custom, logit
from pellucid.core.trace import Trace, Value
from pellucid.methods.choose import choose_targets
from pellucid.models.model import Model

STILL = 1e-6  # of a probability; what moves less is the rounding of the network's own arithmetic
_FORMS = 'give "top1", a class number or label, or "A vs B"'


@dataclass(frozen=True)
class Decision:
    """The answer that is watched: among all classes, for or against one, or between two.

    It reads scores, so it is a readout for `case.answers`.

    Attributes:
        names: of the possible answers, in the order of the scores.
        own: the number of the answer that is followed.
        single: only the probability of that answer counts as a change, not how the others share the rest.
        pair: the classes of a pair; None for all.
        yes_no: the network has a single score f, read as (0, f): "not so" and "so".
    """

    names: tuple[str, ...]
    own: int
    single: bool = False
    pair: tuple[int, int] | None = None
    yes_no: bool = False

    @property
    def words(self) -> str:
        """What is watched, for people."""
        if self.pair is not None:
            return " against ".join(self.names)
        return f"{self.names[self.own]} against the rest" if self.single else "all classes"

    @property
    def target(self) -> Target:
        """The number that a heat map of this answer explains."""
        if self.pair is not None:
            return contrast(*self.pair)
        if self.yes_no:
            return logit(0) if self.own else custom(lambda y: -y.flatten(), self.names[0])
        return logit(self.own)

    def value(self, trace: Trace) -> Value:
        """The scores before a final softmax."""
        return class_scores(trace)

    def read(self, tensor: Tensor, rows: Sequence[int]) -> Float64[Tensor, "n answers"]:
        """The scores of the possible answers."""
        scores = all_scores(tensor)
        return scores if self.pair is None else scores[:, list(self.pair)]

    def change(self, before: Float64[Tensor, " answers"], after: Float64[Tensor, "n answers"]) -> Float64[Tensor, " n"]:
        """Total variation `TV(p, q) = ½ Σ_k |p_k − q_k|` between the answers, in [0, 1]; 0 below `STILL`."""
        moved = (torch.softmax(after, 1) - torch.softmax(before, 0)).abs()
        found = moved[:, self.own] if self.single else moved.sum(1) / 2
        return torch.where(found < STILL, 0.0, found)

    def winners(self, scores: Float64[Tensor, "n answers"]) -> Int64[Tensor, " n"]:
        """The answer with the highest score; of equal ones the first."""
        return (scores == scores.amax(1, keepdim=True)).int().argmax(1)

    def share(self, scores: Float64[Tensor, " answers"], answer: int | None = None) -> float:
        """The probability of an answer; of the one that is followed where none is named."""
        return float(torch.softmax(scores, 0)[self.own if answer is None else answer])

    def lead(self, scores: Float64[Tensor, "n answers"], answer: int) -> Float64[Tensor, " n"]:
        """`f_answer − max of the others`: above zero where that answer wins, by how much otherwise missed."""
        others = scores.clone()
        others[:, answer] = -torch.inf
        return scores[:, answer] - others.amax(1)

    def number(self, answer: str) -> int:
        """The number of an answer by its name."""
        return self.names.index(answer)


def decision(asked: Any, model: Model, trace: Trace) -> Decision:
    """The decision that a user asks about.

    Args:
        asked: `"top1"` (all classes, the best one followed), a class (for or against it), or `"A vs B"`.

    Raises:
        TargetError: a dense output, a target that is no class, or a class that the network does not have.
    """
    dense = class_scores(trace).data
    if dense.dim() > 2:
        raise TargetError(
            f"{model.name} gives a score for each position, {tuple(dense.shape)}, and evidence is asked about one "
            "answer a picture; wrap the network so that it gives one, such as its mean inside a region"
        )
    yes_no = dense.dim() == 1 or dense.shape[1] == 1
    scores = all_scores(dense)[0]
    names = _names(model, scores.shape[0], yes_no)
    if isinstance(asked, str) and asked.strip() == "top1":
        return Decision(names, int(scores.argmax()), yes_no=yes_no)
    classes = [c + yes_no for c in _classes(asked, model, trace)]  # class 0 of a single score is the second answer
    wrong = next((c for c in classes if not yes_no <= c < len(names)), None)
    if wrong is not None:
        raise TargetError(f"class {wrong - yes_no} came; the network has {len(names) - yes_no} classes")
    if len(classes) == 1:
        return Decision(names, classes[0], single=True, yes_no=yes_no)
    first, second = classes
    if first == second:
        raise TargetError(f"target {asked!r} names one class twice; {_FORMS}")
    return Decision((names[first], names[second]), 0, pair=(first, second))


def _classes(asked: Any, model: Model, trace: Trace) -> list[int]:
    """One class, or two."""
    found = choose_targets(asked, model, trace)
    classes = found[0].classes
    if len(found) != 1 or len(classes) not in (1, 2) or found[0].layer is not None or any(len(c) != 1 for c in classes):
        raise TargetError(f"target {asked!r} is no single answer of the network; {_FORMS}")
    return [c[0] for c in classes]


def all_scores(tensor: Float[Tensor, "n *answers"]) -> Float64[Tensor, "n answers"]:
    """A score for each class; a single score f becomes (0, f), whose softmax is the sigmoid of f."""
    scores = tensor.detach().double()
    scores = scores[:, None] if scores.dim() == 1 else scores
    return torch.cat([torch.zeros_like(scores), scores], 1) if scores.shape[1] == 1 else scores


def _names(model: Model, count: int, single: bool) -> tuple[str, ...]:
    if single:
        return (f"not {_label(model, 0)}", _label(model, 0))
    return tuple(_label(model, i) for i in range(count))


def _label(model: Model, index: int) -> str:
    known = model.labels is None or index < len(model.labels)
    return model.label(index) if known else f"class {index}"
