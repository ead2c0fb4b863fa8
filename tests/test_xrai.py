"""XRAI: the greedy ranking against its slow definition, sums, planted regions, any regions, refusals."""

from itertools import product
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import COLOURS, D, close, error, heat, outcome, plain, random_input
from pellucid.core.errors import Cancelled, MethodError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.regions import Regions
from pellucid.methods.xrai import ranked, widened


def slow_ranking(
    values: Tensor, members: Tensor, least: int, area_fraction: float
) -> list[tuple[int, list[int], float]]:
    """Algorithm 1: every gain summed anew, every time."""
    taken: set[int] = set()
    found: list[tuple[int, list[int], float]] = []
    while len(taken) < area_fraction * len(values):
        best: tuple[int, list[int], float] | None = None
        for number, region in enumerate(members):
            new = [i for i in range(len(values)) if region[i] and i not in taken]
            if len(new) >= least:
                gain = sum(float(values[i]) for i in new) / len(new)
                if best is None or gain > best[2]:
                    best = number, new, gain
        if best is None:
            break
        found.append(best)
        taken |= set(best[1])
    return found


@pytest.mark.parametrize("seed", range(4))
@pytest.mark.parametrize(("least", "area_fraction"), [(1, 1.0), (4, 1.0), (1, 0.5), (50, 1.0)])
def test_the_ranking_is_the_slow_one(seed: int, least: int, area_fraction: float):
    random = torch.Generator().manual_seed(seed)
    values = torch.randint(-64, 64, (60,), generator=random).to(D)  # whole numbers: ties are real, sums are exact
    members = torch.rand(25, 60, generator=random) < 0.2
    members[7] = members[3]
    found = ranked(values, members, least, area_fraction)
    slow = slow_ranking(values, members, least, area_fraction)
    assert [(e.region, e.pixels.tolist()) for e in found] == [(number, new) for number, new, _ in slow]
    assert [e.density for e in found] == pytest.approx([gain for *_, gain in slow], abs=1e-12)


@pytest.mark.parametrize("space", [(9,), (6, 7), (4, 5, 4)])
@pytest.mark.parametrize("radius", [0, 1, 2, 20])
def test_regions_are_widened_along_every_axis(space: tuple[int, ...], radius: int):
    masks = torch.rand(3, *space, generator=torch.Generator().manual_seed(1)) < 0.1
    for mask, found in zip(masks, widened(masks, radius), strict=True):
        for u in product(*map(range, space)):
            near = [
                v for v in product(*map(range, space)) if max(abs(a - b) for a, b in zip(u, v, strict=True)) <= radius
            ]
            assert bool(found[u]) == any(bool(mask[v]) for v in near)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("words", [{}, {"area_fraction": 0.4}, {"least_fraction": 0.05}, {"regions": "grid:7"}])
def test_the_map_sums_to_the_attribution_and_is_flat_in_each_piece(axes: int, words: dict[str, Any]):
    model, x, start = plain(axes), random_input(2, 3, *[8] * axes), random_input(2, 3, *[8] * axes, seed=1)
    found = outcome(model, x, "xrai", baseline=start, steps=30, **words)
    paths = heat(model, x, "integrated_gradients", baseline=start, steps=30).sum(1)
    close(found.extra_maps["integrated gradients"], paths, 1e-12)
    for image, one in enumerate(found.attribution):
        assert float((one.sum() - paths[image].sum()).abs()) <= 1e-10 * float(paths.abs().sum())
        for value in one.unique():
            close(value, paths[image][one == value].mean(), 1e-9)
        area, total = found.tables[image][1].rows[-1]
        assert area == 1
        assert total == pytest.approx(float(paths[image].sum()), abs=1e-10 * float(paths.abs().sum()))


def test_several_baselines_are_averaged():
    model, x = plain(), random_input(1, 3, 8, 8)
    words = {"preprocess": COLOURS, "steps": 20}
    found = outcome(model, x, "xrai", **words)
    each = [heat(model, x, "integrated_gradients", baseline=b, **words).sum(1) for b in ("black", "white")]
    close(found.extra_maps["integrated gradients"], (each[0] + each[1]) / 2, 1e-12)
    assert any("black+white" in note for note in found.receipts[0].notes)
    assert any('"zero"' in note for note in outcome(model, x, "xrai", steps=2).receipts[0].notes)


class ReadsBox(nn.Module):
    """The second score is the sum inside one box, squared; nothing else is read."""

    def __init__(self, labels: Tensor, region: int) -> None:
        super().__init__()
        self.inside = nn.Parameter((labels == region).to(D))

    def forward(self, x: Tensor) -> Tensor:
        one = (self.inside * x).flatten(1).sum(1) ** 2
        return torch.stack([-one, one], 1)


