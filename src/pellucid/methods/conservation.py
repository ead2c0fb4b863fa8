"""One relevance walk, and what its ledger says in the receipt."""

import torch
from torch import Tensor

from pellucid.core.pull import Walk
from pellucid.core.receipt import Check
from pellucid.core.trace import Value
from pellucid.methods.case import Case
from pellucid.rules.composites import Composite, RelevanceRules
from pellucid.rules.ledger import Ledger

CLOSED, BLOWN_UP, UNEXCITED = 1e-3, 100.0, 0.05
MET = "what ε kept met neurons that no input excites, only a bias"
OVERCOUNTED = "where a neuron has no negative contributions, α counts its positive ones too much"
STEADY = {
    "epsilon_plus": "whose parts can't cancel in convolutions",
    "deep_taylor": "whose parts can't cancel in the last layers either: this score is a small rest of large ones",
}


def starts(case: Case, start: str = "score") -> dict[Value, Tensor]:
    """What is shared out: the target's derivative by the scores ("one"), or that times the scores ("score")."""
    seeds = dict(case.target.seeds(case.trace))
    return {value: seed * value.data for value, seed in seeds.items()} if start == "score" else seeds


def account(case: Case, composite: Composite, seeds: dict[Value, Tensor], stop: Value | None = None) -> Tensor:
    """One walk under a composite, its checks written to the receipt."""
    rules = composite.on(case.trace)
    walk = Walk(case.trace, seeds, rules, case.walks.keep)
    end = case.trace.inputs[0] if stop is None else stop
    found = walk.at(end)
    case.walks.found[f"{composite.name} of {id(walk)}"] = walk
    case.used.add(f"{composite.name} of {id(walk)}")
    _check(case, walk, rules, seeds, end, found)
    return found


def _check(
    case: Case, walk: Walk, rules: RelevanceRules, seeds: dict[Value, Tensor], end: Value, found: Tensor
) -> None:
    ledger = rules.ledger
    started = sum((ledger.amount(seed, value) for value, seed in seeds.items()), ledger.nothing)
    size = sum((ledger.size(seed, value) for value, seed in seeds.items()), ledger.nothing)
    arrived = ledger.amount(found, end)
    elsewhere = _elsewhere(case, walk, ledger, end)
    kept = ledger.totals()
    error = started - arrived - elsewhere - sum(kept.values(), ledger.nothing)
    peak = ledger.peak()
    for image in range(case.trace.batch):
        row = image if ledger.separable else 0
        whole = float(size[row]) or 1.0
        share = {reason: float(amount[row]) / whole for reason, amount in kept.items()}
        case.checks[image] += [
            _closing(float(error[row]) / whole, share, ledger.separable),
            _peak(float(peak[row]) / whole, rules.name, torch.finfo(found.dtype).eps),
        ]
    generic = sorted(
        {f"{n.name} in {n.path or 'the network'}" for n, e in ledger.entries.items() if e.rule == "generic"}
    )
    if generic:
        case.approximate.append(f"no faithful rule is known for {', '.join(generic)}; x·∂/∂x was taken")
    if any(e.rule == "product" for e in ledger.entries.values()):
        case.approximate.append("attention: products share equally and softmax is linearised (AttnLRP)")


def _elsewhere(case: Case, walk: Walk, ledger: Ledger, end: Value) -> Tensor:
    """What arrived at further inputs, and, at a layer, what went past it."""
    if end in case.trace.inputs:
        others = [v for v in case.trace.inputs if v is not end and v.differentiable]
        return sum((ledger.amount(walk.at(v), v) for v in others), ledger.nothing)
    waiting = [(v, t) for v, t in walk.waiting.items() if v is not end]
    return sum((ledger.amount(t, v) for v, t in waiting), ledger.nothing)


def _closing(error: float, share: dict[str, float], separable: bool) -> Check:
    words = ", ".join(f"{reason} {part:.1%}" for reason, part in share.items() if abs(part) >= 0.0005) or "nothing"
    whole = "" if separable else " (over all pictures together)"
    text = f"of the relevance, stayed on the way{whole}: {words}"
    if abs(error) > CLOSED:
        return Check("conservation error", error, CLOSED, "fail", text)
    unexcited = share.get("epsilon", 0.0) + share.get("zero denominator", 0.0)
    if abs(unexcited) > UNEXCITED:
        text += f"; {MET if unexcited > 0 else OVERCOUNTED}: the map shows how the rest is spread"
        return Check("conservation error", error, CLOSED, "warn", text)
    return Check("conservation error", error, CLOSED, "pass", text)


def _peak(ratio: float, composite: str, rounding: float) -> Check:
    """How far relevance grew above what was shared out; a failure where rounding reaches the map's own size."""
    if ratio <= BLOWN_UP:
        return Check("largest relevance on the way", ratio, BLOWN_UP, "pass", "as a multiple of what was shared out")
    steady = "epsilon_plus" if not composite.startswith("epsilon_plus") else "deep_taylor"
    lost = ratio * rounding > CLOSED
    text = (
        f"relevance grew to {ratio:.3g} times what was shared out and cancels again"
        f'{": its details are rounding" if lost else ""}; use composite "{steady}", {STEADY[steady]}'
    )
    return Check("largest relevance on the way", ratio, BLOWN_UP, "fail" if lost else "warn", text)
