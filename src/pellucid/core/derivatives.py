"""The exact derivative of one recorded operation: what a gradient at its outputs sends to its inputs.

Frequent operations call torch's own backward functions on the recorded values, so that nothing is
computed twice; every other operation is run once more under autograd. Both give the same numbers.
"""

from collections.abc import Callable
from functools import cache
from typing import Any

import torch
from torch import Tensor

from pellucid.core.errors import TraceError
from pellucid.core.storages import WriteView
from pellucid.core.trace import Node, Value, ordinary, tensors_in

Grads = list[Tensor | None]
Derivative = Callable[[Node, Tensor], "Grads | None"]
aten = torch.ops.aten

_TABLE: dict[str, Derivative] = {}


def exact(node: Node, grads: Grads) -> Grads:
    """`∂L/∂input = Σ ∂L/∂output · ∂output/∂input`, one entry per `node.inputs`."""
    short = _TABLE.get(node.base)
    if short is not None and grads[0] is not None and all(g is None for g in grads[1:]):
        found = short(node, grads[0])
        if found is not None:
            return found
    return by_autograd(node, grads)


def by_autograd(node: Node, grads: Grads) -> Grads:
    """Torch's derivative of this one operation, on detached copies of its recorded inputs."""
    leaves = {v: ordinary(v.data).detach().requires_grad_(v.differentiable) for v in node.inputs}
    with torch.enable_grad():
        out = node.run(leaves)
        results = [out] if isinstance(out, Tensor) else list(out)
        pairs = [
            (r, g)
            for r, g in zip(results, grads, strict=True)
            if g is not None and isinstance(r, Tensor) and r.requires_grad
        ]
        wanted = [v for v in leaves if v.differentiable]
        if not pairs or not wanted:
            _refuse_silence(node, grads, wanted)
            return [None] * len(node.inputs)
        outputs, arriving = zip(*pairs, strict=True)
        found = torch.autograd.grad(outputs, [leaves[v] for v in wanted], arriving, allow_unused=True)
    if all(f is None for f in found):
        _refuse_silence(node, grads, wanted)
    by_value: dict[Value, Tensor | None] = dict(zip(wanted, found, strict=True))
    return _once(node.inputs, by_value)


def _refuse_silence(node: Node, grads: Grads, wanted: list[Value]) -> None:
    """Torch has no derivative of this operation; a map of zeros would look like an answer."""
    if wanted and any(g is not None and bool(g.any()) for g in grads):
        raise TraceError(
            f"torch has no derivative of {node.name} in {node.path or 'the network'}, so nothing can be followed back "
            "through it; use the network in plain floating point, or a method that needs scores only"
        )


def _once(inputs: list[Value], by_value: dict[Value, Tensor | None]) -> Grads:
    """An input that appears twice gets its whole gradient at its first place."""
    return [by_value.pop(v, None) for v in inputs]


def _derivative(*names: str) -> Callable[[Derivative], Derivative]:
    def register(function: Derivative) -> Derivative:
        _TABLE.update(dict.fromkeys(names, function))
        return function

    return register


def argument(node: Node, name: str, default: Any = None) -> Any:
    """An argument of an ATen operation by its name in the schema."""
    if name in node.kwargs:
        return node.kwargs[name]
    place, given = _places(node.op).get(name, (len(node.args), default))
    return node.args[place] if place < len(node.args) else given


@cache
def _places(op: Any) -> dict[str, tuple[int, Any]]:
    """Position and default of every argument in an operation's schema."""
    return {a.name: (place, a.default_value) for place, a in enumerate(op._schema.arguments)}


def _only_first(node: Node) -> bool:
    """Whether the first argument is the only recorded one."""
    return len(node.inputs) == 1 and node.args[0] is node.inputs[0]


def _tuple(value: Any, length: int) -> list[int]:
    """Sizes as a list: `1`, `[1]` and `[1, 1]` all mean the same."""
    values = [value] if isinstance(value, int) else list(value)
    return values * length if len(values) == 1 else values


