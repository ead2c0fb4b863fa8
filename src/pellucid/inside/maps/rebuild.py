"""The picture rebuilt from a layer's maps by least squares: what is still there of it, at its place."""

from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pellucid.inside.maps.align import Places, through, weights
from pellucid.inside.showing import Shows
from pellucid.render.fitting import fitted
from pellucid.render.sheet import sheet

RIDGE = 1e-9  # of the mean variance of the maps: keeps dead channels from dividing by zero
ROWS = 16


@dataclass(frozen=True, eq=False)
class Rebuilt(Shows):
    """The least squares picture.

    Attributes:
        layer: whose maps it is made of.
        input: `(c, *space)`, what the network was fed.
        values: `(c, *space)`, the linear mix of maps that comes nearest to it.
        explained: share of the input's variance (about each colour's mean) that it holds, at most 1.
        pictures: both as people see them; None where the input is no picture.
    """

    layer: str
    input: Float[np.ndarray, "c *space"]
    values: Float[np.ndarray, "c *space"]
    explained: float
    pictures: tuple[Image.Image, Image.Image] | None

    @property
    def title(self) -> str:
        return f"What {self.layer} keeps of the picture"

    def image(self) -> Image.Image:
        """The picture and what the layer's maps give back of it."""
        words = (["input"], [f"from {self.layer}", f"{100 * self.explained:.1f} % of its variance"])
        if self.pictures is None:
            return sheet(self.title, [], [])
        return sheet(
            self.title, [], [[(fitted(p, 256, exact=True), w) for p, w in zip(self.pictures, words, strict=True)]]
        )

    def sentence(self) -> str:
        return f"a linear mix of the maps of {self.layer} holds {100 * self.explained:.1f} % of the picture's variance"

    def __repr__(self) -> str:
        return f"Rebuilt({self.layer}, {100 * self.explained:.1f} % of the variance)"


def least_squares(
    maps: Float[Tensor, "c *space"], x: Float[Tensor, "d *size"], at: Places
) -> tuple[Float[Tensor, "d *size"], float]:
    """`min_W,b Σ_pixels ‖x − (W A + b)‖²`, with the maps A laid on the pixels; and the share of variance explained.

    Solved through the normal equations about the means, in double precision, a few rows of pixels at a time.

    Args:
        maps: of one layer.
        x: what is rebuilt.
        at: the centres of the maps' positions; see `align.centres`.
    """
    x, size = x.double(), x.shape[1:]
    laid = _Laid.on(maps.double(), at, tuple(size))
    colour = x.mean(tuple(range(1, x.dim())), keepdim=True)
    gram, cross = maps.new_zeros(len(maps), len(maps)).double(), maps.new_zeros(len(maps), len(x)).double()
    for start in range(0, size[0], ROWS):
        part = laid.rows(start)
        gram += part @ part.T
        cross += part @ (x[:, start : start + ROWS] - colour).flatten(1).T
    tiny = torch.finfo(torch.float64).tiny
    ridge = RIDGE * gram.diagonal().mean().clamp(min=tiny) * torch.eye(len(maps)).to(gram)
    mix = torch.linalg.solve(gram + ridge, cross).T
    found = torch.cat([(mix @ laid.rows(start)).view(len(x), -1, *size[1:]) for start in range(0, size[0], ROWS)], 1)
    total = (x - colour).square().sum()
    lost = (x - colour - found).square().sum()
    return found + colour, 1.0 if total == 0 else float(1 - lost / total)


@dataclass(frozen=True, eq=False)
class _Laid:
    """Maps on the pixels, about their means, a few rows of pixels at a time."""

    across: Tensor
    down: Float[np.ndarray, "n m"]
    mean: Tensor

    @classmethod
    def on(cls, maps: Tensor, at: Places, size: tuple[int, ...]) -> "_Laid":
        across = maps
        for axis, (places, n) in enumerate(zip(at[1:], size[1:], strict=True), start=2):
            across = through(across, weights(places, np.arange(n) + 0.5), axis)
        down = weights(at[0], np.arange(size[0]) + 0.5)
        return cls(across, down, through(across, down.mean(0, keepdims=True), 1).flatten(1).mean(1, keepdim=True))

    def rows(self, start: int) -> Float[Tensor, "c n"]:
        return through(self.across, self.down[start : start + ROWS], 1).flatten(1) - self.mean
