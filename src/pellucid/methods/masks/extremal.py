"""Extremal perturbation: the smooth mask of a given area that keeps the score up (B8)."""

from math import isfinite
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.core.receipt import Check
from pellucid.core.tables import curve
from pellucid.methods.case import Case
from pellucid.methods.masks.ground import exact_enough, inside_image, one_paint, scores_of
from pellucid.methods.masks.search import Balance, Search, check_search
from pellucid.methods.masks.smooth import Dots, area_penalty
from pellucid.methods.registry import method

AREA_OFF = 0.03
LIGHT, HEAVY = 0.3, 300.0  # what the area counts against the score, at the first step and at the last
MOST_AREAS = 20


@method(
    "extremal_perturbation",
    title="Extremal perturbation",
    site="input",
    signed=False,
    reduce="none",
    units="share of the areas whose best mask marks the pixel, 0 to 1",
    source="Fong, Patrick & Vedaldi 2019, arXiv:1910.08485, section 3; from memory",
    misleads="where the evidence is smaller than a dot of the mask or stands twice in the picture: the area has to be "
    "filled, so pixels are marked that add nothing, and of two equal parts one may be left out",
)
def extremal_perturbation(
    case: Case,
    *,
    areas: Annotated[Any, "areas of the masks as fractions of the picture: a number, a list, or joined by +"] = (
        "0.05+0.1+0.2+0.4"
    ),
    variant: Annotated[
        Literal["preserve", "delete", "both"], "the marked pixels alone keep the score, without them it falls, or both"
    ] = "preserve",
    steps: Annotated[int, "steps of the search, each with one gradient for every area"] = 100,
    fill: Annotated[Any, "what is seen where a picture is hidden: auto (blur), another fill, or a tensor"] = "auto",
    cells: Annotated[int, "parameters of a mask along the shortest side; 0 is 16, or as many as fit"] = 0,
    radius_fraction: Annotated[float, "radius of a mask's dots, as a fraction of the shortest side"] = 0.08,
    jitter_fraction: Annotated[float, "largest random shift of the picture, as a fraction of its shortest side"] = 0.03,
    rate: Annotated[float, "how far a parameter moves in a step"] = 0.05,
) -> Float[Tensor, "b *space"]:
    """`m_a = argmax_m f(m ⊙ x + (1 − m) ⊙ fill) − λ R_a(m)` for each area a; the map is their mean.

    `R_a(m) = ‖vecsort(m) − r_a‖² / |Ω|` compares the sorted mask with `a|Ω|` ones; masks are unions of smooth dots,
    `m(u) = smax_v k(‖u − v‖) m̄(v)`, v on a grid. `delete` makes the rest small instead, `−f((1 − m) ⊙ x + m ⊙ fill)`,
    `both` asks for both. All masks begin with the whole picture; λ grows from step to step, and both slopes are scaled
    to their largest size so far, so that no setting hangs on the unit of the score. The curve tells the scores of what
    each mask keeps and of what it leaves over; each mask is an extra map.

    Differs from the paper: hidden pixels are mixed with one fill instead of a stack of blurs; dots are flat up to their
    radius and fall off over half a cell; Adam instead of SGD.

    Raises:
        SettingError: areas not between 0 and 1, other settings outside their limits, a fill for hard masks.
        MethodError: a score that is no number.
    """
    chosen, space = areas_of(areas), case.x.shape[2:]
    cells = inside_image(cells, 16, case)
    check_search(steps, rate, jitter_fraction)
    if not 0 < radius_fraction <= 0.5:
        raise SettingError(f"radius_fraction={radius_fraction}; use a number above 0 and at most 0.5")
    paint, shortest = one_paint(case, fill), min(space)
    like = exact_enough(case.x)
    wanted = like.new_tensor(chosen).repeat(len(case.x))
    rows = [image for image in range(len(case.x)) for _ in chosen]

    dots = Dots(space, cells, radius_fraction * shortest, like)

    def cost(grids: Tensor, _: Tensor) -> Tensor:
        return area_penalty(dots.around(grids), wanted, dots.inside)

    jitter = round(jitter_fraction * shortest)
    name = "extremal_perturbation"
    search = Search(case, name, rows, paint, variant, dots, cost, _growing(), jitter)
    start = like.new_ones(len(rows), *dots.grid)
    masks = dots(search.found(start, steps, rate))
    each = masks.view(len(case.x), len(chosen), *space)
    case.extra_maps.update({f"area {area:g}": each[:, i] for i, area in enumerate(chosen)})
    _tell(search, masks, chosen)
    return each.mean(1)


def areas_of(asked: Any) -> list[float]:
    """Areas as fractions, in growing order.

    Raises:
        SettingError: something else than numbers between 0 and 1.
    """
    parts = asked.split("+") if isinstance(asked, str) else asked if isinstance(asked, (list, tuple)) else [asked]
    try:
        found = sorted(float(part) for part in parts)
    except (TypeError, ValueError) as error:
        raise SettingError(f'areas={asked!r}; give fractions such as 0.1, [0.1, 0.2] or "0.1+0.2"') from error
    if not 1 <= len(found) <= MOST_AREAS or len(set(found)) < len(found):
        raise SettingError(f"areas={asked!r}; give 1 to {MOST_AREAS} different areas")
    if not all(isfinite(area) and 0 < area < 1 for area in found):
        raise SettingError(f"areas={asked!r}; an area is a fraction of the picture, above 0 and below 1, such as 0.1")
    return found


def _growing() -> Balance:
    """The area counts more from step to step; both slopes in units of their largest size so far, mask by mask."""
    largest: list[Tensor] = []

    def balance(cost: Tensor, reward: Tensor, done: float) -> Tensor:
        both = torch.stack([cost, reward])
        sizes = both.abs().flatten(2).sum(2)
        largest[:] = [torch.maximum(largest[0], sizes) if largest else sizes]
        down, up = both / largest[0].clamp(min=torch.finfo(both.dtype).tiny).view(*sizes.shape, *[1] * (cost.dim() - 1))
        return LIGHT * (HEAVY / LIGHT) ** done * down - up

    return balance


def _tell(search: Search, masks: Tensor, areas: list[float]) -> None:
    """The curve of every image, and whether its masks have their areas."""
    case = search.case
    kept, left = (part.view(len(case.x), -1).tolist() for part in search.answers(masks))
    real = masks.flatten(1).mean(1).view(len(case.x), -1).tolist()
    empty, full = scores_of(case, search.paint, search.method).tolist(), case.score().tolist()
    columns = ("area (fraction)", "score of what is kept", "score of the rest", "area of the mask (fraction)")
    for image, checks in enumerate(case.checks):
        rows = [(0.0, empty[image], full[image], 0.0)]
        rows += list(zip(areas, kept[image], left[image], real[image], strict=True))
        rows.append((1.0, full[image], empty[image], 1.0))
        case.tables[image].append(curve("areas", columns, rows, _smallest(rows[1:-1], full[image])))
        off = max(abs(found - area) for found, area in zip(real[image], areas, strict=True))
        text = f"the masks miss their areas by at most {off:.3f} of the picture; more steps, or larger areas, help"
        checks.append(Check("area error", off, AREA_OFF, "pass" if off <= AREA_OFF else "warn", text))


def _smallest(rows: list[tuple[float, float, float, float]], full: float) -> str:
    """The paper's equation 3: the smallest area that alone reaches the score of the whole picture."""
    enough = next((area for area, kept, _, _ in rows if kept >= full), None)
    if enough is None:
        return "no mask alone reaches the score of the whole picture"
    return f"a mask of {enough:g} of the picture alone reaches the score of the whole picture"
