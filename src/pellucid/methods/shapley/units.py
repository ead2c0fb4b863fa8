"""Neuron Shapley: the channels of a layer share the score (B7)."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor, from_numpy

from pellucid.core.edits import Box
from pellucid.core.errors import LayerError
from pellucid.core.layers import last_spatial
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.tables import Table, table
from pellucid.core.trace import Trace
from pellucid.methods.case import Case
from pellucid.methods.registry import Verdict, method
from pellucid.methods.shapley.game import Game, Shares
from pellucid.methods.shapley.solve import ErrorFraction, Samples, solve, tell

LISTED = 20  # units in the table
Off = Literal["zero", "mean"]


def unit_doctor(trace: Trace) -> Verdict:
    """Whether there is a layer whose channels can be switched off."""
    try:
        name, value = last_spatial(trace)
    except LayerError as error:
        return Verdict("impossible", str(error))
    return Verdict("exact", f'layer "{name}" of shape {tuple(value.shape[1:])}; only what follows it is run again')


class Switched:
    """A layer's output for one image with some channels off; see `pellucid.core.edits.Edits`.

    Args:
        on, off: the output as it is, and with every channel off.
        keep: for each edit the channels that stay on.
        axis: of the channels in `on`.
        row: the number of the image.
    """

    def __init__(
        self, on: Float[Tensor, "*shape"], off: Float[Tensor, "*shape"], keep: Bool[Tensor, "m k"], axis: int, row: int
    ) -> None:
        self.on, self.off, self.axis = on, off, axis
        self.keep = keep.to(on.device)
        self.rows: Sequence[int] = [row] * len(keep)
        self.boxes: Sequence[Box] | None = None

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n *shape"]:
        keep = self.keep[list(which)]
        shape = [-1 if axis == self.axis else 1 for axis in range(self.on.dim())]
        return torch.where(keep.view(len(keep), *shape), self.on, self.off)

    def inside(self, which: int) -> Float[Tensor, "*box"]:
        raise NotImplementedError("channels reach everywhere; there is no box")


@method(
    "unit_shapley",
    title="Neuron Shapley",
    site="layer",
    units="share of the score at each cell (cells sum to the score less that with every unit off)",
    source="Ghorbani & Zou 2020, arXiv:2002.09815 (there over a data set, here for one image)",
    misleads="where units stand in for each other: each gets a part, though the network could do without any one",
    doctor=unit_doctor,
)
def unit_shapley(
    case: Case,
    *,
    off: Annotated[Off, "a unit that is off is zero, or everywhere its own mean over the cells"] = "zero",
    kind: Annotated[
        Literal["auto", "exact", "kernel", "permutation"], "auto: exact up to 12 units, else permutation"
    ] = "auto",
    samples: Samples = 10_000,
    error_fraction: ErrorFraction = 0.02,
) -> Float[Tensor, "b *space"]:
    """`M(p) = Σ_k φ_k |D_k(p)| / Σ_q |D_k(q)|` with `D_k = A_k − off`: a unit's share spread over where it is active.

    `φ_k` is the Shapley value of unit k in the game of switching units of the layer off; only what follows the layer
    is run again. Where a unit is as if off everywhere (`D_k = 0`) its share is spread evenly. After a rectifier with
    `off="zero"`, `|D_k|` is `A_k`. `Σ_p M(p) = Σ φ`, the score less that with all units off.

    Raises:
        SettingError: too few samples for the number of units.
        MethodError: the layer has no maps, or the score is not a number with some units off; they are named.
    """
    place, maps = case.site, case.activation()
    axis = layout(case.trace).get(place, UNKNOWN).channel or 1
    away = _off(place.data, axis, off)
    heat = torch.zeros_like(maps[:, 0])
    for image in range(case.trace.batch):

        def ask(keep: Tensor, image: int = image) -> Tensor:
            edits = Switched(place.data[image], away[image], keep, axis - 1, image)
            return case.answers(edits, place=place)

        game = Game(maps.shape[1], ask, float(case.score()[image]), "units {} off")
        shares = solve(game, kind, samples, error_fraction, case.seed)
        tell(case, image, shares, error_fraction)
        case.tables[image].append(_table(shares, maps[image]))
        heat[image] = spread(from_numpy(shares.values), (maps - case.maps(away))[image])
    return heat


def _off(data: Float[Tensor, "b *shape"], axis: int, off: Any) -> Float[Tensor, "b *shape"]:
    """The layer's output with every channel off."""
    if off == "zero":
        return torch.zeros_like(data)
    return data.mean([a for a in range(1, data.dim()) if a != axis], keepdim=True).expand_as(data)


def spread(phi: Tensor, lost: Float[Tensor, "k *space"]) -> Float[Tensor, "*space"]:
    """Each unit's share over the cells in proportion to what is lost there when it is off; evenly where nothing is."""
    size = lost.double().abs().flatten(1)
    total = size.sum(1, keepdim=True)
    weight = torch.where(total > 0, size / total.where(total > 0, total.new_ones(())), 1 / size.shape[1])
    return (phi.to(weight) @ weight).view(lost.shape[1:]).to(lost)


def _table(shares: Shares, maps: Float[Tensor, "k *space"]) -> Table:
    errors = [None] * len(maps) if shares.errors is None else shares.errors.tolist()
    means = maps.double().flatten(1).mean(1).tolist()
    rows = sorted(zip(range(len(maps)), shares.values.tolist(), errors, means, strict=True), key=lambda r: -abs(r[1]))
    note = f"{shares.how}; score {shares.full:.4g}, with every unit off {shares.empty:.4g}"
    if len(rows) > LISTED:
        note += f"; the {LISTED} largest of {len(rows)} units"
    return table("units", ("unit", "share (score)", "± standard error", "mean activation"), rows[:LISTED], note)
