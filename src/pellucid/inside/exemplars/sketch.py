"""Where the values of many units lie: quantiles of a stream in bounded memory, with a stated error."""

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

KEPT = 2048  # values in each level
RANK_ERROR = 1e-3  # of any quantile's rank, as a fraction of all values, with KEPT values in each level
FIRST = 4  # values that one stands for on the first level
MEMORY_BYTES = 2**30
LEVELS = 10  # about, for a million values


class Sketch:
    """Equal numbers of values of many units, summarised level by level.

    Values are collected until there are enough, sorted, and every s-th of them (with a random start) stands for s
    neighbours: one row of K values. Two rows of one level are merged into one of the next, again by taking every
    second of the sorted values. An error of one step is at most half a weight, its sign is random, so that the errors
    of all steps together have a standard deviation of about 0.7/K of the ranks: 0.00035 for K = 2048. While all values
    fit, they are kept and quantiles are exact.

    Args:
        units: how many units.
        seed: for the random starts.
        kept: K; a power of two.

    Example:
        >>> one = Sketch(1)
        >>> for start in range(0, 100_000, 1000):
        ...     one.add(torch.arange(start, start + 1000.0)[None])
        >>> abs(float(one.quantile(0, 0.25)) - 25_000) < 100
        True

    Source: Agarwal et al. 2012, "Mergeable summaries", PODS, section 3.2 (random merging of equal-weight buffers).
    """

    def __init__(self, units: int, seed: int = 0, kept: int = KEPT) -> None:
        self.units, self.kept = units, kept
        self.count = 0
        self.random = np.random.default_rng(seed)
        self.waiting = np.empty((units, FIRST * kept), np.float32)
        self.filled = 0
        self.levels: dict[int, np.ndarray] = {}  # weight -> K sorted values for each unit

    @property
    def rank_error(self) -> float:
        """How far the rank of a quantile may be off, as a fraction of all values; three standard deviations."""
        return 0.0 if not self.levels else RANK_ERROR * KEPT / self.kept

    def add(self, values: Float[Tensor, "u n"]) -> None:
        """Further values of every unit; a value that is not a number counts as the lowest."""
        rows = values.detach().float().cpu().numpy()
        if not np.isfinite(rows.sum()):
            rows = np.nan_to_num(rows, nan=-np.inf, posinf=np.inf, neginf=-np.inf)
        self.count += rows.shape[1]
        start = 0
        while start < rows.shape[1]:
            part = rows[:, start : start + self.waiting.shape[1] - self.filled]
            self.waiting[:, self.filled : self.filled + part.shape[1]] = part
            start, self.filled = start + part.shape[1], self.filled + part.shape[1]
            if self.filled == self.waiting.shape[1]:
                self._settle()

    def quantile(self, unit: int, q: float | np.ndarray) -> np.ndarray:
        """The value below which a fraction q of the unit's values lies: the linear one where all values are kept."""
        if not self.levels:
            return np.asarray(np.quantile(self._weighted(unit)[0], q))
        values, upto = self._ranked(unit)
        middles = upto - np.diff(upto, prepend=0) / 2
        return np.asarray(np.interp(np.asarray(q, float) * self.count, middles, values))

    def below(self, unit: int, value: float | np.ndarray) -> np.ndarray:
        """The fraction of the unit's values that lie below one; of equal ones half counts."""
        values, upto = self._ranked(unit)
        edges = np.concatenate([[0], upto])
        left, right = (np.searchsorted(values, value, side) for side in ("left", "right"))
        return np.asarray((edges[left] + edges[right]) / 2 / self.count)

    def histogram(self, unit: int, bins: int = 64) -> tuple[np.ndarray, np.ndarray]:
        """Counts and edges of equally wide bins from the lowest to the highest value."""
        values, weights = self._weighted(unit)
        finite = np.isfinite(values)
        if not finite.any():
            return np.zeros(bins, np.int64), np.linspace(0, 1, bins + 1)
        counts, edges = np.histogram(values[finite], bins, weights=weights[finite])
        return np.rint(counts).astype(np.int64), edges

    def state(self) -> tuple[dict[str, Tensor], dict]:
        """Everything it holds, as tensors and JSON values."""
        tensors = {f"level.{weight}": torch.from_numpy(rows) for weight, rows in self.levels.items()}
        tensors["waiting"] = torch.from_numpy(self.waiting[:, : self.filled].copy())
        return tensors, {"count": self.count, "kept": self.kept, "random": self.random.bit_generator.state}

    @classmethod
    def of(cls, units: int, tensors: dict[str, Tensor], facts: dict) -> "Sketch":
        """What `state` gave."""
        found = cls(units, kept=facts["kept"])
        found.count = facts["count"]
        found.random.bit_generator.state = facts["random"]
        found.filled = tensors["waiting"].shape[1]
        found.waiting[:, : found.filled] = tensors["waiting"].numpy()
        found.levels = {int(n.partition(".")[2]): t.numpy() for n, t in tensors.items() if n.startswith("level.")}
        return found

    def _settle(self) -> None:
        """Turn what waits into one row of K values that stand for four each."""
        self.waiting.sort(axis=1)
        self._put(FIRST, np.ascontiguousarray(self.waiting[:, int(self.random.integers(FIRST)) :: FIRST]))
        self.filled = 0

    def _put(self, weight: int, row: np.ndarray) -> None:
        while weight in self.levels:
            both = np.sort(np.concatenate([self.levels.pop(weight), row], 1), axis=1)
            row, weight = np.ascontiguousarray(both[:, int(self.random.integers(2)) :: 2]), 2 * weight
        self.levels[weight] = row

    def _weighted(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        """All values that are kept for a unit, and for how many each stands."""
        parts = [(self.waiting[unit, : self.filled], 1), *((rows[unit], w) for w, rows in self.levels.items())]
        values = np.concatenate([part for part, _ in parts]).astype(np.float64)
        return values, np.concatenate([np.full(len(part), w, np.float64) for part, w in parts])

    def _ranked(self, unit: int) -> tuple[np.ndarray, np.ndarray]:
        """The values in order, and for each how many values lie up to it."""
        values, weights = self._weighted(unit)
        order = np.argsort(values, kind="stable")
        return values[order], np.cumsum(weights[order])


def affordable(units: int) -> int:
    """K for so many units: 2048, or a lower power of two where two sketches of each would not fit into memory."""
    kept = KEPT
    while kept > 64 and 2 * units * kept * 4 * (FIRST + LEVELS) > MEMORY_BYTES:
        kept //= 2
    return kept
