"""Sets of regions that were found, as values that show themselves."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image

from pellucid.core.tables import Table, table
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods.evidence.results import Result
from pellucid.methods.evidence.search import Found

COLUMNS = (
    "set", "fill", "regions", "numbers", "area", "answer", "probability", "smallest", "irreducible", "sets tried"
)  # fmt: skip
NECESSARY, SUFFICIENT = "necessary", "sufficient"


@dataclass(frozen=True, eq=False)
class RegionSet:
    """Some regions and what the network says when they are covered (or shown alone).

    Attributes:
        regions: their numbers; `names` what they are called.
        mask: where they are, on the network's input grid.
        fill: what covered them, or everything else.
        answer, share: what the network then says, and its probability.
        search: how far it is known to be the smallest.
        pixels: what the network was shown; None where that is no 2-D picture.
    """

    regions: tuple[int, ...]
    names: tuple[str, ...]
    mask: Bool[np.ndarray, "*space"]
    fill: str
    answer: str
    share: float
    search: Found
    pixels: UInt8[np.ndarray, "h w 3"] | None = None

    @property
    def fraction(self) -> float:
        """The share of the picture that they are."""
        return float(self.mask.mean())

    def row(self, word: str) -> tuple[Any, ...]:
        """The set as a line of a table."""
        smallest = "proven" if self.search.proven else "found"
        return (
            word, self.fill, len(self.regions), " ".join(map(str, self.regions)), self.fraction, self.answer,
            self.share, smallest, self.search.irreducible, self.search.asked,
        )  # fmt: skip

    def __repr__(self) -> str:
        return f"RegionSet({len(self.regions)} regions, {self.fraction:.0%} of the picture, {self.answer!r})"


@dataclass(frozen=True, eq=False, kw_only=True)
class MinimalSets(Result):
    """What a decision needs and what suffices for it.

    Attributes:
        answer, share: what the network says to the untouched picture, and its probability.
        labels: the region of each pixel, -1 for none.
        fill: what covered regions.
        necessary: covering it gives another answer; None where no set was found that does.
        sufficient: it alone, with the other regions covered, keeps the answer.
        searches: for both, how far the search came.
    """

    answer: str
    share: float
    labels: Int64[np.ndarray, "*space"]
    fill: str
    necessary: RegionSet | None
    sufficient: RegionSet | None
    searches: Mapping[str, Found]
    image: Picture | None = None
    placement: Placement | None = None

    @property
    def table(self) -> Table:
        """A row for each set that was found."""
        sets = ((NECESSARY, self.necessary), (SUFFICIENT, self.sufficient))
        return table("minimal sets", COLUMNS, [s.row(word) for word, s in sets if s is not None])

    def sentence(self) -> str:
        """Both sets in words."""
        from pellucid.methods.evidence.words import of_sets

        return of_sets(self)

    def picture(self) -> Image.Image:
        """The picture, and what the network was shown."""
        from pellucid.methods.evidence.drawing import of_sets

        return of_sets(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values."""
        return {
            "kind": "minimal sets", "answer": self.answer, "share": self.share, "fill": self.fill,
            "regions": int(self.labels.max()) + 1,
            NECESSARY: _facts(self.necessary, self.searches[NECESSARY]),
            SUFFICIENT: _facts(self.sufficient, self.searches[SUFFICIENT]),
            **self.facts(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"MinimalSets({self.answer!r}: necessary {self.necessary!r}, sufficient {self.sufficient!r})"


@dataclass(frozen=True, eq=False, kw_only=True)
class Change(Result):
    """Which regions must be covered for another answer.

    Attributes:
        answer, share: what the network says to the untouched picture, and its probability.
        to: the answer that was wanted.
        labels: the region of each pixel, -1 for none.
        tried: for each fill the smallest set that was found under it, or None; `searches` how far each search came.
    """

    answer: str
    share: float
    to: str
    labels: Int64[np.ndarray, "*space"]
    tried: Mapping[str, RegionSet | None]
    searches: Mapping[str, Found]
    image: Picture | None = None
    placement: Placement | None = None

    @property
    def best(self) -> RegionSet | None:
        """The smallest set of any fill: the fewest regions, of equally many the smallest area; None for none."""
        found = [one for one in self.tried.values() if one is not None]
        return min(found, key=lambda one: (len(one.regions), one.fraction), default=None)

    @property
    def table(self) -> Table:
        """A row for each fill under which a set was found."""
        return table("what must change", COLUMNS, [s.row(self.to) for s in self.tried.values() if s is not None])

    def sentence(self) -> str:
        """What must change, in words."""
        from pellucid.methods.evidence.words import of_change

        return of_change(self)

    def picture(self) -> Image.Image:
        """The picture, and what the network was shown under each fill."""
        from pellucid.methods.evidence.drawing import of_change

        return of_change(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values."""
        return {
            "kind": "what must change", "answer": self.answer, "share": self.share, "to": self.to,
            "regions": int(self.labels.max()) + 1,
            "best": None if self.best is None else self.best.fill,
            "tried": {fill: _facts(one, self.searches[fill]) for fill, one in self.tried.items()},
            **self.facts(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Change({self.answer!r} to {self.to!r}: {self.best!r})"


def _facts(one: RegionSet | None, search: Found) -> dict[str, Any]:
    if one is None:
        return {"found": False, "none_exists": search.none_exists, "asked": search.asked}
    return {
        "found": True, "regions": list(one.regions), "names": list(one.names), "fraction": one.fraction,
        "fill": one.fill, "answer": one.answer, "share": one.share, "proven": search.proven,
        "irreducible": search.irreducible, "asked": search.asked,
    }  # fmt: skip
