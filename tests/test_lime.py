"""LIME and its three linear fits: optimality against closed forms and gradients, known networks, honest receipts."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from method_cases import COLOURS, D, check, close, heat, outcome, plain, random_input, undrawn
from pellucid.core.errors import MethodError, SettingError
from pellucid.core.target import contrast, probability
from pellucid.evaluate.questions import Question, classes_of
from pellucid.images import scenes
from pellucid.images.regions import Regions
from pellucid.methods.linear_fits import lasso, ridge, support_vectors
from pellucid.methods.surrogates import (
    LEAST_R2,
    Samples,
    balanced_accuracy,
    labels_of,
    lime,
    nearness,
    r_squared,
    surrogates,
)
from test_shapley_regions import COUNTS, SPACE, by_region, linear, quadrants

FITS = {"ridge": ridge, "lasso": lasso, "svm": support_vectors}


def data(m: int = 300, n: int = 7, seed: int = 0, noise: float = 0.5) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Masks, answers and weights that sum to one."""
    random = np.random.default_rng(seed)
    Z = (random.random((m, n)) < 0.5).astype(float)
    y = Z @ np.linspace(-2, 3, n) + 1 + noise * random.standard_normal(m)
    p = random.random(m) + 0.1
    return Z, y, p / p.sum()


def variance(Z: np.ndarray, p: np.ndarray) -> float:
    """Mean over the columns of their weighted variance."""
    return float((p @ (Z - p @ Z) ** 2).mean())


# ---- fits -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("penalty", [0.0, 0.01, 0.5])
def test_ridge_is_the_stacked_least_squares_solution(penalty):
    Z, y, p = data()
    found = ridge(Z, y, p, penalty)
    root, size = np.sqrt(p)[:, None], np.sqrt(penalty * variance(Z, p))
    held = np.concatenate([size * np.eye(7), np.zeros((7, 1))], 1)
    rows = np.concatenate([root * np.concatenate([Z, np.ones((300, 1))], 1), held])
    expected = np.linalg.lstsq(rows, np.concatenate([root[:, 0] * y, np.zeros(7)]), rcond=None)[0]
    np.testing.assert_allclose([*found.weights, found.intercept], expected, rtol=1e-9, atol=1e-11)
    np.testing.assert_allclose(found(Z), Z @ expected[:7] + expected[7], rtol=1e-9)


def test_the_ridge_penalty_shrinks_by_what_it_says():
    """On a full design, whose columns do not go together."""
    Z = np.array(np.meshgrid(*[[0.0, 1.0]] * 5)).reshape(5, -1).T
    found = ridge(Z, Z @ np.arange(5.0), np.full(32, 1 / 32), 0.25)
    np.testing.assert_allclose(found.weights, np.arange(5.0) / 1.25, atol=1e-12)


def test_ridge_takes_the_smallest_of_many_solutions():
    Z, y, p = data(noise=0.0)
    doubled = np.concatenate([Z, Z[:, :1]], 1)
    found = ridge(doubled, y, p, 0.0)
    assert found.weights[0] == pytest.approx(found.weights[7])
    assert found.weights[0] + found.weights[7] == pytest.approx(-2)


@pytest.mark.parametrize("penalty", [0.0, 0.02, 0.3, 0.9])
def test_lasso_meets_its_optimality_conditions(penalty):
    Z, y, p = data(n=12)
    found = lasso(Z, y, p, penalty)
    centred = Z - p @ Z
    bound = penalty * np.abs((centred * p[:, None]).T @ (y - p @ y)).max()
    pull = (centred * p[:, None]).T @ (y - found(Z))
    active = found.weights != 0
    np.testing.assert_allclose(pull[active], bound * np.sign(found.weights[active]), atol=1e-10)
    assert (np.abs(pull[~active]) <= bound + 1e-10).all()
    assert p @ (y - found(Z)) == pytest.approx(0, abs=1e-10)
    assert (active.sum() == 12) == (penalty < 0.1)
    assert active.any()


