"""Run a recording forwards again for many edits at once, computing only what the edits can reach.

Each value is in one of three states: as recorded, changed inside a window (`Patch`), or changed as a whole. A local
operation turns windows into windows; any other operation, and a local one whose windows have grown to nearly the whole
value, is run on whole values.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.edits import Box, Edits, OfChannels
from pellucid.core.errors import TraceError
from pellucid.core.layers import between
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.local import Local, convolved, local, spaces
from pellucid.core.storages import ReadView
from pellucid.core.thin import Thin, thinly
from pellucid.core.trace import Node, Trace, Value, below_autograd, plainly
from pellucid.core.windows import Patch, Sizes, Starts, cut, fitted

NEARLY_WHOLE = 0.8
RESHAPES = frozenset("view _unsafe_view reshape expand".split())
State = dict[Value, Tensor | Patch | Thin]


class CannotRerunError(TraceError):
    """The recording can't be run with another number of images than it was made with."""


@dataclass(eq=False)
class Step:
    """One or two operations of the recording, ready to run on another number of images.

    Attributes:
        node: the operation; `output` is what it gives out, or what the BatchNorm merged into it does.
        local: how to run it on windows, if it is local.
        whole: how to run it on whole values.
        dying: inputs that nobody reads afterwards.
        cost: multiplications of one image, about.
    """

    node: Node
    outputs: list[Value | None]
    local: Local | None
    whole: Callable[[Mapping[Value, Tensor], int], Any]
    dying: list[Value]
    cost: float

    @property
    def output(self) -> Value:
        """The first output."""
        return next(v for v in self.outputs if v is not None)


