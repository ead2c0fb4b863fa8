"""One adapter for every linear operation: `y = W x + b`, whatever ATen calls it."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import torch
from torch import Tensor

from pellucid.core.derivatives import argument, exact
from pellucid.core.errors import TraceError
from pellucid.core.trace import Node, ordinary
from pellucid.rules.structure import Structure, is_linear

HALF = frozenset({torch.float16, torch.bfloat16})


def precise(tensor: Tensor) -> Tensor:
    """In float32 or better: relevance is a quotient, and half precision loses its stabiliser."""
    return ordinary(tensor).float() if tensor.dtype in HALF else ordinary(tensor)


@dataclass(eq=False)
class LinearMap:
    """`y = W x + b` of one node, with the BatchNorm behind it merged in.

    Attributes:
        x: what went in.
        weight: `W`, scaled by the merged BatchNorm.
        bias: `b` in the shape in which it is added to `y`, or None.
        y: what came out, behind the merged BatchNorm, as recorded.
        apply: `(x, weight) -> W x`, without bias, for any x and weight of these shapes.
    """

    node: Node
    x: Tensor
    weight: Tensor
    bias: Tensor | None
    apply: Callable[[Tensor, Tensor], Tensor]
    merged: Node | None = None

    @cached_property
    def y(self) -> Tensor:
        return precise((self.node if self.merged is None else self.merged).output.data).reshape(self.node.output.shape)

    def back(self, s: Tensor) -> Tensor:
        """`Wᵀ s`."""
        if s.dtype == self.node.inputs[0].dtype:
            found = exact(self.node, [s if self.merged is None else self._before(s, self.merged)])[0]
            if found is not None:
                return found
        leaf = self.x.detach().requires_grad_()
        with torch.enable_grad():
            z = self.apply(leaf, self.weight)
        return torch.autograd.grad(z, leaf, s)[0]

    def _before(self, s: Tensor, merged: Node) -> Tensor | None:
        """What the merged BatchNorm, which may read rows of another shape, sends to the linear operation."""
        found = exact(merged, [s.reshape(merged.output.shape)])[0]
        return None if found is None else found.reshape(s.shape)

    @property
    def exact_output(self) -> bool:
        """Whether `y` was recorded in float32 or better, so that it need not be computed again."""
        return self.node.output.dtype not in HALF and (self.merged or self.node).output.dtype not in HALF

    @property
    def positive_input(self) -> bool:
        """Whether no input is negative; found once for a recording."""
        value = self.node.inputs[0]
        memo = self.node.memo
        if "positive" not in memo:
            memo["positive"] = not bool((value.data < 0).any())
        return memo["positive"]


def linear_map(node: Node, facts: Structure) -> LinearMap:
    """The adapter of a convolution, a linear layer (linear, addmm, mm, matmul) or a BatchNorm that stands alone.

    Raises:
        TraceError: the operation is none of these, or its weight was computed from the input.
    """
    if node.kind == "batch_norm":
        return _batch_norm(node)
    if not is_linear(node):
        raise TraceError(f"{node.name} in {node.path or 'the network'} has no constant weight")
    found = _convolution(node) if node.kind == "convolution" else _matrix(node)
    behind = facts.behind.get(node)
    if behind is None:
        return found
    return _with_batch_norm(found, behind) if behind.kind == "batch_norm" else _with_constant(found, behind)


def _convolution(node: Node) -> LinearMap:
    x, weight, bias = node.inputs[0].data, argument(node, "weight"), argument(node, "bias")
    axes = weight.dim() - 2

    def apply(t: Tensor, w: Tensor) -> Tensor:
        return _call(node, {"input": t, "weight": w, "bias": None})

    shaped = None if bias is None else precise(bias).view(-1, *[1] * axes)
    return LinearMap(node, precise(x), precise(weight), shaped, apply)


def _matrix(node: Node) -> LinearMap:
    """`linear(x, W, b)` has W as (out, in); `addmm(b, x, W)`, `mm(x, W)` and `x @ W` have it as (in, out)."""
    x = precise(node.inputs[0].data)
    if node.base == "linear":
        weight, bias = argument(node, "weight"), argument(node, "bias")
        return LinearMap(node, x, precise(weight), _or_none(bias), lambda t, w: torch.nn.functional.linear(t, w))
    if node.base != "addmm":
        right = argument(node, "other" if node.base == "matmul" else "mat2")
        return LinearMap(node, x, precise(right), None, torch.matmul)
    weight = precise(argument(node, "mat2")) * argument(node, "alpha", 1)
    return LinearMap(node, x, weight, precise(argument(node, "self")) * argument(node, "beta", 1), torch.mm)


def _batch_norm(node: Node) -> LinearMap:
    """`y = s x + t`: a diagonal map."""
    x = precise(node.inputs[0].data)
    scale, shift = affine(node)
    shape = (-1, *[1] * (x.dim() - 2))
    return LinearMap(node, x, scale.view(shape), shift.view(shape), lambda t, w: t * w)


def affine(node: Node) -> tuple[Tensor, Tensor]:
    """A BatchNorm in evaluation as `s = γ/√(v+ε)`, `t = β − s μ`."""
    names = ("weight", "bias", "running_mean", "running_var")
    weight, bias, mean, variance = (_or_none(argument(node, name)) for name in names)
    if mean is None or variance is None:
        raise TraceError(f"{node.name} in {node.path or 'the network'} normalises by the batch; call .eval() first")
    scale = torch.rsqrt(variance + argument(node, "eps"))
    scale = scale if weight is None else scale * weight
    return scale, -scale * mean if bias is None else bias - scale * mean


def _or_none(tensor: Tensor | None) -> Tensor | None:
    return None if tensor is None else precise(tensor)


def _with_constant(found: LinearMap, addition: Node) -> LinearMap:
    """`b' = b ± c` for a constant that is added to each channel."""
    constant = precise(argument(addition, "other")) * argument(addition, "alpha", 1)
    constant = (-constant if addition.base == "sub" else constant).to(found.x.dtype)
    if found.node.kind == "convolution" and constant.numel() > 1:
        constant = constant.reshape(-1, *[1] * (found.weight.dim() - 2))
    bias = constant if found.bias is None else found.bias + constant
    return LinearMap(found.node, found.x, found.weight, bias, found.apply, addition)


def _with_batch_norm(found: LinearMap, merged: Node) -> LinearMap:
    """`W' = s W` and `b' = s b + t`, along the channels that W makes."""
    scale, shift = affine(merged)
    node, weight = found.node, found.weight
    bias = found.bias
    flat = bias.reshape(-1) if bias is not None else torch.zeros_like(shift)
    flat = scale * flat + shift
    if node.kind != "convolution":
        along = scale.view(-1, 1) if node.base == "linear" else scale.view(1, -1)
        return LinearMap(node, found.x, weight * along, flat, found.apply, merged)
    axes = weight.dim() - 2
    if _transposed(node):
        groups = int(argument(node, "groups", 1))
        ones = (1,) * axes
        inputs, outputs = weight.shape[0] // groups, weight.shape[1]
        split = weight.view(groups, inputs, *weight.shape[1:]) * scale.view(groups, 1, outputs, *ones)
        scaled = split.reshape(weight.shape)
    else:
        scaled = weight * scale.view(-1, 1, *[1] * axes)
    return LinearMap(node, found.x, scaled, flat.view(-1, *[1] * axes), found.apply, merged)


def _transposed(node: Node) -> bool:
    return node.base.startswith("conv_transpose") or bool(argument(node, "transposed", False))


def _call(node: Node, given: dict[str, Any]) -> Tensor:
    """The operation with some of its arguments replaced, by name; the others as recorded."""
    names = [a.name for a in node.op._schema.arguments]  # type: ignore[attr-defined]
    args = [given.get(name, value) for name, value in zip(names, node.args, strict=False)]
    rest = {name: value for name, value in given.items() if name not in names[: len(node.args)]}
    return node.op(*args, **{**node.kwargs, **rest})
