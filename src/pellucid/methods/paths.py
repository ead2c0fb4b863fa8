"""Methods that average gradients over many inputs: SmoothGrad, Integrated and Expected Gradients (A5–A7)."""

from collections.abc import Iterator
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.core.pull import EXACT, Rules
from pellucid.core.receipt import Check
from pellucid.methods.case import Case
from pellucid.methods.gradients import PER_PIXEL
from pellucid.methods.registry import method
from pellucid.rules.rectifiers import DECONVNET, GUIDED

Base = Literal["saliency", "gradient_x_input", "guided_backprop", "deconvnet"]
BASES: dict[str, tuple[Rules, bool]] = {
    "saliency": (EXACT, False),
    "gradient_x_input": (EXACT, True),
    "guided_backprop": (GUIDED, False),
    "deconvnet": (DECONVNET, False),
}
COMPLETE = 0.02
STANDARD_ERRORS = 3.0
MOST = 10_000  # steps or samples of one image

Samples = Annotated[int, "number of noisy copies"]
NoiseFraction = Annotated[float, "standard deviation of the noise, as a fraction of the input's range"]
BaseName = Annotated[Base, "the method that is averaged"]


def _moments(
    case: Case, samples: int, noise_fraction: float, base: str, *, absolute: bool = False, around_first: bool = False
) -> tuple[Tensor, Tensor]:
    """Mean and mean square of a base method's maps over noisy copies of each image.

    With `around_first` both are taken of the maps' differences from the first one, so that a variance that is
    small beside the maps is not lost to rounding.
    """
    if not 1 <= samples <= MOST:
        raise SettingError(f"samples={samples}; use 1 to {MOST:,}")
    if noise_fraction < 0:
        raise SettingError(f"noise_fraction={noise_fraction}; use 0 or more, such as 0.15")
    rules, times_input = BASES[base]
    x = case.x
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)) * noise_fraction
    total, squares = torch.zeros_like(x), torch.zeros_like(x)
    inputs: list[Tensor] = []
    first: dict[int, Tensor] = {}

    def copies() -> Iterator[tuple[Tensor, int]]:
        for image in range(len(x)):
            for sample in range(samples):
                noisy = x[image] + spread[image] * case.noise(x.shape[1:], stream=sample)
                inputs.append(noisy)
                yield noisy, image

    def take(grads: Tensor, scores: Tensor, rows: list[int]) -> None:
        maps = grads * torch.stack(inputs[: len(rows)]) if times_input else grads
        del inputs[: len(rows)]
        maps = maps.abs() if absolute else maps
        if around_first:
            maps = maps - torch.stack([first.setdefault(row, one) for row, one in zip(rows, maps, strict=True)])
        where = torch.tensor(rows, device=x.device)
        total.index_add_(0, where, maps)
        squares.index_add_(0, where, maps**2)

    case.many(copies(), len(x) * samples, take, rules)
    return total / samples, squares / samples


def _cap(heat: Tensor, percentile: float) -> Tensor:
    """Values beyond a percentile of |heat| cut to it, per image; 100 leaves them."""
    if not 0 < percentile <= 100:
        raise SettingError(f"cap_percentile={percentile}; use a number above 0 and at most 100")
    if percentile == 100:
        return heat
    limits = np.percentile(heat.detach().abs().flatten(1).double().cpu().numpy(), percentile, axis=1)
    bound = torch.as_tensor(limits).to(heat).view(-1, *[1] * (heat.dim() - 1))
    return heat.clamp(-bound, bound)


