"""SHAP: the regions of a picture share its score (B7)."""

from typing import Annotated, Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from torch import Tensor, from_numpy

from pellucid.core.tables import Table, table
from pellucid.images.regions import Regions
from pellucid.methods.case import Case
from pellucid.methods.covering import region_columns
from pellucid.methods.registry import asks_scores, method
from pellucid.methods.shapley.game import Shares
from pellucid.methods.shapley.owen import split_tree
from pellucid.methods.shapley.pictures import FILL, REGIONS, covering, painted, several_regions
from pellucid.methods.shapley.solve import ErrorFraction, Kind, Samples, solve, tell


@method(
    "shap",
    title="SHAP",
    site="input",
    reduce="none",
    units="a region's share of the score, on each of its pixels (they sum over regions to the score less that of none)",
    source="Lundberg & Lee 2017, arXiv:1705.07874, equation 4 and theorem 2",
    misleads="where the fill looks like the region it covers, or like nothing the network knows: it decides the shares",
    doctor=asks_scores,
)
def shap(
    case: Case,
    *,
    regions: Annotated[Any, REGIONS] = "slic",
    count: Annotated[int, "about how many regions, where they are made for you"] = 30,
    fill: Annotated[Any, FILL] = "mean",
    kind: Annotated[
        Kind, "exact asks all coalitions (12 regions at most), the others a part; auto: exact, else permutation"
    ] = "auto",
    samples: Samples = 2000,
    error_fraction: ErrorFraction = 0.02,
) -> Float[Tensor, "b *space"]:
    """`φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S))`, `v(S)`: the score with only the regions S seen.

    `Σ φ = f(x) − v(∅)`, where `v(∅)` is the score with every region covered; the residual is in the receipt, and so is
    the largest standard error where coalitions were drawn. `kernel` draws coalitions, `permutation` orders with their
    reverses until `error_fraction` is reached. `partition` gives Owen values over a tree that halves the regions by
    place: neighbours arrive together, which asks far fewer coalitions and is another share than Shapley's.

    Returns:
        The share of the region that each pixel lies in, in units of the score; 0 where there is no region.

    Raises:
        SettingError: one region only, too few samples for the regions, or several fills.
        MethodError: the score is not a number for some coalition; it is named.
    """
    heat = torch.zeros_like(case.x[:, 0])
    errors = torch.zeros_like(heat)
    for image in range(case.trace.batch):
        found = several_regions(case, regions, image, count)
        game = covering(case, image, found, fill)
        tree = split_tree(centres(found)) if kind == "partition" else None
        shares = solve(game, kind, samples, error_fraction, case.seed, tree)
        tell(case, image, shares, error_fraction)
        case.tables[image].append(_table(case, image, found, shares))
        heat[image] = painted(from_numpy(shares.values), found.labels, heat)
        if shares.errors is not None:
            errors[image] = painted(from_numpy(shares.errors), found.labels, heat)
            case.extra_maps["standard error"] = errors
    return heat


def centres(regions: Regions) -> Float64[np.ndarray, "n axes"]:
    """The middle of each region, px."""
    places = (regions.labels >= 0).nonzero().numpy()
    of = regions.labels[regions.labels >= 0].numpy()
    sums = [np.bincount(of, axis, regions.count) for axis in places.T.astype(np.float64)]
    return np.stack(sums, axis=1) / np.array(regions.sizes)[:, None]


def _table(case: Case, image: int, regions: Regions, shares: Shares) -> Table:
    columns, first = region_columns(case, regions, image)
    values = shares.values.tolist()
    errors = [None] * regions.count if shares.errors is None else shares.errors.tolist()
    order = sorted(range(regions.count), key=lambda r: -abs(values[r]))
    note = f"{shares.how}; score {shares.full:.4g}, with every region covered {shares.empty:.4g}"
    rows = [(*first[r], values[r], errors[r]) for r in order]
    return table("regions", (*columns, "share (score)", "± standard error"), rows, note)
