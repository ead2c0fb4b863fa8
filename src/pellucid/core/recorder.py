"""The dispatch mode that writes the list down."""

from typing import Any

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from pellucid.core.errors import TraceError
from pellucid.core.modules import ModuleWatch, graph_constants
from pellucid.core.overloads import Overload, overload
from pellucid.core.preserve import Preserver
from pellucid.core.storages import Geometry, ReadView, StorageRecord, WriteView, whole_storage
from pellucid.core.trace import Node, Value, substitute


class Recorder(TorchDispatchMode):
    """Keeps what happens to tensors that come from the inputs; all other work just runs."""

    def __init__(self, inputs: list[Value], watch: ModuleWatch, preserver: Preserver) -> None:
        super().__init__()
        self.inputs, self.watch, self.preserver = inputs, watch, preserver
        self.nodes: list[Node] = []
        self.notes: list[str] = []
        self.reads: dict[str, None] = {}
        self.strangers: dict[int, str] = {}
        self.function: str | None = None
        self._bound: dict[int, tuple[Tensor, int, Value]] = {}
        self._storages: dict[int, StorageRecord] = {}
        self._made: dict[int, Tensor] = {}
        self._captured: set[int] = set()
        self._restored: set[int] = set()
        self._registered = {_key(t) for t in watch.registered() if t.layout == torch.strided and not _lazy(t)}
        for value in inputs:
            self._bind(value.data, value)

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        kwargs = kwargs or {}
        facts = overload(func)
        if facts.taken_apart:
            with self:
                result = func.decompose(*args, **kwargs)
            if result is not NotImplemented:
                return result
        if facts.written:
            return self._write(func, facts, args, kwargs)
        values: list[Value] = []
        recorded, named = self._recorded(args, values), self._recorded(kwargs, values)
        if not values or facts.shape_only:
            return self._untraced(func, args, kwargs)
        if facts.random or facts.switches:
            self._refuse_train_mode(func, facts, args, kwargs)
        if facts.fuller is not None and not kwargs:
            names, fuller, count = facts.fuller
            left_out = [a.default_value for a in func._schema.arguments[len(args) : count]]
            out, *rest = fuller(*args[:count], *left_out)
            self._emit(func, recorded, named, values, out)
            self.nodes[-1].memo.update(zip(names, rest, strict=True))
            return out
        return self._emit(func, recorded, named, values, func(*args, **kwargs))

    def look(self, tensor: Tensor) -> Value | None:
        """The value that a tensor stands for now, or None where it does not come from the inputs."""
        storage = self._storages.get(_key(tensor))
        if storage is None:
            return None
        bound = self._bound.get(id(tensor))
        if bound is not None and bound[1] == storage.version:
            return bound[2]
        if not storage.covers(tensor):
            raise TraceError(f"{self.watch.where} writes into part of a tensor and reads another part; use a copy")
        view = ReadView(storage.geometry, Geometry.of(tensor))
        return self._append(view, "as_strided", (storage.root,), {}, [storage.root], [tensor])[0]

    def release(self) -> tuple[list[Node], dict[str, list[tuple[Value, ...]]]]:
        """Operations and layer outputs; the recorder forgets them, so that it can't keep a recording alive."""
        nodes, self.nodes, self.inputs = self.nodes, [], []
        layers, self.watch.outputs = self.watch.outputs, {}
        for table in (self._bound, self._storages, self._made):
            table.clear()
        return nodes, layers

    def _recorded(self, item: Any, values: list[Value]) -> Any:
        """Arguments with recorded tensors replaced by their values, which are collected in order."""
        if isinstance(item, dict):
            return dict(zip(item, self._recorded(tuple(item.values()), values), strict=True)) if item else item
        found: list[Any] = []
        for leaf in item:
            if isinstance(leaf, Tensor):
                key = _key(leaf)
                value = self.look(leaf) if key in self._storages else None
                if value is not None:
                    values.append(value)
                found.append(self._constant(leaf, key) if value is None else value)
            else:
                found.append(self._recorded(leaf, values) if type(leaf) in (list, tuple) else leaf)
        return type(item)(found)

    def _constant(self, tensor: Tensor, key: int) -> Tensor:
        """A tensor that does not come from the inputs, as it is now; copied if it will be put back."""
        if key not in self._captured:
            self._note_stranger(tensor)
            self._captured.add(key)
        return tensor.clone() if key in self._restored else tensor

    def _keep_constants(self, target: Tensor) -> None:
        """Before an untraced write: operations that read this memory keep a copy of what they read."""
        key = _key(target)
        if key in self._captured:
            swap = lambda leaf: leaf.clone() if isinstance(leaf, Tensor) and _key(leaf) == key else leaf  # noqa: E731
            for node in self.nodes:
                node.args = substitute(node.args, swap)
                node.kwargs = {k: substitute(v, swap) for k, v in node.kwargs.items()}
            self._captured.discard(key)

    def _untraced(self, func: Any, args: Any, kwargs: Any) -> Any:
        """Run what does not hang on the inputs; new memory that it makes is the recording's own, not a stranger's."""
        outside = {key for t in _flat((args, kwargs)) if (key := _key(t)) not in self._made}
        out = func(*args, **kwargs)
        if overload(func).random:
            told = f"{self.watch.where} draws random numbers ({func}); if scores use them, the map belongs to this draw"
            self.notes.append(told)

        def keep(leaf: Any) -> Any:
            if isinstance(leaf, Tensor) and leaf.layout == torch.strided and _key(leaf) not in outside:
                self._made[_key(leaf)] = leaf
            return leaf

        substitute(out, keep)
        return out

    def _note_stranger(self, tensor: Tensor) -> None:
        key = _key(tensor)
        known = key in self._made or key in self._registered or key in self.strangers
        if known or tensor.numel() < 2 or not tensor.is_floating_point():
            return
        if not self.strangers:
            parts = list(self.watch.root.modules())
            self._registered |= {_key(t) for m in parts for t in (*_loose_tensors(vars(m)), *graph_constants(m))}
        if key not in self._registered:
            where = self.watch.path or "the network's forward"
            self.strangers[key] = (
                f"a tensor of shape {tuple(tensor.shape)} from outside entered at {where}; it counts as a constant"
            )

    def _emit(self, func: Any, args: Any, kwargs: Any, values: list[Value], out: Any) -> Any:
        if isinstance(out, Tensor) and id(out) not in self._bound and not out.is_complex():
            self._append(func, overload(func).name, args, kwargs, values, [out])
            return out
        outs = [out] if isinstance(out, Tensor) else list(out) if isinstance(out, (tuple, list)) else []
        tensors = [t if isinstance(t, Tensor) else None for t in outs]
        if tensors and all(t is not None and self._is_current(t) for t in tensors):
            return out
        if any(t is not None and t.is_complex() for t in tensors):
            raise TraceError(
                f"{self.watch.where} makes complex numbers ({func}); complex networks are not supported, "
                "use a real-valued form of it"
            )
        if any(t is not None for t in tensors):
            self._append(func, overload(func).name, args, kwargs, values, tensors)
        elif not tensors:
            self.reads[self.watch.where] = None
        return out

    def _append(
        self, op: Any, name: str, args: Any, kwargs: Any, values: list[Value], tensors: list[Tensor | None]
    ) -> list[Value]:
        watch = self.watch
        node = Node(
            op, name, tuple(args), kwargs, values, watch.path, watch.call, len(self.nodes), function=self.function
        )
        self.nodes.append(node)
        made = [None if t is None else Value(t, node) for t in tensors]
        node.outputs = made
        for tensor, value in zip(tensors, made, strict=True):
            if tensor is not None and value is not None:
                self._bind(tensor, value)
        return [v for v in made if v is not None]

    def _bind(self, tensor: Tensor, value: Value) -> None:
        key = _key(tensor)
        storage = self._storages.get(key)
        if storage is None:
            storage = self._storages[key] = StorageRecord(value, tensor)
        storage.aliases.append(value)
        self._bound[id(tensor)] = (tensor, storage.version, value)

    def _is_current(self, tensor: Tensor) -> bool:
        bound, storage = self._bound.get(id(tensor)), self._storages.get(_key(tensor))
        return bound is not None and storage is not None and bound[1] == storage.version

    def _write(self, func: Any, facts: Overload, args: Any, kwargs: Any) -> Any:
        """An in-place operation: a new version of the memory that it writes into."""
        names, written = facts.arguments, facts.written
        targets = [args[names.index(n)] if names.index(n) < len(args) else kwargs.get(n) for n in written]
        traced = any(_key(t) in self._storages for t in _flat((args, kwargs)))
        for target in _flat(targets):
            if _key(target) not in self._made and _key(target) not in self._storages:
                self.preserver.before_write(target)
                self._restored.add(_key(target))
        if not traced:
            for target in _flat(targets):
                self._keep_constants(target)
            return self._untraced(func, args, kwargs)
        if len(targets) != 1 or not isinstance(targets[0], Tensor):
            raise TraceError(
                f"{func} in {self.watch.where} writes into several tensors at once; write one after the other"
            )
        self._refuse_train_mode(func, facts, args, kwargs)
        if written[0] == "out":
            return self._write_out(func, args, kwargs, targets[0])
        return self._write_into(func, args, kwargs, targets[0], names.index(written[0]))

    def _write_out(self, func: Any, args: Any, kwargs: Any, target: Tensor) -> Any:
        """`op(…, out=target)`: the plain operation, then a copy into the target."""
        packet = func.overloadpacket
        wanted = tuple(n for n in overload(func).arguments if n != "out")
        for name in packet.overloads():
            plain = getattr(packet, name)
            if overload(plain).arguments == wanted:
                with self:
                    return target.copy_(plain(*args, **{k: v for k, v in kwargs.items() if k != "out"}))
        raise TraceError(f"{func} in {self.watch.where} writes into out=; use its returned value instead")

    def _write_into(self, func: Any, args: Any, kwargs: Any, target: Tensor, place: int) -> Any:
        key = _key(target)
        if key not in self._storages:
            self._keep_constants(target)
            flat = whole_storage(target)
            self._storages[key] = StorageRecord(Value(flat), flat)
            self._storages[key].aliases.append(self._storages[key].root)
        storage = self._storages[key]
        values: list[Value] = []
        recorded, named = self._recorded(args, values), self._recorded(kwargs, values)
        geometry, part = storage.geometry, Geometry.of(target)
        storage.detach_aliases()
        out = func(*args, **kwargs)
        storage.version += 1
        new = self._append(func, overload(func).name, recorded, named, values, [target])[0]
        self.nodes[-1].mutates = place
        if part == geometry:
            storage.root = new
        else:
            whole = [storage.root, new]
            storage.root = self._append(WriteView(geometry, part), "write", tuple(whole), {}, whole, [storage.tensor])[
                0
            ]
        return out

    def _refuse_train_mode(self, func: Any, facts: Overload, args: Any, kwargs: Any) -> None:
        if facts.random:
            raise TraceError(
                f"{self.watch.where} draws random numbers ({func}), so the map would belong to one draw only; "
                "give the network fixed numbers instead"
            )
        for flag, place in facts.switches:
            active = kwargs.get(flag, args[place] if place < len(args) else False)
            if not active or (flag == "train" and args[1:2] == (0.0,)):
                continue
            words = {"dropout": "dropout", "norm": "batch statistics"}
            what = next((said for word, said in words.items() if word in str(func) + flag), str(func))
            raise TraceError(
                f"{what} is active in {self.watch.where}, so one image's answer would depend on chance or on its "
                "neighbours; call model.eval() first (BatchNorm must have running statistics of its own)"
            )


def _key(tensor: Tensor) -> int:
    return tensor.untyped_storage()._cdata


def _lazy(tensor: Tensor) -> bool:
    return torch.nn.parameter.is_lazy(tensor)


def _flat(item: Any) -> list[Tensor]:
    found: list[Tensor] = []
    for part in item.values() if isinstance(item, dict) else item:
        if isinstance(part, Tensor):
            found.append(part)
        elif isinstance(part, (list, tuple, dict)):
            found.extend(_flat(part))
    return found


def _loose_tensors(item: Any, depth: int = 3) -> list[Tensor]:
    """Tensors in a module's plain attributes."""
    if isinstance(item, Tensor):
        return [item] if item.layout == torch.strided else []
    if depth and isinstance(item, (dict, list, tuple)):
        return [
            t for part in (item.values() if isinstance(item, dict) else item) for t in _loose_tensors(part, depth - 1)
        ]
    return []