@method(
    "smoothgrad",
    title="SmoothGrad",
    site="input",
    signed=False,
    reduce="max_abs",
    units=PER_PIXEL,
    source="Smilkov et al. 2017, arXiv:1706.03825, section 3.1",
    misleads="when smoothness is taken for truth: the noise level decides how smooth it looks",
)
def smoothgrad(
    case: Case,
    *,
    samples: Samples = 25,
    noise_fraction: NoiseFraction = 0.15,
    base: BaseName = "saliency",
    absolute: Annotated[bool, "average |maps| instead of signed maps"] = False,
    times_input: Annotated[bool, "multiply the mean with the image"] = False,
    cap_percentile: Annotated[float, "cut outliers beyond this percentile of |heat|; 100 keeps all"] = 100.0,
) -> Float[Tensor, "b c *space"]:
    """`M̂ = 1/n Σ M(x + N(0, σ²))` with σ = noise_fraction · (x_max − x_min), for any gradient method M.

    One copy without noise is the base method itself; the variance of the mean falls as 1/n.
    """
    mean, _ = _moments(case, samples, noise_fraction, base, absolute=absolute)
    return _cap(mean * case.x if times_input else mean, cap_percentile)


@method(
    "smoothgrad_squared",
    title="SmoothGrad²",
    site="input",
    signed=False,
    reduce="sum_abs",
    units="squared change of the score per unit of normalised input",
    source="Hooker et al. 2019, arXiv:1806.10758, section 3",
    misleads="where a few strong pixels dominate: squaring favours them, and hides the sign",
)
def smoothgrad_squared(
    case: Case, *, samples: Samples = 25, noise_fraction: NoiseFraction = 0.15, base: BaseName = "saliency"
) -> Float[Tensor, "b c *space"]:
    """`1/n Σ M(x + N(0, σ²))²`."""
    return _moments(case, samples, noise_fraction, base)[1]


@method(
    "vargrad",
    title="VarGrad",
    site="input",
    signed=False,
    reduce="sum_abs",
    units="squared change of the score per unit of normalised input",
    source="Adebayo et al. 2018, arXiv:1810.03307, appendix; Hooker et al. 2019, arXiv:1806.10758",
    misleads="when it is read as evidence: it shows where the gradient is unstable under noise",
)
def vargrad(
    case: Case, *, samples: Samples = 25, noise_fraction: NoiseFraction = 0.15, base: BaseName = "saliency"
) -> Float[Tensor, "b c *space"]:
    """The variance of the maps over noisy copies, `1/n Σ (M − 1/n Σ M)²`."""
    mean, squares = _moments(case, samples, noise_fraction, base, around_first=True)
    return (squares - mean**2).clamp(min=0)


def path_points(steps: int, rule: str) -> tuple[list[float], list[float]]:
    """Points `α_k` in [0, 1] and weights that sum to one.

    Raises:
        SettingError: no step, or an unknown rule.
    """
    if not 1 <= steps <= MOST:
        raise SettingError(f"steps={steps}; use 1 to {MOST:,}")
    if rule == "gauss_legendre":
        nodes, weights = np.polynomial.legendre.leggauss(steps)
        return list((nodes + 1) / 2), list(weights / 2)
    offset = {"left": 0.0, "middle": 0.5, "right": 1.0}.get(rule)
    if offset is not None:
        return [(k + offset) / steps for k in range(steps)], [1 / steps] * steps
    if rule == "trapezoid" and steps > 1:
        ends = [0.5 if k in (0, steps - 1) else 1.0 for k in range(steps)]
        return [k / (steps - 1) for k in range(steps)], [w / (steps - 1) for w in ends]
    raise SettingError(
        f"rule={rule!r} with {steps} steps; use gauss_legendre, left, middle, right, or trapezoid with 2 steps or more"
    )


def _completeness(case: Case, heat: Tensor, expected: Tensor, remedy: str) -> None:
    """Put `|Σ R − (f(x) − f(x'))| / |f(x) − f(x')|` into each image's receipt."""
    for image, (total, difference) in enumerate(
        zip(heat.double().flatten(1).sum(1).tolist(), expected.tolist(), strict=True)
    ):
        residual = abs(total - difference) / max(abs(difference), 1e-12)
        verdict = "pass" if residual <= COMPLETE else "warn"
        text = f"the heat sums to {total:.4g}, the score changed by {difference:.4g} from the baseline; {remedy}"
        case.checks[image].append(Check("completeness residual", residual, COMPLETE, verdict, text))


