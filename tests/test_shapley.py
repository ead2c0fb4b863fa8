"""Shapley and Owen values against their definitions over orders, their laws, and whether error bars keep their word."""

from collections import Counter
from itertools import permutations as all_orders
from math import factorial

import numpy as np
import pytest
import torch

from pellucid.core.errors import MethodError, SettingError
from pellucid.methods.shapley.exact import exact
from pellucid.methods.shapley.game import Game, Shares, coalitions, paths
from pellucid.methods.shapley.kernel import design, kernel
from pellucid.methods.shapley.kernel import needed as kernel_needed
from pellucid.methods.shapley.owen import Tree, contexts, members, orders, owen, split_tree
from pellucid.methods.shapley.permutations import needed, permutations
from pellucid.methods.shapley.solve import solve

EVERY = ("exact", "kernel", "permutation", "partition")
SMALL: Tree = ((0, (1, 2)), (3, 4))
RANDOM = np.random.default_rng(0)  # where nothing is drawn, or any draw will do


def chain(players: int) -> Tree:
    """The most uneven tree."""
    return 0 if players == 1 else (chain(players - 1), players - 1)


def table_game(players: int, seed: int = 0) -> tuple[Game, dict[frozenset, float]]:
    """A game whose coalitions are worth random numbers, and the numbers."""
    worth = np.random.default_rng(seed).standard_normal(2**players) * 3
    place = 2 ** torch.arange(players)
    game = Game(players, lambda keep: torch.from_numpy(worth)[(keep.long() * place).sum(1)])
    return game, {frozenset(np.flatnonzero(row).tolist()): worth[r] for r, row in enumerate(coalitions(players))}


def by_definition(worth: dict[frozenset, float], ways: list[tuple[int, ...]]) -> np.ndarray:
    """The mean over orders of what each player adds to those before it."""
    found = np.zeros(len(ways[0]))
    for way in ways:
        for place, player in enumerate(way):
            before = frozenset(way[:place])
            found[player] += (worth[before | {player}] - worth[before]) / len(ways)
    return found


def every_order(players: int) -> list[tuple[int, ...]]:
    return list(all_orders(range(players)))


def whole_branches(way: tuple[int, ...], tree: Tree) -> bool:
    """Whether an order finishes each branch before it goes on."""
    if isinstance(tree, int):
        return True
    places = sorted(way.index(player) for player in members(tree))
    together = places[-1] - places[0] == len(places) - 1
    return together and all(whole_branches(way, branch) for branch in tree)


def solved(game: Game, kind: str, tree: Tree | None = None, **words) -> Shares:
    tree = tree if tree is not None else split_tree(np.arange(game.players, dtype=float)[:, None])
    return solve(game, kind, words.get("samples", 4000), words.get("error_fraction", 0.0), words.get("seed", 0), tree)


# ---- definitions ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("players", [2, 3, 4, 6])
def test_exact_is_the_mean_over_all_orders(players):
    game, worth = table_game(players)
    found = exact(game)
    np.testing.assert_allclose(found.values, by_definition(worth, every_order(players)), rtol=1e-12, atol=1e-12)
    assert found.errors is None
    assert game.asked == 2**players


@pytest.mark.parametrize("players", [2, 3, 4, 5, 6, 7, 9])
def test_kernel_over_all_coalitions_is_exact(players):
    game, _ = table_game(players, seed=players)
    found = kernel(game, samples=2**players, random=RANDOM)
    np.testing.assert_allclose(found.values, exact(game).values, rtol=1e-9, atol=1e-9)
    assert found.errors is None
    assert game.asked == 2**players


@pytest.mark.parametrize("tree", [SMALL, ((((0, 1), 2), 3), 4), ((4, 1), ((0, 3), 2))])
def test_owen_values_are_the_mean_over_the_orders_of_the_tree(tree):
    game, worth = table_game(5)
    ways = [way for way in every_order(5) if whole_branches(way, tree)]
    assert len(ways) == 2**4  # either branch first, at each of four forks
    expected = by_definition(worth, ways)
    np.testing.assert_allclose(
        owen(game, tree, samples=64, error_fraction=0.0, random=RANDOM).values, expected, atol=1e-12
    )
    assert np.abs(expected - exact(game).values).max() > 0.1  # another value than Shapley's
    drawn = Counter(map(tuple, orders(tree, 4000, np.random.default_rng(0)).tolist()))
    assert set(drawn) == set(ways)
    assert max(abs(count - 250) for count in drawn.values()) < 4 * np.sqrt(250 * 15 / 16)  # each as often as the others


