"""The weights of a network, read off the operations that used them: convolutions, linear layers, BatchNorms."""

from collections.abc import Collection
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.progress import Progress
from pellucid.core.trace import Node, Trace, Value
from pellucid.rules.linear_map import LinearMap, affine, linear_map
from pellucid.rules.structure import Structure, is_linear, structure

ALIKE, DEAD_FRACTION = 0.95, 1e-6
MOST_PRODUCTS = 3e10
KEEP_CHANNELS = frozenset(
    {"rectifier", "batch_norm", "max_pool", "average_pool", "dropout", "scale", "clamp", "norm", "sum"}
)
COPIES = frozenset({"clone", "contiguous", "alias", "to", "_to_copy", "detach"})


@dataclass(frozen=True, eq=False)
class Norm:
    """A BatchNorm in evaluation, `y = scale · x + shift`.

    Attributes:
        name: its module path.
        scale: `γ/σ` with `σ = √(variance + ε)`.
        shift: the implicit bias `β − μγ/σ`.
    """

    name: str
    scale: Float[np.ndarray, "k"]
    shift: Float[np.ndarray, "k"]


@dataclass(frozen=True, eq=False)
class Kernel:
    """The weights with which one layer looks at the layer before it.

    Attributes:
        name: the layer's path; where a module uses several, `path:operation#number`.
        operation: as recorded: `conv2d`, `linear`, …
        weight: `(filters, channels, *window)`; a filter sees the channels of its own group alone. A transposed
            convolution's weights are turned round to this order.
        bias: one number a filter; None where there is none.
        norm: the BatchNorm that alone reads the outcome, None where there is none.
        groups: into how many the channels are split.
        calls: how often these weights were used on the way to the scores.
        first: whether they look at the network's input.
        twins: pairs of filters of one group and the cosine between them, over `ALIKE`, most alike first; None where
            comparing all pairs takes more than `MOST_PRODUCTS` products.
        paths: `(channels, filters)`: the sum over all positions of weight times activation, for each connection, mean
            over the pictures; None without a picture.
        positions: places of its operations in the recording.
    """

    name: str
    operation: str
    weight: Float[np.ndarray, "filters own *window"]
    bias: Float[np.ndarray, "filters"] | None
    norm: Norm | None
    groups: int
    calls: int
    first: bool
    twins: tuple[tuple[int, int, float], ...] | None = ()
    paths: Float[np.ndarray, "channels filters"] | None = None
    positions: tuple[int, ...] = ()

    @property
    def filters(self) -> int:
        return self.weight.shape[0]

    @property
    def channels(self) -> int:
        """How many channels the layer before it has."""
        return self.weight.shape[1] * self.groups

    @cached_property
    def norms(self) -> Float[np.ndarray, "filters"]:
        """The length of each filter, `√Σ w²`."""
        return lengths(self.weight.reshape(self.filters, -1))

    @property
    def matrix(self) -> Float[np.ndarray, "channels filters"]:
        """The length of each connection, `√Σ_window w²`; zero between groups."""
        flat = self.weight.reshape(*self.weight.shape[:2], -1)
        return between_groups(np.sqrt(np.einsum("oik,oik->oi", flat, flat)), self.groups)

    @property
    def scale(self) -> Float[np.ndarray, "filters"]:
        """What the BatchNorm behind multiplies each filter with; 1 without one."""
        return np.ones(self.filters) if self.norm is None else self.norm.scale.astype(np.float64)

    @property
    def merged_bias(self) -> Float[np.ndarray, "filters"]:
        """The bias behind the BatchNorm: `scale · b + shift`."""
        bias = np.zeros(self.filters) if self.bias is None else self.bias.astype(np.float64)
        return bias if self.norm is None else self.scale * bias + self.norm.shift

    @property
    def dead(self) -> Bool[np.ndarray, "filters"]:
        """Filters that give the same whatever they see: no longer than `DEAD_FRACTION` of the layer's longest, after
        the BatchNorm's scale."""
        length = self.norms * np.abs(self.scale)
        return length <= DEAD_FRACTION * length.max(initial=0.0)

    def __repr__(self) -> str:
        return f"Kernel({self.name}: {self.operation}, {self.filters} filters on {self.channels} channels)"


