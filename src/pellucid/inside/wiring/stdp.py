"""What a spike-timing rule would make of a layer's weights, tried on a copy."""

import copy
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pellucid.core.derivatives import argument
from pellucid.core.errors import LayerError, MethodError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.trace import Node, Trace, Value
from pellucid.images.datasets import Data, Pictures
from pellucid.inside.opened import Opened
from pellucid.inside.wiring.ablate import decisions
from pellucid.inside.wiring.places import CLASSES, class_of, gathered, place, recordings
from pellucid.inside.wiring.stdp_found import StdpProbe
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

MOST_SYNAPSES = 2**24  # ten numbers are kept for each


@dataclass(frozen=True)
class StdpRule:
    """The spike-timing rule and its numbers.

    Attributes:
        before, after: the causal window: a synapse grows if `−before ≤ t_post − t_pre ≤ after`.
        gain, loss: how fast synapses grow and shrink.
        peak: what the largest |W| is at the start; with 1 it would never move, since `w (1 − w)` is zero there.
    """

    before: int | float = 0.05
    after: int | float = 0.3
    gain: int | float = 0.004
    loss: int | float = 0.003
    peak: int | float = 0.5

    def __post_init__(self) -> None:
        if not 0 < self.peak <= 1 or min(self.gain, self.loss, self.before, self.after) < 0:
            raise SettingError(f"{self} came; the peak is over 0 and at most 1, the other numbers are 0 or more")


def stdp_probe(
    model: Model | nn.Module | str,
    layer: str,
    data: Data,
    *,
    rule: StdpRule | None = None,
    passes: int = 1,
    progress: Progress | bool | None = None,
) -> StdpProbe:
    """Let spike timing change the weights of a copy of one layer, and see which synapses it favours.

    In each picture a neuron fires at `t = 1 − (a − min) / (max − min)` over all neurons of its layer: the strongest
    first. Of every channel the first neuron to fire learns, from the patch that it sees:

        `Δw = +a⁺ w (1 − w)` if `−τ₁ ≤ t_post − t_pre ≤ τ₂`, else `−a⁻ w (1 − w)`, with `w = peak |W| / max |W|`.

    A channel that is silent everywhere learns nothing. Post-synaptic activations are those behind the layer's BatchNorm
    and rectifier, where these follow it at once.

    Args:
        layer: a convolution or linear layer, by its module path.
        data: a folder (with one folder a class, accuracies are told), pictures, or inputs `(n, c, ...)`.
        rule: the numbers of the rule.
        passes: how often the pictures are gone through, in their order.

    Raises:
        LayerError: no such layer, or it is neither a convolution nor linear.
        MethodError: the layer's weight is no plain parameter.
        SettingError: a setting out of range, or more than 16 million synapses.

    Source: as described in the project's first description ("BP NetToolbox"); latencies: Ferré, Mamalet & Thorpe 2018,
        doi:10.3389/fncom.2018.00024; rule: Kheradpisheh et al. 2018, arXiv:1611.01421, equation 3 (there without an
        upper end of the window).
    """
    if passes < 1:
        raise SettingError(f"passes={passes} came; give at least one")
    chosen, rule = the_model(model), rule or StdpRule()
    with watching(progress) as bar:
        data, first = gathered(chosen, data)
        node = synapses(first.trace, layer)
        W = weight_of(chosen.module, layer, node)
        if W.numel() > MOST_SYNAPSES:
            raise SettingError(
                f'layer "{layer}" has {W.numel():,} synapses; the most is {MOST_SYNAPSES:,}, so name another'
            )
        bar.expect(len(data) * (passes + 1))
        work = _Learning.of(W, rule)
        judged = _Judged()
        for number in range(passes):
            for numbers, now in recordings(data, first):
                work.batch(now.trace, layer)
                if number == 0:
                    judged.add(now, [class_of(chosen, data.labels[i]) for i in numbers])
                bar.advance(len(numbers), layer)
        updated = (W + W.sign() * (work.w - work.start) * work.scale).to(W)
        _judge_copy(first, data, layer, updated, judged, bar)
    return StdpProbe(
        chosen.name, layer, judged.count, (work.w - work.start).double().cpu().numpy(),
        work.start.double().cpu().numpy(), work.covariance().cpu().numpy(), work.causal().cpu().numpy(),
        work.fired.cpu().numpy(),
        node.kind == "convolution", int(argument(node, "groups", 1) or 1), judged.accuracy(0), judged.accuracy(1),
        judged.same(), updated.cpu(),
    )  # fmt: skip


