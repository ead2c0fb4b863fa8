"""VisualBackProp: rectified feature maps, averaged over channels, multiplied all the way back to the input (A13)."""

from dataclasses import dataclass, field
from math import prod

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.derivatives import argument
from pellucid.core.errors import MethodError
from pellucid.core.layers import ancestors
from pellucid.core.local import Local, Space, local
from pellucid.core.target import class_scores
from pellucid.core.trace import Node, Trace, Value
from pellucid.core.windows import Axis
from pellucid.methods.case import Case
from pellucid.methods.gradients import SMOOTH
from pellucid.methods.registry import Verdict, method

NONE = (
    "VisualBackProp multiplies rectified feature maps, and no rectifier with more than one position leads to what is "
    "explained; use eigen_cam, which needs no rectifier"
)


def _chain_doctor(trace: Trace) -> Verdict:
    way = _Way(trace, class_scores(trace))
    way.walk()
    if not way.maps:
        return Verdict("impossible", NONE)
    words = way.approximate()
    if words:
        return Verdict("approximate", "; ".join(words))
    return Verdict("exact", f"a chain with {way.maps} rectified feature maps")


@method(
    "visual_backprop",
    title="VisualBackProp",
    site="input",
    signed=False,
    reduce="none",
    units="share of the largest value",
    source="Bojarski et al. 2016, arXiv:1611.05418, section III",
    misleads="when it is read as evidence: it knows no class, and shows what is prominent in every layer at once",
    doctor=_chain_doctor,
)
def visual_backprop(case: Case) -> Float[Tensor, "b *space"]:
    """`V_l = mean_k A_l,k ⊙ up(V_{l+1})`, from the deepest rectified feature maps back to the input.

    `up` is the transposed convolution of the operations in between with all weights one: a position hands its value to
    each position that it was computed from. At the end each image is divided by its largest value.

    The paper defines a chain. On other graphs every way back is followed: a sum or a product hands the whole map to
    both sides, a concatenation hands each part its share of the channels (so that two halves of a layer give the map of
    the whole), and what comes back over several ways is added. Gates without positions (squeeze and excitation) get
    nothing. Of smooth rectifiers the positive part is averaged.

    Raises:
        MethodError: no rectifier with positions leads to the target.
    """
    way = _Way(case.trace, case.target.value(case.trace))
    found = way.walk()
    if not way.maps:
        raise MethodError(NONE)
    case.approximate += way.approximate()
    largest = found.flatten(1).amax(1).clamp(min=torch.finfo(found.dtype).tiny)
    return (found / largest.view(-1, *[1] * (found.dim() - 1))).to(case.x)


