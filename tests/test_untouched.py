"""The model comes back bit-equal: after recording, walking, replaying, and after an exception anywhere."""

import copy
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from compare import but_pythons_numbers, class_seed, gradients, relative
from networks import zoo
from networks.awkward import AWKWARD, VARIANT_SHAPES, VARIANTS, WRITES_STATE, example
from networks.common import Trunk, seeded
from pellucid.core import target
from pellucid.core.record import record
from pellucid.rules.rectifiers import DECONVNET, GUIDED

Untouched = Callable[..., Any]
KEEPS_FIELDS = {"keeps_features"}  # its own forward leaves attributes behind, as any call does


@pytest.fixture
def untouched(untouched: Untouched) -> Untouched:
    return but_pythons_numbers(untouched)


def use_everything(model: nn.Module, inputs: tuple[Tensor, ...]) -> None:
    trace = record(model, *inputs)
    for rules in (None, GUIDED, DECONVNET):
        walk = trace.pull(class_seed(trace), rules)
        for which in range(len(inputs)):
            walk.input(which)
    for one in (target.logit(0), target.probability(0), target.log_probability(0)):
        trace.pull(one.seeds(trace)).input()
    trace.replay(*inputs)
    trace.pull(class_seed(trace), free=True).input()
    assert trace.at(next(reversed(trace.layers))).data is not None if trace.layers else True


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - KEEPS_FIELDS))
def test_a_network_is_left_as_it_was(name: str, untouched: Untouched) -> None:
    factory, shapes = AWKWARD[name]
    model = factory()
    if isinstance(model, torch.jit.ScriptModule):
        model(*example(shapes))  # at the first call torch itself keeps the method that it looked up
    with untouched(model):
        use_everything(model, example(shapes))


@pytest.mark.parametrize("name", VARIANTS)
def test_every_spelling_is_left_as_it_was(name: str, untouched: Untouched) -> None:
    model = VARIANTS[name]()
    with untouched(model):
        use_everything(model, example(VARIANT_SHAPES))


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v2", "googlenet", "convnext_tiny", "swin_t"])
def test_an_architecture_is_left_as_it_was(name: str, untouched: Untouched) -> None:
    model = zoo.build(name)
    with untouched(model):
        use_everything(model, (zoo.picture(name),))


def test_what_a_forward_keeps_on_itself_is_all_that_stays() -> None:
    (name,) = KEEPS_FIELDS
    factory, shapes = AWKWARD[name]
    model = factory()
    before = copy.deepcopy(model.state_dict())
    use_everything(model, example(shapes))
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert model(*example(shapes)).requires_grad


@pytest.mark.parametrize("name", sorted(WRITES_STATE))
def test_state_written_by_the_forward_is_put_back(name: str) -> None:
    factory, shapes = AWKWARD[name]
    model, inputs = factory().double(), example(shapes, dtype=torch.float64)
    expected = gradients(copy.deepcopy(model), inputs)[0]
    for _ in range(2):
        trace = record(model, *inputs)
        assert relative(trace.pull(class_seed(trace)).input(), expected) <= 1e-10
    assert int(model.calls) == 0
    assert not model.mean.any()


