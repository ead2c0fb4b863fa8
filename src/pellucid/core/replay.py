"""Play a recording forwards again, from other inputs or from edited values in the middle."""

from collections.abc import Mapping

import torch
from torch import Tensor

from pellucid.core.errors import TraceError
from pellucid.core.trace import Trace, Value


@torch.no_grad()
def replay(trace: Trace, *inputs: Tensor, edits: Mapping[Value, Tensor] | None = None) -> Tensor:
    """The main output of the recording for other inputs, or with some values replaced.

    Control flow stays as it was recorded. Operations that depend on nothing that changed are not run.

    Args:
        inputs: new inputs in the order of `trace.inputs`, in the recorded shapes; none to keep them.
        edits: recorded value -> what to put in its place.

    Raises:
        TraceError: wrong number or shape of inputs.
    """
    if inputs and len(inputs) != len(trace.inputs):
        raise TraceError(f"{len(inputs)} inputs came, the recording has {len(trace.inputs)}")
    current: dict[Value, Tensor] = dict(edits or {})
    for value, tensor in zip(trace.inputs, inputs, strict=False):
        if tensor.shape != value.data.shape:
            raise TraceError(
                f"an input of shape {tuple(tensor.shape)} came, the recording was made with {tuple(value.data.shape)}"
            )
        current[value] = tensor
    for node in trace.nodes:
        if not any(v in current for v in node.inputs):
            continue
        out = node.run({v: current.get(v, v.data) for v in node.inputs})
        results = [out] if isinstance(out, Tensor) else list(out)
        for value, tensor in zip(node.outputs, results, strict=True):
            if value is not None and value not in current:
                current[value] = tensor
    return current.get(trace.output, trace.output.data)
