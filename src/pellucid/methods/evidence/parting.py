"""Where answers part between two data sets, as a value that shows itself."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import comb
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pellucid.core.tables import Table, table
from pellucid.methods.evidence.results import Result

Pixels = UInt8[np.ndarray, "h w 3"]


@dataclass(frozen=True)
class Pair:
    """One symptom before a background of each data set.

    Attributes:
        picture: the name of the test picture; `label` its class, or what the network says to it untouched.
        background_a, background_b: names of what it was put before.
        answer_a, answer_b: what the network says.
        change: total variation between the two answers, 0 to 1.
        right_a, right_b: whether each is `label`.
        within_a, within_b: whether the answer is another before a second background of the same data set; None where
            there is no second one.
    """

    picture: str
    label: str
    background_a: str
    background_b: str
    answer_a: str
    answer_b: str
    change: float
    right_a: bool
    right_b: bool
    within_a: bool | None = None
    within_b: bool | None = None

    @property
    def parts(self) -> bool:
        """Whether the two answers differ."""
        return self.answer_a != self.answer_b


@dataclass(frozen=True, eq=False, kw_only=True)
class Between(Result):
    """Where answers part when nothing but the environment is exchanged.

    Attributes:
        names: what the two data sets are called.
        labelled: whether labels came; else an answer is right where it is that to the untouched picture.
        pairs: one for each test picture.
        shown: for some pictures whose answers part what the network was shown.
    """

    names: tuple[str, str]
    labelled: bool
    pairs: tuple[Pair, ...]
    seed: int
    shown: tuple[tuple[Pair, Pixels, Pixels], ...] = ()

    @property
    def disagreement(self) -> float:
        """The share of pictures whose answers part between the data sets."""
        return float(np.mean([pair.parts for pair in self.pairs]))

    @property
    def within(self) -> tuple[float, float]:
        """The same between two backgrounds of one data set, a then b; NaN where it has only one."""
        found = [[pair.within_a for pair in self.pairs], [pair.within_b for pair in self.pairs]]
        a, b = (float("nan") if None in some else float(np.mean([bool(one) for one in some])) for some in found)
        return a, b

    @property
    def p_apart(self) -> float:
        """McNemar's exact p-value: that answers part as often within a data set as between the two.

        The larger of the two data sets' values; 1 where neither has a second background.
        """
        some = [[pair.within_a for pair in self.pairs], [pair.within_b for pair in self.pairs]]
        return max((self._apart(within) for within in some if None not in within), default=1.0)

    def _apart(self, within: Sequence[bool | None]) -> float:
        both = [(pair.parts, bool(one)) for pair, one in zip(self.pairs, within, strict=True)]
        return mcnemar(both.count((True, False)), both.count((False, True)))

    @property
    def accuracies(self) -> tuple[float, float]:
        """The share of right answers before the backgrounds of each."""
        return float(np.mean([p.right_a for p in self.pairs])), float(np.mean([p.right_b for p in self.pairs]))

    @property
    def only(self) -> tuple[int, int]:
        """How many are right before the backgrounds of one data set only: of a, of b."""
        rights = [(p.right_a, p.right_b) for p in self.pairs]
        return rights.count((True, False)), rights.count((False, True))

    @property
    def p(self) -> float:
        """McNemar's exact p-value: that the backgrounds of both make errors equally often."""
        return mcnemar(*self.only)

    @property
    def table(self) -> Table:
        """The pictures whose answers part, those that move most first."""
        a, b = self.names
        rows = sorted((p for p in self.pairs if p.parts), key=lambda p: -p.change)
        columns = ("picture", "label", f"background {a}", f"background {b}", f"answer {a}", f"answer {b}", "TV")
        return table(
            "parting", columns,
            [(p.picture, p.label, p.background_a, p.background_b, p.answer_a, p.answer_b, p.change) for p in rows],
        )  # fmt: skip

    def sentence(self) -> str:
        """What parts, in words."""
        from pellucid.methods.evidence.words import of_between

        return of_between(self)

    def picture(self) -> Image.Image:
        """Some pictures whose answers part."""
        from pellucid.methods.evidence.drawing import of_between

        return of_between(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values."""
        (a, b), (only_a, only_b) = self.accuracies, self.only
        within_a, within_b = (None if np.isnan(w) else w for w in self.within)
        return {
            "kind": "between", "names": list(self.names), "pictures": len(self.pairs),
            "labelled": self.labelled, "disagreement": self.disagreement, "within": [within_a, within_b],
            "accuracies": [a, b], "only": [only_a, only_b], "p": self.p, "p_apart": self.p_apart, "seed": self.seed,
            **self.facts(),
        }  # fmt: skip

    def __repr__(self) -> str:
        a, b = self.accuracies
        return (
            f"Between({len(self.pairs)} pictures: {self.disagreement:.0%} part, right {a:.0%} before {self.names[0]} "
            f"and {b:.0%} before {self.names[1]}, McNemar p={self.p:.3g})"
        )


def mcnemar(only_a: int, only_b: int) -> float:
    """McNemar's exact test, two-sided: `p = min(1, 2 P(X ≤ min(b, c)))`, X binomial of b + c and one half.

    Args:
        only_a, only_b: how many are right in one condition only (b and c).

    Source: McNemar 1947; the exact binomial form.

    Example:
        >>> mcnemar(0, 5)
        0.0625
    """
    n, least = only_a + only_b, min(only_a, only_b)
    return min(1.0, 2 * sum(comb(n, k) for k in range(least + 1)) / 2**n)
