"""The promise that a model comes back bit-equal, also after an exception."""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

import torch
from torch import Tensor, nn

from pellucid.core.storages import whole_storage


class Preserver:
    """Remembers what a forward pass may change in a module, and puts it back.

    Registered tensors are copied only when something is about to write into them; the tables of
    buffers and parameters, training flags and the random state are noted at once.
    """

    def __init__(self, module: nn.Module) -> None:
        self._tables = [
            (m, dict(m._buffers), dict(m._parameters), getattr(m, "training", False)) for m in module.modules()
        ]
        self._saved: dict[int, tuple[Tensor, Tensor]] = {}
        self._versions = ExitStack()
        self._random = torch.get_rng_state()
        started = torch.cuda.is_available() and torch.cuda.is_initialized()
        self._device_random = torch.cuda.get_rng_state_all() if started else []

    def before_write(self, tensor: Tensor) -> None:
        """Copy the storage behind a tensor that existed before and is about to be changed."""
        if not tensor.is_inference():  # autograd's count of writes, by which a graph knows that its tensors are intact
            self._versions.enter_context(torch.autograd.grad_mode._unsafe_preserve_version_counter(tensor))
        key = tensor.untyped_storage()._cdata
        if key not in self._saved:
            with torch.inference_mode(False):
                whole = whole_storage(tensor)
                self._saved[key] = (whole, whole.clone())

    def restore(self) -> None:
        for whole, copy in self._saved.values():
            whole.copy_(copy)
        self._versions.close()
        for module, buffers, parameters, training in self._tables:
            if isinstance(module, torch.jit.ScriptModule):
                _rebind(module, {**buffers, **parameters})
                continue
            for table, before in ((module._buffers, buffers), (module._parameters, parameters)):
                if list(map(id, table.values())) != list(map(id, before.values())) or table.keys() != before.keys():
                    table.clear()
                    table.update(before)  # pyright: ignore
            if module.training is not training:
                module.training = training
        torch.set_rng_state(self._random)
        if self._device_random:
            torch.cuda.set_rng_state_all(self._device_random)


def _rebind(module: nn.Module, before: dict[str, Tensor | None]) -> None:
    """Give a TorchScript module back the tensors that its own forward replaced."""
    for name, tensor in before.items():
        if getattr(module, name) is not tensor:
            setattr(module, name, tensor)


@contextmanager
def preserved(module: nn.Module) -> Iterator[Preserver]:
    """Run a block with `module`; afterwards its tensors, modes and the random state are as before."""
    preserver = Preserver(module)
    try:
        yield preserver
    finally:
        preserver.restore()
