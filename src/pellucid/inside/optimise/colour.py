"""Colours without correlation: the axes along which the channels of real pictures vary independently."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import SettingError
from pellucid.images.datasets import Pictures
from pellucid.inside.optimise.space import Space, few

NATURAL = ((0.26, 0.09, 0.02), (0.27, 0.00, -0.05), (0.27, -0.09, 0.03))
LEAST_VARIANCE = 1e-6
PLAIN_STD = 0.25


@dataclass(frozen=True, eq=False)
class Colours:
    """`u = M z`: from independent values z to the channels of pixels.

    Attributes:
        matrix: M, a square root of the covariance of the channels, `M Mᵀ = Σ`, in units of [0, 1] pixels.
        words: where it comes from.
    """

    matrix: Float[Tensor, "c c"]
    words: str

    @property
    def scaled(self) -> Float[Tensor, "c c"]:
        """`M / max_k ‖M_·k‖`: one channel gives 1."""
        return self.matrix / self.matrix.norm(dim=0).max()

    def mix(self, z: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """`M z / ‖M‖` at every pixel."""
        return F.conv2d(z, self.scaled.to(z)[:, :, None, None])

    def part(self, u: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """The inverse of `mix`."""
        return F.conv2d(u, torch.linalg.inv(self.scaled.double()).to(u)[:, :, None, None])


def colours(given: Any, space: Space, data: Pictures | None) -> Colours:
    """The colours that are asked for: from data, a matrix, `"imagenet"`, `"none"`, or by default the best there is.

    Source: Olah, Mordvintsev & Schubert 2017, Distill, "Feature visualization" (the matrix of natural pictures).

    Raises:
        SettingError: a matrix of another size, or "imagenet" for a network without three channels.
    """
    count = space.channels
    if isinstance(given, Tensor | np.ndarray) and given.shape == (count, count):
        return Colours(_regular(torch.as_tensor(given).detach().float().cpu()), "the matrix that was given")
    if isinstance(given, str) and given == "imagenet" and count != 3:
        raise SettingError(f'colour="imagenet" is for three channels; this network has {count}; give data')
    if given is not None and not (isinstance(given, str) and given in ("imagenet", "none")):
        raise SettingError(f'colour is None, "imagenet", "none" or a {count} × {count} tensor, not {_came(given)}')
    if given is None and data is not None:
        return of_pictures([space.pixels(x[None])[0] for x in few(data)])
    if count == 3 and given != "none" and (given == "imagenet" or space.preprocess is not None):
        return Colours(torch.tensor(NATURAL), "colours of natural pictures in general, as no data are given")
    plain = "one channel" if count == 1 else "the channels vary alike and independently, as no data are given"
    return Colours(PLAIN_STD * torch.eye(count), plain)


def _came(given: Any) -> str:
    return f"one of shape {tuple(given.shape)}" if isinstance(given, Tensor | np.ndarray) else repr(given)


def of_pictures(examples: list[Tensor]) -> Colours:
    """`M = U √S` from the covariance `Σ = U S Uᵀ` of the pixels of all pictures."""
    flat = [e.flatten(1).double() for e in examples]
    count = sum(f.shape[1] for f in flat)
    mean = sum((f.sum(1) for f in flat), torch.zeros(len(flat[0]), dtype=torch.float64)) / count
    second = sum((f @ f.T for f in flat), torch.zeros(len(mean), len(mean), dtype=torch.float64)) / count
    words = f"colours of {len(examples)} pictures of the data"
    return Colours(root(second - mean[:, None] * mean), words)


def root(covariance: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    """`U √S`, strongest axis first, each axis signed so that its entries sum to no less than zero."""
    size, axes = torch.linalg.eigh(covariance.double())
    strongest = float(size.max().clamp(min=LEAST_VARIANCE))
    axes, size = axes.flip(1), size.flip(0).clamp(min=LEAST_VARIANCE * strongest)
    signs = torch.where(axes.sum(0) < 0, -1.0, 1.0)
    return (axes * signs * size.sqrt()).float()


def _regular(matrix: Float[Tensor, "c c"]) -> Float[Tensor, "c c"]:
    if not torch.isfinite(matrix).all() or float(torch.linalg.matrix_rank(matrix)) < len(matrix):
        raise SettingError("the colour matrix must be finite and invertible")
    return matrix
