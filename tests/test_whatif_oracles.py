"""The slow definitions of occlusion, Shapley values and LIME, on cases small enough for paper."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from method_cases import D, close, plain, random_input
from oracles import lime, occlusion, shapley

GLOVES = {0: "left", 1: "left", 2: "right"}


def gloves(players: frozenset[int]) -> float:
    """A pair of gloves is worth 1; players 0 and 1 hold left gloves, player 2 the right one."""
    kinds = {GLOVES[p] for p in players}
    return float(len(kinds) == 2)


def unanimity(*needed: int) -> shapley.Game:
    return lambda players: float(set(needed) <= players)


def additive(*worth: float) -> shapley.Game:
    return lambda players: sum(worth[p] for p in players)


def random_game(n: int, seed: int = 0) -> shapley.Game:
    values = random_input(2**n, seed=seed).tolist()
    return lambda players: values[sum(1 << p for p in players)]


def linear(weights: Tensor, bias: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Two classes: b + Σ w x, and 0."""
    return lambda x: torch.stack([bias + (x * weights).flatten(1).sum(1), torch.zeros(len(x), dtype=D)], 1)


# ------------------------------------------------------------------------------------------------------------ occlusion


@pytest.mark.parametrize(
    ("edge", "expected"),
    [("clip", [0, 2, 4]), ("every", [0, 2, 4, 6]), ("inside", [0, 2, 4]), ("shift", [0, 2, 4])],
)
def test_starts_where_windows_fit(edge: occlusion.Edge, expected: list[int]) -> None:
    assert occlusion.starts(7, 3, 2, edge) == expected


@pytest.mark.parametrize(
    ("edge", "expected"),
    [("clip", [0, 3, 6]), ("every", [0, 3, 6]), ("inside", [0, 3]), ("shift", [0, 3, 4])],
)
def test_starts_with_a_rest(edge: occlusion.Edge, expected: list[int]) -> None:
    assert occlusion.starts(8, 4, 3, edge) == expected


def test_starts_of_a_window_as_wide_as_the_picture() -> None:
    assert [occlusion.starts(4, 4, 1, edge) for edge in ("clip", "inside", "shift")] == [[0], [0], [0]]
    assert occlusion.starts(4, 4, 1, "every") == [0, 1, 2, 3]


def test_occlusion_of_a_linear_model_by_hand() -> None:
    x = torch.tensor([[1.0, 2.0, 3.0]], dtype=D)
    weights = torch.tensor([[[1.0, 10.0, 100.0]]], dtype=D)
    found = occlusion.occlusion(linear(weights), x, torch.zeros_like(x), 0, [2], [1])
    close(found, torch.tensor([21.0, (21.0 + 320.0) / 2, 320.0], dtype=D), 1e-14)  # windows take 1 + 20 and 20 + 300


def test_occlusion_leaves_uncovered_pixels_at_nothing() -> None:
    x = torch.ones(1, 3, dtype=D)
    found = occlusion.occlusion(linear(torch.ones(1, 1, 3, dtype=D)), x, torch.zeros_like(x), 0, [2], [2], "inside")
    assert found.tolist() == [2.0, 2.0, 0.0]


def test_cover_covers_every_channel() -> None:
    where = torch.tensor([[True, False], [False, True]])
    edited = occlusion.cover(torch.ones(2, 2, 2), where, torch.full((2, 2, 2), 5.0))
    assert edited.tolist() == [[[5.0, 1.0], [1.0, 5.0]]] * 2


def test_interaction_of_a_product_by_hand() -> None:
    def f(x: Tensor) -> Tensor:
        return (x[:, 0, 0] * x[:, 0, 1] + x[:, 0, 2])[:, None]

    x, labels = torch.tensor([[2.0, 3.0, 7.0]], dtype=D), torch.tensor([0, 1, 2])
    drops = occlusion.region_drops(f, x, labels, torch.zeros_like(x), 0)
    assert drops == [6.0, 6.0, 7.0]
    assert occlusion.interaction(f, x, labels, torch.zeros_like(x), 0, 0, 1) == -6.0  # either one destroys the product
    assert occlusion.interaction(f, x, labels, torch.zeros_like(x), 0, 0, 2) == 0.0


