"""From stored pixels to what a network is fed: small random changes that leave the class alone, then standardising."""

from dataclasses import dataclass

import torch
from torch import Generator, Tensor
from torch.nn import functional as F


def in_unit_range(x: Tensor) -> Tensor:
    """Floats: 8-bit numbers divided by 255, floats as they are."""
    return x.float() / 255 if x.dtype == torch.uint8 else x.float()


@dataclass(frozen=True)
class Standardise:
    """`(x - mean) / std` for each channel.

    Args:
        mean: one number a channel, in units of [0, 1] pixels.
        std: likewise.
    """

    mean: tuple[float, ...]
    std: tuple[float, ...]

    def __call__(self, x: Tensor) -> Tensor:
        """What the network is fed, from `(b, c, …)`, uint8 in [0, 255] or floats in [0, 1]."""
        x = in_unit_range(x)
        mean, std = (torch.tensor(v, device=x.device).view(-1, *(1,) * (x.ndim - 2)) for v in (self.mean, self.std))
        return (x - mean) / std


@dataclass(frozen=True)
class Jitter:
    """Random shift, brightness, contrast and noise of each picture or volume; no flips, since sides may matter.

    `x' = (x - ½)(1 + c u) + ½ + b v + s n`, clamped to [0, 1], after shifting by whole pixels with the edge repeated;
    u and v are uniform in [-1, 1], one of each a picture, n is standard normal, one a number.

    Args:
        shift_px: largest shift along each axis, in pixels or voxels.
        brightness: b, in units of [0, 1] pixels.
        contrast: c, a factor.
        noise: s, in units of [0, 1] pixels.
    """

    shift_px: int = 0
    brightness: float = 0.0
    contrast: float = 0.0
    noise: float = 0.0

    def __call__(self, x: Tensor, random: Generator) -> Tensor:
        """Changed copies, floats in [0, 1].

        Args:
            x: `(b, c, …)` with any axes of space; uint8 in [0, 255] or floats in [0, 1].
            random: where the random numbers come from; of the CPU, whatever the device of x.
        """
        x = in_unit_range(self._shifted(x, random) if self.shift_px else x)
        if self.brightness or self.contrast:
            u, v = (2 * torch.rand(2, len(x), *(1,) * (x.ndim - 1), generator=random) - 1).to(x.device)
            x = (x - 0.5) * (1 + self.contrast * u) + (0.5 + self.brightness * v)
        if self.noise:
            x = x + self.noise * torch.randn(x.shape, generator=random).to(x.device)
        return x.clamp(0, 1)

    def _shifted(self, x: Tensor, random: Generator) -> Tensor:
        """Each picture cut out of its padded self at a place of its own."""
        space, margin = x.shape[2:], self.shift_px
        padded = F.pad(x.float(), (margin, margin) * len(space), mode="replicate").to(x.dtype)
        starts = torch.randint(0, 2 * margin + 1, (len(x), len(space)), generator=random).tolist()
        windows = [[slice(a, a + side) for a, side in zip(start, space, strict=True)] for start in starts]
        return torch.stack([padded[(i, slice(None), *window)] for i, window in enumerate(windows)])
