"""Counterfactual evidence: how far the answer moves when a part is covered, and which sets of regions decide it.

The numbers of the project's own specification (symptom, environment, controls, verdict), McNemar's exact test, and
SEDC-like sets (Martens & Provost 2014; Vermeire et al. 2022) by trying every set.
"""

import itertools
from collections.abc import Callable, Iterator, Sequence
from functools import cache
from math import comb

import torch
from torch import Tensor

from .occlusion import Network, cover

Decides = Callable[[frozenset[int]], bool]


def probabilities(f: Network, x: Tensor) -> list[float]:
    with torch.no_grad():
        return torch.softmax(f(x[None])[0], 0).tolist()


def total_variation(p: Sequence[float], q: Sequence[float]) -> float:
    """TV = ½ Σ_c |p_c − q_c|, in 0..1."""
    return 0.5 * sum(abs(a - b) for a, b in zip(p, q, strict=True))


def change(f: Network, x: Tensor, where: Tensor, paints: Sequence[Tensor]) -> float:
    """The mean over the paints of TV(p(x), p(x with `where` covered))."""
    before = probabilities(f, x)
    return sum(total_variation(before, probabilities(f, cover(x, where, paint))) for paint in paints) / len(paints)


def flips(f: Network, x: Tensor, where: Tensor, paints: Sequence[Tensor]) -> float:
    """The share of paints that change the class with the largest probability (the first of equals)."""
    before = probabilities(f, x)
    turned = 0
    for paint in paints:
        after = probabilities(f, cover(x, where, paint))
        turned += after.index(max(after)) != before.index(max(before))
    return turned / len(paints)


def fidelity(f: Network, x: Tensor, symptom: Tensor, paints: Sequence[Tensor]) -> tuple[float, float, float]:
    """Sym (the symptom covered), Env (everything else covered), FE = Sym − Env."""
    sym, env = change(f, x, symptom, paints), change(f, x, ~symptom, paints)
    return sym, env, sym - env


def rank_p(observed: float, controls: Sequence[float]) -> float:
    """(1 + the number of controls that are at least as large) / (controls + 1): valid also with ties."""
    return (1 + sum(c >= observed for c in controls)) / (len(controls) + 1)


def rolled(mask: Tensor, shifts: Sequence[int]) -> Tensor:
    """The mask moved around the borders, one shift for each axis: the area stays."""
    return torch.roll(mask, tuple(shifts), tuple(range(mask.ndim)))


def verdict(sym: float, env: float, p: float) -> str:
    """evidence if Env ≤ 0.1 and Sym ≥ 0.5 and p < 0.05; counter-evidence if FE < 0; otherwise undecided."""
    if env <= 0.1 and sym >= 0.5 and p < 0.05:
        return "evidence"
    return "counter-evidence" if sym - env < 0 else "undecided"


def mcnemar(only_first: int, only_second: int) -> float:
    """Two-sided exact p: 2 Σ_{i ≤ min(b, c)} C(b + c, i) / 2^{b+c}, at most 1; 1 without discordant pairs."""
    n, least = only_first + only_second, min(only_first, only_second)
    return min(1.0, 2 * sum(comb(n, i) for i in range(least + 1)) / 2**n)


# -------------------------------------------------------------------------------------------------- sets that decide


def winner(f: Network, x: Tensor) -> int:
    with torch.no_grad():
        answers = f(x[None])[0].tolist()
    return answers.index(max(answers))


def hiding(labels: Tensor, regions: frozenset[int]) -> Tensor:
    """True where one of the regions is. `(*space)`."""
    where = torch.zeros(labels.shape, dtype=torch.bool)
    for region in regions:
        where = where | (labels == region)
    return where


def winners(f: Network, x: Tensor, labels: Tensor, paint: Tensor) -> Callable[[frozenset[int]], int]:
    """The class that wins when these regions are covered; each set is asked once."""
    return cache(lambda regions: winner(f, cover(x, hiding(labels, regions), paint)))


def necessary(after: Callable[[frozenset[int]], int], target: int | None = None) -> Decides:
    """Does covering these regions change the class (with `target`: to that class)? `after` is from `winners`."""
    before = after(frozenset())
    return lambda regions: after(regions) != before if target is None else after(regions) == target


def sufficient(after: Callable[[frozenset[int]], int], n: int) -> Decides:
    """Do these of n regions alone, all others covered (label −1 never), keep the class?"""
    before, everyone = after(frozenset()), frozenset(range(n))
    return lambda regions: after(everyone - regions) == before


def sets(n: int) -> Iterator[frozenset[int]]:
    for size in range(n + 1):
        yield from map(frozenset, itertools.combinations(range(n), size))


def smallest(decides: Decides, n: int) -> list[frozenset[int]]:
    """All deciding sets with the least number of regions; none if no set decides."""
    found: list[frozenset[int]] = []
    for regions in sets(n):
        if found and len(regions) > len(found[0]):
            break
        if decides(regions):
            found.append(regions)
    return found


def irreducible(decides: Decides, regions: frozenset[int]) -> bool:
    """It decides and no proper subset does."""
    below = (part for size in range(len(regions)) for part in itertools.combinations(sorted(regions), size))
    return decides(regions) and not any(decides(frozenset(part)) for part in below)


def irreducible_by_one(decides: Decides, regions: frozenset[int]) -> bool:
    """It decides and does no longer if any single region is taken out: weaker, as networks are not monotone."""
    return decides(regions) and not any(decides(regions - {region}) for region in regions)


def all_irreducible(decides: Decides, n: int) -> list[frozenset[int]]:
    """Every set that decides while none of its proper subsets does."""
    found: list[frozenset[int]] = []
    for regions in sets(n):
        if not any(known <= regions for known in found) and decides(regions):
            found.append(regions)
    return found
