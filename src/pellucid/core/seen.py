"""What the outputs of each operation can see of the input, from what its inputs see."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import torch
from torch import Tensor

from pellucid.core import boxes as ways
from pellucid.core.boxes import NOTHING, Boxes
from pellucid.core.derivatives import argument
from pellucid.core.operations import KINDS
from pellucid.core.trace import Node, Value

POINTWISE_KINDS = frozenset({"rectifier", "clamp", "squash", "sum", "scale", "dropout", "batch_norm", "detach"})
COPIES = frozenset("clone contiguous alias to _to_copy type_as detach expand expand_as copy lift_fresh".split())
RESHAPES = frozenset("view _unsafe_view reshape flatten unflatten squeeze unsqueeze view_as reshape_as".split())
MOVES = KINDS["view"] | frozenset(
    "unfold reflection_pad1d reflection_pad2d reflection_pad3d replication_pad1d replication_pad2d replication_pad3d "
    "pixel_shuffle pixel_unshuffle channel_shuffle native_channel_shuffle write tril triu diagonal rot90".split()
)
REDUCTIONS = frozenset(
    "mean sum amin amax max min prod std var std_mean var_mean norm linalg_vector_norm logsumexp argmax argmin any all "
    "median".split()
)
MIXES = KINDS["softmax"] | frozenset("cumsum cumprod sort topk argsort logcumsumexp".split())
PRODUCTS = frozenset("matmul bmm mm baddbmm addmm addbmm linear".split())


@dataclass(frozen=True, eq=False)
class Seen:
    """What the elements of a tensor can see.

    Attributes:
        boxes: the smallest box for each element, without the ways that lead through all positions at once.
        everywhere: the operation on such a way, in words; "" where there is none.
        aligned: whether no ways met on the way here that are centred differently.
    """

    boxes: Boxes
    everywhere: str = ""
    aligned: bool = True


def after(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen:
    """What one output of an operation sees; an operation that isn't known sees all that its inputs come from."""
    inputs = [known[v] for v in node.inputs if v in known]
    told = next((s.everywhere for s in inputs if s.everywhere), "")
    straight = all(s.aligned for s in inputs)
    try:
        found = _looked(node, value, known)
    except (RuntimeError, TypeError, ValueError, IndexError, AttributeError, StopIteration):
        found = None  # an operation used in a way that has no rule here
    if found is None:
        found = _whole(node, value, len(inputs[0].boxes))
    return Seen(found.boxes, found.everywhere or told, found.aligned and straight)


