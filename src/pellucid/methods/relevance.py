"""Relevance: the score shared out among the inputs, operation by operation (A9–A12)."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import MethodError, SettingError
from pellucid.core.pull import Walk
from pellucid.core.replay import replayed, with_first
from pellucid.core.target import class_scores
from pellucid.core.trace import Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.conservation import account, starts
from pellucid.methods.registry import Verdict, method
from pellucid.render.bars import SHARE
from pellucid.rules.composites import (
    BOUNDED,
    PRESETS,
    Choice,
    Composite,
    excitation,
    read_composite,
)
from pellucid.rules.composites import (
    deep_taylor as deep_taylor_composite,
)
from pellucid.rules.linear_rules import Bounds, LinearRule, z_plus
from pellucid.rules.structure import structure

CompositeName = Annotated[Any, "a preset, a .json or .yaml file, or a Composite in Python"]
Start = Annotated[
    Literal["score", "one"], "what is shared out: the score itself, or one (the derivative of the target by the scores)"
]
Part = Annotated[Literal["both", "positive", "negative"], "keep what speaks for the target, against it, or both"]
Unknown = Annotated[
    Literal["refuse", "generic"],
    "at an operation without a faithful rule: refuse, or x·∂/∂x of it, told in the receipt",
]


def composite_of(case: Case, name: Any, unknown: str = "refuse") -> Composite:
    """A composite from its name, a file, or itself.

    Raises:
        SettingError: no such preset, or bounds are needed and the preprocessing is not known.
    """
    if isinstance(name, Composite):
        found = name
    elif name in PRESETS:
        found = PRESETS[name]()
    elif name in BOUNDED:
        found = BOUNDED[name](*_needed(bounds(case), name))
    elif name == "deep_taylor":
        found = deep_taylor_composite(*(bounds(case) or (None, None)))
    elif name == "excitation":
        found = excitation()
    elif isinstance(name, (str, Path)) and Path(name).suffix.lower() in (".json", ".yaml", ".yml"):
        found = read_composite(name)
    else:
        known = ", ".join([*PRESETS, *BOUNDED, "deep_taylor", "excitation"])
        raise SettingError(f'no composite "{name}"; there are {known}, or give a .json or .yaml file')
    return replace(found, unknown=unknown) if unknown == "generic" else found


def bounds(case: Case) -> tuple[Bounds, Bounds] | None:
    """The least and the largest that black and white pictures give at a first layer; None where that isn't known.

    Both are run through whatever stands before the layer: padding, a normalisation inside the network.
    """
    if case.preprocess is None:
        return None
    trace, preprocess = case.trace, case.preprocess
    stop = max((node.position for node in structure(trace).first), default=0)
    shape = (len(case.x), case.x.shape[1], *case.x.shape[2:])
    black, white = (
        replayed(trace, *with_first(trace, preprocess.normalise(torch.full(shape, v)).to(case.x)), stop=stop)
        for v in (0.0, 1.0)
    )

    def extreme(of: Any) -> Bounds:
        return lambda node: of(*(found.get(node.inputs[0], node.inputs[0].data) for found in (black, white)))

    return extreme(torch.minimum), extreme(torch.maximum)


def _needed(found: tuple[Bounds, Bounds] | None, name: str) -> tuple[Bounds, Bounds]:
    if found is None:
        raise SettingError(
            f'composite "{name}" needs to know the range of pixels in the network\'s units; give preprocess=, or use '
            '"epsilon_gamma"'
        )
    return found


def share_out(case: Case, composite: Composite, start: str = "score", *, stop: Value | None = None) -> Tensor:
    """Relevance at the input, or at a layer, with its account in the receipt."""
    return account(case, composite, starts(case, start), stop)


def composite_doctor(name: str) -> Any:
    """What a ready-made composite can do on a network: which operations have no faithful rule; tried once."""

    def doctor(trace: Trace) -> Verdict:
        key = f"verdict of {name}"
        if key not in trace.memo:
            composite = {"deep_taylor": deep_taylor_composite, "excitation": excitation, **PRESETS}[name]()
            trace.memo[key] = verdict_of(composite, trace)
        return trace.memo[key]

    return doctor


def verdict_of(composite: Composite, trace: Trace) -> Verdict:
    """Exact where every operation that relevance can reach has a rule; attention is approximate; else impossible."""
    seeds = {class_scores(trace): torch.ones_like(class_scores(trace).data)}
    walk = Walk(trace, seeds, composite.on(trace))
    try:
        walk.input()
    except MethodError as error:
        return Verdict("impossible", str(error))
    rules = sorted({name for name, _ in walk.met})
    if {"product", "softmax"} & set(rules):
        return Verdict("approximate", "attention: products share equally and softmax is linearised")
    return Verdict("exact", "rules: " + ", ".join(rules))


def _part(relevance: Tensor, part: str) -> Tensor:
    """`R`, `max(R, 0)` or `min(R, 0)`."""
    low, high = {"both": (None, None), "positive": (0, None), "negative": (None, 0)}[part]
    return relevance if part == "both" else relevance.clamp(low, high)


@method(
    "lrp",
    title="LRP",
    site="input",
    units=SHARE,
    source="Bach et al. 2015, doi:10.1371/journal.pone.0130140; Montavon et al. 2019, doi:10.1007/978-3-030-28954-6_10",
    misleads="when rules are mixed at will: the composite decides what the map emphasises as much as the network does",
    doctor=composite_doctor("epsilon_plus"),
)
def lrp(
    case: Case,
    *,
    composite: CompositeName = "epsilon_plus",
    start: Start = "score",
    part: Part = "both",
    unknown: Unknown = "refuse",
) -> Float[Tensor, "b c *space"]:
    """`R_i = Σ_j z_ij / Σ_k z_kj · R_j` from the scores down to the pixels, each operation by its rule.

    What biases and stabilisers keep is counted; the receipt shows that nothing else is lost.
    """
    return _part(share_out(case, composite_of(case, composite, unknown), start), part)


@method(
    "lrp_layer",
    title="LRP at a layer",
    site="layer",
    units=SHARE,
    source="Bach et al. 2015, doi:10.1371/journal.pone.0130140",
    misleads="where a cell covers many pixels: it says how much of the score passes through, not which pixel made it",
    doctor=composite_doctor("epsilon_plus"),
)
def lrp_layer(
    case: Case,
    *,
    composite: CompositeName = "epsilon_plus",
    start: Start = "score",
    part: Part = "both",
    unknown: Unknown = "refuse",
) -> Float[Tensor, "b *space"]:
    """Relevance at a layer, summed over its channels: `R(p) = Σ_k R_k(p)`."""
    found = share_out(case, composite_of(case, composite, unknown), start, stop=case.site)
    return case.maps(_part(found, part)).sum(1)


@method(
    "deep_taylor",
    title="Deep Taylor decomposition",
    site="input",
    signed=False,
    reduce="sum",
    units=SHARE,
    source="Montavon et al. 2017, arXiv:1512.02479, eqs. 12, 14, 16",
    misleads="when evidence against matters: it shares out the positive part of the score only, and hides the rest",
    doctor=composite_doctor("deep_taylor"),
)
def deep_taylor(case: Case) -> Float[Tensor, "b c *space"]:
    """z⁺ in every layer, the box rule at the pixels, from `max(0, f_c)`; never negative on ReLU networks.

    Where the range of the pixels is not known, the w² rule stands at the first layer.
    """
    _refuse_contrast(case, "deep_taylor")
    if bounds(case) is None:
        case.notes.append("the range of the pixels is not known: the w² rule was taken at the first layer")
    seeds = {value: seed.clamp(min=0) for value, seed in starts(case).items()}
    return account(case, composite_of(case, "deep_taylor"), seeds)


@method(
    "excitation_backprop",
    title="Excitation backprop",
    site="input",
    signed=False,
    reduce="sum",
    units="probability (sums to one)",
    source="Zhang et al. 2016, arXiv:1608.00507, eqs. 3, 8",
    misleads="when it is read as class evidence: it follows what is active, much of it for every class",
    doctor=composite_doctor("excitation"),
)
def excitation_backprop(case: Case) -> Float[Tensor, "b c *space"]:
    """`P(i) = Σ_j x_i w_ij⁺ / Σ_k x_k w_kj⁺ · P(j)` from probability one at the class.

    Inputs below zero count with negative weights, so that normalised pixels keep the sum.
    """
    _refuse_contrast(case, "excitation_backprop")
    return share_out(case, excitation(), "one")


@method(
    "contrastive_excitation_backprop",
    title="Contrastive excitation backprop",
    site="layer",
    units="difference of probabilities (sums to zero)",
    source="Zhang et al. 2016, arXiv:1608.00507, section 3.3",
    misleads="where a cell covers many pixels; what speaks for several classes cancels",
    doctor=composite_doctor("excitation"),
)
def contrastive_excitation_backprop(case: Case) -> Float[Tensor, "b *space"]:
    """`P(class) − P(not class)` at a layer; the dual walk starts with the last layer's weights negated."""
    _refuse_contrast(case, "contrastive_excitation_backprop")
    place = _before_last(case)
    P = share_out(case, excitation(), "one", stop=place)
    return case.maps(P - share_out(case, negated_last(excitation()), "one", stop=place), place).sum(1)


