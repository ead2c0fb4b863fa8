"""Relevance rules of everything that is no linear layer: sums, pools, gates, norms, attention, and mere routes.

A rule is called as `rule(node, arriving, ledger)` and gives what it sends to each input and what stayed, by what kept
it. Where nothing stays the sum sent is the sum that arrived.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.trace import Node, Value, substitute
from pellucid.rules.ledger import Ledger, Sent
from pellucid.rules.linear_map import HALF, precise
from pellucid.rules.linear_rules import EPSILON, stabiliser
from pellucid.rules.structure import gate_of


def stabilised(z: Tensor, epsilon: float) -> Tensor:
    """`z + ε sgn z`, where 0 counts as positive."""
    return z + stabiliser(z, epsilon)


def _whole(grads: Grads) -> Tensor:
    """What arrived at the one output."""
    return next(precise(g) for g in grads if g is not None)


def _summed(parts: list[Tensor], values: list[Value]) -> Grads:
    """Parts of a broadcast operation, added up over broadcast axes."""
    return [p if p.shape == v.shape else p.sum_to_size(v.shape) for p, v in zip(parts, values, strict=True)]


@dataclass(frozen=True)
class Pass:
    """`R_in = R_out`: for functions of one number, dropout in evaluation, normalisation. To the only live input."""

    name: str = "pass"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R = _whole(grads)
        place = node.gate[1] if node.gate is not None else 0
        return [R.reshape(v.shape) if i == place else None for i, v in enumerate(node.inputs)], {}


@dataclass(frozen=True)
class Route:
    """The exact derivative of an operation that only moves, copies or picks numbers; padding keeps its share."""

    name: str = "route"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        sent = exactly(node, grads)
        kept: dict[str, Tensor] = {}
        if node.base in WITH_CONSTANTS and grads[0] is not None:
            ledger.keep(kept, "constants", precise(grads[0]) * (1 - _live(node)), node)
        return sent, kept


WITH_CONSTANTS = frozenset(
    "pad constant_pad_nd cat concat stack where masked_fill masked_scatter copy zero fill index_put index_copy write "
    "select_scatter slice_scatter scatter tril triu diag_embed maximum minimum max min max_unpool2d".split()
)


def exactly(node: Node, grads: Grads) -> Grads:
    """The exact derivative, in float32 or better: an operation on half-precision numbers is run again."""
    values = [v for v in (*node.inputs, *node.outputs) if v is not None and v.differentiable]
    if all(v.dtype not in HALF for v in values):
        arriving = [g if g is None or v is None else g.to(v.dtype) for g, v in zip(grads, node.outputs, strict=True)]
        return exact(node, arriving)
    leaves = {v: precise(v.data).detach().requires_grad_() for v in node.inputs if v.differentiable}
    with torch.enable_grad():
        out = run(node, leaves)
    results = [out] if isinstance(out, Tensor) else list(out)
    pairs = [(r, g.to(r.dtype)) for r, g in zip(results, grads, strict=True) if g is not None and r.requires_grad]
    outputs, arriving = zip(*pairs, strict=True)
    found = torch.autograd.grad(outputs, list(leaves.values()), arriving, allow_unused=True)
    by_value = dict(zip(leaves, found, strict=True))
    return [by_value.pop(v, None) for v in node.inputs]


def run(node: Node, leaves: Mapping[Value, Tensor]) -> Any:
    """The operation again on leaves, its other values and constants in float32 or better."""

    def swap(item: Any) -> Any:
        if isinstance(item, Value):
            return leaves[item] if item in leaves else precise(item.data)
        return precise(item) if isinstance(item, Tensor) else item

    args = [substitute(a, swap) for a in node.args]
    if node.mutates is not None:
        args[node.mutates] = args[node.mutates].clone()
    return node.op(*args, **{k: substitute(v, swap) for k, v in node.kwargs.items()})


def _live(node: Node) -> Tensor:
    """One where an operation's output comes from a recorded number, zero where from a constant."""
    if "live" not in node.memo:
        filled = [{v: torch.full_like(v.data, n) if v.differentiable else v.data for v in node.inputs} for n in (0, 1)]
        zero, one = (precise(node.run(values)) for values in filled)
        node.memo["live"] = one - zero
    return node.memo["live"]