def test_disagreement_of_two_maps_is_half_their_distance() -> None:
    a, b = torch.tensor([1.0, 5.0], dtype=D), torch.tensor([2.0, 5.0], dtype=D)
    assert occlusion.disagreement([a, b]).tolist() == [0.5, 0.0]


# -------------------------------------------------------------------------------------------------------------- Shapley


def values(*found: float) -> Tensor:
    return torch.tensor(found, dtype=D)


def test_gloves() -> None:
    close(values(*shapley.exact(gloves, 3)), values(1 / 6, 1 / 6, 4 / 6), 1e-14)


def test_null_player_and_symmetry() -> None:
    close(values(*shapley.exact(unanimity(0, 2), 4)), values(0.5, 0.0, 0.5, 0.0), 1e-14)
    close(values(*shapley.exact(additive(3.0, -1.0, 2.0), 3)), values(3.0, -1.0, 2.0), 1e-14)


@pytest.mark.parametrize("n", [1, 2, 3, 5])
def test_three_ways_to_the_same_values(n: int) -> None:
    v = random_game(n)
    found = values(*shapley.exact(v, n))
    close(values(*shapley.by_orders(v, shapley.all_orders(n))), found, 1e-12)
    if n > 1:
        close(values(*shapley.kernel(v, n)), found, 1e-12)
    total = v(frozenset(range(n))) - v(frozenset())
    assert abs(float(found.sum()) - total) <= 1e-12


def test_kernel_weights_by_hand() -> None:
    assert [shapley.kernel_weight(4, size) for size in (1, 2, 3)] == [3 / 12, 3 / 24, 3 / 12]


def test_interaction_by_hand() -> None:
    assert shapley.interaction(unanimity(0, 1), 2, 0, 1) == 1.0
    assert abs(shapley.interaction(additive(1.0, 2.0, 3.0), 3, 0, 2)) <= 1e-14
    assert abs(shapley.interaction(unanimity(0, 1, 2), 3, 0, 1) - 0.5) <= 1e-14  # only with player 2 in the set
    assert abs(shapley.interaction(gloves, 3, 0, 1) + 0.5) <= 1e-14  # the second left glove is worth nothing


def test_interaction_by_dividends() -> None:
    """Harsanyi's dividends m(S) = Σ_T (−1)^{|S|−|T|} v(T): the index is Σ_{S ∋ i, j} m(S) / (|S| − 1)."""
    v = random_game(5, seed=2)
    expected = 0.0
    for whole in shapley.subsets(range(5)):
        if {1, 3} <= whole:
            dividend = sum((-1) ** (len(whole) - len(part)) * v(part) for part in shapley.subsets(sorted(whole)))
            expected += dividend / (len(whole) - 1)
    assert math.isclose(shapley.interaction(v, 5, 1, 3), expected, rel_tol=1e-10)


def test_owen_of_a_flat_tree_is_shapley() -> None:
    v = random_game(4)
    close(values(*shapley.owen(v, (0, 1, 2, 3))), values(*shapley.exact(v, 4)), 1e-12)
    close(values(*shapley.owen(v, ((0, 1, 2, 3),))), values(*shapley.exact(v, 4)), 1e-12)


def test_owen_of_the_gloves_by_hand() -> None:
    """The two left gloves united: orders 012, 102, 201, 210; the right one is worth 1 in two, each left in one."""
    close(values(*shapley.owen(gloves, ((0, 1), 2))), values(0.25, 0.25, 0.5), 1e-14)


def test_owen_keeps_the_game_between_the_unions() -> None:
    """The sum over a branch is its Shapley value in the game of the branches."""
    v, tree = random_game(6, seed=3), ((0, (1, 2)), (3, 4), 5)
    branches = [shapley.leaves(branch) for branch in tree]

    def between(unions: frozenset[int]) -> float:
        return v(frozenset(p for u in unions for p in branches[u]))

    found = shapley.owen(v, tree)
    sums = [sum(found[p] for p in branch) for branch in branches]
    close(values(*sums), values(*shapley.exact(between, 3)), 1e-12)