class Rerun:
    """A recording from one value to another, ready for edits of the first.

    Args:
        source: the value that is edited: the input, or a layer.
        end: the value that is wanted.
        row: the image of the recording whose values surround the edits.
        half: convolutions and linear layers in bfloat16 (approximate).

    Raises:
        CannotRerunError: an operation on the way loses sight of which image is which, or the network reads numbers
            off its values.
    """

    def __init__(self, trace: Trace, source: Value, end: Value, row: int = 0, *, half: bool = False) -> None:
        if trace.reads:
            raise CannotRerunError(f"{trace.reads[0]} reads numbers off the picture, and may go another way for others")
        self.source, self.end, self.row, self.half = source, end, row, half
        self.device, self.batch, self.axes = trace.scores.device, trace.batch, layout(trace)
        self.space = spaces(trace, source)
        self._bases: dict[Value, Tensor] = {}
        self.steps = self._prepared([trace.nodes[i] for i in between(trace, source, end)])

    def __call__(self, edits: Edits, which: Sequence[int], *, windowed: bool) -> Tensor:
        """The wanted value under some edits, `(n, ...)`.

        Args:
            which: numbers of the edits, all of the image `row`.
            windowed: follow boxes where that is possible; otherwise whole values from the start.
        """
        with plainly(self.device), below_autograd():
            state: State = {self.source: self._first(edits, which) if windowed else edits.inputs(which)}
            for step in self.steps:
                self._run(step, state, len(which))
                for value in step.dying:
                    state.pop(value, None)
            return self._whole(self.end, state, len(which))

    # ---------------------------------------------------------------------------------------------------- preparation

    def _prepared(self, nodes: list[Node]) -> list[Step]:
        readers = _readers(nodes)
        steps, merged = [], set[Node]()
        for node in nodes:
            if node in merged:
                continue
            found = local(node, self.space)
            _check_batch(node, self.axes)
            behind = _batch_norm_behind(node, readers) if found is not None or node.kind == "convolution" else None
            if behind is not None:
                merged.add(behind)
            steps.append(self._step(node, behind, found))
        for number, step in enumerate(steps):
            later = {v for other in steps[number + 1 :] for v in other.node.inputs}
            step.dying = [
                v for v in {*step.node.inputs, *(o for o in step.outputs if o)} if v not in later and v is not self.end
            ]
        return steps

    def _step(self, node: Node, behind: Node | None, found: Local | None) -> Step:
        cost, batch = _cost(node), self.batch
        if node.kind == "convolution" and isinstance(argument(node, "weight"), Tensor) and "transpose" not in node.base:
            return self._convolution(node, behind, found, cost)
        return Step(node, node.outputs, found, lambda values, n: _run_whole(node, values, n, batch), [], cost)

    def _convolution(self, node: Node, behind: Node | None, found: Local | None, cost: float) -> Step:
        weight, bias = _merged(node, behind)
        x, outputs, given = node.inputs[0], node.outputs if behind is None else behind.outputs, weight.dtype
        if self.half:
            weight, bias = weight.bfloat16(), None if bias is None else bias.bfloat16()
        weight = weight.contiguous(memory_format=_format(weight))
        windowed, whole = convolved(node, weight, bias), convolved(node, weight, bias, padded=True)
        if self.half:
            windowed, whole = _in_half(windowed, given), _in_half(whole, given)
        if found is not None:
            found = Local(found.axes, found.space, lambda windows, starts, sizes: windowed(windows[x]), found.beyond)
        return Step(node, outputs, found, lambda values, n: whole(values[x]), [], cost)

    def reach(self, box: Box | None) -> tuple[float, int]:
        """What an edit of a box takes: its part of all multiplications, and the most bytes of one step.

        Args:
            box: None for an edit of the whole source.
        """
        boxes: dict[Value, Box | None] = {self.source: box if self.source in self.space else None}
        made, most = 0.0, 0.0
        for step in self.steps:
            changed = [boxes[v] for v in step.node.inputs if v in boxes]
            found = None if step.local is None or None in changed else _hull(step.local, changed, step)
            reached, part = found or (None, 1.0)
            made += step.cost * part
            bytes_read = sum(prod(v.shape) for v in step.node.inputs) + prod(step.output.shape)
            most = max(most, bytes_read * part * step.output.dtype.itemsize / self.batch)
            boxes.update({v: reached for v in step.outputs if v is not None})
        return made / max(sum(step.cost for step in self.steps), 1.0), int(2 * most)

    # -------------------------------------------------------------------------------------------------------- running

    def _first(self, edits: Edits, which: Sequence[int]) -> Patch | Thin | Tensor:
        if isinstance(edits, OfChannels) and self.axes.get(self.source, UNKNOWN).channel == 1:
            return Thin([edits.channels[i] for i in which], edits.channel(which)[:, None])
        space = self.space.get(self.source)
        if edits.boxes is None or space is None:
            return edits.inputs(which)
        boxes = [edits.boxes[i] for i in which]
        lows, highs = ([tuple(axis[end] for axis in box) for box in boxes] for end in (0, 1))
        starts, sizes = fitted(lows, highs, tuple(self.source.shape[a] for a in space))
        data = cut(self._base(self.source), None, space, starts, sizes)
        for number, (i, low, start) in enumerate(zip(which, lows, starts, strict=True)):
            inside = edits.inside(i)
            place = tuple(slice(a - s, a - s + n) for a, s, n in zip(low, start, inside.shape[1:], strict=True))
            data[(number, slice(None), *place)] = inside
        return Patch(starts, sizes, data)

    def _run(self, step: Step, state: State, n: int) -> None:
        changed = [v for v in step.node.inputs if v in state]
        if not changed:
            return
        thin = state[changed[0]]
        out = thinly(step.node, thin, self._base) if isinstance(thin, Thin) and len(set(changed)) == 1 else None
        if out is not None:
            state[step.output] = out
            return
        patches = {v: p for v in changed if isinstance(p := state[v], Patch)}
        if (
            step.local is not None
            and len(patches) == len(set(changed))
            and self._windowed(step, step.local, patches, state)
        ):
            return
        values = {v: self._whole(v, state, n) for v in step.node.inputs}
        out = step.whole(values, n)
        for value, tensor in zip(step.outputs, [out] if isinstance(out, Tensor) else list(out), strict=False):
            if value is not None and isinstance(tensor, Tensor):
                state[value] = tensor

    def _windowed(self, step: Step, found: Local, patches: Mapping[Value, Patch], state: State) -> bool:
        """Run an operation on windows; False where they have grown too large for that to pay."""
        lengths = tuple(step.output.shape[a] for a in found.space)
        changed = [(p.starts, p.sizes) for p in patches.values()]
        starts, sizes = fitted(*_reached(found, changed, lengths), lengths)
        if prod(sizes) >= NEARLY_WHOLE * prod(lengths):
            return False
        needed = [[axis.needed(s, n) for axis, s, n in zip(found.axes, start, sizes, strict=True)] for start in starts]
        read_at, read = [tuple(low for low, _ in one) for one in needed], tuple(size for _, size in needed[0])
        windows = {}
        for value in step.node.inputs:
            space, patch = self.space.get(value), patches.get(value)
            if patch is not None and patch.sizes == read and patch.starts == read_at:
                windows[value] = patch.data  # what was recorded around it is not read, so it need not be laid out
                continue
            base = self._base(value)
            windows[value] = base if space is None else cut(base, patch, space, read_at, read, found.beyond)
        out = found.run(windows, starts, sizes)
        for value, tensor in zip(step.outputs, [out] if isinstance(out, Tensor) else list(out), strict=False):
            if value is not None and isinstance(tensor, Tensor):
                state[value] = Patch(starts, sizes, tensor)
        return True

    def _whole(self, value: Value, state: State, n: int) -> Tensor:
        """A value under every edit, whole; as recorded, and repeated, where no edit changed it."""
        found = state.get(value)
        if isinstance(found, Tensor):
            return found
        base = self._base(value)
        if found is None:
            return base.expand(n, *base.shape[1:]) if self.axes.get(value, UNKNOWN).batch == 0 else base
        if isinstance(found, Thin):
            return found.whole(base)
        space = self.space[value]
        lengths = tuple(value.shape[a] for a in space)
        whole = cut(base, found, space, [(0,) * len(space)] * n, lengths)
        if value not in (self.end, self.source):
            state[value] = whole
        return whole

    def _base(self, value: Value) -> Tensor:
        """The recorded value of this image, laid out as convolutions like it; a constant as it is."""
        if self.axes.get(value, UNKNOWN).batch != 0:
            return value.data
        if value not in self._bases:
            data = value.data[self.row : self.row + 1]
            self._bases[value] = data.contiguous(memory_format=_format(data)) if value in self.space else data
        return self._bases[value]


