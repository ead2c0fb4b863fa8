"""In-painting: hidden pixels from their neighbours, a linear system solved for many masks at once, on any device."""

from collections.abc import Iterator
from itertools import count, repeat
from math import prod

import torch
from jaxtyping import Bool, Float
from torch import Tensor

from pellucid.core.edits import Box

NOTHING_SEEN = 0.5  # what is put where the whole picture is hidden
STEPS = 200  # a bound that is not met: about 10 are needed
_GRAIN_PX = 8  # windows around what is hidden have sides of a multiple of this
_CPU_BYTES, _DEVICE_BYTES = 2**20, 64 * 2**20  # solved at a time; on a CPU what its cache holds


def inpaint(
    pixels: Float[Tensor, "c *space"], keep: Bool[Tensor, "n *space"], *, residual: float = 3e-5
) -> Float[Tensor, "n c *space"]:
    """Every hidden pixel becomes the weighted mean of its neighbours.

    `u_p = Σ_q w_pq u_q / Σ_q w_pq` for hidden p, `u_p = pixels_p` elsewhere; q runs over the neighbours inside the
    picture, also the diagonal ones, and `w_pq = 2^−(axes along which p and q differ)`. Away from the border that is 1/6
    for direct and 1/12 for diagonal neighbours in 2-D, 1/2 in 1-D, and 1/14, 1/28 and 1/56 in 3-D.
    Where nothing at all is seen the picture becomes grey, 0.5.

    Solved by conjugate gradients with a multigrid cycle as preconditioner, in float32 or the precision of the pixels.

    Args:
        pixels: values in [0, 1].
        keep: for each mask whether a pixel is seen.
        residual: how far a hidden pixel may be from the mean of its neighbours, in pixel values. The distance to the
            exact solution is then some thirty times that: 1e-3, a quarter of an 8-bit step.

    Source:
        Rong et al. 2022 (ROAD), arXiv:2202.00449, noisy linear imputation, without its noise (from memory); the weights
        in 1-D and 3-D, and at the border, are ours.
    """
    space = [size for size in pixels.shape[1:] if size > 1] or [1]
    work = pixels.to(torch.promote_types(pixels.dtype, torch.float32)).reshape(len(pixels), *space)
    hidden = ~keep.reshape(len(keep), *space)
    found = pixels.expand(len(keep), *pixels.shape).clone(memory_format=torch.contiguous_format)
    wholes = found.view(len(keep), len(pixels), *space)
    for members in _alike(hidden, work.element_size() * len(pixels)):
        holes = torch.stack([hidden[(mask, *place)] for mask, place in members])
        windows = torch.stack([work[(slice(None), *place)] for _, place in members])
        solved = _solved(windows, holes[:, None], residual)
        for one, hole, (mask, place) in zip(solved, holes, members, strict=True):
            part = wholes[(mask, slice(None), *place)]
            part.copy_(torch.where(hole, one.to(part), part))
    return found


Place = tuple[slice, ...]


