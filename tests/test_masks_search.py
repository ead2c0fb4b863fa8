"""Masks that are searched for: slow definitions, slopes against finite differences, planted answers."""

import math
from collections.abc import Sequence
from itertools import permutations, product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import D, case, close, heat, outcome, plain, pooled, random_input
from pellucid.core import target
from pellucid.core.baselines import blur
from pellucid.methods.masks.search import Search
from pellucid.methods.masks.smooth import COLDNESS, FADED, Dots, area_penalty, grid_of, softened, total_variation
from test_masks import Linear, tent


def smooth_maximum(values: list[float]) -> float:
    shares = [math.exp(COLDNESS * z) for z in values]
    return sum(z * e for z, e in zip(values, shares, strict=True)) / sum(shares)


@pytest.mark.parametrize(("space", "cells"), [((12,), 4), ((12, 9), 3), ((6, 7, 8), 3)])
def test_a_dotted_mask_is_the_slow_definition(space: tuple[int, ...], cells: int):
    grid, radius = random_input(*grid_of(space, cells), seed=3).sigmoid(), 2.5
    sides = [n / c for n, c in zip(space, grid.shape, strict=True)]
    centre = lambda cell: [(c + 0.5) * side for c, side in zip(cell, sides, strict=True)]  # noqa: E731

    def at_cell(u: tuple[int, ...]) -> float:
        """Around the image there are no dots; nothing counts as far as a dot would reach."""
        values = []
        for v in product(*(range(c - 5, c + 6) for c in u)):
            beyond = max(0.0, math.dist(centre(u), centre(v)) - radius) / (max(sides) / 2)
            inside = all(0 <= c < n for c, n in zip(v, grid.shape, strict=True))
            if beyond <= FADED:
                values.append(math.exp(-0.5 * beyond**2) * float(grid[v]) if inside else 0.0)
        return smooth_maximum(values)

    low = {u: at_cell(u) for u in product(*(range(-1, n + 1) for n in grid.shape))}
    slow = torch.zeros(space, dtype=D)
    for pixel in product(*map(range, space)):
        for u, value in low.items():
            far = [abs(p + 0.5 - c) / side for p, c, side in zip(pixel, centre(u), sides, strict=True)]
            slow[pixel] += value * math.prod(max(0.0, 1 - f) for f in far)
    dots = Dots(space, cells, radius, grid)
    close(dots(grid[None])[0], slow, 1e-12)
    assert not dots.around(torch.zeros_like(grid)[None]).any()
    around = dots.around(torch.ones_like(grid)[None])
    edge = [slice(0, 1), *[slice(None)] * (len(space) - 1)]
    assert float(around[(slice(None), *edge)].max()) <= 0.1  # where the margin ends every dot has faded


def test_a_soft_edge_costs_the_same_at_the_images_edge():
    dots = Dots((20,), 20, 2.0, torch.zeros((), dtype=D))
    grids = torch.zeros(2, 20, dtype=D)
    grids[0, 8:12], grids[1, 15:20] = 1.0, 1.0
    areas = dots(grids).sum(1).round() / 20
    inner, edge = area_penalty(dots.around(grids), areas, dots.inside).tolist()
    assert edge == pytest.approx(inner, rel=0.5)
    assert area_penalty(dots(grids), areas)[1] < 0.6 * edge  # without its margin the edge would be preferred


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_a_softened_mask_is_enlarged_and_blurred(axes: int):
    grids, space = random_input(2, *[3] * axes).sigmoid(), (7, 6, 5)[:axes]
    plain_masks = softened(grids, space, 0.0)
    for grid, found in zip(grids, plain_masks, strict=True):
        slow = torch.zeros(space, dtype=D)
        for pixel in product(*map(range, space)):
            for cell in product(*map(range, grid.shape)):
                shown = [tent(u, c, n, g) for u, c, n, g in zip(pixel, grid.shape, space, cell, strict=True)]
                slow[pixel] += grid[cell] * math.prod(shown)
        close(found, slow, 1e-12)
    close(softened(grids, space, 0.7), blur(plain_masks[:, None], 0.7)[:, 0], 1e-12)


def test_the_area_penalty_is_that_of_the_sorted_mask():
    masks, areas = random_input(4, 5, 6).sigmoid(), torch.tensor([0.1, 0.3, 0.5, 0.98], dtype=D)
    for mask, area, found in zip(masks, areas.tolist(), area_penalty(masks, areas), strict=True):
        ones = round(area * 30)
        ideal = [0.0] * (30 - ones) + [1.0] * ones
        values = zip(sorted(mask.flatten().tolist()), ideal, strict=True)
        assert float(found) == pytest.approx(sum((m - r) ** 2 for m, r in values) / 30, abs=1e-14)