def _hull(found: Local, boxes: Sequence[Any], step: Step) -> tuple[Box, float] | None:
    """The box that boxes change in the output, and its part of the whole; None where it is nearly all of it."""
    lengths = tuple(step.output.shape[a] for a in found.space)
    ends = [([tuple(a for a, _ in box)], tuple(b - a for a, b in box)) for box in boxes]
    starts, sizes = fitted(*_reached(found, ends, lengths), lengths)
    part = prod(sizes) / prod(lengths)
    return None if part >= NEARLY_WHOLE else (tuple((s, s + n) for s, n in zip(starts[0], sizes, strict=True)), part)


def _reached(found: Local, windows: Sequence[tuple[Starts, Sizes]], lengths: Sizes) -> tuple[Starts, Starts]:
    """The box around everything that changed windows change in the output, per edit."""
    lows: list[list[int]] = []
    highs: list[list[int]] = []
    for starts, sizes in windows:
        for number, start in enumerate(starts):
            reach = [
                axis.reached(s, s + n, length)
                for axis, s, n, length in zip(found.axes, start, sizes, lengths, strict=True)
            ]
            if number == len(lows):
                lows.append([low for low, _ in reach])
                highs.append([high for _, high in reach])
            else:
                lows[number] = [min(a, low) for a, (low, _) in zip(lows[number], reach, strict=True)]
                highs[number] = [max(a, high) for a, (_, high) in zip(highs[number], reach, strict=True)]
    return [tuple(low) for low in lows], [tuple(high) for high in highs]


