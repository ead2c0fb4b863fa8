"""XRAI: regions ranked by the attribution that they gather (B8)."""

from dataclasses import dataclass
from math import prod
from typing import Annotated, Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.errors import MethodError, SettingError
from pellucid.core.tables import curve, table
from pellucid.methods.case import Case
from pellucid.methods.covering import regions_of
from pellucid.methods.paths import integrated_gradients
from pellucid.methods.registry import method

COUNTS = (8, 16, 32, 64)
KINDS = {1: "grid", 2: "felzenszwalb", 3: "slic"}
LISTED = 20  # regions in the table


@dataclass(frozen=True, eq=False)
class Entry:
    """A region at the moment when it is taken.

    Attributes:
        region: its number.
        pixels: those of it that were not taken before, as places in the flattened image.
        density: their mean attribution.
    """

    region: int
    pixels: Tensor
    density: float


@method(
    "xrai",
    title="XRAI",
    site="input",
    reduce="none",
    units="share of the score per pixel (sums to the score less the mean of the baselines)",
    source="Kapishnikov et al. 2019, arXiv:1906.02825, algorithm 1; from memory",
    misleads="where a region crosses the object's edge: all of it gets one value, so the sharp outlines are those of "
    "the segmentation, not of what the network saw",
)
def xrai(
    case: Case,
    *,
    regions: Annotated[
        Any, "auto (Felzenszwalb at four sizes; SLIC in volumes, a grid in 1-D), or any regions, several joined by +"
    ] = "auto",
    baseline: Annotated[Any, "of the integrated gradients: auto (black and white), names joined by +, or a tensor"] = (
        "auto"
    ),
    steps: Annotated[int, "points on each path of the integrated gradients"] = 50,
    dilation_fraction: Annotated[float, "how far regions are widened, as a fraction of the shortest side"] = 0.02,
    least_fraction: Annotated[float, "a region that adds less of the picture than this is passed over"] = 0.001,
    area_fraction: Annotated[float, "stop when this much of the picture is covered"] = 1.0,
) -> Float[Tensor, "b *space"]:
    """Take regions one after another, always the one with the largest `g_s = Σ_{i ∈ s∖M} A_i / |s∖M|`, into M.

    A is integrated gradients summed over the channels, averaged over a black and a white baseline; s are regions of
    several sizes, widened so that they reach over their edges. A pixel's heat is the `g_s` with which it was taken;
    what is left over has its own mean. So the map sums to what A sums to. The table lists the first regions, the
    curve says how much attribution an area gathers, and the extra map is A itself.

    Raises:
        SettingError: fractions outside their range, or regions that can't be made.
        MethodError: an attribution that is no number.
    """
    _check(dilation_fraction, least_fraction, area_fraction)
    if isinstance(baseline, str) and baseline == "auto":
        baseline = "zero" if case.preprocess is None else "black+white"
        case.notes.append(f'baseline "{baseline}" was chosen for you')
    attribution = integrated_gradients.compute(case, baseline=baseline, steps=steps, rule="gauss_legendre").sum(1)
    if not bool(torch.isfinite(attribution).all()):
        raise MethodError("xrai: integrated gradients gave something that is no number; try another target or baseline")
    case.extra_maps["integrated gradients"] = attribution
    space = attribution.shape[1:]
    radius, least = round(dilation_fraction * min(space)), max(1, round(least_fraction * prod(space)))
    found = torch.zeros_like(attribution)
    for image, one in enumerate(attribution):
        names, members = _segments(case, regions, image)
        values = one.detach().double().cpu().flatten()
        taken = ranked(values, widened(members, radius).flatten(1), least, area_fraction)
        found[image] = _painted(values, taken).view(space).to(found)
        _tell(case, image, names, taken, values)
    return found


def _check(dilation_fraction: float, least_fraction: float, area_fraction: float) -> None:
    for name, value, low, high in (
        ("dilation_fraction", dilation_fraction, 0, 0.5),
        ("least_fraction", least_fraction, 0, 1),
    ):
        if not low <= value < high:
            raise SettingError(f"{name}={value}; use {low} or more and less than {high}")
    if not 0 < area_fraction <= 1:
        raise SettingError(f"area_fraction={area_fraction}; use a number above 0 and at most 1")


