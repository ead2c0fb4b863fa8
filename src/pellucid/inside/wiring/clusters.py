"""Units of two layers grouped by whom they are coupled with, and how tight the groups are."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float64, Int64

MOST, STARTS, ROUNDS, SHUFFLES = 8, 10, 100, 20


@dataclass(frozen=True, eq=False)
class Groups:
    """Groups over the rows and the columns of a matrix.

    Attributes:
        rows, columns: the group of each; −1 where a row or column is zero.
        row_order, column_order: group by group; what is zero comes last.
        inside_fraction: part of the sum of sizes that lies between members of one group.
        expected_fraction: what that would be if every entry were its row's sum times its column's.
        chance: the tightness of entries that are shuffled (and parted into as many groups anew, where the groups were
            found and not given), on average.
    """

    rows: Int64[np.ndarray, " rows"]
    columns: Int64[np.ndarray, " columns"]
    row_order: Int64[np.ndarray, " rows"]
    column_order: Int64[np.ndarray, " columns"]
    inside_fraction: float
    expected_fraction: float
    chance: float

    @property
    def tightness(self) -> float:
        """`inside − expected`: 0 where groups mean nothing."""
        return self.inside_fraction - self.expected_fraction

    @property
    def count(self) -> int:
        return int(max(self.rows.max(initial=-1), self.columns.max(initial=-1))) + 1


def grouped(
    matrix: Float[np.ndarray, "rows columns"],
    count: int | None = None,
    given: tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " columns"]] | None = None,
    seed: int = 0,
) -> Groups:
    """Co-clusters of a matrix by its sizes, or groups that were given.

    The singular vectors of `D_r^{-1/2} |C| D_c^{-1/2}` behind the trivial first one place rows and columns in one
    space, where k-means parts them; k is where the singular values fall furthest, from 2 to 8.

    Args:
        count: how many groups; chosen where it is None.

    Source: Dhillon 2001, "Co-clustering documents and words using bipartite spectral graph partitioning", section 4
        (here with k − 1 singular vectors).
    """
    size, random = np.abs(matrix).astype(np.float64), np.random.default_rng(seed)
    space = _space(size)
    rows, columns = _parted(space, size.shape, count, random) if given is None else given
    chance, k = [], max(int(rows.max(initial=0)), int(columns.max(initial=0))) + 1
    for _ in range(SHUFFLES):
        other = random.permuted(size.ravel()).reshape(size.shape)
        parts = _parted(_space(other), size.shape, k, random) if given is None else given
        chance.append(inside(other, *parts) - inside(_even(other), *parts))
    along = np.split(space[1][:, 0], [len(rows)])
    order = [_ordered(g, a) for g, a in zip((rows, columns), along, strict=True)]
    return Groups(
        rows,
        columns,
        order[0],
        order[1],
        inside(size, rows, columns),
        inside(_even(size), rows, columns),
        float(np.mean(chance)),
    )


def inside(
    matrix: Float[np.ndarray, "rows columns"], rows: Int64[np.ndarray, " rows"], columns: Int64[np.ndarray, " columns"]
) -> float:
    """The part of the sum of sizes that lies between rows and columns of one group; NaN where all is zero.

    Example:
        >>> inside(np.array([[3.0, 1.0], [0.0, 4.0]]), np.array([0, 1]), np.array([0, 1]))
        0.875
    """
    size = np.abs(matrix)
    return float(size[rows[:, None] == columns].sum() / size.sum()) if size.any() else float("nan")


def blocks(matrix: Float[np.ndarray, "rows columns"], groups: Groups) -> Float64[np.ndarray, "groups groups"]:
    """The part of the sum of sizes between each group of rows and each group of columns."""
    size, found = np.abs(matrix), np.zeros((groups.count, groups.count))
    for g in range(groups.count):
        for h in range(groups.count):
            found[g, h] = size[np.ix_(groups.rows == g, groups.columns == h)].sum()
    return found / (size.sum() or 1.0)


def _even(size: Float64[np.ndarray, "rows columns"]) -> Float64[np.ndarray, "rows columns"]:
    """Entries that follow from the sums of rows and columns alone."""
    return np.outer(size.sum(1), size.sum(0)) / (size.sum() or 1.0)


def _space(size: Float64[np.ndarray, "rows columns"]) -> tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "n k"]]:
    """Singular values behind the trivial one, and the places of rows and columns by their vectors; zero where empty."""
    sums = [size.sum(axis) for axis in (1, 0)]
    ones = [np.where(s > 0, 1 / np.sqrt(np.where(s > 0, s, 1.0)), 0.0) for s in sums]
    trivial = np.sqrt(np.outer(*sums)) / (size.sum() or 1.0)
    u, s, v = np.linalg.svd(ones[0][:, None] * size * ones[1] - trivial, full_matrices=False)
    return s, np.concatenate([u[:, : MOST - 1] * ones[0][:, None], v[: MOST - 1].T * ones[1][:, None]])


def _parted(
    space: tuple[Float64[np.ndarray, " s"], Float64[np.ndarray, "n k"]],
    shape: tuple[int, int],
    count: int | None,
    random: np.random.Generator,
) -> tuple[Int64[np.ndarray, " rows"], Int64[np.ndarray, " columns"]]:
    s, places = space
    falls = (s[:-1] - s[1:])[: MOST - 1]
    k = count or (2 + int(np.argmax(falls)) if len(falls) else 1)
    live, found = np.abs(places).any(1), np.full(len(places), -1)
    if live.any():
        found[live] = k_means(places[live][:, : max(k - 1, 1)], min(k, int(live.sum())), random)
    return found[: shape[0]], found[shape[0] :]


def k_means(points: Float64[np.ndarray, "n d"], k: int, random: np.random.Generator) -> Int64[np.ndarray, " n"]:
    """The group of each point: the best of several starts spread by distance (k-means++)."""
    best, least = np.zeros(len(points), dtype=np.int64), np.inf
    for _ in range(STARTS):
        centres = points[[random.integers(len(points))]]
        while len(centres) < k:
            away = ((points[:, None] - centres) ** 2).sum(2).min(1)
            chances = away / away.sum() if away.sum() > 0 else None
            centres = np.concatenate([centres, points[[random.choice(len(points), p=chances)]]])
        for _ in range(ROUNDS):
            of = ((points[:, None] - centres) ** 2).sum(2).argmin(1)
            moved = np.stack([points[of == g].mean(0) if (of == g).any() else centres[g] for g in range(k)])
            if np.array_equal(moved, centres):
                break
            centres = moved
        distance = ((points[:, None] - centres) ** 2).sum(2)
        total = float(distance.min(1).sum())
        if total < least:
            best, least = distance.argmin(1), total
    return best


def _ordered(groups: Int64[np.ndarray, " n"], along: Float64[np.ndarray, " n"]) -> Int64[np.ndarray, " n"]:
    """Group by group, inside each by a place on a line; group −1 last."""
    last = np.where(groups < 0, groups.max(initial=0) + 1, groups)
    return np.lexsort((along, last))
