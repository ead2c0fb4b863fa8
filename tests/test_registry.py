"""The table of methods: what every entry says, settings and their mistakes, a method of one's own."""

from typing import Annotated, Literal

import pytest
import torch

import pellucid as pel
from method_cases import COLOURS, close, heat, outcome, outcomes, pooled, random_input
from pellucid.core.errors import MethodError, SettingError
from pellucid.methods import METHODS
from pellucid.methods.registry import find, method

ISSUE = {
    "saliency",
    "gradient_x_input",
    "guided_backprop",
    "deconvnet",
    "smoothgrad",
    "smoothgrad_squared",
    "vargrad",
    "integrated_gradients",
    "expected_gradients",
    "gradient_shap",
    "cam",
    "grad_cam",
    "grad_cam_plus_plus",
    "xgrad_cam",
    "hires_cam",
    "layer_cam",
    "eigen_cam",
    "eigen_grad_cam",
    "guided_grad_cam",
    "fullgrad",
}


def test_every_method_of_the_issue_is_there():
    assert set(METHODS) >= ISSUE


@pytest.mark.parametrize("name", METHODS)
def test_every_entry_says_what_it_is(name: str):
    entry = METHODS[name]
    assert entry.name == name and getattr(pel, name) is entry
    assert entry.title and entry.units and len(entry.misleads) > 20
    assert "arXiv" in entry.source or "doi" in entry.source or "et al." in entry.source
    assert (entry.compute.__doc__ or "").strip()
    assert all(setting.help for setting in entry.settings.values())
    assert repr(entry).startswith(f"{name}(")


@pytest.mark.parametrize("name", METHODS)
def test_signs_and_shapes_are_as_declared(name: str):
    x = random_input(2, 3, 8, 8)
    found = outcome(pooled(), x, METHODS[name], preprocess=COLOURS)
    shape = {"input": (2, 8, 8), "layer": (2, 4, 4)}[found.method.site]
    native = found.attribution
    if native.dim() == 4:
        native = {"sum": native.sum(1), "max_abs": native.abs().amax(1), "sum_abs": native.abs().sum(1)}[
            found.method.reduce
        ]
    assert tuple(native.shape) == shape
    assert torch.isfinite(native).all()
    assert found.method.signed or bool((native >= 0).all())
    assert (found.layer is not None) == found.method.layered
    assert found.seconds >= 0 and found.scores.shape == (2,)


@pytest.mark.parametrize("spelling", ["grad_cam", "Grad-CAM", " GRAD_CAM ", "grad-cam"])
def test_names_are_found_as_people_write_them(spelling: str):
    assert find(spelling) is METHODS["grad_cam"]


def test_an_unknown_method_offers_the_nearest():
    with pytest.raises(MethodError, match='"no_such_thing"'):
        find("no_such_thing")
    with pytest.raises(MethodError, match='did you mean "smoothgrad"'):
        find("smoothgrd")


def test_settings_make_a_new_method_and_leave_the_old_one():
    five = METHODS["smoothgrad"](samples=5)
    both = five(noise_fraction="0.2")
    assert METHODS["smoothgrad"].values["samples"] == 25
    assert (five.values["samples"], five.values["noise_fraction"]) == (5, 0.15)
    assert (both.values["samples"], both.values["noise_fraction"]) == (5, 0.2)
    assert find(both) is both


@pytest.mark.parametrize(
    ("given", "becomes"),
    [
        ({"samples": "7"}, 7),
        ({"samples": 7.0}, 7),
        ({"noise_fraction": "1e-1"}, 0.1),
        ({"noise_fraction": 1}, 1.0),
        ({"absolute": "yes"}, True),
        ({"absolute": False}, False),
        ({"base": "deconvnet"}, "deconvnet"),
    ],
)
def test_values_are_read_as_their_type(given: dict, becomes):
    value = METHODS["smoothgrad"](**given).values[next(iter(given))]
    assert value == becomes and type(value) is type(becomes)


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"sample": 5}, 'did you mean "samples"'),
        ({"nothing_alike": 5}, "Its settings: samples"),
        ({"samples": 2.5}, "whole number"),
        ({"samples": "many"}, "expected int"),
        ({"samples": True}, "expected int"),
        ({"samples": None}, "expected int"),
        ({"samples": float("inf")}, "finite"),
        ({"samples": float("nan")}, "finite"),
        ({"noise_fraction": "nan"}, "finite"),
        ({"noise_fraction": [0.1]}, "expected float"),
        ({"absolute": "perhaps"}, "expected bool"),
        ({"base": "grad_cam"}, "'deconvnet'"),
    ],
)
def test_a_wrong_setting_is_our_error(given: dict, says: str):
    with pytest.raises(SettingError, match=says):
        METHODS["smoothgrad"](**given)


