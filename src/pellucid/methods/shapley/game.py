"""A game: players, what every coalition of them is worth, and the shares that a solver hands out."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from jaxtyping import Bool, Float64, Int64
from torch import Tensor, from_numpy

from pellucid.core.errors import MethodError

NAMED = 6  # players named in an error


@dataclass(frozen=True, eq=False)
class Shares:
    """What each player gets.

    Attributes:
        values: `φ`, one for each player, in units of the score.
        errors: one standard error of each; None where the values are exact.
        empty, full: what nobody and what everybody is worth.
        how: the way they were found, in words.
    """

    values: Float64[np.ndarray, " n"]
    errors: Float64[np.ndarray, " n"] | None
    empty: float
    full: float
    how: str

    @property
    def residual(self) -> float:
        """`|Σ φ − (v(N) − v(∅))|` over the sum of the sizes of all terms; 0 where all of them are."""
        size = float(np.abs(self.values).sum()) + abs(self.full - self.empty)
        return abs(float(self.values.sum()) - (self.full - self.empty)) / size if size else 0.0


@dataclass(eq=False)
class Game:
    """What coalitions are worth; each is asked once.

    Args:
        players: how many.
        ask: `(m, n) bool -> (m,)`: the score with those players present.
        full: the score with everybody there, where it is known already.
        absent: what a coalition lacks, for errors, as in `regions {} covered`.
        names: of the players, likewise; their numbers where none are given.
    """

    players: int
    ask: Callable[[Tensor], Tensor]
    full: float | None = None
    absent: str = "players {} away"
    names: Sequence[str] = ()
    known: dict[bytes, float] = field(default_factory=dict, repr=False)

    def __post_init__(self) -> None:
        if self.full is not None:
            everybody = np.ones((1, self.players), dtype=bool)
            self.known[np.packbits(everybody).tobytes()] = self._finite(everybody, np.array([self.full]))[0]

    @property
    def asked(self) -> int:
        """Distinct coalitions whose worth is known."""
        return len(self.known)

    def values(self, keep: Bool[np.ndarray, "m n"]) -> Float64[np.ndarray, " m"]:
        """`v(S)` for every row of players that are present.

        Raises:
            MethodError: the network answered something that is not a number; the coalition is named.
        """
        keys = [row.tobytes() for row in np.packbits(keep, axis=1)]
        new = {key: row for row, key in reversed(list(enumerate(keys))) if key not in self.known}
        if new:
            rows = np.array(sorted(new.values()))
            answers = self.ask(from_numpy(keep[rows])).detach().cpu().double().numpy()
            self.known.update(zip((keys[row] for row in rows), self._finite(keep[rows], answers), strict=True))
        return np.array([self.known[key] for key in keys])

    def ends(self) -> tuple[float, float]:
        """`v(∅)` and `v(N)`."""
        empty, full = self.values(np.stack([np.zeros(self.players, dtype=bool), np.ones(self.players, dtype=bool)]))
        return float(empty), float(full)

    def _finite(self, keep: np.ndarray, answers: np.ndarray) -> list[float]:
        bad = np.flatnonzero(~np.isfinite(answers))
        if len(bad):
            raise MethodError(
                f"the network's score was {answers[bad[0]]} with {self._lacking(keep[bad[0]])} ({len(bad)} of "
                f"{len(answers)} answers are not numbers); look for overflow in the network, or try another target or "
                "another way to cover or switch off"
            )
        return answers.tolist()

    def _lacking(self, keep: np.ndarray) -> str:
        away = [self.names[i] if self.names else str(i) for i in np.flatnonzero(~keep).tolist()]
        named = ", ".join(away[:NAMED]) + (f" and {len(away) - NAMED} more" if away[NAMED:] else "")
        return self.absent.format(named) if away else "nothing changed"


def coalitions(players: int) -> Bool[np.ndarray, "m n"]:
    """All `2ⁿ` of them; player i is present in row r where bit i of r is set."""
    return (np.arange(2**players)[:, None] >> np.arange(players) & 1).astype(bool)


def paths(orders: Int64[np.ndarray, "m n"]) -> Bool[np.ndarray, "m k n"]:
    """The coalitions on the way of each order, from the first player alone to all but the last, `k = n − 1`."""
    rank = np.argsort(orders, axis=1)
    return rank[:, None, :] < np.arange(1, orders.shape[1])[None, :, None]
