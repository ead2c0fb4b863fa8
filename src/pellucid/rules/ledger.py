"""Where relevance goes: at every operation how much arrived, how much was sent on, and what kept the rest."""

from dataclasses import dataclass, field
from weakref import ref

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
            computed from the rule's own formula and not as a difference (but for "generic rule").
        rule: the rule's name.
        size: the sum of absolute values that was sent on, for linear operations.
    """

    rule: str
    arrived: Tensor
    sent: Tensor
    kept: dict[str, Tensor]
    size: Tensor | None = None

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
    _summed: dict[int, tuple[ref[Tensor], Amount]] = field(default_factory=dict, repr=False)

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
        """The sum of a tensor that has the shape of a value, for each image; a tensor is summed once."""
        if tensor is None:
            return self.nothing
        known = self._summed.get(id(tensor))
        if known is not None and known[0]() is tensor:
            return known[1]
        axis, wide = self._axis(value), torch.promote_types(tensor.dtype, torch.float32)
        if axis is None:
            found = tensor.sum(dtype=wide).double().reshape(1)
        else:
            others = [d for d in range(tensor.dim()) if d != axis % tensor.dim()]
            found = (tensor.sum(dim=others, dtype=wide) if others else tensor).double()
        self._summed[id(tensor)] = ref(tensor), found
        return found

    def size(self, tensor: Tensor, value: Value) -> Amount:
        """The sum of absolute values, likewise."""
        axis = self._axis(value)
        if axis is None or tensor.dim() == 1:
            return torch.linalg.vector_norm(tensor, 1).double().reshape(1) if axis is None else tensor.abs().double()
        others = [d for d in range(tensor.dim()) if d != axis % tensor.dim()]
        return torch.linalg.vector_norm(tensor, 1, others).double()

    def product(self, a: Tensor, b: Tensor, value: Value) -> Amount:
        """The sum of `a ⊙ b`, both of the shape of a value, without a tensor of products where axes allow."""
        axis = self._axis(value)
        if axis is None:
            return torch.dot(a.reshape(-1), b.reshape(-1)).double().reshape(1)
        if axis == 0 and a.dim() > 1:
            rows = len(a)
            return torch.bmm(a.reshape(rows, 1, -1), b.reshape(rows, -1, 1)).double().reshape(rows)
        others = [d for d in range(a.dim()) if d != axis % a.dim()]
        return ((a * b).sum(dim=others) if others else a * b).double()

    def _axis(self, value: Value) -> int | None:
        return layout(self.trace).get(value, UNKNOWN).batch if self.separable else None

    def keep(self, kept: dict[str, Tensor], reason: str, part: Tensor, node: Node, times: Tensor | None = None) -> None:
        """Take down what stays at an operation: `part`, of the shape of its output, or `part ⊙ times`."""
        if times is None:
            found = self.amount(part, node.output)
        else:
            found = self.product(part, times.expand_as(part), node.output)
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
        """The largest `Σ |R|` that any linear operation sent on: far above the start's means a blow-up."""
        sizes = (e.size for e in self.entries.values() if e.size is not None)
        return torch.stack([self.nothing, *sizes]).amax(0)
