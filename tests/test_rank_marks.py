"""Ranking where a planted mark is the truth: what is asked, about which class, and of which network."""

import pytest

from pellucid.evaluate.questions import Question, choose_question, other_class
from pellucid.evaluate.rank import rank
from pellucid.images import scenes
from pellucid.images.scenes import Shortcut
from scene_networks import WATERMARK, by_heart


def followed(**settings):
    """A ranking of the network that follows the watermark."""
    model = by_heart(30, "mark")
    return rank(model, methods=("saliency", "grad_cam"), n=12, shortcut=WATERMARK, progress=False, **settings)


def test_marks_are_asked_about_where_one_is_known():
    assert choose_question(by_heart()) == Question("decisive", "contrast")
    assert choose_question(by_heart(), shortcut=WATERMARK) == Question("mark", "logit", WATERMARK)
    assert choose_question(by_heart(), target="logit") == Question("decisive", "logit")
    assert choose_question(by_heart(), "mark", "contrast", WATERMARK) == Question("mark", "contrast", WATERMARK)


def test_a_network_that_follows_a_mark_is_asked_about_it():
    found = followed()
    assert (found.truth, found.used, found.target) == ("mark", 12, "logit of the mark's class")
    assert found.rows[0].name == "perfect"
    assert "0 where the mark did not decide" in found.pictures
    other = followed(target="contrast")
    assert other.target == "logit of the mark's class minus logit of the scene's own"


@pytest.mark.parametrize("kind", ["watermark", "frame", "background", "ruler", "sticker"])
def test_the_mark_stands_for_another_class(kind):
    named = ("house", "bolete") if kind in ("ruler", "sticker") else None
    shortcut = Shortcut(kind, classes=named)
    for scene in scenes.stream(20, split="test"):
        posed = Question("mark", "logit", shortcut).pose(scene)
        assert posed is not None and posed.label != scene.label == posed.against
        assert named is None or posed.label in named
        assert (posed.mask == posed.picture.mark).all() and posed.mask.any()
        assert [m.stands_for for m in posed.picture.scene.marks] == [posed.label]
    assert len({other_class(scene, shortcut) for scene in scenes.stream(60)}) == (2 if named else 10)


def test_a_mark_of_its_own_class_only_asks_nothing():
    only = Shortcut("ruler", classes=("house",))
    scene = scenes.compose(0, label="house")
    assert other_class(scene, only) is None
    assert Question("mark", "logit", only).pose(scene) is None
