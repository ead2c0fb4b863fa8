"""A CAM as a gate in front of a backprop map: the product, Guided Grad-CAM as its default, and what is passed on."""

from typing import get_args

import pytest
import torch
from torch.nn import functional as F

import pellucid as pel
from method_cases import COLOURS, check, close, error, heat, outcome, pooled, random_input, undrawn
from networks.awkward import AWKWARD, example
from pellucid.core.errors import SettingError
from pellucid.core.record import record
from pellucid.methods import METHODS
from pellucid.methods.gated_backprop import Backprop, Cam

PAIRS = [(cam, "guided_backprop") for cam in get_args(Cam)] + [("grad_cam", b) for b in get_args(Backprop)[1:]]


@pytest.mark.parametrize("layer", [None, "2"])
def test_the_default_is_guided_grad_cam(layer: str | None):
    model, x = pooled(), random_input(2, 3, 8, 8)
    found = heat(model, x, "gated_backprop", layers=layer)
    assert torch.equal(found, heat(model, x, "guided_grad_cam", layers=layer))


@pytest.mark.parametrize("name", ["inplace_residual", "dense_concat", "functional_relu_reused", "squeeze_excite"])
def test_the_default_is_guided_grad_cam_on_awkward_networks(name: str):
    model, x = AWKWARD[name][0](), example(AWKWARD[name][1])
    assert torch.equal(heat(model, x, "gated_backprop"), heat(model, x, "guided_grad_cam"))


@pytest.mark.parametrize(("cam", "backprop"), PAIRS)
def test_every_pair_is_the_product_of_its_two_maps(cam: str, backprop: str):
    model, x, words = pooled(), random_input(2, 3, 8, 8), {"preprocess": COLOURS, "layers": "5"}
    layer = heat(model, x, cam, **words).clamp(min=0)
    big = F.interpolate(layer[:, None], size=(8, 8), mode="bilinear", align_corners=False)
    expected = big * heat(model, x, backprop, preprocess=COLOURS)
    close(heat(model, x, "gated_backprop", cam=cam, backprop=backprop, **words), expected, 1e-12)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes: int):
    model, x = pooled(axes), random_input(2, 3, *[8] * axes)
    found = heat(model, x, "gated_backprop", cam="hires_cam", backprop="saliency")
    mode = {1: "linear", 3: "trilinear"}[axes]
    gate = F.interpolate(heat(model, x, "hires_cam")[:, None], size=[8] * axes, mode=mode, align_corners=False)
    close(found, gate * heat(model, x, "saliency"), 1e-12)


def test_a_closed_gate_lets_nothing_through():
    """Exact CAM is signed: where it is negative at every cell around, the product is zero and not turned over."""
    model, x = pooled(), random_input(1, 3, 8, 8)
    layer = heat(model, x, "cam", 4)
    big = F.interpolate(layer.clamp(min=0)[:, None], size=(8, 8), mode="bilinear", align_corners=False)
    found = heat(model, x, "gated_backprop", 4, cam="cam", backprop="saliency")
    closed = (big == 0).expand_as(found)
    assert bool(closed.any()) and not bool(closed.all())
    assert not found[closed].any() and bool(found[~closed].any())


def test_checks_go_by_the_name_of_the_map_they_are_about():
    model, x = pooled(), random_input(2, 3, 8, 8)
    found = outcome(model, x, "gated_backprop", cam="cam", backprop="saliency")
    assert check(found, "cam: completeness residual") < 1e-10
    assert all(c.name != "completeness residual" for c in found.receipts[0].checks)
    assert any("exact CAM reads" in note for note in found.receipts[0].notes)


def test_the_map_is_of_the_class():
    model, x = pooled(), random_input(1, 3, 8, 8)
    words = {"backprop": "saliency", "cam": "hires_cam"}
    assert error(heat(model, x, "gated_backprop", 2, **words), heat(model, x, "gated_backprop", 1, **words)) > 0.01


def test_another_name_is_refused():
    with pytest.raises(SettingError, match="'lrp'"):
        METHODS["gated_backprop"](backprop="grad_cam")
    with pytest.raises(SettingError, match="'score_cam'"):
        METHODS["gated_backprop"](cam="saliency")


def test_the_doctor_looks_at_the_layer_and_at_the_rectifiers():
    doctor = METHODS["gated_backprop"].doctor
    assert doctor(record(pooled(), random_input(1, 3, 8, 8))).fit == "exact"
    assert doctor(record(pooled(act=torch.nn.GELU), random_input(1, 3, 8, 8))).fit == "approximate"
    flat = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(12, 3)).double()
    assert doctor(record(flat, random_input(1, 3, 2, 2))).fit == "impossible"


def test_on_a_trained_network_nothing_is_touched(untouched):
    model, x = pel.load("builtin:photos"), random_input(2, 3, 32, 32, dtype=torch.float32)
    with untouched(model.module), undrawn():
        found = outcome(model, x, "gated_backprop", cam="layer_cam", backprop="lrp")
    assert found.attribution.shape == (2, 3, 32, 32)
    assert bool(found.attribution.any())
