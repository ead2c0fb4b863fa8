"""FullGrad: the input's share and every bias's share of the score."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.derivatives import Grads, exact
from pellucid.core.pull import Rules, Walk
from pellucid.core.receipt import Check
from pellucid.core.trace import Node, Trace
from pellucid.methods.case import Case
from pellucid.methods.registry import Verdict, method

CLOSED = 1e-3
HOMOGENEOUS = frozenset({"view", "average_pool", "max_pool", "dropout", "concatenate"})


def _doctor(trace: Trace) -> Verdict:
    bent = sorted({n.base for n in trace.nodes if n.kind in ("squash", "softmax", "norm", "product")})
    if bent:
        return Verdict(
            "approximate", f"{', '.join(bent)} are not piecewise linear; their share is taken as an implicit bias"
        )
    return Verdict("exact", "input share plus bias shares are the score")


def implicit_bias(node: Node, grads: Grads, sent: Grads) -> Tensor | None:
    """`g ⊙ y − Σ J^T g ⊙ x`: what an operation adds to the score beyond its local linear part.

    For a convolution or BatchNorm it is `g · b`; zero for ReLU, pooling, sums and reshapes. Elementwise where
    output and input share a grid, else summed to one number per image, shape `(b,)`.
    """
    if node.kind in HOMOGENEOUS or (node.kind in ("sum",) and len(node.inputs) == 2) or grads[0] is None:
        return None
    out = grads[0] * node.output.data
    back = [s * v.data for s, v in zip(sent, node.inputs, strict=True) if s is not None]
    if node.kind in ("convolution", "linear"):
        bias = node.args[2] if len(node.args) > 2 else node.kwargs.get("bias")
        if (
            len(node.inputs) == 1
            and (bias is None or isinstance(bias, Tensor))
            and node.base.startswith(("conv1", "conv2", "conv3", "linear"))
        ):
            return None if bias is None else grads[0] * _along_channels(bias, node, grads[0])
    if back and all(b.shape == out.shape for b in back):
        return out - sum(back)
    total = out.flatten(1).sum(1)
    return total - sum((b.flatten(1).sum(1) for b in back), torch.zeros_like(total))


def _along_channels(bias: Tensor, node: Node, like: Tensor) -> Tensor:
    return bias if node.kind == "linear" else bias.view(1, -1, *[1] * (like.dim() - 2))


@method(
    "fullgrad",
    title="FullGrad",
    site="input",
    signed=False,
    reduce="none",
    units="rescaled shares, no unit",
    source="Srinivas & Fleuret 2019, arXiv:1905.00780, equations 2 and 7",
    misleads="when layers differ in weight: each is rescaled before the sum, so tiny shares count like large ones",
    doctor=_doctor,
)
def fullgrad(case: Case) -> Float[Tensor, "b *space"]:
    """`M = ψ(x ⊙ ∇_x S) + Σ_layers Σ_channels ψ(f^b)`, `ψ = upsample(rescale(|·|))`.

    `f^b = b ⊙ ∂S/∂b` is the bias share at each position (BatchNorm's implicit bias included). The receipt
    reports completeness: `S = x·∇S + Σ f^b`.
    """
    space = case.x.shape[2:]
    heat = torch.zeros(len(case.x), *space, dtype=case.x.dtype, device=case.x.device)
    total = torch.zeros(len(case.x), dtype=torch.float64, device=case.x.device)

    def share(node: Node, grads: Grads) -> Grads:
        sent = exact(node, grads)
        bias = implicit_bias(node, grads, sent)
        if bias is not None:
            total.add_(bias.double().flatten(1).sum(1) if bias.dim() > 1 else bias.double())
            if bias.dim() == case.x.dim() and node.kind != "rectifier":
                heat.add_(_spread(bias, space).sum(1))
        return sent

    walk = Walk(case.trace, case.target.seeds(case.trace), Rules("fullgrad", default=share))
    input_share = case.x * walk.input()
    heat += _spread(input_share, space).sum(1)
    total += input_share.double().flatten(1).sum(1)
    _completeness(case, total)
    return heat


def _spread(maps: Tensor, space: tuple[int, ...]) -> Tensor:
    """`ψ`: absolute value, rescaled to [0, 1] per image, brought to the input's size."""
    size = maps.abs()
    flat = size.flatten(1)
    low, high = (v.view(-1, *[1] * (size.dim() - 1)) for v in (flat.amin(1), flat.amax(1)))
    scaled = (size - low) / (high - low).clamp(min=torch.finfo(size.dtype).tiny)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(space)]
    return scaled if scaled.shape[2:] == space else F.interpolate(scaled, space, mode=mode, align_corners=False)


def _completeness(case: Case, total: Tensor) -> None:
    for image, (found, score) in enumerate(zip(total.tolist(), case.score().double().tolist(), strict=True)):
        residual = abs(found - score) / max(abs(score), 1e-12)
        text = f"input and bias shares sum to {found:.5g}, the score is {score:.5g}"
        case.checks[image].append(
            Check("completeness residual", residual, CLOSED, "pass" if residual <= CLOSED else "warn", text)
        )
