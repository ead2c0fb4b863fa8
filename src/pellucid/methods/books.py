"""The ledger of one relevance walk as lines that can be printed: what arrived, what was sent on, what stayed where."""

from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from pellucid.core.record import record
from pellucid.methods.case import Case, Walks
from pellucid.methods.choose import choose_targets
from pellucid.methods.conservation import starts
from pellucid.methods.doctor import example_input
from pellucid.methods.relevance import composite_of
from pellucid.models.model import Model, wrap


@dataclass(frozen=True)
class Line:
    """The account of one operation, summed over the images.

    Attributes:
        kept: what stayed, by what kept it.
        closing: `arrived − sent − Σ kept`.
        size: the sum of absolute values sent on, for linear operations; None for others.
    """

    operation: str
    layer: str
    rule: str
    arrived: float
    sent: float
    kept: dict[str, float]
    closing: float
    size: float | None


def books(
    model: Model | nn.Module,
    x: Tensor | None = None,
    *,
    composite: Any = "epsilon_plus",
    unknown: str = "refuse",
    target: Any = "top1",
) -> list[Line]:
    """One line per operation that relevance met, from the scores down to the input.

    Args:
        x: an input; noise of the model's input size when none is given.
        composite: as for `lrp`.
        target: what is shared out, starting with the score itself.

    Raises:
        ModelError: no input was given and the input size is not known.
        MethodError: an operation without a faithful rule, unless `unknown="generic"`.
        SettingError: no such composite.
    """
    model = model if isinstance(model, Model) else wrap(model)
    trace = record(model.module, example_input(model) if x is None else x)
    chosen = choose_targets(target, model, trace)[0]
    case = Case(trace, chosen, Walks(trace, chosen), model.preprocess)
    walk = trace.pull(starts(case), composite_of(case, composite, unknown))
    walk.input()
    entries = walk.rules.ledger.entries  # type: ignore[attr-defined]
    return [
        Line(
            node.name,
            node.path,
            entry.rule,
            float(entry.arrived.sum()),
            float(entry.sent.sum()),
            {reason: float(amount.sum()) for reason, amount in entry.kept.items()},
            float(entry.closing.abs().max()),
            None if entry.size is None else float(entry.size.sum()),
        )
        for node, entry in entries.items()
    ]
