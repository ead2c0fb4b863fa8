"""Every function of the inside room leaves the network and its input as they were, also when it is stopped."""

import copy
import dataclasses
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import pellucid as pel
from inside_cases import FUNCTIONS, call, inputs, small
from method_cases import undrawn
from pellucid.core.errors import Cancelled, PellucidError

Untouched = Callable[..., Any]
STOPS = [n for n, f in FUNCTIONS.items() if f.work]


def given(name: str) -> Tensor:
    return inputs(1 if FUNCTIONS[name].takes == "image" else 6)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_network_and_input_are_left_as_they_were(name: str, untouched: Untouched) -> None:
    net, x = small(), given(name)
    x.requires_grad_()
    before = x.detach().clone()
    with untouched(net), undrawn():
        call(name, net, x)
    assert torch.equal(x, before) and x.grad is None and x.requires_grad


class StopsAt(pel.Progress):
    """Cancelled at one of its steps."""

    def __init__(self, step: int) -> None:
        super().__init__()
        self.step, self.seen = step, 0

    def advance(self, steps: int = 1, label: str = "") -> None:
        self.seen += 1
        if self.seen == self.step:
            self.cancel()
        super().advance(steps, label)


@pytest.mark.parametrize("name", STOPS)
def test_network_is_left_as_it_was_when_the_work_is_stopped(name: str, untouched: Untouched) -> None:
    """Stopped at the first step, in the middle and at the last: what is finished is kept, or the work is Cancelled."""
    counted = StopsAt(0)
    call(name, small(), given(name), progress=counted)
    for step in sorted({1, counted.seen // 2, counted.seen} - {0}):
        net, x = small(), given(name)
        before = x.clone()
        with untouched(net), undrawn():
            try:
                found = call(name, net, x, progress=StopsAt(step))
                assert found.sentence()
            except Cancelled:
                pass
        assert torch.equal(x, before)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_network_is_left_as_it_was_when_it_is_refused(name: str, untouched: Untouched) -> None:
    net, kinds = small(), {"layer": "nowhere", "unit": "nowhere:1", "class": 99}
    x = given(name)
    with untouched(net), undrawn():
        with pytest.raises(PellucidError):
            call(name, net, x, name=kinds[FUNCTIONS[name].names])
        if FUNCTIONS[name].takes:
            with pytest.raises(PellucidError):
                call(name, net, x[:, :1])


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_the_same_seed_gives_the_same(name: str) -> None:
    words = {"seed": 3} if FUNCTIONS[name].draws else {}
    first = numbers(call(name, small(), given(name), **words))
    torch.manual_seed(99)
    np.random.seed(99)
    again = numbers(call(name, small(), given(name), **words))
    assert first and first.keys() == again.keys()
    for where, one in first.items():
        assert np.array_equal(one, again[where], equal_nan=True), where


@pytest.mark.parametrize("name", ["maps", "project", "ablation", "coupling_matrix", "exemplars", "rfm", "optimise"])
def test_the_same_in_any_frame_of_mind_of_torch(name: str) -> None:
    """Within no_grad and inference mode, with a graph waiting, with anomaly detection: the same numbers."""
    plain = numbers(call(name, small(), given(name)))
    for mode in (torch.no_grad, torch.inference_mode, torch.enable_grad):
        net, x = small(), given(name)
        with mode():
            found = numbers(call(name, net, x))
        for where, one in plain.items():
            assert np.allclose(one, found[where], rtol=1e-5, atol=1e-6, equal_nan=True), (mode, where)


@pytest.mark.parametrize("name", list(FUNCTIONS))
def test_frozen_parameters_and_waiting_gradients_stay(name: str, untouched: Untouched) -> None:
    net = small()
    for parameter in net.parameters():
        parameter.requires_grad_(False)
    net.fc.requires_grad_(True)
    net.fc.weight.grad = torch.full_like(net.fc.weight, 7.0)
    hook = net.relu2.register_forward_hook(lambda module, x, y: None)
    with untouched(net), undrawn():
        call(name, net, given(name))
    hook.remove()
    assert float(net.fc.weight.grad.sum()) == 7.0 * net.fc.weight.numel()


def test_a_copy_of_the_network_answers_the_same() -> None:
    net = small()
    for name in ("maps", "ablation", "dream"):
        first, second = (numbers(call(name, one, given(name))) for one in (net, copy.deepcopy(net)))
        assert all(np.array_equal(first[k], second[k], equal_nan=True) for k in first)


def numbers(found: Any, where: str = "", depth: int = 0) -> dict[str, np.ndarray]:
    """All numbers in what was found, by where they stand; the recording of the network left out."""
    if isinstance(found, Tensor) and found.is_floating_point():
        return {where: found.detach().cpu().numpy()}
    if isinstance(found, np.ndarray) and found.dtype.kind in "fiu":
        return {where: found}
    if isinstance(found, float | int) and not isinstance(found, bool):
        return {where: np.asarray(found)}
    if depth > 4 or type(found).__name__ in ("Opened", "Trace", "Model", "Progress", "Receipt", "Pictures"):
        return {}
    if dataclasses.is_dataclass(found):
        parts = [(f.name, getattr(found, f.name)) for f in dataclasses.fields(found) if "seconds" not in f.name]
    elif isinstance(found, dict):
        parts = list(found.items())
    elif isinstance(found, list | tuple):
        parts = list(enumerate(found))
    else:
        return {}
    every = [numbers(part, f"{where}.{name}", depth + 1) for name, part in parts]
    return {k: v for one in every for k, v in one.items()}