def test_a_tree_of_two_levels_on_two_players_each_is_shapley_by_symmetry():
    """Where the worth depends on sizes only, any order of arrival gives the same mean."""
    game = Game(4, lambda keep: keep.double().sum(1) ** 2)
    found = owen(game, ((0, 1), (2, 3)), samples=100, error_fraction=0.0, random=RANDOM)
    np.testing.assert_allclose(found.values, 4.0, rtol=1e-12)


def test_orders_become_the_coalitions_on_their_way():
    assert paths(np.array([[2, 0, 1]])).tolist() == [[[False, False, True], [True, False, True]]]


# ---- laws -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", EVERY)
@pytest.mark.parametrize("players", [5, 9])
def test_shares_sum_to_the_whole_change(kind, players):
    few = {"samples": 80} if players == 9 and kind != "exact" else {}
    found = solved(table_game(players)[0], kind, **few)
    assert found.residual < 1e-13
    assert abs(found.values.sum() - (found.full - found.empty)) < 1e-12


@pytest.mark.parametrize("kind", EVERY)
def test_a_player_that_never_matters_gets_nothing_and_twins_get_the_same(kind):
    worth = np.random.default_rng(1).standard_normal((3, 3, 2))

    def ask(keep: torch.Tensor) -> torch.Tensor:  # 0 and 1 are twins, 3 is idle
        twins, rest, other = keep[:, 0].long() + keep[:, 1].long(), keep[:, 2].long(), keep[:, 4].long()
        return torch.from_numpy(worth)[twins, rest, other]

    found = solved(Game(5, ask), kind, ((0, 1), ((2, 4), 3)), samples=4000)
    tolerance = 1e-9 if kind != "permutation" else 4 * found.errors[0] + 1e-9
    assert found.values[3] == pytest.approx(0, abs=1e-12 if kind != "kernel" else 1e-9)
    assert found.values[0] == pytest.approx(found.values[1], abs=tolerance)
    assert abs(found.values[0]) > 0.1


@pytest.mark.parametrize("kind", EVERY)
def test_shares_are_linear_in_the_game(kind):
    """Also of drawn orders and coalitions, as long as the same ones are drawn."""
    (one, _), (two, _) = table_game(8, 1), table_game(8, 2)
    both = Game(8, lambda keep: 2 * one.ask(keep) - 3 * two.ask(keep))
    parts = [solved(game, kind, samples=100) for game in (one, two, both)] if kind != "exact" else [
        exact(game) for game in (one, two, both)
    ]  # fmt: skip
    np.testing.assert_allclose(parts[2].values, 2 * parts[0].values - 3 * parts[1].values, rtol=1e-8, atol=1e-8)


@pytest.mark.parametrize("kind", EVERY)
def test_a_sum_of_parts_is_told_without_error_from_few_coalitions(kind):
    weights = torch.linspace(-3, 4, 11, dtype=torch.float64)
    game = Game(11, lambda keep: keep.double() @ weights + 7)
    found = solved(game, kind, samples=4000 if kind == "exact" else 60, error_fraction=0.01)
    np.testing.assert_allclose(found.values, weights.numpy(), rtol=1e-9, atol=1e-9)
    if found.errors is not None:
        assert found.errors.max() < 1e-9


# ---- error bars -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "samples"), [("permutation", 600), ("kernel", 200), ("partition", 600)])
def test_error_bars_keep_their_word(kind, samples):
    """Errors in units of their bars have a mean square near 1, so that a bar half as long would show (seeded)."""
    game, _ = table_game(10, seed=3)
    tree = chain(10)
    truth = owen(game, tree, samples=1024, error_fraction=0.0, random=RANDOM) if kind == "partition" else exact(game)
    assert truth.errors is None
    found = [solved(Game(10, game.ask), kind, tree, samples=samples, seed=s) for s in range(60)]
    errors = np.stack([one.errors for one in found])
    z = np.stack([one.values - truth.values for one in found])[:, errors[0] > 1e-9] / errors[:, errors[0] > 1e-9]
    assert z.shape[1] >= 9  # the last of the chain is told exactly by any order and its reverse
    assert 0.75 < (z**2).mean() < 1.35
    assert np.abs(z.mean(0)).max() < 3.5 / np.sqrt(60)  # no player is missed on one side