def _looked(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen | None:
    """By the kind of the operation; None where there is no rule."""
    base, source = node.base, node.inputs[0]
    held = lambda v: known[v].boxes if v in known else None  # noqa: E731
    one = held(source) if len(node.inputs) == 1 else None
    first = node.args[0] if node.args and isinstance(node.args[0], Value) else None
    if base in COPIES:
        origin = node.args[1] if base == "copy" else first
        boxes = held(origin) if isinstance(origin, Value) else None
        return None if boxes is None else Seen(ways.fitted(boxes, len(value.shape)))
    if base in RESHAPES and first is not None and (boxes := held(first)) is not None:
        return Seen(ways.reshaped(value, first, boxes))
    if base in ("constant_pad_nd", "pad") and argument(node, "mode", "constant") == "constant" and one is not None:
        return Seen(ways.padded(node, one))
    if node.kind == "concatenate" or base in MOVES:
        return _moved(node, value, known)
    if base.startswith(("upsample_", "_upsample_")) and one is not None:
        return Seen(ways.resized(node, value, one))
    if "pool" in base and one is not None:
        return (
            _mixed(node, one, ways.pooled(node, value, one))
            if "adaptive" in base
            else Seen(ways.pooled(node, value, one))
        )
    if base in ("max_unpool2d", "max_unpool3d"):
        return _unpooled(node, value, known)
    if base == "im2col" and one is not None:
        return Seen(ways.columns(node, value, one))
    if node.kind == "convolution":
        boxes = held(source)
        return Seen(ways.convolved(node, value, boxes)) if len(node.inputs) == 1 and boxes is not None else None
    return _computed(node, value, known, one)


def _computed(node: Node, value: Value, known: Mapping[Value, Seen], one: Boxes | None) -> Seen | None:
    """Sums, products and norms."""
    base = node.base
    if base in PRODUCTS:
        return _product(node, value, known)
    if base == "scaled_dot_product_attention":
        return _attention(node, value, known)
    if node.kind == "norm" and one is not None:
        return _normalised(node, one, _norm_axes(node, value))
    if base in MIXES and one is not None:
        return _normalised(node, one, _axes(node, one.dim() - 1))
    if base in REDUCTIONS and one is not None:
        return _mixed(
            node, one, ways.contracted(one, _axes(node, one.dim() - 1), keep=bool(argument(node, "keepdim", False)))
        )
    if base in ("zero", "fill") and len(node.inputs) == 1:
        return Seen(torch.full((len(_any(known)), *(1,) * len(value.shape)), NOTHING))
    pointwise = node.kind in POINTWISE_KINDS or torch.Tag.pointwise in getattr(node.op, "tags", ())
    return _met(value, [known[v].boxes for v in node.inputs if v in known]) if pointwise else None


def _any(known: Mapping[Value, Seen]) -> Boxes:
    return next(iter(known.values())).boxes


def _whole(node: Node, value: Value, sides: int) -> Seen:
    return Seen(torch.full((sides, *(1,) * len(value.shape)), NOTHING), name_of(node))


def name_of(node: Node) -> str:
    """The operation and where it runs, in words."""
    return f"{node.base} in {node.path or 'the network'}"


def _mixed(node: Node, before: Boxes, boxes: Boxes) -> Seen:
    """What positions are drawn together: everything, where no difference between positions is left."""
    boxes = ways.thinned(boxes)
    if ways.alike(boxes) and not ways.alike(before):
        return Seen(torch.full_like(boxes, NOTHING), name_of(node))
    return Seen(boxes)


def _normalised(node: Node, boxes: Boxes, axes: Sequence[int]) -> Seen:
    """Each element, and all that its statistics come from."""
    mixed = _mixed(node, boxes, ways.contracted(boxes, axes))
    return replace(mixed, boxes=torch.minimum(boxes, mixed.boxes))


def _norm_axes(node: Node, value: Value) -> list[int]:
    count = len(value.shape)
    if "layer_norm" in node.base or node.base == "rms_norm":
        return list(range(count - len(argument(node, "normalized_shape")), count))
    if node.base == "instance_norm":
        return list(range(2, count)) if argument(node, "use_input_stats", True) else []
    return list(range(1, count))


def _axes(node: Node, count: int) -> list[int]:
    given = argument(node, "dim")
    if given is None and node.base in ("sort", "topk", "argsort"):
        given = -1
    axes = [given] if isinstance(given, int) else list(given or range(count))
    return [a % count for a in axes]


def _moved(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen | None:
    """Elements that only move; an index that hangs on the picture can fetch anything."""
    if any(v in known and not v.differentiable and v is not node.args[0] for v in node.inputs):
        return None
    if node.base == "as_strided" and not hasattr(node.op, "there"):
        return None
    boxes = ways.rearranged(node, value, lambda v: known[v].boxes if v in known else None)
    aligned = True
    if node.kind == "concatenate":
        parts = [known[v].boxes for v in node.args[0] if isinstance(v, Value) and v in known]
        aligned = node.base == "stack" or _centred(parts, _skipped(node, value))
    return Seen(boxes, aligned=aligned)


def _skipped(node: Node, value: Value) -> int:
    return argument(node, "dim", 0) % len(value.shape)


def _met(value: Value, parts: Sequence[Boxes]) -> Seen:
    """Where values are added or multiplied position by position."""
    boxes = ways.around(parts, len(value.shape))
    return Seen(boxes, aligned=_centred([ways.fitted(p, len(value.shape)) for p in parts]))


def _centred(parts: Sequence[Boxes], joined: int | None = None) -> bool:
    """Whether boxes have the same centres, in the middle half of each axis; joined end to end they need not."""
    centres = [_centres(p) for p in parts if bool(torch.isfinite(p).any())]
    for other in centres[1:]:
        if joined is not None and (centres[0].shape[joined + 1] > 1 or other.shape[joined + 1] > 1):
            continue
        gap = centres[0] - other
        if bool((gap[torch.isfinite(gap)] != 0).any()):
            return False
    return True


def _centres(boxes: Boxes) -> Tensor:
    half = len(boxes) // 2
    for axis in range(1, boxes.dim()):
        n = boxes.shape[axis]
        boxes = boxes.narrow(axis, n // 4, n - 2 * (n // 4))
    return boxes[:half] - boxes[half:]


def _unpooled(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen | None:
    places = node.inputs[-1]
    pool = places.node
    if pool is None or not pool.base.startswith("max_pool"):
        return None
    parts = [ways.unpooled(pool, value, known[v].boxes, ways.dimensions(node)) for v in node.inputs if v in known]
    return Seen(ways.around(parts, len(value.shape)))


def _product(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen | None:
    """A matrix product draws together what it sums over; what is added to it is added position by position."""
    factors = [a for a in node.args if isinstance(a, (Value, Tensor))]
    added = factors.pop(0) if node.base in ("addmm", "baddbmm") else factors.pop() if len(factors) > 2 else None
    if len(factors) != 2 or any(len(f.shape) < 2 for f in factors) or node.base == "addbmm":
        return None
    parts, told = [known[added].boxes] if isinstance(added, Value) and added in known else [], ""
    for place, factor in enumerate(factors):
        if isinstance(factor, Value) and factor in known:
            boxes = known[factor].boxes
            summed = len(factor.shape) - 1 if place == 0 or node.base == "linear" else len(factor.shape) - 2
            mixed = _mixed(node, boxes, ways.contracted(boxes, [summed]))
            parts.append(mixed.boxes.transpose(-1, -2) if place and node.base == "linear" else mixed.boxes)
            told = told or mixed.everywhere
    return replace(_met(value, parts), everywhere=told, aligned=True)


def _attention(node: Node, value: Value, known: Mapping[Value, Seen]) -> Seen | None:
    """Each query sees itself and all keys and values."""
    parts, told = [], ""
    for place, tensor in enumerate(node.args[:4]):
        if not isinstance(tensor, Value) or tensor not in known:
            continue
        boxes = known[tensor].boxes
        if place == 0:
            parts.append(ways.contracted(boxes, [len(tensor.shape) - 1]))
        else:
            mixed = _mixed(node, boxes, ways.contracted(boxes, [len(tensor.shape) - 2, len(tensor.shape) - 1]))
            parts.append(mixed.boxes)
            told = told or mixed.everywhere
    return replace(_met(value, parts), everywhere=told, aligned=True)
