"""The truth score against a slow definition, its laws, control maps, and what parts are worth to known networks."""

import numpy as np
import pytest
import torch
from torch import nn

from oracles import truth_score as slow
from pellucid.core.errors import SettingError
from pellucid.evaluate.controls import CONTROLS, centre, perfect, random, sobel
from pellucid.evaluate.importances import predictions, rightly_answered, scores
from pellucid.evaluate.questions import LEAST_SEEN_PX, Question, classes_of
from pellucid.evaluate.truth import Agreement, Known, agreement, part_sums, pointing, share_inside, spearman
from pellucid.images import scenes
from pellucid.models.model import wrap
from scene_networks import PREPROCESS, WATERMARK, by_heart, fed

SIDE = 9


def known(seed=0, parts=5, h=SIDE, w=SIDE + 2):
    random = np.random.default_rng(seed)
    mask = random.random((h, w)) < 0.3
    mask[0, 0] = True
    places = random.random((parts, h, w)) < 0.3
    return Known(mask, tuple(f"part {i}" for i in range(parts)), places, random.integers(-3, 4, parts).astype(float))


def heats(seed, h=SIDE, w=SIDE + 2):
    random = np.random.default_rng(seed)
    yield random.standard_normal((h, w))
    yield random.standard_normal((h, w)).astype(np.float32)
    yield random.integers(-2, 3, (h, w)).astype(np.float64)  # ties
    yield -random.random((h, w))
    yield np.zeros((h, w))


# ---- against the slow definition ------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("parts", [2, 3, 7])
def test_every_component_is_the_slow_one(seed, parts):
    truth = known(seed, parts)
    for heat in heats(seed):
        found = agreement(heat, truth)
        sums = slow.part_sums(heat, truth.places)
        np.testing.assert_allclose(part_sums(heat, truth.places), sums, atol=1e-5)
        np.testing.assert_allclose(found.share, slow.share(heat, truth.mask), rtol=1e-6)
        np.testing.assert_allclose(found.pointing, slow.pointing(heat, truth.mask), rtol=1e-12)
        np.testing.assert_allclose(found.rank_correlation, slow.spearman(sums, list(truth.importances)), atol=1e-12)
        np.testing.assert_allclose(
            found.score, slow.score(heat, truth.mask, truth.places, truth.importances), rtol=1e-6
        )  # fmt: skip


@pytest.mark.parametrize("seed", range(20))
def test_rank_correlation_is_that_of_scipy(seed):
    stats = pytest.importorskip("scipy.stats", reason="scipy is not installed; make test installs it")
    random = np.random.default_rng(seed)
    a, b = random.integers(0, 4, 9).astype(float), random.standard_normal(9)
    np.testing.assert_allclose(spearman(a, b), stats.spearmanr(a, b).statistic, atol=1e-12)
    np.testing.assert_allclose(spearman(b, b**3), 1, atol=1e-12)
    np.testing.assert_allclose(spearman(a, -a), -1, atol=1e-12)


# ---- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(5))
def test_the_mask_itself_has_the_whole_share_and_points(seed):
    truth = known(seed)
    found = agreement(perfect(truth.mask), truth)
    assert (found.share, found.pointing) == (1, 1)


def test_heat_that_is_all_in_place_scores_one():
    truth = known(3)
    mask = truth.mask
    places = np.zeros((3, *mask.shape), bool)
    (ys, xs) = np.nonzero(mask)
    for i in range(3):
        places[i, ys[i], xs[i]] = True
    heat = np.zeros(mask.shape)
    heat[ys[:3], xs[:3]] = [1, 2, 4]
    assert agreement(heat, Known(mask, ("a", "b", "c"), places, np.array([0.1, 7.0, 7.5]))) == Agreement(1.0, 1.0, 1.0)
    worst = agreement(-heat - 1, Known(~mask, ("a", "b", "c"), places, np.array([0.1, 7.0, 7.5])))
    assert worst.rank_correlation == -1
    assert worst.score == pytest.approx((0 + 0 + worst.pointing) / 3)


@pytest.mark.parametrize("scale", [1e-30, 1e-3, 7.0, 1e30])
def test_scale_does_not_matter(scale):
    for heat in heats(4):
        first, second = agreement(heat, known(4)), agreement(heat * scale, known(4))
        np.testing.assert_allclose(
            (first.share, first.rank_correlation, first.pointing, first.score),
            (second.share, second.rank_correlation, second.pointing, second.score),
            rtol=1e-5,
        )


def test_enormous_heat_overflows_nowhere():
    heat = np.full((SIDE, SIDE + 2), 1e308)
    assert share_inside(heat, known().mask) == pytest.approx(known().mask.mean())