def test_equal_values_are_pushed_alike():
    """The slope at a tie is the mean of the slopes over all orders of the equal pixels."""
    values = [0.2, 0.6, 0.6, 0.6, 0.9]
    mask = torch.tensor([values], dtype=D, requires_grad=True)
    (slope,) = torch.autograd.grad(area_penalty(mask, torch.tensor([0.4], dtype=D)).sum(), mask)
    orders = []
    for one, *_ in permutations((1, 2, 3)):
        ideal = [0.0, *[float(i == one) for i in (1, 2, 3)], 1.0]
        orders.append([2 * (m - r) / 5 for m, r in zip(values, ideal, strict=True)])
    close(slope[0], torch.tensor(orders, dtype=D).mean(0), 1e-14)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_total_variation_is_the_slow_sum(axes: int):
    grids = random_input(2, *(3, 4, 5)[:axes])
    for grid, found in zip(grids, total_variation(grids, 3.0), strict=True):
        slow = 0.0
        for u in product(*map(range, grid.shape)):
            for axis in range(axes):
                v = tuple(p + (a == axis) for a, p in enumerate(u))
                slow += abs(float(grid[v] - grid[u])) ** 3 if v[axis] < grid.shape[axis] else 0.0
        assert float(found) == pytest.approx(slow / grid.numel(), rel=1e-12)


