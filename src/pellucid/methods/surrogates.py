"""LIME: a linear stand-in for the network around one picture (B6)."""

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import numpy as np
import torch
from jaxtyping import Bool, Float, Float64
from torch import Tensor, from_numpy

from pellucid.core.errors import SettingError
from pellucid.core.receipt import Check
from pellucid.core.tables import Table, table
from pellucid.images.regions import Regions
from pellucid.methods.case import Case
from pellucid.methods.covering import region_columns
from pellucid.methods.linear_fits import Fit, lasso, ridge, support_vectors
from pellucid.methods.registry import asks_scores, method
from pellucid.methods.shapley.pictures import FILL, REGIONS, covering, painted, several_regions
from pellucid.methods.shapley.solve import MOST

LEAST_R2 = 0.5  # below it the map leaves more of the score's variation unexplained than it explains
LEAST_ACCURACY = 0.75  # half-way from guessing to always right
FOLDS = 10
SAME = 8  # times the rounding of the answers: a smaller spread is none

Surrogate = Literal["ridge", "lasso", "svm"]
SOLVERS = {"ridge": ridge, "lasso": lasso, "svm": support_vectors}


@dataclass(frozen=True, eq=False)
class Samples:
    """Edited pictures and what the network said to them.

    Attributes:
        seen: whether a region is seen, 1 or 0; row 0 is the untouched picture.
        near: weight of each in the fit.
        score: the answers.
    """

    seen: Float64[np.ndarray, "m n"]
    near: Float64[np.ndarray, " m"]
    score: Float64[np.ndarray, " m"]


@dataclass(frozen=True, eq=False)
class Surrogates:
    """A fit to all samples, and fits to parts of them, which show how far to trust it.

    Attributes:
        fit: to all.
        errors: one standard error of each weight, from leaving out a tenth of the samples in turn.
        quality: how well the fit says what the network said: R², or balanced accuracy for a classifier.
        held_out: the same for samples that the fit has not seen.
        stability: correlation of the weights between fits to two halves of the samples; 0 where one is constant.
    """

    fit: Fit
    errors: Float64[np.ndarray, " n"]
    quality: float
    held_out: float
    stability: float


@method(
    "lime",
    title="LIME",
    site="input",
    reduce="none",
    units="weight of a region, on each of its pixels: score gained when it is seen (svm: margin gained, no unit)",
    source="Ribeiro, Singh & Guestrin 2016, arXiv:1602.04938, equations 1 and 2",
    misleads="where regions only matter together: a weighted sum can't say that; the R² in the receipt shows it",
    doctor=asks_scores,
)
def lime(
    case: Case,
    *,
    regions: Annotated[Any, REGIONS] = "slic",
    count: Annotated[int, "about how many regions, where they are made for you"] = 50,
    fill: Annotated[Any, FILL] = "mean",
    samples: Annotated[int, "edited pictures, for each image"] = 1000,
    surrogate: Annotated[
        Surrogate, "ridge: least squares; lasso: few weights; svm: which regions keep the score above its median"
    ] = "ridge",
    penalty: Annotated[
        float, "how strongly weights are held back; ridge: shrinks them by this part; lasso: as part of what zeroes all"
    ] = 0.01,
    kernel_width: Annotated[float, "how fast pictures count less as more of them is covered"] = 0.25,
) -> Float[Tensor, "b *space"]:
    """`β = argmin Σ_z π(z) (f(z) − b − Σ_i β_i z_i)² + Ω(β)`, `z_i`: whether region i is seen (each one with chance ½).

    `π(z) = √exp(−d² / σ²)`, with `d = 1 − √(seen / all)` the cosine distance to the untouched picture, which is sample
    0, and σ = `kernel_width`: at half the regions covered still 0.5 of the full weight, so this is one linear model
    of the picture and not only of its near surroundings. `svm` fits labels instead: +1 where the score is above the
    median of all answers (not below it, where none is above), else −1, under the squared hinge.

    The receipt has the R² of the fit (svm: balanced accuracy), the same on held-out samples, and the correlation of the
    weights between two halves of the samples; the table has an error bar for each weight.

    Returns:
        The weight of the region that each pixel lies in; 0 where there is no region.

    Raises:
        SettingError: one region only, fewer samples than regions + 2, several fills, or a setting out of
            range.
        MethodError: the score is not a number for some edited picture; its covered regions are named.
    """
    _check(samples, surrogate, penalty, kernel_width)
    heat = torch.zeros_like(case.x[:, 0])
    for image in range(case.trace.batch):
        found = several_regions(case, regions, image, count)
        asked = _ask(case, image, found, fill, samples, kernel_width)
        known = surrogates(asked, surrogate, penalty, float(torch.finfo(case.x.dtype).eps))
        _tell(case, image, surrogate, known)
        case.tables[image].append(_table(case, image, found, known, surrogate))
        weights = np.zeros(found.count) if known is None else known.fit.weights
        heat[image] = painted(from_numpy(weights), found.labels, heat)
    return heat


def _check(samples: int, surrogate: str, penalty: float, kernel_width: float) -> None:
    if not 1 <= samples <= MOST:
        raise SettingError(f"samples={samples} came; use 1 to {MOST:,}")
    if not 0 <= penalty < 1:
        raise SettingError(f"penalty={penalty} came; use 0 or more and less than 1, such as 0.01")
    if surrogate == "svm" and penalty == 0:
        raise SettingError("penalty=0 came for svm, whose weights then grow without end; use a number above 0")
    if kernel_width <= 0:
        raise SettingError(f"kernel_width={kernel_width} came; use a number above 0, such as 0.25")


