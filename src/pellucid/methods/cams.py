"""Class activation maps: weighted sums of a layer's maps (B1–B3).

`A` is the layer's output `(b, k, ...)`, `G = ∂ S_c / ∂ A`; every map comes back on the layer's own grid.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Annotated

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import LayerError, MethodError
from pellucid.core.layers import between, last_spatial
from pellucid.core.receipt import Check
from pellucid.core.target import class_scores
from pellucid.core.trace import Node, Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.gradients import rectifier_doctor
from pellucid.methods.principal import first_component
from pellucid.methods.registry import Verdict, method
from pellucid.rules.rectifiers import GUIDED

LINEAR_HEAD = frozenset({"linear", "view", "dropout", "average_pool", "batch_norm"})
COMPLETE = 1e-3
Counterfactual = Annotated[bool, "negate the gradient: what speaks against the target (Selvaraju 2017, section 3.4)"]
COARSE = "where details are small: one cell covers many pixels, and channels of mixed evidence are averaged away"


def layer_doctor(trace: Trace) -> Verdict:
    """Whether a layer keeps positions, and whether they are mixed behind it."""
    try:
        name, value = last_spatial(trace)
    except LayerError as error:
        return Verdict("impossible", str(error))
    after = {trace.nodes[i].base for i in between(trace, value, trace.output)}
    if after & {"bmm", "baddbmm", "scaled_dot_product_attention"}:
        return Verdict(
            "approximate", f'layer "{name}" is followed by attention, which mixes positions: places are only rough'
        )
    return Verdict("exact", f'layer "{name}", {"×".join(map(str, value.data.shape[2:]))} cells')


def _axes(maps: Tensor) -> tuple[int, ...]:
    return tuple(range(2, maps.dim()))


def pooled_head(trace: Trace) -> tuple[Value, str]:
    """The maps that are averaged into the scores, where everything behind the average is linear.

    Raises:
        MethodError: there is no such head; the operation that decides it is named.
    """
    axes = trace.inputs[0].data.dim()
    for node in reversed(trace.nodes):
        if node.kind == "average_pool" and node.outputs[0] is not None and _averages_all(node, axes):
            break
    else:
        raise MethodError(
            "exact CAM needs global average pooling before the scores, and this network has none; use grad_cam"
        )
    maps = node.inputs[0]
    for position in between(trace, maps, class_scores(trace)):
        behind = trace.nodes[position]
        if behind.kind not in LINEAR_HEAD:
            raise MethodError(
                f'CAM needs a linear head; "{behind.base}" in layer "{behind.path}" follows the pooling; use grad_cam'
            )
    return maps, trace.name_of(maps)


def _averages_all(node: Node, axes: int) -> bool:
    x, y = node.inputs[0].data, node.output.data
    return x.dim() == axes and axes > 2 and x.numel() > y.numel() and y.numel() == x.shape[0] * x.shape[1]


def _cam_doctor(trace: Trace) -> Verdict:
    try:
        _, name = pooled_head(trace)
    except MethodError as error:
        return Verdict("impossible", str(error))
    return Verdict("exact", f'"{name}" is averaged and read linearly')


@method(
    "cam",
    title="CAM",
    site="layer",
    units="evidence (its mean over the map is the score less the bias)",
    source="Zhou et al. 2016, arXiv:1512.04150, equation 2",
    misleads=COARSE,
    doctor=_cam_doctor,
    layered=False,
)
def cam(case: Case) -> Float[Tensor, "b *space"]:
    """`M_c(p) = Σ_k w_ck A_k(p)`, exact where the scores are a linear function of averaged maps.

    `w_ck` is read off the recording as `n · ∂ S_c / ∂ A_k(p)` (n positions), which is the same at every
    position; so a fully convolutional head, averaged last, is covered too. `mean_p M_c(p) + bias = S_c`.

    Raises:
        MethodError: no average pooling, or something behind it is not linear.
    """
    maps, name = pooled_head(case.trace)
    case.notes.append(f'exact CAM reads the maps that are averaged, "{name}"')
    weights = case.walk().at(maps) * maps.data[0, 0].numel()
    heat = (weights * maps.data).sum(1)
    _mean_is_score(case, maps, heat)
    return heat


def _mean_is_score(case: Case, maps: Value, heat: Tensor) -> None:
    """Put `|mean M + S(0) − S| / |S|` into the receipts; `S(0)`, the bias, is the head replayed from empty maps."""
    if case.target.layer is not None:
        return
    head = replace(case.trace, output=case.target.value(case.trace))
    output = head.replay(edits={maps: torch.zeros_like(maps.data)})
    bias, score = case.target.read(output, range(len(output))).double(), case.score().double()
    for image, (mean, b, s) in enumerate(
        zip(heat.double().flatten(1).mean(1).tolist(), bias.tolist(), score.tolist(), strict=True)
    ):
        residual = abs(mean + b - s) / max(abs(s), 1e-12)
        verdict = "pass" if residual <= COMPLETE else "fail"
        text = f"the map's mean {mean:.4g} and the bias {b:.4g} must give the score {s:.4g}"
        case.checks[image].append(Check("completeness residual", residual, COMPLETE, verdict, text))


@method(
    "grad_cam",
    title="Grad-CAM",
    site="layer",
    signed=False,
    units="share of the score at each cell, negative ones cut",
    source="Selvaraju et al. 2017, arXiv:1610.02391, equations 1 and 2",
    misleads=COARSE,
    doctor=layer_doctor,
)
def grad_cam(case: Case, *, counterfactual: Counterfactual = False) -> Float[Tensor, "b *space"]:
    """`M = ReLU(Σ_k w_k A_k)` with `w_k = mean_p G_k(p)`."""
    A, G = case.activation(), case.gradient(negated=counterfactual)
    w = G.mean(_axes(G), keepdim=True)
    return (w * A).sum(1).relu()


@method(
    "grad_cam_plus_plus",
    title="Grad-CAM++",
    site="layer",
    signed=False,
    units="no unit; compare places, not sizes",
    source="Chattopadhay et al. 2018, arXiv:1710.11063, equations 10 and 19 (exponential of the score)",
    misleads=COARSE,
    doctor=layer_doctor,
)
def grad_cam_plus_plus(case: Case, *, counterfactual: Counterfactual = False) -> Float[Tensor, "b *space"]:
    """`w_k = Σ_p α_k(p) ReLU(G_k(p))`, `α_k(p) = G² / (2 G² + Σ_q A_k(q) G_k(p)³)`, `M = ReLU(Σ_k w_k A_k)`."""
    A, G = case.activation(), case.gradient(negated=counterfactual)
    below = 2 * G**2 + A.sum(_axes(A), keepdim=True) * G**3
    alpha = (G**2 / below.where(below != 0, below.new_ones(()))).where(G != 0, G.new_zeros(()))
    w = (alpha * G.relu()).sum(_axes(G), keepdim=True)
    return (w * A).sum(1).relu()


@method(
    "xgrad_cam",
    title="XGrad-CAM",
    site="layer",
    signed=False,
    units="share of the score at each cell, negative ones cut",
    source="Fu et al. 2020, arXiv:2008.02312, equation 8",
    misleads=COARSE,
    doctor=layer_doctor,
)
def xgrad_cam(case: Case, *, counterfactual: Counterfactual = False) -> Float[Tensor, "b *space"]:
    """`w_k = Σ_p A_k(p) G_k(p) / Σ_p A_k(p)`, `M = ReLU(Σ_k w_k A_k)`; channels that sum to zero get no weight."""
    A, G = case.activation(), case.gradient(negated=counterfactual)
    total = A.sum(_axes(A), keepdim=True)
    w = (A * G).sum(_axes(A), keepdim=True) / total.where(total != 0, total.new_ones(()))
    return (w.where(total != 0, w.new_zeros(())) * A).sum(1).relu()


@method(
    "hires_cam",
    title="HiResCAM",
    site="layer",
    signed=False,
    units="share of the score at each cell, negative ones cut",
    source="Draelos & Carin 2020, arXiv:2011.08891, equation 6 (here with the rectifier)",
    misleads="where details are small: one cell covers many pixels",
    doctor=layer_doctor,
)
def hires_cam(case: Case, *, counterfactual: Counterfactual = False) -> Float[Tensor, "b *space"]:
    """`M = ReLU(Σ_k G_k ⊙ A_k)`."""
    return (case.activation() * case.gradient(negated=counterfactual)).sum(1).relu()


@method(
    "layer_cam",
    title="LayerCAM",
    site="layer",
    signed=False,
    units="share of the score at each cell, negative ones cut",
    source="Jiang et al. 2021, doi:10.1109/TIP.2021.3089943, equations 5 to 7",
    misleads="where there is evidence against the class: it is dropped and never shown",
    doctor=layer_doctor,
)
def layer_cam(case: Case, *, counterfactual: Counterfactual = False) -> Float[Tensor, "b *space"]:
    """`M = ReLU(Σ_k ReLU(G_k) ⊙ A_k)`; usable at early layers too."""
    return (case.gradient(negated=counterfactual).relu() * case.activation()).sum(1).relu()


@method(
    "eigen_cam",
    title="Eigen-CAM",
    site="layer",
    signed=True,
    units="projection on the first principal component, no unit",
    source="Muhammad & Yeasin 2020, arXiv:2008.00299, equation 3",
    misleads="when it is read as evidence: it does not look at the class, only at what is prominent to this layer",
    doctor=layer_doctor,
)
def eigen_cam(case: Case) -> Float[Tensor, "b *space"]:
    """`M = A V₁`, the projection of each position on the first right singular vector of `A` (positions × channels).

    The vector's sign is free; it is chosen so that the map's sum is not negative.
    """
    return first_component(case.activation())


@method(
    "eigen_grad_cam",
    title="EigenGrad-CAM",
    site="layer",
    signed=True,
    units="projection on the first principal component, no unit",
    source="Gildenblat et al. 2021, pytorch-grad-cam (Eigen-CAM of G ⊙ A)",
    misleads="when it is read as evidence: the first component need not be that, and its sign is a convention",
    doctor=layer_doctor,
)
def eigen_grad_cam(case: Case) -> Float[Tensor, "b *space"]:
    """Eigen-CAM of `G ⊙ A`, which makes it depend on the class."""
    return first_component(case.activation() * case.gradient())


@method(
    "guided_grad_cam",
    title="Guided Grad-CAM",
    site="input",
    units="no unit; compare places, not sizes",
    source="Selvaraju et al. 2017, arXiv:1610.02391, section 3.2",
    misleads="when classes are compared: its fine detail is guided backprop's, which hardly depends on the class",
    doctor=rectifier_doctor("guided"),
    layered=True,
)
def guided_grad_cam(case: Case) -> Float[Tensor, "b c *space"]:
    """`M = guided backprop ⊙ upsampled Grad-CAM` (multilinear, cell centres aligned)."""
    return gate(grad_cam.run(case), case.pull(GUIDED))


def gate(cam: Float[Tensor, "b *cells"], backprop: Float[Tensor, "b c *space"]) -> Float[Tensor, "b c *space"]:
    """A map on the grid of the input, cell by cell times the positive part of a map on a layer's grid."""
    return backprop * enlarged(cam.clamp(min=0)[:, None], backprop.shape[2:])


def enlarged(maps: Float[Tensor, "b k *cells"], space: Sequence[int]) -> Float[Tensor, "b k *space"]:
    """Maps on the grid of the input: multilinear, cell centres aligned."""
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[maps.dim() - 2]
    return F.interpolate(maps, tuple(space), mode=mode, align_corners=False)
