"""Shapley values as the best weighted linear fit to what coalitions are worth."""

from dataclasses import dataclass
from itertools import combinations
from math import comb

import numpy as np
from jaxtyping import Bool, Float64

from pellucid.core.errors import SettingError
from pellucid.methods.shapley.game import Game, Shares

GROUPS = 20  # left out in turn for the errors


@dataclass(frozen=True)
class Design:
    """Coalitions to ask with their weights: some sizes whole, then random pairs of a coalition and its complement.

    Attributes:
        whole: coalitions of sizes that are asked completely, and `weight` of each.
        drawn: `(pairs, 2, n)` random ones, each of weight `share`.
    """

    whole: Bool[np.ndarray, "m n"]
    weight: Float64[np.ndarray, " m"]
    drawn: Bool[np.ndarray, "p 2 n"]
    share: float


def needed(players: int) -> int:
    """The fewest coalitions: all if they are few, else those that lack or have one player, and as many drawn ones."""
    return min(2**players, 4 * players)


def kernel(game: Game, *, samples: int, random: np.random.Generator) -> Shares:
    """`φ = argmin Σ_S π(S) (v(S) − v(∅) − Σ_{i ∈ S} φ_i)²` so that `Σ φ = v(N) − v(∅)`.

    `π(S) = (n − 1) / (C(n, |S|) |S| (n − |S|))`. Sizes that the samples can cover are asked completely, from the
    smallest and largest inwards; the rest is drawn by its weight, in pairs of a coalition and its complement. With all
    coalitions the values are exact; else errors come from leaving out a twentieth of the pairs in turn.

    Raises:
        SettingError: fewer samples than `needed`.

    Source:
        Lundberg & Lee 2017, arXiv:1705.07874, theorem 2; pairs and constraint: Covert & Lee 2021, arXiv:2012.01536
        (from memory). Here sizes 1 and n − 1 are always whole, so that the fit has one solution.
    """
    if samples < needed(game.players):
        raise SettingError(
            f"samples={samples} came; Kernel SHAP of {game.players} players needs {needed(game.players):,} or more"
        )
    plan = design(game.players, samples - 2, random)
    empty, full = game.ends()
    n, pairs = game.players, len(plan.drawn)
    everything = np.concatenate([plan.whole, plan.drawn.reshape(-1, n)])
    y = game.values(everything) - empty
    fixed = _moments(plan.whole, plan.weight, y[: len(plan.whole)])
    if not pairs:
        return Shares(_solve(fixed, full - empty), None, empty, full, f"exact fit to all {game.asked:,} coalitions")
    worth = y[len(plan.whole) :].reshape(pairs, 2)
    groups = [_drawn_moments(plan, worth, part) for part in np.array_split(np.arange(pairs), min(GROUPS, pairs))]
    total = sum(groups)
    found = _solve(fixed + total, full - empty)
    sizes = [len(part) for part in np.array_split(np.arange(pairs), len(groups))]
    left_out = np.stack(
        [
            _solve(fixed + (total - part) * (pairs / (pairs - size)), full - empty)
            for part, size in zip(groups, sizes, strict=True)
        ]
    )
    errors = np.sqrt((len(groups) - 1) / len(groups) * ((left_out - left_out.mean(0)) ** 2).sum(0))
    return Shares(found, errors, empty, full, f"weighted fit to {game.asked:,} coalitions")


def design(players: int, samples: int, random: np.random.Generator) -> Design:
    """Which coalitions, neither empty nor full, are asked.

    Args:
        samples: how many at most.
    """
    n, left = players, samples
    mass = {size: (n - 1) / (size * (n - size)) * (1 if 2 * size == n else 2) for size in range(1, n // 2 + 1)}
    whole: list[np.ndarray] = []
    weight: list[np.ndarray] = []
    while mass:
        size = min(mass)
        count = comb(n, size) * (1 if 2 * size == n else 2)
        if whole and count > left * mass[size] / sum(mass.values()):
            break
        whole.append(_of_size(n, size))
        weight.append(np.full(count, mass.pop(size) / count))
        left -= count
    pairs = left // 2 if mass else 0
    drawn = _draw(n, mass, pairs, random) if pairs else np.empty((0, 2, n), dtype=bool)
    share = sum(mass.values()) / (2 * pairs) if pairs else 0.0
    return Design(np.concatenate(whole), np.concatenate(weight), drawn, share)


def _of_size(n: int, size: int) -> np.ndarray:
    """All coalitions of a size, and their complements where those have another size."""
    chosen = np.array(list(combinations(range(n), size)))
    keep = np.zeros((len(chosen), n), dtype=bool)
    np.put_along_axis(keep, chosen, True, axis=1)
    return keep if 2 * size == n else np.concatenate([keep, ~keep])


def _draw(n: int, mass: dict[int, float], pairs: int, random: np.random.Generator) -> np.ndarray:
    weights = np.array(list(mass.values()))
    sizes = random.choice(np.array(list(mass)), size=pairs, p=weights / weights.sum())
    rank = random.permuted(np.tile(np.arange(n), (pairs, 1)), axis=1)
    keep = rank < sizes[:, None]
    return np.stack([keep, ~keep], axis=1)


def _drawn_moments(plan: Design, worth: np.ndarray, part: np.ndarray) -> np.ndarray:
    rows = plan.drawn[part].reshape(-1, plan.drawn.shape[2])
    return _moments(rows, np.full(len(rows), plan.share), worth[part].reshape(-1))


def _moments(keep: np.ndarray, weight: np.ndarray, y: np.ndarray) -> np.ndarray:
    """`Zᵀ W Z` and behind it, as one more column, `Zᵀ W y`."""
    z = keep.astype(np.float64)
    weighted = z * weight[:, None]
    return np.concatenate([weighted.T @ z, (weighted.T @ y)[:, None]], axis=1)


def _solve(moments: np.ndarray, total: float) -> np.ndarray:
    """The minimum with `Σ φ = total`: `A φ = b + λ 1`."""
    a, b = moments[:, :-1], moments[:, -1]
    free, ones = np.linalg.solve(a, np.stack([b, np.ones_like(b)], axis=1)).T
    return free + ones * (total - free.sum()) / ones.sum()
