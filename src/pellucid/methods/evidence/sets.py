"""Which regions can't be spared, which are enough, and which must change for another answer."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from jaxtyping import Bool, Float
from torch import Tensor, nn

from pellucid.core.edits import covered
from pellucid.core.errors import SettingError, TargetError
from pellucid.core.progress import Progress
from pellucid.images.fills import Fill
from pellucid.images.fills import fills as chosen_fills
from pellucid.images.regions import Regions
from pellucid.methods.covering import Paint, paint_of, regions_of
from pellucid.methods.evidence.asking import Asked, asked_about
from pellucid.methods.evidence.judge import FILLS
from pellucid.methods.evidence.region_sets import NECESSARY, SUFFICIENT, Change, MinimalSets, RegionSet
from pellucid.methods.evidence.search import EVERY_PART_UP_TO, Found, smallest
from pellucid.methods.pictures import seen
from pellucid.models.model import Model

BUDGET, FILL = 1000, "mean"


@dataclass(frozen=True, eq=False)
class Search:
    """One picture cut into regions, covered by one fill, to be searched."""

    asked: Asked
    found: Regions
    fill: Fill
    paint: Paint

    def keeping(self, keep: Bool[Tensor, "n regions"]) -> Float[Tensor, "n answers"]:
        """The scores with only these regions shown."""
        return self.asked.scores(covered(self.asked.case.x, self.paint, self.found.labels, keep))

    def smallest(
        self, lead: Callable[[Tensor], Tensor], *, showing: bool, budget: int, exhaustive: bool | None
    ) -> tuple[Found, RegionSet | None]:
        """The smallest set that, covered (or `showing`, alone), has a lead above zero."""
        count = self.found.count
        exhaustive = count <= EVERY_PART_UP_TO if exhaustive is None else exhaustive
        result = smallest(
            lambda chosen: lead(self.keeping(chosen if showing else ~chosen)), count, budget=budget,
            exhaustive=exhaustive,
        )  # fmt: skip
        return result, None if result.members is None else self._set(result, result.members, showing)

    def _set(self, found: Found, members: tuple[int, ...], showing: bool) -> RegionSet:
        chosen = torch.zeros(1, self.found.count, dtype=torch.bool)
        chosen[0, list(members)] = True
        edits = covered(self.asked.case.x, self.paint, self.found.labels, chosen if showing else ~chosen)
        scores = self.asked.scores(edits)
        decision = self.asked.decision
        winner = int(decision.winners(scores)[0])
        mask = torch.isin(self.found.labels, torch.tensor(members, dtype=torch.long)).numpy()
        pixels = None
        if self.asked.picture is not None:
            pixels = seen(edits.inputs([0])[0], self.asked.case.preprocess)
        names = tuple(self.found.names[m] if self.found.names else str(m) for m in members)
        return RegionSet(
            members, names, mask, self.fill.name, decision.names[winner], decision.share(scores[0], winner),
            found, pixels,
        )  # fmt: skip


def minimal_sets(
    model: Model | nn.Module | str,
    image: Any,
    *,
    regions: Any = "slic",
    count: int = 30,
    fill: Any = FILL,
    target: Any = "top1",
    budget: int = BUDGET,
    exhaustive: bool | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> MinimalSets:
    """The smallest set of regions that an answer can't do without, and the smallest that suffices for it.

    Necessary: with it covered, another answer wins. Sufficient: with all else covered, the answer stays. Neither can
    be made smaller (`RegionSet.irreducible`), and where the search got through it is proven that none smaller exists.

    Args:
        model, image: as for `evidence`.
        regions: grid, slic, felzenszwalb, quickshift (with `:count`), labels or a file of them.
        count: about how many.
        fill: what covers them, one.
        target: the answer: `"top1"`, a class, or `"A vs B"` (then the winner of the two).
        budget: how many sets may be tried for each of the two.
        exhaustive: every set in order of size; by default where there are at most ten regions, else best first.
        seed: of noise and of regions.

    Raises:
        SettingError: one region only, several fills, a budget below 1.
        TargetError: the network does not give this answer to the untouched picture.

    Source: Vermeire and Martens 2020, arXiv:2004.07511 (SEDC); sufficient sets: Ribeiro et al. 2018 call them anchors.
    """
    start = time.perf_counter()
    with asked_about(model, image, target, seed, progress) as asked:
        found, (one,) = _regions(asked, regions, count), _fills(fill, budget, most=1)
        decision, own = asked.decision, asked.decision.own
        if decision.pair is not None:
            own = int(decision.winners(asked.before[None])[0])
        if float(decision.lead(asked.before[None], own)[0]) < 0:
            said = decision.names[int(decision.winners(asked.before[None])[0])]
            raise TargetError(
                f"the network says {said}, not {decision.names[own]}; ask what must change for it "
                f"(pel.what_must_change, --to), or leave the target out"
            )
        search = Search(asked, found, one, paint_of(asked.case, one, 0))
        settings = {"budget": budget, "exhaustive": exhaustive}
        needed, necessary = search.smallest(lambda s: -decision.lead(s, own), showing=False, **settings)
        enough, sufficient = search.smallest(lambda s: decision.lead(s, own), showing=True, **settings)
        return MinimalSets(
            model=asked.model.name, receipt=asked.receipt(), seconds=time.perf_counter() - start,
            answer=decision.names[own], share=decision.share(asked.before, own), labels=found.labels.numpy(),
            fill=one.name, necessary=necessary, sufficient=sufficient, searches={NECESSARY: needed, SUFFICIENT: enough},
            image=asked.picture, placement=asked.placement,
        )  # fmt: skip


def what_must_change(
    model: Model | nn.Module | str,
    image: Any,
    to: str | int,
    *,
    regions: Any = "slic",
    count: int = 30,
    fills: Any = FILLS,
    budget: int = BUDGET,
    exhaustive: bool | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Change:
    """The smallest set of regions whose covering turns the answer into another one that is named.

    Args:
        to: the class that is wanted, by label or number.
        fills: what may cover them; also another picture, `"donor:PATH"` or `Fill.donor(image)`, whose content at the
            same places is put in.
        budget: how many sets may be tried under each fill.
        model, image, regions, count, exhaustive, seed: as for `minimal_sets`.

    Raises:
        SettingError: one region only, or an unknown fill.
        TargetError: no such class, or the network says it already.

    Source: Vermeire and Martens 2020, arXiv:2004.07511 (SEDC-T); donors: Goyal et al. 2019, arXiv:1904.07451.
    """
    start = time.perf_counter()
    with asked_about(model, image, to, seed, progress) as asked:
        found, chosen = _regions(asked, regions, count), _fills(fills, budget)
        decision = asked.decision
        if decision.pair is not None or not decision.single:
            raise TargetError(f"{to!r} came as what the answer is to become; give one class, by label or number")
        goal, winner = decision.own, int(decision.winners(asked.before[None])[0])
        if goal == winner:
            raise TargetError(f"the network says {decision.names[goal]} already; name another class")
        tried: dict[str, RegionSet | None] = {}
        searches: dict[str, Found] = {}
        for fill in chosen:
            search = Search(asked, found, fill, paint_of(asked.case, fill, 0))
            searches[fill.name], tried[fill.name] = search.smallest(
                lambda s: decision.lead(s, goal), showing=False, budget=budget, exhaustive=exhaustive
            )
        return Change(
            model=asked.model.name, receipt=asked.receipt(), seconds=time.perf_counter() - start,
            answer=decision.names[winner], share=decision.share(asked.before, winner), to=decision.names[goal],
            labels=found.labels.numpy(), tried=tried, searches=searches, image=asked.picture, placement=asked.placement,
        )  # fmt: skip


def _regions(asked: Asked, given: Any, count: int) -> Regions:
    found = regions_of(asked.case, given, 0, count=count)
    if found.count < 2:
        raise SettingError(f"{found.count} region came, and sets are made of two or more; give smaller regions")
    return found


def _fills(given: Any, budget: int, most: int | None = None) -> tuple[Fill, ...]:
    found = chosen_fills(given)
    if most is not None and len(found) > most:
        raise SettingError(f"{len(found)} fills came; minimal sets are searched under one, such as blur")
    if budget < 1:
        raise SettingError(f"budget={budget} came; at least one set must be tried, such as {BUDGET}")
    return found
