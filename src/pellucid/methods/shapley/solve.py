"""Choose how a game is solved, and tell what came of it."""

from typing import Annotated, Literal

import numpy as np

from pellucid.core.errors import SettingError
from pellucid.core.receipt import Check
from pellucid.methods.case import Case
from pellucid.methods.shapley import exact as exactly
from pellucid.methods.shapley.exact import exact
from pellucid.methods.shapley.game import Game, Shares
from pellucid.methods.shapley.kernel import kernel
from pellucid.methods.shapley.owen import Tree, owen
from pellucid.methods.shapley.permutations import permutations

EFFICIENT = 1e-9
MOST = 1_000_000  # coalitions of one image

Kind = Literal["auto", "exact", "kernel", "permutation", "partition"]
Samples = Annotated[int, "edits asked at most, for each image; exact asks 2ⁿ of n players whatever this is"]
ErrorFraction = Annotated[
    float, "stop when no standard error is above this part of the score's whole change; 0 uses all samples"
]


def solve(game: Game, kind: Kind, samples: int, error_fraction: float, seed: int, tree: Tree | None = None) -> Shares:
    """The shares of a game's players.

    Args:
        kind: auto is exact up to 12 players and permutation beyond.
        tree: of the players, for partition.

    Raises:
        SettingError: too few or too many samples, a negative error_fraction, or too many players for exact values.
    """
    if not 1 <= samples <= MOST:
        raise SettingError(f"samples={samples} came; use 1 to {MOST:,}")
    if error_fraction < 0:
        raise SettingError(f"error_fraction={error_fraction} came; use 0 or more, such as 0.02")
    random = np.random.default_rng(seed)
    if kind == "exact" or (kind == "auto" and game.players <= exactly.MOST_PLAYERS):
        return exact(game)
    if kind == "kernel":
        return kernel(game, samples=samples, random=random)
    if kind == "partition" and tree is not None:
        return owen(game, tree, samples=samples, error_fraction=error_fraction, random=random)
    return permutations(game, samples=samples, error_fraction=error_fraction, random=random)


def tell(case: Case, image: int, shares: Shares, error_fraction: float) -> None:
    """Put the efficiency residual, and the largest error where there are errors, into an image's receipt."""
    change = shares.full - shares.empty
    words = f"the shares sum to {shares.values.sum():.6g}, the score changed by {change:.6g} from nothing to everything"
    verdict = "pass" if shares.residual <= EFFICIENT else "fail"
    checks = case.checks[image]
    checks.append(Check("efficiency residual", shares.residual, EFFICIENT, verdict, words))
    if shares.errors is None:
        return
    largest = float(shares.errors.max())
    if not change:
        text = "largest standard error, in units of the score, which is the same with nothing and with everything there"
        checks.append(Check("standard error", largest, None, "told", text))
        return
    part = largest / abs(change)
    text = f"largest standard error as a part of the score's whole change, from {shares.how}; smaller with more samples"
    if error_fraction:
        checks.append(Check("standard error", part, error_fraction, "pass" if part <= error_fraction else "warn", text))
    else:
        checks.append(Check("standard error", part, None, "told", text))