def test_lasso_at_its_largest_penalty_is_nothing_and_copes_with_an_empty_column():
    Z, y, p = data()
    assert not lasso(Z, y, p, 1.0).weights.any()
    Z[:, 2] = 1
    assert lasso(Z, y, p, 0.01).weights[2] == 0


@pytest.mark.parametrize("penalty", [1e-4, 0.01, 0.5])
def test_support_vectors_are_where_the_gradient_vanishes(penalty):
    Z, y, p = data(noise=1.0)
    t = labels_of(y)
    found = support_vectors(Z, t, p, penalty)
    slack = p * t * np.maximum(1 - t * found(Z), 0)
    np.testing.assert_allclose(penalty * variance(Z, p) * found.weights, slack @ Z, atol=1e-10)
    assert slack.sum() == pytest.approx(0, abs=1e-10)
    assert (slack > 0).any()


def test_support_vectors_are_those_of_scikit_learn():
    """Its penalty counts samples, and its intercept is held back a little; a large scale of it frees it."""
    svm = pytest.importorskip("sklearn.svm", reason="scikit-learn is not installed")
    Z, y, p = data(noise=1.0)
    t, penalty = labels_of(y), 0.05
    theirs = svm.LinearSVC(C=1 / (2 * penalty * variance(Z, p)), tol=1e-10, max_iter=200_000, intercept_scaling=1e3)
    theirs.fit(Z, t, sample_weight=p)
    found = support_vectors(Z, t, p, penalty)
    np.testing.assert_allclose(found.weights, theirs.coef_[0], rtol=2e-3, atol=1e-4)


@pytest.mark.parametrize("t", [np.ones(20), -np.ones(20)])
def test_one_label_only_needs_no_weights(t):
    Z, _, _ = data(20)
    found = support_vectors(Z, t, np.full(20, 0.05), 0.01)
    np.testing.assert_allclose(found.weights, 0, atol=1e-9)
    assert (t * found(Z) >= 1 - 1e-6).all()


# ---- weights, labels, quality ---------------------------------------------------------------------------------------


def test_the_kernel_is_limes():
    seen = np.array([[True] * 4, [True, True, False, False], [True, False, False, False], [False] * 4])
    d = np.array([0, 1 - np.sqrt(0.5), 0.5, 1])
    np.testing.assert_allclose(nearness(seen, 0.25), np.sqrt(np.exp(-(d**2) / 0.0625)))


def test_labels_are_cut_at_the_median():
    assert labels_of(np.array([1.0, 2.0, 3.0, 4.0, 5.0])).tolist() == [-1, -1, -1, 1, 1]
    assert labels_of(np.array([0.0, 1.0, 1.0, 1.0])).tolist() == [-1, 1, 1, 1]  # none above the median


def test_quality_is_what_it_says():
    y, w = np.array([0.0, 1.0, 2.0]), np.array([1.0, 2.0, 1.0])
    assert r_squared(y, y, w) == 1
    assert r_squared(y, np.ones(3), w) == 0
    assert r_squared(y, np.array([0.0, 2.0, 2.0]), w) == pytest.approx(1 - 2 / 2)
    t, said = np.array([1.0, 1.0, -1.0]), np.array([0.3, -0.1, -2.0])
    assert balanced_accuracy(t, said, np.array([3.0, 1.0, 9.0])) == pytest.approx((0.75 + 1) / 2)


@pytest.mark.parametrize("surrogate", ["ridge", "lasso"])
def test_error_bars_keep_their_word(surrogate):
    """Over many draws of masks of one noisy function the weights scatter as told (seeded)."""
    n, runs = 6, 80
    curved = np.random.default_rng(9).standard_normal((n, n))

    def known(seed: int) -> tuple[np.ndarray, np.ndarray]:
        seen = np.random.default_rng(seed).random((400, n)) < 0.5
        Z = seen.astype(float)
        score = Z @ np.arange(n) + np.einsum("mi,ij,mj->m", Z, curved, Z)
        found = surrogates(Samples(Z, nearness(seen, 0.25), score), surrogate, 0.001)
        assert found is not None
        return found.fit.weights, found.errors

    weights, errors = (np.stack(a) for a in zip(*map(known, range(runs)), strict=True))
    ratio = np.sqrt((errors**2).mean(0)) / weights.std(0, ddof=1)
    assert (np.abs(np.log(ratio)) < np.log(1.5)).all()
    assert abs(np.log(ratio).mean()) < np.log(1.15)