def arrived_at(node: Node, grads: Grads, ledger: Ledger) -> Tensor:
    """All that arrived at an operation's outputs."""
    pairs = [(g, v) for g, v in zip(grads, node.outputs, strict=True) if g is not None and v is not None]
    return sum((ledger.amount(g, v) for g, v in pairs), ledger.nothing)


def sent_from(node: Node, sent: Grads, ledger: Ledger) -> Tensor:
    """All that an operation sends to its inputs."""
    return sum((ledger.amount(s, v) for s, v in zip(sent, node.inputs, strict=True)), ledger.nothing)


@dataclass(frozen=True)
class Ratio:
    """In proportion to the size of each contribution, `R_i = |z_i| / Σ_k |z_k| · R`: never more than arrived.

    For sums (residual connections) the contributions are the summands; for averages, sums over axes and upsampling
    `z_i = w_i x_i`. A constant summand keeps its share. Where all contributions are zero, summands share equally and
    pools keep what arrived.
    """

    name: str = "ratio"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        return (
            self._summands(node, _whole(grads), ledger)
            if node.kind == "sum"
            else self._pool(node, _whole(grads), ledger)
        )

    def _summands(self, node: Node, R: Tensor, ledger: Ledger) -> Sent:
        live, constant = _summands_of(node)
        sizes = [precise(s).abs().expand(R.shape) for s in (*live, *constant)]
        total = torch.stack(sizes).sum(0)
        equal = torch.full_like(R, 1 / len(sizes))
        parts = [
            R * torch.where(total == 0, equal, size / total.clamp(min=torch.finfo(R.dtype).tiny)) for size in sizes
        ]
        kept: dict[str, Tensor] = {}
        for part in parts[len(live) :]:
            ledger.keep(kept, "bias", part, node)
        return _to_summands(parts, node), kept

    def _pool(self, node: Node, R: Tensor, ledger: Ledger) -> Sent:
        return in_proportion(node, precise(node.inputs[0].data).abs(), R, 0.0, ledger)


@dataclass(frozen=True)
class Epsilon:
    """`R_i = z_i / (Σ_k z_k + ε sgn) · R`, for sums, averages and products with a constant matrix."""

    epsilon: float = EPSILON
    name: str = "epsilon"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R = _whole(grads)
        if node.kind != "sum":
            return in_proportion(node, precise(node.inputs[0].data), R, self.epsilon, ledger)
        live, constant = _summands_of(node)
        kept: dict[str, Tensor] = {}
        z = torch.stack([precise(t).expand(R.shape) for t in (*live, *constant)]).sum(0)
        s = R / stabilised(z, self.epsilon)
        ledger.keep(kept, "epsilon", s * (stabilised(z, self.epsilon) - z), node)
        for c in constant:
            ledger.keep(kept, "bias", s * c, node)
        return _to_summands([s * precise(t) for t in live], node), kept


def _summands_of(node: Node) -> tuple[list[Tensor], list[Tensor]]:
    """The summands that were recorded, in the order of `node.inputs`, and the constant ones, each with its sign."""
    alpha = argument(node, "alpha", 1)
    signs = {"add": (1, alpha), "sub": (1, -alpha), "rsub": (-alpha, 1)}[node.base]
    live, constant = [], []
    for sign, item in zip(signs, (argument(node, "self"), argument(node, "other")), strict=True):
        if isinstance(item, Value) and item.differentiable:
            live.append(item.data if sign == 1 else sign * item.data)
        else:
            item = item.data if isinstance(item, Value) else item
            constant.append(sign * torch.as_tensor(item, device=node.output.data.device))
    return live, [precise(c.to(node.output.dtype)) for c in constant]


def _to_summands(parts: list[Tensor], node: Node) -> Grads:
    """The parts of the summands that were recorded, each in the shape of its summand."""
    waiting = iter(parts)
    return [next(waiting).sum_to_size(v.shape) if v.differentiable else None for v in node.inputs]


