"""RISE, XRAI and the pieces of the searched masks, against the slow definitions, on small float64 networks."""

import itertools
import math
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import D, close, outcome, plain, random_input
from oracles import masks, xrai
from pellucid.methods import xrai as ours
from pellucid.methods.masks import smooth
from pellucid.methods.masks.random_grids import RandomGrids
from whatif_cases import EXACT, as_given, blocks, images, numbers, table

P = 0.4


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> dict[int, tuple[Tensor, Tensor]]:
    """The grids and shifts that RISE drew, by the number of the mask."""
    seen: dict[int, tuple[Tensor, Tensor]] = {}
    usual = RandomGrids.drawn

    def kept(self: RandomGrids, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        found = usual(self, samples)
        seen.update(zip(samples, zip(*found, strict=True), strict=True))
        return found

    monkeypatch.setattr(RandomGrids, "drawn", kept)
    return seen


def written_out(drawn: dict[int, tuple[Tensor, Tensor]], count: int, space: Sequence[int]) -> list[Tensor]:
    """The first masks, enlarged and cut by hand."""
    both = [drawn[number] for number in range(count)]
    return [masks.rise_mask(grid.to(D), shift.tolist(), space) for grid, shift in both]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_rise(axes: int, drawn: dict[int, tuple[Tensor, Tensor]]) -> None:
    """The paper's sum; the drawing is fair, and the shifts lie within a cell."""
    model, x = plain(axes), images(2, axes)
    words: dict[str, Any] = {"samples": 14, "cells": 3, "keep_fraction": P, "centred": False}
    found = outcome(model, x, "rise", targets=2, **words).attribution
    shown = written_out(drawn, 14, x.shape[2:])
    assert {int(s) for _, shift in drawn.values() for s in shift} == {0, 1, 2}
    for image in range(2):
        close(found[image], masks.rise(model, x[image], torch.zeros_like(x[image]), 2, shown, P), EXACT)


def test_rise_centred_under_two_paints(drawn: dict[int, tuple[Tensor, Tensor]]) -> None:
    """Σ (f − f̄) M / (p N) for each paint, then their mean."""
    model, x, paint = plain(), images(2, 2), random_input(3, 8, 8, seed=3)
    found = outcome(model, x, "rise", samples=40, cells=3, keep_fraction=P, fill=[paint, "zero"]).attribution
    shown = written_out(drawn, 40, x.shape[2:])
    for image in range(2):
        maps = [centred(model, x[image], under, shown)[0] for under in (paint, torch.zeros_like(paint))]
        close(found[image], torch.stack(maps).mean(0), EXACT)


def centred(model: nn.Module, x: Tensor, paint: Tensor, shown: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The map of the scores less their mean, and its standard error.

    Σ (f − f̄) M = Σ (f − f̄) (M − p), since the weights sum to zero; the second has terms that are independent.
    """
    scores = [masks.ask(model, masks.mixed(x, mask, paint), 1) for mask in shown]
    middle = sum(scores) / len(scores)
    terms = torch.stack([(score - middle) * mask / P for score, mask in zip(scores, shown, strict=True)])
    free = torch.stack([(score - middle) * (mask - P) / P for score, mask in zip(scores, shown, strict=True)])
    return terms.mean(0), free.std(0) / len(shown) ** 0.5


def test_rises_standard_error(drawn: dict[int, tuple[Tensor, Tensor]]) -> None:
    model, x = plain(), images(1, 2)
    found = outcome(model, x, "rise", samples=50, cells=3, keep_fraction=P)
    heat, error = centred(model, x[0], torch.zeros_like(x[0]), written_out(drawn, 50, x.shape[2:]))
    close(found.attribution[0], heat, EXACT)
    close(found.extra_maps["standard error"][0], error, EXACT)


def test_rise_of_an_image_alone_and_in_a_batch() -> None:
    model, x = plain(), images(3, 2)
    words: dict[str, Any] = {"samples": 20, "cells": 3}
    alone = [outcome(model, one[None], "rise", **words).attribution for one in x]
    close(outcome(model, x, "rise", **words).attribution, torch.cat(alone), EXACT)


# ------------------------------------------------------------------------------------------------------ searched masks


@pytest.mark.parametrize("space", [(24,), (8, 6), (4, 4, 3)])
def test_area_penalty(space: tuple[int, ...]) -> None:
    drawn = random_input(2, *space, seed=2).sigmoid()
    found = smooth.area_penalty(drawn, torch.tensor([0.25, 0.5], dtype=D))
    expected = [masks.area_loss(mask, area) for mask, area in zip(drawn, (0.25, 0.5), strict=True)]
    close(found, torch.tensor(expected, dtype=D), EXACT)


@pytest.mark.parametrize("radius", [1.0, 3.0, 5.0])
@pytest.mark.parametrize(("space", "grid"), [((24,), (6,)), ((16, 12), (4, 3)), ((8, 8, 8), (2, 2, 2))])
def test_dots(space: tuple[int, ...], grid: tuple[int, ...], radius: float) -> None:
    """Cells of 4 px, dots that fall over β = 2 px to 3 β; the smooth maximum is taken at the centres of the cells and
    of one ring of empty cells around the picture.
    """
    given, side, fall = random_input(1, *grid, seed=1).sigmoid(), 4.0, 2.0
    at_cells = torch.zeros([n + 2 for n in grid], dtype=D)
    for here in itertools.product(*(range(-1, n + 1) for n in grid)):
        values = []
        for there in itertools.product(*(range(-6, n + 6) for n in grid)):
            distance = side * math.dist(here, there)
            if distance <= radius + 3 * fall:
                inside = all(0 <= t < n for t, n in zip(there, grid, strict=True))
                height = math.exp(-0.5 * (max(0.0, distance - radius) / fall) ** 2)
                values.append(height * float(given[0][there]) if inside else 0.0)
        at_cells[tuple(h + 1 for h in here)] = masks.smooth_max(values)
    wider = masks.enlarged(at_cells, [n + 8 for n in space])
    expected = wider[tuple(slice(4, 4 + n) for n in space)]
    close(smooth.Dots(space, min(grid), radius, given)(given)[0], expected, EXACT)


@pytest.mark.parametrize("space", [(24,), (8, 6), (4, 4, 3)])
def test_total_variation(space: tuple[int, ...]) -> None:
    """Theirs is the mean over the cells."""
    drawn = random_input(2, *space, seed=2).sigmoid()
    expected = [masks.total_variation(mask, 3.0) / mask.numel() for mask in drawn]
    close(smooth.total_variation(drawn, 3.0), torch.tensor(expected, dtype=D), EXACT)


def kept_and_rest(model: nn.Module, x: Tensor, paint: Tensor, mask: Tensor) -> list[float]:
    return [masks.ask(model, masks.mixed(x, part, paint), 2) for part in (mask, 1 - mask)]


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_extremal_perturbation_tells_what_its_masks_do(axes: int) -> None:
    """The map is the mean of the masks; the curve has the scores with what each keeps and with the rest."""
    model, x, paint = plain(axes), images(2, axes), random_input(3, *[8] * axes, seed=8)
    words: dict[str, Any] = {"steps": 6, "cells": 4, "areas": "0.1+0.4", "fill": paint}
    found = outcome(model, x, "extremal_perturbation", targets=2, **words)
    each = torch.stack(list(found.extra_maps.values()))
    assert len(each) == 2
    assert bool(((each >= 0) & (each <= 1)).all())
    close(found.attribution, each.mean(0), EXACT)
    for image in range(2):
        rows = [[kept, rest] for kept, rest in (kept_and_rest(model, x[image], paint, mask[image]) for mask in each)]
        nothing, everything = masks.ask(model, paint, 2), masks.ask(model, x[image], 2)
        expected = torch.tensor([[nothing, everything], *rows, [everything, nothing]], dtype=D)
        curve = table(found, image, "areas")
        close(numbers(curve, "score of what is kept"), expected[:, 0], EXACT)
        close(numbers(curve, "score of the rest"), expected[:, 1], EXACT)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_meaningful_perturbation_tells_what_its_mask_does(axes: int) -> None:
    model, x, paint = plain(axes), images(2, axes), random_input(3, *[8] * axes, seed=8)
    words: dict[str, Any] = {"steps": 6, "cells": 4, "fill": paint}
    found = outcome(model, x, "meaningful_perturbation", targets=2, **words)
    for image in range(2):
        mask, rows = found.attribution[image], table(found, image, "mask")
        marked, rest = kept_and_rest(model, x[image], paint, mask)
        expected = [float(mask.mean()), masks.ask(model, x[image], 2), marked, rest, masks.ask(model, paint, 2)]
        told = torch.cat([numbers(rows, name) for name in rows.columns])
        close(told, torch.tensor(expected, dtype=D), EXACT)


# ---------------------------------------------------------------------------------------------------------------- XRAI


def overlapping(space: Sequence[int], count: int, seed: int) -> Tensor:
    """Random segments, a pixel in several of them or in none."""
    return random_input(count, *space, seed=seed) > 0.6


@pytest.mark.parametrize("least", [1, 4])
@pytest.mark.parametrize("space", [(30,), (6, 7), (4, 3, 5)])
def test_ranking(space: tuple[int, ...], least: int) -> None:
    segments, attribution = overlapping(space, 9, 1), random_input(*space, seed=2)
    expected = xrai.rank(list(segments), attribution, least)
    found = ours.ranked(attribution.flatten(), segments.flatten(1), least)
    assert [entry.region for entry in found] == expected.order
    close(
        torch.tensor([float(entry.density) for entry in found], dtype=D), torch.tensor(expected.gains, dtype=D), EXACT
    )


@pytest.mark.parametrize(("space", "radius"), [((12,), 2), ((7, 9), 1), ((5, 6, 4), 1)])
def test_widened(space: tuple[int, ...], radius: int) -> None:
    """A pixel is in a widened segment if any pixel of it lies within the radius along every axis."""
    segments = random_input(3, *space, seed=3) > 1.5
    expected = torch.zeros_like(segments)
    for index, segment in enumerate(segments):
        for place in torch.nonzero(segment).tolist():
            near = tuple(slice(max(0, p - radius), p + radius + 1) for p in place)
            expected[(index, *near)] = True
    assert torch.equal(ours.widened(segments, radius), expected)


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_xrai(axes: int, outside: bool) -> None:
    """Regions that don't overlap, from a zero baseline; what lies in none comes last."""
    model, x, labels = plain(axes), images(2, axes), blocks(axes, outside)
    words: dict[str, Any] = {"baseline": torch.zeros_like(x), "steps": 8, "dilation_fraction": 0.0}
    found = outcome(model, x, "xrai", targets=2, regions=as_given(labels), **words)
    (own,) = found.extra_maps.values()
    for image in range(2):
        segments = [labels == region for region in range(4)]
        close(found.attribution[image], xrai.rank(segments, own[image]).heat, EXACT)
        whole = own[image].sum()
        assert abs(float(found.attribution[image].sum() - whole)) <= EXACT * float(own[image].abs().sum())


def test_xrai_with_widened_regions() -> None:
    model, x, labels = plain(), images(1, 2), blocks(2)
    words: dict[str, Any] = {"baseline": torch.zeros_like(x), "steps": 8, "dilation_fraction": 1 / 8}
    found = outcome(model, x, "xrai", regions=labels, **words)
    (own,) = found.extra_maps.values()
    segments = ours.widened(torch.stack([labels == region for region in range(4)]), 1)
    close(found.attribution[0], xrai.rank(list(segments), own[0]).heat, EXACT)
    assert len(set(found.attribution[0].flatten().tolist())) > 1
