"""Play a recording forwards again, from other inputs or from edited values in the middle."""

from collections.abc import Mapping

from torch import Tensor

from pellucid.core.chunks import out_of_memory
from pellucid.core.errors import TraceError
from pellucid.core.storages import Geometry, conform
from pellucid.core.trace import Node, Trace, Value, below_autograd, plainly


def replay(trace: Trace, *inputs: Tensor, edits: Mapping[Value, Tensor] | None = None) -> Tensor:
    """The main output of the recording for other inputs, or with some values replaced.

    Control flow stays as it was recorded. Operations that depend on nothing that changed are not run.

    Args:
        inputs: new inputs in the order of `trace.inputs`, in the recorded shapes; none to keep them.
        edits: recorded value -> what to put in its place.

    Raises:
        TraceError: wrong number or shape of inputs, or an operation's shapes hang on the old input's values.
    """
    current = replayed(trace, *inputs, edits=edits)
    return current[trace.output] if trace.output in current else trace.scores  # noqa: SIM401


def replayed(
    trace: Trace, *inputs: Tensor, edits: Mapping[Value, Tensor] | None = None, stop: int | None = None
) -> dict[Value, Tensor]:
    """Every value that new inputs or edits change, with what it becomes; see `replay`.

    Args:
        stop: the position of the first operation that is not run; all are run where it is None.
    """
    if inputs and len(inputs) != len(trace.inputs):
        raise TraceError(f"{len(inputs)} inputs came, the recording has {len(trace.inputs)}")
    current = {value: _laid_out(tensor, value) for value, tensor in (edits or {}).items()}
    for value, tensor in zip(trace.inputs, inputs, strict=False):
        if tensor.shape != value.data.shape:
            raise TraceError(
                f"an input of shape {tuple(tensor.shape)} came, the recording was made with {tuple(value.data.shape)}"
            )
        current[value] = _laid_out(tensor, value)
    with plainly(trace.scores.device), below_autograd():
        for node in trace.nodes[:stop]:
            if any(v in current for v in node.inputs):
                values = {v: current[v] if v in current else v.data for v in node.inputs}  # noqa: SIM401
                results = _run(node, values)
                for value, tensor in zip(node.outputs, results, strict=True):
                    if value is not None and value not in current:
                        current[value] = tensor
    return current


def with_first(trace: Trace, x: Tensor) -> list[Tensor]:
    """The recording's inputs, with another first one."""
    return [x, *(value.data for value in trace.inputs[1:])]


def _laid_out(tensor: Tensor, like: Value) -> Tensor:
    """The tensor in the memory layout of the recording, for which its views were made."""
    return conform(tensor, Geometry.of(like.data))


def _run(node: Node, values: Mapping[Value, Tensor]) -> list[Tensor]:
    try:
        out = node.run(values)
    except (RuntimeError, IndexError, ValueError) as error:
        if out_of_memory(error):
            raise
        where = f"{node.name} in {node.path or 'the network'}"
        first = (str(error).strip() or type(error).__name__).splitlines()[0]
        raise TraceError(
            f"{where} can't be replayed with these values ({first}); record the new input instead"
        ) from error
    return [out] if isinstance(out, Tensor) else list(out)
