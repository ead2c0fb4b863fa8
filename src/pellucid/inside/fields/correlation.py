"""Which patches go with a unit's activation: no gradient is asked."""

from collections.abc import Callable, Sequence

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import Reach

FEW = 2048  # so many numbers in a patch, and its covariance is inverted as it is
AT_ONCE = 4_000_000  # numbers of patches in memory
RIDGE = 1e-2  # of the mean power, where patches are whitened by frequency
LEAST = 1e-3  # of the largest eigenvalue; in directions with less, patches hardly vary and noise would be all there is


class Correlation:
    """Sums over positions of patches, and of patches times activations.

    Args:
        channels, size: of a patch.
        whiten: keep what the covariance of the patches needs.
    """

    def __init__(self, channels: int, size: tuple[int, ...], whiten: bool) -> None:
        shape, zeros = (channels, *size), lambda *n: torch.zeros(*n, dtype=torch.float64)
        self.size, self.whiten = size, whiten
        self.patch, self.weighted = zeros(*shape), zeros(*shape)
        self.there, self.there_weighted, self.there_absolute = zeros(*size), zeros(*size), zeros(*size)
        self.positions, self.activation, self.absolute = 0, 0.0, 0.0
        count = self.patch.numel()
        self.squares = zeros(count, count) if whiten and count <= FEW else None
        self.power = zeros(*shape) if whiten and count > FEW else None

    def add(
        self, x: Float[Tensor, "c *space"], a: Float[Tensor, "*at"], positions: Sequence[tuple], seen: Reach
    ) -> None:
        """One picture, and what the unit gives for it at some positions."""
        step = max(1, AT_ONCE // self.patch.numel())
        a = a.double().cpu()
        for start in range(0, len(positions), step):
            some = positions[start : start + step]
            found, there = patches(x, [seen.corner(p) for p in some], self.size)
            weights = a[tuple(torch.tensor(some).T)] if a.dim() else a[None]
            self._sum(found.double(), there.double(), weights)

    def _sum(self, found: Tensor, there: Tensor, a: Tensor) -> None:
        self.patch += found.sum(0)
        self.weighted += torch.tensordot(a, found, 1)
        self.there += there.sum(0)
        self.there_weighted += torch.tensordot(a, there, 1)
        self.there_absolute += torch.tensordot(a.abs(), there, 1)
        self.positions += len(a)
        self.activation, self.absolute = self.activation + float(a.sum()), self.absolute + float(a.abs().sum())
        if self.squares is not None:
            flat = found.flatten(1)
            self.squares += flat.T @ flat
        if self.power is not None:
            self.power += torch.fft.fftn(found, dim=self._axes).abs().square().sum(0)

    @property
    def _axes(self) -> tuple[int, ...]:
        return tuple(range(-len(self.size), 0))

    def mean(self, told: Callable[[str], None]) -> Float[Tensor, "c *size"]:
        """`Σ a x / Σ|a| − x̄ Σ a / Σ|a|`, whitened where that was asked for."""
        sizes = self.there_absolute.clamp(min=1e-300)
        found = (self.weighted - self.patch / self.there.clamp(min=1) * self.there_weighted) / sizes
        if self.absolute == 0:
            told("the unit is silent on all of this data")
        if self.squares is not None:
            return self._whitened(found, told)
        if self.power is not None:
            told(f"patches of {self.patch.numel()} numbers were whitened by frequency, each channel by itself")
            return self._by_frequency(found)
        return found

    def _whitened(self, found: Tensor, told: Callable[[str], None]) -> Tensor:
        """`Cov⁻¹` times the correlation."""
        assert self.squares is not None
        mean = (self.patch / max(self.positions, 1)).flatten()
        covariance = self.squares / max(self.positions, 1) - torch.outer(mean, mean)
        if self.positions <= len(mean):
            told(
                f"{self.positions} patches can't fill {len(mean)} dimensions: what they don't vary in counts as nothing"
            )
        return (torch.linalg.pinv(covariance, hermitian=True, rtol=LEAST) @ found.flatten()).view_as(found)

    def _by_frequency(self, found: Tensor) -> Tensor:
        """Divided by the power of the patches at each frequency, which is their covariance if they are stationary."""
        assert self.power is not None
        mean = torch.fft.fftn(self.patch / self.positions, dim=self._axes).abs().square()
        power = (self.power / self.positions - mean).clamp(min=0)
        floor = RIDGE * power.mean(dim=self._axes, keepdim=True)
        return torch.fft.ifftn(torch.fft.fftn(found, dim=self._axes) / (power + floor + 1e-300), dim=self._axes).real