def test_a_linear_answer_is_stable_and_an_interaction_is_not_explained():
    seen = np.random.default_rng(0).random((600, 6)) < 0.5
    Z, near = seen.astype(float), nearness(seen, 0.25)
    straight = surrogates(Samples(Z, near, Z @ np.arange(6.0)), "ridge", 0.01)
    parity = surrogates(Samples(Z, near, (-1.0) ** Z.sum(1)), "ridge", 0.01)
    assert straight is not None and parity is not None
    assert straight.quality > 0.999 and straight.held_out > 0.999 and straight.stability > 0.999
    assert parity.quality < 0.1 and parity.held_out < parity.quality
    assert surrogates(Samples(Z, near, np.full(600, 3.0)), "ridge", 0.01) is None


# ---- the method -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("surrogate", ["ridge", "lasso"])
def test_a_linear_network_gives_back_its_weights(axes, surrogate):
    model, x = linear(SPACE[axes]), random_input(2, 2, *SPACE[axes])
    words = {"regions": COUNTS[axes], "fill": "zero", "samples": 200, "surrogate": surrogate}
    found = outcome(model, x, "lime", penalty=0.0, **words)
    held = outcome(model, x, "lime", penalty=0.01, **words)
    terms = (model[1].weight[1].detach().view(2, *SPACE[axes]) * x).sum(1)
    for image in range(2):
        truth = {v: float(terms[image][found.attribution[image] == v].sum()) for v in found.attribution[image].unique()}
        for value, term in truth.items():
            assert float(value) == pytest.approx(term, abs=1e-8)
        assert check(found, "surrogate R²", image) == pytest.approx(1, abs=1e-12)
        assert check(found, "surrogate R², held out", image) == pytest.approx(1, abs=1e-12)
        assert check(found, "stability", image) == pytest.approx(1, abs=1e-9)
        size = found.attribution[image].abs().max()
        assert (held.attribution[image] - found.attribution[image]).abs().max() < 0.03 * size
        assert max(found.tables[image][0].column("± standard error")) < 1e-9


def test_support_vectors_rank_the_regions_as_the_weights_do():
    model, x, labels = linear((6, 8)), torch.ones(1, 2, 6, 8, dtype=D), quadrants(6, 8)
    with torch.no_grad():
        model[1].weight[1] = (torch.tensor([3.0, -2.0, 0.5, -0.7], dtype=D) / 24)[labels].repeat(2, 1, 1).flatten()
    found = outcome(model, x, "lime", regions=labels, fill="zero", surrogate="svm")
    assert np.argsort(by_region(found.attribution[0], labels)).tolist() == [1, 3, 2, 0]
    assert check(found, "surrogate accuracy") > 0.95
    assert check(found, "surrogate accuracy, held out") > 0.95
    assert found.tables[0][0].columns[3] == "weight (margin)"


def test_weights_are_those_of_a_slow_definition():
    """Masks, plain forwards, and a weighted least squares written out, for a network that is not linear."""
    model, x, labels = plain(), random_input(1, 3, 8, 8), quadrants(8, 8)
    found = outcome(model, x, "lime", 2, regions=labels, fill="zero", samples=60, penalty=0.0, seed=5)
    seen = np.random.default_rng(5).random((60, 4)) < 0.5
    seen[0] = True
    with torch.no_grad():
        y = torch.cat([model(x * torch.from_numpy(row)[labels])[:, 2] for row in seen]).numpy()
    rows = np.concatenate([seen, np.ones((60, 1))], 1) * np.sqrt(nearness(seen, 0.25))[:, None]
    expected = np.linalg.lstsq(rows, y * np.sqrt(nearness(seen, 0.25)), rcond=None)[0]
    np.testing.assert_allclose(by_region(found.attribution[0], labels), expected[:4], rtol=1e-8)
    assert float(found.tables[0][0].note.split("intercept ")[1].split()[0]) == pytest.approx(expected[4], rel=1e-3)


