"""Shapley values and LIME as the methods give them, against the slow definitions.

Small float64 networks, several images and targets, one to three axes. Which regions LIME showed is taken from what it
fitted to, so that the comparison is exact and not one of averages.
"""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from method_cases import D, close, outcome, plain, random_input
from oracles import lime, occlusion, shapley
from pellucid.methods import linear_fits, surrogates
from pellucid.methods.run import Outcome
from pellucid.methods.shapley import kernel, layer_shapley, owen
from pellucid.methods.surrogates import Samples
from whatif_cases import EXACT, as_given, blocks, images, numbers, table

# ------------------------------------------------------------------------------------------------------------- Shapley


def picture_game(model: nn.Module, x: Tensor, labels: Tensor, target: int = 1) -> shapley.Game:
    return shapley.game(model, x, labels, torch.zeros_like(x), target)


def shap_of(model: nn.Module, x: Tensor, labels: Tensor, **words: Any) -> Outcome:
    return outcome(model, x, "shap", regions=as_given(labels), fill="zero", **words)


@pytest.mark.parametrize("kind", ["auto", "exact", "kernel"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shap_exactly(axes: int, kind: str) -> None:
    """Kernel with room for all 2⁴ coalitions is exact too."""
    model, x, labels = plain(axes), images(2, axes), blocks(axes, outside=axes > 1)
    found = shap_of(model, x, labels, kind=kind, targets=4)
    for image in range(2):
        expected = shapley.exact(picture_game(model, x[image], labels, 4), 4)
        close(found.attribution[image], shapley.region_map(expected, labels), EXACT)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_shap_under_the_regions_own_means(axes: int) -> None:
    model, x, labels = plain(axes), images(2, axes), blocks(axes)
    found = outcome(model, x, "shap", regions=as_given(labels), fill="region_mean")
    for image in range(2):
        paint = torch.zeros_like(x[image])
        for region in range(4):
            for channel in range(3):
                paint[channel][labels == region] = x[image, channel][labels == region].mean()
        expected = shapley.exact(shapley.game(model, x[image], labels, paint, 1), 4)
        close(found.attribution[image], shapley.region_map(expected, labels), EXACT)


def stripes(count: int) -> Tensor:
    """Regions along the first axis of 8 × 8 pixels, of one or two rows, split again across for more than four."""
    down, across = torch.arange(8)[:, None] // 2, torch.arange(8)[None] * (count // 4) // 8
    return down * (count // 4) + across


@pytest.mark.parametrize("kind", ["kernel", "permutation"])
def test_shap_by_samples_comes_near(kind: str) -> None:
    """Within five standard errors for each of 8 regions, and the sum exact whatever was drawn."""
    model, x, labels = plain(), images(1, 2), stripes(8)
    v = picture_game(model, x[0], labels)
    exact = shapley.exact(v, 8)
    found = shap_of(model, x, labels, kind=kind, samples=150, error_fraction=0.0, seed=3)
    rows = table(found, 0, "regions")
    order = numbers(rows, "region").long()
    shares, errors = numbers(rows, "share (score)"), numbers(rows, "± standard error")
    assert bool((errors > 0).all())
    assert bool(((shares - torch.tensor(exact, dtype=D)[order]).abs() <= 5 * errors).all())
    whole = v(frozenset(range(8))) - v(frozenset())
    assert abs(float(shares.sum()) - whole) <= EXACT * float(shares.abs().max())


@pytest.mark.parametrize(("count", "tree"), [(4, ((0, 1), (2, 3))), (8, (((0, 1), (2, 3)), ((4, 5), (6, 7))))])
def test_shap_by_partition_is_owen_on_a_line(count: int, tree: Any) -> None:
    model, x, labels = plain(1), images(2, 1), torch.arange(8) * count // 8
    found = shap_of(model, x, labels, kind="partition")
    for image in range(2):
        expected = shapley.owen(picture_game(model, x[image], labels), tree)
        close(found.attribution[image], shapley.region_map(expected, labels), EXACT)


def test_shap_by_partition_is_owen_of_its_tree() -> None:
    """The tree is the method's, of six regions; that it is one of all players is checked."""
    model, x = plain(), images(1, 2)
    labels = (torch.arange(8)[:, None] * 3 // 8) * 2 + torch.arange(8)[None] // 4
    middles = [[float(axis.float().mean()) for axis in torch.where(labels == r)] for r in range(6)]
    tree = owen.split_tree(np.array(middles))
    assert sorted(shapley.leaves(tree)) == list(range(6))
    found = shap_of(model, x, labels, kind="partition").attribution[0]
    expected = shapley.owen(picture_game(model, x[0], labels), tree)
    close(found, shapley.region_map(expected, labels), EXACT)
    flat = shapley.exact(picture_game(model, x[0], labels), 6)
    assert float((found - shapley.region_map(flat, labels)).abs().max()) > 1e-3 * float(found.abs().max())


@pytest.mark.parametrize(("players", "samples"), [(6, 40), (10, 300), (14, 400)])
def test_the_kernels_design_has_the_kernels_weights(players: int, samples: int) -> None:
    """Sizes that are asked whole: π(S), up to one factor; the drawn coalitions share what the other sizes weigh."""
    drawn = kernel.design(players, samples, np.random.default_rng(0))
    sizes = drawn.whole.sum(1)
    expected = np.array([shapley.kernel_weight(players, int(size)) for size in sizes])
    factor = drawn.weight[0] / expected[0]
    np.testing.assert_allclose(drawn.weight, factor * expected, rtol=1e-12)
    left = [size for size in range(1, players) if size not in sizes]
    weighs = sum((players - 1) / (size * (players - size)) for size in left)
    np.testing.assert_allclose(drawn.share * drawn.drawn[..., 0].size, factor * weighs, rtol=1e-12)
    assert len(drawn.whole) + drawn.drawn[..., 0].size <= samples
    assert (drawn.drawn[:, 0] ^ drawn.drawn[:, 1]).all()


# ---------------------------------------------------------------------------------------------------- units and layers


@pytest.mark.parametrize("off", ["zero", "mean"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_unit_shapley(axes: int, off: str) -> None:
    """Eight channels behind a rectifier."""
    model, x = plain(axes), images(2, axes)
    found = outcome(model, x, "unit_shapley", targets=2, layers="5", off=off)
    body, head = model[:6], model[6:]
    for image in range(2):
        A = body(x)[image].detach()
        away = A.flatten(1).mean(1).reshape(-1, *[1] * axes).expand_as(A) if off == "mean" else torch.zeros_like(A)
        values = shapley.exact(shapley.channel_game(head, A, 2, away), 8)
        close(found.attribution[image], shapley.channel_map(values, A - away), EXACT)


@pytest.mark.parametrize("off", ["zero", "mean"])
def test_layer_shapley(off: Any) -> None:
    model, x, layers = plain(), images(2, 2), ["0", "3", "4"]
    found = layer_shapley(model, x, layers=layers, target=1, off=off)
    for image in range(2):
        v = shapley.layer_game(model, x[image], 1, layers, mean=off == "mean")
        close(found.shares[image].to(D), torch.tensor(shapley.exact(v, 3), dtype=D), EXACT)


# ---------------------------------------------------------------------------------------------------------------- LIME


def drawn_rows(n: int, count: int) -> Tensor:
    rows = (random_input(count, n, seed=4) > 0).to(D)
    rows[0] = 1
    return rows


def mean_variance(rows: Tensor, share: Tensor) -> float:
    """s̄: the mean over the columns of their weighted variances."""
    variances = []
    for column in rows.T:
        middle = (share * column).sum()
        variances.append(float((share * (column - middle) ** 2).sum()))
    return sum(variances) / len(variances)


def strongest(rows: Tensor, y: Tensor, share: Tensor) -> float:
    """λ₀: the largest weighted covariance of a column with y, from where on lasso's weights are all zero."""
    middle = (share * y).sum()
    return max(abs(float((share * (z - (share * z).sum()) * (y - middle)).sum())) for z in rows.T)


@pytest.mark.parametrize("width", [0.25, 0.7])
def test_limes_kernel(width: float) -> None:
    rows = drawn_rows(7, 30)
    rows[1] = 0
    found = surrogates.nearness(rows.bool().numpy(), width)
    np.testing.assert_allclose(found, [lime.kernel(z, width) for z in rows], rtol=1e-12)


def test_linear_fits() -> None:
    rows, y, share = drawn_rows(6, 60), random_input(60, seed=5), random_input(60, seed=6).abs()
    share = share / share.sum()
    given = rows.numpy(), y.numpy(), share.numpy()
    slopes, intercept = lime.ridge(rows, y, share, 0.3 * mean_variance(rows, share))
    found = linear_fits.ridge(*given, 0.3)
    close(torch.from_numpy(found.weights), slopes, EXACT)
    assert abs(found.intercept - intercept) <= EXACT
    slopes, intercept = lime.lasso(rows, y, share, 0.4 * strongest(rows, y, share))
    found = linear_fits.lasso(*given, 0.4)
    close(torch.from_numpy(found.weights), slopes, 1e-7)
    assert 0 < int((slopes == 0).sum()) < 6
    assert abs(found.intercept - intercept) <= 1e-7
    signs = torch.where(y > y.median(), 1.0, -1.0).to(D)
    slopes, intercept = lime.hinge(rows, signs, share, 0.2 * mean_variance(rows, share))
    found = linear_fits.support_vectors(rows.numpy(), signs.numpy(), share.numpy(), 0.2)
    close(torch.from_numpy(found.weights), slopes, 1e-6)
    assert abs(found.intercept - intercept) <= 1e-6


@pytest.fixture
def samples(monkeypatch: pytest.MonkeyPatch) -> list[Samples]:
    """What LIME fitted to."""
    seen: list[Samples] = []
    usual = surrogates.surrogates

    def fitted(asked: Samples, *words: Any, **named: Any) -> Any:
        seen.append(asked)
        return usual(asked, *words, **named)

    monkeypatch.setattr(surrogates, "surrogates", fitted)
    return seen


@pytest.mark.parametrize("kind", ["ridge", "lasso", "svm"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_lime(axes: int, kind: str, samples: list[Samples]) -> None:
    """From which regions it showed, everything else is asked and computed again."""
    model, x, labels = plain(axes), images(2, axes), blocks(axes, outside=axes > 1)
    words: dict[str, Any] = {"surrogate": kind, "samples": 60, "penalty": 0.1, "kernel_width": 0.4}
    found = outcome(model, x, "lime", targets=3, regions=as_given(labels), fill="zero", **words)
    assert len(samples) == 2
    for image, drawn in enumerate(samples):
        rows = torch.as_tensor(drawn.seen, dtype=D)
        assert rows.shape == (60, 4)
        assert bool((rows[0] == 1).all())
        assert 0.3 < float(rows[1:].mean()) < 0.7
        y = torch.tensor([picture_game(model, x[image], labels, 3)(shown(z)) for z in rows], dtype=D)
        share = torch.tensor([lime.kernel(z, 0.4) for z in rows], dtype=D)
        slopes = surrogate(kind, rows, y, share / share.sum(), 0.1)
        close(found.attribution[image], shapley.region_map(slopes.tolist(), labels), 1e-6)


def shown(row: Tensor) -> frozenset[int]:
    return frozenset(torch.nonzero(row).flatten().tolist())


def surrogate(kind: str, rows: Tensor, y: Tensor, share: Tensor, penalty: float) -> Tensor:
    """The weights, with the penalties as the methods' help has them."""
    if kind == "ridge":
        return lime.ridge(rows, y, share, penalty * mean_variance(rows, share))[0]
    if kind == "lasso":
        return lime.lasso(rows, y, share, penalty * strongest(rows, y, share))[0]
    above = torch.where(y > np.median(y.numpy()), 1.0, -1.0).to(D)
    return lime.hinge(rows, above, share, penalty * mean_variance(rows, share))[0]


def test_limes_r_squared(samples: list[Samples]) -> None:
    model, x, labels = plain(), images(1, 2), stripes(8)
    found = outcome(model, x, "lime", regions=labels, fill="zero", samples=80)
    rows = torch.as_tensor(samples[0].seen, dtype=D)
    y = torch.tensor([picture_game(model, x[0], labels)(shown(z)) for z in rows], dtype=D)
    weights = torch.tensor([lime.kernel(z) for z in rows], dtype=D)
    share = weights / weights.sum()
    slopes, intercept = lime.ridge(rows, y, share, 0.01 * mean_variance(rows, share))
    (value,) = [c.value for c in found.receipts[0].checks if c.name == "surrogate R²"]
    assert abs(value - lime.r_squared(rows, y, weights, slopes, intercept)) <= EXACT
    assert value < 0.9999  # the network is not linear in its regions


def test_lime_of_a_linear_network_has_its_effects() -> None:
    """With hardly any penalty the weight of a region is what is lost without it."""
    model, x, labels = nn.Sequential(nn.Flatten(), nn.Linear(3 * 64, 5)).to(D), images(2, 2), stripes(8)
    found = outcome(model, x, "lime", regions=labels, fill="zero", samples=200, penalty=0.0)
    for image in range(2):
        drops = occlusion.region_map(model, x[image], labels, torch.zeros_like(x[image]), 1)
        close(found.attribution[image], drops, EXACT)


@pytest.mark.parametrize(
    ("name", "settings"),
    [("lime", {"samples": 40}), ("shap", {"kind": "kernel", "samples": 60}), ("shap", {"kind": "permutation"})],
)
def test_what_is_drawn_does_not_hang_on_the_other_images(name: str, settings: dict[str, Any]) -> None:
    model, x = plain(), images(3, 2)
    words: dict[str, Any] = {"regions": stripes(8), "fill": "zero", **settings}
    alone = [outcome(model, one[None], name, **words).attribution for one in x]
    close(outcome(model, x, name, **words).attribution, torch.cat(alone), EXACT)