def in_proportion(
    node: Node, x: Tensor, R: Tensor, epsilon: float, ledger: Ledger, apply: Callable[[Tensor], Tensor] | None = None
) -> Sent:
    """`x ⊙ Jᵀ (R / z)` with `z = J x`, for an operation that is linear without bias, or another in its place."""
    leaf = x.detach().requires_grad_()
    with torch.enable_grad():
        out = run(node, {node.inputs[0]: leaf}) if apply is None else apply(leaf)
    z = out if isinstance(out, Tensor) else out[0]
    value = z.detach()
    s = R / stabilised(value, epsilon)
    kept: dict[str, Tensor] = {}
    if epsilon:
        ledger.keep(kept, "epsilon", s * (stabilised(value, epsilon) - value), node)
    else:
        s = torch.where(value == 0, torch.zeros_like(s), s)
        ledger.keep(kept, "zero denominator", R * (value == 0), node)
    back = torch.autograd.grad(z, leaf, s)[0]
    return [leaf.detach() * back, *[None] * (len(node.inputs) - 1)], kept


@dataclass(frozen=True)
class Gate:
    """A product of two live numbers. The gate (what is broadcast, or was squashed by a sigmoid) is taken as a constant
    and the signal takes all, `R_signal = R`; where neither factor is a gate, or `split` is asked for, each takes half.

    A product with or a quotient by a constant passes everything on.
    """

    split: bool = False
    name: str = "gate"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R = _whole(grads)
        if len(node.inputs) == 1:
            return _summed([R], node.inputs), {}
        if node.base == "div":
            return [*_summed([R], node.inputs[:1]), None], {}
        if node.inputs[0] is node.inputs[1]:
            return [R, None], {}
        gate = None if self.split else gate_of(node)
        if gate is None:
            return _summed([R / 2, R / 2], node.inputs), {}
        parts = _summed([R, R], node.inputs)
        return [None if i == gate else part for i, part in enumerate(parts)], {}


@dataclass(frozen=True)
class Product:
    """Matrix products of two live factors share equally, `R_A = ½ A ⊙ (R / O) Bᵀ`; softmax is linearised.

    Source: Achtibat et al. 2024 (AttnLRP), arXiv:2402.05602, propositions 3.1 and 3.3. With `attention="constant"`
    attention weights are constants and the values take all (CP-LRP, Ali et al. 2022, arXiv:2202.07304).
    """

    epsilon: float = EPSILON
    attention: str = "shared"
    name: str = "product"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R, kept = _whole(grads), dict[str, Tensor]()
        if node.base == "scaled_dot_product_attention":
            return self._attention(node, R, kept, ledger), kept
        if len(node.inputs) == 1:
            return in_proportion(node, precise(node.inputs[0].data), R, self.epsilon, ledger)
        leaves = {v: precise(v.data).detach().requires_grad_() for v in node.inputs}
        with torch.enable_grad():
            out = run(node, leaves)
        s = self._quotient(R, out.detach(), kept, node, ledger)
        constant = run(node, {v: torch.zeros_like(leaf) for v, leaf in leaves.items()})
        if constant.any():
            ledger.keep(kept, "bias", s * constant, node)
        return self._halves(node, out, leaves, s), kept

    def _halves(self, node: Node, out: Tensor, leaves: dict[Value, Tensor], s: Tensor) -> Grads:
        found = dict(zip(leaves, torch.autograd.grad(out, list(leaves.values()), s), strict=True))
        if self.attention == "constant" and len(leaves) == 2:
            second = node.inputs[1]
            return [None, leaves[second].detach() * found[second]]
        return [leaves[v].detach() * found.pop(v) / 2 if v in found else None for v in node.inputs]

    def _attention(self, node: Node, R: Tensor, kept: dict[str, Tensor], ledger: Ledger) -> Grads:
        """`O = softmax(c Q Kᵀ + mask) V`, taken apart into two products and a softmax."""
        names = ("query", "key", "value")
        q, k, v = (precise(argument(node, name).data).detach().requires_grad_() for name in names)
        with torch.enable_grad():
            logits = _logits(node, q, k)
            shares = F.softmax(logits.detach(), -1).requires_grad_()
            out = shares @ v
        s = self._quotient(R, out.detach(), kept, node, ledger)
        found = torch.autograd.grad(out, (shares, v), s)
        R_shares, R_values = shares.detach() * found[0], v.detach() * found[1]
        if self.attention == "constant":
            return _in_order(node, {"value": R_values})
        z = logits.detach()
        R_logits = softmax_sent(z, shares.detach(), R_shares / 2)
        ledger.keep(kept, "softmax", R_shares / 2 - R_logits, node)
        finite = torch.isfinite(z)
        inner = self._quotient(R_logits * finite, torch.where(finite, z, torch.ones_like(z)), kept, node, ledger)
        parts = [
            leaf.detach() * g / 2 for leaf, g in zip((q, k), torch.autograd.grad(logits, (q, k), inner), strict=True)
        ]
        mask = torch.where(finite, z, torch.zeros_like(z)) - torch.where(
            finite, _products(node, q, k).detach(), torch.zeros_like(z)
        )
        ledger.keep(kept, "mask", inner * mask, node)
        return _in_order(node, {"query": parts[0], "key": parts[1], "value": R_values / 2})

    def _quotient(self, R: Tensor, z: Tensor, kept: dict[str, Tensor], node: Node, ledger: Ledger) -> Tensor:
        """`R / (z ± ε)`; the stabiliser's share is taken down."""
        safe = stabilised(z, self.epsilon)
        s = R / safe
        ledger.keep(kept, "epsilon", s * (safe - z), node)
        return s