def test_kernel_errors_are_a_jackknife_of_the_constrained_fit():
    """Written out with the constraint put in: the last share is the change less the others."""
    game, _ = table_game(9, seed=2)
    found = kernel(game, samples=60, random=np.random.default_rng(4))
    plan, (empty, full) = design(9, 58, np.random.default_rng(4)), game.ends()

    def fit(pairs: np.ndarray) -> np.ndarray:
        rows = np.concatenate([plan.whole, plan.drawn[pairs].reshape(-1, 9)])
        drawn = plan.share * len(plan.drawn) / len(pairs)
        root = np.sqrt(np.concatenate([plan.weight, np.full(2 * len(pairs), drawn)]))[:, None]
        z = rows[:, :8].astype(float) - rows[:, 8:]
        y = game.values(rows) - empty - rows[:, 8] * (full - empty)
        phi = np.linalg.lstsq(root * z, root[:, 0] * y, rcond=None)[0]
        return np.append(phi, full - empty - phi.sum())

    every = np.arange(len(plan.drawn))
    assert len(every) == 20  # one pair for each of the groups
    np.testing.assert_allclose(found.values, fit(every), rtol=1e-9, atol=1e-9)
    without = np.stack([fit(every[every != k]) for k in every])
    np.testing.assert_allclose(found.errors, np.sqrt(19 / 20 * ((without - without.mean(0)) ** 2).sum(0)), rtol=1e-7)


def test_four_times_the_orders_halve_the_error():
    game, _ = table_game(10, seed=5)
    truth = exact(game).values

    def off(samples: int) -> float:
        runs = [solved(game, "permutation", samples=samples, seed=s).values - truth for s in range(30)]
        return float(np.sqrt(np.mean(np.square(runs))))

    assert off(2 + 18 * 10) / off(2 + 18 * 40) == pytest.approx(2, rel=0.15)


