"""DeepLIFT and DeepSHAP: the change of the score from a reference, shared out (A7, A8)."""

from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.pull import Walk
from pellucid.core.receipt import Check
from pellucid.core.replay import replayed
from pellucid.core.trace import Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.paths import chosen_baselines
from pellucid.methods.registry import Verdict, method
from pellucid.rules.deeplift import ELEMENTWISE, LINEAR_KINDS, DeepLiftRules, Nonlinearity, Reference

COMPLETE = 1e-3
NonlinearityName = Annotated[
    Literal["rescale", "reveal_cancel", "genomics"],
    "rescale; positive and negative contributions apart (reveal_cancel); or that in linear layers only (genomics)",
]


def deep_lift_walk(
    trace: Trace, seeds: dict[Value, Tensor], reference_input: Tensor, nonlinearity: Nonlinearity = "rescale"
) -> tuple[Walk, Reference]:
    """Multipliers of a recording against a reference input; `walk.at(layer)` gives those of a layer's differences."""
    others = [v.data for v in trace.inputs[1:]]
    reference = Reference(trace, replayed(trace, reference_input, *others))
    return Walk(
        trace, seeds, DeepLiftRules(f"deep_lift {nonlinearity}", reference=reference, nonlinearity=nonlinearity)
    ), reference


def _shared_out(case: Case, start: Tensor, nonlinearity: Nonlinearity) -> tuple[Tensor, Tensor, Reference]:
    """Contributions `m Δx` against one reference, and the change of the score."""
    seeds = dict(case.target.seeds(case.trace))
    walk, reference = deep_lift_walk(case.trace, seeds, start, nonlinearity)
    heat = walk.input() * (case.x - start)
    value = case.target.value(case.trace)
    before = reference.before(value)
    rows = list(range(case.trace.batch))
    change = case.target.read(value.data, rows).reshape(-1) - case.target.read(before, rows).reshape(-1)
    return heat, change, reference


def _mean_over(case: Case, baseline: Any, nonlinearity: Nonlinearity) -> Tensor:
    total, change, approximate = torch.zeros_like(case.x), torch.zeros(case.trace.batch), set[str]()
    chosen = chosen_baselines(case, baseline)
    case.progress.expect(len(chosen))
    for name, start in chosen:
        heat, difference, reference = _shared_out(case, start, nonlinearity)
        total, change = total + heat / len(chosen), change.to(difference) + difference / len(chosen)
        approximate |= reference.approximate
        case.progress.advance(1, name)
    if approximate:
        case.approximate.append(
            "the derivative was averaged along the way from the reference (no multiplier is defined) at "
            + ", ".join(sorted(approximate)[:5])
            + (f" and {len(approximate) - 5} more" if len(approximate) > 5 else "")
        )
    for image in range(case.trace.batch):
        case.checks[image].append(_summed(float(total[image].sum()), float(change[image])))
    return total


def _summed(heat: float, change: float) -> Check:
    error = abs(heat - change) / max(abs(change), 1e-12)
    text = f"the heat sums to {heat:.4g}, the score changed by {change:.4g} from the reference"
    return Check("summation-to-delta error", error, COMPLETE, "pass" if error <= COMPLETE else "fail", text)


def _doctor(trace: Trace) -> Verdict:
    from pellucid.rules.deeplift import LINEAR_BASES

    known = {*ELEMENTWISE, *LINEAR_KINDS, "convolution", "linear", "batch_norm", "max_pool", "scale", "detach"}
    others = sorted(
        {n.base for n in trace.nodes if n.kind not in known and n.base not in LINEAR_BASES and n.gate is None}
    )
    if others:
        return Verdict(
            "approximate", f"no multiplier is defined for {', '.join(others)}; derivatives are averaged there"
        )
    return Verdict("exact", "multipliers of every operation sum to the change of the score")


@method(
    "deep_lift",
    title="DeepLIFT",
    site="input",
    units="share of the change of the score from the reference",
    source="Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685, sections 3.2 to 3.5",
    misleads="where pixels look like the reference: they get no heat, since the answer is relative to it",
    doctor=_doctor,
)
def deep_lift(
    case: Case,
    *,
    baseline: Annotated[Any, "the reference: a name, several joined by +, or a tensor of inputs"] = "auto",
    nonlinearity: NonlinearityName = "rescale",
) -> Float[Tensor, "b c *space"]:
    """`C_i = m_Δx_i,Δt Δx_i` with `Σ_i C_i = t(x) − t(x⁰)`, averaged over several references."""
    return _mean_over(case, baseline, nonlinearity)


@method(
    "deep_shap",
    title="DeepSHAP",
    site="input",
    units="share of the score (sums to the score less the mean of the baselines')",
    source="Lundberg & Lee 2017, arXiv:1705.07874, section 4.2",
    misleads="when it is taken for Shapley values: they are those of each operation, chained, not of the network",
    doctor=_doctor,
)
def deep_shap(
    case: Case,
    *,
    baseline: Annotated[
        Any, "several baselines joined by +, or a list of names and tensors of inputs"
    ] = "black+white+blur",
) -> Float[Tensor, "b c *space"]:
    """`φ_i = E_{x⁰}[m_i (x_i − x_i⁰)]`: DeepLIFT's rescale rule averaged over a background."""
    return _mean_over(case, baseline, "rescale")
