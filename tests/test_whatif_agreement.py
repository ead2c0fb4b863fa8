"""Occlusion, of windows and of regions, as the methods give it, against the slow definitions.

Small float64 networks, several images and targets, one to three axes.
"""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import COLOURS, D, close, outcome, outcomes, plain, pooled, random_input
from oracles import inpainting, occlusion
from pellucid.core.tables import Table
from pellucid.images.fills import fills
from whatif_cases import EXACT, as_given, blocks, images, normalised, numbers, painted, photos, pixels_of, table

# ----------------------------------------------------------------------------------------------------------- occlusion

WINDOWS = [
    (1, "3", "2"),
    (1, "5", "5"),
    (2, "3", "3"),
    (2, "4x3", "2x1"),
    (2, "8", "8"),
    (2, "5", "2"),
    (3, "4x5x3", "3x4x2"),
]


@pytest.mark.parametrize("plan", ["auto", "full", "incremental"])
@pytest.mark.parametrize(("axes", "window", "stride"), WINDOWS)
def test_occlusion(axes: int, window: str, stride: str, plan: str) -> None:
    model, x = plain(axes), images(2, axes)
    found = outcome(model, x, "occlusion", targets=2, fill="zero", window_px=window, stride_px=stride, plan=plan)
    sides = [[int(n) for n in (text.split("x") if "x" in text else [text] * axes)] for text in (window, stride)]
    for image in range(2):
        expected = occlusion.occlusion(model, x[image], torch.zeros_like(x[image]), 2, sides[0], sides[1])
        close(found.attribution[image], expected, EXACT)


def test_occlusion_of_several_targets() -> None:
    """Three numbers for two images are three targets; two are one for each."""
    model, x = pooled().eval(), images(2, 2)
    words = {"fill": "zero", "window_px": 3, "stride_px": 2}
    maps = {
        (index, image): occlusion.occlusion(model, x[image], torch.zeros_like(x[image]), index, [3, 3], [2, 2])
        for index in (0, 3, 4)
        for image in range(2)
    }
    for index, found in zip((0, 3, 4), outcomes(model, x, "occlusion", targets=[0, 3, 4], **words), strict=True):
        close(found.attribution, torch.stack([maps[index, 0], maps[index, 1]]), EXACT)
    each = outcome(model, x, "occlusion", targets=[3, 0], **words)
    close(each.attribution, torch.stack([maps[3, 0], maps[0, 1]]), EXACT)


def test_occlusion_under_a_given_paint() -> None:
    model, x, paint = plain(), images(2, 2), random_input(3, 8, 8, seed=7)
    found = outcome(model, x, "occlusion", fill=paint, window_px=3, stride_px=2).attribution
    for image in range(2):
        close(found[image], occlusion.occlusion(model, x[image], paint, 1, [3, 3], [2, 2]), EXACT)


def test_an_image_alone_and_in_a_batch() -> None:
    model, x = plain(), photos(3)
    words: dict[str, Any] = {"fill": "noise+mean", "window_px": 3, "stride_px": 2, "preprocess": COLOURS}
    alone = [outcome(model, one[None], "occlusion", **words).attribution for one in x]
    close(outcome(model, x, "occlusion", **words).attribution, torch.cat(alone), EXACT)


def test_fills_and_their_disagreement() -> None:
    model, x, names = plain(), photos(2), ("grey", "black", "white", "mean")
    settings: dict[str, Any] = {"fill": "+".join(names), "window_px": 4, "stride_px": 3, "preprocess": COLOURS}
    found = outcome(model, x, "occlusion", **settings)
    for image in range(2):
        maps = [occlusion.occlusion(model, x[image], painted(name, x[image]), 1, [4, 4], [3, 3]) for name in names]
        close(found.attribution[image], torch.stack(maps).mean(0), EXACT)
        (spread,) = [m[image] for name, m in found.extra_maps.items() if "disagree" in name]
        close(spread, occlusion.disagreement(maps), EXACT)
        for name, expected in zip(names, maps, strict=True):
            (own,) = [m[image] for label, m in found.extra_maps.items() if name in label and "disagree" not in label]
            close(own, expected, EXACT)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_inpainting(axes: int) -> None:
    """Its own promise: no hidden pixel further than 3e-5 from its neighbours' mean, 1e-3 from the exact solution."""
    pixels = torch.rand(3, *[9] * axes, generator=torch.Generator().manual_seed(0), dtype=D)
    hidden = torch.stack([random_input(*[9] * axes, seed=1) > 0, torch.ones([9] * axes) > 0])
    hidden[1][(slice(0, 2),) * axes] = False
    (fill,) = fills("inpaint")
    filled = fill.under(pixels, ~hidden)
    for found, where in zip(filled, hidden, strict=True):
        assert inpainting.residual(found, where) <= 3e-5
        assert float((found - inpainting.inpaint(pixels, where)).abs().max()) <= 1e-3
        assert torch.equal(found[:, ~where], pixels[:, ~where])


def test_occlusion_under_inpainting() -> None:
    model, x = plain(), photos(1)
    found = outcome(model, x, "occlusion", fill="inpaint", window_px=3, stride_px=3, preprocess=COLOURS).attribution[0]
    covers = occlusion.windows((8, 8), (3, 3), (3, 3), "clip")
    before = occlusion.ask(model, x[0], 1)
    drops = []
    for where in covers:
        pixels = inpainting.inpaint(pixels_of(x)[0], where)
        drops.append(before - occlusion.ask(model, normalised(pixels[None])[0], 1))
    close(found, occlusion.spread(covers, drops), 1e-3)


# --------------------------------------------------------------------------------------------------- region occlusion


@pytest.mark.parametrize("outside", [False, True])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_region_occlusion(axes: int, outside: bool) -> None:
    model, x, labels = plain(axes), images(2, axes), blocks(axes, outside)
    found = outcome(model, x, "region_occlusion", targets=3, fill="zero", regions=as_given(labels), pairs=4)
    for image in range(2):
        nothing = torch.zeros_like(x[image])
        close(found.attribution[image], occlusion.region_map(model, x[image], labels, nothing, 3), EXACT)
        drops = occlusion.region_drops(model, x[image], labels, nothing, 3)
        rows = table(found, image, "regions")
        order = numbers(rows, "region").long()
        close(numbers(rows, "mean"), torch.tensor(drops, dtype=D)[order], EXACT)
        assert rows.column("size px") == [int((labels == region).sum()) for region in order]
        pairs_agree(model, x[image], labels, table(found, image, "pairs"))


def pairs_agree(model: nn.Module, x: Tensor, labels: Tensor, found: Table) -> None:
    nothing, expected = torch.zeros_like(x), []
    for a, b in zip(numbers(found, "region a").tolist(), numbers(found, "region b").tolist(), strict=True):
        expected.append(occlusion.interaction(model, x, labels, nothing, 3, int(a), int(b)))
    assert len(expected) == 6
    off = (numbers(found, "interaction") - torch.tensor(expected, dtype=D)).abs().max()
    assert off <= EXACT * numbers(found, "together").abs().max()


def test_regions_covered_in_turn() -> None:
    model, x, labels = plain(), images(1, 2), blocks(2)
    found = outcome(model, x, "region_occlusion", fill="zero", regions=labels)
    drops = occlusion.region_drops(model, x[0], labels, torch.zeros_like(x[0]), 1)
    order = sorted(range(4), key=lambda region: -drops[region])
    expected = occlusion.covered_in_turn(model, x[0], labels, torch.zeros_like(x[0]), 1, order)
    close(numbers(table(found, 0, "covered"), "score zero"), torch.tensor(expected, dtype=D), EXACT)