@pytest.mark.parametrize(
    ("method", "words", "says"),
    [
        ("smoothgrad", {"samples": 0}, "samples=0"),
        ("smoothgrad", {"noise_fraction": -0.1}, "noise_fraction=-0.1"),
        ("smoothgrad", {"noise_fraction": float("nan")}, "nan"),
        ("smoothgrad", {"cap_percentile": 0.0}, "cap_percentile=0.0"),
        ("smoothgrad", {"cap_percentile": 101.0}, "cap_percentile=101.0"),
        ("smoothgrad", {"base": "grad_cam"}, "saliency"),
        ("gradient_shap", {"noise_fraction": -1.0}, "noise_fraction=-1.0"),
        ("expected_gradients", {"samples": 0}, "samples=0"),
        ("expected_gradients", {"samples": 3}, "4 baselines"),
        ("expected_gradients", {"baseline": []}, "baseline"),
        ("integrated_gradients", {"steps": 0}, "steps=0"),
        ("integrated_gradients", {"steps": 1, "rule": "trapezoid"}, "trapezoid"),
        ("integrated_gradients", {"rule": "simpson"}, "gauss_legendre"),
        ("integrated_gradients", {"baseline": "blck"}, 'did you mean "black"'),
        ("integrated_gradients", {"baseline": torch.zeros(3, 9, 9)}, r"\(3, 9, 9\)"),
        ("integrated_gradients", {"baseline": []}, "baseline"),
    ],
)
def test_a_wrong_value_is_our_error(method: str, words: dict, says: str):
    with pytest.raises(SettingError, match=says):
        heat(pooled(), random_input(1, 3, 8, 8), method, preprocess=COLOURS, **words)


def test_a_pixel_baseline_without_preprocessing_is_refused_with_the_remedy():
    with pytest.raises(SettingError, match="preprocess="):
        heat(pooled(), random_input(1, 3, 8, 8), "integrated_gradients", baseline="black")


def test_a_method_of_ones_own_is_one_function():
    @method("my_cam", title="My CAM", site="layer", source="me 2026", units="mine", misleads="when it misleads")
    def my_cam(
        case: pel.Case,
        *,
        power: Annotated[float, "of the weights"] = 1.0,
        side: Annotated[Literal["both", "positive"], "which part"] = "both",
    ) -> torch.Tensor:
        """`(Σ_k sign(w_k) |w_k|^power A_k)`."""
        weights = case.gradient().mean((2, 3), keepdim=True)
        heat = (weights.sign() * weights.abs() ** power * case.activation()).sum(1)
        return heat if side == "both" else heat.relu()

    try:
        model, x = pooled(), random_input(2, 3, 8, 8)
        close(heat(model, x, "my_cam", side="positive", layers="2"), heat(model, x, "grad_cam", layers="2"), 1e-14)
        assert my_cam.settings["side"].help == "which part"
        assert pel.doctor(model, x).verdicts["my_cam"].fit == "exact"
    finally:
        del METHODS["my_cam"]


def test_a_method_that_gives_the_wrong_number_of_maps_is_told():
    @method("one_map", title="One", site="layer", source="me", units="mine", misleads="always")
    def one_map(case: pel.Case) -> torch.Tensor:
        return case.activation().sum(1)[:1]

    try:
        with pytest.raises(MethodError, match="one map per image"):
            outcomes(pooled(), random_input(2, 3, 8, 8), "one_map")
    finally:
        del METHODS["one_map"]
