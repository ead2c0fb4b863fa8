"""Small changes before every look, so that the picture does not hang on single pixels: shifts, scale, turns."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import pi

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import SettingError

USUAL_PX = 224
GREY = 0.5
DRAWS = 6
UPRIGHT_FRACTION = 0.2


@dataclass(frozen=True)
class Transforms:
    """Shift, scale about the centre, turn, shift again; each picture by its own random numbers; grey comes in.

    Attributes:
        jitter_px: first shift, up to so much either way; 4 at 224 pixels by default, and in proportion elsewhere.
        scale: from this to that, uniformly.
        rotate_degrees: up to so much either way; one step in five is upright.
        second_jitter_px: shift after turning; half of the first by default.

    Source: Olah, Mordvintsev & Schubert 2017, Distill, "Feature visualization", transformation robustness.
    """

    jitter_px: float | int | None = None
    scale: tuple[float | int, float | int] = (0.9, 1.1)
    rotate_degrees: float | int = 10.0
    second_jitter_px: float | int | None = None

    def __post_init__(self) -> None:
        low, high = self.scale
        sizes = [s for s in (self.jitter_px, self.second_jitter_px) if s is not None]
        if not 0 < low <= high or min([*sizes, 0]) < 0 or not 0 <= self.rotate_degrees <= 180:
            raise SettingError(f"shifts and turns are at least 0, scale is (low, high) above 0; {self} came")

    @property
    def still(self) -> bool:
        """Whether nothing is changed at all."""
        return self.jitter_px == 0 and self.second_jitter_px in (0, None) and self._rigid

    @property
    def _rigid(self) -> bool:
        return self.scale == (1.0, 1.0) and self.rotate_degrees == 0

    def matrices(self, draws: Float[Tensor, "n 6"], size_px: tuple[int, int]) -> Float[Tensor, "n 2 3"]:
        """For each picture where in it every pixel of its changed version is read, in coordinates of [−1, 1].

        `p_in = R(θ) (p_out − t₂) / s − t₁`, in pixels from the centre.
        """
        h, w = size_px
        first = min(h, w) * 4 / USUAL_PX if self.jitter_px is None else float(self.jitter_px)
        second = first / 2 if self.second_jitter_px is None else float(self.second_jitter_px)
        t1, t2 = (2 * draws[:, 0:2] - 1) * first, (2 * draws[:, 2:4] - 1) * second
        s = self.scale[0] + (self.scale[1] - self.scale[0]) * draws[:, 4]
        turn = 2 * draws[:, 5] - 1
        angle = turn * (turn.abs() > UPRIGHT_FRACTION) * float(self.rotate_degrees) * pi / 180
        cos, sin = angle.cos() / s, angle.sin() / s
        turned = torch.stack([torch.stack([cos, -sin], 1), torch.stack([sin, cos], 1)], 1)
        shift = -t1 - (turned @ t2[:, :, None])[:, :, 0]
        half = torch.tensor([w / 2, h / 2]).to(draws)
        return torch.cat([turned * half / half[:, None], (shift / half)[:, :, None]], 2)


ROBUST, STILL = Transforms(), Transforms(0, (1.0, 1.0), 0, 0)
KNOWN = {"robust": ROBUST, "strong": Transforms(None, (0.8, 1.2), 20.0, None), "none": STILL}


def looked_at(
    pixels: Float[Tensor, "n c h w"], matrices: Float[Tensor, "m 2 3"], size_px: tuple[int, int]
) -> Float[Tensor, "m c y x"]:
    """The pictures as one step sees them: one bilinear look-up each, grey beyond the border."""
    at = matrices.to(pixels)[:, None, None]
    down, across = (((2 * torch.arange(n, dtype=pixels.dtype, device=pixels.device) + 1) / n - 1) for n in size_px)
    grid = at[..., 0] * across[:, None] + (at[..., 1] * down[:, None, None] + at[..., 2])
    return F.grid_sample(pixels - GREY, grid, mode="bilinear", padding_mode="zeros", align_corners=False) + GREY


def draws(random: Sequence[torch.Generator], steps: int) -> Float[Tensor, "steps n 6"]:
    """The random numbers of all steps, those of each picture from its own generator."""
    each = [torch.rand(steps, DRAWS, generator=g, dtype=torch.float64) for g in random]
    return torch.stack(each, 1)


def transforms_of(given: Transforms | str) -> Transforms:
    """
    Raises:
        SettingError: not the name of a set of transforms.
    """
    if isinstance(given, Transforms):
        return given
    if given not in KNOWN:
        raise SettingError(f'transforms "{given}"; there are {", ".join(KNOWN)}, or pel.Transforms(…)')
    return KNOWN[given]
