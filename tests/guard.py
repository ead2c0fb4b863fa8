"""The strict promise that a module comes back as it was: every bit, object, mode, hook, and torch's own state."""

import random
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.modules import module as torch_module

PLAIN = (bool, int, complex, str, bytes, type(None), torch.dtype, torch.device)
TENSOR_HOOKS = ("_backward_hooks", "_post_accumulate_grad_hooks")


@contextmanager
def guarded(*modules: nn.Module) -> Iterator[None]:
    """Fail with the differences if the block changed a module, its classes or torch; also after an exception."""
    before = snapshot(*modules)
    try:
        yield
    finally:
        found = differences(before, snapshot(*modules))
        if found:
            raise AssertionError("not left as it was:\n  " + "\n  ".join(found))


class Held:
    """An object compared by identity; holding it keeps its id from being used again."""

    __hash__ = None

    def __init__(self, value: Any) -> None:
        self.value = value

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Held) and self.value is other.value


class Bits:
    """A tensor compared by identity (unless made anew at every look) and by bits: NaN equals itself, -0 is not 0."""

    __hash__ = None

    def __init__(self, tensor: Tensor, identical: bool = True) -> None:
        self.tensor = tensor if identical else None
        self.kind = (tensor.dtype, tensor.device, tensor.shape, tensor.stride())
        self.values = tensor.detach().clone().contiguous().reshape(-1).view(torch.uint8)

    def __eq__(self, other: object) -> bool:
        same = isinstance(other, Bits) and self.tensor is other.tensor and self.kind == other.kind
        return same and torch.equal(self.values, other.values)


@dataclass(frozen=True)
class Names:
    """What a class or one of torch's own modules holds under each name."""

    held: dict[str, Held]
    may_grow: bool  # torch imports some of its functions at first use

    @classmethod
    def of(cls, owner: Any, may_grow: bool) -> "Names":
        return cls({key: Held(value) for key, value in vars(owner).items() if may_grow or key[:2] != "__"}, may_grow)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Names):
            return False
        grown = other.held.keys() - self.held.keys()
        return not (grown and not self.may_grow) and all(other.held.get(k) == v for k, v in self.held.items())


def snapshot(*modules: nn.Module) -> dict[str, Any]:
    """Everything that must not change, by a name that says what it is."""
    state = dict(_torch_state())
    for number, root in enumerate(modules):
        for name, module in root.named_modules(remove_duplicate=False):
            state |= _module(f"module {number} {name or '(root)'}", module)
        identical = not any(isinstance(m, torch.jit.ScriptModule) for m in root.modules())
        for kind, named in (("parameter", root.named_parameters), ("buffer", root.named_buffers)):
            for name, tensor in named(remove_duplicate=False):
                state |= _tensor(f"{kind} {number} {name}", tensor, identical)
    return state


def _module(where: str, module: nn.Module) -> dict[str, Any]:
    state = {f"{where}: mode": getattr(module, "training", None), f"{where}: class": type(module)}
    for cls in type(module).__mro__[:-1]:
        state[f"class {cls.__module__}.{cls.__qualname__}"] = Names.of(cls, may_grow=False)
    if isinstance(module, torch.jit.ScriptModule):  # its fields are made anew at every look
        return state | {f"{where}: fields": tuple(vars(module))}
    state[f"{where}: fields"] = tuple(vars(module))
    for key, value in vars(module).items():
        if key in ("_parameters", "_buffers"):  # their bits are looked at by _tensor
            value = {name: Held(tensor) for name, tensor in value.items()}
        state[f"{where}: {key}"] = comparable(value)
    return state


def _tensor(where: str, tensor: Tensor, identical: bool) -> dict[str, Any]:
    grad = tensor.grad if tensor.is_leaf else None
    state = {
        "bits": Bits(tensor, identical),
        "memory": tensor.data_ptr(),
        "requires_grad": tensor.requires_grad,
        "leaf": tensor.is_leaf,
        "grad": None if grad is None else Bits(grad, identical),
        "writes": None if tensor.is_inference() else tensor._version,
        "fields": comparable(vars(tensor)),
    }
    state |= {hooks: comparable(getattr(tensor, hooks, None)) for hooks in TENSOR_HOOKS}
    return {f"{where}: {key}": value for key, value in state.items()}


def comparable(value: Any) -> Any:
    """A value to compare later: containers by their items, tensors by their bits, other objects by identity."""
    if isinstance(value, PLAIN):
        return (type(value), value)
    if isinstance(value, float):
        return repr(value)
    if isinstance(value, Tensor):
        return Bits(value)
    if isinstance(value, Mapping):
        return (type(value), [(key, comparable(item)) for key, item in value.items()])
    if isinstance(value, list | tuple):
        return (type(value), [comparable(item) for item in value])
    if isinstance(value, set | frozenset):
        return (type(value), sorted(map(repr, value)))
    return value if isinstance(value, Held) else Held(value)


def _torch_state() -> Iterator[tuple[str, Any]]:
    yield "random state of torch", torch.get_rng_state().numpy().tobytes()
    for device in range(torch.cuda.device_count() if torch.cuda.is_initialized() else 0):
        yield f"random state of cuda:{device}", torch.cuda.get_rng_state(device).numpy().tobytes()
    yield "random state of numpy", repr(np.random.get_state(legacy=False))
    yield "random state of python", random.getstate()
    yield "gradients enabled", torch.is_grad_enabled()
    yield "inference mode", torch.is_inference_mode_enabled()
    yield "anomaly detection", torch.is_anomaly_enabled()
    yield "autocast", torch.is_autocast_enabled("cpu")
    yield "default dtype", torch.get_default_dtype()
    yield "default device", torch.get_default_device()
    yield "threads", torch.get_num_threads()
    yield "deterministic algorithms", torch.are_deterministic_algorithms_enabled()
    cudnn = torch.backends.cudnn
    yield "cudnn", (cudnn.enabled, cudnn.benchmark, cudnn.deterministic)
    yield "mkldnn", torch.backends.mkldnn.enabled
    yield "dispatch modes", torch._C._len_torch_dispatch_stack()
    yield "function modes", torch._C._len_torch_function_stack()
    for key, value in vars(torch_module).items():
        if key.startswith("_global_"):
            yield f"global hooks {key}", comparable(value)
    for owner in (torch.nn.functional, torch.Tensor, torch.autograd):
        yield f"functions of {owner.__name__}", Names.of(owner, may_grow=True)


def differences(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """The names of what changed, came or went."""
    gone = [f"{name} is gone" for name in before if name not in after]
    new = [f"{name} is new" for name in after if name not in before]
    return gone + new + [f"{name} changed" for name in before if name in after and before[name] != after[name]]
