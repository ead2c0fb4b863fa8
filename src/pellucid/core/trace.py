"""The recording: a list of operations in the order in which they happened, and the values between them."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from weakref import ref

import torch
from torch import Tensor, nn

from pellucid.core.errors import LayerError, TraceError, nearest
from pellucid.core.operations import base_name, kind_of

if TYPE_CHECKING:
    from pellucid.core.pull import Rules, RuleSource, Walk
    from pellucid.core.target import Target


class Value:
    """One tensor of the recording, in the state in which later operations read it.

    A value that was overwritten in place may be given up by the recorder; it is computed again from its
    operation when somebody asks for it.
    """

    __slots__ = ("__weakref__", "_data", "depth", "dtype", "node", "shape")

    def __init__(self, data: Tensor, node: "Node | None" = None) -> None:
        self._data: Tensor | None = data
        self.node = node
        self.shape, self.dtype = data.shape, data.dtype
        self.depth = 0

    @property
    def data(self) -> Tensor:
        return self._again() if self._data is None else self._data

    @data.setter
    def data(self, tensor: Tensor) -> None:
        self._data = tensor

    def _again(self) -> Tensor:
        """The operations that lead here from what is in memory, run again."""
        waiting = [self]
        while waiting:
            node = waiting[-1].node
            missing = [] if node is None else [v for v in node.inputs if v.held is None]
            if missing:
                waiting += missing
            else:
                waiting.pop()._computed()
        return self._computed()

    def _computed(self) -> Tensor:
        if self._data is not None:
            return self._data
        if self.node is None:
            raise TraceError("the recording no longer holds this value; record again")
        inputs = {v: v.data for v in self.node.inputs}
        with plainly(next(iter(inputs.values())).device), below_autograd():
            out = self.node.run(inputs)
        found: Tensor = out if isinstance(out, Tensor) else out[self.node.outputs.index(self)]
        self._data = found
        return found

    def give_up(self) -> None:
        """Let go of the data; `data` computes it again."""
        self._data, self.depth = None, 1 + max((v.depth for v in self.node.inputs), default=0) if self.node else 0

    @property
    def held(self) -> Tensor | None:
        """The data if it is in memory."""
        return self._data

    @property
    def position(self) -> int:
        """Place in the recording of the operation that made it; -1 for an input."""
        return -1 if self.node is None else self.node.position

    @property
    def differentiable(self) -> bool:
        return self.dtype.is_floating_point

    def __repr__(self) -> str:
        made = "input" if self.node is None else f"{self.node.name} in {self.node.path or 'the network'}"
        return f"Value({tuple(self.shape)}, {made})"


@dataclass(eq=False)
class Node:
    """One operation that happened.

    Attributes:
        op: the callable: an ATen overload, or one of the two view helpers of the recorder.
        name, base: as in ATen (`relu_`), and its functional name (`relu`).
        args, kwargs: as called, with a `Value` wherever a recorded tensor went in.
        inputs: those values in order of appearance.
        path, call: the innermost module running, and which of its calls this was (0 the first).
        function: name of the custom `autograd.Function` it ran inside, if any.
        kind: its kind in the vocabulary, or `rectifier` where the data flow shows one (see `recognise`).
        gate: for a product `x * s(x)` written out, the rectifier that it is, the place of x in `inputs`, and
            the rectifier's slope at large x.
        position: place in the recording.
        memo: results worth keeping between walks, such as the winners of a max-pool.
    """

    op: Callable[..., Any]
    name: str
    args: tuple[Any, ...]
    kwargs: dict[str, Any]
    inputs: list[Value]
    path: str
    call: int
    position: int
    mutates: int | None = None
    function: str | None = None
    kind: str = ""
    gate: tuple[Callable[[Tensor], Tensor], int, float] | None = None
    memo: dict[str, Any] = field(default_factory=dict)
    base: str = field(init=False)
    _outputs: "list[ref[Value] | None]" = field(default_factory=list)

    def __post_init__(self) -> None:
        self.kind = self.kind or kind_of(self.name)
        self.base = base_name(self.name)

    @property
    def outputs(self) -> list[Value | None]:
        """One value per tensor that came out; `None` where it was no tensor or nobody reads it.

        A node holds its outputs weakly, so that a recording is freed as soon as it is let go.
        """
        return [None if r is None else r() for r in self._outputs]

    @outputs.setter
    def outputs(self, values: list[Value | None]) -> None:
        self._outputs = [None if v is None else ref(v) for v in values]

    @property
    def output(self) -> Value:
        """The first output."""
        first = next((v for v in self.outputs if v is not None), None)
        if first is None:
            raise TraceError(f"{self.name} in {self.path!r} has no recorded output")
        return first

    def run(self, values: Mapping[Value, Tensor]) -> Any:
        """The operation again, on other tensors; an in-place operation works on a copy."""
        swap = lambda v: values[v] if isinstance(v, Value) else ordinary(v) if isinstance(v, Tensor) else v  # noqa: E731
        args = [substitute(a, swap) for a in self.args]
        if self.mutates is not None:
            args[self.mutates] = args[self.mutates].clone()
        return self.op(*args, **{k: substitute(v, swap) for k, v in self.kwargs.items()})

    def __repr__(self) -> str:
        return f"Node({self.position}: {self.name} in {self.path or 'the network'})"


@contextmanager
def plainly(device: torch.device) -> Iterator[None]:
    """Without autograd, inference mode and autocast, whatever the caller has switched on."""
    with torch.inference_mode(False), torch.no_grad(), torch.autocast(device.type, enabled=False):
        yield


def below_autograd() -> AbstractContextManager[Any]:
    """Composites (conv2d, batch_norm, linear …) stay whole and alike on every device below autograd."""
    guard = getattr(torch._C, "_AutoDispatchBelowAutograd", None)
    return guard() if guard is not None else torch.inference_mode()


def ordinary(tensor: Tensor) -> Tensor:
    """The tensor as a constant: wanting no gradient, which can change the kernel; copied if made in inference mode."""
    if tensor.is_inference():
        return tensor.clone()
    return tensor.detach() if tensor.requires_grad else tensor


def substitute(item: Any, swap: Callable[[Any], Any]) -> Any:
    """`swap` applied to every leaf of nested lists and tuples."""
    kind = type(item)
    if kind is tuple or kind is list:
        return kind([substitute(part, swap) if type(part) in (tuple, list) else swap(part) for part in item])
    return swap(item)


def filled(arguments: tuple[tuple[Any, ...], dict[str, Any]]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """A call's arguments with every value replaced by its tensor."""
    data = lambda v: v.data if isinstance(v, Value) else v  # noqa: E731
    return substitute(arguments[0], data), {k: substitute(v, data) for k, v in arguments[1].items()}


