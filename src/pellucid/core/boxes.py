"""What one operation does to the boxes of input pixels that each element of a tensor can see.

The boxes of a tensor of shape `dims` are one tensor `(2a, *dims)`: for each of the input's `a` spatial axes the first
pixel, then for each the last pixel with its sign turned, so that the smallest box around several is the smallest
number everywhere. An axis along which all boxes are alike has length 1; an element that sees nothing holds +∞.
"""

from collections.abc import Callable, Sequence
from math import inf, prod
from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.storages import ReadView, WriteView
from pellucid.core.trace import Node, Value, substitute

Boxes = Float[Tensor, "sides ..."]
Places = Int64[Tensor, "..."]
Taps = list[tuple[Places, Tensor | None]]

NOTHING = inf


def fitted(boxes: Boxes, dims: int) -> Boxes:
    """With as many axes as a tensor of `dims` axes that it is broadcast to."""
    return boxes.reshape(len(boxes), *(1,) * (dims - boxes.dim() + 1), *boxes.shape[1:])


def full(boxes: Boxes, shape: Sequence[int]) -> Boxes:
    """One box for each element of a tensor."""
    return fitted(boxes, len(shape)).expand(len(boxes), *shape)


def around(parts: Sequence[Boxes], dims: int) -> Boxes:
    """The smallest boxes around several that are broadcast against each other."""
    found = fitted(parts[0], dims)
    for part in parts[1:]:
        found = torch.minimum(found, fitted(part, dims))
    return found


def thinned(boxes: Boxes) -> Boxes:
    """One box kept along every axis along which all are alike."""
    for axis in range(1, boxes.dim()):
        if boxes.shape[axis] > 1:
            first = boxes.narrow(axis, 0, 1)
            if boxes.stride(axis) == 0 or bool((boxes == first).all()):
                boxes = first
    return boxes


def alike(boxes: Boxes) -> bool:
    """Whether all elements see the same."""
    return all(n == 1 for n in thinned(boxes).shape[1:])


def taken(boxes: Boxes, axis: int, at: Places) -> Boxes:
    """The boxes at places along an axis; beyond its ends, where there is padding, they go on as they do within."""
    last = boxes.shape[axis] - 1
    if not last:
        return boxes
    turn, place = torch.div(at, 2 * last, rounding_mode="floor"), at % (2 * last)
    if not bool((turn == 0).all() and (place <= last).all()):
        ends = boxes.narrow(axis, last, 1), boxes.narrow(axis, 0, 1)
        shape = [-1 if a == axis else 1 for a in range(boxes.dim())]
        back, turns = (place > last).view(shape), turn.view(shape)
        there = boxes.index_select(axis, torch.where(place > last, 2 * last - place, place))
        found = torch.where(back, 2 * ends[0] - there, there) + torch.where(
            turns == 0, 0, 2 * turns * (ends[0] - ends[1])
        )
        return torch.where(torch.isfinite(found), found, NOTHING)
    return boxes.index_select(axis, at)


def windowed(boxes: Boxes, axis: int, taps: Taps) -> Boxes:
    """Around what several taps read along an axis: where each output's tap lies, and whether there is one."""
    if boxes.shape[axis] == 1:
        return boxes
    shape = [-1 if a == axis else 1 for a in range(boxes.dim())]
    parts = []
    for at, there in taps:
        part = taken(boxes, axis, at)
        parts.append(part if there is None else torch.where(there.view(shape), part, NOTHING))
    found = parts[0]
    for part in parts[1:]:
        found = torch.minimum(found, part)
    return found


def strided(length: int, kernel: int, stride: int, before: int, dilation: int) -> Taps:
    """Output o reads `o s − p + t d`, t < k."""
    start = torch.arange(length) * stride - before
    return [(start + t * dilation, None) for t in range(kernel)]


def transposed(length: int, kernel: int, stride: int, before: int, dilation: int) -> Taps:
    """Output o reads every i with `i s − p + t d = o`, t < k."""
    ahead = [torch.arange(length) + before - t * dilation for t in range(kernel)]
    return [(torch.div(a, stride, rounding_mode="floor"), a % stride == 0) for a in ahead]


def ranged(first: Places, last: Places) -> Taps:
    """Output o reads all from `first[o]` to `last[o]`."""
    return [(torch.minimum(first + t, last), None) for t in range(int((last - first).max()) + 1)]


def sizes(given: Any, count: int) -> list[int]:
    """One number for each axis, however they were given."""
    found = [given] if isinstance(given, int) else list(given)
    return found * count if len(found) == 1 else found