def chosen_baselines(case: Case, baseline: Any) -> list[tuple[str, Tensor]]:
    """The baselines asked for: a name, several names joined by `+`, a tensor, or a list of them."""
    asked = (
        baseline.split("+")
        if isinstance(baseline, str)
        else list(baseline)
        if isinstance(baseline, (list, tuple))
        else [baseline]
    )
    if asked == ["auto"]:
        asked = ["black" if case.preprocess is not None else "zero"]
        case.notes.append(f'baseline "{asked[0]}" was chosen for you')
    if not asked:
        raise SettingError("no baseline came; give a name, several joined by +, or a tensor of inputs")
    return [(b if isinstance(b, str) else "given tensor", case.baseline(b, stream)) for stream, b in enumerate(asked)]


def _scores_of(case: Case, inputs: Tensor) -> Tensor:
    """The target's number for other inputs, one per image, in double precision."""
    found = []
    for image in range(len(inputs)):
        found.append(case.scores(inputs[image : image + 1], [image]))
    return torch.cat(found).double()


@method(
    "integrated_gradients",
    title="Integrated Gradients",
    site="input",
    units="share of the score (sums to the score less that of the baseline)",
    source="Sundararajan, Taly & Yan 2017, arXiv:1703.01365, equation 1; rules: quadrature",
    misleads="where pixels look like the baseline: they get no heat, since the answer is relative to it",
)
def integrated_gradients(
    case: Case,
    *,
    baseline: Annotated[
        Any, "black, white, grey, mean, blur, uniform, zero, several joined by +, or a tensor of inputs"
    ] = "auto",
    steps: Annotated[int, "points on the path"] = 50,
    rule: Annotated[
        Literal["gauss_legendre", "left", "middle", "right", "trapezoid"], "where the points lie on the path"
    ] = "gauss_legendre",
) -> Float[Tensor, "b c *space"]:
    """`R = (x − x') ⊙ ∫₀¹ ∂ S_c(x' + α (x − x')) / ∂ x dα`, averaged over several baselines.

    Completeness: `Σ R = S_c(x) − S_c(x')`; what the chosen steps miss is reported in the receipt.
    """
    points, weights = path_points(steps, rule)
    x, total, expected = case.x, torch.zeros_like(case.x), torch.zeros(len(case.x), dtype=torch.float64)
    chosen = chosen_baselines(case, baseline)
    for _, start in chosen:
        mean = torch.zeros_like(x)
        shares: list[float] = []

        def inputs(start: Tensor = start, shares: list[float] = shares) -> Iterator[tuple[Tensor, int]]:
            for image in range(len(x)):
                for alpha, weight in zip(points, weights, strict=True):
                    shares.append(weight)
                    yield start[image] + alpha * (x[image] - start[image]), image

        def take(
            grads: Tensor, scores: Tensor, rows: list[int], mean: Tensor = mean, shares: list[float] = shares
        ) -> None:
            share = torch.tensor(shares[: len(rows)], dtype=x.dtype, device=x.device).view(-1, *[1] * (x.dim() - 1))
            del shares[: len(rows)]
            mean.index_add_(0, torch.tensor(rows, device=x.device), grads * share)

        case.many(inputs(), len(x) * steps, take)
        total += (x - start) * mean / len(chosen)
        expected += (case.score().double().cpu() - _scores_of(case, start).cpu()) / len(chosen)
    _completeness(case, total, expected, "exact with more steps")
    return total