@dataclass(eq=False)
class _Way:
    """The way back from one value to the input; `walk` takes down what it meets.

    Attributes:
        maps: how many rectified feature maps were multiplied.
        smooth, vague, lost: operations that are no plain rectifiers, whose geometry is only roughly known, and behind
            which the input's positions can't be followed.
        branched: whether some map came back over more than one way.
    """

    trace: Trace
    end: Value
    maps: int = 0
    smooth: set[str] = field(default_factory=set)
    vague: set[str] = field(default_factory=set)
    lost: set[str] = field(default_factory=set)
    branched: bool = False

    def __post_init__(self) -> None:
        self.leading = ancestors(self.trace, self.end)
        self.reaches: dict[int, Local | None] = {}
        self.space = self._places()
        self.arriving: dict[Value, Tensor] = {}

    def _places(self) -> dict[Value, Space]:
        """The spatial axes of every value that has positions of the input."""
        x = self.trace.inputs[0]
        axes = tuple(range(2, len(x.shape)))
        found, depends = {x: axes} if axes else {}, {x}
        for node in self.trace.nodes:
            outs = [v for v in node.outputs if v is not None]
            if outs and not depends.isdisjoint(node.inputs):
                reach = self.reaches[node.position] = local(node, found)
                depends.update(outs)
                found.update({v: space for v in outs if (space := self._space_of(v, reach, axes))})
        return found

    def _space_of(self, value: Value, reach: Local | None, axes: Space) -> Space:
        if reach is None and (len(value.shape) != len(axes) + 2 or value.shape[0] != self.trace.batch):
            return ()
        space = axes if reach is None else reach.space
        return space if prod(value.shape[a] for a in space) > 1 else ()

    def walk(self) -> Float[Tensor, "b *space"]:
        """The product of all maps at the input, in double precision; zero where nothing comes back."""
        for node in reversed(self.trace.nodes):
            for value in node.outputs:
                if value is not None and value in self.space and value in self.leading:
                    self._step(node, value)
        x = self.trace.inputs[0].data
        nothing = torch.zeros(len(x), *x.shape[2:], dtype=torch.float64, device=x.device)
        return self.arriving.get(self.trace.inputs[0], nothing)

    def _step(self, node: Node, value: Value) -> None:
        came = self.arriving.pop(value, None)
        if node.kind == "rectifier":
            mean = _mean(value, self.space[value])
            came = mean if came is None else came * mean
            self.maps += 1
            self.smooth |= {node.base} & SMOOTH
        if came is None:
            return
        sources = [node.inputs[node.gate[1]]] if node.gate else node.inputs
        sources = [v for v in sources if v in self.space and v.differentiable]
        if not sources:
            self.lost.add(node.base)
        for source in sources:
            self._send(node, value, source, came)

    def _send(self, node: Node, value: Value, source: Value, came: Tensor) -> None:
        reach = self.reaches.get(node.position)
        for axis, (a, b) in enumerate(zip(self.space[value], self.space[source], strict=True)):
            lengths = value.shape[a], source.shape[b]
            reads = self._reads(node, axis, lengths, reach).to(came)
            came = (came.movedim(1 + axis, -1) @ reads).movedim(-1, 1 + axis)
        if node.base == "cat":
            dim = argument(node, "dim", 0)
            came = came * (source.shape[dim] / value.shape[dim])
        self.branched |= source in self.arriving
        self.arriving[source] = self.arriving[source] + came if source in self.arriving else came

    def _reads(self, node: Node, axis: int, lengths: tuple[int, int], reach: Local | None) -> Float[Tensor, "out in"]:
        """Which positions of the input each position of the output reads, as ones, along one axis."""
        if reach is not None:
            return _window(reach.axes[axis], *lengths)
        if node.kind == "convolution":
            return _window(_transposed(node, axis), lengths[1], lengths[0]).T
        whole = node.base.startswith("upsample_nearest") and lengths[0] % lengths[1] == 0
        if lengths[0] != lengths[1] and not whole and "adaptive" not in node.base:
            self.vague.add(node.base)
        return _shared(*lengths)

    def approximate(self) -> list[str]:
        """Where this goes beyond the paper, in words."""
        words = []
        if self.branched:
            words.append("the paper defines chains; what comes back over several branches is added")
        if self.smooth:
            words.append(f"{', '.join(sorted(self.smooth))}: the paper averages ReLU maps, here the positive part")
        if self.vague:
            words.append(f"{', '.join(sorted(self.vague))}: maps are resized there by the ratio of the sizes")
        if self.lost:
            words.append(f"positions can't be followed behind {', '.join(sorted(self.lost))}; that way is left out")
        return words


def _mean(value: Value, space: Space) -> Float[Tensor, "b *space"]:
    """The positive part of a feature map, averaged over everything but images and positions."""
    rest = [a for a in range(1, len(value.shape)) if a not in space]
    maps = value.data.clamp(min=0).double().permute(0, *space, *rest)
    return maps.flatten(1 + len(space)).mean(-1) if rest else maps


def _window(axis: Axis, outputs: int, inputs: int) -> Float[Tensor, "out in"]:
    """Ones where output o reads input `o · stride − before + j · dilation`."""
    at = torch.arange(outputs)[:, None] * axis.stride - axis.before + torch.arange(axis.kernel) * axis.dilation
    return (at[:, :, None] == torch.arange(inputs)).any(1).double()


def _transposed(node: Node, axis: int) -> Axis:
    """Where one input of a transposed convolution writes to."""

    def one(name: str, default: int) -> int:
        given = argument(node, name, default)
        return given if isinstance(given, int) else given[axis if len(given) > 1 else 0]

    weight = argument(node, "weight")
    return Axis(weight.shape[2 + axis], one("stride", 1), one("padding", 0), one("dilation", 1))


def _shared(outputs: int, inputs: int) -> Float[Tensor, "out in"]:
    """Ones where an output's part of the axis meets an input's, as in adaptive pooling and nearest enlargement."""
    at, whole = torch.arange(outputs)[:, None], torch.arange(inputs)
    return ((whole * outputs < (at + 1) * inputs) & ((whole + 1) * outputs > at * inputs)).double()
