"""Where units sit in a recording, which layer feeds which, and a data set recorded a few pictures at a time."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import LayerError, MethodError, TargetError, TraceError
from pellucid.core.layers import ancestors, between
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.record import record
from pellucid.core.target import class_scores
from pellucid.core.trace import Node, Trace, Value, bytes_held
from pellucid.images.datasets import Data, Pictures, pictures
from pellucid.inside.opened import Opened, Unit
from pellucid.methods.pictures import home_of
from pellucid.models.model import Model, check_input

INPUT, CLASSES = "input", "classes"  # names of what is no layer, unless a layer is called so
MOST, ROOM_BYTES = 16, 512 * 2**20
_MIXING = frozenset("mm bmm addmm baddbmm matmul linear einsum scaled_dot_product_attention".split())


@dataclass(frozen=True, eq=False)
class Place:
    """A value of one recording and its units: a layer's channels, the input's, or the classes.

    Attributes:
        axis: counts the units; None where the network gives one number for each picture.
    """

    name: str
    value: Value
    axis: int | None

    @property
    def units(self) -> int:
        return 1 if self.axis is None else self.value.shape[self.axis]

    def per_unit(self, tensor: Float[Tensor, "b ..."]) -> Float[Tensor, "b units *space"]:
        """A tensor of the value's form with its units second."""
        return tensor[:, None] if self.axis is None else tensor.movedim(self.axis, 1)

    def means(self, tensor: Float[Tensor, "b ..."]) -> Float[Tensor, "b units"]:
        """Each unit's mean over its positions."""
        found = self.per_unit(tensor)
        return found.flatten(2).mean(2) if found.dim() > 2 else found


@dataclass(frozen=True, eq=False)
class Means:
    """What is read from a place: the mean of each of its units; see `pellucid.core.runners.Readout`."""

    place: Place

    def value(self, trace: Trace) -> Value:
        return place(trace, self.place.name).value

    def read(self, tensor: Tensor, rows: Sequence[int]) -> Tensor:
        return self.place.means(tensor)


def place(trace: Trace, name: str) -> Place:
    """A layer by its name; `"input"` and `"classes"` where no layer is called so.

    Raises:
        LayerError: no such layer, or it has no units.
    """
    if name == CLASSES and name not in trace.layers:
        scores = class_scores(trace)
        return Place(name, scores, 1 if len(scores.shape) > 1 else None)
    value = trace.inputs[0] if name == INPUT and name not in trace.layers else trace.at(name)
    if len(value.shape) < 2 or not value.differentiable:
        raise LayerError(f'"{name}" gives {tuple(value.shape)} of {value.dtype}, which has no units')
    known = layout(trace).get(value, UNKNOWN).channel
    return Place(name, value, 1 if known is None else known)


def downstream(trace: Trace, source: str, target: str) -> tuple[Place, Place]:
    """Both places, the second of which hangs on the first.

    Raises:
        LayerError: no such layer, or the target does not depend on the source.
    """
    first, second = place(trace, source), place(trace, target)
    if first.value is second.value:
        raise LayerError(f'"{source}" and "{target}" are the same values; name an earlier layer')
    if first.value not in ancestors(trace, second.value):
        raise LayerError(f'"{target}" does not depend on "{source}"; name the earlier layer first')
    return first, second


def unit_of(first: Opened, unit: str | Unit) -> Unit:
    """A unit by its name; also one of the input (`"input:0"`) or a class (`"classes:3"`, `"classes:cat"`).

    Raises:
        LayerError, TargetError: no such layer, unit or class.
    """
    if isinstance(unit, Unit):
        name, word = unit.layer, str(unit.channel)
    else:
        name, _, word = unit.rpartition(":")
    if name not in (INPUT, CLASSES) or name in first.trace.layers:
        return first.unit(unit)
    channel = int(word) if word.isdigit() else first.model.index(word)
    count = place(first.trace, name).units
    if not 0 <= channel < count:
        raise LayerError(f'no unit {channel} in "{name}"; it has {count}, from 0 to {count - 1}')
    return Unit(name, channel)


def feeding(trace: Trace, name: str) -> str:
    """The nearest earlier layer with units through which everything goes that reaches a layer, past a mixing of them.

    Functions of single channels (a rectifier, a pool, a BatchNorm) lead to no other layer: what counts begins behind
    the nearest convolution or linear layer. `"input"` where no layer is left.

    Raises:
        LayerError: no such layer.
    """
    names, reached = _named(trace), _reached(trace)
    front, mixed = {place(trace, name).value}, False
    while front:
        last = max(front, key=lambda v: v.position)
        if last.node is None:
            return INPUT
        mixed = mixed or _mixes(last.node)
        front = {v for v in front if v.node is not last.node} | {v for v in last.node.inputs if v in reached}
        if mixed and len(front) == 1 and (found := names.get(next(iter(front)))) is not None:
            return found
    raise LayerError(f'nothing that was recorded feeds "{name}"')


