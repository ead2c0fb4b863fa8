"""DeepLIFT and DeepSHAP: the change of the score from a reference, shared out (A7, A8); influence between layers."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Annotated, Any, Literal

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.derivatives import gradient_at
from pellucid.core.errors import LayerError, TraceError
from pellucid.core.layers import ancestors
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.progress import Progress
from pellucid.core.pull import Walk
from pellucid.core.receipt import Check
from pellucid.core.replay import replayed, with_first
from pellucid.core.trace import Trace, Value
from pellucid.methods.case import Case
from pellucid.methods.paths import chosen_baselines
from pellucid.methods.registry import Verdict, method
from pellucid.rules.deeplift import DeepLiftRules, Nonlinearity, rule_of
from pellucid.rules.differences import Reference, along_the_path, quadrature

COMPLETE = 1e-3
BACKGROUND = "black+white+blur"
NonlinearityName = Annotated[
    Literal["rescale", "reveal_cancel", "genomics"],
    "rescale; positive and negative contributions apart (reveal_cancel); or that in linear layers only (genomics)",
]


def deep_lift_walk(
    trace: Trace, seeds: Mapping[Value, Tensor], reference_input: Tensor, nonlinearity: Nonlinearity = "rescale"
) -> tuple[Walk, Reference]:
    """Multipliers of a recording against a reference input; `walk.at(layer)` gives those of a layer's differences.

    Raises:
        TraceError: a reference of another shape, or one for which the network's own selection gives other shapes.
    """
    reference = reference_of(trace, reference_input)
    return multipliers(trace, seeds, reference, nonlinearity), reference


def multipliers(
    trace: Trace, seeds: Mapping[Value, Tensor], reference: Reference, nonlinearity: Nonlinearity = "rescale"
) -> Walk:
    """The walk whose arriving tensors are multipliers; for one walk after another with one reference."""
    rules = DeepLiftRules(f"deep_lift {nonlinearity}", reference=reference, nonlinearity=nonlinearity)
    return Walk(trace, seeds, rules)


def reference_of(trace: Trace, start: Tensor) -> Reference:
    """The recording's values for a reference input.

    Raises:
        TraceError: it has another shape, or the network's own selection gives other shapes for it.
    """
    values = replayed(trace, *with_first(trace, start))
    other = next((v for v, t in values.items() if t.shape != v.shape), None)
    if other is not None:
        raise TraceError(
            f"{other!r} has shape {tuple(values[other].shape)} for the reference: how much the network selects depends "
            "on the picture, so there is no difference to share out; use integrated_gradients"
        )
    return Reference(trace, values)


def influence(
    trace: Trace,
    source: str,
    target: str,
    reference_input: Tensor,
    *,
    nonlinearity: Nonlinearity = "rescale",
    progress: Progress | None = None,
) -> Float[Tensor, "b sources targets"]:
    """How much each channel of one layer contributes to the change of each channel of a later one.

    `C_ij = Σ_positions m_Δa_i,Δb_j Δa_i`, b_j summed over its positions; `Σ_i C_ij = Δb_j` where everything that leads
    to the target goes through the source. One walk for each channel of the target.

    Args:
        trace: the recording.
        source, target: layers; `"relu#0"` names one of several calls.
        reference_input: what to compare with, in the network's input space, `(b, c, ...)`.

    Raises:
        LayerError: no such layer, or the target does not depend on the source.

    Example:
        >>> from pellucid import record
        >>> net = torch.nn.Sequential(torch.nn.Linear(2, 3, bias=False), torch.nn.Linear(3, 1, bias=False))
        >>> found = influence(record(net, torch.ones(1, 2)), "0", "1", torch.zeros(1, 2))
        >>> found.shape, bool((found[0, :, 0] - net[0].weight.sum(1) * net[1].weight[0]).abs().max() < 1e-6)
        (torch.Size([1, 3, 1]), True)

    Source: Shrikumar, Greenside & Kundaje 2017, arXiv:1704.02685, section 3.2.
    """
    a, b = trace.at(source), trace.at(target)
    if a is b or a not in ancestors(trace, b):
        raise LayerError(f'layer "{target}" does not depend on layer "{source}"; name the earlier layer first')
    reference, progress = reference_of(trace, reference_input), progress or Progress()
    (of_a, of_b), columns = (_channel(trace, v) for v in (a, b)), []
    progress.expect(b.shape[of_b])
    for channel in range(b.shape[of_b]):
        seed = torch.zeros(b.shape, dtype=b.dtype, device=b.data.device)
        seed.select(of_b, channel).fill_(1)
        m = multipliers(trace, {b: seed}, replace(reference, revealed={}), nonlinearity).at(a)
        shares = (m * reference.change(a)).movedim(of_a, 1)
        columns.append(shares.reshape(*shares.shape[:2], -1).sum(2))
        progress.advance(1, f"{source} to {target}")
    return torch.stack(columns, 2)


def _channel(trace: Trace, value: Value) -> int:
    """The axis of the channels."""
    if len(value.shape) < 2:
        raise LayerError(f"{value!r} has no channels")
    known = layout(trace).get(value, UNKNOWN).channel
    return 1 if known is None else known


def _seeds(case: Case, reference: Reference) -> dict[Value, Tensor]:
    """`m_Δy,Δt`: the target's derivative, averaged on the way from the reference where it changes on it."""
    value = case.target.value(case.trace)
    rows = list(range(case.trace.batch))
    case.target.score(case.trace)

    def slope(t: float) -> Tensor:
        return gradient_at(reference.toward(value, t), lambda y: case.target.read(y, rows))

    ends = slope(1.0)
    if torch.equal(ends, slope(0.0)):
        return {value: ends}
    case.approximate.append("the target is not linear in the scores: its derivative was averaged from the reference on")
    return {value: sum((weight * slope(t) for t, weight in quadrature()), torch.zeros_like(ends))}


