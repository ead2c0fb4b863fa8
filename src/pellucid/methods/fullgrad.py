"""FullGrad: the input's share and every bias's share of the score."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.operations import KINDS
from pellucid.core.pull import Rules, Walk
from pellucid.core.receipt import Check
from pellucid.core.target import Target
from pellucid.core.trace import Node, Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.gradients import SMOOTH
from pellucid.methods.registry import Verdict, method

CLOSED = 1e-3
HOMOGENEOUS = frozenset({"view", "average_pool", "max_pool", "dropout"})
IN_PLACE = frozenset({"rectifier", "squash", "clamp", "scale", "sum", "norm"})
BIASED = frozenset({"batch_norm", "linear"}) | KINDS["convolution"]
ROUNDING = 16.0
INPUT, TARGET = "input", "target"


def _doctor(trace: Trace) -> Verdict:
    kinds = ("squash", "softmax", "norm", "product")
    bent = sorted({n.base for n in trace.nodes if n.kind in kinds or (n.kind == "rectifier" and n.base in SMOOTH)})
    if bent:
        return Verdict(
            "approximate", f"{', '.join(bent)} are not piecewise linear; their share is taken as an implicit bias"
        )
    return Verdict("exact", "input share plus bias shares are the score")


@method(
    "fullgrad",
    title="FullGrad",
    site="input",
    signed=False,
    reduce="none",
    units="rescaled shares, no unit",
    source="Srinivas & Fleuret 2019, arXiv:1905.00780",
    misleads="when channels differ in weight: each is rescaled before the sum, so tiny shares count like large ones",
    doctor=_doctor,
)
def fullgrad(case: Case) -> Float[Tensor, "b *space"]:
    """`M = Σ_colours ψ(x ⊙ ∇_x S) + Σ_layers Σ_channels ψ(f^b_c)`, `ψ = upsample(rescale(|·|))`.

    `f^b = b ⊙ ∂S/∂b` is the bias share at each position. Each channel is rescaled to 0..1 by itself, as the
    paper's sum says (the authors' code rescales a layer's channels together); colours are treated like channels,
    which the paper leaves open. BatchNorm's shift and whatever a smooth operation adds to its local
    linear part count as biases (the paper's implicit biases); shares without positions or with unknown axes are
    left out of the map but not of the receipt's completeness, `S = x·∇S + Σ f^b`.
    """
    found = _collected(case.trace, case.target)
    _completeness(case, sum(found.totals.values(), torch.zeros_like(case.score()).double()))
    return found.heat


def layer_shares(trace: Trace, target: Target) -> dict[str, Float[Tensor, "b"]]:
    """The input's share of the score, and the share that the biases of each layer add: `S = x·∇S + Σ_layers b·∂S/∂b`.

    BatchNorm's shift `β − μγ/σ`, and what a smooth operation adds to its local linear part, count as biases of the
    layer in which they happen; the sum over all shares is the score.

    Args:
        trace: a recording of b images.
        target: the score that is taken apart.

    Returns:
        For each name a share of each image, in units of the score and double precision: `"input"` (`"input#1"` for a
        second input), the module path of each layer that adds something (`""` for the network's own forward, all
        calls of a layer together), and `"target"` where the score is no linear function of what it is read from. A
        module that is itself called `input` or `target` has ` (layer)` behind its name.

    Example:
        >>> from pellucid.core.record import record
        >>> from pellucid.core.target import logit
        >>> net = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(4, 2)).eval()
        >>> shares = layer_shares(record(net, torch.ones(3, 1, 2, 2)), logit(1))
        >>> list(shares), torch.allclose(shares["1"].float(), net[1].bias[1].detach())
        (['input', '1'], True)

    Source: Srinivas & Fleuret 2019, arXiv:1905.00780, proposition 1 and section 3.1.
    """
    found = _collected(trace, target).totals
    inputs = [_of_input(number) for number in range(len(trace.inputs))]
    order = dict.fromkeys([*inputs, *map(_of_layer, trace.layers), "", *found])
    return {name: found[name] for name in order if name in found and (name == INPUT or bool(found[name].any()))}


def _of_input(number: int) -> str:
    return f"{INPUT}#{number}" if number else INPUT


def _of_layer(path: str) -> str:
    return f"{path} (layer)" if path in (INPUT, TARGET) else path


def _collected(trace: Trace, target: Target) -> "_Shares":
    """The shares of all images; image by image where the axes of a batch get lost on the way."""
    places = layout(trace)
    used = (v for node in trace.nodes for v in (*node.inputs, *node.outputs) if v is not None and v.differentiable)
    known = all(places.get(v, UNKNOWN).batch is not None for v in used)
    parts = [None] if known or trace.batch == 1 else list(range(trace.batch))
    found = _walked(trace, target, parts[0])
    for only in parts[1:]:
        found.join(_walked(trace, target, only))
    score = target.score(trace)
    found.put(TARGET, _beyond_rounding(score, [found.seeded.to(score)]).double())
    return found


def _walked(trace: Trace, target: Target, only: int | None) -> "_Shares":
    """One walk that collects the shares of all images, or of one."""
    found = _Shares(trace, target, only)
    walk = Walk(trace, found.seeds(), Rules("fullgrad", default=found.rule))
    found.add(INPUT, trace.inputs[0].data * walk.input(), trace.inputs[0])
    for number, other in list(enumerate(trace.inputs))[1:]:
        if other.differentiable:
            found.put(_of_input(number), found.numbers(other.data * walk.input(number), other))
    return found


@dataclass(eq=False)
class _Shares:
    """Sums up shares: on the grid of the input (`heat`), by where they come from (`totals`)."""

    trace: Trace
    target: Target
    only: int | None

    def __post_init__(self) -> None:
        x = self.trace.inputs[0].data
        self.heat = torch.zeros(len(x), *x.shape[2:], dtype=x.dtype, device=x.device)
        self.totals: dict[str, Tensor] = {}
        self.seeded = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.places = layout(self.trace)

    def seeds(self) -> dict[Value, Tensor]:
        starts = dict(self.target.seeds(self.trace))
        if self.only is not None:
            starts = {v: _only(s, self.only) for v, s in starts.items()}
        for value, seed in starts.items():
            self.seeded += self.numbers(seed * value.data, value)
        return starts

    def rule(self, node: Node, grads: Grads) -> Grads:
        """The exact derivative; on the way it takes down what the operation adds to its linear part."""
        sent = exact(node, grads)
        if not _homogeneous(node):
            self._take(node, grads, sent)
        return sent

    def _take(self, node: Node, grads: Grads, sent: Grads) -> None:
        """`g ⊙ y − Σ J^T g ⊙ x`: elementwise where output and inputs share a grid, else as numbers."""
        outs = [(g * v.data, v) for g, v in zip(grads, node.outputs, strict=True) if g is not None and v is not None]
        backs = [(s * v.data, v) for s, v in zip(sent, node.inputs, strict=True) if s is not None]
        name, bias = _of_layer(node.path), _bias(node)
        if bias is not None and grads[0] is not None:
            self.add(name, grads[0] * bias, node.output)
        elif _stays_in_place(node) and len(outs) == 1 and backs and all(b.shape == outs[0][0].shape for b, _ in backs):
            self.add(name, _beyond_rounding(outs[0][0], [b for b, _ in backs]), node.output)
        else:
            for sign, terms in ((1, outs), (-1, backs)):
                for tensor, value in terms:
                    self.put(name, sign * self.numbers(tensor, value))

    def put(self, name: str, share: Tensor) -> None:
        self.totals[name] = self.totals[name] + share if name in self.totals else share

    def add(self, name: str, share: Tensor, value: Value) -> None:
        self.put(name, self.numbers(share, value))
        batch, channel = self.places.get(value, UNKNOWN)
        if share.dim() == len(self.trace.inputs[0].shape) and batch == 0 and channel is not None:
            self.heat += _spread(share.movedim(channel, 1), tuple(self.heat.shape[1:]))

    def numbers(self, share: Tensor, value: Value) -> Tensor:
        """A share summed up for each image."""
        axis, count = self.places.get(value, UNKNOWN).batch, self.trace.batch
        if self.only is None and axis is not None and count > 1:
            return share.double().movedim(axis, 0).reshape(count, -1).sum(1)
        return share.double().sum() * (torch.arange(count, device=share.device) == (self.only or 0))

    def join(self, other: "_Shares") -> None:
        """The shares of other images."""
        self.heat += other.heat
        self.seeded += other.seeded
        for name, share in other.totals.items():
            self.put(name, share)


def _only(seed: Tensor, image: int) -> Tensor:
    """A seed with all images but one set to zero."""
    return seed * (torch.arange(len(seed), device=seed.device) == image).view(-1, *[1] * (seed.dim() - 1))


def _stays_in_place(node: Node) -> bool:
    """Whether every output belongs to the input at its own place, as in activations (and unlike in a rotation)."""
    return node.kind in IN_PLACE or torch.Tag.pointwise in getattr(node.op, "tags", ())


def _homogeneous(node: Node) -> bool:
    """Whether an operation adds nothing to its linear part, by definition."""
    if node.kind in HOMOGENEOUS:
        return not (node.base in ("pad", "constant_pad_nd") and node.args[-1] not in (0, None))
    if node.kind == "concatenate":
        return all(isinstance(part, Value) for part in node.args[0])
    return node.kind == "sum" and len(node.inputs) == 2


def _bias(node: Node) -> Tensor | None:
    """The bias of a convolution, linear layer or BatchNorm in evaluation, shaped to meet its output."""
    if node.base not in BIASED or len(node.inputs) != 1 or node.args[0] is not node.inputs[0]:
        return None
    bias = argument(node, "bias")
    if node.base == "batch_norm":
        mean, variance, weight = (argument(node, name) for name in ("running_mean", "running_var", "weight"))
        if not isinstance(variance, Tensor):
            return None
        scale = torch.rsqrt(variance + argument(node, "eps")) * (1 if weight is None else weight)
        bias = (0 if bias is None else bias) - scale * mean
    if bias is None:
        bias = torch.zeros(node.output.shape[-1 if node.base == "linear" else 1]).to(node.output.data)
    return bias if node.base == "linear" else bias.view(1, -1, *[1] * (len(node.output.shape) - 2))


def _beyond_rounding(out: Tensor, backs: list[Tensor]) -> Tensor:
    """`out − Σ backs`, zero where that is no more than rounding, which rescaling would blow up."""
    share = out - sum(backs)
    size = out.abs() + sum(b.abs() for b in backs)
    return share.where(share.abs() > ROUNDING * torch.finfo(out.dtype).eps * size, share.new_zeros(()))


def _spread(maps: Tensor, space: tuple[int, ...]) -> Tensor:
    """`Σ_c ψ`: absolute value, each channel rescaled to [0, 1], summed, brought to the input's size."""
    size = maps.abs()
    low, high = (reduce(size, tuple(range(2, size.dim())), keepdim=True) for reduce in (torch.amin, torch.amax))
    scaled = ((size - low) / (high - low).clamp(min=torch.finfo(size.dtype).tiny)).sum(1, keepdim=True)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    big = scaled if scaled.shape[2:] == space else F.interpolate(scaled, space, mode=mode, align_corners=False)
    return big[:, 0]


def _completeness(case: Case, total: Tensor) -> None:
    for image, (found, score) in enumerate(zip(total.tolist(), case.score().double().tolist(), strict=True)):
        residual = abs(found - score) / max(abs(score), 1e-12)
        text = f"input and bias shares sum to {found:.5g}, the score is {score:.5g}"
        case.checks[image].append(
            Check("completeness residual", residual, CLOSED, "pass" if residual <= CLOSED else "warn", text)
        )
