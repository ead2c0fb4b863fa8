"""The game whose players are regions of a picture: those that are away are covered."""

from typing import Any

import torch
from jaxtyping import Float, Int64
from torch import Tensor

from pellucid.core.edits import covered
from pellucid.core.errors import SettingError
from pellucid.images.fills import fills
from pellucid.images.regions import Regions
from pellucid.methods.case import Case
from pellucid.methods.covering import Paint, paint_of, regions_of
from pellucid.methods.shapley.game import Game

FILL = (
    "what covers a region: mean (the picture's mean colour), region_mean (each region's own), grey, black, white, "
    "blur, noise, inpaint, zero, donor:PATH, or a tensor of inputs"
)
REGIONS = "slic, grid, felzenszwalb, quickshift, with a number as in slic:80; a file; or an array of labels"


def several_regions(case: Case, asked: Any, image: int, count: int) -> Regions:
    """The regions of one image, two or more.

    Raises:
        SettingError: one region only.
    """
    found = regions_of(case, asked, image, count=count)
    if found.count < 2:
        raise SettingError(
            f"{found.count} region came ({found.kind}); regions share the score among them, so give two or more, as in "
            'regions="grid:16"'
        )
    return found


def covering(case: Case, image: int, regions: Regions, fill: Any) -> Game:
    """The game of one image's regions; pixels of no region are always seen.

    Raises:
        SettingError: no such fill, or several.
    """
    x, labels = case.x[image : image + 1], regions.labels.to(case.x.device)
    paint = _paint(case, image, labels, fill)

    def ask(keep: Tensor) -> Tensor:
        return case.answers(covered(x, paint, labels, keep.to(x.device), image))

    return Game(regions.count, ask, float(case.score()[image]), "regions {} covered", regions.names)


def _paint(case: Case, image: int, labels: Int64[Tensor, "*space"], fill: Any) -> Paint:
    """What covers one image. Regions' means are taken of the inputs, since normalising keeps them."""
    x = case.x[image : image + 1]
    if isinstance(fill, str) and fill.strip() == "region_mean":
        return region_means(x[0], labels)[None]
    chosen, *more = fills(fill)
    if more:
        names = ", ".join(one.name for one in (chosen, *more))
        raise SettingError(f"{1 + len(more)} fills came ({names}); this method takes one at a time")
    return paint_of(case, chosen, image)


def region_means(x: Float[Tensor, "c *space"], labels: Int64[Tensor, "*space"]) -> Float[Tensor, "c *space"]:
    """Each pixel as the mean of its region; pixels of label -1 as they are."""
    flat, where = x.flatten(1), labels.flatten()
    known = where >= 0
    sums = x.new_zeros(len(x), int(labels.max()) + 1).index_add_(1, where[known], flat[:, known])
    sizes = torch.bincount(where[known]).to(x)
    found = flat.clone()
    found[:, known] = (sums / sizes)[:, where[known]]
    return found.view_as(x)


def painted(values: Float[Tensor, " n"], labels: Int64[Tensor, "*space"], like: Tensor) -> Float[Tensor, "*space"]:
    """One value for each region, on all of its pixels; zero where there is no region."""
    return torch.cat([values, values.new_zeros(1)]).to(like)[labels.to(like.device)]
