"""The ranking: against a slow one, its laws, what is left out and why, its files; and on the networks that ship."""

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from compare import but_pythons_numbers
from oracles import truth_score as slow
from pellucid.core.errors import Cancelled, FileError, MethodError, ModelError, PellucidError, SettingError
from pellucid.core.progress import Progress
from pellucid.core.target import contrast
from pellucid.evaluate import questions
from pellucid.evaluate.controls import CONTROLS
from pellucid.evaluate.rank import rank
from pellucid.evaluate.ranking import WRITERS, Ranking, Row, interval
from pellucid.images import scenes
from pellucid.images.decode import Picture
from pellucid.images.scenes import Shortcut
from pellucid.methods import METHODS
from pellucid.models.model import wrap
from scene_networks import PREPROCESS, WATERMARK, by_heart

FEW = ("saliency", "grad_cam", "gradient_x_input")
OTHERS = {*CONTROLS, "perfect"}


def few(n=12, methods=FEW, model=None, progress=False, **settings):
    return rank(model or by_heart(), methods=methods, n=n, progress=progress, **settings)


def timeless(ranking):
    """Everything that must be the same on every run."""
    return replace(ranking, rows=tuple(replace(row, seconds=0.0) for row in ranking.rows))


@pytest.fixture(scope="module")
def ranking():
    return few()


def declared(compute, name="own"):
    """A method of the user's own, not registered."""
    return replace(METHODS["saliency"], name=name, compute=compute)


# ---- the numbers ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", FEW)
def test_a_row_is_the_slow_one(ranking, name):
    model = by_heart()
    rows = []
    for scene in scenes.stream(12, split="test"):
        picture = scenes.render(scene)
        right, other = (scenes.CLASSES.index(label) for label in (scene.label, scenes.sibling(scene.label)))
        shown = Picture(picture.pixels, "one")
        one = pel.explain(model, shown, methods=name, targets=contrast(right, other), progress=False)
        worth = slow.importances(model, scene, right, other)
        places = [picture.part(part) for part in worth]
        sums = slow.part_sums(one.heat, places)
        rows.append(
            (
                slow.score(one.heat, picture.decisive, places, worth.values()),
                slow.share(one.heat, picture.decisive),
                slow.spearman(sums, list(worth.values())),
                slow.pointing(one.heat, picture.decisive),
            )
        )
    found = ranking.row(name)
    wanted = np.nan_to_num(np.array(rows)).mean(0)
    np.testing.assert_allclose(
        (found.score, found.share, found.rank_correlation, found.pointing), wanted, atol=0.02
    )  # the order of parts that are worth the same to a millionth may turn
    np.testing.assert_allclose((found.share, found.pointing), wanted[[1, 3]], atol=1e-4)


def test_columns_make_up_the_score(ranking):
    for row in ranking.rows:
        assert row.score == pytest.approx((row.share + (1 + row.rank_correlation) / 2 + row.pointing) / 3)
        assert row.low <= row.score <= row.high
        assert row.seconds >= 0 and row.undefined == 0


def test_the_best_come_first_and_the_perfect_map_before_all(ranking):
    scores = [row.score for row in ranking.rows]
    assert scores == sorted(scores, reverse=True)
    best = ranking.rows[0]
    assert (best.name, best.kind, best.share, best.pointing) == ("perfect", "reference", 1, 1)
    assert {row.name for row in ranking.rows if row.kind == "control"} == set(CONTROLS)
    assert {row.name for row in ranking.rows if row.kind == "method"} == set(FEW)
    assert (ranking.n, ranking.used, ranking.wrong, ranking.hidden) == (12, 12, 0, 0)


def test_the_same_seed_gives_the_same_ranking(ranking):
    assert timeless(few()) == timeless(ranking)
    assert timeless(few(seed=1)) != timeless(ranking)


def test_the_order_of_the_methods_does_not_matter(ranking):
    assert timeless(few(methods=FEW[::-1])) == timeless(ranking)
    alone = few(methods="grad_cam").row("grad_cam")
    assert replace(alone, seconds=0.0) == replace(ranking.row("grad_cam"), seconds=0.0)