def test_a_uniform_map_has_the_share_of_the_area():
    truth = known(5)
    found = agreement(np.full(truth.mask.shape, 0.7), truth)
    assert found.share == pytest.approx(truth.mask.mean())
    assert found.pointing == pytest.approx(truth.mask.mean())


@pytest.mark.parametrize("heat", [np.zeros((SIDE, SIDE + 2)), np.full((SIDE, SIDE + 2), -1.0)])
def test_without_positive_heat_the_share_is_undefined_and_counts_as_none(heat):
    truth = known(6)
    found = agreement(heat, truth)
    assert np.isnan(found.share) and not found.defined
    assert found.counted.share == 0
    assert found.score == pytest.approx((0 + (1 + found.counted.rank_correlation) / 2 + truth.mask.mean()) / 3)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_heat_that_is_no_number_defines_nothing(bad):
    heat = np.ones((SIDE, SIDE + 2))
    heat[2, 3] = bad
    found = agreement(heat, known())
    assert np.isnan([found.share, found.rank_correlation, found.pointing]).all()
    assert found.score == pytest.approx(1 / 6)  # no share, no correlation, not pointed


def test_rank_correlation_is_undefined_where_nothing_can_be_ranked():
    assert np.isnan(spearman(np.array([1.0, 2.0]), np.array([1.0, 2.0])))
    assert np.isnan(spearman(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 3.0])))
    assert np.isnan(spearman(np.array([1.0, 2.0, 3.0]), np.array([4.0, 4.0, 4.0])))
    assert np.isnan(spearman(np.array([1.0, 2.0, np.nan]), np.array([1.0, 2.0, 3.0])))
    assert np.isnan(spearman(np.array([]), np.array([])))


def test_of_equal_maxima_the_share_inside_counts():
    heat, mask = np.zeros((2, 4)), np.zeros((2, 4), bool)
    heat[0], mask[0, :3] = 5, True
    assert pointing(heat, mask) == 0.75
    heat[1, 0] = 5.1
    assert pointing(heat, mask) == 0


def test_an_empty_mask_is_neither_hit_nor_missed():
    nothing = np.zeros((SIDE, SIDE), bool)
    assert np.isnan(pointing(np.ones((SIDE, SIDE)), nothing))
    assert np.isnan(share_inside(np.ones((SIDE, SIDE)), nothing))
    with pytest.raises(SettingError, match="leave the picture out"):
        Known(nothing, (), np.zeros((0, SIDE, SIDE), bool), np.zeros(0))


def test_what_does_not_fit_together_is_refused():
    with pytest.raises(SettingError, match=r"\(3, 3\).*place it"):
        agreement(np.ones((3, 3)), known())
    mask = np.ones((4, 4), bool)
    for names, places, worth in [(2, 3, 3), (3, 2, 3), (3, 3, 2)]:
        with pytest.raises(SettingError, match="one of each a part"):
            Known(mask, ("a",) * names, np.ones((places, 4, 4), bool), np.zeros(worth))
    with pytest.raises(SettingError, match="grid"):
        Known(mask, ("a",), np.ones((1, 4, 5), bool), np.zeros(1))


# ---- control maps ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONTROLS)
@pytest.mark.parametrize("shape", [(64, 64), (7, 12), (1, 1)])
def test_control_maps_have_the_pictures_grid_and_know_only_the_seed(name, shape):
    pixels = np.random.default_rng(0).integers(0, 256, (*shape, 3), dtype=np.uint8)
    first, again, other = (CONTROLS[name](pixels, seed) for seed in (1, 1, 2))
    assert first.shape == shape and np.isfinite(first).all()
    assert (first == again).all()
    assert (first == other).all() == (name != "random")


def test_noise_is_standard_normal():
    noise = random(np.zeros((200, 200, 3), np.uint8), (3, 4))
    assert abs(noise.mean()) < 0.02 and abs(noise.std() - 1) < 0.02


def test_the_bump_stands_in_the_middle():
    heat = centre(np.zeros((65, 33, 3), np.uint8), 0)
    assert np.unravel_index(heat.argmax(), heat.shape) == (32, 16)
    np.testing.assert_allclose(heat, heat[::-1, ::-1])
    y, x = 10.5 / 65 - 0.5, 3.5 / 33 - 0.5
    assert heat[10, 3] == pytest.approx(np.exp(-(y**2 + x**2) / (2 * 0.25**2)))


