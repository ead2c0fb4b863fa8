"""Which module is running: paths, call numbers and outputs, without a hook on any of the user's modules."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.nn.modules import module as global_hooks

from pellucid.core.trace import Value, tensors_in

if TYPE_CHECKING:
    from pellucid.core.recorder import Recorder


class ModuleWatch:
    """Follows the calls of a module tree through torch's process-wide hooks, on this thread only."""

    def __init__(self, root: nn.Module) -> None:
        named = dict(root.named_modules())
        self._modules = tuple(named.values())
        self._paths = {id(m): name for name, m in named.items()}
        self.kinds = {name: type(m).__name__ for name, m in named.items()}
        self.root = root
        self.outputs: dict[str, list[tuple[Value, ...]]] = {}
        self.last = ""
        self._stack: list[tuple[str, int]] = [("", 0)]
        self._calls: Counter[str] = Counter()
        self._thread = threading.get_ident()

    def registered(self) -> list[Tensor]:
        """Parameters and buffers of the whole tree."""
        tables = (table for m in self._modules for table in (m._parameters, m._buffers))
        return [t for table in tables for t in table.values() if t is not None]

    @property
    def path(self) -> str:
        """Module path of the innermost call that is running."""
        return self._stack[-1][0]

    @property
    def where(self) -> str:
        """That path in words, for messages."""
        return f'layer "{self.path}"' if self.path else "the network's forward"

    @property
    def call(self) -> int:
        """Number of that call, 0 for the first."""
        return self._stack[-1][1]

    def _enter(self, module: nn.Module, args: Any) -> None:
        path = self._paths.get(id(module)) if threading.get_ident() == self._thread else None
        if path is None:
            return
        self._stack.append((path, self._calls[path]))
        self._calls[path] += 1
        self.last = path or self.last

    @contextmanager
    def listening(self, recorder: "Recorder") -> Iterator[None]:
        """Listen while the block runs; the outputs of each call are kept as recorded values."""

        def leave(module: nn.Module, args: Any, output: Any) -> None:
            path = self._paths.get(id(module)) if threading.get_ident() == self._thread else None
            if path is None:
                return
            while self._stack.pop()[0] != path:  # calls that ended in an exception which the network caught
                pass
            if path:
                values = tuple(v for t in tensors_in(output) if (v := recorder.look(t)) is not None)
                self.outputs.setdefault(path, []).append(values)

        handles = [
            global_hooks.register_module_forward_pre_hook(self._enter),
            global_hooks.register_module_forward_hook(leave),
        ]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()


def graph_constants(module: nn.Module) -> list[Tensor]:
    """Weights that a frozen TorchScript module holds in its graph instead of as parameters."""
    graph = getattr(module, "graph", None) if isinstance(module, torch.jit.ScriptModule) else None
    nodes = [] if graph is None else graph.findAllNodes("prim::Constant", True)
    return [n.t("value") for n in nodes if n.hasAttribute("value") and n.kindOf("value") == "t"]


_PLAIN_APPLY = torch.autograd.Function.__dict__["apply"].__func__
_recording: "ContextVar[Recorder | None]" = ContextVar("recording", default=None)


def _named_apply(cls: type, *args: Any, **kwargs: Any) -> Any:
    """`Function.apply` that leaves its name with the running recorder, if any (torch may keep this callable)."""
    recorder = _recording.get()
    if recorder is None:
        return _PLAIN_APPLY(cls, *args, **kwargs)
    outer, recorder.function = recorder.function, cls.__name__
    try:
        return _PLAIN_APPLY(cls, *args, **kwargs)
    finally:
        recorder.function = outer


@contextmanager
def function_names(recorder: "Recorder") -> Iterator[None]:
    """While the block runs, tell the recorder which custom `autograd.Function` an operation runs inside."""
    kind = torch.autograd.Function
    before, token = kind.__dict__["apply"], _recording.set(recorder)
    setattr(kind, "apply", classmethod(_named_apply))  # noqa: B010
    try:
        yield
    finally:
        setattr(kind, "apply", before)  # noqa: B010
        _recording.reset(token)
