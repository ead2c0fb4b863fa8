"""Means over many pictures, kept as running sums."""

from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Float, Float64
from torch import Tensor

AT_ONCE = 2**22


@dataclass(eq=False)
class Tally:
    """The mean of everything that was added, and its standard error, without keeping any of it.

    Example:
        >>> import torch
        >>> tally = Tally()
        >>> tally.add(torch.tensor([[1.0], [3.0]]))
        >>> tally.mean.item(), tally.error.item(), tally.count
        (2.0, 1.0, 2)

    Source: Chan, Golub & LeVeque 1983, "Algorithms for computing the sample variance", equation 1.5.
    """

    count: int = 0
    _mean: Tensor | None = None
    _squares: Tensor | None = None

    def add(self, rows: Float[Tensor, "b ..."]) -> None:
        """Some pictures' numbers, one row each; a few rows at a time where they are long."""
        for part in rows.detach().split(max(1, AT_ONCE // max(1, rows[0].numel()))):
            self._add(part.double())

    def _add(self, rows: Float[Tensor, "b ..."]) -> None:
        mean, n = rows.mean(0), len(rows)
        squares = ((rows - mean) ** 2).sum(0)
        if self._mean is None or self._squares is None:
            self._mean, self._squares, self.count = mean, squares, n
            return
        total, apart = self.count + n, mean - self._mean
        self._mean = self._mean + apart * (n / total)
        self._squares = self._squares + squares + apart**2 * (self.count * n / total)
        self.count = total

    @property
    def mean(self) -> Float64[np.ndarray, "..."]:
        return np.zeros(0) if self._mean is None else self._mean.cpu().numpy()

    @property
    def error(self) -> Float64[np.ndarray, "..."]:
        """The standard error of the mean; NaN for a single picture."""
        if self._squares is None or self.count < 2:
            return np.full_like(self.mean, np.nan)
        return (self._squares / (self.count - 1) / self.count).sqrt().cpu().numpy()


def known(value: Any) -> float | None:
    """A number for a table or for JSON; None where it is none."""
    return float(value) if np.isfinite(value) else None