def lengths(rows: Float[np.ndarray, "n d"]) -> Float[np.ndarray, "n"]:
    """`√Σ w²` of each row, summed in double precision without a copy of them all."""
    return np.sqrt(np.einsum("nd,nd->n", rows, rows, dtype=np.float64))


def between_groups(values: np.ndarray, groups: int) -> Float[np.ndarray, "channels filters"]:
    """`(filters, channels of a group)` as `(channels, filters)` with zeros between groups."""
    if groups == 1:
        return values.T
    filters, own = values.shape
    each = filters // groups
    found = np.zeros((own * groups, filters), values.dtype)
    for group in range(groups):
        rows, columns = slice(group * own, (group + 1) * own), slice(group * each, (group + 1) * each)
        found[rows, columns] = values[columns].T
    return found


def kernels(trace: Trace, bar: Progress, *, seen: bool = False, only: Collection[Node] | None = None) -> list[Kernel]:
    """Every layer's weights in the order in which they were first used.

    Args:
        seen: whether each connection's activation on the recorded pictures is summed up as well.
        only: just the layers that these operations belong to.
    """
    facts = structure(trace)
    groups: list[list[Node]] = []
    for node in trace.nodes:
        if is_linear(node) and isinstance(_weight(node), Tensor):
            same = next((g for g in groups if _same(g[0], node)), None)
            groups.append([node]) if same is None else same.append(node)
    wanted = [(name, g) for name, g in zip(_names(groups), groups, strict=True) if only is None or set(g) & set(only)]
    bar.expect(len(wanted))
    found = []
    for name, nodes in wanted:
        found.append(_kernel(name, nodes, trace, facts, seen))
        bar.advance(1, name)
    return found


def norms(trace: Trace) -> list[Norm]:
    """Every BatchNorm in evaluation that ran, whatever is in front of it; one that ran twice is there once."""
    found: dict[str, Norm] = {}
    for node in trace.nodes:
        if node.kind == "batch_norm" and isinstance(argument(node, "running_var"), Tensor):
            name = node.path or node.base
            found.setdefault(name, _norm(node))
    return list(found.values())


def _norm(node: Node) -> Norm:
    scale, shift = affine(node)
    return Norm(node.path or node.base, _numbers(scale), _numbers(shift))


def _weight(node: Node) -> Tensor | Value | None:
    name = {"addmm": "mat2", "mm": "mat2", "matmul": "other"}.get(node.base, "weight")
    return argument(node, name)


def _same(a: Node, b: Node) -> bool:
    """Whether two operations are calls of one layer: of one module, with equal weights."""
    mine, other = _weight(a), _weight(b)
    if a.path != b.path or a.base != b.base or not isinstance(mine, Tensor) or not isinstance(other, Tensor):
        return False
    return mine is other or (mine.shape == other.shape and torch.equal(mine, other))


def _names(groups: list[list[Node]]) -> list[str]:
    paths = [nodes[0].path for nodes in groups]
    found, count = [], dict.fromkeys(paths, 0)
    for nodes, path in zip(groups, paths, strict=True):
        alone = path and paths.count(path) == 1
        found.append(path if alone else f"{path}:{nodes[0].base}#{count[path]}")
        count[path] += 1
    return found


def _kernel(name: str, nodes: list[Node], trace: Trace, facts: Structure, seen: bool) -> Kernel:
    node, behind = nodes[0], facts.behind.get(nodes[0])
    bare = replace(facts, behind={n: m for n, m in facts.behind.items() if m.kind != "batch_norm"})
    known = linear_map(node, bare)
    weight, groups = _ordered(known.weight, node), int(argument(node, "groups", 1) if _windowed(node) else 1)
    bias = None if known.bias is None else known.bias.reshape(-1).expand(weight.shape[0])
    return Kernel(
        name,
        node.base,
        _numbers(weight),
        None if bias is None else _numbers(bias),
        _norm(behind) if behind is not None and behind.kind == "batch_norm" else None,
        groups,
        len(nodes),
        _original(node.inputs[0]) is trace.inputs[0],
        twins(_numbers(weight), groups),
        _all_paths([linear_map(n, bare) for n in nodes], groups, trace.batch) if seen else None,
        tuple(n.position for n in nodes),
    )


def _numbers(tensor: Tensor) -> np.ndarray:
    """A copy, in single precision or better."""
    tensor = tensor.detach().cpu()
    return np.array((tensor if tensor.dtype == torch.float64 else tensor.float()).numpy())