@_derivative(
    "conv1d",
    "conv2d",
    "conv3d",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "convolution",
    "_convolution",
)
def _convolution(node: Node, grad: Tensor) -> Grads | None:
    weight, padding = argument(node, "weight"), argument(node, "padding")
    x = node.inputs[0].data
    axes = weight.dim() - 2 if isinstance(weight, Tensor) else 0
    if not _only_first(node) or isinstance(padding, str) or x.dim() != axes + 2:
        return None
    sizes = [_tuple(argument(node, name), axes) for name in ("stride", "padding", "dilation")]
    transposed = node.base.startswith("conv_transpose") or bool(argument(node, "transposed", False))
    extra = _tuple(argument(node, "output_padding", 0), axes)
    stride, padding, dilation = sizes
    back = aten.convolution_backward(
        grad,
        x,
        weight,
        None,
        stride,
        padding,
        dilation,
        transposed,
        extra,
        argument(node, "groups"),
        [True, False, False],
    )
    return [back[0]]


@_derivative("linear")
def _linear(node: Node, grad: Tensor) -> Grads | None:
    return [torch.matmul(grad, node.args[1])] if _only_first(node) else None


@_derivative("batch_norm")
def _batch_norm(node: Node, grad: Tensor) -> Grads | None:
    if not _only_first(node) or argument(node, "running_var") is None:
        return None
    scale = node.memo.get("scale")
    if scale is None:
        weight, variance = argument(node, "weight"), argument(node, "running_var")
        scale = torch.rsqrt(variance + argument(node, "eps"))
        scale = node.memo["scale"] = (scale if weight is None else scale * weight).view(1, -1, *[1] * (grad.dim() - 2))
    return [grad * scale.to(grad.dtype)]


@_derivative("relu")
def _relu(node: Node, grad: Tensor) -> Grads:
    return [aten.threshold_backward(grad, node.output.data, 0)]


@_derivative("hardtanh")
def _hardtanh(node: Node, grad: Tensor) -> Grads:
    return [aten.hardtanh_backward(grad, node.output.data, argument(node, "min_val"), argument(node, "max_val"))]


@_derivative("relu6")
def _relu6(node: Node, grad: Tensor) -> Grads:
    return [aten.hardtanh_backward(grad, node.output.data, 0.0, 6.0)]


@_derivative("leaky_relu")
def _leaky_relu(node: Node, grad: Tensor) -> Grads:
    return [aten.leaky_relu_backward(grad, node.inputs[0].data, argument(node, "negative_slope"), False)]


@_derivative("silu", "hardswish", "hardsigmoid")
def _by_input(node: Node, grad: Tensor) -> Grads:
    return [getattr(aten, f"{node.base}_backward")(grad, node.inputs[0].data)]


@_derivative("gelu")
def _gelu(node: Node, grad: Tensor) -> Grads:
    return [aten.gelu_backward(grad, node.inputs[0].data, approximate=argument(node, "approximate"))]


@_derivative("sigmoid", "tanh")
def _by_output(node: Node, grad: Tensor) -> Grads:
    return [getattr(aten, f"{node.base}_backward")(grad, node.output.data)]


@_derivative("add", "sub")
def _sum(node: Node, grad: Tensor) -> Grads:
    alpha = argument(node, "alpha", 1)
    second = alpha if node.base == "add" else -alpha
    signs = [1 if node.args[0] is v else second for v in node.inputs]
    if len(node.inputs) == 2 and node.inputs[0] is node.inputs[1]:
        signs = [1, second]
    return [_fit(grad if s == 1 else grad * s, v) for s, v in zip(signs, node.inputs, strict=True)]


@_derivative("mul")
def _product(node: Node, grad: Tensor) -> Grads:
    if len(node.inputs) == 2:
        a, b = node.inputs
        return [_fit(grad * b.data, a), _fit(grad * a.data, b)]
    other = node.args[1] if node.args[0] is node.inputs[0] else node.args[0]
    return [_fit(grad * other, node.inputs[0])]