def test_standard_error_by_hand() -> None:
    assert shapley.standard_errors([[1.0, 4.0], [3.0, 4.0]]) == [1.0, 0.0]


def test_game_of_a_picture() -> None:
    x, labels = torch.tensor([[1.0, 2.0, 4.0, 8.0]], dtype=D), torch.tensor([0, 1, 1, -1])
    v = shapley.game(linear(torch.ones(1, 1, 4, dtype=D)), x, labels, torch.full_like(x, 0.5), 0)
    assert [v(frozenset(s)) for s in ((), (0,), (1,), (0, 1))] == [9.5, 10.0, 14.5, 15.0]


def test_channel_map_sums_to_the_values() -> None:
    A = random_input(3, 4, 5)
    A[1] = 0
    found = shapley.channel_map([2.0, 5.0, -3.0], A)
    assert abs(float(found.sum()) - 4.0) <= 1e-12


def test_layer_game_by_hand() -> None:
    """y = 2 (3 x) + x: without the first layer only x is left, without the second as well."""

    class Skip(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Conv1d(1, 1, 1, bias=False, dtype=D), nn.Conv1d(1, 1, 1, bias=False, dtype=D)
            with torch.no_grad():
                self.a.weight.fill_(3.0)
                self.b.weight.fill_(2.0)

        def forward(self, x: Tensor) -> Tensor:
            return (self.b(self.a(x)) + x).sum(2)

    x = torch.tensor([[1.0, 4.0]], dtype=D)
    v = shapley.layer_game(Skip(), x, 0, ["a", "b"])
    assert [v(frozenset(s)) for s in ((), (0,), (1,), (0, 1))] == [5.0, 5.0, 5.0, 35.0]
    v = shapley.layer_game(Skip(), x, 0, ["a"], mean=True)
    assert v(frozenset()) == 35.0  # the sum over cells does not see that they were averaged
    assert shapley.exact(shapley.layer_game(Skip(), x, 0, ["a", "b"]), 2) == [15.0, 15.0]


# ----------------------------------------------------------------------------------------------------------------- LIME


def rows(n: int, count: int, seed: int = 0) -> Tensor:
    drawn = (random_input(count, n, seed=seed) > 0).to(D)
    drawn[0] = 1
    return drawn


def test_kernel_by_hand() -> None:
    z = torch.tensor([1.0, 0.0, 0.0, 0.0])
    assert lime.cosine_distance(z) == 0.5
    assert lime.cosine_distance(torch.zeros(4)) == 1.0
    assert lime.kernel(torch.ones(4)) == 1.0
    assert math.isclose(lime.kernel(z, 0.5, root=False), math.exp(-1), rel_tol=1e-15)
    assert math.isclose(lime.kernel(z, 0.5), math.exp(-0.5), rel_tol=1e-15)


def test_ridge_finds_a_linear_model_without_shrinkage() -> None:
    z, slopes = rows(5, 40), values(1.0, -2.0, 0.0, 4.0, 0.5)
    y, weights = lime.predictions(z, slopes, 3.0), random_input(40).abs()
    found, intercept = lime.ridge(z, y, weights, 0.0)
    close(found, slopes, 1e-12)
    assert math.isclose(intercept, 3.0, rel_tol=1e-12)
    assert math.isclose(lime.r_squared(z, y, weights, found, intercept), 1.0, rel_tol=1e-12)


def test_ridge_of_one_feature_by_hand() -> None:
    """z = 0, 1, y = 0, 1, α = ½: β = ½ / (½ + ½) = ½, b = ¼."""
    found, intercept = lime.ridge(torch.tensor([[0.0], [1.0]]), values(0.0, 1.0), torch.ones(2, dtype=D), 0.5)
    assert math.isclose(float(found[0]), 0.5, rel_tol=1e-14)
    assert math.isclose(intercept, 0.25, rel_tol=1e-14)


def test_linear_models_agree_with_scikit_learn() -> None:
    linear_model = pytest.importorskip("sklearn.linear_model")
    z, y, weights = rows(6, 50), random_input(50, seed=1), random_input(50, seed=2).abs()
    theirs = linear_model.Ridge(alpha=1.0).fit(z.numpy(), y.numpy(), sample_weight=weights.numpy())
    slopes, intercept = lime.ridge(z, y, weights, 1.0)
    close(slopes, torch.from_numpy(theirs.coef_), 1e-10)
    score = theirs.score(z.numpy(), y.numpy(), sample_weight=weights.numpy())
    assert math.isclose(lime.r_squared(z, y, weights, slopes, intercept), score, rel_tol=1e-9)
    sparse = linear_model.Lasso(alpha=0.05, tol=1e-12, max_iter=100000)
    sparse.fit(z.numpy(), y.numpy(), sample_weight=weights.numpy())
    slopes, _ = lime.lasso(z, y, weights, 0.05)
    close(slopes, torch.from_numpy(sparse.coef_), 1e-8)
    assert 0 < int((slopes == 0).sum()) < 6


def test_hinge_by_hand() -> None:
    """z = 0, 1 with t = −1, 1: by symmetry b = −β/2, both short by 1 − β/2: α β = 1 − β/2, so β = 1/(α + ½)."""
    t = values(-1.0, 1.0)
    found, intercept = lime.hinge(torch.tensor([[0.0], [1.0]]), t, torch.ones(2, dtype=D), 0.5)
    assert math.isclose(float(found[0]), 1.0, rel_tol=1e-9)
    assert math.isclose(intercept, -0.5, rel_tol=1e-9)


def test_hinge_agrees_with_scikit_learn() -> None:
    svm = pytest.importorskip("sklearn.svm")
    z, t = rows(6, 50), torch.where(random_input(50, seed=1) > 0, 1.0, -1.0).to(D)
    slopes, intercept = lime.hinge(z, t, torch.ones(50, dtype=D), 0.7)
    theirs = svm.LinearSVC(C=0.5 / 0.7, loss="squared_hinge", tol=1e-12, max_iter=100000, intercept_scaling=1e4)
    theirs.fit(z.numpy(), t.numpy())
    close(slopes, torch.from_numpy(theirs.coef_[0]), 1e-3)  # theirs shrinks the intercept, a little
    assert math.isclose(intercept, float(theirs.intercept_[0]), rel_tol=1e-2)


# ---------------------------------------------------------------------------------------------------------------- peers


@pytest.mark.peers
@pytest.mark.parametrize(("axes", "window", "stride"), [(1, 3, 2), (2, 3, 2), (2, 4, 1), (2, 5, 3), (3, 4, 3)])
def test_occlusion_is_captums(axes: int, window: int, stride: int) -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = plain(axes), random_input(1, 3, *[8] * axes)
    theirs = attr.Occlusion(model).attribute(
        x, sliding_window_shapes=(3, *[window] * axes), strides=(3, *[stride] * axes), baselines=0.25, target=1
    )
    paint = torch.full_like(x[0], 0.25)
    with torch.no_grad():
        found = occlusion.occlusion(model, x[0], paint, 1, [window] * axes, [stride] * axes)
    close(found, theirs[0, 0], 1e-6)  # theirs in float32


@pytest.mark.peers
def test_shapley_values_are_captums() -> None:
    attr = pytest.importorskip("captum.attr")
    model, x = plain(), random_input(1, 3, 8, 8)
    labels = (torch.arange(8)[:, None] // 4) * 2 + torch.arange(8)[None] // 3 % 2
    with torch.no_grad():
        theirs = attr.ShapleyValues(model).attribute(x, target=1, feature_mask=labels.repeat(1, 3, 1, 1))
        found = shapley.exact(shapley.game(model, x[0], labels, torch.zeros_like(x[0]), 1), 4)
    close(shapley.region_map(found, labels), theirs[0, 0], 1e-6)  # theirs in float32
