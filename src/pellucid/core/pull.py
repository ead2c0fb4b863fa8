"""Play a recording backwards: each operation asks a rule table what to send to its inputs."""

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, exact
from pellucid.core.errors import TraceError
from pellucid.core.trace import Node, Trace, Value, plainly

Rule = Callable[[Node, Grads], Grads]


@dataclass(frozen=True)
class Rules:
    """A rule table: the kind of an operation decides what it sends back.

    Attributes:
        name: shown in receipts.
        table: kind of operation -> rule; a rule takes the node and one tensor (or None) per output and
            returns one tensor (or None) per `node.inputs`.
        default: the rule for every other kind; the exact derivative unless said otherwise.
    """

    name: str
    table: Mapping[str, Rule] = field(default_factory=dict)
    default: Rule = exact

    def pick(self, node: Node) -> Rule:
        return self.table.get(node.kind, self.default)


EXACT = Rules("gradient")


@runtime_checkable
class RuleSource(Protocol):
    """What makes a rule table for one recording: rules that look at more than one operation at a time."""

    def on(self, trace: Trace) -> Rules: ...


class Walk:
    """A walk backwards from `seeds` that goes only as far as it is asked to, and can go on from there.

    `walk.at(layer)` walks to a layer and gives what arrived at its output; `walk.input()` walks to the
    input. What arrived at the layers named in `keep` stays available; anything else is freed as the walk
    passes it.

    Args:
        trace: the recording.
        seeds: where the walk starts: one tensor per starting value.
        rules: the rule table.
        keep: values whose arriving tensors are kept.
        free: give up the recorded values as the walk passes them (a recording that is used once).
    """

    def __init__(
        self,
        trace: Trace,
        seeds: Mapping[Value, Tensor],
        rules: Rules = EXACT,
        keep: Iterable[Value] = (),
        *,
        free: bool = False,
    ) -> None:
        for value, seed in seeds.items():
            if seed.shape != value.shape:
                raise TraceError(
                    f"a seed of shape {tuple(seed.shape)} can't start at a value of shape {tuple(value.shape)}"
                )
        self.trace, self.rules = trace, rules
        self._seeds, self._keep, self._free = dict(seeds), set(keep), free
        self.met: Counter[tuple[str, str]] = Counter()
        self._restart()

    def _restart(self) -> None:
        self._arriving: dict[Value, Tensor] = dict(self._seeds)
        self._kept: dict[Value, Tensor] = {}
        self._sums: set[Value] = set()
        self._position = 1 + max((v.position for v in self._seeds), default=-1)
        self.met.clear()

    def at(self, layer: Value | str, call: int = -1) -> Tensor:
        """What arrived at the output of a layer; zero where nothing did."""
        value = self.trace.at(layer, call) if isinstance(layer, str) else layer
        if value in self._kept:
            return self._kept[value]
        if not value.differentiable:
            raise TraceError(
                f"nothing can arrive at {value!r}: it holds {value.dtype}; give the network floating point numbers"
            )
        if value.position >= self._position and value not in self._arriving:
            if self._position == 1 + max((v.position for v in self._seeds), default=-1):
                return _zeros(value)
            if self._free:
                raise TraceError("this walk has passed that layer and freed it; name it in keep")
            self._restart()
        self._keep.add(value)
        self._go(value.position + 1)
        if value not in self._kept:
            found = self._arriving.get(value)
            self._kept[value] = _zeros(value) if found is None else found
        return self._kept[value]

    def input(self, which: int = 0) -> Tensor:
        """What arrived at an input of the network."""
        return self.at(self.trace.inputs[which])

    @property
    def waiting(self) -> Mapping[Value, Tensor]:
        """What has arrived at values that the walk has not gone through yet."""
        return self._arriving

    def _go(self, stop: int) -> None:
        """Process the operations from the present position down to `stop`."""
        with plainly(self.trace.scores.device):
            while self._position > stop:
                self._position -= 1
                self._step(self.trace.nodes[self._position])

    def _step(self, node: Node) -> None:
        grads = [None if v is None else self._arriving.pop(v, None) for v in node.outputs]
        for value, grad in zip(node.outputs, grads, strict=True):
            if value in self._keep and value is not None:
                self._kept[value] = _zeros(value) if grad is None else grad
        if any(g is not None for g in grads):
            rule = self.rules.pick(node)
            self.met[getattr(rule, "__name__", self.rules.name), node.base] += 1
            for value, part in zip(node.inputs, rule(node, grads), strict=True):
                if part is not None and value.differentiable:
                    self._add(value, part)
        if self._free:
            self._let_go(node)

    def _add(self, value: Value, part: Tensor) -> None:
        """Contributions add up; a sum that this walk made itself is added to in place."""
        there = self._arriving.get(value)
        if there is None:
            self._arriving[value] = part
        elif value in self._sums:
            there.add_(part)
        else:
            self._arriving[value] = there + part
            self._sums.add(value)

    def _let_go(self, node: Node) -> None:
        node.memo.clear()
        for value in node.outputs:
            if value is not None and value not in self._keep and value not in self.trace.outputs:
                value.give_up()


def _zeros(value: Value) -> Tensor:
    return torch.zeros(value.shape, dtype=value.dtype, device=value.data.device)