@pytest.mark.parametrize("variant", ["preserve", "delete", "both"])
@pytest.mark.parametrize("kind", ["dotted", "softened"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_slopes_are_finite_differences(variant: str, kind: str, axes: int):
    model, x, paint = plain(axes, act=nn.Tanh), random_input(2, 3, *[8] * axes), random_input(2, 3, *[8] * axes, seed=1)
    space, rows, shift = (8,) * axes, [0, 0, 1], [1, -2, 0][:axes]
    dots, areas = Dots(space, 4, 1.5, x), torch.full((3,), 0.4, dtype=D)
    if kind == "dotted":
        masks_of, cost = dots, lambda g, m: area_penalty(dots.around(g), areas, dots.inside)
    else:
        masks_of, cost = lambda g: softened(g, space, 0.7), lambda g, m: m.flatten(1).mean(1) + total_variation(g, 3.0)
    search = Search(case(model, x, target.logit(1)), "m", rows, paint, variant, masks_of, cost, lambda a, b, _: a)
    grids = random_input(3, *[4] * axes, seed=2).sigmoid()

    def moved(images: Tensor) -> Tensor:
        for axis, by in enumerate(shift, 2):
            places = [min(max(u - by, 0), 7) for u in range(8)]
            images = images.index_select(axis, torch.tensor(places))
        return images

    def values(g: Tensor) -> tuple[Tensor, Tensor]:
        m, (old, new) = masks_of(g), (moved(t)[rows] for t in (x, paint))
        m = m[:, None]
        kept, left = (model(old * a + new * (1 - a))[:, 1] for a in (m, 1 - m))
        return cost(g, m[:, 0]), {"preserve": kept, "delete": -left, "both": kept - left}[variant]

    step, way = 1e-6, random_input(3, *[4] * axes, seed=7)
    for found, after, before in zip(
        search.slopes(grids, shift), values(grids + step * way), values(grids - step * way), strict=True
    ):
        slow = ((after - before) / (2 * step)).detach()
        close((found * way).flatten(1).sum(1), slow, 1e-6)


# ---------------------------------------------------------------------------------------------------- planted answers


def planted(space: tuple[int, ...], centre: Sequence[float], radius: float) -> Tensor:
    """True in a disc (a ball, an interval)."""
    places = torch.meshgrid(*(torch.arange(n, dtype=D) for n in space), indexing="ij")
    return sum(((p - c) ** 2 for p, c in zip(places, centre, strict=True)), torch.zeros(space, dtype=D)) <= radius**2


class Reads(nn.Module):
    """The second score is a smooth function of the mean brightness inside one region; nothing else is read."""

    def __init__(self, region: Tensor) -> None:
        super().__init__()
        self.region = nn.Parameter(region.to(D) / region.sum())

    def forward(self, x: Tensor) -> Tensor:
        one = 4 * torch.tanh((self.region * x.mean(1)).flatten(1).sum(1))
        return torch.stack([-one, one], 1)


def overlap(mask: Tensor, region: Tensor) -> float:
    hard = mask >= 0.5
    return float((hard & region).sum() / (hard | region).sum())


PLANTED: list[tuple[tuple[int, ...], tuple[int, ...], float]] = [
    ((40,), (28,), 6), ((32, 32), (20, 11), 7), ((12, 12, 12), (8, 4, 6), 4)
]  # fmt: skip


@pytest.mark.parametrize(
    ("variant", "space", "centre", "radius"),
    [(v, *where) for v in ("preserve", "delete", "both") for where in PLANTED[: 3 if v == "preserve" else 2]],
)
def test_an_extremal_mask_covers_what_is_read(variant: str, space: tuple[int, ...], centre: Any, radius: float):
    region = planted(space, centre, radius)
    area = float(region.double().mean())
    words = {"areas": area, "variant": variant, "fill": "zero", "steps": 60, "cells": 12 if len(space) == 3 else 16}
    found = outcome(Reads(region), torch.ones(1, 2, *space, dtype=D), "extremal_perturbation", **words)
    (mask,) = found.attribution
    assert overlap(mask, region) >= 0.7
    assert abs(float(mask.mean()) - area) <= 0.03
    (table,) = found.tables[0]
    kept, left = table.column("score of what is kept")[1], table.column("score of the rest")[1]
    assert isinstance(kept, float) and isinstance(left, float)
    assert kept >= 0.9 * 4 * math.tanh(1)
    assert left <= 0.5 * 4 * math.tanh(1)


@pytest.mark.parametrize("seed", [0, 1])
def test_the_masks_keep_their_areas_on_a_network(seed: int):
    areas = [0.1, 0.2, 0.4]
    x = random_input(2, 3, 24, 24, seed=seed)
    found = outcome(pooled(), x, "extremal_perturbation", areas=areas, fill="zero", steps=60, seed=seed)
    each = torch.stack([found.extra_maps[f"area {a:g}"] for a in areas], 1)
    close(found.attribution, each.mean(1), 1e-14)
    real = each.flatten(2).mean(2)
    assert float((real - torch.tensor(areas, dtype=D)).abs().max()) <= 0.03
    for image, receipt in enumerate(found.receipts):
        (check,) = [c for c in receipt.checks if c.name == "area error"]
        assert check.verdict == "pass"
        assert check.value == pytest.approx(float((real[image] - torch.tensor(areas, dtype=D)).abs().max()), abs=1e-12)
        (table,) = found.tables[image]
        model = pooled()
        masked = each[image][:, None] * x[image]
        close(torch.tensor(table.column("score of what is kept")[1:-1]).to(D), model(masked)[:, 1].detach(), 1e-6)
        close(
            torch.tensor(table.column("score of the rest")[1:-1]).to(D), model(x[image] - masked)[:, 1].detach(), 1e-6
        )


@pytest.mark.parametrize("variant", ["preserve", "delete"])
def test_a_meaningful_mask_marks_what_is_worth_its_price(variant: str):
    """For a linear score without edges, blur and shifts a pixel is marked if its share is more than λ1 of the mean."""
    x, weights = torch.ones(1, 1, 8, 8, dtype=D), random_input(1, 8, 8, seed=3).abs() + 0.05
    words = {"edge_price": 0.0, "blur_fraction": 0.0, "jitter_fraction": 0.0, "cells": 8, "fill": "zero", "steps": 200}
    for price in (0.5, 1.0, 2.0):
        found = heat(Linear(weights), x, "meaningful_perturbation", variant=variant, area_price=price, **words)[0]
        share = weights[0] / weights.mean()
        sure = (share - price).abs() > 0.05
        assert torch.equal(found[sure], (share > price).to(D)[sure])


def test_a_meaningful_mask_covers_what_is_read():
    region = planted((32, 32), (20, 11), 7)
    x = torch.ones(1, 2, 32, 32, dtype=D)
    for variant in ("preserve", "delete"):
        found = outcome(Reads(region), x, "meaningful_perturbation", variant=variant, fill="zero", jitter_fraction=0.0)
        assert overlap(found.attribution[0], region) >= 0.6
        (table,) = found.tables[0]
        assert table.column("area of the mask (fraction)")[0] == pytest.approx(float(found.attribution.mean()))
    high = heat(Reads(region), x, "meaningful_perturbation", fill="zero", area_price=100.0)
    assert float(high.max()) <= 0.02
