"""A way up for pictures that excite nothing at first: rectifiers let through what would wake them."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from pellucid.core.derivatives import Grads, exact
from pellucid.core.pull import Rules
from pellucid.core.record import record
from pellucid.core.runners import further_arguments
from pellucid.core.trace import Node, Value
from pellucid.core.watch import OUTPUT
from pellucid.inside.opened import Opened


def redirected(node: Node, grads: Grads) -> Grads:
    """`R_in = R_out` where nothing comes through a whole map and R_out would change that; else the exact derivative.

    Nothing comes through below zero, where R_out > 0 is needed, or above an upper end (ReLU6), where R_out < 0 is.
    Lucid lets single positions through as well; where part of a map is awake, that adds noise to a good gradient.

    Source: after Lucid (Olah et al. 2018), `redirected_relu_grad`.
    """
    sent = exact(node, grads)
    if node.gate is not None or grads[0] is None or sent[0] is None or sent[0].shape != grads[0].shape:
        return sent
    x, arriving = node.inputs[0].data, grads[0]
    helps = torch.where(x <= 0, arriving > 0, arriving < 0)
    space = tuple(range(2, arriving.dim()))
    off = (sent[0] == 0).all(dim=space, keepdim=True) if space else sent[0] == 0
    return [torch.where(off & helps, arriving, sent[0]), *sent[1:]]


REDIRECTED = Rules("redirected", {"rectifier": redirected})


def woken(opened: Opened, x: Tensor, layers: Sequence[str], total: Callable[[Mapping[str, Tensor]], Tensor]) -> Tensor:
    """The gradient of `total` (of the layers' outputs) at the inputs `x`, with rectifiers that can be woken."""
    args, kwargs = further_arguments(opened.trace, [0] * len(x))
    trace = record(opened.model.module, x, *args, **kwargs)
    values = {layer: trace.at(layer) if layer != OUTPUT else trace.output for layer in layers}
    leaves = {layer: value.data.detach().clone().requires_grad_() for layer, value in values.items()}
    found = torch.autograd.grad(total(leaves), list(leaves.values()), allow_unused=True)
    seeds: dict[Value, Tensor] = {}
    for value, grad in zip(values.values(), found, strict=True):
        if grad is not None:
            seeds[value] = seeds[value] + grad if value in seeds else grad
    return trace.pull(seeds, REDIRECTED).input()