def _ask(case: Case, image: int, regions: Regions, fill: Any, samples: int, kernel_width: float) -> Samples:
    """Random coalitions of regions, and the network's answers."""
    n = regions.count
    if samples < n + 2:
        raise SettingError(f"samples={samples} came; {n} regions need {n + 2} or more for a linear fit")
    seen = np.random.default_rng(case.seed).random((samples, n)) < 0.5
    seen[0] = True
    score = covering(case, image, regions, fill).values(seen)
    return Samples(seen.astype(np.float64), nearness(seen, kernel_width), score)


def nearness(seen: Bool[np.ndarray, "m n"], kernel_width: float) -> Float64[np.ndarray, " m"]:
    """`√exp(−d² / σ²)` with d the cosine distance from all ones (d = 1 where nothing is seen)."""
    d = 1 - np.sqrt(seen.mean(1))
    return np.sqrt(np.exp(-(d**2) / kernel_width**2))


def surrogates(asked: Samples, surrogate: Surrogate, penalty: float, rounding: float = 0.0) -> Surrogates | None:
    """The fit with its error bars, quality and stability; None where all answers are the same, but for rounding."""
    if np.ptp(asked.score) <= SAME * rounding * np.abs(asked.score).max():
        return None
    y = labels_of(asked.score) if surrogate == "svm" else asked.score
    m = np.arange(len(y))

    def fitted(rows: np.ndarray) -> Fit:
        p = asked.near[rows] / asked.near[rows].sum()
        return SOLVERS[surrogate](asked.seen[rows], y[rows], p, penalty)

    judge = balanced_accuracy if surrogate == "svm" else r_squared
    fit = fitted(m)
    folds = [fitted(m[m % FOLDS != k]) for k in range(FOLDS)]
    unseen = np.stack([fold(asked.seen) for fold in folds])[m % FOLDS, m]
    weights = np.stack([fold.weights for fold in folds])
    errors = np.sqrt((FOLDS - 1) * ((weights - weights.mean(0)) ** 2).mean(0))
    return Surrogates(
        fit,
        errors,
        judge(y, fit(asked.seen), asked.near),
        judge(y, unseen, asked.near),
        _correlation(fitted(m[::2]).weights, fitted(m[1::2]).weights),
    )


def labels_of(score: Float64[np.ndarray, " m"]) -> Float64[np.ndarray, " m"]:
    """+1 where a score is above the median, or not below it where none is above; else −1."""
    above = score > np.median(score)
    return np.where(above if above.any() else score >= np.median(score), 1.0, -1.0)


def r_squared(
    y: Float64[np.ndarray, " m"], said: Float64[np.ndarray, " m"], weight: Float64[np.ndarray, " m"]
) -> float:
    """`1 − Σ w (y − said)² / Σ w (y − ȳ)²`, ȳ the weighted mean."""
    mean = np.average(y, weights=weight)
    return float(1 - (weight @ (y - said) ** 2) / (weight @ (y - mean) ** 2))


def balanced_accuracy(
    t: Float64[np.ndarray, " m"], said: Float64[np.ndarray, " m"], weight: Float64[np.ndarray, " m"]
) -> float:
    """The weighted share of right signs within each class, averaged over the two."""
    right = (t * said > 0) * weight
    return float(np.mean([right[t == label].sum() / weight[t == label].sum() for label in (-1, 1)]))


def _correlation(a: np.ndarray, b: np.ndarray) -> float:
    a, b = a - a.mean(), b - b.mean()
    size = float(np.linalg.norm(a) * np.linalg.norm(b))
    return float(a @ b) / size if size else 0.0


def _tell(case: Case, image: int, surrogate: str, known: Surrogates | None) -> None:
    name, bound = ("accuracy", LEAST_ACCURACY) if surrogate == "svm" else ("R²", LEAST_R2)
    checks = case.checks[image]
    if known is None:
        text = "the score is the same whatever is covered: there is nothing to explain, and all weights are zero"
        checks.append(Check(f"surrogate {name}", 0.0, bound, "warn", text))
        return
    means = "how much of the score's variation the weights explain"
    if surrogate == "svm":
        means = "how often the weights tell which side of the median the score is on, mean of both sides"
    for word, value in (("", known.quality), (", held out", known.held_out)):
        on = "samples the fit had not seen" if word else "the samples it was fitted to"
        verdict = "pass" if value >= bound else "warn"
        checks.append(Check(f"surrogate {name}{word}", value, bound, verdict, f"{means}, on {on}"))
    text = "correlation of the weights between fits to two halves of the samples; more samples bring it nearer to 1"
    checks.append(Check("stability", known.stability, None, "told", text))


def _table(case: Case, image: int, regions: Regions, known: Surrogates | None, surrogate: str) -> Table:
    n, (columns, first) = regions.count, region_columns(case, regions, image)
    weights, errors = ([0.0] * n, [0.0] * n) if known is None else (known.fit.weights.tolist(), known.errors.tolist())
    order = sorted(range(n), key=lambda r: -abs(weights[r]))
    unit = "margin" if surrogate == "svm" else "score"
    note = f"{surrogate} surrogate"
    if known is not None:
        note += f", intercept {known.fit.intercept:.4g} (the fit with every region covered)"
    rows = [(*first[r], weights[r], errors[r]) for r in order]
    return table("regions", (*columns, f"weight ({unit})", "± standard error"), rows, note)
