"""Layers watched while the untouched network runs: the numbers of the recording, gradient too, and no trace left."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from method_cases import undrawn
from pellucid.core.errors import LayerError, TraceError
from pellucid.core.record import record
from pellucid.core.watch import Watch


class InPlace(nn.Module):
    """A convolution whose output is overwritten at once, and a rectifier that is used twice."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(2, 4, 3), nn.Conv2d(4, 4, 3)
        self.relu = nn.ReLU(inplace=True)
        self.norm = nn.BatchNorm2d(4)

    def forward(self, x):
        x = self.relu(self.norm(self.first(x)))
        x = self.relu(self.second(x)).mul_(2)
        return F.adaptive_avg_pool2d(x, 1).flatten(1)


@pytest.fixture
def net():
    net = InPlace().eval()
    net.norm.running_mean.uniform_(-1, 1)
    return net


@pytest.mark.parametrize("layer", ["first", "norm", "relu#0", "relu#1", "relu", "second", ""])
def test_it_gives_what_is_recorded_for_other_inputs(net, layer, untouched):
    x = torch.randn(3, 2, 9, 11)
    watch = Watch(record(net, x[:1]), [layer])
    with untouched(net), undrawn():
        (given,) = watch(x)
    again = record(net, x)
    recorded = again.at(layer).data if layer else again.scores
    assert torch.allclose(given, recorded, rtol=1e-6, atol=1e-7)


def test_several_layers_come_in_the_order_asked_for(net):
    trace = record(net, torch.randn(1, 2, 9, 9))
    second, first = Watch(trace, ["second", "first"])(torch.randn(2, 2, 9, 9))
    assert second.shape[-1] == 5 and first.shape[-1] == 7


def test_the_gradient_is_that_of_the_recording(net):
    x = torch.randn(2, 2, 9, 9)
    leaf = x.clone().requires_grad_()
    trace = record(net, x)
    (given,) = Watch(trace, ["second"])(leaf)
    (mine,) = torch.autograd.grad(given[:, 1].sum(), leaf)
    value = trace.at("second")
    seed = torch.zeros(value.shape)
    seed[:, 1] = 1
    assert torch.allclose(mine, trace.pull({value: seed}).input(), atol=1e-6)
    assert all(p.grad is None for p in net.parameters())


def test_the_forward_ends_at_the_last_layer_asked_for():
    calls = []

    class Late(nn.Module):
        def forward(self, x):
            calls.append(x.shape)
            return x.flatten(1).sum(1, keepdim=True)

    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), Late()).eval()
    watch = Watch(record(net, torch.zeros(1, 1, 5, 5)), ["0"])
    calls.clear()
    watch(torch.zeros(4, 1, 5, 5))
    assert not calls


def test_other_sizes_run_where_the_layers_allow_it():
    net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.Flatten(), nn.Linear(2 * 36, 3)).eval()
    watch = Watch(record(net, torch.zeros(1, 1, 8, 8)), ["0"])
    assert watch(torch.zeros(1, 1, 20, 30))[0].shape == (1, 2, 18, 28)


def test_unknown_layers_are_refused_with_the_nearest(net):
    with pytest.raises(LayerError, match='did you mean "second"'):
        Watch(record(net, torch.zeros(1, 2, 9, 9)), ["secnd"])


def test_a_network_that_answers_differently_each_time_is_found_out():
    class Drifts(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.count = nn.Conv2d(1, 1, 1), 0

        def forward(self, x):
            self.count += 1
            return self.conv(x) + self.count

    net = nn.Sequential(Drifts()).eval()
    trace = record(net, torch.ones(1, 1, 4, 4))
    with pytest.raises(TraceError, match="other numbers"):
        Watch(trace, ["0"])


def test_nothing_stays_behind_after_an_exception(net, untouched):
    watch = Watch(record(net, torch.zeros(1, 2, 9, 9)), ["first"])
    hooks = len(nn.modules.module._global_forward_hooks)
    with untouched(net), undrawn(), pytest.raises(RuntimeError):
        watch(torch.zeros(1, 5, 9, 9))
    assert len(nn.modules.module._global_forward_hooks) == hooks


def test_a_layer_that_is_not_reached_is_named():
    class Forks(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv2d(1, 1, 3), nn.Conv2d(1, 1, 3)

        def forward(self, x):
            return self.a(x) if x.sum() > 0 else self.b(x)

    net = nn.Sequential(Forks(), nn.ReLU()).eval()
    watch = Watch(record(net, torch.ones(1, 1, 5, 5)), ["0.a"])
    with pytest.raises(TraceError, match=r"0\.a"):
        watch(-torch.ones(1, 1, 5, 5))
