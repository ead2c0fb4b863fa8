"""The model comes back bit-equal after a refusal and after an exception in the middle of anything."""

import contextlib
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compare import but_pythons_numbers, class_seed
from networks.awkward import AWKWARD, REFUSED, example
from networks.common import Trunk, seeded
from pellucid.core import target
from pellucid.core.errors import PellucidError, TraceError
from pellucid.core.pull import Rules
from pellucid.core.record import record

Untouched = Callable[..., Any]


@pytest.fixture
def untouched(untouched: Untouched) -> Untouched:
    return but_pythons_numbers(untouched)


@pytest.mark.parametrize("name", REFUSED)
def test_a_refused_network_is_left_as_it_was(name: str, untouched: Untouched) -> None:
    factory, shapes, _ = REFUSED[name]
    model = factory()
    with untouched(model), contextlib.suppress(TraceError):
        record(model, *example(shapes))


class Boom(Exception):
    """What the user's own code raises."""


class Explodes(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("calls", torch.zeros(()))

    def middle(self, x: Tensor) -> Tensor:
        self.calls += 1
        self.conv1.weight.data.mul_(2)
        torch.rand(3)
        x.relu_()
        raise Boom("in the middle")


AROUND: dict[str, Callable[[], Any]] = {
    "nothing": contextlib.nullcontext,
    "inference": torch.inference_mode,
    "autocast": lambda: torch.autocast("cpu", torch.bfloat16),
}


@pytest.mark.parametrize("around", AROUND)
def test_an_exception_in_the_forward(around: str, untouched: Untouched) -> None:
    model, x = seeded(Explodes)(), example(((2, 3, 12, 12),))[0]
    words = r"the network's forward could not take.*in the middle"
    with untouched(model), pytest.raises(TraceError, match=words) as caught, AROUND[around]():
        record(model, x)
    assert isinstance(caught.value.__cause__, Boom)


def test_torchs_own_switches_come_back_after_an_exception() -> None:
    hooks = torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks
    fast, apply = torch.backends.mha.get_fastpath_enabled(), torch.autograd.Function.__dict__.get("apply")
    with pytest.raises(TraceError):
        record(seeded(Explodes)(), *example(((2, 3, 12, 12),)))
    assert torch.backends.mha.get_fastpath_enabled() is fast
    assert torch.autograd.Function.__dict__.get("apply") is apply
    assert not any(map(len, hooks))


def test_an_exception_inside_a_layer_names_it(untouched: Untouched) -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU(), nn.Linear(7, 2)))
    with untouched(model), pytest.raises(TraceError, match=r'layer "1\.1" could not take an input'):
        record(model, torch.zeros(1, 3, 12, 12))


class Interrupted(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        self.bn1.running_mean.add_(1)  # type: ignore[union-attr]
        raise KeyboardInterrupt


def test_an_interruption_in_the_forward(untouched: Untouched) -> None:
    model = seeded(Interrupted)()
    with untouched(model), pytest.raises(KeyboardInterrupt):
        record(model, *example(((2, 3, 12, 12),)))


def test_an_exception_in_a_rule(untouched: Untouched) -> None:
    factory, shapes = AWKWARD["inplace_residual"]
    model = factory()

    def fails(node: Any, grads: Any) -> Any:
        raise Boom("in a rule")

    with untouched(model), pytest.raises(Boom):
        trace = record(model, *example(shapes))
        trace.pull(class_seed(trace), Rules("fails", {"rectifier": fails})).input()


def test_an_exception_in_a_target(untouched: Untouched) -> None:
    factory, shapes = AWKWARD["inplace_residual"]
    model = factory()

    def fails(scores: Tensor) -> Tensor:
        raise Boom("in a target")

    with untouched(model):
        trace = record(model, *example(shapes))
        with pytest.raises(Boom):
            target.custom(fails).seeds(trace)
        with pytest.raises(PellucidError):
            target.logit(99).seeds(trace)
