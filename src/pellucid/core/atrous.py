"""A recording run again on a finer grid: strides become one, later kernels are dilated, old values stay in place.

Where an operation's stride s is dropped, everything behind it lies s times denser: it has a *rate* r, and the recorded
value is found at every r-th place. A kernel behind it steps over r places at a time, so that it reads the same
neighbours as before; padding grows by the same factor.
"""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from math import gcd, prod

import torch
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import argument
from pellucid.core.errors import LayerError
from pellucid.core.layers import ancestors
from pellucid.core.local import Local, Space, local
from pellucid.core.progress import Progress
from pellucid.core.trace import Node, Trace, Value, below_autograd, plainly
from pellucid.core.windows import POINT, Axis

Steps = tuple[int, ...]  # one number per spatial axis


@dataclass(frozen=True, eq=False)
class Grid:
    """A recorded value on a finer grid: along spatial axis a, `data[::rate[a]]` holds what was recorded."""

    data: Tensor
    space: Space
    rate: Steps

    @property
    def lengths(self) -> Steps:
        return tuple(self.data.shape[a] for a in self.space)


@dataclass(frozen=True, eq=False)
class Stage:
    """An operation with a stride on the way to a value.

    Attributes:
        before: input pixels from one position to the next in what it reads, along each axis.
        after: the same in what it gives.
    """

    node: Node
    before: Steps
    after: Steps


@dataclass(frozen=True, eq=False)
class Way:
    """The local operations from the input to a value.

    Attributes:
        reaches: operation -> how it reads along each spatial axis.
        space: the spatial axes of each value on the way.
        strides: input pixels from one position to the next, for each of them.
        stages: the operations with a stride, in order.
        gates: values without positions that take part, such as those of squeeze-and-excitation.
    """

    trace: Trace
    end: Value
    reaches: Mapping[Node, Local]
    space: Mapping[Value, Space]
    strides: Mapping[Value, Steps]
    stages: tuple[Stage, ...]
    gates: tuple[Value, ...]


def way_to(trace: Trace, end: Value) -> Way:
    """
    Raises:
        LayerError: the value depends on the input through an operation that keeps no positions; it is named.
    """
    first, leading = trace.inputs[0], ancestors(trace, end)
    space: dict[Value, Space] = {first: tuple(range(2, len(first.shape)))}
    strides: dict[Value, Steps] = {first: (1,) * len(space[first])}
    reaches: dict[Node, Local] = {}
    stages: list[Stage] = []
    strange: dict[Value, Node] = {}
    gates: list[Value] = []
    for node in trace.nodes[: end.position + 1]:
        outputs = [v for v in node.outputs if v is not None and v in leading]
        sources = [v for v in node.inputs if v in space]
        reach = _reach(node, space) if outputs else None
        if outputs and reach is None and (sources or any(v in strange for v in node.inputs)):
            strange.update(dict.fromkeys(outputs, next((strange[v] for v in node.inputs if v in strange), node)))
        if reach is None:
            continue
        reaches[node] = reach
        gates += [v for v in node.inputs if v in strange and v not in gates]
        before = tuple(max(of) for of in zip(*(strides[v] for v in sources), strict=True))
        after = tuple(b * a.stride for b, a in zip(before, reach.axes, strict=True))
        if after != before:
            stages.append(Stage(node, before, after))
        for v in outputs:
            space[v], strides[v] = reach.space, after
    if end not in space or end is first:
        raise LayerError(_refusal(trace, end, strange.get(end)))
    return Way(trace, end, reaches, space, strides, tuple(stages), tuple(gates))


def _refusal(trace: Trace, end: Value, node: Node | None) -> str:
    name = trace.name_of(end)
    if node is None:
        return f'"{name}" has no positions that follow those of the input, so there is nothing to make denser'
    return (
        f'"{name}" can\'t be made denser: "{node.base}" in "{node.path or "the network"}" mixes positions or moves '
        "them to another grid; choose a layer in front of it"
    )


def _reach(node: Node, space: Mapping[Value, Space]) -> Local | None:
    """The operation as a local one, with the few that a finer grid allows in addition."""
    if node.kind == "batch_norm" and argument(node, "training", False):
        return None
    found = local(node, space)
    if found is not None or len(node.inputs) != 1 or node.inputs[0] not in space:
        return found
    x = node.inputs[0]
    where = space[x]
    if where != tuple(range(2, len(x.shape))):
        return None
    if node.base in ("group_norm", "instance_norm") and _own_statistics(node):
        return Local((POINT,) * len(where), where, _never)
    if node.base == "pad" and argument(node, "mode") in ("reflect", "replicate"):
        given = list(argument(node, "pad"))
        pairs = list(zip(given[::2], given[1::2], strict=True))[::-1]
        if len(pairs) == len(where) and min(given) >= 0:
            return Local(tuple(Axis(before=low) for low, _ in pairs), where, _never)
    return None


