"""Windows of recorded values: what many edits changed, cut out of values that stay as they were."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor

Starts = list[tuple[int, ...]]  # one corner per edit
Sizes = tuple[int, ...]


class Axis(NamedTuple):
    """Along one axis, output o reads the inputs `o · stride − before + j · dilation` (j < kernel)."""

    kernel: int = 1
    stride: int = 1
    before: int = 0
    dilation: int = 1

    def reached(self, start: int, stop: int, length: int) -> tuple[int, int]:
        """The outputs, of `length` in all, that read any input from start to stop."""
        low = -((self.dilation * (self.kernel - 1) - start - self.before) // self.stride)
        high = (stop - 1 + self.before) // self.stride + 1
        return max(low, 0), min(high, length)

    def needed(self, start: int, size: int) -> tuple[int, int]:
        """First input and number of inputs that outputs from start on read; may lie beyond the border."""
        span = self.dilation * (self.kernel - 1) + 1
        return start * self.stride - self.before, (size - 1) * self.stride + span


POINT = Axis()


@dataclass(eq=False)
class Patch:
    """The changed part of a value under n edits: windows of one size, each at its own place.

    Attributes:
        starts: the corner of each window.
        data: `(n, ..., *sizes)` with the window's axes where the value has its spatial ones.
    """

    starts: Starts
    sizes: Sizes
    data: Tensor


def fitted(lows: Starts, highs: Starts, lengths: Sizes) -> tuple[Starts, Sizes]:
    """Windows of one size around boxes of different sizes, all inside the value.

    Args:
        lows, highs: where each box begins and ends along each axis.
        lengths: of the value along each axis.
    """
    sizes = tuple(
        min(max(*(high[a] - low[a] for low, high in zip(lows, highs, strict=True)), 1), length)
        for a, length in enumerate(lengths)
    )
    starts = [tuple(max(min(a, n - size), 0) for a, n, size in zip(low, lengths, sizes, strict=True)) for low in lows]
    return starts, sizes


def cut(
    base: Tensor, patch: Patch | None, space: Sequence[int], starts: Starts, sizes: Sizes, beyond: float = 0.0
) -> Tensor:
    """Windows of a value in which every edit's patch has taken the place of what was recorded, `(n, ..., *sizes)`.

    Args:
        base: the value of one image, `(1, ...)`.
        space: its spatial axes.
        beyond: what lies outside of it.
    """
    if patch is not None and patch.sizes == sizes and patch.starts == starts:
        return patch.data
    shape = list(base.shape)
    shape[0] = len(starts)
    for axis, size in zip(space, sizes, strict=True):
        shape[axis] = size
    lengths = [base.shape[axis] for axis in space]
    out = torch.empty(shape, dtype=base.dtype, device=base.device, memory_format=_memory(base))
    whole = [slice(None)] * base.dim()
    for number, start in enumerate(starts):
        inside = all(s >= 0 and s + n <= length for s, n, length in zip(start, sizes, lengths, strict=True))
        if not inside:
            out[number].fill_(beyond)
        _overlay(out, number, start, sizes, base, 0, (0,) * len(space), lengths, space, whole)
        if patch is not None:
            _overlay(out, number, start, sizes, patch.data, number, patch.starts[number], patch.sizes, space, whole)
    return out


def _overlay(
    out: Tensor,
    number: int,
    start: Sequence[int],
    sizes: Sequence[int],
    source: Tensor,
    row: int,
    at: Sequence[int],
    extent: Sequence[int],
    space: Sequence[int],
    whole: list[slice],
) -> None:
    """Copy the part of `source[row]`, which lies at `at`, that the window `out[number]` shows."""
    into, of = list(whole), list(whole)
    for axis, s, n, a, e in zip(space, start, sizes, at, extent, strict=True):
        low, high = max(s, a), min(s + n, a + e)
        if low >= high:
            return
        into[axis], of[axis] = slice(low - s, high - s), slice(low - a, high - a)
    out[number][tuple(into[1:])].copy_(source[row][tuple(of[1:])])


def _memory(base: Tensor) -> torch.memory_format:
    if base.dim() == 4 and base.is_contiguous(memory_format=torch.channels_last):
        return torch.channels_last
    if base.dim() == 5 and base.is_contiguous(memory_format=torch.channels_last_3d):
        return torch.channels_last_3d
    return torch.contiguous_format