def _segments(case: Case, asked: Any, image: int) -> tuple[list[str], Bool[Tensor, "regions *space"]]:
    """Every region of every segmentation of one image, with a name for each."""
    space = case.x.shape[2:]
    if isinstance(asked, str) and asked == "auto":
        kind = KINDS[len(space)]
        asked = [f"{kind}:{count}" for count in COUNTS if count <= prod(space) // 4] or [f"{kind}:{prod(space)}"]
    several = asked.split("+") if isinstance(asked, str) else asked if isinstance(asked, (list, tuple)) else [asked]
    if not several:
        raise SettingError('no regions came; give "auto", "felzenszwalb:30", a mask or labels')
    names, masks = [], []
    for number, one in enumerate(several):
        cut = regions_of(case, one, image, count=50)
        label = one if isinstance(one, str) else f"{cut.kind} {number + 1}"
        names += [f"{label}, {name}" for name in cut.names]
        masks.append(cut.masks())
    return names, torch.cat(masks)


def widened(masks: Bool[Tensor, "n *space"], radius_px: int) -> Bool[Tensor, "n *space"]:
    """Masks grown by so many pixels along every axis."""
    for axis in range(1, masks.dim()):
        grown = masks.clone()
        for by in range(1, min(radius_px, masks.shape[axis] - 1) + 1):
            rest = masks.shape[axis] - by
            grown.narrow(axis, by, rest).logical_or_(masks.narrow(axis, 0, rest))
            grown.narrow(axis, 0, rest).logical_or_(masks.narrow(axis, by, rest))
        masks = grown
    return masks


def ranked(
    values: Float[Tensor, "pixels"], members: Bool[Tensor, "regions pixels"], least: int = 1, area_fraction: float = 1.0
) -> list[Entry]:
    """The regions in the order in which they are taken, the first among equals.

    What every region would still add is kept up to date by the pixels that were just taken, so each pixel is looked at
    once for each region, however many regions are taken.

    Args:
        least: a region that adds fewer pixels is passed over.
        area_fraction: stop when this share of the pixels is taken.
    """
    sums, areas = members.to(values) @ values, members.sum(1)
    free, taken = torch.ones(values.numel(), dtype=torch.bool), []
    while int((~free).sum()) < area_fraction * values.numel():
        gains = torch.where(areas >= least, sums / areas.clamp(min=1), -torch.inf)
        best = int(gains.argmax())
        if gains[best] == -torch.inf:
            break
        pixels = (members[best] & free).nonzero()[:, 0]
        taken.append(Entry(best, pixels, float(values[pixels].mean())))
        free[pixels] = False
        part = members[:, pixels]
        sums, areas = sums - part.to(values) @ values[pixels], areas - part.sum(1)
    return taken


def _painted(values: Float[Tensor, "pixels"], taken: list[Entry]) -> Float[Tensor, "pixels"]:
    """Every pixel as the region with which it was taken; the rest as its own mean."""
    heat = torch.full_like(values, torch.nan)
    for entry in taken:
        heat[entry.pixels] = entry.density
    rest = heat.isnan()
    heat[rest] = values[rest].mean()
    return heat


def _tell(case: Case, image: int, names: list[str], taken: list[Entry], values: Tensor) -> None:
    """The table of the first regions, and the curve over all of them."""
    pixels, area, total = values.numel(), 0, 0.0
    rows, points = [], [(0.0, 0.0)]
    for rank, entry in enumerate(taken, 1):
        area, total = area + len(entry.pixels), total + entry.density * len(entry.pixels)
        added = len(entry.pixels) / pixels
        rows.append((rank, names[entry.region], added, entry.density, entry.density * len(entry.pixels)))
        points.append((area / pixels, total))
    if area < pixels:
        points.append((1.0, float(values.sum())))
    columns = ("rank", "region", "area added (fraction)", "attribution per pixel", "attribution added (score)")
    note = f"the first {min(LISTED, len(rows))} of {len(rows)} regions that were taken, of {len(names)}"
    case.tables[image].append(table("regions", columns, rows[:LISTED], note))
    axes = ("area (fraction)", "attribution (score)")
    case.tables[image].append(curve("area", axes, points, "how much attribution the best regions of an area gather"))
