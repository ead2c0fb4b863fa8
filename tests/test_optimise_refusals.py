"""What pictures can not be made of, told in one sentence."""

import math

import pytest
import torch
from torch import nn

import pellucid as pel
from optimise_cases import example, linear, small
from pellucid.core.errors import ModelError, SettingError
from pellucid.inside.optimise import objectives
from pellucid.inside.optimise.class_image import class_image
from pellucid.inside.optimise.groups import total_variation
from pellucid.inside.optimise.making import optimise
from pellucid.inside.optimise.transforms import Transforms


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"steps": 0}, "steps is at least 1"),
        ({"learning_rate": 0}, "learning_rate above 0"),
        ({"size_px": 1}, "at least 2 pixels"),
        ({"size_px": (4, 5, 6)}, "at least 2 pixels"),
        ({"parametrisation": "spline"}, "no parametrisation"),
        ({"transforms": "wild"}, "robust, strong, none"),
        ({"count": 0}, "count is at least 1"),
        ({"colour": "red"}, "colour is None"),
    ],
)
def test_settings_out_of_range_are_refused(given, words):
    with pytest.raises(SettingError, match=words):
        optimise(small(), "2:1", image=example(), **{"steps": 2, **given})


def test_what_reads_nothing_from_the_network_is_refused():
    with pytest.raises(SettingError, match="reads nothing"):
        optimise(small(), total_variation(), image=example(), steps=2)
    with pytest.raises(SettingError, match="no objective"):
        optimise(small(), [], image=example(), steps=2)


def test_a_network_of_one_size_says_so_when_another_is_asked_for():
    with pytest.raises(SettingError, match=r"does not take pictures of 9 × 9 px .*leave out size_px: it takes 6 × 7"):
        optimise(linear(), "1:0", image=example(size=(6, 7)), size_px=9, steps=2)
    assert optimise(small(), "2:0", image=example(), size_px=(9, 21), steps=2).pictures.shape[2:] == (9, 21)


def test_a_network_in_training_mode_is_told():
    found = optimise(small().train(), "2:0", image=example(), steps=2)
    assert any("training mode" in note for note in found.notes)


@pytest.mark.parametrize("kind", [torch.float16, torch.bfloat16])
def test_networks_of_half_precision(kind):
    net = small().to(kind)
    assert math.isfinite(optimise(net, "2:0", image=example().to(kind), steps=3).values[0])
    assert math.isfinite(class_image(net, 1, image=example().to(kind), steps=3).score)


def test_an_unknown_input_size_is_refused():
    with pytest.raises(ModelError, match="input size"):
        optimise(small(), "2:1", steps=2)


def test_gradients_that_are_not_finite_are_told():
    class Root(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 2, 1)

        def forward(self, x):
            return self.conv(x - x).sub(self.conv.bias.view(1, -1, 1, 1)).abs().sqrt() + x[:, :2]

    found = optimise(
        Root().eval(), objectives.target(pel.custom(lambda y: y.flatten(1).sum(1))), image=example().float(), steps=3
    )
    assert any("not finite" in note for note in found.notes)


def test_settings_of_transforms_reach_the_loop():
    net = small()
    still, moving = (
        optimise(net, "2:1", image=example(), steps=5, transforms=t) for t in (Transforms(0, (1, 1), 0, 0), "strong")
    )
    assert abs(still.pictures - moving.pictures).max() > 1e-3


@pytest.mark.parametrize("given", [{"weight_decay": 0}, {"weight_decay": float("nan")}, {"steps": 0}, {"blur_px": -1}])
def test_settings_of_class_images_out_of_range_are_refused(given):
    with pytest.raises(SettingError, match="weight_decay is above 0"):
        class_image(small(), 1, image=example(), **given)


def test_a_snapshot_beyond_the_last_step_is_refused():
    with pytest.raises(SettingError, match="snapshots after step 99 came for 10 steps"):
        optimise("builtin:scenes", "features:1", steps=10, snapshots=(4, 99))
