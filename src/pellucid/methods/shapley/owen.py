"""Owen values: shares by orders that never leave a branch of a tree of players before it is finished."""

from typing import Any

import numpy as np
from jaxtyping import Bool, Float, Int64

from pellucid.methods.shapley.game import Game, Shares
from pellucid.methods.shapley.permutations import permutations

Tree = int | tuple[Any, Any]  # a player, or two branches, each a tree
MOST_ROWS = 400_000  # coalitions written down to see how many differ


def split_tree(centres: Float[np.ndarray, "n axes"]) -> Tree:
    """A tree of regions by their places: halved again and again at the median along the longest side.

    Args:
        centres: the middle of each region, px.
    """

    def split(members: np.ndarray) -> Tree:
        if len(members) == 1:
            return int(members[0])
        places = centres[members]
        axis = int(np.ptp(places, axis=0).argmax())
        ordered = members[np.argsort(places[:, axis], kind="stable")]
        middle = (len(members) + 1) // 2
        return split(ordered[:middle]), split(ordered[middle:])

    return split(np.arange(len(centres)))


def owen(game: Game, tree: Tree, *, samples: int, error_fraction: float, random: np.random.Generator) -> Shares:
    """`φ_i = mean over the tree's orders π of v(before_π(i) ∪ i) − v(before_π(i))`.

    The tree's orders finish one branch before they begin its sibling, either first. So a player meets, at each branch
    above it, the sibling wholly there or wholly away: `2^depth` contexts, all asked where `samples` suffices; else
    orders are drawn, as for `permutations`, with error bars.

    Source:
        Owen 1977, Values of games with a priori unions; several levels: Winter 1989, International Journal of Game
        Theory 18, 227-240 (both from memory). SHAP's partition explainer walks such a tree too, opening the largest
        branches first and sharing the rest evenly; here nothing is shared evenly, and errors are given instead.
    """
    found = contexts(tree, game.players, MOST_ROWS)
    if found is not None:
        leaf, without = found
        joined = without.copy()
        joined[np.arange(len(leaf)), leaf] = True
        asked = len(np.unique(np.packbits(np.concatenate([without, joined]), axis=1), axis=0))
        if asked <= samples:
            added = game.values(np.concatenate([joined, without]))
            added = added[: len(leaf)] - added[len(leaf) :]
            values = np.bincount(leaf, added, game.players) / np.bincount(leaf, minlength=game.players)
            return Shares(values, None, *game.ends(), f"exact over the tree: all {asked:,} coalitions")
    drawn = lambda count: orders(tree, count, random)  # noqa: E731
    return permutations(game, samples=samples, error_fraction=error_fraction, random=random, orders=drawn)


def contexts(tree: Tree, players: int, most: int) -> tuple[Int64[np.ndarray, " m"], Bool[np.ndarray, "m n"]] | None:
    """Every player with each coalition that it can meet; None where there are more than `most`."""
    leaves: list[np.ndarray] = []
    met: list[np.ndarray] = []
    waiting = [(tree, np.zeros((1, players), dtype=bool))]
    rows = 0
    while waiting:
        branch, before = waiting.pop()
        rows += len(before)
        if rows > most:
            return None
        if isinstance(branch, int):
            leaves.append(np.full(len(before), branch))
            met.append(before)
            continue
        for one, other in (branch, branch[::-1]):
            there = before.copy()
            there[:, members(other)] = True
            waiting.append((one, np.concatenate([before, there])))
    return np.concatenate(leaves), np.concatenate(met)


def members(tree: Tree) -> list[int]:
    """The players of a branch."""
    return [tree] if isinstance(tree, int) else [*members(tree[0]), *members(tree[1])]


def orders(tree: Tree, count: int, random: np.random.Generator) -> Int64[np.ndarray, "m n"]:
    """Random orders that finish each branch before they begin its sibling."""
    if isinstance(tree, int):
        return np.full((count, 1), tree)
    first, second = orders(tree[0], count, random), orders(tree[1], count, random)
    swapped = random.random(count)[:, None] < 0.5
    return np.where(swapped, np.concatenate([second, first], axis=1), np.concatenate([first, second], axis=1))