def _own_statistics(node: Node) -> bool:
    return node.base == "group_norm" or bool(argument(node, "use_input_stats"))


def _never(windows: object, starts: object, sizes: object) -> Tensor:
    raise LayerError("this operation is not run on windows")


@torch.no_grad()
def atrous(way: Way, dropped: Collection[Node], progress: Progress) -> Grid:
    """The value at the end of the way with the strides of some operations dropped.

    Operations that mix all positions, such as the gates of squeeze-and-excitation, keep the recorded value, which is
    what they give for the places of the old grid. Where branches of different rates meet, the denser ones are thinned.
    """
    grids: dict[Value, Grid] = {}
    nodes = [node for node in way.trace.nodes if node in way.reaches]
    last = {v: node.position for node in nodes for v in node.inputs}
    progress.expect(len(nodes))
    with plainly(way.end.data.device), below_autograd():
        for node in nodes:
            if node in dropped or any(v in grids for v in node.inputs):
                _finer(node, way, node in dropped, grids)
            for v in [v for v in node.inputs if v in grids and last[v] == node.position and v is not way.end]:
                del grids[v]
            progress.advance(1, "dense maps")
    return grids.get(way.end) or _recorded(way, way.end)


def _recorded(way: Way, value: Value) -> Grid:
    space = way.space[value]
    return Grid(value.data, space, (1,) * len(space))