def test_how_many_are_held_at_a_time_does_not_matter(ranking, monkeypatch):
    monkeypatch.setattr("pellucid.evaluate.rank.CHUNK", 5)
    monkeypatch.setattr("pellucid.evaluate.rank.BATCH", 2)
    monkeypatch.setattr("pellucid.evaluate.importances.BATCH", 3)
    for row in few().rows:
        other = ranking.row(row.name)
        np.testing.assert_allclose((row.share, row.pointing), (other.share, other.pointing), atol=1e-4)
        assert row.rank_correlation == pytest.approx(other.rank_correlation, abs=0.02)


def test_a_stochastic_method_hangs_on_the_seed_alone():
    method = METHODS["smoothgrad"](samples=3)
    first, again = (few(4, methods=[method]) for _ in range(2))
    assert first.row("smoothgrad(samples=3)").score == again.row("smoothgrad(samples=3)").score


def test_one_picture_is_enough_and_all_methods_are_taken():
    found = rank(by_heart(), n=1, progress=False)
    assert {row.name for row in found.rows} == {*METHODS, *OTHERS} - set(found.refused)
    assert set(found.refused) == {"deep_taylor", "excitation_backprop", "contrastive_excitation_backprop"}
    assert all("explains one class" in why for why in found.refused.values())
    assert all(row.low == row.score == row.high for row in found.rows)


def test_nothing_of_the_users_is_touched(untouched):
    with but_pythons_numbers(untouched)(by_heart().module):
        few(4)


@pytest.mark.parametrize("scale", [1e-3, 1.0, 1e6])
def test_a_method_is_judged_by_the_shape_of_its_heat(scale, ranking):
    own = declared(lambda case: METHODS["saliency"].compute(case) * scale)
    found, wanted = few(methods=[own]).row("own"), ranking.row("saliency")
    assert (found.share, found.pointing) == pytest.approx((wanted.share, wanted.pointing), abs=1e-5)


# ---- intervals ------------------------------------------------------------------------------------------------------


def test_the_interval_is_that_of_resampling():
    scores = np.random.default_rng(3).random(40)
    random, means = np.random.default_rng(7), []
    for _ in range(1000):
        drawn = random.integers(0, 40, 40)
        means.append(sum(scores[i] for i in drawn) / 40)
    means.sort()
    low, high = interval(scores, 7)
    assert low == pytest.approx(means[24] + 0.975 * (means[25] - means[24]))
    assert high == pytest.approx(means[974] + 0.025 * (means[975] - means[974]))


def test_the_interval_covers_the_mean_as_often_as_it_says():
    random = np.random.default_rng(0)
    inside = sum(low <= 0.5 <= high for low, high in (interval(random.random(50), i) for i in range(300)))
    assert 0.90 < inside / 300 < 0.99
    assert interval(np.full(9, 0.4), 0) == pytest.approx((0.4, 0.4))


# ---- what is left out, and why --------------------------------------------------------------------------------------


def failing(case):
    raise RuntimeError("no such thing")


def refusing(case):
    raise MethodError("not on this network; try another")


def test_a_method_that_fails_is_named_with_its_reason():
    broken, refused = declared(failing, "broken"), declared(refusing, "refused")
    found = few(methods=["saliency", broken, refused])
    assert found.refused == {"broken": "RuntimeError: no such thing", "refused": "not on this network; try another"}
    assert {row.name for row in found.rows} == {"saliency", *OTHERS}
    assert "not ranked: broken: RuntimeError: no such thing" in repr(found)
    assert "no such thing" in found._repr_html_()


def test_a_method_that_fails_late_is_taken_out_whole():
    calls = []

    def late(case):
        calls.append(1)
        return failing(case) if len(calls) > 5 else METHODS["saliency"].compute(case)

    found = few(30, methods=[declared(late, "late")])
    assert set(found.refused) == {"late"} and len(calls) == 6


def test_what_is_impossible_is_named():
    class Flat(nn.Module):
        def __init__(self):
            super().__init__()
            self.flat = nn.Linear(3 * 64 * 64, 10)

        def forward(self, x):
            return self.flat(x.flatten(1))

    torch.manual_seed(3)
    model = wrap(Flat().eval(), labels=scenes.CLASSES, preprocess=PREPROCESS)
    found = rank(model, n=30, progress=False)
    assert "grad_cam" in found.refused and "saliency" not in found.refused
    assert all(found.refused.values())


