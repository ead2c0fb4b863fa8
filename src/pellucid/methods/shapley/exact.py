"""Shapley values by their definition: a sum over all coalitions."""

from math import comb

import numpy as np

from pellucid.core.errors import SettingError
from pellucid.methods.shapley.game import Game, Shares, coalitions

MOST_PLAYERS = 12


def exact(game: Game) -> Shares:
    """`φ_i = Σ_{S ∌ i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S))`.

    Raises:
        SettingError: more than 12 players, whose coalitions would be too many to ask.

    Example:
        >>> exact(Game(3, lambda keep: (keep[:, 0] & keep[:, 1]).double())).values.tolist()
        [0.5, 0.5, 0.0]

    Source:
        Shapley 1953, A value for n-person games; Lundberg & Lee 2017, arXiv:1705.07874, equation 4.
    """
    n = game.players
    if n > MOST_PLAYERS:
        raise SettingError(
            f"{n} players came for exact Shapley values, which ask 2ⁿ coalitions ({2**n:,}); use at most "
            f'{MOST_PLAYERS}, or kind="permutation"'
        )
    v = game.values(coalitions(n))
    weight = np.array([1 / (n * comb(n - 1, size)) for size in range(n)])
    rows, found = np.arange(2**n), np.empty(n)
    for i in range(n):
        S = rows[rows >> i & 1 == 0]
        found[i] = (weight[np.bitwise_count(S)] * (v[S | 1 << i] - v[S])).sum()
    return Shares(found, None, float(v[0]), float(v[-1]), f"exact: all {2**n:,} coalitions")