def _in_half(run: Callable[[Tensor], Tensor], back: torch.dtype) -> Callable[[Tensor], Tensor]:
    """A convolution whose weight is in bfloat16, between values of another precision."""
    return lambda x: run(x.bfloat16()).to(back)


def _readers(nodes: list[Node]) -> dict[Value, list[Node]]:
    found: dict[Value, list[Node]] = {}
    for node in nodes:
        for value in node.inputs:
            found.setdefault(value, []).append(node)
    return found


def _check_batch(node: Node, axes: Mapping[Value, Any]) -> None:
    for value in (*node.inputs, *(v for v in node.outputs if v is not None)):
        if value in axes and axes[value].batch != 0:
            raise CannotRerunError(f"{node.name} in {node.path or 'the network'} does not keep images apart")
    if isinstance(node.op, ReadView) or node.name == "write":
        raise CannotRerunError(f"{node.path or 'the network'} writes into parts of a tensor")


def _batch_norm_behind(node: Node, readers: Mapping[Value, list[Node]]) -> Node | None:
    """The BatchNorm that alone reads a convolution's output."""
    if node.kind != "convolution" or "transpose" in node.base or argument(node, "transposed", False):
        return None
    behind = readers.get(node.output, [])
    single = len(behind) == 1 and behind[0].kind == "batch_norm" and behind[0].inputs == [node.output]
    return behind[0] if single and len(behind[0].output.shape) == len(node.output.shape) else None


def _merged(node: Node, behind: Node | None) -> tuple[Tensor, Tensor | None]:
    """Weight and bias of a convolution with the BatchNorm behind it merged in, worked out in float64."""
    weight, bias = argument(node, "weight"), argument(node, "bias")
    if behind is None:
        return weight, bias
    mean, variance = argument(behind, "running_mean").double(), argument(behind, "running_var").double()
    scale = (variance + argument(behind, "eps")).rsqrt()
    gamma, beta = argument(behind, "weight"), argument(behind, "bias")
    scale = scale if gamma is None else scale * gamma.double()
    shift = (0 if bias is None else bias.double()) - mean
    shift = shift * scale + (0 if beta is None else beta.double())
    return (weight.double() * scale.view(-1, *[1] * (weight.dim() - 1))).to(weight), shift.to(weight)


def _format(tensor: Tensor) -> torch.memory_format:
    """The memory layout in which convolutions are fastest: channels last, but not in float64."""
    known = {4: torch.channels_last, 5: torch.channels_last_3d} if tensor.dtype is not torch.float64 else {}
    return known.get(tensor.dim(), torch.contiguous_format)


def _cost(node: Node) -> float:
    """Multiplications that an operation takes, about; memory traffic counted as a few each."""
    size = float(prod(node.output.shape))
    weight = argument(node, "weight") if node.kind in ("convolution", "linear") and node.base != "addmm" else None
    if node.kind == "convolution" and isinstance(weight, Tensor):
        return size * prod(weight.shape[1:])
    if node.kind == "linear":
        return size * node.inputs[0].shape[-1]
    return 4 * size


def _run_whole(node: Node, values: Mapping[Value, Tensor], n: int, batch: int) -> Any:
    """An operation on n images in place of those it was recorded with."""
    if node.base in RESHAPES:
        sizes = list(node.args[1])
        if sizes[0] == batch:
            sizes[0] = n
        elif sizes[0] != -1:
            raise CannotRerunError(f"{node.name} in {node.path or 'the network'} does not keep images apart")
        x = values[node.args[0]]
        return x.expand(sizes) if node.base == "expand" else x.reshape(sizes)
    if "adaptive_avg_pool" in node.base and node.inputs[0].shape == node.output.shape:
        return values[node.inputs[0]]  # every cell is its own mean
    return node.run(values)
