"""RISE: random masks, each weighted with what the network still says (B8)."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.edits import Masked
from pellucid.core.errors import SettingError
from pellucid.core.receipt import Check
from pellucid.methods.case import Case
from pellucid.methods.masks.ground import MOST, exact_enough, inside_image, numbers, soft_paints, whole
from pellucid.methods.masks.random_grids import BLOCK, RandomGrids
from pellucid.methods.registry import asks_scores, method

AGREE = 0.9
PIXELS = 2**24  # of masks held at a time when they are added up


@method(
    "rise",
    title="RISE",
    site="input",
    reduce="none",
    units="change of the score from its mean over the masks, where the pixel is seen",
    source="Petsiuk, Das & Saenko 2018, arXiv:1806.07421, equations 4 to 6; from memory",
    misleads="where little samples meet fine structure: what is smaller than a cell of the grid is smeared over it, "
    "and noise of the sampling looks like soft blobs; the standard error is a map of its own",
    doctor=asks_scores,
)
def rise(
    case: Case,
    *,
    samples: Annotated[int, "number of masks"] = 2000,
    cells: Annotated[int, "cells of a mask's grid along each axis; 0 is 7, or as many as fit"] = 0,
    keep_fraction: Annotated[float, "probability that a cell is kept, p"] = 0.5,
    fill: Annotated[
        Any, "what is seen where a mask hides: zero, black, grey, blur, several joined by +, or a tensor"
    ] = ("zero"),
    centred: Annotated[bool, "take the mean answer off, so that zero is neutral; no for the paper's own sum"] = True,
) -> Float[Tensor, "b *space"]:
    """`S(λ) = 1 / (p N) Σ_i f(I ⊙ M_i) M_i(λ)`: the mean score over the masks that show pixel λ.

    `M_i` is a Bernoulli(p) grid, enlarged linearly and shifted at random; `I ⊙ M` is `M ⊙ x + (1 − M) ⊙ fill`. The
    same N masks are used for every image and fill; several fills give the mean of their maps, and each as an extra map.
    By default the mean answer is taken off each one, `f(I ⊙ M_i) − f̄`: that is the paper's map less its constant, and
    less the noise that comes with it (a network that always says the same gets zero everywhere). The extra map
    "standard error" is that of the sum; the receipt compares the maps of two halves of the masks.

    Raises:
        SettingError: fewer than two samples, a grid finer than the image, a probability not between 0 and 1.
        MethodError: a score that is no number.
    """
    cells = _check(case, samples, cells, keep_fraction)
    paints = soft_paints(case, fill)
    like = exact_enough(case.x)
    masks = RandomGrids(case.x.shape[2:], cells, keep_fraction, case.seed, like)
    answers = _asked(case, masks, [paint for _, paint in paints], samples)
    weights = answers - answers.mean(2, keepdim=True) if centred else answers
    columns = [weights.mean(1), *(weights.unbind(1) if len(paints) > 1 else ())]  # the mean over fills, then each
    sums = _summed(masks, torch.cat(columns).to(like), samples, keep_fraction if centred else 0.0)
    images, often = len(case.x), samples * keep_fraction
    maps = [part / often for part in sums.total.split(images)]
    scatter = (sums.squares[:images] - sums.total[:images] ** 2 / samples).clamp(min=0) / (samples - 1)
    case.extra_maps["standard error"] = (scatter / samples) ** 0.5 / keep_fraction
    if len(paints) > 1:
        case.extra_maps.update({f"fill {name}": one for (name, _), one in zip(paints, maps[1:], strict=True)})
    for image, checks in enumerate(case.checks):
        checks.append(_halves(sums.half[image], sums.total[image] - sums.half[image]))
    return maps[0]


def _check(case: Case, samples: int, cells: int, keep_fraction: float) -> int:
    whole("samples", samples, 2, MOST)
    if not 0 < keep_fraction < 1:
        raise SettingError(f"keep_fraction={keep_fraction}; use a number between 0 and 1, such as 0.5")
    return inside_image(cells, 7, case)


def _asked(case: Case, masks: RandomGrids, paints: list[Tensor], samples: int) -> Float[Tensor, "b fills samples"]:
    """What the network says to every image under every fill and mask."""
    images, fills = len(case.x), len(paints)
    stacked = torch.stack(paints, 1).flatten(0, 1)  # (b * fills, c, ...)
    rows = [image for image in range(images) for _ in range(fills * samples)]

    def paint(which: Sequence[int], _: Tensor) -> Tensor:
        return stacked[[i // samples for i in which]]

    edits = Masked(case.x, paint, lambda which: masks([i % samples for i in which]), rows)
    return numbers(case.answers(edits), "rise").view(images, fills, samples)


@dataclass(frozen=True, eq=False)
class Sums:
    """`Σ w M` over all masks and over the first half, and `Σ (w (M − mean))²`."""

    total: Float[Tensor, "rows *space"]
    half: Float[Tensor, "rows *space"]
    squares: Float[Tensor, "rows *space"]


def _summed(masks: RandomGrids, weights: Float[Tensor, "rows samples"], samples: int, mean: float) -> Sums:
    """Mask after mask in their order, a fixed number at a time.

    Weights that sum to zero make `Σ w M` vary like `Σ w (M − mean)`; else `mean` is 0.
    """
    pixels = torch.Size(masks.space).numel()
    total, squares = (weights.new_zeros(len(weights), pixels) for _ in range(2))
    size, middle = min(BLOCK, max(1, PIXELS // pixels)), samples // 2
    half = total
    for start in [*range(0, middle, size), *range(middle, samples, size)]:
        part = range(start, min(start + size, middle if start < middle else samples))
        made, by = masks(part).flatten(1), weights[:, part.start : part.stop]
        total = total + by @ made
        squares += by**2 @ made.sub_(mean).square_()
        half = total if part.stop == middle else half
    return Sums(*(found.view(-1, *masks.space) for found in (total, half, squares)))


def _halves(first: Tensor, second: Tensor) -> Check:
    """How alike the maps of two halves of the masks are."""
    a, b = (part.double().flatten() - part.double().mean() for part in (first, second))
    size = float(a.norm() * b.norm())
    if size <= 1e-24 * max(1.0, float(first.abs().max()) ** 2):
        return Check("correlation of two halves", 0.0, None, "told", "the map is flat: no mask changed the score")
    alike = float((a @ b) / size)
    whole_map = max(2 * alike / (1 + alike), 0.0) if alike > -1 else 0.0
    noise = f"{(1 / whole_map - 1) ** 0.5:.2f} of the signal" if whole_map > 0 else "more than the signal"
    text = f"two halves of the masks give maps that correlate at {alike:.2f}; the noise of the whole is {noise}"
    verdict = "pass" if alike >= AGREE else "warn"
    return Check("correlation of two halves", alike, AGREE, verdict, text + "; more samples lower it")