class Rebinds(Trunk):
    """Replaces a buffer and a parameter by new tensors, reads a buffer that it changes, swaps the training flag."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(()))
        self.register_buffer("scale", torch.ones(8))
        self.gain = nn.Parameter(torch.ones(()))

    def middle(self, x: Tensor) -> Tensor:
        y = x * self.scale[:, None, None]
        self.scale.mul_(3)
        self.count = self.count + 1
        self.register_buffer("extra", torch.ones(2))
        self.gain = nn.Parameter(self.gain.detach() * 2)
        self.bn1.training = not self.bn1.training
        return y * self.scale[:, None, None] * self.gain


class RebindsTwin(Trunk):
    """What `Rebinds` computes."""

    def __init__(self) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(()))

    def middle(self, x: Tensor) -> Tensor:
        return x * 3 * self.gain * 2


def test_buffers_that_are_replaced_come_back(untouched: Untouched) -> None:
    x = example(((2, 3, 12, 12),), dtype=torch.float64)[0]
    expected = gradients(seeded(RebindsTwin)().double(), (x,))[0]
    model = seeded(Rebinds)().double()
    with untouched(model):
        trace = record(model, x)
        heat = trace.pull(class_seed(trace)).input()
    assert relative(heat, expected) <= 1e-10  # each reading of the buffer keeps its own number


class ScriptCounts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("count", torch.zeros(3))
        self.register_buffer("mean", torch.zeros(4))
        self.fc = nn.Linear(4, 3)

    def forward(self, x: Tensor) -> Tensor:
        self.count = self.count + 1
        self.mean.mul_(0.5).add_(x.mean(0))
        return self.fc(x) + self.count


def test_a_scripted_networks_buffers_come_back() -> None:
    model = torch.jit.script(ScriptCounts())
    for _ in range(2):
        assert torch.equal(record(model, torch.ones(2, 4)).scores, model.fc(torch.ones(2, 4)) + 1)
        assert not model.count.any()
        assert not model.mean.any()


@pytest.mark.parametrize("enabled", [True, False])
def test_torchs_own_switches_come_back(enabled: bool) -> None:
    hooks = torch.nn.modules.module._global_forward_hooks, torch.nn.modules.module._global_forward_pre_hooks
    before = torch.backends.mha.get_fastpath_enabled()
    apply = torch.autograd.Function.__dict__.get("apply")
    torch.backends.mha.set_fastpath_enabled(enabled)
    try:
        for name in ("attention", "custom_function"):
            factory, shapes = AWKWARD[name]
            record(factory(), *example(shapes))
        assert torch.backends.mha.get_fastpath_enabled() is enabled
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
    assert torch.autograd.Function.__dict__.get("apply") is apply
    assert not any(map(len, hooks))


def test_users_own_hooks_run_and_stay(untouched: Untouched) -> None:
    seen: list[str] = []
    factory, shapes = AWKWARD["nested"]
    model = factory()
    handle = torch.nn.modules.module.register_module_forward_hook(lambda m, a, o: seen.append(type(m).__name__))
    model.register_forward_hook(lambda m, a, o: seen.append("own"))
    try:
        with untouched(model):
            record(model, *example(shapes))
    finally:
        handle.remove()
    assert seen[-2:] == ["Nested", "own"]
    assert seen.count("Conv2d") == 7


def test_pythons_random_numbers() -> None:
    """Without the type checks of the test run, which draw from them."""
    code = """
import random
from networks.awkward import AWKWARD, example
from test_untouched import use_everything
before = random.getstate()
for name in ("inplace_residual", "mutates_buffers"):
    factory, shapes = AWKWARD[name]
    use_everything(factory(), example(shapes))
assert random.getstate() == before
"""
    here = Path(__file__).parent
    words = {"PYTHONPATH": f"{here}{os.pathsep}{here.parent / 'src'}"}
    subprocess.run([sys.executable, "-c", code], check=True, env=os.environ | words, timeout=120)


def test_gradients_and_training_go_on() -> None:
    """What a user has gathered stays, and training after a map gives what training without one gives."""
    factory, shapes = AWKWARD["inplace_residual"]
    model, other = factory().train(), factory().train()
    x = example(shapes)[0]
    for net in (model, other):
        net(x).sum().backward()
    kept = {n: p.grad for n, p in model.named_parameters()}
    model.eval()
    use_everything(model, (x,))
    model.train()
    assert all(p.grad is kept[n] for n, p in model.named_parameters())
    for net in (model, other):
        net(x).square().sum().backward()
    assert all(torch.equal(p.grad, q.grad) for p, q in zip(model.parameters(), other.parameters(), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(model.buffers(), other.buffers(), strict=True))


def test_a_graph_that_waits_for_its_backward_still_runs() -> None:
    """The user's forward saved a buffer that the recorded forward writes into and puts back."""
    model = seeded(Waits)()
    x = example(((2, 3, 12, 12),))[0]
    y = model(x)
    record(model, x)
    y.sum().backward()
    assert model.conv1.weight.grad is not None  # type: ignore[union-attr]


class Waits(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("scale", torch.ones(8, 1, 1))
        self.first = True

    def middle(self, x: Tensor) -> Tensor:
        y = x * self.scale
        if not torch.is_grad_enabled():
            self.scale[:4].mul_(2)
        return y
