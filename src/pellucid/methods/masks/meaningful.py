"""Meaningful perturbation: the least that has to be hidden, or shown, at a price (B8)."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.core.tables import table
from pellucid.methods.case import Case
from pellucid.methods.masks.ground import exact_enough, inside_image, one_paint, scores_of
from pellucid.methods.masks.search import Search, check_search
from pellucid.methods.masks.smooth import grid_of, softened, total_variation
from pellucid.methods.registry import method

START = {"preserve": 1.0, "delete": 0.0}  # both begin with the whole picture
LEAST_CHANGE = 0.05  # of the score, below which the change to the paint is no measure


@method(
    "meaningful_perturbation",
    title="Meaningful perturbation",
    site="input",
    signed=False,
    reduce="none",
    units="how much of the pixel is hidden (delete) or shown (preserve), 0 to 1",
    source="Fong & Vedaldi 2017, arXiv:1704.03296, equations 3 to 6; from memory",
    misleads="when the mask's size is read as the object's: the price decides it, and a mask may hide what merely "
    "confuses the network; compare several prices",
)
def meaningful_perturbation(
    case: Case,
    *,
    variant: Annotated[
        Literal["preserve", "delete"], "show as little as keeps the score, or hide as little as destroys it"
    ] = "delete",
    area_price: Annotated[float, "λ1: what a marked picture costs, in units of the score's whole change"] = 1.0,
    edge_price: Annotated[float, "λ2: what the mask's edges cost"] = 0.3,
    power: Annotated[float, "β of the total variation"] = 3.0,
    steps: Annotated[int, "steps of the search, one gradient each"] = 150,
    fill: Annotated[Any, "what is seen where a picture is hidden: auto (blur), another fill, or a tensor"] = "auto",
    cells: Annotated[int, "parameters of the mask along the shortest side; 0 is 10, or as many as fit"] = 0,
    blur_fraction: Annotated[float, "standard deviation of the mask's blur, as a fraction of the shortest side"] = 0.02,
    jitter_fraction: Annotated[float, "largest random shift of the picture, as a fraction of its shortest side"] = 0.03,
    rate: Annotated[float, "how far a parameter moves in a step"] = 0.05,
) -> Float[Tensor, "b *space"]:
    """`min_m λ1 ‖m‖₁ / |Ω| + λ2 TV_β(m) + E_τ f((1 − m) ⊙ x_τ + m ⊙ fill_τ) / |f(x) − f(fill)|`.

    m marks what is hidden (the paper's mask is 1 − m). `preserve` is the other game: m marks what is shown, and its
    score is kept up. The mask comes from a coarse grid, enlarged and blurred; τ shifts the picture at random. The score
    is divided by its change to the fill, so that at λ1 = 1 a pixel is worth marking when it does more than its share.
    The table tells the area of the mask and the scores with and without what it marks.

    Raises:
        SettingError: settings outside their limits, a fill for hard masks.
        MethodError: a score that is no number.
    """
    _check(area_price, edge_price, power, blur_fraction)
    cells = inside_image(cells, 10, case)
    check_search(steps, rate, jitter_fraction)
    paint, space = one_paint(case, fill), case.x.shape[2:]
    shortest = min(space)

    def masks_of(grids: Tensor) -> Tensor:
        return softened(grids, space, blur_fraction * shortest)

    def cost(grids: Tensor, masks: Tensor) -> Tensor:
        return area_price * masks.flatten(1).mean(1) + edge_price * total_variation(grids, power)

    rows, jitter = list(range(len(case.x))), round(jitter_fraction * shortest)
    whole, empty = case.score(), scores_of(case, paint, "meaningful_perturbation")
    change = torch.maximum((whole - empty).abs(), LEAST_CHANGE * whole.abs()).clamp(min=torch.finfo(paint.dtype).tiny)

    def balance(down: Tensor, up: Tensor, _: float) -> Tensor:
        return down - up / change.view(-1, *[1] * (down.dim() - 1))

    search = Search(case, "meaningful_perturbation", rows, paint, variant, masks_of, cost, balance, jitter)
    begin = exact_enough(case.x).new_full((len(rows), *grid_of(space, cells)), START[variant])
    masks = masks_of(search.found(begin, steps, rate))
    columns = (
        "area of the mask (fraction)",
        "score",
        "score of what is marked",
        "score of the rest",
        "score of the fill",
    )
    area, (kept, left) = masks.flatten(1).mean(1), search.answers(masks)
    for image, row in enumerate(zip(*(t.tolist() for t in (area, whole, kept, left, empty)), strict=True)):
        case.tables[image].append(table("mask", columns, [row], "what the network says with and without the mask"))
    return masks


def _check(area_price: float, edge_price: float, power: float, blur_fraction: float) -> None:
    for name, value in (("area_price", area_price), ("edge_price", edge_price)):
        if value < 0:
            raise SettingError(f"{name}={value}; use 0 or more, such as 1")
    if power < 1:
        raise SettingError(f"power={power}; use 1 or more, such as 3")
    if not 0 <= blur_fraction <= 0.25:
        raise SettingError(f"blur_fraction={blur_fraction}; use 0 to 0.25, such as 0.02")