def _windowed(node: Node) -> bool:
    return node.kind == "convolution"


def _ordered(weight: Tensor, node: Node) -> Tensor:
    """Any operation's weights as `(filters, channels of the group, *window)`."""
    if not _windowed(node):
        return weight if node.base == "linear" else weight.T
    if not ("transpose" in node.base or argument(node, "transposed", False)):
        return weight
    groups = int(argument(node, "groups", 1))
    split = weight.reshape(groups, -1, *weight.shape[1:]).transpose(1, 2)
    return split.reshape(-1, split.shape[2], *weight.shape[2:])


def _all_paths(calls: list[LinearMap], groups: int, batch: int) -> Float[np.ndarray, "channels filters"]:
    """The paths of all calls together, mean over the pictures."""
    found = _paths(calls[0], groups)
    for call in calls[1:]:
        found = found + _paths(call, groups)
    return found if batch == 1 else found / batch


def _paths(known: LinearMap, groups: int) -> Float[np.ndarray, "channels filters"]:
    """`P[i, o] = Σ_positions Σ_window w[o, i] a_i`, by `w ⊙ ∂(Σ y)/∂w`, for y is linear in w."""
    weight = known.weight.detach().clone().requires_grad_()
    with torch.inference_mode(False), torch.enable_grad():
        total = known.apply(known.x.detach(), weight).sum()
        (slope,) = torch.autograd.grad(total, weight)
    shares = _ordered(weight.detach() * slope, known.node)
    return between_groups(_numbers(shares.flatten(2).sum(2) if shares.dim() > 2 else shares), groups)


def twins(weight: Float[np.ndarray, "filters own *window"], groups: int) -> tuple[tuple[int, int, float], ...] | None:
    """Pairs of filters of one group that point the same way: `cos > ALIKE`."""
    count = weight.shape[0] // groups
    if groups * count**2 * weight[0].size > MOST_PRODUCTS:
        return None
    found = []
    for group in range(groups):
        flat = weight[group * count : (group + 1) * count].reshape(count, -1)
        length = lengths(flat)
        flat = (flat / np.maximum(length, np.finfo(np.float64).tiny)[:, None]).astype(flat.dtype)
        cosine = np.triu(flat @ flat.T, 1)
        cosine[length == 0] = 0
        for i, j in np.argwhere(cosine > ALIKE):
            found.append((int(i) + group * count, int(j) + group * count, min(float(cosine[i, j]), 1.0)))
    return tuple(sorted(found, key=lambda pair: -pair[2]))


def _original(value: Value) -> Value:
    """What a value is a mere copy or a padded version of."""
    while value.node is not None and (value.node.base in COPIES or value.node.base in ("pad", "constant_pad_nd")):
        value = value.node.inputs[0]
    return value


def filters_behind(value: Value, channel: int, axis: int = 1) -> list[tuple[Node, int]]:
    """The filters that make one channel of a value: each operation with weights and the number of the filter.

    Rectifiers, BatchNorms, pools and sums are gone through, and concatenations to the part the channel comes from;
    several filters where a sum adds channels. Nothing is followed through what mixes channels in any other way.
    """
    found: list[tuple[Node, int]] = []
    waiting = [(value, channel)]
    while waiting:
        here, number = waiting.pop()
        node = here.node
        if node is None:
            continue
        if is_linear(node):
            makes = 1 if _windowed(node) else len(here.shape) - 1
            found += [(node, number)] if axis == makes else []
        elif node.base == "cat" and argument(node, "dim", 0) % len(here.shape) == axis:
            for part in node.args[0]:
                if number < part.shape[axis]:
                    waiting += [(part, number)] if isinstance(part, Value) else []
                    break
                number -= part.shape[axis]
        elif node.kind in KEEP_CHANNELS or node.base in COPIES:
            waiting += [(v, number) for v in node.inputs if _alike(v, here, axis, alone=len(node.inputs) == 1)]
    return list(dict.fromkeys(found))


def _alike(source: Value, here: Value, axis: int, *, alone: bool) -> bool:
    """Whether the channels of a source are those of what was made of it; gates beside it have another shape."""
    if not alone:
        return source.shape == here.shape
    return len(source.shape) == len(here.shape) and source.shape[axis] == here.shape[axis]