def chain(trace: Trace) -> list[str]:
    """The layers through which everything goes, from the first to the classes: each feeds the next one."""
    found, name = [CLASSES], CLASSES
    while (name := feeding(trace, name)) != INPUT:
        found.insert(0, name)
    return found


def fed(trace: Trace, name: str) -> str:
    """The nearest later layer with units through which everything goes that a layer gives; `"classes"` where none is.

    Raises:
        LayerError: no such layer, or the classes do not depend on it.
    """
    start, end, names = place(trace, name).value, class_scores(trace), _named(trace)
    if start is end or start not in ancestors(trace, end):
        raise LayerError(f'the classes do not depend on "{name}", so it feeds nothing that counts')
    way, leading = [trace.nodes[i] for i in between(trace, start, end)], ancestors(trace, end)
    last_read = {v: n.position for n in way for v in n.inputs}
    live, mixed = {start}, False
    for node in way:
        live |= {v for v in node.outputs if v is not None and v in leading}
        live = {v for v in live if v is end or last_read.get(v, -1) > node.position}
        mixed = mixed or _mixes(node)
        if mixed and len(live) == 1 and end not in live and (found := names.get(next(iter(live)))) is not None:
            return found
    return CLASSES


def _mixes(node: Node) -> bool:
    """Whether an operation mixes channels."""
    return node.kind in ("convolution", "linear") or node.base in _MIXING


def _reached(trace: Trace) -> set[Value]:
    """Every value that hangs on the input."""
    found = set(trace.inputs)
    for node in trace.nodes:
        if any(v in found for v in node.inputs):
            found.update(v for v in node.outputs if v is not None)
    return found


def _named(trace: Trace) -> dict[Value, str]:
    """The layers whose channels are known, by the value that they give; the shortest name of each."""
    axes, found = layout(trace), dict[Value, str]()
    for path, calls in trace.layers.items():
        for number, values in enumerate(calls):
            name = path if len(calls) == 1 else f"{path}#{number}"
            value = values[0] if values else None
            if value is not None and path and value.differentiable and axes.get(value, UNKNOWN).channel is not None:
                found[value] = min(found.get(value, name), name, key=len)
    return found


def gathered(model: Model, data: Data) -> tuple[Pictures, Opened]:
    """The pictures of a data set, or a single one, and a recording of the first that can be read.

    Raises:
        ImageError: there is none.
    """
    found = pictures(data, model.preprocess)
    _, x = next(found.batches(1))
    return found, _opened(model, x)


def recordings(data: Pictures, first: Opened) -> Iterator[tuple[list[int], Opened]]:
    """Numbers of some pictures and their recording, until all are through; as many at once as memory allows.

    Raises:
        MethodError: the network makes scores of them that are no numbers.
    """
    room = max(1, min(MOST, ROOM_BYTES // max(1, bytes_held(first.trace))))
    for numbers, x in data.batches(1 if first.trace.reads else room):
        now = _opened(first.model, x)
        if not bool(torch.isfinite(now.trace.scores).all()):
            raise MethodError(
                f"a score is not finite: {first.model.name} makes NaN or infinite numbers of these pictures; look at "
                "its layers with pel.maps"
            )
        yield numbers, now


def _opened(model: Model, x: Tensor) -> Opened:
    x = x.to(home_of(model.module))
    try:
        return Opened(model, record(model.module, x), notes=model.notes)
    except TraceError:
        check_input(model, x)
        raise


def class_names(first: Opened) -> tuple[str, ...]:
    """What the classes are called, in the order of the scores."""
    model, count = first.model, place(first.trace, CLASSES).units
    known = model.labels is not None and len(model.labels) == count
    return tuple(model.label(i) if known else f"class {i}" for i in range(count))


def class_of(model: Model, label: str | None) -> int | None:
    """The class of a picture by the name of its folder: a label, also with _ for spaces, or a number."""
    for word in () if label is None else (label, label.replace("_", " ")):
        try:
            return int(word) if word.isdigit() else model.index(word)
        except TargetError:
            continue
    return None


def names_of(first: Opened, name: str) -> tuple[str, ...]:
    """What the units of a place are called: classes by label, others by number."""
    return (
        class_names(first)
        if name == CLASSES and name not in first.trace.layers
        else tuple(map(str, range(place(first.trace, name).units)))
    )


def probabilities(scores: Float[Tensor, "b classes"]) -> Float[Tensor, "b classes"]:
    """The softmax over the classes; the sigmoid where there is one score."""
    return torch.sigmoid(scores) if scores.shape[1] == 1 else torch.softmax(scores, 1)
