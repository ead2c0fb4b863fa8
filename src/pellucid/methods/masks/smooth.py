"""Smooth masks from few parameters, differentiable, on any number of axes; and what a mask costs."""

from collections.abc import Sequence
from itertools import product
from math import ceil, exp, hypot, prod

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.baselines import blur

COLDNESS = 20.0  # 1 / T of the smooth maximum: values in 0 to 1 that differ by 0.15 are told apart 20 to 1
FADED = 3.0  # where a dot ends, in units of its fading width: 1 % of it are left
_MODES = {1: "linear", 2: "bilinear", 3: "trilinear"}


def grid_of(space: Sequence[int], cells: int) -> tuple[int, ...]:
    """As many nearly cubic cells as fit the image, `cells` along its shortest side."""
    return tuple(max(1, round(cells * side / min(space))) for side in space)


def enlarged(grids: Float[Tensor, "n *grid"], space: Sequence[int]) -> Float[Tensor, "n *space"]:
    """Multilinear interpolation between the centres of the cells."""
    return F.interpolate(grids[:, None], size=tuple(space), mode=_MODES[len(space)], align_corners=False)[:, 0]


def softened(grids: Float[Tensor, "n *grid"], space: Sequence[int], sigma_px: float) -> Float[Tensor, "n *space"]:
    """Enlarged and blurred."""
    masks = enlarged(grids, space)
    return blur(masks[:, None], sigma_px)[:, 0] if sigma_px > 0 else masks


class Dots:
    """Masks that are unions of smooth dots: one around every cell, the strongest wins.

    `m(u) = smax_v k(‖u − v‖) m̄(v)` with `smax_v z = Σ z e^{z/T} / Σ e^{z/T}`, T = 1/20. A dot is 1 up to its radius ρ
    and fades beyond it, `k(d) = exp(−½ (max(0, d − ρ) / β)²)`, β half a cell's side, to 3 β. The maximum is taken at
    the centres of the cells, also around the image as far as dots reach, and interpolated between them.

    Args:
        space: sides of the image in pixels.
        cells: along the shortest side.
        like: gives dtype and device of the masks.
    """

    def __init__(self, space: Sequence[int], cells: int, radius_px: float, like: Tensor) -> None:
        self.grid, self.radius = grid_of(space, cells), radius_px
        self.sides = [side / number for side, number in zip(space, self.grid, strict=True)]
        self.width = max(self.sides) / 2
        self.reach = [ceil((radius_px + FADED * self.width) / side) for side in self.sides]
        self.margins = [int((r - 0.5) * side) for r, side in zip(self.reach, self.sides, strict=True)]
        self.inside = (slice(None), *(slice(m, m + n) for m, n in zip(self.margins, space, strict=True)))
        with torch.inference_mode(False):  # autograd keeps them
            self.ways = [self._way(axis, side, like) for axis, side in enumerate(space)]

    def _way(self, axis: int, pixels: int, like: Tensor) -> Float[Tensor, "cells pixels"]:
        """How much of each cell, of those around the image too, a pixel shows: linear between their centres."""
        margin, reach = self.margins[axis], self.reach[axis]
        places = torch.arange(-margin, pixels + margin, dtype=torch.float64)
        centres = torch.arange(-reach, self.grid[axis] + reach, dtype=torch.float64)
        far = ((places + 0.5) / self.sides[axis] - 0.5)[None] - centres[:, None]
        return (1 - far.abs()).clamp(min=0).to(like)

    def around(self, grids: Float[Tensor, "n *grid"]) -> Float[Tensor, "n *wider"]:
        """The masks and what lies around them; `inside` cuts the image out."""
        padded = F.pad(grids, [margin for r in reversed(self.reach) for margin in (2 * r, 2 * r)])
        shown = []
        for offset in product(*(range(-r, r + 1) for r in self.reach)):
            far = hypot(*(o * side for o, side in zip(offset, self.sides, strict=True)))
            beyond = max(0.0, far - self.radius) / self.width
            if beyond <= FADED:
                parts = zip(self.reach, offset, self.grid, strict=True)
                window = [slice(r + o, r + o + number + 2 * r) for r, o, number in parts]
                shown.append(exp(-0.5 * beyond**2) * padded[(slice(None), *window)])
        values = torch.stack(shown, 1)
        masks = (torch.softmax(COLDNESS * values, 1) * values).sum(1)
        for way in self.ways:  # the first axis goes in, its pixels come out last
            masks = masks.movedim(1, -1) @ way
        return masks

    def __call__(self, grids: Float[Tensor, "n *grid"]) -> Float[Tensor, "n *space"]:
        """The masks, values 0 to 1."""
        return self.around(grids)[self.inside]


def area_penalty(
    masks: Float[Tensor, "n *wider"], areas: Float[Tensor, "n"], inside: tuple[slice, ...] = (slice(None),)
) -> Float[Tensor, "n"]:
    """`R_a(m) = ‖vecsort(m) − r_a‖² / |Ω|`: how far a mask is from ones on a share `a` of the pixels, zeros elsewhere.

    `r_a` holds a zero for each of the `(1 − a)|Ω|` smallest values and ones for the rest. Equal values share what their
    order leaves open, so that no pixel is preferred for its place in memory.

    Args:
        masks: with a margin around the image, if `inside` cuts the image out. There a pixel wants to be one if its
            value is among the image's largest; so a soft edge costs the same at the image's edge as elsewhere.
    """
    values, image = masks.flatten(1), masks.detach()[inside].flatten(1)
    pixels = image.shape[1]
    ones = (areas * pixels).round().long().clamp(1, pixels)[:, None]
    ranked = image.sort(1, descending=True).values
    last, next_one = ranked.gather(1, ones - 1), ranked.gather(1, ones.clamp(max=pixels - 1))
    border = (last + next_one) / 2  # where both are equal, so are all pixels in question
    share = (ones - (image > border).sum(1, keepdim=True)).to(values) / (image == border).sum(1, keepdim=True).clamp(1)
    wanted = (values.detach() > border).to(values) + (values.detach() == border) * share
    return ((values - wanted) ** 2).sum(1) / pixels


def total_variation(grids: Float[Tensor, "n *grid"], power: float) -> Float[Tensor, "n"]:
    """`1/|grid| Σ_u Σ_axes |m(u + e) − m(u)|^β`."""
    steps = [grids.diff(dim=axis).abs().flatten(1).pow(power).sum(1) for axis in range(1, grids.dim())]
    return torch.stack(steps).sum(0) / prod(grids.shape[1:])
