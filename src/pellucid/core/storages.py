"""Views and in-place writes: which value a tensor stands for after its memory was written through an alias.

A storage has a *root*, the value that spans it, and a version. A write makes a new version; tensors
bound to an older version are read as a view of the new root. Before a write, values that share the
memory are given up (they can be computed again) or copied, so that every value stays what its readers saw.
"""

from dataclasses import dataclass, field

import torch
from torch import Tensor

from pellucid.core.trace import Value

DEEPEST = 8


@dataclass(frozen=True)
class Geometry:
    """Size, strides and offset of a tensor in its storage, in elements."""

    size: tuple[int, ...]
    stride: tuple[int, ...]
    offset: int

    @classmethod
    def of(cls, tensor: Tensor) -> "Geometry":
        return cls(tuple(tensor.shape), tensor.stride(), int(tensor.storage_offset()))

    @property
    def reach(self) -> int:
        """One past the last element touched."""
        return self.offset + 1 + sum((n - 1) * s for n, s in zip(self.size, self.stride, strict=True))


def conform(tensor: Tensor, geometry: Geometry) -> Tensor:
    """The tensor with the strides of a geometry, copied only where they differ."""
    if tensor.stride() == geometry.stride:
        return tensor
    laid_out = torch.empty_strided(geometry.size, geometry.stride, dtype=tensor.dtype, device=tensor.device)
    return laid_out.copy_(tensor)


@dataclass(frozen=True)
class ReadView:
    """`root -> view`: the elements of `there`, read from a root laid out as `here`."""

    here: Geometry
    there: Geometry

    def __call__(self, root: Tensor) -> Tensor:
        root = conform(root, self.here)
        offset = self.there.offset - self.here.offset + root.storage_offset()
        return root.as_strided(self.there.size, self.there.stride, offset)


@dataclass(frozen=True)
class WriteView:
    """`root, part -> root'`: a root laid out as `here` with the elements of `there` replaced."""

    here: Geometry
    there: Geometry

    def __call__(self, root: Tensor, part: Tensor) -> Tensor:
        laid_out = torch.empty_strided(self.here.size, self.here.stride, dtype=root.dtype, device=root.device)
        laid_out.copy_(root)
        ReadView(self.here, self.there)(laid_out).copy_(part)
        return laid_out

    def derivative(self, grad: Tensor) -> tuple[Tensor, Tensor]:
        """Gradient of the root (zero where replaced) and of the part (what was replaced)."""
        of_root = torch.empty_strided(self.here.size, self.here.stride, dtype=grad.dtype, device=grad.device)
        of_root.copy_(grad)
        window = ReadView(self.here, self.there)(of_root)
        of_part = window.clone()
        window.zero_()
        return of_root, of_part


@dataclass(eq=False)
class StorageRecord:
    """One piece of memory: its spanning value, its live tensor, its version, who shares it now."""

    root: Value
    tensor: Tensor
    version: int = 0
    aliases: list[Value] = field(default_factory=list)

    @property
    def geometry(self) -> Geometry:
        return Geometry.of(self.tensor)

    def covers(self, tensor: Tensor) -> bool:
        """Whether a view lies inside what the root spans."""
        inner, outer = Geometry.of(tensor), self.geometry
        return outer.offset <= inner.offset and inner.reach <= outer.reach

    def detach_aliases(self) -> None:
        """Before a write: sharing values that can be computed again are given up, the others get a copy."""
        copy = None
        for value in self.aliases:
            if _repeatable(value):
                value.give_up()
                continue
            copy = whole_storage(self.tensor).clone() if copy is None else copy
            data = value.data
            same = data.dtype == copy.dtype
            value.data = copy.as_strided(data.size(), data.stride(), data.storage_offset()) if same else data.clone()
        self.aliases.clear()


def _repeatable(value: Value) -> bool:
    """Whether running a value's operation again gives the same tensor, within a few steps."""
    node = value.node
    if (
        node is None
        or value.depth
        or len(node.outputs) != 1
        or max((v.depth for v in node.inputs), default=0) >= DEEPEST
    ):
        return False
    return torch.Tag.nondeterministic_seeded not in getattr(node.op, "tags", ())


def whole_storage(tensor: Tensor) -> Tensor:
    """A flat tensor over the whole storage behind `tensor`."""
    storage = tensor.untyped_storage()
    flat = torch.empty(0, dtype=tensor.dtype, device=tensor.device)
    return flat.set_(storage, 0, (storage.nbytes() // tensor.element_size(),), (1,))
