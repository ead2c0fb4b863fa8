"""RISE, extremal and meaningful perturbation: slow definitions, laws, planted answers, refusals."""

import math
from collections.abc import Sequence
from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import COLOURS, Counted, D, close, heat, outcome, plain, random_input
from pellucid.core.errors import Cancelled, MethodError, SettingError
from pellucid.core.progress import Progress
from pellucid.methods.masks.random_grids import BLOCK, RandomGrids

METHODS = ("rise", "extremal_perturbation", "meaningful_perturbation")
QUICK: dict[str, dict[str, Any]] = {
    "rise": {"samples": 20, "cells": 3},
    "extremal_perturbation": {"steps": 3, "cells": 4, "fill": "zero"},
    "meaningful_perturbation": {"steps": 3, "cells": 4, "fill": "zero"},
}


class Linear(nn.Module):
    """Two scores, the second `Σ w ⊙ x + 3`, in float64."""

    def __init__(self, weights: Tensor) -> None:
        super().__init__()
        self.weights = nn.Parameter(weights)

    def forward(self, x: Tensor) -> Tensor:
        one = (self.weights * x).flatten(1).sum(1) + 3
        return torch.stack([-one, one], 1)


class Constant(nn.Module):
    """The same two scores whatever it sees."""

    def forward(self, x: Tensor) -> Tensor:
        return 0 * x.flatten(1).mean(1, keepdim=True) + torch.tensor([[1.0, 5.0]], dtype=x.dtype)


