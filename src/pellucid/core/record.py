"""Record one forward pass of an unmodified module as ATen operations, seen below autograd.

Everything looks alike down there: functional calls, reused modules, in-place operations, views,
residual sums, control flow, TorchScript. Nothing of the module is replaced, and whatever its forward
writes (buffers, counters, the random state) is put back.
"""

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.core.chunks import out_of_memory
from pellucid.core.errors import PellucidError, TraceError
from pellucid.core.modules import ModuleWatch, function_names
from pellucid.core.patterns import recognise
from pellucid.core.preserve import preserved
from pellucid.core.recorder import Recorder
from pellucid.core.trace import Trace, Value, below_autograd, filled, substitute, tensors_in


def record(module: nn.Module | Any, *inputs: Any, **kwargs: Any) -> Trace:
    """Run `module(*inputs, **kwargs)` once, untouched, and keep the list of operations that happened.

    Args:
        module: any `nn.Module` in eval mode (or a `pellucid` Model); autocast contexts around the call are honoured.
        inputs, kwargs: what the module takes; tensors among them (also inside lists) are the inputs of the recording.

    Returns:
        The recording: operations, values, and the outputs of every layer by module path.

    Raises:
        TraceError: dropout or batch statistics are active (train mode), the output does not come from
            the inputs through recorded operations (threads, numpy), a complex tensor is met, or the
            module's own forward failed (the layer and its message are named).
    """
    module = module if isinstance(module, nn.Module) else module.module
    placed: list[Value] = []
    arguments = (_own_copies(inputs, placed), {k: _own_copies(v, placed) for k, v in kwargs.items()})
    if not placed:
        raise TraceError(
            f"no tensor among the inputs ({', '.join(type(i).__name__ for i in inputs) or 'none'}); give one"
        )
    if placed[0].data.numel() == 0:
        raise TraceError(f"the input has no elements: shape {tuple(placed[0].data.shape)}; give at least one image")
    watch = ModuleWatch(module)
    with ExitStack() as stack:
        stack.enter_context(torch.inference_mode(False))
        stack.enter_context(torch.no_grad())
        recorder = Recorder(placed, watch, stack.enter_context(preserved(module)))
        for context in (
            _attention_written_out(),
            function_names(recorder),
            watch.listening(recorder),
            below_autograd(),
        ):
            stack.enter_context(context)
        output = _forward(module, *filled(arguments), recorder)
    return _trace(module, output, placed, recorder, arguments)


def _own_copies(item: Any, placed: list[Value]) -> Any:
    """Tensors replaced by values that hold copies, so that an in-place first operation can't reach the user's."""

    def own(leaf: Any) -> Any:
        if not isinstance(leaf, Tensor):
            return leaf
        with torch.inference_mode(False):
            placed.append(Value(leaf.detach().clone()))
        return placed[-1]

    return substitute(item, own)


def _forward(module: nn.Module, args: Any, named: dict[str, Any], recorder: Recorder) -> Any:
    try:
        with recorder:
            return module(*args, **named)
    except Exception as error:
        if isinstance(error, PellucidError) or out_of_memory(error):
            raise
        shapes = ", ".join(str(tuple(v.data.shape)) for v in recorder.inputs)
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TraceError(
            f"{recorder.watch.where} could not take an input of shape {shapes}: {first}; check size, channels and dtype"
        ) from error


def _trace(module: nn.Module, output: Any, placed: list[Value], recorder: Recorder, arguments: Any) -> Trace:
    main, note = main_output(output)
    value = None if main is None else recorder.look(main)
    if value is None or value.node is None:
        raise TraceError(_unreached(recorder, main))
    if not value.differentiable:
        made = f"{value.node.name} in {value.node.path or 'its forward'}"
        raise TraceError(
            f"the network gives out whole numbers ({value.dtype}, {made}), which have no derivative; "
            "explain the part of it that gives the scores"
        )
    found = [v for t in tensors_in(output) if (v := recorder.look(t)) is not None]
    nodes, layers = recorder.release()
    recognise(nodes)
    return Trace(
        module=module,
        nodes=nodes,
        inputs=tuple(placed),
        outputs=tuple(dict.fromkeys(found)),
        output=value,
        layers=layers,
        kinds=recorder.watch.kinds,
        strangers=tuple(recorder.strangers.values()),
        notes=tuple(dict.fromkeys(n for n in (note, *recorder.notes) if n)),
        reads=tuple(recorder.reads),
        arguments=arguments,
    )


def main_output(output: Any) -> tuple[Tensor | None, str]:
    """The tensor that scores are read from, and a word on the choice where there was one."""
    if isinstance(output, Tensor):
        return output, ""
    for key in ("logits", "out"):
        chosen = output.get(key) if isinstance(output, dict) else getattr(output, key, None)
        if isinstance(chosen, Tensor):
            return chosen, f'scores are read from "{key}" of the network\'s output'
    first = next((t for t in tensors_in(output) if t.is_floating_point()), None)
    return first, "scores are read from the first tensor of the network's output"


def _unreached(recorder: Recorder, main: Tensor | None) -> str:
    last = f'the last layer seen was "{recorder.watch.last}"' if recorder.watch.last else "no layer was seen"
    if main is None:
        return f"the network's output holds no tensor; {last}"
    return (
        f"the output does not come from the input through recorded operations; {last}. "
        "Work in another thread, through numpy or in a custom extension can't be followed: keep to torch and one thread"
    )


@contextmanager
def _attention_written_out() -> Iterator[None]:
    """Without the fused attention path, which would hide whole blocks behind one operation."""
    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    torch.clear_autocast_cache()
    try:
        yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)
        torch.clear_autocast_cache()  # weights cast below autograd would cut the user's own training
