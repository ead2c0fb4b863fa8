"""What the doctor says about a network, and that what it says is true."""

import math

import pytest
import torch
from torch import nn

import pellucid as pel
from method_cases import COLOURS, heat, pooled, random_input, undrawn
from networks import zoo
from networks.awkward import AWKWARD, NO_AUTOGRAD, example
from pellucid.core.errors import ModelError, PellucidError
from pellucid.methods import METHODS
from pellucid.methods.doctor import doctor
from test_panel import ASKING

SAID = {
    "squeezenet1_1": {"cam": "exact", "grad_cam": "exact", "guided_backprop": "exact", "fullgrad": "exact"},
    "vgg11": {"cam": "impossible", "grad_cam": "exact", "guided_backprop": "exact", "fullgrad": "exact"},
    "resnet18": {"cam": "exact", "grad_cam": "exact", "deconvnet": "exact", "fullgrad": "exact"},
    "mobilenet_v3_small": {
        "cam": "impossible",
        "grad_cam": "exact",
        "guided_backprop": "approximate",
        "guided_grad_cam": "approximate",
        "fullgrad": "approximate",
    },
    "convnext_tiny": {
        "cam": "impossible",
        "grad_cam": "exact",
        "guided_backprop": "approximate",
        "deconvnet": "approximate",
        "fullgrad": "approximate",
    },
    "vit_b_32": {
        "cam": "impossible",
        "grad_cam": "approximate",
        "layer_cam": "approximate",
        "guided_backprop": "approximate",
        "fullgrad": "approximate",
    },
}
DECIDES = {
    ("vgg11", "cam"): "global average pooling",
    ("mobilenet_v3_small", "cam"): "hardswish",
    ("mobilenet_v3_small", "guided_backprop"): "hardswish",
    ("mobilenet_v3_small", "fullgrad"): "hardswish",
    ("convnext_tiny", "cam"): "layer_norm",
    ("convnext_tiny", "guided_backprop"): "gelu",
    ("vit_b_32", "grad_cam"): "attention",
    ("squeezenet1_1", "cam"): "classifier.2",
    ("resnet18", "cam"): "layer4",
    ("resnet18", "guided_backprop"): "relu ×17",
}


@pytest.mark.parametrize("name", SAID)
def test_verdicts_on_architectures(name: str):
    found = doctor(zoo.build(name), zoo.picture(name))
    assert set(found.verdicts) == set(METHODS)
    for method, fit in SAID[name].items():
        assert found.verdicts[method].fit == fit, method
    assert found.verdicts["saliency"].fit == "exact"
    for (network, method), word in DECIDES.items():
        assert network != name or word in found.verdicts[method].why, method
    assert found.gradient_error <= 1e-4
    assert found.input_shape == tuple(zoo.picture(name).shape)
    assert sum(found.operations.values()) > 10


def test_impossible_is_refused_and_the_rest_runs():
    for make in (pooled, lambda: AWKWARD["encoder"][0](), lambda: AWKWARD["norms"][0]()):
        model = make().double()
        x = random_input(1, 3, 12, 12)
        for name, verdict in doctor(model, x).verdicts.items():
            few = {"samples": 4} if "samples" in METHODS[name].settings else {}
            words = {"preprocess": COLOURS, **ASKING.get(name, few)}
            if verdict.fit == "impossible":
                with pytest.raises(PellucidError):
                    heat(model, x, name, **words)
            else:
                assert torch.isfinite(heat(model, x, name, **words)).all(), name


def test_a_fully_connected_network_has_no_maps():
    flat = nn.Sequential(nn.Flatten(), nn.Linear(192, 8), nn.ReLU(), nn.Linear(8, 3)).double().eval()
    found = doctor(flat, random_input(1, 3, 8, 8))
    assert found.verdicts["grad_cam"].fit == "impossible" and "saliency" in found.verdicts["grad_cam"].why
    assert found.verdicts["saliency"].fit == "exact"


def test_a_network_without_a_rectifier():
    found = doctor(pooled(act=nn.Tanh), random_input(1, 3, 8, 8))
    assert found.verdicts["guided_backprop"].fit == "approximate"
    assert "plain gradient" in found.verdicts["guided_backprop"].why


def test_without_max_pooling_deconvnet_has_no_switches():
    assert "switches" in doctor(pooled(), random_input(1, 3, 8, 8)).verdicts["deconvnet"].why


@pytest.mark.parametrize("name", NO_AUTOGRAD)
def test_networks_that_torch_cannot_differentiate(name: str, untouched):
    model = AWKWARD[name][0]()
    with untouched(model), undrawn():
        found = doctor(model, example(AWKWARD[name][1])[0])
    assert math.isnan(found.gradient_error), "there is nothing to compare with"
    assert found.verdicts["saliency"].fit == "exact"


def test_a_custom_function_is_told():
    factory, shapes = AWKWARD["custom_function"]
    assert any("custom function" in warning for warning in doctor(factory(), example(shapes)[0]).warnings)


def test_state_written_by_the_forward_is_put_back():
    model = AWKWARD["mutates_buffers"][0]()
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    doctor(model, example(AWKWARD["mutates_buffers"][1])[0])
    assert all(torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


def test_the_input_is_made_from_the_preprocessing():
    known = pel.wrap(pooled(), preprocess=pel.preprocess(crop_px=(12, 16)))
    assert doctor(known).input_shape == (1, 3, 12, 16)
    with pytest.raises(ModelError, match="input"):
        doctor(pooled())
