"""FullGrad: the input's share and every bias's share of the score."""

from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import Grads, argument, exact
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.pull import Rules, Walk
from pellucid.core.receipt import Check
from pellucid.core.trace import Node, Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.gradients import SMOOTH
from pellucid.methods.registry import Verdict, method

CLOSED = 1e-3
HOMOGENEOUS = frozenset({"view", "average_pool", "max_pool", "dropout"})
IN_PLACE = frozenset({"rectifier", "squash", "clamp", "scale", "sum", "norm"})
ROUNDING = 16.0


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
    places = layout(case.trace)
    used = (v for node in case.trace.nodes for v in (*node.inputs, *node.outputs) if v is not None and v.differentiable)
    known = all(places.get(v, UNKNOWN).batch is not None for v in used)
    parts = [None] if known or case.trace.batch == 1 else list(range(case.trace.batch))
    shares = [_shares(case, only) for only in parts]
    _completeness(case, sum((s.total for s in shares[1:]), shares[0].total))
    return sum((s.heat for s in shares[1:]), shares[0].heat)


def _shares(case: Case, only: int | None) -> "_Shares":
    """One walk that collects the shares of all images, or of one where the axes of a batch get lost on the way."""
    found = _Shares(case, only)
    walk = Walk(case.trace, found.seeds(), Rules("fullgrad", default=found.rule))
    found.add(case.x * walk.input(), case.trace.inputs[0])
    for number, other in list(enumerate(case.trace.inputs))[1:]:
        if other.differentiable:
            found.total += found.numbers(other.data * walk.input(number), other)
    return found


@dataclass(eq=False)
class _Shares:
    """Sums up shares: on the grid of the input (`heat`) and in all (`total`)."""

    case: Case
    only: int | None

    def __post_init__(self) -> None:
        x = self.case.x
        self.heat = torch.zeros(len(x), *x.shape[2:], dtype=x.dtype, device=x.device)
        self.total = torch.zeros(len(x), dtype=torch.float64, device=x.device)
        self.places = layout(self.case.trace)

    def seeds(self) -> dict[Value, Tensor]:
        starts = dict(self.case.target.seeds(self.case.trace))
        if self.only is None:
            return starts
        return {v: _only(s, self.only) for v, s in starts.items()}

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
        bias = _bias(node)
        if bias is not None and grads[0] is not None:
            self.add(grads[0] * bias, node.output)
        elif _stays_in_place(node) and len(outs) == 1 and backs and all(b.shape == outs[0][0].shape for b, _ in backs):
            self.add(_beyond_rounding(outs[0][0], [b for b, _ in backs]), node.output)
        else:
            for sign, terms in ((1, outs), (-1, backs)):
                for tensor, value in terms:
                    self.total += sign * self.numbers(tensor, value)

    def add(self, share: Tensor, value: Value) -> None:
        self.total += self.numbers(share, value)
        batch, channel = self.places.get(value, UNKNOWN)
        if share.dim() == self.case.x.dim() and batch == 0 and channel is not None:
            self.heat += _spread(share.movedim(channel, 1), tuple(self.heat.shape[1:]))

    def numbers(self, share: Tensor, value: Value) -> Tensor:
        """A share summed up for each image."""
        axis, count = self.places.get(value, UNKNOWN).batch, len(self.total)
        if self.only is None and axis is not None and count > 1:
            return share.double().movedim(axis, 0).reshape(count, -1).sum(1)
        return share.double().sum() * (torch.arange(count, device=share.device) == (self.only or 0))


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
    known = ("batch_norm", "linear", "conv1d", "conv2d", "conv3d")
    if node.base not in known or len(node.inputs) != 1 or node.args[0] is not node.inputs[0]:
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
