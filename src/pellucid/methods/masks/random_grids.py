"""Random smooth masks: Bernoulli grids, enlarged, shifted and cropped (Petsiuk et al. 2018, section 3.2)."""

from collections.abc import Sequence
from math import ceil

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

BLOCK = 64  # masks drawn together, so that a mask does not depend on who asks for it


class RandomGrids:
    """Masks made when they are asked for; mask i is the same for the same seed, whatever else is asked.

    A grid of `cells` cells along each axis holds 1 with probability `keep_fraction`, else 0. It is enlarged linearly
    to `(cells + 1) C` pixels, `C = ceil(side / cells)`, and cropped at a shift of 0 to C - 1 pixels along each axis.
    The mean over all masks is `keep_fraction` at every pixel.

    Args:
        space: sides of the image in pixels.
        like: gives dtype and device of the masks.
    """

    def __init__(self, space: Sequence[int], cells: int, keep_fraction: float, seed: int, like: Tensor) -> None:
        self.space, self.cells, self.keep_fraction, self.seed = tuple(space), cells, keep_fraction, seed
        self.sides = [ceil(side / cells) for side in space]
        self.windows = [self._windows(side, cell, like) for side, cell in zip(space, self.sides, strict=True)]

    def _windows(self, side: int, cell: int, like: Tensor) -> Float[Tensor, "shifts cells side"]:
        """For every shift how much of each cell a pixel shows."""
        single = torch.eye(self.cells, dtype=like.dtype, device=like.device)[None]
        enlarged = F.interpolate(single, size=(self.cells + 1) * cell, mode="linear", align_corners=False)[0]
        return enlarged.unfold(1, side, 1)[:, :cell].movedim(1, 0)

    def drawn(self, samples: Sequence[int]) -> tuple[Tensor, Tensor]:
        """Grids `(n, cells, ...)` of zeros and ones, and shifts `(n, axes)` in pixels."""
        axes, of = len(self.space), {}
        for block in sorted({sample // BLOCK for sample in samples}):
            random = torch.Generator().manual_seed(self.seed * 1_000_003 + block)
            of[block] = torch.rand(BLOCK, self.cells**axes + axes, generator=random)
        uniform = torch.stack([of[sample // BLOCK][sample % BLOCK] for sample in samples])
        grids = uniform[:, :-axes] < self.keep_fraction
        shifts = (uniform[:, -axes:] * torch.tensor(self.sides)).long()
        return grids.view(-1, *[self.cells] * axes), shifts

    def __call__(self, samples: Sequence[int]) -> Float[Tensor, "n *space"]:
        """Some of the masks, values 0 to 1."""
        grids, shifts = self.drawn(samples)
        masks = grids.to(self.windows[0])
        for axis, windows in enumerate(self.windows):  # the first axis goes in, its pixels come out last
            inner = masks.movedim(1, -1)
            enlarged = inner.reshape(len(inner), -1, self.cells) @ windows[shifts[:, axis].to(windows.device)]
            masks = enlarged.view(*inner.shape[:-1], enlarged.shape[-1])
        return masks