def test_it_stops_as_soon_as_the_error_is_small_enough():
    game, _ = table_game(10, seed=6)
    empty, full = game.ends()
    asked = []
    for error_fraction in (0.5, 0.1, 0.0):
        fresh = Game(10, game.ask)
        found = solved(fresh, "permutation", samples=3000, error_fraction=error_fraction)
        drawn = int(found.how.split()[0].replace(",", ""))
        asked.append(drawn)
        assert (
            error_fraction == 0
            or found.errors.max() <= error_fraction * abs(full - empty)
            or drawn == 2 * ((3000 - 2) // 18)
        )
    assert asked[0] < asked[2] == 2 * (2998 // 18)
    assert asked == sorted(asked)


def test_reversed_pairs_beat_twice_as_many_single_orders():
    """On a game of pairs of players each order and its reverse are exact together."""
    random = np.random.default_rng(0)
    pairs = torch.from_numpy(random.standard_normal((7, 7)))
    game = Game(7, lambda keep: torch.einsum("mi,ij,mj->m", keep.double(), pairs, keep.double()))
    found = permutations(game, samples=needed(7), error_fraction=0.0, random=random)
    np.testing.assert_allclose(found.values, exact(game).values, rtol=1e-10, atol=1e-10)


# ---- asking ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "samples"), [("exact", 1), ("permutation", 900), ("kernel", 300), ("partition", 300)])
def test_no_coalition_is_asked_twice_and_no_more_than_allowed(kind, samples):
    seen: list[bytes] = []
    game, _ = table_game(9)

    def ask(keep: torch.Tensor) -> torch.Tensor:
        seen.extend(np.packbits(row.numpy()).tobytes() for row in keep)
        return game.ask(keep)

    counted = Game(9, ask)
    solved(counted, kind, samples=samples)
    assert len(seen) == len(set(seen)) == counted.asked
    assert len(seen) <= (512 if kind == "exact" else samples)


def test_what_is_known_of_everybody_is_not_asked():
    lacking = []
    game = Game(3, lambda keep: (lacking.append(bool((~keep).any(1).all())), keep.double().sum(1))[1], full=10.0)
    assert exact(game).full == 10.0
    assert lacking == [True]


def test_the_design_covers_small_and_large_coalitions_first():
    plan = design(12, 500, np.random.default_rng(0))
    sizes, counts = np.unique(plan.whole.sum(1), return_counts=True)
    assert dict(zip(sizes.tolist(), counts.tolist(), strict=True)) == {1: 12, 2: 66, 10: 66, 11: 12}
    assert plan.weight.sum() + plan.share * 2 * len(plan.drawn) == pytest.approx(
        sum(11 / (s * (12 - s)) for s in range(1, 12))
    )
    assert (plan.drawn[:, 0] ^ plan.drawn[:, 1]).all()
    assert len(plan.drawn) == (500 - 156) // 2


def test_a_split_tree_halves_at_the_median_along_the_longest_side():
    centres = np.array([[0.0, 0.0], [0.0, 10.0], [3.0, 0.0], [3.0, 10.0], [1.0, 5.0]])
    assert split_tree(centres) == (((0, 2), 4), (1, 3))
    found = contexts(split_tree(np.random.default_rng(0).random((50, 2))), 50, 10**6)
    assert found is not None
    assert len(found[0]) <= 50 * 64


def test_contexts_that_are_too_many_are_drawn():
    assert contexts(chain(25), 25, 1000) is None
    game = Game(25, lambda keep: keep.double() @ torch.arange(25, dtype=torch.float64))
    found = owen(game, chain(25), samples=200, error_fraction=0.0, random=RANDOM)
    np.testing.assert_allclose(found.values, np.arange(25), atol=1e-9)


# ---- refusals -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_an_answer_that_is_no_number_is_traced_to_its_coalition(bad):
    game = Game(3, lambda keep: torch.where(keep[:, 1], 1.0, bad), absent="regions {} covered", names="abc")
    with pytest.raises(MethodError, match=r"score was (nan|inf) with regions a, b, c covered \(4 of 8 answers"):
        exact(game)


def test_an_untouched_picture_without_a_number_is_told():
    with pytest.raises(MethodError, match="nothing changed"):
        Game(3, lambda keep: keep.double().sum(1), full=float("nan"))


def test_long_lists_of_players_are_cut():
    with pytest.raises(MethodError, match="players 0, 1, 2, 3, 4, 5 and 14 more away"):
        Game(20, lambda keep: keep.double().sum(1) / 0).ends()


@pytest.mark.parametrize(
    ("kind", "words", "message"),
    [
        ("exact", {}, "13 players came for exact .*8,192.*permutation"),
        ("permutation", {"samples": 49}, "13 players need 50 or more"),
        ("kernel", {"samples": 51}, "13 players needs 52 or more"),
        ("partition", {"samples": 49}, "13 players need 50 or more"),
        ("permutation", {"samples": 0}, "use 1 to 1,000,000"),
        ("permutation", {"samples": 1_000_001}, "use 1 to 1,000,000"),
        ("permutation", {"error_fraction": -0.1}, "error_fraction=-0.1 came; use 0 or more"),
    ],
)
def test_what_can_not_be_asked_is_refused_with_a_remedy(kind, words, message):
    game = Game(13, lambda keep: keep.double().sum(1))
    with pytest.raises(SettingError, match=message):
        solved(game, kind, **words)


@pytest.mark.parametrize("players", [2, 3, 4, 5, 8])
def test_the_fewest_samples_that_are_named_do(players):
    game, _ = table_game(players)
    for least, kind in ((needed(players), "permutation"), (kernel_needed(players), "kernel")):
        assert solved(game, kind, samples=least).residual < 1e-12
        with pytest.raises(SettingError, match="or more"):
            solved(game, kind, samples=least - 1)


def test_auto_is_exact_up_to_twelve_players():
    assert "all 4,096" in solve(table_game(12)[0], "auto", 100, 0.0, 0).how
    assert "orders" in solve(table_game(13)[0], "auto", 100, 0.0, 0).how
    assert factorial(12) > 10**8  # by definition it would be this many orders