def test_maps_that_are_no_numbers_are_counted_as_undefined():
    own = declared(lambda case: METHODS["saliency"].compute(case) * float("nan"))
    row = few(methods=[own]).row("own")
    assert (row.undefined, row.share, row.rank_correlation, row.pointing) == (12, 0, 0, 0)
    assert row.score == pytest.approx(1 / 6)
    assert "undefined" in repr(few(methods=[own])) and "undefined" not in repr(few())
    empty = declared(lambda case: METHODS["saliency"].compute(case) * 0)
    assert few(methods=[empty]).row("own").undefined == 12


def test_where_the_network_does_not_look_there_is_no_heat():
    narrow = pel.preprocess(crop_px=48, mean=(0.5,) * 3, std=(0.25,) * 3)
    model = wrap(by_heart().module, labels=scenes.CLASSES, preprocess=narrow)
    found = few(60, model=model)
    assert 0 < found.used < 60
    assert found.row("saliency").undefined < found.used  # NaN margins are not "no number"


def test_pictures_answered_wrongly_are_counted():
    turned = tuple(scenes.CLASSES[(i + 1) % 10] for i in range(10))
    half = wrap(by_heart(30).module, labels=scenes.CLASSES, preprocess=PREPROCESS)
    found = few(60, model=half)
    assert found.used >= 30 and found.used + found.wrong == 60 and found.wrong > 0
    assert f"{found.used} of 60 pictures; left out {found.wrong} not rightly classified" in repr(found)
    with pytest.raises(ModelError, match="none of 12 pictures"):
        few(model=wrap(by_heart().module, labels=turned, preprocess=PREPROCESS))


def test_labels_may_stand_in_another_order():
    order = torch.tensor([3, 1, 0, 9, 8, 7, 6, 5, 4, 2])
    shuffled = nn.Sequential(by_heart().module, Reorder(order)).eval()
    labels = [*(scenes.CLASSES[i] for i in order), "another"]
    found = few(model=wrap(shuffled, labels=labels, preprocess=PREPROCESS))
    assert found.used == 12
    assert found.row("saliency").score == pytest.approx(few().row("saliency").score, abs=0.02)


class Reorder(nn.Module):
    def __init__(self, order):
        super().__init__()
        self.register_buffer("order", order)

    def forward(self, y):
        return y[:, self.order]


def test_hidden_masks_are_counted(monkeypatch):
    areas = [int(scenes.render(s).decisive.sum()) for s in scenes.stream(12, split="test")]
    monkeypatch.setattr(questions, "LEAST_SEEN_PX", sorted(areas)[4])
    found = few(methods="saliency")
    assert (found.hidden, found.used) == (sum(a < sorted(areas)[4] for a in areas), 12 - found.hidden)
    assert f"{found.hidden} whose decisive pixels are hidden" in found.pictures


# ---- bad input ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "error", "words"),
    [
        ({"data": "photos"}, SettingError, 'no data to rank on "photos"; there are scenes'),
        ({"n": 0}, SettingError, "at least one"),
        ({"n": -1}, SettingError, "n=-1"),
        ({"n": 10**9}, SettingError, "100000"),
        ({"seed": -1}, SettingError, "seed=-1"),
        ({"seed": 2**50}, SettingError, "seed="),
        ({"px": 32}, SettingError, "px=32 is too small"),
        ({"truth": "deciding"}, SettingError, 'did you mean "decisive"'),
        ({"truth": "mark"}, SettingError, "builtin:scenes-watermark"),
        ({"truth": "decisive", "shortcut": WATERMARK}, SettingError, "leave out one"),
        ({"target": "logits"}, SettingError, 'did you mean "logit"'),
        ({"shortcut": Shortcut("ruler")}, SettingError, "ruler"),
        ({"methods": "gradcam"}, MethodError, 'did you mean "grad_cam"'),
        ({"methods": []}, MethodError, "no method came"),
    ],
)
def test_bad_settings_are_told(settings, error, words):
    with pytest.raises(error, match=words.replace("(", r"\(")):
        rank(by_heart(), **{"n": 4, "progress": False, **settings})


