"""The ranking on the networks that ship: the perfect map first, control maps below the good methods."""

import pytest

import pellucid as pel
from pellucid.evaluate.controls import CONTROLS
from pellucid.evaluate.questions import classes_of, shortcut_of
from pellucid.evaluate.rank import rank
from pellucid.images import scenes
from scene_networks import by_heart

CHEAP = ("saliency", "gradient_x_input", "grad_cam", "cam")
DEAR = ("integrated_gradients", "expected_gradients")


@pytest.mark.parametrize(
    ("good", "n"), [(CHEAP, 60), pytest.param((*CHEAP, *DEAR), 100, marks=pytest.mark.slow)], ids=["cheap", "all"]
)
def test_on_the_trained_network_control_maps_stay_below_good_methods(good, n):
    found = rank("builtin:scenes", methods=good, n=n, progress=False)
    assert found.used >= 0.95 * n
    assert found.rows[0].name == "perfect"
    worst = min(found.row(name).score for name in good)
    for name in CONTROLS:
        assert found.row(name).score < worst, name
    assert found.row("random").high < worst


def test_on_the_network_that_follows_the_watermark_the_mark_is_found():
    model = "builtin:scenes-watermark"
    found = rank(model, methods=("gradient_x_input", "guided_backprop"), n=20, progress=False)
    assert (found.truth, found.used >= 19) == ("mark", True)
    assert found.rows[0].name == "perfect"
    for name in ("gradient_x_input", "guided_backprop"):
        assert found.row(name).score > max(found.row(control).score for control in CONTROLS)


def test_the_shortcut_stands_in_the_card():
    found = shortcut_of(pel.load("builtin:scenes-watermark"))
    assert found is not None and found.kind == "watermark"
    assert shortcut_of(pel.load("builtin:photos")) is None
    assert shortcut_of(by_heart()) is None
    assert set(classes_of(pel.load("builtin:scenes"))) == set(scenes.CLASSES)