def _before_last(case: Case) -> Value:
    """The chosen layer, or what the last linear layers read where that layer lies behind them."""
    last = min(structure(case.trace).last, key=lambda node: node.position, default=None)
    if last is None or case.site.position < last.position:
        return case.site
    place = last.inputs[0]
    case.notes.append(
        f'"{case.layer}" lies behind the last layer, which is what is contrasted; what that reads was taken'
    )
    return place


def negated_last(composite: Composite) -> Composite:
    """The composite for the network whose last weights and biases are negated: the opposite of the class."""
    choices = tuple(
        Choice(c.rule.negated(), c.kind, c.layer, "last") for c in composite.choices if isinstance(c.rule, LinearRule)
    )
    return composite.with_choices(*choices, name=f"{composite.name}, last layer negated")


def _refuse_contrast(case: Case, name: str) -> None:
    """Probabilities and positive scores are shared out one class at a time; a difference would lose its second half."""
    if len(case.target.classes) > 1:
        raise MethodError(f"{name} explains one class; for a contrast use lrp, sglrp or clrp")


def _rows_of(case: Case, classes: tuple[int, ...]) -> Tensor:
    """One at each image's class, among the scores."""
    value = class_scores(case.trace)
    index = torch.tensor(classes * case.trace.batch if len(classes) == 1 else classes, device=value.data.device)
    return torch.zeros_like(value.data).scatter_(1, index[:, None], 1.0)