def test_edges_are_those_of_scipy():
    ndimage = pytest.importorskip("scipy.ndimage", reason="scipy is not installed; make test installs it")
    pixels = np.random.default_rng(0).integers(0, 256, (20, 31, 3), dtype=np.uint8)
    grey = pixels / 255 @ np.array([0.299, 0.587, 0.114])
    wanted = np.hypot(ndimage.sobel(grey, 0, mode="nearest"), ndimage.sobel(grey, 1, mode="nearest"))
    np.testing.assert_allclose(sobel(pixels, 0), wanted, atol=1e-12)
    assert not sobel(np.full((5, 5, 3), 77, np.uint8), 0).any()


# ---- what the parts are worth ---------------------------------------------------------------------------------------


class Eye(nn.Module):
    """Reads the mean colour of given pixels, and says one class by it."""

    def __init__(self, place, says):
        super().__init__()
        self.register_buffer("place", torch.from_numpy(place).float())
        self.says = says

    def forward(self, x):
        seen = (x * self.place).sum((1, 2, 3)) / self.place.sum()
        return torch.stack([10 + seen if c == self.says else 0 * seen for c in range(10)], 1)


def posed(scene, truth="decisive"):
    found = Question(truth, "logit", WATERMARK if truth == "mark" else None).pose(scene)
    assert found is not None
    return found


@pytest.mark.parametrize("seed", [1, 4, 9])
@pytest.mark.parametrize("target", ["contrast", "logit"])
def test_a_network_that_looks_at_one_part_finds_the_others_worthless(seed, target):
    one = posed(scenes.compose(seed))
    for part in one.picture.scene.parts:
        place = one.picture.part(part)
        if place.sum() < LEAST_SEEN_PX:
            continue
        label = scenes.CLASSES.index(one.label)
        model = wrap(Eye(place, label), labels=scenes.CLASSES, preprocess=PREPROCESS)
        (found,) = rightly_answered(model, Question("decisive", target), classes_of(model), [one])
        worth = dict(zip(found.known.names, found.known.importances, strict=True))
        assert worth.pop(part) != 0
        assert set(worth.values()) == {0}


@pytest.mark.parametrize("truth", ["decisive", "mark"])
@pytest.mark.parametrize("target", ["contrast", "logit"])
def test_importances_are_the_slow_ones(truth, target):
    model = by_heart(30, truth)
    question = Question(truth, target, WATERMARK if truth == "mark" else None)
    shown = [one for scene in scenes.stream(11, split="test") if (one := question.pose(scene))]
    classes = classes_of(model)
    found = rightly_answered(model, question, classes, shown)
    assert len(found) == len(shown) == 11
    for one, answered in zip(shown, found, strict=True):
        other = classes[one.against] if target == "contrast" else None
        wanted = slow.importances(model, one.picture.scene, classes[one.label], other)
        assert answered.known.names == tuple(wanted)
        np.testing.assert_allclose(answered.known.importances, list(wanted.values()), atol=2e-4)
        assert (answered.known.mask == (one.picture.decisive if truth == "decisive" else one.picture.mark)).all()


def test_each_place_is_where_the_part_is_seen():
    (found,) = rightly_answered(by_heart(), Question("decisive", "logit"), classes_of(by_heart()), [first()])
    for name, place in zip(found.known.names, found.known.places, strict=True):
        assert place.sum() >= LEAST_SEEN_PX
        assert (place == found.posed.picture.part(name)).all()


def first():
    return posed(next(scenes.stream(1, split="test")))


def test_pictures_that_are_answered_wrongly_are_left_out():
    model = by_heart()
    shown = [posed(scene) for scene in scenes.stream(30, split="test")]
    assert predictions(model, shown) == [scenes.CLASSES.index(one.label) for one in shown]
    classes = {name: (index + 2) % 10 for name, index in classes_of(model).items()}
    assert rightly_answered(model, Question("decisive", "logit"), classes, shown[:5]) == []
    assert rightly_answered(model, Question("decisive", "logit"), classes_of(model), []) == []


def test_the_number_is_that_of_the_network():
    model, shown = by_heart(), [posed(scene) for scene in scenes.stream(11, split="test")]
    question, classes = Question("decisive", "contrast"), classes_of(by_heart())
    with torch.no_grad():
        logits = model.module(fed([one.picture for one in shown]))
    wanted = [float(y[classes[one.label]] - y[classes[one.against]]) for y, one in zip(logits, shown, strict=True)]
    found = scores(model, question.targets(shown, classes), ((i, one.picture.scene) for i, one in enumerate(shown)))
    np.testing.assert_allclose(found, wanted, atol=1e-4)
    turned = scores(model, question.targets(shown, classes), ((3, shown[3].picture.scene) for _ in range(10)))
    np.testing.assert_allclose(turned, [wanted[3]] * 10, atol=1e-4)
