"""Which layer to look at when the user names none."""

from pellucid.core.errors import LayerError
from pellucid.core.trace import Trace, Value


def last_spatial(trace: Trace) -> tuple[str, Value]:
    """The last layer that still has positions and leads to the output, with its module path.

    Averaged, dropped-out and output values don't count; of several modules that give out the same
    value, the outermost names it. In a network with a dense output it is the last of the coarsest layers.

    Raises:
        LayerError: no layer keeps spatial axes (a fully connected network).
    """
    axes = len(trace.inputs[0].shape)
    leading = ancestors(trace, trace.output)
    found: dict[Value, str] = {}
    for path, calls in trace.layers.items():
        for number, values in enumerate(calls):
            for value in values:
                if value in leading and is_spatial(value, axes) and value is not trace.output:
                    name = path if len(calls) == 1 else f"{path}#{number}"
                    found[value] = min(found.get(value, name), name, key=len)
    if not found:
        raise LayerError(
            "no layer of this network keeps spatial axes, so there is no map; use an input method such as saliency"
        )
    coarsest = min(positions(v) for v in found)
    dense = is_spatial(trace.output, axes)
    candidates = [v for v in found if not dense or positions(v) == coarsest]
    value = max(candidates, key=lambda v: v.position)
    return found[value], value


def is_spatial(value: Value, axes: int) -> bool:
    """Whether a value is a stack of maps with more than one position, not merely averaged ones."""
    node = value.node
    averaged = node is not None and node.kind in ("average_pool", "dropout")
    return value.differentiable and len(value.shape) == axes > 2 and positions(value) > 1 and not averaged


def positions(value: Value) -> int:
    """How many positions each map of a stack has."""
    return value.shape[2:].numel()


def ancestors(trace: Trace, value: Value) -> set[Value]:
    """Every value that a value was computed from, itself included."""
    found = {value}
    for node in reversed(trace.nodes):
        if any(v in found for v in node.outputs if v is not None):
            found.update(node.inputs)
    return found


def between(trace: Trace, start: Value, end: Value) -> list[int]:
    """Positions of the operations that lie on a way from `start` to `end`."""
    leading, reached, on_way = ancestors(trace, end), {start}, []
    for node in trace.nodes:
        if any(v in reached for v in node.inputs):
            outs = [v for v in node.outputs if v is not None]
            reached.update(outs)
            if any(v in leading for v in outs):
                on_way.append(node.position)
    return on_way
