"""What is changed in order to change the picture: its pixels, or its spectrum in independent colours."""

from collections.abc import Sequence
from math import sqrt
from typing import Any, Protocol, runtime_checkable

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.inside.optimise.colour import Colours

SPECTRUM_STD, QUARTER = 0.01, 4.0
PIXEL_STD = 0.01
CLOSE = 0.02  # how near to black or white a picture to start from may come


@runtime_checkable
class Canvas(Protocol):
    """Pictures that are being made, and what is changed about them."""

    parameters: list[Tensor]

    def pixels(self) -> Tensor:
        """The pictures, (n, c, h, w) in [0, 1]; autograd leads to the parameters."""
        ...


def frequencies(height: int, width: int) -> Float[Tensor, "h k"]:
    """`f = √(f_y² + f_x²)` in cycles per pixel, for a real spectrum of `width // 2 + 1` columns.

    Example:
        >>> frequencies(4, 5).shape
        torch.Size([4, 3])
    """
    down = torch.fft.fftfreq(height, dtype=torch.float64)
    across = torch.fft.rfftfreq(width, dtype=torch.float64)
    return (down[:, None] ** 2 + across[None] ** 2).sqrt()


class Fourier:
    """`u = σ(M irfft2(z √(hw) / max(f, 1/max(h, w))^p) / 4)`, all frequencies at a similar footing.

    Args:
        random: one generator per picture; Re z and Im z start as normal numbers of deviation 0.01.
        power: p, the decay of amplitudes with frequency; 1 as in natural pictures.
        start: pictures to start from instead, (n, c, h, w) in [0, 1].

    Source: Olah, Mordvintsev & Schubert 2017, Distill, "Feature visualization", preconditioning.
    """

    def __init__(
        self,
        random: Sequence[torch.Generator],
        channels: int,
        size_px: tuple[int, int],
        colours: Colours,
        home: Tensor,
        *,
        power: float = 1.0,
        start: Tensor | None = None,
    ) -> None:
        height, width = size_px
        self.size_px, self.colours = size_px, colours
        least = frequencies(height, width).clamp(min=1 / max(height, width))
        self.scale = (sqrt(height * width) / least**power / QUARTER).to(home)
        shape = (channels, height, width // 2 + 1, 2)
        if start is None:
            drawn = [SPECTRUM_STD * torch.randn(shape, generator=g, dtype=torch.float64) for g in random]
            z = torch.stack(drawn).to(home)
        else:
            wanted = self.colours.part(torch.logit(start.to(home).clamp(CLOSE, 1 - CLOSE)))
            z = torch.view_as_real(torch.fft.rfft2(wanted) / self.scale)
        self.spectrum = z.contiguous().requires_grad_()
        self.parameters = [self.spectrum]

    def pixels(self) -> Float[Tensor, "n c h w"]:
        z = torch.view_as_complex(self.spectrum) * self.scale
        return torch.sigmoid(self.colours.mix(torch.fft.irfft2(z, s=self.size_px)))


class Pixels:
    """`u = σ(M z)`, every pixel by itself (in independent colours)."""

    def __init__(
        self,
        random: Sequence[torch.Generator],
        channels: int,
        size_px: tuple[int, int],
        colours: Colours,
        home: Tensor,
        *,
        start: Tensor | None = None,
    ) -> None:
        self.colours = colours
        if start is None:
            shape = (channels, *size_px)
            drawn = [PIXEL_STD * torch.randn(shape, generator=g, dtype=torch.float64) for g in random]
            z = torch.stack(drawn).to(home)
        else:
            z = self.colours.part(torch.logit(start.to(home).clamp(CLOSE, 1 - CLOSE)))
        self.values = z.contiguous().requires_grad_()
        self.parameters: list[Any] = [self.values]

    def pixels(self) -> Float[Tensor, "n c h w"]:
        return torch.sigmoid(self.colours.mix(self.values))
