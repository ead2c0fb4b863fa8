"""Class activation maps whose weights come from asking the network again: Score-CAM and Ablation-CAM (B2)."""

from collections.abc import Sequence
from typing import Annotated, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.edits import Masked
from pellucid.core.layout import layout
from pellucid.methods.cams import COARSE, enlarged, layer_doctor
from pellucid.methods.case import Case
from pellucid.methods.registry import method

Weighing = Annotated[
    Literal["softmax", "increase"],
    "softmax of the increases over the channels (the paper), or the increases themselves",
]


@method(
    "score_cam",
    title="Score-CAM",
    site="layer",
    signed=False,
    units="no unit; compare places, not sizes",
    source="Wang et al. 2020, arXiv:1910.01279, equations 6 to 9 and algorithm 1 (from memory)",
    misleads='when scores are logits far apart: the softmax then shows one channel, so look at weights="increase" too',
    doctor=layer_doctor,
)
def score_cam(case: Case, *, weights: Weighing = "softmax") -> Float[Tensor, "b *space"]:
    """`M = ReLU(Σ_k α_k A_k)`, `α = softmax_k(C)`, `C_k = f(x ⊙ H_k) − f(0)`.

    `H_k` is channel k enlarged to the input (multilinear) and stretched to 0..1; a constant channel hides everything.
    As many forwards as the layer has channels. The softmax is over the channels, and takes `f(0)` away again.
    """
    A, x = case.activation(), case.x
    channels = A.shape[1]

    def masks(which: Sequence[int]) -> Tensor:
        picked = A[[i // (channels + 1) for i in which], [min(i % (channels + 1), channels - 1) for i in which]]
        large = enlarged(picked[:, None], x.shape[2:])[:, 0]
        low, high = large.flatten(1).amin(1), large.flatten(1).amax(1)
        empty = torch.tensor([i % (channels + 1) == channels for i in which], device=x.device)
        shape = (-1, *[1] * (x.dim() - 2))
        scale = torch.where((high > low) & ~empty, 1 / (high - low).clamp(min=torch.finfo(A.dtype).tiny), 0.0)
        return (large - low.view(shape)) * scale.view(shape)

    rows = [i // (channels + 1) for i in range(len(x) * (channels + 1))]  # the last of each image hides all of it
    found = case.answers(Masked(x, torch.zeros_like(x), masks, rows)).view(len(x), channels + 1)
    increase = found[:, :-1] - found[:, -1:]
    alpha = torch.softmax(increase, 1) if weights == "softmax" else increase
    return torch.einsum("bk,bk...->b...", alpha.to(A), A).relu()


@method(
    "ablation_cam",
    title="Ablation-CAM",
    site="layer",
    signed=False,
    units="share of the score that goes with each channel, spread over its map; negative ones cut",
    source="Desai & Ramaswamy 2020, doi:10.1109/WACV45572.2020.9093360, equations 5 to 7 (from memory)",
    misleads=COARSE,
    doctor=layer_doctor,
)
def ablation_cam(case: Case) -> Float[Tensor, "b *space"]:
    """`M = ReLU(Σ_k w_k A_k)`, `w_k = (y − y_k) / |y|`, `y_k` the score with channel k set to zero.

    Only what follows the layer is run again, once for each channel that is not zero already. The paper divides by `y`;
    its size keeps the map's sign where the score is negative.
    """
    A, y = case.activation(), case.score()
    live = [(b, k) for b, k in A.flatten(2).abs().amax(2).nonzero().tolist()]
    w = torch.zeros(A.shape[:2], dtype=y.dtype, device=A.device)
    if live:
        edits = _Ablated(case, live)
        rows, channels = (torch.tensor(found, device=A.device) for found in zip(*live, strict=True))
        w[rows, channels] = y[rows] - case.answers(edits, place=case.site)
    w = w / y.abs().clamp(min=torch.finfo(y.dtype).tiny)[:, None]
    return torch.einsum("bk,bk...->b...", w.to(A), A).relu()


class _Ablated:
    """The layer with one channel of one image set to zero, for each pair of these."""

    def __init__(self, case: Case, pairs: Sequence[tuple[int, int]]) -> None:
        self.value, self.pairs = case.site, pairs
        self.axis = layout(case.trace)[case.site].channel or 1
        self.rows: Sequence[int] = [b for b, _ in pairs]
        self.channels: Sequence[int] = [k for _, k in pairs]
        self.boxes = None

    def channel(self, which: Sequence[int]) -> Tensor:
        space = [n for a, n in enumerate(self.value.shape) if a not in (0, self.axis)]
        return self.value.data.new_zeros(len(which), *space)

    def inputs(self, which: Sequence[int]) -> Tensor:
        found = self.value.data[[self.rows[i] for i in which]]
        for place, i in enumerate(which):
            found[place].select(self.axis - 1, self.pairs[i][1]).zero_()
        return found

    def inside(self, which: int) -> Tensor:
        return self.inputs([which])[0]