@_derivative("div")
def _quotient(node: Node, grad: Tensor) -> Grads | None:
    if not _only_first(node) or argument(node, "rounding_mode") is not None:
        return None
    return [_fit(grad / node.args[1], node.inputs[0])]


def _fit(grad: Tensor, value: Value) -> Tensor | None:
    """A gradient summed over broadcast axes, in the dtype of the value; None where it can't flow."""
    if not value.differentiable:
        return None
    grad = grad if grad.shape == value.shape else grad.sum_to_size(value.shape)
    return grad.to(value.dtype)


@_derivative("cat", "concat", "concatenate")
def _concatenate(node: Node, grad: Tensor) -> Grads | None:
    parts, axis = node.args[0], argument(node, "dim", 0)
    if any(len(p.shape) != grad.dim() for p in parts):
        return None
    sizes = [p.shape[axis] for p in parts]
    pieces = grad.split(sizes, axis)
    return [_fit(piece, p) for p, piece in zip(parts, pieces, strict=True) if isinstance(p, Value)]


@_derivative("max_pool2d")
def _max_pool2d(node: Node, grad: Tensor) -> Grads:
    x = node.inputs[0].data
    window = [argument(node, name) for name in ("kernel_size", "stride", "padding", "dilation", "ceil_mode")]
    if "winners" not in node.memo:
        node.memo["winners"] = aten.max_pool2d_with_indices(x, *window)[1]
    return [aten.max_pool2d_with_indices_backward(grad, x, *window, node.memo["winners"])]


@_derivative("layer_norm")
def _layer_norm(node: Node, grad: Tensor) -> Grads | None:
    if not _only_first(node) or "rstd" not in node.memo:
        return None
    shape, weight, bias = (argument(node, name) for name in ("normalized_shape", "weight", "bias"))
    x, mean, rstd = node.inputs[0].data, node.memo["mean"], node.memo["rstd"]
    return [aten.native_layer_norm_backward(grad, x, shape, mean, rstd, weight, bias, [True, False, False])[0]]


@_derivative("permute")
def _permute(node: Node, grad: Tensor) -> Grads:
    order = [d % grad.dim() for d in node.args[1]]
    return [grad.permute([order.index(d) for d in range(grad.dim())])]


@_derivative("transpose")
def _transpose(node: Node, grad: Tensor) -> Grads:
    return [grad.transpose(node.args[1], node.args[2])]


@_derivative("adaptive_avg_pool2d")
def _global_average(node: Node, grad: Tensor) -> Grads | None:
    shape = node.inputs[0].shape
    if grad.shape[-2:] != (1, 1):
        return [aten._adaptive_avg_pool2d_backward(grad, node.inputs[0].data)]
    return [(grad / (shape[-1] * shape[-2])).expand(shape)]


@_derivative("view", "_unsafe_view", "reshape", "flatten", "unflatten", "squeeze", "unsqueeze")
def _reshape(node: Node, grad: Tensor) -> Grads | None:
    return [grad.reshape(node.inputs[0].shape)] if _only_first(node) else None


@_derivative("dropout", "clone", "contiguous", "alias")
def _identity(node: Node, grad: Tensor) -> Grads:
    return [grad]


@_derivative("detach")
def _stop(node: Node, grad: Tensor) -> Grads:
    return [None]


@_derivative("write")
def _write(node: Node, grad: Tensor) -> Grads | None:
    return list(node.op.derivative(grad)) if isinstance(node.op, WriteView) and len(node.inputs) == 2 else None


def gradient_at(scores: Tensor, function: Callable[[Tensor], Tensor]) -> Tensor:
    """`∂ Σ function(scores) / ∂ scores`, the seed that starts a walk."""
    with torch.inference_mode(False), torch.enable_grad():
        leaf = ordinary(scores).detach().requires_grad_()
        parts = [t.sum() for t in tensors_in(function(leaf)) if t.requires_grad]
        found = torch.autograd.grad(parts, leaf, allow_unused=True)[0] if parts else None
    return torch.zeros_like(scores) if found is None else found
