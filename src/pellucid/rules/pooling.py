"""Max-pooling shared out among all of its window, as if it were a sum."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import Grads, argument
from pellucid.core.trace import Node
from pellucid.rules.ledger import Ledger, Sent
from pellucid.rules.linear_map import precise
from pellucid.rules.relevance import in_proportion

CONVOLUTIONS = {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}
ADAPTIVE = {1: F.adaptive_avg_pool1d, 2: F.adaptive_avg_pool2d, 3: F.adaptive_avg_pool3d}


@dataclass(frozen=True)
class Proportional:
    """`R_i = |x_i| / Σ_window |x_k| · R`: the window of a max-pool shares as that of a sum-pool does.

    A window of zeros keeps what arrived. Source: Lapuschkin et al. 2016, "The LRP toolbox", JMLR 17(114), section 2.
    """

    name: str = "proportional"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R = next(precise(g) for g in grads if g is not None)
        return in_proportion(node, precise(node.inputs[0].data).abs(), R, 0.0, ledger, lambda t: window_sums(node, t))


def window_sums(node: Node, x: Tensor) -> Tensor:
    """For each output of a max-pool the sum (or the mean) of the inputs it looked at; padding counts as zero."""
    if node.base == "amax":
        return x.sum(argument(node, "dim"), keepdim=bool(argument(node, "keepdim", False))).view(node.output.shape)
    axes = int(node.base.split("pool")[1][0])
    if node.base.startswith("adaptive"):
        return ADAPTIVE[axes](x, argument(node, "output_size"))
    kernel = _each(argument(node, "kernel_size"), axes)
    stride = _each(argument(node, "stride") or kernel, axes)
    padding, dilation = (
        _each(argument(node, name, default), axes) for name, default in (("padding", 0), ("dilation", 1))
    )
    out = node.output.shape[-axes:]
    edges = [
        (p, max((o - 1) * s + d * (k - 1) + 1 - n - p, 0))  # the last window may reach over the end (ceil_mode)
        for n, o, k, s, p, d in zip(x.shape[-axes:], out, kernel, stride, padding, dilation, strict=True)
    ]
    rows = x.reshape(-1, 1, *x.shape[-axes:])
    padded = F.pad(rows, [edge for pair in reversed(edges) for edge in pair])
    sums = CONVOLUTIONS[axes](padded, torch.ones(1, 1, *kernel).to(x), stride=stride, dilation=dilation)
    cut = sums[(..., *(slice(0, o) for o in out))]
    return cut.reshape(node.output.shape)


def _each(value: Any, axes: int) -> list[int]:
    values: Sequence[int] = [value] if isinstance(value, int) else list(value)
    return [*values] * axes if len(values) == 1 else [*values]