def _alike(hidden: Tensor, pixel_bytes: int) -> Iterator[list[tuple[int, Place]]]:
    """Masks, each with its window, in groups of one size that memory should hold; those that hide nothing are left out.

    A window hangs on its own mask only, so that no mask changes the solution under another.
    """
    groups: dict[tuple[int, ...], list[tuple[int, Place]]] = {}
    for mask, box in enumerate(_windows(hidden)):
        if box is not None:
            members = groups.setdefault(tuple(b - a for a, b in box), [])
            members.append((mask, tuple(slice(a, b) for a, b in box)))
    most = _CPU_BYTES if hidden.device.type == "cpu" else _DEVICE_BYTES
    for size, members in groups.items():
        at_once = max(1, most // (pixel_bytes * prod(size)))
        yield from (members[start : start + at_once] for start in range(0, len(members), at_once))


def _windows(hidden: Tensor) -> list[Box | None]:
    """For each mask a box around what it hides and one pixel more on every side where the picture has it."""
    spans = []
    for axis, size in enumerate(hidden.shape[1:], 1):
        met = hidden.movedim(axis, 1).flatten(2).any(2) if hidden.dim() > 2 else hidden
        first, last = met.byte().argmax(1), size - met.flip(1).byte().argmax(1)
        spans.append([_window(a, b, size) for a, b in zip(first.tolist(), last.tolist(), strict=True)])
    some = hidden.flatten(1).any(1).tolist()
    return [box if any_hidden else None for box, any_hidden in zip(zip(*spans, strict=True), some, strict=True)]


def _window(first: int, last: int, size: int) -> tuple[int, int]:
    side = min(size, -(-(last - first + 2) // _GRAIN_PX) * _GRAIN_PX)
    start = min(max(first - 1, 0), size - side)
    return start, start + side


def _spread(u: Tensor) -> Tensor:
    """`Σ_q w_pq u_q` over p itself and its neighbours inside the picture: 1/2, 1, 1/2 along each axis."""
    for axis in range(2, u.dim()):
        size = u.shape[axis]
        found = u.clone()
        found.narrow(axis, 1, size - 1).add_(u.narrow(axis, 0, size - 1), alpha=0.5)
        found.narrow(axis, 0, size - 1).add_(u.narrow(axis, 1, size - 1), alpha=0.5)
        u = found
    return u


class _Level:
    """One grid of the multigrid: `A u = hidden ⊙ (D u − Σ_q w_pq u_q)`, and the grid of every other pixel below it.

    A coarse pixel is hidden where the fine one and all its neighbours are, so that what is seen stays seen on every
    grid; a grid where no mask hides anything is left out, which for the others changes nothing.
    `scale` makes a smooth picture as steep on every grid. `sweep` is the damping of Jacobi's iteration that reduces all
    that the coarse grid can't show to a third: 2/3 in 1-D, 1 in 2-D, 7/6 in 3-D.
    """

    def __init__(self, hidden: Tensor, scale: float = 1.0) -> None:
        axes = hidden.dim() - 2
        one = torch.ones_like(hidden[:1])
        self.hidden, self.scale = hidden, scale
        self.diagonal = (_spread(one) - 1) * scale
        self.sweep = hidden * (4 * (2**axes - 1) / (3 * 2**axes)) / self.diagonal
        self.even = (..., *repeat(slice(None, None, 2), axes))
        grid = torch.zeros_like(one)
        grid[self.even] = 1
        self.share = 1 / _spread(grid)
        inside = (_spread(hidden) == _spread(one)).to(hidden)[self.even]
        self.coarse = _Level(inside, scale * 2.0 ** (axes - 2)) if min(hidden.shape[2:]) > 2 and inside.any() else None

    def apply(self, u: Tensor) -> Tensor:
        return ((self.diagonal + self.scale) * u).sub_(_spread(u), alpha=self.scale).mul_(self.hidden)

    def cycle(self, r: Tensor) -> Tensor:
        """About `A⁻¹ r`: a sweep, the coarse grid, a sweep; symmetric and positive, as conjugate gradients need it."""
        u = self.sweep * r
        if self.coarse is not None:
            left, below = r - self.apply(u), torch.zeros_like(r)
            below[self.even] = self.coarse.cycle(_spread(left * self.share)[self.even])
            u = u + self.hidden * self.share * _spread(below)
        return u + self.sweep * (r - self.apply(u))


def _solved(pixels: Tensor, holes: Tensor, residual: float) -> Tensor:
    """Pixels `(n, c, ...)` with their holes `(n, 1, ...)` filled; each channel stops by itself."""
    level = _Level(holes.to(pixels))
    u = torch.where(holes, _seen_mean(pixels, holes), pixels)
    r = -level.apply(u)
    enough = max(residual, 16 * torch.finfo(u.dtype).eps)
    p, before = torch.zeros_like(u), torch.ones_like(_sums(u, u))
    for step in count():
        going = (r / level.diagonal).abs().amax(dim=tuple(range(2, u.dim())), keepdim=True) > enough
        if step == STEPS or not going.any():
            return u
        z = level.cycle(r)
        now = _sums(r, z)
        p = z + _ratio(now, before, going) * p
        ap = level.apply(p)
        a = _ratio(now, _sums(p, ap), going)
        u, r, before = u + a * p, r - a * ap, now
    return u


def _seen_mean(pixels: Tensor, holes: Tensor) -> Tensor:
    seen = (~holes).to(pixels)
    axes = tuple(range(2, pixels.dim()))
    number = seen.sum(axes, keepdim=True)
    return torch.where(number > 0, (pixels * seen).sum(axes, keepdim=True) / number.clamp(min=1), NOTHING_SEEN)


def _sums(a: Tensor, b: Tensor) -> Tensor:
    return (a * b).sum(dim=tuple(range(2, a.dim())), keepdim=True)


def _ratio(over: Tensor, under: Tensor, where: Tensor) -> Tensor:
    """`over / under`, and 0 where the solution is reached: there it stays."""
    return torch.where(where, over / under, 0.0)