def _in_order(node: Node, sent: dict[str, Tensor]) -> Grads:
    found: dict[Value, Tensor] = {}
    for name, part in sent.items():
        value = argument(node, name)
        found[value] = found[value] + part if value in found else part
    return [found.pop(v, None) for v in node.inputs]


def _products(node: Node, q: Tensor, k: Tensor) -> Tensor:
    scale = argument(node, "scale")
    return (q @ k.transpose(-2, -1)) * (q.shape[-1] ** -0.5 if scale is None else scale)


def _logits(node: Node, q: Tensor, k: Tensor) -> Tensor:
    logits = _products(node, q, k)
    mask = argument(node, "attn_mask")
    if argument(node, "is_causal", False):
        mask = torch.ones(logits.shape[-2:], dtype=torch.bool, device=q.device).tril()
    if mask is None:
        return logits
    mask = mask.data if isinstance(mask, Value) else mask
    return logits.masked_fill(~mask, float("-inf")) if mask.dtype == torch.bool else logits + mask


def softmax_sent(x: Tensor, shares: Tensor, R: Tensor, axis: int = -1) -> Tensor:
    """`R_i = x_i (R_i − s_i Σ_j R_j)`, the softmax linearised at x (AttnLRP, proposition 3.1); it does not conserve."""
    sent = x * (R - shares * R.sum(axis, keepdim=True))
    return torch.where(torch.isfinite(x), sent, torch.zeros_like(sent))


@dataclass(frozen=True)
class Softmax:
    """A softmax in the middle of a network, linearised; what that adds or takes stays under "softmax"."""

    name: str = "softmax"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        R, x = _whole(grads), precise(node.inputs[0].data)
        axis = argument(node, "dim", -1)
        shares = torch.softmax(x, axis)
        kept: dict[str, Tensor] = {}
        sent = softmax_sent(x, shares, R, axis)
        ledger.keep(kept, "softmax", R - sent, node)
        return [sent], kept


@dataclass(frozen=True)
class Winner:
    """Max-pooling: the winner takes all; of several equal ones the first."""

    name: str = "winner"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        return exactly(node, grads), {}


@dataclass(frozen=True)
class Generic:
    """`R_i = x_i ∂/∂x_i Σ_j y_j R_j / (y_j ± ε)`, for any operation; it conserves where that is linear without bias."""

    epsilon: float = EPSILON
    name: str = "generic"

    def __call__(self, node: Node, grads: Grads, ledger: Ledger) -> Sent:
        scaled = [
            None if g is None or v is None else precise(g) / stabilised(precise(v.data), self.epsilon)
            for g, v in zip(grads, node.outputs, strict=True)
        ]
        back = exactly(node, scaled)
        sent = [None if b is None else precise(b) * precise(v.data) for b, v in zip(back, node.inputs, strict=True)]
        kept = {"generic rule": arrived_at(node, grads, ledger) - sent_from(node, sent, ledger)}
        return sent, kept