def tensors_in(item: Any) -> Iterator[Tensor]:
    """Every tensor in nested lists, tuples, dictionaries and plain objects with attributes (model outputs)."""
    if isinstance(item, Tensor):
        yield item
    elif isinstance(item, Mapping):
        for part in item.values():
            yield from tensors_in(part)
    elif isinstance(item, (list, tuple, set)):
        for part in item:
            yield from tensors_in(part)
    elif hasattr(item, "__dataclass_fields__"):
        for name in item.__dataclass_fields__:
            yield from tensors_in(getattr(item, name, None))
    elif hasattr(item, "logits"):
        yield from tensors_in(item.logits)


@dataclass(eq=False)
class Trace:
    """One forward pass, recorded.

    Attributes:
        module: the module that ran, untouched.
        nodes: operations in order.
        inputs: one value per tensor argument.
        outputs: every recorded tensor of the output; `output` is the one that scores are read from.
        layers: module path -> one entry per call, each a tuple of that call's output values.
        kinds: module path -> class name.
        strangers: tensors that entered from outside the recording and count as constants, in words.
        notes: what was chosen on the way.
        reads: where a number was read off a value, so that other pictures may take another way through the network.
        arguments: the call, with values for tensors.
        memo: findings about this recording that are worth keeping.
    """

    module: nn.Module
    nodes: list[Node]
    inputs: tuple[Value, ...]
    outputs: tuple[Value, ...]
    output: Value
    layers: dict[str, list[tuple[Value, ...]]]
    kinds: dict[str, str]
    strangers: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    reads: tuple[str, ...] = ()
    arguments: tuple[tuple[Any, ...], dict[str, Any]] = ((), {})
    memo: dict[str, Any] = field(default_factory=dict)

    def at(self, layer: str, call: int = -1) -> Value:
        """The output of a layer, by module path; `"relu#0"` names the first of several calls.

        Raises:
            LayerError: no such layer, call or tensor; the message offers the nearest names.
        """
        path, _, number = layer.partition("#")
        calls = self.layers.get(path)
        if not calls:
            raise LayerError(self._no_layer(path))
        which = int(number) if number.lstrip("-").isdigit() else call
        if not -len(calls) <= which < len(calls):
            raise LayerError(f'layer "{path}" has calls 0 to {len(calls) - 1} on this input; call {which} came')
        if not calls[which]:
            raise LayerError(f'layer "{path}" gives out no recorded tensor; try the layer before or behind it')
        return calls[which][0]

    def _no_layer(self, path: str) -> str:
        if path in self.kinds:
            return f'layer "{path}" exists but did not run on this input; layers that ran: {self._last_layers()}'
        return f'no layer "{path}"{nearest(path, self.layers) or "; the last ones are " + self._last_layers()}'

    def _last_layers(self) -> str:
        return ", ".join(f'"{name}"' for name in list(self.layers)[-3:])

    def name_of(self, value: Value) -> str:
        """The module path (with call number, if it ran several times) whose output a value is; the outermost one."""
        names = [
            path if len(calls) == 1 else f"{path}#{number}"
            for path, calls in self.layers.items()
            for number, values in enumerate(calls)
            if value in values
        ]
        if names:
            return min(names, key=len)
        return "input" if value.node is None else f"{value.node.path}:{value.node.name}"

    def pull(
        self,
        start: "Target | Mapping[Value, Tensor] | Tensor",
        rules: "Rules | RuleSource | None" = None,
        keep: Iterable[Value | str] = (),
        *,
        free: bool = False,
    ) -> "Walk":
        """Walk backwards from a target, from a tensor at the main output, or from tensors at any values.

        See `pellucid.core.pull.Walk`; `keep` names layers or values whose arriving tensors stay available. A source
        of rules (a composite of relevance rules) is put to work on this recording.
        """
        from pellucid.core.pull import EXACT, RuleSource, Walk

        if isinstance(start, Tensor):
            seeds: Mapping[Value, Tensor] = {self.output: start}
        else:
            seeds = start if isinstance(start, Mapping) else start.seeds(self)
        values = [self.at(k) if isinstance(k, str) else k for k in keep]
        table = rules.on(self) if isinstance(rules, RuleSource) else rules or EXACT
        return Walk(self, seeds, table, values, free=free)

    def replay(self, *inputs: Tensor, edits: Mapping[Value, Tensor] | None = None) -> Tensor:
        """The main output of the recording run forwards again; see `pellucid.core.replay.replay`."""
        from pellucid.core.replay import replay

        return replay(self, *inputs, edits=edits)

    @property
    def batch(self) -> int:
        """Number of images in the first input."""
        return self.inputs[0].shape[0]

    @property
    def scores(self) -> Tensor:
        """The main output as the network gave it."""
        return self.output.data

    def __repr__(self) -> str:
        shapes = ", ".join(str(tuple(v.shape)) for v in self.inputs)
        return (
            f"Trace({type(self.module).__name__}: {shapes} -> {tuple(self.scores.shape)}, {len(self.nodes)} operations)"
        )


@torch.no_grad()
def bytes_held(trace: Trace) -> int:
    """Memory that the recording's values hold, each storage once."""
    storages = {}
    for value in [*trace.inputs, *(v for node in trace.nodes for v in node.outputs if v is not None)]:
        if value.held is not None:
            storage = value.held.untyped_storage()
            storages[storage.data_ptr()] = storage.nbytes()
    return sum(storages.values())
