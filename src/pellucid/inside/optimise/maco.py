"""MACO: phases alone are changed, the amount of every frequency stays as it is in real pictures."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.images.datasets import Pictures
from pellucid.inside.optimise.canvases import frequencies
from pellucid.inside.optimise.colour import Colours
from pellucid.inside.optimise.space import Space, few
from pellucid.inside.optimise.transforms import looked_at

SLOPE = 4.0  # of the logit at ½: contrast before the sigmoid for contrast 1 behind it
FAINT_PERCENTILE = 80


@dataclass(frozen=True)
class Maco:
    """Settings of MACO.

    Attributes:
        crops: looks per step.
        first_side, last_side: side of the crops in the first and the last step, as a part of the picture's (0.5 and
            0.05 in the authors' code, which makes many small features and nothing on networks of 32 px).
        noise: deviation of what is added to every crop, in [0, 1] pixels.
        learning_rate: of NAdam, on the phases.

    Source: Fel et al. 2023, arXiv:2306.06805, "Unlocking feature visualization for deeper networks with MACO".
    """

    crops: int = 8
    first_side: float | int = 0.8
    last_side: float | int = 0.25
    noise: float | int = 0.08
    learning_rate: float | int = 1.0

    def __post_init__(self) -> None:
        sides = 0 < min(self.first_side, self.last_side) <= max(self.first_side, self.last_side) <= 1
        if self.crops < 1 or not sides or self.noise < 0 or self.learning_rate <= 0:
            raise SettingError(f"crops is at least 1, sides lie in (0, 1], noise is at least 0; {self} came")


class Phases:
    """`u = σ(4 M z)`, `z = irfft2(r e^{i ψ})`, where ψ is the standardised φ, made odd where real pictures need it.

    A real picture has `F(−k) = F(k)*`; in the first column of its half spectrum, and in the last one where the width
    is even, that ties entries to one another. There the phases are made odd, `(φ(k) − φ(−k)) / √2`, and 0 or π (as
    they were drawn) where k = −k; so `|rfft2(z)| = r` everywhere.

    Args:
        random: one generator per picture.
        amount: r, (c, h, k); see `amounts`.
    """

    def __init__(
        self,
        random: Sequence[torch.Generator],
        amount: Float[Tensor, "c h k"],
        size_px: tuple[int, int],
        colours: Colours,
        home: Tensor,
    ) -> None:
        self.size_px, self.matrix = size_px, (SLOPE * colours.matrix).to(home)[:, :, None, None]
        self.amount = amount.to(home)
        drawn = [torch.randn(amount.shape, generator=g, dtype=torch.float64) for g in random]
        self.phase = torch.stack(drawn).to(home).requires_grad_()
        self.parameters = [self.phase]
        self.columns = [0, size_px[1] // 2] if size_px[1] % 2 == 0 else [0]
        self.opposite = (-torch.arange(size_px[0])) % size_px[0]
        self.own = [k for k in range(size_px[0]) if (-k) % size_px[0] == k]
        self.fixed = torch.where(self.phase.detach() < 0, torch.pi, 0.0)

    def spectrum(self) -> Tensor:
        """`r e^{i ψ}`, (n, c, h, k), complex."""
        phi = self.phase.flatten(1)
        deviation, mean = torch.std_mean(phi, dim=1, keepdim=True)
        phi = ((phi - mean) / deviation).view_as(self.phase)
        edge = phi[..., self.columns]
        odd = (edge - edge[:, :, self.opposite]) * 0.5**0.5
        psi = phi.index_copy(3, torch.tensor(self.columns, device=phi.device), odd)
        held = torch.zeros(self.phase.shape[2:], dtype=torch.bool, device=phi.device)
        for column in self.columns:
            held[self.own, column] = True
        return torch.polar(self.amount.expand_as(psi), torch.where(held, self.fixed.to(psi), psi))

    def pixels(self) -> Float[Tensor, "n c h w"]:
        z = torch.fft.irfft2(self.spectrum(), s=self.size_px)
        return torch.sigmoid(torch.nn.functional.conv2d(z, self.matrix))


class Crops:
    """Every step sees random crops of every picture, enlarged to the network's input, with noise.

    Args:
        random: one generator per picture.
        steps: over which the side of the crops goes from the first to the last.
        size_px: of the network's input.
    """

    def __init__(self, settings: Maco, random: Sequence[torch.Generator], steps: int, size_px: tuple[int, int]) -> None:
        self.settings, self.random, self.steps, self.size_px = settings, random, steps, size_px
        self.looks = settings.crops

    def __call__(self, pixels: Tensor, step: int) -> Tensor:
        s, done = self.settings, step / max(self.steps - 1, 1)
        drawn = torch.stack([torch.randn(s.crops, 3, generator=g, dtype=torch.float64) for g in self.random], 1)
        side = (s.first_side + (s.last_side - s.first_side) * done + 0.05 * drawn[..., 0]).clamp(0.05, 1).flatten()
        centre = (0.15 * drawn[..., 1:]).clamp(-0.5, 0.5).flatten(0, 1)
        room = (1 - side[:, None]) / 2
        shift = 2 * torch.minimum(torch.maximum(centre, -room), room)
        zero = torch.zeros_like(side)
        rows = [torch.stack([side, zero, shift[:, 0]], 1), torch.stack([zero, side, shift[:, 1]], 1)]
        crops = looked_at(pixels.repeat(s.crops, 1, 1, 1), torch.stack(rows, 1), self.size_px)
        return crops + self._noise(crops)

    def _noise(self, crops: Tensor) -> Tensor:
        shape = (self.settings.crops, *crops.shape[1:])
        each = []
        for g in self.random:
            normal, even = torch.randn(shape, generator=g), torch.rand(shape, generator=g) - 0.5
            each.append(self.settings.noise * (normal + even))
        return torch.stack(each, 1).flatten(0, 1).to(crops)


def amounts(
    space: Space, colours: Colours, size_px: tuple[int, int], data: Pictures | None
) -> tuple[Float[Tensor, "c h k"], str]:
    """r: how much of each frequency the data hold, per independent colour, and in words where it comes from.

    The mean over pictures of `|rfft2(M⁻¹ (u − ū))|`, read at the frequencies (cycles per pixel) of the canvas, or
    `1 / f` without data; scaled so that z has deviation 1. There is no constant part.
    """
    if data is None:
        least = 1 / max(size_px)
        found = (1 / frequencies(*size_px).clamp(min=least)).expand(space.channels, -1, -1)
        words = "amounts of frequencies as 1/f, as no data are given"
    else:
        examples = [space.pixels(x[None])[0].double() for x in few(data)]
        found = torch.stack([_amount(e, colours, size_px) for e in examples]).mean(0)
        words = f"amounts of frequencies of {len(examples)} pictures of the data"
    return _scaled(_even(found.clone(), size_px), size_px), words


def _amount(picture: Float[Tensor, "c h w"], colours: Colours, size_px: tuple[int, int]) -> Float[Tensor, "c y k"]:
    flat = picture.flatten(1)
    z = torch.linalg.solve(colours.matrix.double(), flat - flat.mean(1, keepdim=True)).view_as(picture)
    found = torch.fft.rfft2(z, norm="ortho").abs()
    found[:, 0, 0] = (found[:, 0, min(1, found.shape[2] - 1)] + found[:, min(1, found.shape[1] - 1), 0]) / 2
    down = _between(np.fft.fftfreq(picture.shape[1]), np.fft.fftfreq(size_px[0]))
    across = _between(np.fft.rfftfreq(picture.shape[2]), np.fft.rfftfreq(size_px[1]))
    return down @ found @ across.T


def _between(have: np.ndarray, want: np.ndarray) -> Float[Tensor, "want have"]:
    """Weights of linear interpolation from values at some frequencies to values at others."""
    order = np.argsort(have)
    columns = [np.interp(want, have[order], np.eye(len(have))[order, k]) for k in range(len(have))]
    return torch.from_numpy(np.stack(columns, 1))


def _even(amount: Float[Tensor, "c h k"], size_px: tuple[int, int]) -> Float[Tensor, "c h k"]:
    """As much of −k as of k, as in every real picture, and nothing constant."""
    opposite = (-torch.arange(size_px[0])) % size_px[0]
    for column in {0, size_px[1] // 2} if size_px[1] % 2 == 0 else {0}:
        amount[:, :, column] = (amount[:, :, column] + amount[:, opposite, column]) / 2
    amount[:, 0, 0] = 0
    return amount


def _scaled(amount: Float[Tensor, "c h k"], size_px: tuple[int, int]) -> Float[Tensor, "c h k"]:
    """So that a picture of these amounts has deviation 1 over all channels (Parseval)."""
    h, w = size_px
    twice = torch.full((amount.shape[2],), 2.0, dtype=amount.dtype)
    twice[0] = 1
    if w % 2 == 0:
        twice[-1] = 1
    power = (amount.square() * twice).sum() / (amount.shape[0] * (h * w) ** 2)
    return amount / power.sqrt().clamp(min=1e-12)


def opacity(strength: Float[Tensor, "n h w"]) -> Float[np.ndarray, "n h w"]:
    """How opaque each pixel is: what pulled at it over all steps, 1 from the 80th percentile on."""
    flat = strength.flatten(1).float()
    top = flat.quantile(FAINT_PERCENTILE / 100, dim=1).clamp(min=1e-30)
    return (strength / top[:, None, None]).clamp(0, 1).cpu().numpy()