def convolved(node: Node, value: Value, boxes: Boxes) -> Boxes:
    """A convolution, forward or transposed, in any number of dimensions."""
    weight = argument(node, "weight")
    count, groups = len(weight.shape) - 2, argument(node, "groups", 1)
    boxes = _mixed(boxes, boxes.dim() - count - 1, groups, value.shape[-count - 1])
    turned = bool(argument(node, "transposed", False)) or "transpose" in node.base
    stride, dilation = sizes(argument(node, "stride", 1), count), sizes(argument(node, "dilation", 1), count)
    padding = argument(node, "padding", 0)
    if isinstance(padding, str):
        before = [d * (k - 1) // 2 if padding == "same" else 0 for k, d in zip(weight.shape[2:], dilation, strict=True)]
    else:
        before = sizes(padding, count)
    reads = transposed if turned else strided
    for a, (k, s, p, d) in enumerate(zip(weight.shape[2:], stride, before, dilation, strict=True)):
        axis = boxes.dim() - count + a
        boxes = windowed(boxes, axis, reads(value.shape[axis - 1], k, s, p, d))
    return boxes


def _mixed(boxes: Boxes, axis: int, groups: int, channels: int) -> Boxes:
    """Around the channels of each group, for each channel that comes out."""
    if boxes.shape[axis] == 1 or groups == 1:
        return boxes.amin(axis, keepdim=True)
    grouped = boxes.unflatten(axis, (groups, -1)).amin(axis + 1)
    return grouped.repeat_interleave(channels // groups, dim=axis)


def pooled(node: Node, value: Value, boxes: Boxes) -> Boxes:
    """A pooling with windows of its own, or an adaptive one, whose window o of m is ⌊o n/m⌋ to ⌈(o+1) n/m⌉ − 1."""
    count = dimensions(node)
    source = node.inputs[0].shape
    for a in range(count):
        axis = boxes.dim() - count + a
        n, m = source[axis - 1], value.shape[axis - 1]
        if "adaptive" in node.base:
            o = torch.arange(m)
            taps = ranged(
                torch.div(o * n, m, rounding_mode="floor"), -torch.div(-(o + 1) * n, m, rounding_mode="floor") - 1
            )
        else:
            taps = strided(m, *pool_axis(node, a, count))
        boxes = windowed(boxes, axis, taps)
    return boxes


def dimensions(node: Node) -> int:
    """The number in an operation's name: 2 for `max_pool2d_with_indices`."""
    return int(next(c for c, d in zip(node.base, node.base[1:], strict=False) if c.isdigit() and d == "d"))


def pool_axis(node: Node, a: int, count: int) -> tuple[int, int, int, int]:
    """Kernel, stride, padding and dilation of a pooling along one axis."""
    kernel = sizes(argument(node, "kernel_size"), count)
    stride = sizes(argument(node, "stride") or kernel, count)
    padding, dilation = argument(node, "padding", 0), argument(node, "dilation", 1)
    return kernel[a], stride[a], sizes(padding, count)[a], sizes(dilation, count)[a]


def unpooled(pool: Node, value: Value, boxes: Boxes, count: int) -> Boxes:
    """What a max-pool's winners are put back into: any place of the window that they were taken from."""
    for a in range(count):
        axis = boxes.dim() - count + a
        boxes = windowed(boxes, axis, transposed(value.shape[axis - 1], *pool_axis(pool, a, count)))
    return boxes


def columns(node: Node, value: Value, boxes: Boxes) -> Boxes:
    """Patches laid out as columns (`unfold`)."""
    source = node.inputs[0].shape
    names = ("kernel_size", "stride", "padding", "dilation")
    given = [sizes(argument(node, name), 2) for name in names]
    counts = []
    for a in range(2):
        k, s, p, d = (g[a] for g in given)
        counts.append((source[a - 2] + 2 * p - d * (k - 1) - 1) // s + 1)
        boxes = windowed(boxes, boxes.dim() - 2 + a, strided(counts[-1], k, s, p, d))
    boxes = boxes.amin(boxes.dim() - 3, keepdim=True)
    return boxes.expand(*boxes.shape[:-2], *counts).flatten(-2)


def resized(node: Node, value: Value, boxes: Boxes) -> Boxes:
    """An enlargement or reduction; which inputs it reads is found by asking the operation itself."""
    count = len(value.shape) - 2
    for a in range(count):
        axis = a + 3
        n, m = node.inputs[0].shape[a + 2], value.shape[a + 2]
        if n > 1 and boxes.shape[axis] > 1:
            reads = _interpolation(node, a, count, n, m)
            first = reads.int().argmax(1)
            last = n - 1 - reads.flip(1).int().argmax(1)
            boxes = windowed(boxes, axis, ranged(first, last))
    return boxes


def _interpolation(node: Node, a: int, count: int, n: int, m: int) -> Tensor:
    """Whether output o of m reads input i of n along one axis, `(m, n)`: the operation on n pictures of one point."""
    x = torch.eye(n).view(n, 1, *(n if b == a else 1 for b in range(count)))
    x = x.expand(n, 1, *(n if b == a else 2 for b in range(count))).contiguous()
    own = lambda given, other: None if given is None else [given[b] if b == a else other for b in range(count)]  # noqa: E731
    call: list[Any] = []
    op: Any = node.op
    for place, known in enumerate(op._schema.arguments):
        given = argument(node, known.name)
        if place == 0:
            call.append(x)
        elif known.name == "output_size":
            call.append(own(given, 2))
        elif known.name == "scale_factors":
            call.append(own(given, 1.0))
        elif known.name.startswith("scales"):
            axes = {"scales": 0, "scales_d": 0, "scales_h": count - 2, "scales_w": count - 1}
            call.append(given if axes[known.name] == a else None)
        else:
            call.append(given)
    out = op(*call).movedim(a + 2, 1).reshape(n, m, -1)[..., 0]
    return (out != 0).T


def padded(node: Node, boxes: Boxes) -> Boxes:
    """Constant padding, or cropping where it is negative."""
    given = list(argument(node, "pad"))
    for i in range(0, len(given), 2):
        axis = boxes.dim() - 1 - i // 2
        n = boxes.shape[axis]
        boxes = taken(boxes, axis, torch.arange(-given[i], n + given[i + 1]))
    return boxes


def rearranged(node: Node, value: Value, seen: Callable[[Value], Boxes | None]) -> Boxes:
    """An operation that only moves elements, played on the boxes themselves."""
    which = next(i for i, v in enumerate(node.outputs) if v is value)
    held = {v: seen(v) for v in node.inputs}
    sides = len(next(b for b in held.values() if b is not None))
    op, args, named = _not_in_place(node)
    results = []
    for side in range(sides):
        swap = lambda leaf: _side(leaf, held, side, node)  # noqa: B023, E731
        out = op(*(substitute(a, swap) for a in args), **{k: substitute(v, swap) for k, v in named.items()})
        results.append(out if isinstance(out, Tensor) else out[which])
    found = torch.stack(results)
    if tuple(found.shape[1:]) != tuple(value.shape):
        raise ValueError(f"{node.name} gives {tuple(found.shape[1:])} on boxes, {tuple(value.shape)} was recorded")
    return thinned(found)


def _not_in_place(node: Node) -> tuple[Any, Any, Any]:
    given: Any = node.op
    if node.mutates is None or isinstance(given, (ReadView, WriteView)):
        return given, node.args, node.kwargs
    return getattr(getattr(torch.ops.aten, node.base), given._overloadname), node.args, node.kwargs


def _side(leaf: Any, held: dict[Value, Boxes | None], side: int, node: Node) -> Any:
    """A tensor among the arguments as one side of its boxes; what does not hang on the input sees nothing."""
    if isinstance(leaf, Value):
        boxes = held.get(leaf)
        return torch.full(tuple(leaf.shape), NOTHING) if boxes is None else full(boxes, leaf.shape)[side].contiguous()
    if isinstance(leaf, Tensor) and leaf.is_floating_point():
        return torch.full(tuple(leaf.shape), NOTHING)
    return leaf.cpu() if isinstance(leaf, Tensor) else leaf


def reshaped(value: Value, source: Value, boxes: Boxes) -> Boxes:
    """The same elements in the same order under another shape."""
    if tuple(value.shape) == tuple(source.shape):
        return fitted(boxes, len(value.shape))
    if prod(boxes.shape[1:]) == 1:
        return boxes.reshape(len(boxes), *(1,) * len(value.shape))
    return thinned(full(boxes, source.shape).reshape(len(boxes), *value.shape))


def contracted(boxes: Boxes, axes: Sequence[int], *, keep: bool = True) -> Boxes:
    """Around all along some axes of the tensor."""
    places = [a + 1 for a in axes]
    return boxes.amin(places, keepdim=keep) if places else boxes
