"""The guard of the user's model sees every kind of trace that a method could leave."""

import random
from collections import OrderedDict

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.modules import module as torch_module

from guard import guarded

pytestmark = pytest.mark.filterwarnings("ignore:`torch.jit.script` is deprecated:DeprecationWarning")


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.ReLU(), nn.Flatten(), nn.Linear(8, 2)).eval()


def _give_gradient(net):
    net(torch.ones(1, 1, 4, 4)).sum().backward()


def _swap_parameter(net):
    net[0].weight = nn.Parameter(net[0].weight.detach().clone())


def _write_and_restore(net):
    with torch.no_grad():
        net[0].weight.add_(0)


def _negative_zero(net):
    net[0].bias.data = torch.full((2,), -0.0)


def _same_hooks_in_a_new_dict_with_one_more(net):
    net[2]._forward_hooks = OrderedDict(net[2]._forward_hooks) | {7: print}


TRACES = {
    "gradient": _give_gradient,
    "swapped parameter": _swap_parameter,
    "write": _write_and_restore,
    "other memory": _negative_zero,
    "hooks": _same_hooks_in_a_new_dict_with_one_more,
    "bit": lambda net: net[1].running_mean.data.copy_(torch.tensor([0.0, -0.0])),
    "swapped buffer": lambda net: setattr(net[1], "running_var", net[1].running_var.clone()),
    "root mode": lambda net: net.train(),
    "mode of one": lambda net: net[1].train(),
    "requires_grad": lambda net: net[4].requires_grad_(False),
    "forward hook": lambda net: net[2].register_forward_hook(lambda *_: None),
    "pre hook": lambda net: net[2].register_forward_pre_hook(lambda *_: None),
    "backward hook": lambda net: net[2].register_full_backward_hook(lambda *_: None),
    "tensor hook": lambda net: net[0].weight.register_hook(lambda grad: grad),
    "accumulation hook": lambda net: net[0].weight.register_post_accumulate_grad_hook(lambda p: None),
    "patched forward": lambda net: setattr(net[2], "forward", torch.sigmoid),
    "setting": lambda net: setattr(net[2], "inplace", True),
    "swapped module": lambda net: net.__setitem__(2, nn.ReLU()),
    "torch's random numbers": lambda net: torch.rand(1),
    "numpy's random numbers": lambda net: np.random.rand(),
    "python's random numbers": lambda net: random.random(),
}


@pytest.mark.parametrize("trace", TRACES)
def test_every_trace_is_seen(net, untouched, trace):
    with pytest.raises(AssertionError, match="not left as it was"), untouched(net):
        TRACES[trace](net)


def test_a_forward_and_a_gradient_by_hand_leave_no_trace(net, untouched):
    image = torch.ones(1, 1, 4, 4, requires_grad=True)
    with untouched(net):
        torch.autograd.grad(net(image).sum(), image)


def test_nan_is_no_difference(net, untouched):
    net[0].bias.data.fill_(float("nan"))
    net[2].threshold = float("nan")
    with untouched(net):
        net(torch.ones(1, 1, 4, 4))


def test_traces_on_torch_and_on_classes_are_seen(net, monkeypatch):
    with pytest.raises(AssertionError, match=r"class torch\.nn\.modules\.activation\.ReLU"), guarded(net):
        monkeypatch.setattr(nn.ReLU, "forward", torch.sigmoid)
    with pytest.raises(AssertionError, match=r"class torch\.nn\.modules\.activation\.ReLU"), guarded(net):
        monkeypatch.setattr(nn.ReLU, "extra", 1, raising=False)
    with pytest.raises(AssertionError, match=r"functions of torch\.nn\.functional"), guarded(net):
        monkeypatch.setattr(torch.nn.functional, "relu", torch.sigmoid)
    handles = []
    with pytest.raises(AssertionError, match="global hooks _global_forward_hooks"), guarded(net):
        handles.append(torch_module.register_module_forward_hook(lambda *_: None))
    handles.pop().remove()
    with pytest.raises(AssertionError, match="gradients enabled"), guarded(net):
        torch.set_grad_enabled(False)
    torch.set_grad_enabled(True)


def test_a_trace_is_seen_after_an_exception_and_the_exception_is_kept(net, untouched):
    with pytest.raises(AssertionError, match="mode") as seen, untouched(net):
        net.train()
        raise KeyError("in the middle")
    assert isinstance(seen.value.__context__, KeyError)
    with pytest.raises(KeyError, match="in the middle"), untouched(net):
        raise KeyError("in the middle")


def test_script_modules_and_shared_modules(untouched):
    script = torch.jit.script(nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU())).eval()
    shared = nn.ReLU()
    net = nn.Sequential(script, shared, shared)
    with untouched(net):
        net(torch.ones(1, 1, 2, 2))
    with pytest.raises(AssertionError, match=r"0\.0\.weight"), untouched(net), torch.no_grad():
        next(script.parameters()).add_(1)
