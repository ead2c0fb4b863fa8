"""Planted truth: evidence finds the cue that a network follows and clears what it does not look at."""

from functools import cache

import numpy as np
import pytest

from pellucid.evaluate.questions import Posed, Question, removable, shortcut_of
from pellucid.images import scenes
from pellucid.images.fills import Fill
from pellucid.images.scenes.edits import decisive_parts
from pellucid.methods.evidence import evidence, evidence_between, minimal_sets, what_must_change
from pellucid.models.model import Model
from pellucid.models.resolve import load

WATERMARK = scenes.Shortcut("watermark")
COUNT = 6


@cache
def network(name: str) -> Model:
    return load(f"builtin:{name}")


def posed(question: Question) -> list[Posed]:
    found = [one for scene in scenes.stream(COUNT, split="test") if (one := question.pose(scene))]
    assert len(found) == COUNT
    return found


@cache
def marked() -> list[Posed]:
    return posed(Question("mark", "logit", WATERMARK))


@cache
def siblings() -> list[Posed]:
    return posed(Question("decisive", "contrast"))


def asked(name, one, mask, target="top1", controls=59):
    return evidence(network(name), one.picture.pixels, mask, target=target, controls=controls, progress=False)


def blocks(mask):
    """Sixteen squares, and what is under the mask as one region of its own, the last."""
    step = np.arange(64) // 16
    return np.where(mask, 16, step[:, None] * 4 + step)


def test_the_watermark_is_evidence_for_the_network_that_follows_it():
    found = [asked("scenes-watermark", one, one.mask) for one in marked()]
    words = [one.verdict for one in found]
    assert words.count("evidence") >= 0.75 * COUNT and "counter-evidence" not in words
    assert all(one.p < 0.05 and one.env <= 0.1 for one in found)
    assert np.mean([one.sym for one in found]) > 0.8
    assert [one.answer for one in found] == [one.label for one in marked()]  # it says what the mark says


def test_the_same_watermark_is_cleared_for_the_network_that_looks_at_the_scene():
    found = [asked("scenes", one, one.mask) for one in marked()]
    assert {one.verdict for one in found} == {"counter-evidence"}
    assert max(one.sym for one in found) < 0.1
    assert np.mean([one.p < 0.05 for one in found]) <= 0.25


def test_the_object_is_cleared_for_the_network_that_follows_the_watermark():
    found = [asked("scenes-watermark", one, one.picture.object, controls=29) for one in marked()]
    assert {one.verdict for one in found} == {"counter-evidence"}
    assert max(one.sym for one in found) < 0.1 < min(one.env for one in found)


def test_the_background_is_what_the_network_gone_astray_goes_by():
    shortcut = shortcut_of(network("scenes-background"))
    found = [
        [asked("scenes-background", one, mask, controls=29) for mask in (one.mask, one.picture.object)]
        for one in posed(Question("mark", "logit", shortcut))
    ]
    assert all(back.env <= 0.1 and back.fe > 0 and thing.fe < 0 for back, thing in found)
    assert max(thing.sym for _, thing in found) < 0.1
    assert np.mean([back.sym for back, _ in found]) > 0.3


def test_between_siblings_the_part_that_decides_stands_out_and_another_does_not():
    found = []
    for one in siblings():
        decides = decisive_parts(one.picture.scene)
        others = {n: place for n, (place, _) in removable(one).items() if n not in decides and n != "mark"}
        other = max(others.values(), key=lambda place: place.sum())
        pair = f"{one.label} vs {one.against}"
        found.append([asked("scenes", one, mask, pair) for mask in (one.mask, other)])
    assert np.mean([cue.p < 0.05 for cue, _ in found]) >= 0.75
    assert np.mean([other.p < 0.05 for _, other in found]) <= 0.25
    assert {other.verdict for _, other in found} == {"counter-evidence"}
    assert np.mean([cue.fe > other.fe for cue, other in found]) >= 0.85


def test_the_watermark_is_the_minimal_set():
    necessary, sufficient = [], []
    for one in marked():
        found = minimal_sets(network("scenes-watermark"), one.picture.pixels, regions=blocks(one.mask), progress=False)
        last = (int(found.labels.max()),)
        necessary.append(found.necessary is not None and found.necessary.regions == last)
        sufficient.append(found.sufficient is not None and found.sufficient.regions == last)
    assert np.mean(necessary) >= 0.75 and np.mean(sufficient) >= 0.75


def test_what_must_change_for_the_sibling_is_the_one_difference():
    """The donor is the true counterfactual, the scene as its sibling: only the difference need be taken from it."""
    for one in siblings():
        other = scenes.render(scenes.swapped(one.picture.scene))
        cut = blocks((other.pixels != one.picture.pixels).any(axis=-1))
        fill = Fill.donor(other.pixels)
        found = what_must_change(
            network("scenes"), one.picture.pixels, one.against, regions=cut, fills=[fill], progress=False
        )
        assert found.best is not None and found.best.regions == (int(found.labels.max()),)


@pytest.mark.parametrize(("name", "follows"), [("scenes-background", True), ("scenes", False)])
def test_before_backgrounds_of_other_classes_answers_part_where_the_background_is_followed(name, follows):
    test = [scenes.render(scene) for scene in scenes.stream(10, split="test")]
    backdrop = scenes.Shortcut("background")
    bare = list(scenes.stream(10, split="bare"))
    planted = [[scenes.planted(scene, backdrop, label) for scene in bare] for label in ("house", "agaric")]
    pools = [[scenes.render(scene).pixels for scene in pool] for pool in planted]
    found = evidence_between(
        network(name), [one.pixels for one in test], [one.object for one in test], *pools,
        names=("house", "agaric"), progress=False,
    )  # fmt: skip
    assert (found.disagreement == 1 and found.within == (0, 0)) if follows else found.disagreement < 0.7
    assert (found.p_apart < 0.01) == follows