@dataclass(eq=False)
class _Learning:
    """The synapses of the copy, and what is summed up on the way."""

    rule: StdpRule
    scale: float
    start: Tensor
    w: Tensor
    fired: Tensor
    sums: list[Tensor] = field(default_factory=list)

    @classmethod
    def of(cls, W: Float[Tensor, "out *rest"], rule: StdpRule) -> "_Learning":
        most = float(W.abs().max()) or 1.0
        start = W.abs().double() / most * rule.peak
        zero = torch.zeros_like(start)
        fired = torch.zeros(len(W), dtype=torch.int64, device=W.device)
        return cls(rule, most / rule.peak, start, start.clone(), fired, [zero.clone() for _ in range(3)] + [
            torch.zeros(len(W), dtype=torch.float64, device=W.device)
        ])  # fmt: skip

    def batch(self, trace: Trace, layer: str) -> None:
        """Every picture of a recording, one after the other."""
        node = synapses(trace, layer)
        before, behind = node.inputs[0].data, fires_at(trace, node).data
        for x, a in zip(before, behind, strict=True):
            t_pre, t_post, wins = patches(node, x.double(), a.double())
            self.learn(t_pre, t_post, wins)

    def learn(
        self, t_pre: Float[Tensor, "out *rest"], t_post: Float[Tensor, " out"], wins: Bool[Tensor, " out"]
    ) -> None:
        """One picture: what each winner saw and when, its own time, and which channels fired at all."""
        shape = (-1, *[1] * (t_pre.dim() - 1))
        lag = t_post.view(shape) - t_pre
        causal = (lag >= -self.rule.before) & (lag <= self.rule.after)
        room = self.w * (1 - self.w)
        step = torch.where(causal, self.rule.gain * room, -self.rule.loss * room)
        fires = wins.view(shape)
        self.w = self.w + torch.where(fires, step, 0.0)
        pre, post = torch.where(fires, 1 - t_pre, 0.0), torch.where(wins, 1 - t_post, 0.0)
        self.fired += wins
        self.sums[0] += pre
        self.sums[1] += pre * post.view(shape)
        self.sums[2] += causal & fires
        self.sums[3] += post

    def causal(self) -> Float[Tensor, "out *rest"]:
        """In what part of the pictures in which its channel fired each synapse grew; NaN where it never did."""
        n = self.fired.double().view(-1, *[1] * (self.w.dim() - 1))
        return self.sums[2] / torch.where(n > 0, n, torch.nan)

    def covariance(self) -> Float[Tensor, "out *rest"]:
        """Of the strengths `1 − t` before and behind each synapse, over the pictures in which its channel fired."""
        shape = (-1, *[1] * (self.w.dim() - 1))
        n = self.fired.clamp(min=1).double().view(shape)
        return self.sums[1] / n - self.sums[0] / n * (self.sums[3].view(shape) / n)


@dataclass(eq=False)
class _Judged:
    """Decisions before and after, and the classes by label."""

    before: list[int] = field(default_factory=list)
    after: list[int] = field(default_factory=list)
    labels: list[int | None] = field(default_factory=list)

    @property
    def count(self) -> int:
        return len(self.before)

    def add(self, now: Opened, labels: Sequence[int | None]) -> None:
        self.before += _decided(now)
        self.labels += labels

    def accuracy(self, which: int) -> float | None:
        said = self.after if which else self.before
        known = [(s, label) for s, label in zip(said, self.labels, strict=True) if label is not None]
        return sum(s == label for s, label in known) / len(known) if known else None

    def same(self) -> float:
        return sum(a == b for a, b in zip(self.before, self.after, strict=True)) / max(1, len(self.before))


def _decided(now: Opened) -> list[int]:
    classes = place(now.trace, CLASSES)
    return decisions(classes.means(classes.value.data)).tolist()


def _judge_copy(first: Opened, data: Pictures, layer: str, W: Tensor, judged: _Judged, bar: Progress) -> None:
    """The decisions of a copy of the network with other weights in one layer."""
    other = copy.deepcopy(first.model.module)
    with torch.no_grad():
        weight = other.get_submodule(layer.partition("#")[0]).get_parameter("weight")
        weight.copy_(W.to(weight))
    for numbers, now in recordings(data, replace(first, model=replace(first.model, module=other))):
        judged.after += _decided(now)
        bar.advance(len(numbers), "the copy")