@pytest.mark.parametrize("region", [0, 5, 11])
def test_the_region_that_is_read_comes_first(region: int):
    labels = (torch.arange(12)[:, None] // 4) * 4 + torch.arange(16)[None] // 4
    model, x = ReadsBox(labels, region), random_input(1, 2, 12, 16).abs() + 0.1
    found = outcome(model, x, "xrai", regions=labels, dilation_fraction=0.0, steps=4)
    assert torch.equal(found.attribution[0] == found.attribution.max(), labels == region)
    table, curve = found.tables[0]
    assert table.column("region")[0] == f"labels 1, {region}"
    assert table.column("area added (fraction)")[0] == pytest.approx(1 / 12)
    total = float(model(x).detach()[0, 1])
    assert table.column("attribution added (score)")[0] == pytest.approx(total, rel=1e-9)
    assert curve.kind == "curve"
    assert [row[1] for row in curve.rows] == pytest.approx([0.0] + [total] * 12, rel=1e-9)


def test_the_curve_is_that_of_the_map():
    model, x = plain(), random_input(1, 3, 8, 8)
    found = outcome(model, x, "xrai", regions="grid:9+grid:4", dilation_fraction=0.0, steps=8)
    areas, sums = (torch.tensor(found.tables[0][1].column(n)) for n in ("area (fraction)", "attribution (score)"))
    assert (areas.diff() > 0).all()
    assert float(areas[-1]) == 1
    densities = (sums.diff() / (areas.diff() * 64)).to(D)
    for density, share in zip(densities, areas.diff(), strict=True):
        near = (found.attribution[0] - density).abs() <= 1e-5 * found.attribution.abs().max()
        assert int(near.sum()) >= round(float(share) * 64)


@pytest.mark.parametrize(
    "regions", [Regions(torch.arange(64).view(8, 8) // 16), "slic:6", "quickshift:5", "felzenszwalb:4+grid:6"]
)
def test_any_regions_will_do(regions: Any):
    found = outcome(plain(), random_input(2, 3, 8, 8), "xrai", regions=regions, steps=2)
    assert found.attribution.shape == (2, 8, 8)
    assert torch.isfinite(found.attribution).all()


def test_a_mask_leaves_the_rest_to_its_mean():
    model, x = plain(), random_input(1, 3, 8, 8)
    mask = torch.zeros(8, 8, dtype=torch.bool)
    mask[2:5, 1:4] = True
    found = outcome(model, x, "xrai", regions=mask, dilation_fraction=0.0, steps=4)
    paths = found.extra_maps["integrated gradients"][0]
    close(found.attribution[0], torch.where(mask, paths[mask].mean(), paths[~mask].mean()), 1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_the_batch_does_not_matter(axes: int):
    model, x = plain(axes), random_input(3, 3, *[8] * axes)
    together, alone = (outcome(model, t, "xrai", steps=6) for t in (x, x[1:2]))
    assert error(together.attribution[1:2], alone.attribution) <= 1e-9
    assert together.tables[1][0].column("region") == alone.tables[0][0].column("region")


def test_progress_is_told_and_can_be_cancelled():
    progress = Progress()
    outcome(plain(), random_input(2, 3, 8, 8), "xrai", steps=5, progress=progress)
    assert progress.done == progress.total == 10
    stopped = Progress(on_event=lambda done, total, label: stopped.cancel())
    with pytest.raises(Cancelled):
        outcome(plain(), random_input(2, 3, 8, 8), "xrai", steps=20, progress=stopped)


class Broken(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.log(x.flatten(1).sum(1, keepdim=True) * 0).expand(-1, 2)


def test_an_attribution_that_is_no_number_is_refused():
    with pytest.raises(MethodError, match="no number"):
        outcome(Broken(), random_input(1, 3, 8, 8), "xrai", steps=2)


BAD = [
    {"dilation_fraction": -0.1}, {"dilation_fraction": 0.6}, {"least_fraction": 1.0}, {"least_fraction": -1.0},
    {"area_fraction": 0.0}, {"area_fraction": 1.5}, {"regions": []}, {"regions": "grid:100"}, {"steps": 0},
]  # fmt: skip


@pytest.mark.parametrize("words", BAD, ids=str)
def test_bad_settings_are_refused(words: dict[str, Any]):
    (setting,) = words
    with pytest.raises(SettingError, match=setting if setting != "regions" else "region|grid"):
        heat(plain(), random_input(1, 3, 8, 8), "xrai", **{"steps": 2, **words})
