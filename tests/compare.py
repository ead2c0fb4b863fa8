"""What the engine's tests hold its numbers against: plain calls, autograd, hooks that take true copies."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from networks.awkward import class_one, logits
from pellucid.core.trace import Trace, tensors_in

EXACT = {torch.float64: 1e-10, torch.float32: 1e-5}
Score = Callable[[Any], Tensor]


def relative(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value; 0 where both are zero, infinite where shapes differ."""
    if found.shape != expected.shape or found.dtype != expected.dtype:
        return float("inf")
    difference = float((found - expected).abs().max())
    return 0.0 if difference == 0 else difference / max(float(expected.abs().max()), 1e-300)


@contextmanager
def same_kernels(model: nn.Module) -> Iterator[None]:
    """Plain forwards on the kernels that a recording uses: attention not fused, weights that want no gradient."""
    wanted = [(p, p.requires_grad) for p in model.parameters()]
    fast = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    for parameter, _ in wanted:
        parameter.requires_grad_(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fast)
        for parameter, before in wanted:
            parameter.requires_grad_(before)


def plain(model: nn.Module, *inputs: Tensor, **kwargs: Any) -> Tensor:
    """The scores of an ordinary call on copies of the inputs."""
    with same_kernels(model):
        return logits(model(*[x.clone() for x in inputs], **kwargs))


def layer_copies(model: nn.Module, *inputs: Tensor) -> dict[str, list[list[Tensor]]]:
    """Path → call → true copies of what the layer gave out, before any later operation wrote into it."""
    paths = {id(m): name for name, m in model.named_modules()}
    found: dict[str, list[list[Tensor]]] = {}

    def take(module: nn.Module, args: Any, output: Any) -> None:
        if paths.get(id(module)):
            found.setdefault(paths[id(module)], []).append([t.clone() for t in tensors_in(output)])

    handle = global_hooks.register_module_forward_hook(take)
    try:
        plain(model, *inputs)
    finally:
        handle.remove()
    return found


def gradients(model: nn.Module, inputs: tuple[Tensor, ...], score: Score = class_one) -> tuple[Tensor, ...]:
    """Autograd's gradient of a score for every input."""
    leaves = [x.detach().clone().requires_grad_() for x in inputs]
    with torch.enable_grad():
        found = torch.autograd.grad(score(model(*[leaf.clone() for leaf in leaves])), leaves, allow_unused=True)
    return tuple(torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True))


def layer_gradients(
    model: nn.Module, inputs: tuple[Tensor, ...], layers: list[str], score: Score = class_one
) -> dict[str, Tensor]:
    """Autograd's gradient at the output of some layers (the last call), also where it is overwritten in place."""
    kept: dict[str, Tensor] = {}

    def watch(name: str) -> Callable[..., Tensor]:
        def hook(module: nn.Module, args: Any, output: Tensor) -> Tensor:
            kept[name] = output.clone() if output.requires_grad else output.clone().requires_grad_()
            return kept[name].clone()

        return hook

    handles = [model.get_submodule(name).register_forward_hook(watch(name)) for name in layers]
    try:
        with torch.enable_grad():
            total = score(model(*[x.clone() for x in inputs]))
            found = torch.autograd.grad(total, [kept[name] for name in layers])
    finally:
        for handle in handles:
            handle.remove()
    return dict(zip(layers, found, strict=True))


def class_seed(trace: Trace, index: int = 1) -> Tensor:
    """The seed of `class_one`: class `index`, or the only value, summed over batch and places."""
    seed = torch.zeros_like(trace.scores)
    if seed.ndim == 1 or seed.shape[1] == 1:
        return seed + 1
    seed[:, index] = 1
    return seed


def but_pythons_numbers(untouched: Callable[..., Any]) -> Callable[..., Any]:
    """The guard of the model, blind to Python's random numbers, of which the type checks of the test run draw some."""

    @contextmanager
    def guard(*models: nn.Module) -> Iterator[None]:
        with untouched(*models):
            before = random.getstate()
            try:
                yield
            finally:
                random.setstate(before)

    return guard
