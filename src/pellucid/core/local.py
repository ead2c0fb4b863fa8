"""Which operations are local: an output depends on a small box of the input, so that a changed box stays a box.

For each such operation: how far it reaches along each spatial axis, and how to run it on windows. Everything else
is run on whole values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import argument
from pellucid.core.storages import ReadView, WriteView
from pellucid.core.trace import Node, Trace, Value, substitute
from pellucid.core.windows import POINT, Axis, Sizes, Starts, cut

Space = tuple[int, ...]
Windows = Mapping[Value, Tensor]
Run = Callable[[Windows, Starts, Sizes], Any]

ELEMENTWISE_KINDS = frozenset({"rectifier", "clamp", "squash", "sum", "scale", "dropout"})
ELEMENTWISE = frozenset(
    "exp log log1p expm1 sqrt rsqrt square pow abs neg erf sign reciprocal clone contiguous alias to _to_copy type_as "
    "log_sigmoid logsigmoid where minimum maximum sin cos floor round".split()
)
REDUCTIONS = frozenset("mean sum amax amin".split())
SPLITS = frozenset("split split_with_sizes chunk".split())


@dataclass(frozen=True, eq=False)
class Local:
    """A local operation on values of one set of spatial axes.

    Attributes:
        axes: how it reads along each spatial axis.
        space: the spatial axes of what comes out.
        run: `(windows, starts, sizes)` -> the outputs at those places; a list where there are several.
        beyond: what its padding holds.
    """

    axes: tuple[Axis, ...]
    space: Space
    run: Run
    beyond: float = 0.0


def local(node: Node, space: Mapping[Value, Space]) -> Local | None:
    """The operation as a local one; None where it is not.

    Args:
        space: the spatial axes of the values that have any.
    """
    sources = [v for v in node.inputs if v in space]
    if not sources or node.function is not None:
        return None
    first = space[sources[0]]
    if node.kind == "convolution":
        return _convolution(node, first)
    if node.kind == "max_pool" and node.base.startswith("max_pool"):
        return _max_pool(node, first)
    if node.kind == "average_pool" and node.base != "mean":
        return _average_pool(node, first)
    if node.base == "cat":
        return _cat(node, space, first)
    if node.kind in ("view", "upsample"):
        return _view(node, first)
    return _pointwise(node, space, first)


def spaces(trace: Trace, source: Value) -> dict[Value, Space]:
    """The spatial axes of every value to which they can be followed through local operations.

    They are followed from the input, `(b, c, ...)`, and from `source`.
    """
    axes = len(trace.inputs[0].shape)
    found: dict[Value, Space] = {
        v: tuple(range(2, axes)) for v in (trace.inputs[0], source) if len(v.shape) == axes > 2
    }
    for node in trace.nodes:
        reach = local(node, found)
        if reach is not None:
            found.update({v: reach.space for v in node.outputs if v is not None and v not in found})
    return found


def _plain(node: Node, axes: Sequence[Axis], space: Space) -> Local:
    """An operation that runs on windows as it runs on whole values."""
    if node.mutates is None or isinstance(node.op, (ReadView, WriteView)):
        return Local(tuple(axes), space, lambda windows, starts, sizes: node.run(windows))
    given: Any = node.op
    packet = getattr(torch.ops.aten, node.base)
    op = getattr(packet, given._overloadname, packet)  # the same, not in place

    def run(windows: Windows, starts: Starts, sizes: Sizes) -> Any:
        swap = lambda v: windows[v] if isinstance(v, Value) else v  # noqa: E731
        return op(*(substitute(a, swap) for a in node.args), **{k: substitute(v, swap) for k, v in node.kwargs.items()})

    return Local(tuple(axes), space, run)


def _sizes(given: Any, count: int) -> list[int]:
    found = [given] if isinstance(given, int) else list(given)
    return found * count if len(found) == 1 else found


def _convolution(node: Node, space: Space) -> Local | None:
    weight = argument(node, "weight")
    count = len(space)
    if not isinstance(weight, Tensor) or weight.dim() - 2 != count or space != tuple(range(2, 2 + count)):
        return None
    if argument(node, "transposed", False) or "transpose" in node.base or len(node.inputs) != 1:
        return None
    kernel, stride = list(weight.shape[2:]), _sizes(argument(node, "stride", 1), count)
    dilation, padding = _sizes(argument(node, "dilation", 1), count), argument(node, "padding", 0)
    if isinstance(padding, str):
        before = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(kernel, dilation, strict=True)]
    else:
        before = _sizes(padding, count)
    axes = [Axis(*facts) for facts in zip(kernel, stride, before, dilation, strict=True)]
    run, x = convolved(node, weight, argument(node, "bias")), node.inputs[0]
    return Local(tuple(axes), space, lambda windows, starts, sizes: run(windows[x]))


def convolved(node: Node, weight: Tensor, bias: Tensor | None, *, padded: bool = False) -> Callable[[Tensor], Tensor]:
    """A recorded convolution with another weight and bias; without its padding where windows bring their own."""
    count = weight.dim() - 2
    operation, groups = (F.conv1d, F.conv2d, F.conv3d)[count - 1], argument(node, "groups", 1)
    stride, dilation = _sizes(argument(node, "stride", 1), count), _sizes(argument(node, "dilation", 1), count)
    padding = argument(node, "padding", 0) if padded else 0
    return lambda x: operation(x, weight, bias, stride, padding, dilation, groups)


def _max_pool(node: Node, space: Space) -> Local | None:
    axes = _pool_axes(node, space)
    if axes is None or sum(v is not None for v in node.outputs) > 1:
        return None  # places of the winners count over the whole value
    pool, x = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(space) - 1], node.inputs[0]
    kernel, stride, _, dilation = ([a[i] for a in axes] for i in range(4))

    def run(windows: Windows, starts: Starts, sizes: Sizes) -> list[Tensor]:
        return [pool(windows[x], kernel, stride, 0, dilation)]

    return Local(axes, space, run, float("-inf"))


def _pool_axes(node: Node, space: Space) -> tuple[Axis, ...] | None:
    """The reach of a pooling with windows of its own, on `(b, c, ...)`."""
    count = len(space)
    if space != tuple(range(2, 2 + count)) or len(node.inputs) != 1:
        return None
    kernel = _sizes(argument(node, "kernel_size"), count)
    stride = _sizes(argument(node, "stride") or kernel, count)
    dilation = _sizes(argument(node, "dilation", 1), count)
    return tuple(
        Axis(*a) for a in zip(kernel, stride, _sizes(argument(node, "padding", 0), count), dilation, strict=True)
    )


def _average_pool(node: Node, space: Space) -> Local | None:
    """Windows are averaged over the whole kernel, then weighted: at borders the operation divides by less."""
    count = len(space)
    if "adaptive" in node.base:
        lengths = [(node.inputs[0].shape[a], node.output.shape[a]) for a in space]
        if space != tuple(range(2, 2 + count)) or any(before % after for before, after in lengths):
            return None
        axes: tuple[Axis, ...] | None = tuple(Axis(b // a, b // a) for b, a in lengths)
    else:
        axes = _pool_axes(node, space)
    if axes is None or all(node.output.shape[a] == 1 for a in space):
        return None
    pool, x = (F.avg_pool1d, F.avg_pool2d, F.avg_pool3d)[count - 1], node.inputs[0]
    kernel, stride = [a.kernel for a in axes], [a.stride for a in axes]
    weights = _border_weights(node, space, axes, lambda t: pool(t, kernel, stride))

    def run(windows: Windows, starts: Starts, sizes: Sizes) -> Tensor:
        found = pool(windows[x], kernel, stride)
        return found if weights is None else found * cut(weights, None, space, starts, sizes)

    return Local(axes, space, run)


def _border_weights(node: Node, space: Space, axes: Sequence[Axis], pool: Callable[[Tensor], Tensor]) -> Tensor | None:
    """What an average over the whole kernel has to be multiplied with at each output; None where that is one."""
    x = node.inputs[0]
    ones = x.data.new_ones(1, 1, *(x.shape[a] for a in space))
    starts, sizes = zip(
        *(axis.needed(0, node.output.shape[a]) for axis, a in zip(axes, space, strict=True)), strict=True
    )
    theirs = node.run({x: x.data.new_ones(x.shape)})[:1, :1]
    weights = theirs / pool(cut(ones, None, space, [starts], sizes))
    return None if bool((weights == 1).all()) else weights


def _cat(node: Node, space: Mapping[Value, Space], first: Space) -> Local | None:
    axis = argument(node, "dim", 0) % len(node.output.shape)
    parts = node.args[0]
    alike = all(isinstance(p, Value) and space.get(p) == first for p in parts)
    return _plain(node, [POINT] * len(first), first) if alike and axis != 0 and axis not in first else None


def _view(node: Node, space: Space) -> Local | None:
    """Views that keep the spatial axes whole, or cut and pad them."""
    x, count, name = node.inputs[0], len(space), node.base
    if len(node.inputs) != 1 or not isinstance(node.args[0], Value):
        return None
    if name in ("clone", "contiguous", "alias", "to", "_to_copy", "type_as", "channel_shuffle"):
        return _plain(node, [POINT] * count, space)
    if name in ("permute", "transpose"):
        order = _order(node, len(x.shape))
        moved = tuple(order.index(a) for a in space)
        return _plain(node, [POINT] * count, moved) if order[0] == 0 else None
    if name in ("view", "_unsafe_view", "reshape"):
        return _regrouped(node, space)
    if name == "slice":
        return _slice(node, space)
    if name in SPLITS:
        return _plain(node, [POINT] * count, space) if _dim(node, x) not in (0, *space) else None
    return _pad(node, space) if name in ("pad", "constant_pad_nd") else None


def _order(node: Node, count: int) -> list[int]:
    if node.base == "permute":
        return [d % count for d in node.args[1]]
    order, (a, b) = list(range(count)), (d % count for d in node.args[1:3])
    order[a], order[b] = order[b], order[a]
    return order


def _dim(node: Node, x: Value) -> int:
    return argument(node, "dim", 0) % len(x.shape)


def _regrouped(node: Node, space: Space) -> Local | None:
    """A reshape of the channels, the spatial axes last and untouched."""
    x, y, count = node.inputs[0], node.output, len(space)
    last = tuple(range(len(x.shape) - count, len(x.shape)))
    kept = len(y.shape) > count and y.shape[-count:] == x.shape[-count:] and y.shape[0] == x.shape[0]
    if space != last or not kept or prod(y.shape[1:-count]) != prod(x.shape[1:-count]):
        return None
    channels = y.shape[1:-count]

    def run(windows: Windows, starts: Starts, sizes: Sizes) -> Tensor:
        return windows[x].reshape(len(starts), *channels, *sizes)

    return Local((POINT,) * count, tuple(range(len(y.shape) - count, len(y.shape))), run)


def _slice(node: Node, space: Space) -> Local | None:
    x = node.inputs[0]
    dim, step, start = _dim(node, x), argument(node, "step", 1), argument(node, "start") or 0
    if dim == 0:
        return None
    if dim not in space:
        return _plain(node, [POINT] * len(space), space)
    start = min(max(start + x.shape[dim] if start < 0 else start, 0), x.shape[dim])
    axes = [Axis(1, step, -start) if a == dim else POINT for a in space]
    cutter = tuple(slice(None, None, step if a == dim else 1) for a in range(len(x.shape)))
    return Local(tuple(axes), space, lambda windows, starts, sizes: windows[x][cutter])


def _pad(node: Node, space: Space) -> Local | None:
    x, given = node.inputs[0], list(argument(node, "pad"))
    if node.base == "pad" and argument(node, "mode", "constant") != "constant":
        return None
    pairs = {len(x.shape) - 1 - i // 2: (given[i], given[i + 1]) for i in range(0, len(given), 2)}
    if pairs.get(0, (0, 0)) != (0, 0):
        return None
    value = float(argument(node, "value", 0.0) or 0.0)
    inner = [n for a in reversed(range(len(x.shape))) for n in ((0, 0) if a in space else pairs.get(a, (0, 0)))]
    axes = tuple(Axis(before=pairs.get(a, (0, 0))[0]) for a in space)
    return Local(axes, space, lambda windows, starts, sizes: F.pad(windows[x], inner, value=value), value)


def _pointwise(node: Node, space: Mapping[Value, Space], first: Space) -> Local | None:
    """Operations that treat every position alike."""
    y = node.output
    lengths = [y.shape[a] for a in first] if len(y.shape) > max(first) else []
    alike = all(space.get(v) == first and [v.shape[a] for a in first] == lengths for v in node.inputs if v in space)
    rest = [v for v in node.inputs if v not in space]
    if not alike or not all(_flat(v.shape, len(y.shape), first) for v in (*rest, *_constants(node))):
        return None
    known = node.kind in ELEMENTWISE_KINDS or node.base in ELEMENTWISE or _over_channels(node, first)
    return _plain(node, [POINT] * len(first), first) if known and y.shape[0] == node.inputs[0].shape[0] else None


def _over_channels(node: Node, space: Space) -> bool:
    """Whether an operation that mixes values of one position mixes nothing else."""
    axes = len(node.inputs[0].shape)
    if node.kind == "batch_norm":
        return 1 not in space
    if node.base == "layer_norm":
        return max(space) < axes - len(argument(node, "normalized_shape"))
    if node.base == "linear":
        return axes - 1 not in space and isinstance(argument(node, "weight"), Tensor)
    if node.kind == "softmax":
        return _dim(node, node.inputs[0]) not in (0, *space)
    if node.base in REDUCTIONS and argument(node, "keepdim", False):
        dims = argument(node, "dim")
        return bool(dims) and not {d % axes for d in _sizes(dims, 1)} & {0, *space}
    return False


def _constants(node: Node) -> list[Tensor]:
    """Constant tensors of an elementwise operation, which could have spatial axes of their own."""
    if node.kind == "batch_norm" or node.base in ("layer_norm", "linear", "prelu", "_prelu_kernel"):
        return []
    return [a for a in (*node.args, *node.kwargs.values()) if isinstance(a, Tensor)]


def _flat(shape: Sequence[int], dims: int, space: Space) -> bool:
    """Whether a tensor that is broadcast to `dims` axes has the same value at every position."""
    missing = dims - len(shape)
    return all(a < missing or shape[a - missing] == 1 for a in space)
