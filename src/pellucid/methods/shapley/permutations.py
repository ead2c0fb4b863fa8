"""Shapley values from random orders, each with its reverse, until the error bars are short enough."""

from collections.abc import Callable
from math import ceil

import numpy as np
from jaxtyping import Float64, Int64

from pellucid.core.errors import SettingError
from pellucid.methods.shapley.game import Game, Shares, paths

FEWEST_PAIRS = 2  # a standard error needs two
PATIENT_PAIRS = 8  # with fewer, the error is itself too rough to stop by
ROUND = 256  # coalitions asked at a time
Orders = Callable[[int], Int64[np.ndarray, "m n"]]


def needed(players: int) -> int:
    """The fewest coalitions that give values and their errors."""
    return FEWEST_PAIRS * 2 * (players - 1) + 2


def permutations(
    game: Game, *, samples: int, error_fraction: float, random: np.random.Generator, orders: Orders | None = None
) -> Shares:
    """`φ_i = mean over orders π of v(before_π(i) ∪ i) − v(before_π(i))`; orders come in pairs, one the other reversed.

    Every order hands out `v(N) − v(∅)` in full, so the shares are efficient however few there are. The error is the
    standard deviation of the pairs' means over the root of their number.

    Args:
        samples: coalitions asked at most.
        error_fraction: stop when no standard error is above this part of `|v(N) − v(∅)|`; 0 goes on to the end.
        orders: draws so many orders; uniformly among all where None.

    Raises:
        SettingError: fewer samples than two pairs of orders ask.

    Source:
        Štrumbelj & Kononenko 2014, doi:10.1007/s10115-013-0679-x; reversed pairs: Mitchell et al. 2022,
        arXiv:2104.12199 (both from memory).
    """
    n, each = game.players, 2 * (game.players - 1)
    if samples < needed(n):
        raise SettingError(
            f"samples={samples} came; {n} players need {needed(n):,} or more for two pairs of orders; raise samples "
            "or take fewer players"
        )
    draw = orders or (lambda m: random.permuted(np.tile(np.arange(n), (m, 1)), axis=1))
    empty, full = game.ends()
    pairs, most = np.empty((0, n)), (samples - 2) // each
    while len(pairs) < most and not _precise(pairs, error_fraction * abs(full - empty)):
        count = max(ceil(ROUND / each), PATIENT_PAIRS - len(pairs))
        pairs = np.concatenate([pairs, _pairs(game, draw(min(count, most - len(pairs))), empty, full)])
    how = f"{2 * len(pairs):,} orders in reversed pairs, {game.asked:,} coalitions"
    return Shares(pairs.mean(0), _errors(pairs), empty, full, how)


def _pairs(game: Game, orders: np.ndarray, empty: float, full: float) -> Float64[np.ndarray, "m n"]:
    """The mean contribution of every player in each order and its reverse."""
    both = np.concatenate([orders, orders[:, ::-1]])
    inner = paths(both)
    v = game.values(inner.reshape(-1, inner.shape[2])).reshape(inner.shape[:2])
    ends = np.ones((len(both), 1))
    steps = np.diff(np.concatenate([empty * ends, v, full * ends], axis=1), axis=1)
    given = np.empty_like(steps)
    np.put_along_axis(given, both, steps, axis=1)
    return (given[: len(orders)] + given[len(orders) :]) / 2


def _errors(pairs: np.ndarray) -> Float64[np.ndarray, " n"]:
    return pairs.std(0, ddof=1) / np.sqrt(len(pairs))


def _precise(pairs: np.ndarray, bound: float) -> bool:
    return len(pairs) >= PATIENT_PAIRS and bool(_errors(pairs).max() <= bound)