@pytest.mark.parametrize(
    ("model", "words"),
    [
        ("builtin:photos", 'lacks "house".*builtin:scenes'),
        (nn.Flatten(), "has no labels.*builtin:scenes"),
        (wrap(nn.Flatten(), labels=scenes.CLASSES[:9], preprocess=PREPROCESS), "lacks"),
        (wrap(nn.Flatten(), labels=scenes.CLASSES), "preprocess"),
    ],
    ids=["photos", "bare", "nine", "unprepared"],
)
def test_networks_that_do_not_know_the_scenes_are_refused(model, words):
    with pytest.raises(ModelError, match=words):
        rank(model, n=4, progress=False)


def test_work_can_be_watched_and_stopped():
    seen = []
    few(20, progress=Progress(on_event=lambda *event: seen.append(event)))
    assert seen[-1][:2] == (20 * (1 + len(FEW) + len(OTHERS)),) * 2
    assert {"judging saliency", "measuring what the parts are worth"} <= {label for _, _, label in seen}

    bar = Progress(on_event=lambda done, total, label: bar.cancel())
    with pytest.raises(Cancelled):
        rank(by_heart(), methods="saliency", n=40, progress=bar)
    assert bar.done < bar.total


def test_a_stop_inside_a_method_is_no_failure_of_it():
    def stopping(case):
        raise Cancelled("stopped")

    with pytest.raises(Cancelled):
        few(methods=[declared(stopping)])


# ---- as text and as files -------------------------------------------------------------------------------------------


def test_the_text_is_a_table(ranking):
    lines = repr(ranking).splitlines()
    assert "by heart" in lines[0] and "12 of 12 pictures" in lines[0]
    assert lines[1] == "explained: logit of the class minus logit of its sibling"
    assert lines[2].split()[:3] == ["method", "score", "95"]
    assert [line.split()[0] for line in lines[3:]] == [row.name for row in ranking.rows]
    assert "perfect (reference)" in lines[3]


def test_html_and_text_let_nothing_act():
    row = Row("<script>x</script>\x1b[2J|", "method", 0.5, 0.4, 0.6, 0.1, 0.2, 0.3, 0.0, 0)
    evil = Ranking("<b>", "scenes", "decisive", "x", 1, 1, 0, 0, 0, "test", 64, (row,), {"<i>": "<u>\x1b"})
    html = evil._repr_html_()
    assert "<script>" not in html and "<b>" not in html and "<u>" not in html and "\x1b" not in html
    assert "\x1b" not in repr(evil)
    assert "\\|" in WRITERS[".md"](evil) and "\x1b" not in WRITERS[".md"](evil)


def test_files_hold_the_same_numbers(ranking, tmp_path):
    (kept,) = {len(json.loads(ranking.save(tmp_path / "a.json").read_text())["rows"])}
    assert kept == len(ranking.rows)
    assert json.loads((tmp_path / "a.json").read_text()) == ranking.to_json()
    with ranking.save(tmp_path / "a.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [(row["name"], float(row["score"])) for row in rows] == [(row.name, row.score) for row in ranking.rows]
    table = [line for line in ranking.save(tmp_path / "a.md").read_text().splitlines() if line.startswith("|")]
    assert len(table) == 2 + len(ranking.rows)
    assert all(line.count("|") == table[0].count("|") for line in table)


def test_files_are_not_replaced_unasked(ranking, tmp_path):
    path = ranking.save(tmp_path / "a.md")
    with pytest.raises(FileError, match="exists already"):
        ranking.save(path, overwrite=False)
    for name, words in [("a.txt", r"\.json, \.csv, \.md"), ("no/a.md", "does not exist")]:
        with pytest.raises(FileError, match=words):
            ranking.save(tmp_path / name)
    assert [p.name for p in tmp_path.iterdir()] == ["a.md"]
    with pytest.raises(PellucidError, match='did you mean "saliency"'):
        ranking.row("salience")