class Broken(nn.Module):
    """No number where the middle of the picture is hidden."""

    def forward(self, x: Tensor) -> Tensor:
        middle = x[..., x.shape[-2] // 2, x.shape[-1] // 2].mean(1, keepdim=True)
        return torch.log(middle - 0.9 + 0 * x.flatten(1).sum(1, keepdim=True)).expand(-1, 2)


# ------------------------------------------------------------------------------------------------------------- RISE


def tent(place: float, cells: int, pixels: int, cell: int) -> float:
    """How much of a cell a pixel of the enlarged grid shows: linear between centres, constant beyond the outermost."""
    centre = min(max((place + 0.5) * cells / pixels - 0.5, 0.0), cells - 1.0)
    return max(0.0, 1.0 - abs(centre - cell))


def slow_mask(grid: Tensor, shift: Sequence[int], space: Sequence[int]) -> Tensor:
    cells, found = grid.shape[0], torch.zeros(*space, dtype=D)
    sizes = [(cells + 1) * math.ceil(side / cells) for side in space]
    for pixel in product(*map(range, space)):
        for cell in product(*map(range, grid.shape)):
            shown = [tent(u + o, cells, n, g) for u, o, n, g in zip(pixel, shift, sizes, cell, strict=True)]
            found[pixel] += grid[cell] * math.prod(shown)
    return found


@pytest.mark.parametrize("space", [(11,), (9, 7), (5, 4, 6)])
def test_the_masks_are_the_slow_definition(space: tuple[int, ...]):
    masks = RandomGrids(space, 3, 0.4, seed=5, like=torch.zeros((), dtype=D))
    which = [0, 3, BLOCK + 1]
    grids, shifts = masks.drawn(which)
    slow = torch.stack([slow_mask(g.to(D), s.tolist(), space) for g, s in zip(grids, shifts, strict=True)])
    close(masks(which), slow, 1e-14)


def test_a_mask_does_not_depend_on_what_else_is_asked():
    make = lambda seed: RandomGrids((10, 9), 4, 0.5, seed, torch.zeros((), dtype=D))  # noqa: E731
    together = make(1)(range(3 * BLOCK))
    for which in ([5], [200 % (3 * BLOCK), 3], range(60, 70)):
        assert torch.equal(make(1)(which), together[list(which)])
    assert not torch.equal(make(2)(range(4)), together[:4])
    grids, shifts = make(3).drawn(range(4000))
    assert abs(float(grids.double().mean()) - 0.5) < 4 * 0.5 / (4000 * 16) ** 0.5
    assert [sorted(set(s.tolist())) for s in shifts.unbind(1)] == [[0, 1, 2]] * 2  # C - 1 for both sides


@pytest.mark.parametrize("centred", [True, False])
def test_rise_is_the_slow_sum(centred: bool):
    model, x, p, n = plain(), random_input(2, 3, 8, 8), 0.3, 70
    words = {"samples": n, "cells": 3, "keep_fraction": p, "centred": centred}
    found = outcome(model, x, "rise", seed=4, **words)
    masks = RandomGrids((8, 8), 3, p, seed=4, like=x)(range(n))
    for i in range(2):
        scores = [model((m * x[i])[None])[0, 1] for m in masks]
        away = sum(scores) / n if centred else 0.0
        terms = torch.stack([(score - away) * m for score, m in zip(scores, masks, strict=True)]).detach()
        close(found.attribution[i], terms.mean(0) / p, 1e-12)
        moving = [(score - away) * (m - p * centred) for score, m in zip(scores, masks, strict=True)]
        close(found.extra_maps["standard error"][i], torch.stack(moving).detach().std(0) / n**0.5 / p, 1e-10)


def test_rise_of_a_linear_network_is_its_smoothed_shares():
    """E S(λ) = 1/p Σ_μ v(μ) cov(M(μ), M(λ)) = (1 − p) E_shift Σ_cells W(λ) Σ_μ W(μ) v(μ), with v = Σ_c w (x − fill).

    With 3000 masks the 56 errors, in the standard errors that are reported, have a mean square of about 1; they
    hang together, so 0.4 to 2 is asked. Noise of the factor 1/p or (1 − p) left out would be far outside.
    """
    space, cells, p = (8, 7), 4, 0.6
    x, start, weights = random_input(1, 2, *space), random_input(1, 2, *space, seed=1), random_input(2, *space, seed=2)
    found = outcome(Linear(weights), x, "rise", samples=3000, cells=cells, keep_fraction=p, fill=start)
    share = (weights * (x - start)[0]).sum(0)
    expected = torch.zeros(space, dtype=D)
    shifts = list(product(range(2), range(2)))
    for shift in shifts:
        sizes = [(cells + 1) * 2] * 2
        across = [
            torch.tensor([[tent(u + o, cells, n, g) for u in range(side)] for g in range(cells)], dtype=D)
            for side, o, n in zip(space, shift, sizes, strict=True)
        ]
        on_grid = across[0] @ share @ across[1].T
        expected += (1 - p) * across[0].T @ on_grid @ across[1] / len(shifts)
    errors = (found.attribution[0] - expected) / found.extra_maps["standard error"][0]
    assert 0.4 <= float((errors**2).mean()) <= 2
    assert float((found.attribution[0] - expected).abs().max()) <= 0.1 * float(expected.abs().max())


def test_the_standard_error_is_how_far_seeds_differ():
    """48 seeds give a standard deviation with a relative error of √(1/94) = 0.10 per pixel, less over all of them."""
    model, x = plain(), random_input(1, 3, 8, 8)
    runs = [outcome(model, x, "rise", samples=64, cells=3, seed=seed) for seed in range(48)]
    spread = torch.cat([run.attribution for run in runs]).std(0)
    told = torch.cat([run.extra_maps["standard error"] for run in runs]).mean(0)
    assert float(((spread / told) ** 2).mean()) == pytest.approx(1, abs=0.25)


def test_rise_of_a_constant_network():
    x = random_input(2, 3, 8, 8)
    centred = outcome(Constant(), x, "rise", samples=100, cells=3)
    assert not centred.attribution.any()
    (halves,) = [c for c in centred.receipts[0].checks if c.name == "correlation of two halves"]
    assert halves.verdict == "told"
    paper = outcome(Constant(), x, "rise", samples=400, cells=3, centred=False)
    off = (paper.attribution - 5.0) / paper.extra_maps["standard error"]
    assert float(off.abs().max()) <= 5


def test_several_fills_give_their_mean_and_each_of_them():
    model, x = plain(), random_input(2, 3, 8, 8)
    words = {"samples": 30, "cells": 3, "preprocess": COLOURS}
    both = outcome(model, x, "rise", fill="grey+blur", **words)
    each = {name: heat(model, x, "rise", fill=name, **words) for name in ("grey", "blur")}
    close(both.attribution, (each["grey"] + each["blur"]) / 2, 1e-12)
    for name, one in each.items():
        close(both.extra_maps[f"fill {name}"], one, 1e-12)


def test_the_receipt_compares_two_halves():
    model, x = plain(), random_input(1, 3, 8, 8)
    found = outcome(model, x, "rise", samples=80, cells=3)
    masks = RandomGrids((8, 8), 3, 0.5, 0, x)(range(80))
    scores = model(masks[:, None] * x)[:, 1].detach()
    weights = scores - scores.mean()
    halves = [torch.einsum("n,nhw->hw", weights[s], masks[s]).flatten() for s in (slice(0, 40), slice(40, 80))]
    (check,) = [c for c in found.receipts[0].checks if c.name == "correlation of two halves"]
    assert check.value == pytest.approx(float(torch.corrcoef(torch.stack(halves))[0, 1]), abs=1e-9)
    assert check.verdict == ("pass" if check.value >= 0.9 else "warn")


# ------------------------------------------------------------------------------------------------- what holds for all


@pytest.mark.parametrize("name", METHODS)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_any_number_of_axes_and_the_batch_does_not_matter(name: str, axes: int):
    model, x = plain(axes), random_input(3, 3, *[8] * axes)
    together = outcome(model, x, name, **QUICK[name])
    assert together.attribution.shape == (3, *[8] * axes)
    alone = outcome(model, x[1:2], name, **QUICK[name])
    close(together.attribution[1:2], alone.attribution, 1e-9)
    for key, one in alone.extra_maps.items():
        close(together.extra_maps[key][1:2], one, 1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_a_seed_gives_the_same_map_and_another_one_another(name: str):
    model, x = plain(), random_input(1, 3, 32, 32)[..., :8, :8]
    words = {**QUICK[name], **({} if name == "rise" else {"jitter_fraction": 0.2})}
    first, again, other = (heat(model, x, name, seed=seed, **words) for seed in (7, 7, 8))
    assert torch.equal(first, again)
    assert not torch.equal(first, other)


@pytest.mark.parametrize("name", METHODS)
def test_progress_is_told_and_can_be_cancelled(name: str):
    model, x = plain(), random_input(2, 3, 8, 8)
    progress = Progress()
    outcome(model, x, name, progress=progress, **QUICK[name])
    assert progress.done == progress.total > 0
    stopped = Progress(on_event=lambda done, total, label: stopped.cancel())
    with pytest.raises(Cancelled):
        outcome(model, x, name, progress=stopped, **QUICK[name])


@pytest.mark.parametrize("name", METHODS)
def test_inference_mode_around_the_call_changes_nothing(name: str):
    model, x = plain(), random_input(1, 3, 8, 8)
    expected = heat(model, x, name, **QUICK[name])
    with torch.inference_mode():
        found = heat(model, x.clone(), name, **QUICK[name])
    close(found.clone(), expected, 1e-9)


@pytest.mark.parametrize("name", METHODS)
def test_scores_that_are_no_numbers_are_refused(name: str):
    with pytest.raises(MethodError, match=f"{name}.*no finite number"):
        heat(Broken(), torch.ones(1, 1, 8, 8, dtype=D), name, **QUICK[name])


def test_every_mask_is_asked_once():
    network = Counted(plain())
    outcome(network, random_input(2, 3, 8, 8), "rise", samples=20, cells=3)
    assert 40 <= sum(network.sizes) - 2 <= 42  # the recording has two images, and a plan may be tried on one of each


BAD = [
    ("rise", {"samples": 0}), ("rise", {"samples": 1}), ("rise", {"samples": 10**6}), ("rise", {"cells": 9}),
    ("rise", {"cells": 1}), ("rise", {"keep_fraction": 0.0}), ("rise", {"keep_fraction": 1.0}),
    ("rise", {"keep_fraction": 1.2}), ("rise", {"fill": "inpaint"}), ("rise", {"fill": "rose"}),
    *[
        (name, words)
        for name in METHODS[1:]
        for words in (
            {"steps": 0}, {"cells": 9}, {"cells": 1}, {"fill": "grey+blur"}, {"fill": "inpaint"}, {"rate": 0.0},
            {"rate": 2.0}, {"jitter_fraction": -0.1}, {"jitter_fraction": 0.5},
        )
    ],
    *[("extremal_perturbation", {"areas": a}) for a in (0, 1, 1.5, -0.1, "0.1+x", [], "", [0.1, 0.1], math.nan, None)],
    ("extremal_perturbation", {"radius_fraction": 0.0}), ("extremal_perturbation", {"radius_fraction": 0.9}),
    ("extremal_perturbation", {"variant": "maybe"}), ("meaningful_perturbation", {"variant": "both"}),
    ("meaningful_perturbation", {"area_price": -1.0}), ("meaningful_perturbation", {"edge_price": -1.0}),
    ("meaningful_perturbation", {"power": 0.5}), ("meaningful_perturbation", {"blur_fraction": 0.5}),
]  # fmt: skip


@pytest.mark.parametrize(("name", "words"), BAD, ids=str)
def test_bad_settings_are_refused(name: str, words: dict[str, Any]):
    (setting,) = words
    with pytest.raises(SettingError, match=setting):
        heat(plain(), random_input(1, 3, 8, 8), name, preprocess=COLOURS, **{**QUICK[name], **words})