class Product(nn.Module):
    """Two halves that only matter together, and their sum."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        left, right = x[..., :4].mean((1, 2, 3)), x[..., 4:].mean((1, 2, 3))
        return torch.stack([left * right, left + right], 1)


@pytest.mark.parametrize(("surrogate", "name", "bound"), [("ridge", "R²", LEAST_R2), ("svm", "accuracy", 0.75)])
def test_an_interaction_lowers_the_quality_and_warns(surrogate, name, bound):
    """Seen is 1 and covered -1, so that the product is large where most of both is seen, or most of both covered."""
    x = torch.ones(1, 1, 8, 8, dtype=D)
    words = {"regions": "grid:4x4", "fill": -x, "surrogate": surrogate}
    together, apart = (outcome(Product().eval(), x, "lime", index, **words) for index in (0, 1))
    assert check(apart, f"surrogate {name}") > 0.999
    assert check(together, f"surrogate {name}") < bound
    verdicts = {c.name: c.verdict for c in together.receipts[0].checks}
    assert verdicts[f"surrogate {name}"] == verdicts[f"surrogate {name}, held out"] == "warn"
    assert together.receipts[0].verdict == "warn"
    assert {c.name: c.verdict for c in apart.receipts[0].checks}[f"surrogate {name}"] == "pass"


@pytest.mark.parametrize("surrogate", ["ridge", "lasso", "svm"])
def test_an_image_alone_and_in_a_batch_gives_the_same_and_so_does_the_same_seed(surrogate):
    model, x = plain(), random_input(3, 3, 8, 8)
    words = {"regions": "grid:6", "fill": "zero", "samples": 60, "surrogate": surrogate}
    together = outcome(model, x, "lime", [1, 2, 3], **words)
    assert torch.equal(together.attribution, outcome(model, x, "lime", [1, 2, 3], **words).attribution)
    for image in range(3):
        alone = outcome(model, x[image : image + 1], "lime", image + 1, **words)
        close(alone.attribution[0], together.attribution[image], 1e-9)
    assert not torch.equal(together.attribution, outcome(model, x, "lime", [1, 2, 3], seed=1, **words).attribution)


def test_a_contrast_is_the_difference_and_a_probability_is_bounded():
    model, x = plain(), random_input(1, 3, 8, 8)
    words = {"regions": "grid:4", "fill": "grey", "samples": 100, "preprocess": COLOURS}
    one, two = (heat(model, x, "lime", index, **words) for index in (1, 3))
    close(heat(model, x, "lime", contrast(1, 3), **words), one - two, 1e-9)
    assert heat(model, x, "lime", probability(1), **words).abs().max() < 1


def test_more_samples_than_masks_ask_each_mask_once():
    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inside, self.images = plain(), 0

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            self.images += len(x)
            return self.inside(x)

    model = Counting().eval()
    outcome(model, random_input(1, 3, 8, 8), "lime", regions="grid:4", fill="zero", samples=2000)
    assert model.images <= 1 + 16 + 16  # the recording, each mask, and whatever the engine tries out


def test_a_score_that_never_changes_has_no_weights_and_says_so():
    model = nn.Sequential(nn.Flatten(), nn.Linear(192, 2)).to(D).eval()
    nn.init.zeros_(model[1].weight)
    for surrogate, name in (("ridge", "R²"), ("svm", "accuracy")):
        found = outcome(model, random_input(1, 3, 8, 8), "lime", regions="grid:4", fill="zero", surrogate=surrogate)
        assert not found.attribution.any()
        (made,) = [c for c in found.receipts[0].checks if c.name == f"surrogate {name}"]
        assert (made.verdict, made.value) == ("warn", 0.0)
        assert "the same whatever is covered" in made.text
        assert found.tables[0][0].column("size px") == [16] * 4


def test_pixels_of_no_region_are_always_seen_and_get_nothing():
    model, x = linear((6, 8)), random_input(1, 2, 6, 8)
    labels = quadrants(6, 8)
    labels[:, 0] = -1
    named = Regions(labels, names=("a", "b", "c", "d"))
    found = outcome(model, x, "lime", regions=named, fill="zero", penalty=0.0, samples=100)
    assert not found.attribution[0][:, 0].any()
    (table,) = found.tables[0]
    terms = (model[1].weight[1].detach().view(2, 6, 8) * x[0]).sum(0)
    for number, name, _, size, weight, error in table.rows:
        assert "abcd"[number] == name
        inside = labels == number
        assert size == int(inside.sum())
        assert weight == pytest.approx(float(terms[inside].sum()), abs=1e-9)
        assert 0 <= error < 1e-9
    assert float(table.note.split("intercept ")[1].split()[0]) == pytest.approx(
        float(terms[:, 0].sum() + model[1].bias[1].detach()), rel=1e-3
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ({"regions": "grid:1"}, r"1 region came \(grid\)"),
        ({"samples": 7}, "6 regions need 8 or more"),
        ({"samples": 0}, "use 1 to 1,000,000"),
        ({"samples": 2_000_000}, "use 1 to 1,000,000"),
        ({"penalty": -0.1}, "penalty=-0.1 came"),
        ({"penalty": 1.0}, "less than 1"),
        ({"penalty": 0.0, "surrogate": "svm"}, "grow without end"),
        ({"kernel_width": 0.0}, "kernel_width=0.0 came"),
        ({"surrogate": "forest"}, "use one of 'ridge', 'lasso', 'svm'"),
        ({"fill": "black+white"}, "2 fills came"),
    ],
)
def test_what_can_not_be_fitted_is_refused(words, message):
    with pytest.raises(SettingError, match=message):
        heat(plain(), random_input(1, 3, 8, 8), "lime", **{"regions": "grid:6", "fill": "zero", **words})


def test_a_score_that_is_no_number_names_the_covered_regions():
    class Fragile(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return torch.stack([(x[:, :, :4].abs().sum((1, 2, 3)) - 1e-9).log(), x.flatten(1).sum(1)], 1)

    with pytest.raises(MethodError, match=r"score was nan with regions 0, 1(, 2)?(, 3)? covered"):
        heat(Fragile().eval(), random_input(1, 3, 8, 8), "lime", 0, regions="grid:2x2", fill="zero", samples=50)


def test_the_network_and_the_random_state_are_left_alone(untouched):
    model, x = plain(), random_input(2, 3, 8, 8)
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    with untouched(model), undrawn():
        outcome(model, x, "lime", regions="grid:4", fill="zero", samples=20)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


def test_superpixels_of_real_scenes_point_at_the_decisive_pixels():
    pytest.importorskip("skimage", reason="scikit-image is not installed; make test installs it")
    model, question, shares = pel.load("builtin:scenes"), Question("decisive", "contrast"), []
    for one in filter(None, map(question.pose, scenes.stream(4, split="test"))):
        target = question.targets([one], classes_of(model))
        found = pel.explain(model, one.picture.pixels, methods=lime(count=30, samples=200), targets=target)
        positive = np.asarray(found.heat).clip(0)
        shares.append(positive[one.mask].mean() / positive.mean())
        assert {c.name for c in found.receipt.checks} >= {"surrogate R²", "surrogate R², held out", "stability"}
        assert len(found.tables[0].rows) == len(np.unique(np.asarray(found.heat))) or not positive.all()
    assert np.median(shares) > 2
