"""Edits of one channel each: carried on as that channel alone, as far as operations keep channels apart."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import argument
from pellucid.core.trace import Node, Value

APART = frozenset({"rectifier", "clamp", "dropout", "max_pool", "average_pool"})
FLATTENS = frozenset("view _unsafe_view reshape flatten squeeze".split())


@dataclass(eq=False)
class Thin:
    """What n edits change of a value: one channel each.

    Attributes:
        channels: its number, for each edit.
        data: `(n, 1, *space)`; `(n, m)` where the value is flat and has m features for each channel.
    """

    channels: list[int]
    data: Tensor

    def whole(self, base: Float[Tensor, "1 c ..."]) -> Float[Tensor, "n c ..."]:
        """The value under every edit."""
        n = len(self.channels)
        found = base.expand(n, *base.shape[1:]).clone()
        parts = found.unflatten(1, (-1, self.data.shape[1])) if base.dim() == 2 else found[:, :, None]
        parts[torch.arange(n), self.channels] = self.data
        return found


def thinly(node: Node, thin: Thin, base: Callable[[Value], Tensor]) -> Thin | Tensor | None:
    """An operation on channels that were changed alone; None where it mixes them.

    A linear layer gives whole values: `W x = W x₀ + W (x − x₀)`, the second product over the features from the first
    to the last that any edit changes.
    """
    if len(node.inputs) != 1 or node.function is not None or sum(v is not None for v in node.outputs) > 1:
        return None
    x, y = node.inputs[0], node.output
    given = [*node.args, *node.kwargs.values()]
    if (
        node.kind in APART
        and len(x.shape) > 2
        and not any(isinstance(a, Tensor) for a in given)
        and _channels_stay(x, y)
    ):
        out = node.run({x: thin.data})
        return Thin(thin.channels, out if isinstance(out, Tensor) else out[0])
    if node.base in FLATTENS and len(y.shape) == 2 and y.shape[1] * y.shape[0] == x.data.numel():
        return Thin(thin.channels, thin.data.reshape(len(thin.channels), -1))
    weight = argument(node, "weight") if node.kind == "linear" else None
    return _linear(thin, weight, base(x), base(y)) if isinstance(weight, Tensor) and len(x.shape) == 2 else None


def _channels_stay(x: Value, y: Value) -> bool:
    return len(y.shape) > 1 and y.shape[:2] == x.shape[:2]


def _linear(thin: Thin, weight: Tensor, before: Tensor, after: Tensor) -> Tensor | None:
    n, m = thin.data.shape
    low, high = min(thin.channels), max(thin.channels) + 1
    if not bool(torch.isfinite(before).all()):
        return None
    change = before.new_zeros(n, high - low, m)
    places = [c - low for c in thin.channels]
    change[torch.arange(n), places] = thin.data - before.view(-1, m)[thin.channels]
    return after + F.linear(change.flatten(1), weight[:, low * m : high * m])
