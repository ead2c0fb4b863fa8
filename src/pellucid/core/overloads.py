"""What the recorder needs to know about an ATen overload, read off its schema once."""

from dataclasses import dataclass
from typing import Any

import torch

from pellucid.core.operations import KIND_OF, base_name

aten = torch.ops.aten
SHAPE_ONLY = frozenset("zeros_like ones_like empty_like full_like new_zeros new_ones new_empty new_full".split())
FULLER = {  # the same operation, giving out what its derivative needs as well; at most so many arguments
    aten.max_pool2d.default: (("winners",), aten.max_pool2d_with_indices.default, 6),
    aten.layer_norm.default: (("mean", "rstd"), aten.native_layer_norm.default, 5),
}


@dataclass(frozen=True, slots=True)
class Overload:
    """Facts about one ATen overload.

    Attributes:
        name: as in ATen (`relu_`).
        arguments: names of its arguments in order.
        written: names of those that it writes into.
        taken_apart: a composite outside the vocabulary, recorded as the parts it is made of.
        random: it draws random numbers whatever its arguments.
        shape_only: it takes no more than shape and dtype from its tensors.
        switches: arguments that turn chance or batch statistics on, with their places.
        fuller: the operation that also gives out what the derivative needs, with the names of these.
    """

    name: str
    arguments: tuple[str, ...]
    written: tuple[str, ...]
    taken_apart: bool
    random: bool
    shape_only: bool
    switches: tuple[tuple[str, int], ...]
    fuller: tuple[tuple[str, ...], Any, int] | None


_known: dict[int, tuple[Any, Overload]] = {}


def overload(func: Any) -> Overload:
    """The facts about `func`; one dictionary look-up after the first time."""
    found = _known.get(id(func))
    if found is None:
        found = _known[id(func)] = (func, _read(func))
    return found[1]


def _read(func: Any) -> Overload:
    name = func.overloadpacket.__name__
    arguments = tuple(a.name for a in func._schema.arguments)
    written = tuple(a.name for a in func._schema.arguments if a.alias_info is not None and a.alias_info.is_write)
    switches = tuple((n, i) for i, n in enumerate(arguments) if n in ("train", "training", "dropout_p"))
    return Overload(
        name=name,
        arguments=arguments,
        written=written,
        taken_apart=base_name(name) not in KIND_OF and not written and func._can_decompose(),
        random=torch.Tag.nondeterministic_seeded in func.tags and not switches,
        shape_only=name in SHAPE_ONLY,
        switches=switches,
        fuller=FULLER.get(func),
    )
