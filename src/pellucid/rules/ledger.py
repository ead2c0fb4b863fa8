"""Where relevance goes: at every operation how much arrived, how much was sent on, and what kept the rest."""

from dataclasses import dataclass, field

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.derivatives import Grads
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.trace import Node, Trace, Value

Amount = Float[Tensor, " n"]
Sent = tuple[Grads, dict[str, Tensor]]  # what a rule sends to each input, and what stayed, by what kept it


@dataclass(eq=False)
class Entry:
    """One operation's account, one number per image (or a single one where images can't be told apart).

    Attributes:
        arrived: relevance at its outputs.
        sent: relevance at its inputs.
        kept: what stayed, by what kept it: "bias", "epsilon", "zero denominator", "softmax", "padding" …, each
            computed from the rule's own formula and not as a difference.
        rule: the rule's name.
    """

    rule: str
    arrived: Tensor
    sent: Tensor
    kept: dict[str, Tensor]

    @property
    def closing(self) -> Tensor:
        """`arrived − sent − Σ kept`: zero but for rounding where the rule's formula is fully accounted for."""
        return self.arrived - self.sent - sum(self.kept.values(), torch.zeros_like(self.arrived))


@dataclass(eq=False)
class Ledger:
    """The accounts of one walk.

    Attributes:
        trace: the recording.
        entries: by operation; a walk that starts again writes them anew.
    """

    trace: Trace
    entries: dict[Node, Entry] = field(default_factory=dict)

    @property
    def separable(self) -> bool:
        """Whether every value shows which axis counts the images; amounts are whole-batch ones where it doesn't."""
        if "separable" not in self.trace.memo:
            places = layout(self.trace)
            values = (
                v for n in self.trace.nodes for v in (*n.inputs, *n.outputs) if v is not None and v.differentiable
            )
            self.trace.memo["separable"] = all(places.get(v, UNKNOWN).batch is not None for v in values)
        return self.trace.memo["separable"]

    def amount(self, tensor: Tensor | None, value: Value) -> Amount:
        """The sum of a tensor that has the shape of a value, for each image."""
        if tensor is None:
            return self.nothing
        axis = layout(self.trace).get(value, UNKNOWN).batch if self.separable else None
        if axis is None:
            return tensor.sum(dtype=torch.float64).reshape(1)
        others = [d for d in range(tensor.dim()) if d != axis % tensor.dim()]
        return tensor.sum(dim=others, dtype=torch.float64) if others else tensor.double()

    def keep(self, kept: dict[str, Tensor], reason: str, part: Tensor, node: Node) -> None:
        """Take down what stays at an operation; `part` has the shape of its output."""
        found = self.amount(part, node.output)
        kept[reason] = kept[reason] + found if reason in kept else found

    @property
    def nothing(self) -> Amount:
        return torch.zeros(
            self.trace.batch if self.separable else 1, dtype=torch.float64, device=self.trace.scores.device
        )

    def totals(self) -> dict[str, Amount]:
        """What was kept in all, by what kept it."""
        found: dict[str, Tensor] = {}
        for entry in self.entries.values():
            for reason, amount in entry.kept.items():
                found[reason] = found.get(reason, self.nothing) + amount
        return found

    def closing(self) -> Amount:
        """The largest closing error of any operation, absolute."""
        return torch.stack([self.nothing, *(e.closing.abs() for e in self.entries.values())]).amax(0)

    def peak(self) -> Amount:
        """The largest |relevance| that arrived at any operation, as a sum: far above the start's means a blow-up."""
        return torch.stack([self.nothing, *(e.arrived.abs() for e in self.entries.values())]).amax(0)
