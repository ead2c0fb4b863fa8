"""What came out, in words for a reader who is no expert: numbers, what they mean, and what they don't."""

from math import isnan

from pellucid.methods.evidence.controls import as_much
from pellucid.methods.evidence.parting import Between
from pellucid.methods.evidence.region_sets import NECESSARY, SUFFICIENT, Change, MinimalSets, RegionSet
from pellucid.methods.evidence.search import Found
from pellucid.methods.evidence.verdict import LEAST_SYM, MOST_ENV, MOST_P, Evidence, verdict
from pellucid.render.sentence import share_text


def of_evidence(found: Evidence) -> str:
    """Prediction, both questions, the control, the verdict, and what it hangs on."""
    parts = (_asked(found), _without(found), _alone(found), _controls(found), _verdict(found), _fills(found))
    return " ".join(part for part in parts if part)


def _asked(found: Evidence) -> str:
    of = "of the picture" if found.mask is not None else "of the layer's units"
    about = "it" if found.followed == found.answer else f"“{found.followed}”"
    said = f"The network says {found.answer} ({share_text(found.share)})."
    return f"{said} Does {about} come from {found.symptom} ({share_text(found.fraction)} {of})?"


def _without(found: Evidence) -> str:
    return f"Without it the answer moves by {share_text(found.sym)}{_flips(found, 0)}."


def _alone(found: Evidence) -> str:
    rest = found.environment
    return f"Without {rest} it moves by {share_text(found.env)}{_flips(found, 1)}."


def _flips(found: Evidence, which: int) -> str:
    count = round(found.flip_rates[which] * len(found.rows))
    if not count:
        return ""
    if len(found.rows) == 1:
        return " and becomes another one"
    fills = "every fill" if count == len(found.rows) else f"{count} of {len(found.rows)} fills"
    return f" and becomes another one under {fills}"


def _controls(found: Evidence) -> str:
    total = len(found.control_fe)
    above = as_much(found.fe, found.control_fe)
    times = f"in {above} of {total} cases" if above else f"in none of {total} cases"
    where = "As many other units matter" if found.mask is None else "Laid elsewhere, the same shape matters"
    return f"{where} as much {times} (p = {found.p:.2g})."


def _verdict(found: Evidence) -> str:
    word = found.verdict
    if word == "evidence":
        return "So this is evidence: the answer follows it and hardly needs the rest."
    if word == "no evidence":
        return "So this is no evidence: the answer does not hang on it."
    if word == "inconclusive":
        return f"This is inconclusive: {_missing(found)}."
    more = "So this is counter-evidence: the answer hangs more on the rest than on this."
    if found.p < MOST_P and found.sym > MOST_ENV:
        return f"{more} Still, few of its size matter as much: it takes part, and is not enough alone."
    if found.p < MOST_P:
        return f"{more} It hardly moves the answer by itself; others of its size move it even less."
    if found.p_low < MOST_P:
        return f"{more} Almost all others of its size count for more."
    return f"{more} Whether it is special among those of its size can't be told."


def _missing(found: Evidence) -> str:
    missing = []
    if found.sym < LEAST_SYM:
        missing.append("without it the answer moves too little")
    if found.env > MOST_ENV:
        missing.append("it is not enough alone")
    if found.p >= MOST_P:
        missing.append("it does not stand out among the controls")
    return ", and ".join(missing)


def _fills(found: Evidence) -> str:
    """Whether one of the fills would have said something else."""
    other = [r.fill for r in found.rows if verdict(r.sym, r.env, r.sym - r.env, r.p) != found.verdict]
    if not other or len(found.rows) == 1:
        return ""
    return f"It hangs on the fill: under {' and '.join(other)} alone the verdict would be another."


def of_sets(found: MinimalSets) -> str:
    """What can't be spared and what is enough."""
    said = f"The network says {found.answer} ({share_text(found.share)})."
    regions = int(found.labels.max()) + 1
    return f"{said} {_necessary(found, regions)} {_sufficient(found, regions)} The fill is {found.fill}."


def _necessary(found: MinimalSets, regions: int) -> str:
    one, search = found.necessary, found.searches[NECESSARY]
    if one is None:
        return f"{_none(search)} whose covering gives another answer."
    return f"{_of(one, regions)} covered, it says {one.answer} ({share_text(one.share)}). {_how_small(one)}"


def _sufficient(found: MinimalSets, regions: int) -> str:
    one, search = found.sufficient, found.searches[SUFFICIENT]
    if one is None:
        return f"{_none(search)} that keeps the answer alone."
    if not one.regions:
        return "Nothing of the picture is needed to keep the answer: the fill alone gives it, so try another fill."
    alone = f"{_of(one, regions)} and all else covered, it still says {one.answer} ({share_text(one.share)})."
    return f"{alone} {_how_small(one)}"


def of_change(found: Change) -> str:
    """What must be covered for the other answer."""
    said = f"The network says {found.answer} ({share_text(found.share)})."
    best = found.best
    if best is None:
        tried = " ".join(f"{_none(search)} that gives {found.to} ({fill})." for fill, search in found.searches.items())
        return f"{said} {tried}"
    regions = int(found.labels.max()) + 1
    others = [fill for fill, one in found.tried.items() if one is None]
    missed = f" Under {' and '.join(others)} no set was found." if others else ""
    says = f"covered with {best.fill}, it says {best.answer} ({share_text(best.share)})."
    return f"{said} {_of(best, regions)} {says} {_how_small(best)}{missed}"


def _of(one: RegionSet, regions: int) -> str:
    count = f"{len(one.regions)} of {regions} regions"
    return f"With {count} ({share_text(one.fraction)} of the picture)"


def _how_small(one: RegionSet) -> str:
    if one.search.proven:
        return "No smaller set does it."
    return f"No smaller set was found in {one.search.asked} tries; {one.search.irreducible} is needed."


def _none(search: Found) -> str:
    return "There is no set of regions" if search.none_exists else f"In {search.asked} tries no set was found"


def of_between(found: Between) -> str:
    """How often answers part between the data sets, and within them."""
    (a, b), (right_a, right_b) = found.names, found.accuracies
    n = len(found.pairs)
    within = " and ".join(
        f"{share_text(share)} within {name}" for name, share in zip(found.names, found.within, strict=True)
        if not isnan(share)
    )  # fmt: skip
    control = f" Between backgrounds of the same data set they part in {within}." if within else ""
    right = "right" if found.labelled else "unchanged"
    return (
        f"{n} symptoms before backgrounds of {a} and of {b}: the answers part in {share_text(found.disagreement)} of "
        f"them.{control} Before {a} {share_text(right_a)} are {right}, before {b} {share_text(right_b)} (McNemar "
        f"p = {found.p:.2g}). {_between(found)}"
    )


def _between(found: Between) -> str:
    if found.p < MOST_P:
        worse = found.names[found.accuracies[0] > found.accuracies[1]]
        return f"So the environment takes part in the decision: the backgrounds of {worse} lead it astray more often."
    if found.p_apart < MOST_P:
        apart = f"more often than within one (p = {found.p_apart:.2g})"
        return f"So it matters which data set the environment is from: answers part {apart}. Neither errs more often."
    if found.disagreement > MOST_ENV:
        return "So the environment takes part in the decision; that it matters which data set it is from is not shown."
    return "So which data set the environment is from hardly matters."
