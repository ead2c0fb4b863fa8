"""Shapley values and their relatives, by the definitions. A game v gives a number to every set of players 0 … n−1.

Shapley 1953; Owen 1977, Winter 1989 (several levels); Grabisch & Roubens 1999 (interaction); Lundberg & Lee 2017
(the regression). Sets are frozensets, so v may be any function of one; `game` makes one from a network and regions.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from math import comb, factorial, sqrt
from typing import Any

import torch
from torch import Tensor, nn

from .occlusion import Network, ask, cover

Game = Callable[[frozenset[int]], float]
D = torch.float64


def remember(v: Game) -> Game:
    """The same game, asked once for each set."""
    known: dict[frozenset[int], float] = {}

    def value(players: frozenset[int]) -> float:
        if players not in known:
            known[players] = v(players)
        return known[players]

    return value


def game(f: Network, x: Tensor, labels: Tensor, paint: Tensor, target: int) -> Game:
    """v(S): the score when the regions outside S are painted over; label −1 is never covered."""

    def value(shown: frozenset[int]) -> float:
        hidden = labels >= 0
        for region in shown:
            hidden = hidden & (labels != region)
        return ask(f, cover(x, hidden, paint), target)

    return remember(value)


def channel_game(head: Network, A: Tensor, target: int, off: Tensor | None = None) -> Game:
    """v(S): the score of the rest of the network when the channels of A `(channels, *space)` outside S are off.

    `off`, shaped as A, is what a channel then holds; zeros by default.
    """
    away = torch.zeros_like(A) if off is None else off

    def value(kept: frozenset[int]) -> float:
        return ask(head, torch.stack([A[k] if k in kept else away[k] for k in range(len(A))]), target)

    return remember(value)


def layer_game(model: nn.Module, x: Tensor, target: int, layers: Sequence[str], mean: bool = False) -> Game:
    """v(S): the score when the modules outside S give out zeros, whatever comes in (one picture, by forward hooks).

    With `mean` they give out each channel's mean over the cells of what they give out for the untouched picture.
    """
    usual: dict[str, Tensor] = {}

    def note(name: str) -> Callable[..., None]:
        return lambda module, inputs, output: usual.update({name: output.detach().clone()})

    def put(name: str) -> Callable[..., Tensor]:
        whole = usual[name]
        cells = tuple(range(2, whole.ndim))
        return lambda module, inputs, output: (
            whole.mean(cells, keepdim=True).expand_as(whole) if mean else torch.zeros_like(whole)
        )

    def run(hooks: dict[str, Callable[..., Any]]) -> float:
        handles = [model.get_submodule(name).register_forward_hook(hook) for name, hook in hooks.items()]
        try:
            return ask(model, x, target)
        finally:
            for handle in handles:
                handle.remove()

    run({name: note(name) for name in layers})
    return remember(lambda on: run({name: put(name) for i, name in enumerate(layers) if i not in on}))


def subsets(players: Sequence[int]) -> Iterator[frozenset[int]]:
    """Every subset, the small ones first."""
    for size in range(len(players) + 1):
        yield from map(frozenset, itertools.combinations(players, size))


# --------------------------------------------------------------------------------------------------------- the values


def exact(v: Game, n: int) -> list[float]:
    """φ_i = Σ_{S ⊆ N∖i} |S|! (n − |S| − 1)! / n! · (v(S ∪ i) − v(S))."""
    values = []
    for i in range(n):
        total = 0.0
        for rest in subsets([j for j in range(n) if j != i]):
            weight = factorial(len(rest)) * factorial(n - len(rest) - 1) / factorial(n)
            total += weight * (v(rest | {i}) - v(rest))
        values.append(total)
    return values


def steps(v: Game, order: Sequence[int]) -> list[float]:
    """What each player adds when they come in this order, listed by player."""
    gains = [0.0] * len(order)
    for place, player in enumerate(order):
        before = frozenset(order[:place])
        gains[player] = v(before | {player}) - v(before)
    return gains


def by_orders(v: Game, orders: Sequence[Sequence[int]]) -> list[float]:
    """The mean of what each adds over the orders: exact for all n! orders, Castro et al. 2009's estimate for some."""
    return [sum(column) / len(orders) for column in zip(*(steps(v, order) for order in orders), strict=True)]


def all_orders(n: int) -> list[tuple[int, ...]]:
    return list(itertools.permutations(range(n)))


def standard_errors(draws: Sequence[Sequence[float]]) -> list[float]:
    """√(Σ (d − mean)² / (m − 1) / m) for each player, over m independent draws."""
    m, found = len(draws), []
    for column in zip(*draws, strict=True):
        mean = sum(column) / m
        found.append(sqrt(sum((d - mean) ** 2 for d in column) / (m - 1) / m))
    return found


