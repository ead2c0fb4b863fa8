"""The smallest set of regions that does something: every set in order of size, or best first and pruned."""

import heapq
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import torch
from jaxtyping import Bool, Float
from torch import Tensor

Members = tuple[int, ...]
Question = Callable[[Bool[Tensor, "n regions"]], Float[Tensor, " n"]]
Irreducible = Literal["every part of it", "every region of it"]
EVERY_PART_UP_TO = 10  # regions; of a larger set only the parts that lack one region are tried
_PASS = 512  # sets asked about at a time


@dataclass(frozen=True)
class Found:
    """A set that does it, or none.

    Attributes:
        members: the regions in order of their number; None where no set was found.
        lead: by how much it does it (above zero).
        proven: no smaller set does it, or none at all: every one was tried.
        irreducible: what was tried and fails alone: every part of the set, or the set without any one of its regions.
        asked: how many sets were tried.
    """

    members: Members | None
    lead: float
    proven: bool
    irreducible: Irreducible
    asked: int

    @property
    def none_exists(self) -> bool:
        """Whether every set was tried and none does it."""
        return self.members is None and self.proven


class Book:
    """Leads of the sets that were asked about; no set is asked about twice, and none beyond the budget.

    Args:
        question: for sets of regions, one row each, by how much each does it; above zero it does.
    """

    def __init__(self, question: Question, count: int, budget: int) -> None:
        self.question, self.count, self.budget = question, count, budget
        self.leads: dict[Members, float] = {}

    @property
    def left(self) -> int:
        """How many more sets may be tried."""
        return self.budget - len(self.leads)

    def ask(self, sets: Sequence[Members], *, beyond: bool = False) -> dict[Members, float]:
        """The leads of these sets; of those beyond the budget none, unless `beyond`."""
        new = [s for s in dict.fromkeys(sets) if s not in self.leads]
        new = new if beyond else new[: max(self.left, 0)]
        for start in range(0, len(new), _PASS):
            part = new[start : start + _PASS]
            chosen = torch.zeros(len(part), self.count, dtype=torch.bool)
            for row, members in zip(chosen, part, strict=True):
                row[list(members)] = True
            self.leads.update(zip(part, self.question(chosen).tolist(), strict=True))
        return {s: self.leads[s] for s in sets if s in self.leads}

    def found(self, members: Members | None, proven: bool, irreducible: Irreducible) -> Found:
        lead = float("-inf") if members is None else self.leads[members]
        return Found(members, lead, proven, irreducible, len(self.leads))


def smallest(question: Question, count: int, *, budget: int, exhaustive: bool) -> Found:
    """The smallest set of regions with a lead above zero.

    Args:
        question: see `Book`.
        budget: how many sets may be tried; the pruning of what was found is finished in any case.
        exhaustive: every set in order of size, until one does it; else best first.

    Source: Vermeire and Martens 2020, arXiv:2004.07511, algorithm 1 (SEDC; from memory), which takes away the region
    that lowers the score most and stops at the first set that changes the class. What differs: the search goes on for
    smaller sets while the budget lasts, and what it found is pruned.
    """
    book = Book(question, count, budget)
    return by_size(book, range(count)) if exhaustive else best_first(book)


def by_size(book: Book, regions: Sequence[int], sizes: Sequence[int] | None = None) -> Found:
    """Every set of these regions in order of size; of the sets of the smallest size that do it, the one that leads."""
    for size in range(len(regions) + 1) if sizes is None else sizes:
        sets = list(combinations(sorted(regions), size))
        leads = book.ask(sets)
        members = _leader(leads)
        if members is not None or len(leads) < len(sets):
            return book.found(members, members is not None, "every part of it")
    return book.found(None, True, "every part of it")


def best_first(book: Book) -> Found:
    """The most promising set is enlarged by each other region; sets that can't become smaller than the best are left.

    When nothing is left to enlarge, every smaller set was tried, and the best is the smallest.
    """
    best: Members | None = None
    irreducible: Irreducible = "every part of it"
    waiting: list[tuple[float, Members]] = []
    seen: set[Members] = set()
    new: list[Members] = [()]
    while True:
        leads = book.ask(new)
        leader = _leader(leads)
        if leader is not None and (best is None or len(leader) < len(best)):
            best, irreducible = prune(book, leader)
        if len(leads) < len(new):
            return book.found(best, best is not None and len(best) <= 1, irreducible)
        seen.update(leads)
        for members, lead in leads.items():
            if lead <= 0:
                heapq.heappush(waiting, (-lead, members))
        while waiting and best is not None and len(waiting[0][1]) + 1 >= len(best):
            heapq.heappop(waiting)
        if not waiting:
            return book.found(best, True, "every part of it")
        members = heapq.heappop(waiting)[1]
        larger = (tuple(sorted((*members, r))) for r in range(book.count) if r not in members)
        new = [child for child in larger if child not in seen]


def prune(book: Book, members: Members) -> tuple[Members, Irreducible]:
    """The set without what it does not need: first region by region, then, while it is small, every part of it."""
    while True:
        spared = book.ask(_without_one(members), beyond=True)
        leader = _leader(spared)
        if leader is None:
            break
        members = leader
    if len(members) > EVERY_PART_UP_TO or book.left < 2 ** len(members):
        return members, "every region of it"
    part = by_size(book, members, range(len(members) - 1)).members
    return (members if part is None else part), "every part of it"


def _without_one(members: Members) -> list[Members]:
    return [tuple(m for m in members if m != spared) for spared in members]


def _leader(leads: dict[Members, float]) -> Members | None:
    """The set with the largest lead above zero; of equal ones the first."""
    members = max(leads, key=leads.__getitem__, default=None)
    return members if members is not None and leads[members] > 0 else None
