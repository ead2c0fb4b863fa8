"""The outputs of layers while the untouched network itself runs, gradient and all."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from pellucid.core.errors import TraceError
from pellucid.core.preserve import preserved
from pellucid.core.record import main_output
from pellucid.core.runners import bound, difference, further_arguments
from pellucid.core.trace import Trace, tensors_in

OUTPUT = ""  # the name of the network's own output


class _Enough(BaseException):
    """All that was asked for has been seen; not an Exception, so that no network catches it."""


class Watch:
    """Runs a recorded network on other inputs and hands out what some of its layers give.

    The network runs as it is, in one forward that ends as soon as the last of the layers is through; autograd
    follows it where the input wants a gradient. Nothing of the module changes: where autograd is on, or the network was
    seen to write into a buffer, it runs on its own parameters, cut off from autograd, and on copies of its buffers; no
    hook stays.

    Args:
        trace: a recording of the network.
        layers: module paths; `"relu#0"` names one of several calls; `""` is the network's main output.

    Raises:
        LayerError: no such layer.
        TraceError: what the network gives for the recorded input is not what was recorded.

    Example:
        >>> from pellucid.core.record import record
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.Flatten()).eval()
        >>> watch = Watch(record(net, torch.zeros(1, 1, 8, 8)), ["0"])
        >>> [tuple(a.shape) for a in watch(torch.zeros(5, 1, 8, 8))]
        [(5, 2, 6, 6)]
    """

    def __init__(self, trace: Trace, layers: Sequence[str]) -> None:
        self.trace, self.layers = trace, list(layers)
        self._wanted = [_key(trace, layer) for layer in layers]
        self._overwritten: set[tuple[str, int]] = set()
        module = trace.module
        self._paths = {id(m): name for name, m in module.named_modules() if name}
        script = any(isinstance(m, torch.jit.ScriptModule) for m in module.modules())
        self._tensors = None if script else _cut_off(module)
        self._pure, self._held = False, False
        self._confirm()
        self._pure = self._tensors is not None and all(
            torch.equal(self._tensors[name], buffer) for name, buffer in module.named_buffers()
        )

    def __call__(self, x: Tensor) -> list[Tensor]:
        """What each layer gives for new inputs `(b, c, ...)`, in the order in which they were asked for."""
        seen = self._run(x)
        written = {key for key, (tensor, version) in seen.items() if tensor._version != version}
        if written - self._overwritten:  # a later operation works in place: its input has to be copied in time
            self._overwritten |= written
            seen = self._run(x)
        missing = [layer for layer, key in zip(self.layers, self._wanted, strict=True) if key not in seen]
        if missing:
            raise TraceError(f'layer "{missing[0]}" did not run on this input; record the network with one like it')
        return [seen[key][0] for key in self._wanted]

    def _run(self, x: Tensor) -> dict[tuple[str, int], tuple[Tensor, int]]:
        seen: dict[tuple[str, int], tuple[Tensor, int]] = {}
        waiting = set(self._wanted)
        args, kwargs = further_arguments(self.trace, [0] * len(x))

        def found(key: tuple[str, int], output: Any) -> None:
            tensor = next(tensors_in(output), None)
            if tensor is not None:
                kept = tensor.clone() if key in self._overwritten else tensor
                seen[key] = (kept, kept._version)
            waiting.discard(key)
            if not waiting:
                raise _Enough

        with self.holding(), self._listening(waiting, found):
            try:
                output = self._forward(x, args, kwargs)
                if (OUTPUT, 0) in waiting:
                    found((OUTPUT, 0), main_output(output)[0])
            except _Enough:
                pass
        return seen

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Run many inputs in a row: what has to be as it was afterwards is noted once for all of them."""
        if self._held:
            yield
            return
        with preserved(self.trace.module):
            self._held = True
            try:
                yield
            finally:
                self._held = False

    def _forward(self, x: Tensor, args: Any, kwargs: dict[str, Any]) -> Any:
        if self._tensors is None or (self._pure and not torch.is_grad_enabled()):
            return self.trace.module(x, *args, **kwargs)
        return torch.func.functional_call(self.trace.module, self._tensors, (x, *args), kwargs)

    @contextmanager
    def _listening(self, waiting: set[tuple[str, int]], found: Any) -> Iterator[None]:
        """Tell of the outputs of the layers that are waited for, on this thread only."""
        calls, thread = Counter[str](), threading.get_ident()

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            path = self._paths.get(id(module))
            if path is None or threading.get_ident() != thread:
                return
            key = (path, calls[path])
            calls[path] += 1
            if key in waiting:
                found(key, output)

        handle = global_hooks.register_module_forward_hook(leave)
        try:
            yield
        finally:
            handle.remove()

    def _confirm(self) -> None:
        """The network itself must give what was recorded."""
        with torch.inference_mode(False), torch.no_grad():
            given = self(self.trace.inputs[0].data)
        for layer, tensor in zip(self.layers, given, strict=True):
            recorded = self.trace.at(layer).data if layer else self.trace.scores
            if tensor.shape != recorded.shape or difference(tensor, recorded) > bound(recorded.dtype):
                raise TraceError(
                    f'layer "{layer or "output"}" gives other numbers when the network runs again than when it was '
                    "recorded; is something random at work?"
                )


def _key(trace: Trace, layer: str) -> tuple[str, int]:
    """The path of a layer and the number of its call; the last one where none is named."""
    if layer == OUTPUT:
        return OUTPUT, 0
    trace.at(layer)
    path, _, number = layer.partition("#")
    count = len(trace.layers[path])
    return path, (int(number) if number else -1) % count


def _cut_off(module: nn.Module) -> dict[str, Tensor]:
    """The parameters without autograd, and copies of the buffers."""
    parameters = {name: p.detach() for name, p in module.named_parameters()}
    return parameters | {name: b.clone() for name, b in module.named_buffers()}