def _finer(node: Node, way: Way, drop: bool, grids: dict[Value, Grid]) -> None:
    """One operation on finer grids."""
    sources = [v for v in node.inputs if v in way.space]
    given = _alike([grids.get(v) or _recorded(way, v) for v in sources])
    reach, rate = way.reaches[node], given[0].rate
    steps = tuple(1 if drop else a.stride for a in reach.axes)
    out_rate = tuple(r * a.stride // t for r, a, t in zip(rate, reach.axes, steps, strict=True))
    lengths = tuple(node.output.shape[a] * r for a, r in zip(reach.space, out_rate, strict=True))
    call = _Call(node, reach, dict(zip(sources, given, strict=True)), steps, lengths, out_rate)
    made = call.run()
    for value, tensor in zip(node.outputs, made, strict=True):
        if value is not None:
            grids[value] = Grid(tensor, reach.space, out_rate)


def _alike(grids: list[Grid]) -> list[Grid]:
    """Grids thinned to one rate and cut to one length."""
    rate = tuple(gcd(*of) for of in zip(*(g.rate for g in grids), strict=True))
    thin = [
        Grid(_every(g.data, g.space, [have // want for have, want in zip(g.rate, rate, strict=True)]), g.space, rate)
        for g in grids
    ]
    lengths = [min(of) for of in zip(*(g.lengths for g in thin), strict=True)]
    return [Grid(_head(g.data, g.space, lengths), g.space, rate) for g in thin]


def _every(data: Tensor, space: Space, steps: Sequence[int]) -> Tensor:
    cutter = [slice(None)] * data.dim()
    for a, step in zip(space, steps, strict=True):
        cutter[a] = slice(None, None, step)
    return data[tuple(cutter)]


def _head(data: Tensor, space: Space, lengths: Sequence[int]) -> Tensor:
    for a, n in zip(space, lengths, strict=True):
        data = data.narrow(a, 0, min(n, data.shape[a]))
    return data


@dataclass(frozen=True, eq=False)
class _Call:
    """One operation that reads grids: output p reads the places `p t − before r + j dilation r` along each axis."""

    node: Node
    reach: Local
    grids: Mapping[Value, Grid]
    steps: Steps
    lengths: Steps  # at most so many places come out
    rate: Steps

    @property
    def x(self) -> Grid:
        return next(iter(self.grids.values()))

    @property
    def axes(self) -> tuple[Axis, ...]:
        """How it reads along each axis, counted in places of the finer grid."""
        facts = zip(self.reach.axes, self.steps, self.x.rate, strict=True)
        return tuple(Axis(a.kernel, t, a.before * r, a.dilation * r) for a, t, r in facts)

    def run(self) -> list[Tensor]:
        ways: dict[str, Callable[[], Tensor]] = {
            "convolution": self._convolution,
            "max_pool": self._max_pool,
            "average_pool": self._average_pool,
            "norm": self._norm,
        }
        if self.node.kind in ways and self.node.base not in ("layer_norm", "mean", "amax"):
            return [ways[self.node.kind]()]
        if self.node.base == "pad" and argument(self.node, "mode") in ("reflect", "replicate"):
            return [self._edge_pad()]
        return self._plain()

    def _reached(self) -> Steps:
        """How many places come out: those whose kernel begins inside what it reads, and all old ones."""
        facts = zip(self.lengths, self.x.lengths, self.axes, self.rate, strict=True)
        return tuple(min(n, max((have - 1 + a.before) // a.stride + 1, n - r + 1)) for n, have, a, r in facts)

    def _padded(self, lengths: Steps, beyond: float) -> Tensor:
        """What so many outputs read, with the padding that they see."""
        x, ends = self.x, dict[int, tuple[int, int]]()
        for place, n, have, a in zip(x.space, lengths, x.lengths, self.axes, strict=True):
            low, size = a.needed(0, n)
            ends[place] = (-low, low + size - have)
        widths = [w for place in reversed(range(x.data.dim())) for w in ends.get(place, (0, 0))]
        return F.pad(x.data, widths, value=beyond)

    def _convolution(self) -> Tensor:
        weight, bias = argument(self.node, "weight"), argument(self.node, "bias")
        operation = (F.conv1d, F.conv2d, F.conv3d)[len(self.steps) - 1]
        dilation = [a.dilation for a in self.axes]
        x = self._padded(self._reached(), 0.0)
        return operation(x, weight, bias, list(self.steps), 0, dilation, argument(self.node, "groups", 1))

    def _max_pool(self) -> Tensor:
        operation = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[len(self.steps) - 1]
        x = self._padded(self._reached(), float("-inf"))
        axes = self.axes
        return operation(x, [a.kernel for a in axes], list(self.steps), 0, [a.dilation for a in axes])

    def _average_pool(self) -> Tensor:
        """The sum of the kernel's places over their number, which is smaller at some borders."""
        lengths, given = self._reached(), argument(self.node, "divisor_override")
        found = self._padded(lengths, 0.0)
        adaptive = "adaptive" in self.node.base
        padding_counts = bool(argument(self.node, "count_include_pad", True)) and not adaptive
        for number, (place, n, a) in enumerate(zip(self.x.space, lengths, self.axes, strict=True)):
            reads = torch.arange(n, device=found.device) * a.stride
            total = found.index_select(place, reads)
            for j in range(1, a.kernel):
                total += found.index_select(place, reads + j * a.dilation)
            found = total
            if given is None:
                counts = self._counted(number, n, padding_counts).to(found)
                found = found / counts.view([-1 if d == place else 1 for d in range(found.dim())])
        return found if given is None else found / given

    def _counted(self, number: int, outputs: int, padding_counts: bool) -> Tensor:
        """How many places of the kernel count, along one axis."""
        a, x = self.axes[number], self.x
        have, before = x.lengths[number], a.before
        recorded = next(iter(self.grids)).shape[x.space[number]] * x.rate[number]
        low, high = (-before, recorded + before) if padding_counts else (0, have)
        reads = torch.arange(outputs)[:, None] * a.stride - before + torch.arange(a.kernel) * a.dilation
        return ((reads >= low) & (reads < high)).sum(1).clamp(min=1)

    def _norm(self) -> Tensor:
        """With the mean and variance of the recorded places, which are what the network normalised with."""
        node, x = self.node, self.x.data
        recorded = next(iter(self.grids)).data
        groups = argument(node, "num_groups") if node.base == "group_norm" else x.shape[1]
        old, new = (t.reshape(t.shape[0], groups, -1) for t in (recorded, x))
        mean, spread = old.mean(2, keepdim=True), old.var(2, unbiased=False, keepdim=True)
        found = ((new - mean) * torch.rsqrt(spread + argument(node, "eps"))).reshape(x.shape)
        shape = [1, -1, *[1] * (x.dim() - 2)]
        weight, bias = argument(node, "weight"), argument(node, "bias")
        found = found if weight is None else found * weight.view(shape)
        return found if bias is None else found + bias.view(shape)

    def _edge_pad(self) -> Tensor:
        """Mirrored or repeated at the outermost recorded places, not at those between them and the border."""
        x = self.x
        spans = [(value - 1) * r + 1 for value, r in zip(next(iter(self.grids)).shape[2:], x.rate, strict=True)]
        given = list(argument(self.node, "pad"))
        widths = [w * r for w, r in zip(given, [r for r in reversed(x.rate) for _ in (0, 1)], strict=True)]
        return F.pad(_head(x.data, x.space, spans), widths, mode=argument(self.node, "mode"))

    def _plain(self) -> list[Tensor]:
        """Operations that treat every place alike, and those that cut, pad or regroup."""
        lengths = self.lengths if self.node.base in ("pad", "constant_pad_nd") else self._reached()
        one = self._padded(lengths, self.reach.beyond)
        if self.node.base == "slice" and prod(a.stride for a in self.reach.axes) > 1:
            return [_every(one, self.x.space, self.steps)]
        if any(a.before for a in self.reach.axes):
            windows = {self.node.inputs[0]: one}
        else:
            windows = {v: _head(g.data, g.space, lengths) for v, g in self.grids.items()}
        windows |= {v: v.data for v in self.node.inputs if v not in windows}
        starts = [(0,) * len(lengths)] * one.shape[0]
        found = self.reach.run(windows, starts, lengths)
        return [found] if isinstance(found, Tensor) else list(found)
