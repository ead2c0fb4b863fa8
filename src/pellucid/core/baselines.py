"""Named baselines: pictures that stand for "nothing there", in pixel values between 0 and 1."""

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import SettingError, nearest

NAMES = ("black", "white", "grey", "mean", "blur", "uniform")


def baseline(name: str, pixels: Float[Tensor, "b c *space"], *, seed: int = 0) -> Float[Tensor, "b c *space"]:
    """A baseline for each picture.

    `black` 0, `white` 1, `grey` 0.5, `mean` each picture's mean colour, `blur` the picture under a Gaussian of
    a tenth of its shorter side, `uniform` independent noise in [0, 1] (seeded).

    Raises:
        SettingError: an unknown name.
    """
    constants = {"black": 0.0, "white": 1.0, "grey": 0.5}
    if name in constants:
        return torch.full_like(pixels, constants[name])
    if name == "mean":
        return pixels.mean(dim=tuple(range(2, pixels.dim())), keepdim=True).expand_as(pixels).clone()
    if name == "blur":
        return blur(pixels, sigma_px=max(min(pixels.shape[2:]) / 10, 0.5))
    if name == "uniform":
        random = torch.Generator().manual_seed(seed)
        return torch.rand(pixels.shape, generator=random, dtype=pixels.dtype).to(pixels.device)
    raise SettingError(
        f'no baseline "{name}"{nearest(name, NAMES) or "."} Known: {", ".join(NAMES)}, or a tensor of pixel values'
    )


def blur(pixels: Float[Tensor, "b c *space"], sigma_px: float) -> Float[Tensor, "b c *space"]:
    """Gaussian blur along every spatial axis, borders replicated.

    Args:
        sigma_px: standard deviation in pixels; the kernel reaches three of them.
    """
    radius = max(1, round(3 * sigma_px))
    offsets = torch.arange(-radius, radius + 1, dtype=pixels.dtype, device=pixels.device)
    kernel = torch.exp(-(offsets**2) / (2 * sigma_px**2))
    kernel = kernel / kernel.sum()
    for axis in range(2, pixels.dim()):
        rows = pixels.movedim(axis, -1)
        flat = rows.reshape(-1, 1, rows.shape[-1])
        flat = F.conv1d(F.pad(flat, (radius, radius), mode="replicate"), kernel.view(1, 1, -1))
        pixels = flat.reshape(rows.shape).movedim(-1, axis)
    return pixels