def _shared_out(case: Case, start: Tensor, nonlinearity: Nonlinearity) -> tuple[Tensor, Tensor, Reference]:
    """Contributions `m Δx` against one reference, and the change of the score."""
    reference = reference_of(case.trace, start)
    walk = multipliers(case.trace, _seeds(case, reference), reference, nonlinearity)
    heat = walk.input() * (case.x - start)
    value = case.target.value(case.trace)
    rows = list(range(case.trace.batch))
    now, before = (case.target.read(t, rows).reshape(-1) for t in (value.data, reference.before(value)))
    return heat, now - before, reference


def _mean_over(case: Case, baseline: Any, nonlinearity: Nonlinearity) -> Tensor:
    total, change, approximate, whole = torch.zeros_like(case.x), torch.zeros(case.trace.batch), set[str](), set[str]()
    chosen = chosen_baselines(case, baseline)
    case.progress.expect(len(chosen))
    for name, start in chosen:
        heat, difference, reference = _shared_out(case, start, nonlinearity)
        total, change = total + heat / len(chosen), change.to(difference) + difference / len(chosen)
        approximate, whole = approximate | reference.approximate, whole | reference.whole
        case.progress.advance(1, name)
    if approximate:
        words = "the derivative was averaged along the way from the reference (no multiplier is defined) at "
        case.approximate.append(words + _some(approximate))
    if whole:
        case.notes.append("rescaled, since no linear operation stands right before: " + _some(whole))
    for image in range(case.trace.batch):
        case.checks[image].append(_summed(total[image], float(change[image])))
    return total


def _some(names: set[str]) -> str:
    return ", ".join(sorted(names)[:5]) + (f" and {len(names) - 5} more" if len(names) > 5 else "")


def _summed(heat: Tensor, change: float) -> Check:
    """The sum against the change; a change that is tiny beside the heat that cancels is held against the heat."""
    found, mass = float(heat.sum()), float(heat.abs().sum())
    error = abs(found - change) / max(abs(change), 1e-3 * mass, 1e-12)
    text = f"the heat sums to {found:.4g}, the score changed by {change:.4g} from the reference"
    return Check("summation-to-delta error", error, COMPLETE, "pass" if error <= COMPLETE else "fail", text)


def deep_lift_doctor(trace: Trace) -> Verdict:
    """Whether every operation of a recording has a rule that sums to its change."""
    others = sorted({n.base for n in trace.nodes if rule_of(n) is along_the_path})
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
    doctor=deep_lift_doctor,
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
    doctor=deep_lift_doctor,
)
def deep_shap(
    case: Case,
    *,
    baseline: Annotated[Any, "several baselines joined by +, or a list of names and tensors of inputs"] = "auto",
) -> Float[Tensor, "b c *space"]:
    """`φ_i = E_{x⁰}[m_i (x_i − x_i⁰)]`: DeepLIFT's rescale rule averaged over a background."""
    if baseline == "auto" and case.preprocess is not None:
        baseline = BACKGROUND
        case.notes.append(f'baselines "{BACKGROUND}" were chosen for you')
    return _mean_over(case, baseline, "rescale")