def _expected(case: Case, baseline: Any, samples: int, noise_fraction: float) -> Tensor:
    """`E[(x + ε − x') ⊙ ∂ S_c(x' + α (x + ε − x')) / ∂ x]` over baselines, α ~ U(0, 1) and noise."""
    starts = chosen_baselines(case, baseline)
    if samples < len(starts):
        raise SettingError(f"samples={samples} for {len(starts)} baselines; use at least one for each")
    if noise_fraction < 0:
        raise SettingError(f"noise_fraction={noise_fraction}; use 0 or more, such as 0.09")
    x, total = case.x, torch.zeros_like(case.x)
    random = torch.Generator().manual_seed(case.seed)
    spread = (x.flatten(1).amax(1) - x.flatten(1).amin(1)) * noise_fraction
    jitter = torch.rand(samples, generator=random).tolist()
    of_each = [len(range(j, samples, len(starts))) for j in range(len(starts))]
    ways: list[Tensor] = []
    sums: list[list[float]] = [[] for _ in range(len(x))]

    def inputs() -> Iterator[tuple[Tensor, int]]:
        for image in range(len(x)):
            for sample in range(samples):
                turn, which = divmod(sample, len(starts))
                start, alpha = starts[which][1][image], (turn + jitter[sample]) / of_each[which]
                end = x[image] + (spread[image] * case.noise(x.shape[1:], stream=sample) if noise_fraction else 0)
                ways.append((end - start) * (samples / (len(starts) * of_each[which])))
                yield start + alpha * (end - start), image

    def take(grads: Tensor, scores: Tensor, rows: list[int]) -> None:
        parts = torch.stack(ways[: len(rows)]) * grads
        del ways[: len(rows)]
        total.index_add_(0, torch.tensor(rows, device=x.device), parts / samples)
        for row, part in zip(rows, parts.double().flatten(1).sum(1).tolist(), strict=True):
            sums[row].append(part)

    case.many(inputs(), len(x) * samples, take)
    base = sum(_scores_of(case, start).cpu() for _, start in starts) / len(starts)
    expected = case.score().double().cpu() - base
    for image, (drawn, difference) in enumerate(zip(sums, expected.tolist(), strict=True)):
        case.checks[image].append(_in_expectation(drawn, difference, noisy=noise_fraction > 0))
    return total


def _in_expectation(drawn: list[float], expected: float, *, noisy: bool) -> Check:
    """How far the mean of the draws lies from what it must be in expectation, in standard errors."""
    mean = float(np.mean(drawn))
    error = float(np.std(drawn, ddof=1)) / len(drawn) ** 0.5 if len(drawn) > 1 else float("inf")
    distance = abs(mean - expected) / error if error > 0 else 0.0 if mean == expected else float("inf")
    text = f"the heat sums to {mean:.4g} ± {error:.2g}, the score changed by {expected:.4g} from the baselines"
    if noisy:
        text += "; the added noise moves the score as well"
    verdict = "pass" if distance <= STANDARD_ERRORS else "told" if noisy else "warn"
    return Check("completeness in standard errors", distance, STANDARD_ERRORS, verdict, text)


@method(
    "expected_gradients",
    title="Expected Gradients",
    site="input",
    units="share of the score (sums to the score less the mean of the baselines, in expectation)",
    source="Erion et al. 2021, arXiv:1906.10670, equation 3",
    misleads="when the baselines don't fit the pictures: the answer is relative to them",
)
def expected_gradients(
    case: Case,
    *,
    baseline: Annotated[
        Any, "several baselines joined by +, or a list of names and tensors of inputs"
    ] = "black+white+blur+uniform",
    samples: Annotated[int, "number of random points"] = 64,
) -> Float[Tensor, "b c *space"]:
    """`R = E_{x', α}[(x − x') ⊙ ∂ S_c(x' + α (x − x')) / ∂ x]`, α stratified over [0, 1] for each baseline."""
    return _expected(case, baseline, samples, 0.0)


@method(
    "gradient_shap",
    title="GradientSHAP",
    site="input",
    units="share of the score (sums to the score less the mean of the baselines, in expectation)",
    source="Lundberg & Lee 2017, arXiv:1705.07874 (expected gradients with noise, as in the shap package)",
    misleads="when the baselines don't fit the pictures, and where details are small: the added noise blurs them",
)
def gradient_shap(
    case: Case,
    *,
    baseline: Annotated[
        Any, "several baselines joined by +, or a list of names and tensors of inputs"
    ] = "black+white+blur+uniform",
    samples: Annotated[int, "number of random points"] = 64,
    noise_fraction: NoiseFraction = 0.09,
) -> Float[Tensor, "b c *space"]:
    """Expected Gradients on noisy copies: `R = E[(x + ε − x') ⊙ ∂ S_c(x' + α (x + ε − x')) / ∂ x]`."""
    return _expected(case, baseline, samples, noise_fraction)