def _two_starts(case: Case, name: str) -> tuple[Value, Tensor, Tensor, Tensor]:
    """The scores, one at the class, and its opponents alike, and by their softmax: the others, or the class that a
    contrast names."""
    value = class_scores(case.trace)
    if not case.target.classes or case.target.layer is not None or value.data.dim() != 2:
        raise MethodError(f"{name} sets one class against the others; use a class as target, on a network with several")
    if value.shape[1] < 2:
        raise MethodError(f"{name} sets one class against the others, and this network has a single output")
    own, *rest = (_rows_of(case, classes) for classes in case.target.classes)
    if rest:
        return value, own, rest[0], rest[0]
    alike = (1 - own) / (value.shape[1] - 1)
    return value, own, alike, torch.softmax(value.data.masked_fill(own.bool(), float("-inf")), 1)


def _matched(case: Case, own: tuple[Composite, Tensor], dual: tuple[Composite, Tensor], value: Value) -> Tensor:
    """`R − R_dual · Σ R / Σ R_dual`: two walks whose sums are made equal, so that the difference sums to zero."""
    R, against = (account(case, composite, {value: seed}) for composite, seed in (own, dual))
    totals = [t.flatten(1).sum(1).view(-1, *[1] * (t.dim() - 1)) for t in (R, against)]
    ratio = torch.where(totals[1] == 0, torch.zeros_like(totals[1]), totals[0] / totals[1])
    return R - against * ratio


@method(
    "sglrp",
    title="Softmax-gradient LRP",
    site="input",
    units="relevance against the other classes (sums to zero)",
    source="Iwana, Kuroki & Uchida 2019, arXiv:1908.04351, eqs. 7, 8",
    misleads="when it is read as all the evidence: what speaks for several classes at once cancels",
    doctor=composite_doctor("deep_taylor"),
)
def sglrp(case: Case, *, composite: CompositeName = "deep_taylor") -> Float[Tensor, "b c *space"]:
    """Start with `∂ p_t / ∂ z`: `p_t (1 − p_t)` at the class, `−p_t p_n` at the others.

    Divided by `p_t (1 − p_t)`, so that a sure network keeps its map. The two signs walk apart and are matched, so that
    biases can't tip the sum.
    """
    value, own, _, shares = _two_starts(case, "sglrp")
    chosen = composite_of(case, composite)
    return _matched(case, (chosen, own), (chosen, shares), value)


@method(
    "clrp",
    title="Contrastive LRP",
    site="input",
    signed=False,
    reduce="sum",
    units=SHARE,
    source="Gu, Yang & Tresp 2018, arXiv:1812.02100, section 4",
    misleads="when evidence against matters: only what is left for the class is kept",
    doctor=composite_doctor("deep_taylor"),
)
def clrp(
    case: Case,
    *,
    composite: CompositeName = "deep_taylor",
    dual: Annotated[
        Literal["others", "opposite"], "CLRP1, all other classes alike; CLRP2, the class with its last weights negated"
    ] = "others",
) -> Float[Tensor, "b c *space"]:
    """`max(0, R − R_dual Σ R / Σ R_dual)`; R starts with one at the class, whatever the sign of its score.

    Where the target is a contrast, the class that it names is the only one of the others.

    The opposite needs a rule that tells a weight from its negative: z⁺ stands in the last layer, as in the paper.
    """
    value, own, others, _ = _two_starts(case, "clrp")
    chosen = composite_of(case, composite)
    if dual == "others":
        against = chosen, others
    else:
        chosen = chosen.with_choices(Choice(z_plus(bias="ignore"), position="last"))
        against = negated_last(chosen), own
    return _matched(case, (chosen, own), against, value).clamp(min=0)
