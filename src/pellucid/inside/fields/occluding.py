"""What units lose when a part of the picture is blurred; one forward serves every position that sees the part."""

from collections.abc import Callable, Iterator, Sequence
from itertools import product
from math import ceil, prod

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import Reach

PAINTED = 16  # pictures a pass
AT_ONCE = 4_000_000  # numbers of fields in memory
Values = Callable[[Tensor], tuple[Tensor, Tensor]]


def blurred(x: Float[Tensor, "c *space"], sigma_px: float) -> Float[Tensor, "c *space"]:
    """Under a Gaussian along every axis, the border repeated."""
    for axis in range(1, x.dim()):
        n = x.shape[axis]
        radius = min(ceil(3 * sigma_px), n - 1)
        reach = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
        weights = torch.exp(-(reach**2) / (2 * sigma_px**2))
        at = (torch.arange(n)[:, None] + torch.arange(-radius, radius + 1)).clamp(0, n - 1)
        lines = x.movedim(axis, -1)[..., at.to(x.device)]
        x = (lines * (weights / weights.sum())).sum(-1).movedim(-1, axis)
    return x


def occluded(
    x: Float[Tensor, "c *space"],
    channel: int,
    values: Values,
    positions: Sequence[tuple[int, ...]],
    seen: Reach,
    cell: int,
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """Fields `(n, 1, *size)` of `a − a(cell blurred)`, shared by the cell's pixels; what is no padding; activations.

    The blur is a Gaussian of σ = max(2, cell) pixels.
    """
    fill = blurred(x, max(2.0, float(cell)))
    cells = [[slice(s, min(s + cell, n)) for s in range(0, n, cell)] for n in x.shape[1:]]
    every = list(product(*cells))
    usual = _at(values(x[None])[0], channel, positions)[0]
    lost = torch.empty(len(positions), len(every), dtype=torch.float64)
    for start in range(0, len(every), PAINTED):
        some = every[start : start + PAINTED]
        painted = x[None].repeat(len(some), *(1,) * x.dim())
        for row, place in enumerate(some):
            painted[(row, slice(None), *place)] = fill[(slice(None), *place)]
        given = _at(values(painted)[0], channel, positions)
        for row, place in enumerate(some):
            pixels = prod(s.stop - s.start for s in place)
            lost[:, start + row] = (usual - given[row]) / pixels
    grid = lost.view(len(positions), *map(len, cells))
    yield from _fields(grid, cell, x.shape[1:], positions, seen, usual)


def _fields(
    grid: Tensor, cell: int, lengths: Sequence[int], positions: Sequence[tuple[int, ...]], seen: Reach, usual: Tensor
) -> Iterator[tuple[Tensor, Tensor, Tensor]]:
    """The part of each position's map that lies in its field."""
    step = max(1, AT_ONCE // prod(lengths))
    for start in range(0, len(positions), step):
        some = grid[start : start + step]
        for axis, n in enumerate(lengths):
            some = some.repeat_interleave(cell, dim=axis + 1).narrow(axis + 1, 0, n)
        parts = [patches(m[None], [seen.corner(p)], seen.size) for m, p in zip(some, positions[start:], strict=False)]
        found, there = (torch.cat(kind) for kind in zip(*parts, strict=True))
        yield found, there, usual[start : start + step]


def _at(maps: Tensor, channel: int, positions: Sequence[tuple[int, ...]]) -> Float[Tensor, "b n"]:
    """The values of a unit at some positions."""
    maps = maps[:, channel].double().cpu()
    return torch.stack([maps[(slice(None), *p)] for p in positions], 1)