def interaction(v: Game, n: int, i: int, j: int) -> float:
    """Grabisch & Roubens: Σ_{S ⊆ N∖ij} |S|! (n − |S| − 2)! / (n − 1)! · (v(S∪ij) − v(S∪i) − v(S∪j) + v(S)).

    TreeSHAP's interaction values (Lundberg et al. 2020) are half of it, one for (i, j), one for (j, i). SHAP's exact
    explainer gives another index, Shapley-Taylor's.
    """
    total = 0.0
    for rest in subsets([k for k in range(n) if k not in (i, j)]):
        weight = factorial(len(rest)) * factorial(n - len(rest) - 2) / factorial(n - 1)
        total += weight * (v(rest | {i, j}) - v(rest | {i}) - v(rest | {j}) + v(rest))
    return total


# ------------------------------------------------------------------------------------------------------ KernelSHAP


def kernel_weight(n: int, size: int) -> float:
    """π(S) = (n − 1) / (C(n, |S|) · |S| · (n − |S|)), for 0 < |S| < n."""
    return (n - 1) / (comb(n, size) * size * (n - size))


def constrained_regression(rows: Tensor, values: Tensor, weights: Tensor, empty: float, full: float) -> Tensor:
    """φ that minimises Σ_r w_r (empty + Σ_i z_ri φ_i − y_r)² among those with Σ φ_i = full − empty.

    By Lagrange: [2 ZᵀWZ, 1; 1ᵀ, 0] [φ; λ] = [2 ZᵀW (y − empty); full − empty]. rows (r, n) of 0 and 1.
    """
    n = rows.shape[1]
    left, right = torch.zeros(n + 1, n + 1, dtype=D), torch.zeros(n + 1, dtype=D)
    for z, y, w in zip(rows.to(D), values.to(D), weights.to(D), strict=True):
        left[:n, :n] += 2 * w * torch.outer(z, z)
        right[:n] += 2 * w * z * (y - empty)
    left[:n, n], left[n, :n], right[n] = 1, 1, full - empty
    return torch.linalg.solve(left, right)[:n]


def kernel(v: Game, n: int) -> list[float]:
    """KernelSHAP over all 2ⁿ − 2 coalitions: equal to the Shapley values (Lundberg & Lee, theorem 2)."""
    sets = [s for s in subsets(range(n)) if 0 < len(s) < n]
    rows = torch.tensor([[float(i in s) for i in range(n)] for s in sets], dtype=D)
    weights = torch.tensor([kernel_weight(n, len(s)) for s in sets], dtype=D)
    values = torch.tensor([v(s) for s in sets], dtype=D)
    return constrained_regression(rows, values, weights, v(frozenset()), v(frozenset(range(n)))).tolist()


# ------------------------------------------------------------------------------------------------------------- Owen


def leaves(tree: Any) -> list[int]:
    """The players of a tree of nested tuples, e.g. ((0, 1), 2)."""
    return [tree] if isinstance(tree, int) else [player for branch in tree for player in leaves(branch)]


def tree_orders(tree: Any) -> list[list[int]]:
    """All orders in which the players of every branch come one right after the other."""
    if isinstance(tree, int):
        return [[tree]]
    found = []
    for arranged in itertools.permutations(tree):
        for parts in itertools.product(*(tree_orders(branch) for branch in arranged)):
            found.append([player for part in parts for player in part])
    return found


def owen(v: Game, tree: Any) -> list[float]:
    """Owen's value (Winter's, for several levels): the mean over the orders that keep every branch together.

    For a tree with one level this is the Shapley value; for binary trees what SHAP's partition explainer tends to
    with an unlimited budget. Every order counts the same: at each node the branches are shuffled alone.
    """
    return by_orders(v, tree_orders(tree))


# --------------------------------------------------------------------------------------------------- maps of the values


def region_map(values: Sequence[float], labels: Tensor) -> Tensor:
    """The value of its region at every pixel, 0 outside all. `(*space)`."""
    total = torch.zeros(labels.shape, dtype=D)
    for region, value in enumerate(values):
        total = total + value * (labels == region).to(D)
    return total


def channel_map(values: Sequence[float], lost: Tensor) -> Tensor:
    """Σ_k φ_k |D_k(p)| / Σ_q |D_k(q)|, D `(channels, *space)` what is lost with a channel: the map sums to Σ φ_k.

    A channel that loses nothing has its value spread evenly.
    """
    total = torch.zeros(lost.shape[1:], dtype=D)
    for value, channel in zip(values, lost.abs(), strict=True):
        whole = channel.sum()
        total = total + value * (channel / whole if whole > 0 else torch.full_like(channel, 1 / channel.numel()))
    return total