def synapses(trace: Trace, layer: str) -> Node:
    """The convolution or linear operation of a layer.

    Raises:
        LayerError: no such layer, or it is something else.
    """
    trace.at(layer)
    path, _, number = layer.partition("#")
    found = [n for n in trace.nodes if n.path == path and n.kind in ("convolution", "linear") and _plain(n)]
    which = int(number) if number else -1
    if not -len(found) <= which < len(found):
        raise LayerError(
            f'layer "{path}" is {trace.kinds.get(path, "no module")}; name a convolution or a linear layer'
        )
    return found[which]


def _plain(node: Node) -> bool:
    """One input, a weight that is no computed one, and no transposition."""
    weight = argument(node, "weight")
    turned = "transpose" in node.base or bool(argument(node, "transposed", False))
    return isinstance(weight, Tensor) and len(node.inputs) == 1 and node.args[0] is node.inputs[0] and not turned


def weight_of(module: nn.Module, layer: str, node: Node) -> Tensor:
    """The layer's weight.

    Raises:
        MethodError: it is no plain parameter of the module.
    """
    part, used = module.get_submodule(layer.partition("#")[0]), argument(node, "weight")
    weight = part._parameters.get("weight")
    if weight is None or weight.shape != used.shape or not torch.equal(weight, used):
        raise MethodError(
            f'the weight of layer "{layer}" is computed from other parameters, so a copy can\'t simply be given another'
        )
    return weight.detach().clone()


def fires_at(trace: Trace, node: Node) -> Value:
    """Where a layer's neurons fire: behind the BatchNorm and the rectifier that alone read it, one after the other."""
    value = node.output
    while True:
        readers = [n for n in trace.nodes if value in n.inputs]
        if len(readers) != 1 or readers[0].kind not in ("batch_norm", "rectifier"):
            return value
        if readers[0].output.shape != value.shape or len(readers[0].inputs) != 1:
            return value
        value = readers[0].output
        if readers[0].kind == "rectifier":
            return value


def latency(a: Tensor) -> Tensor:
    """`t = 1 − (a − min) / (max − min)`: the strongest fires at 0; at 1 where nothing differs."""
    low, high = a.min(), a.max()
    return 1 - (a - low) / (high - low) if high > low else torch.ones_like(a)


def patches(
    node: Node, x: Float[Tensor, "..."], a: Float[Tensor, "..."]
) -> tuple[Float[Tensor, "out *rest"], Float[Tensor, " out"], Bool[Tensor, " out"]]:
    """For the first neuron of each channel to fire: when its inputs fire, when it does, and whether it does."""
    t_pre, t_post = latency(x), latency(a)
    if node.kind == "linear":
        t_pre, t_post = t_pre.reshape(-1, x.shape[-1]), t_post.reshape(-1, a.shape[-1])
        times, where = t_post.min(0)
        return t_pre[where], times, times < 1
    times, where = t_post.flatten(1).min(1)
    weight = argument(node, "weight")
    axes = weight.dim() - 2
    stride, dilation = (_each(argument(node, name, 1), axes) for name in ("stride", "dilation"))
    pads = _pads(argument(node, "padding", 0), weight.shape[2:], dilation)
    silent = float(1 - (0 - x.min()) / (x.max() - x.min())) if x.max() > x.min() else 1.0
    wide = nn.functional.pad(t_pre, [n for pair in reversed(pads) for n in pair], value=silent)
    index = [_channels(weight, int(argument(node, "groups", 1) or 1), axes)]
    for axis, (at, size) in enumerate(zip(torch.unravel_index(where, a.shape[1:]), weight.shape[2:], strict=True)):
        cells = at[:, None] * stride[axis] + torch.arange(size, device=a.device) * dilation[axis]
        index.append(cells.view(len(cells), 1, *[size if other == axis else 1 for other in range(axes)]))
    return wide[tuple(index)], times, times < 1


def _channels(weight: Tensor, groups: int, axes: int) -> Int64[Tensor, "out per *ones"]:
    """The input channels that each output channel reads."""
    out, per = weight.shape[:2]
    group = torch.arange(out, device=weight.device) // (out // groups)
    found = group[:, None] * per + torch.arange(per, device=weight.device)
    return found.view(out, per, *[1] * axes)


def _each(value: int | Sequence[int], axes: int) -> list[int]:
    values = [value] if isinstance(value, int) else list(value)
    return values * axes if len(values) == 1 else values


def _pads(padding: int | str | Sequence[int], sizes: Sequence[int], dilation: Sequence[int]) -> list[tuple[int, int]]:
    """Cells before and behind, along each axis."""
    if isinstance(padding, str):
        wide = [d * (k - 1) if padding == "same" else 0 for k, d in zip(sizes, dilation, strict=True)]
        return [(n // 2, n - n // 2) for n in wide]
    return [(n, n) for n in _each(padding, len(sizes))]
