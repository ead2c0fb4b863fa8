"""What the methods with masks share: the paint, answers that are numbers, limits of their settings."""

from typing import Any

import torch
from jaxtyping import Float
from torch import Tensor

from pellucid.core.errors import MethodError, SettingError
from pellucid.images.fills import fills
from pellucid.methods.case import Case
from pellucid.methods.covering import paint_of

MOST = 100_000  # masks or steps of one image


def exact_enough(x: Tensor) -> Tensor:
    """An empty tensor of at least single precision on the same device, as a pattern for masks."""
    return x.new_empty(0, dtype=torch.promote_types(x.dtype, torch.float32))


def soft_paints(case: Case, asked: Any) -> list[tuple[str, Float[Tensor, "b c *space"]]]:
    """Each fill's name, and its paint for every image.

    Raises:
        SettingError: an unknown fill, or one that hangs on the mask.
    """
    found = []
    for fill in fills(asked):
        parts = [None if fill.needs_mask else paint_of(case, fill, image) for image in range(len(case.x))]
        paint = [part for part in parts if isinstance(part, Tensor)]
        if len(paint) < len(parts):
            raise SettingError(
                f'fill "{fill.name}" is made for the hidden pixels of a hard mask, and these masks are soft; '
                "use blur, grey, black, mean or noise"
            )
        found.append((fill.name, torch.cat(paint).to(case.x)))
    if not found:
        raise SettingError("no fill came; give one such as zero, blur or grey")
    return found


def one_paint(case: Case, asked: Any) -> Float[Tensor, "b c *space"]:
    """The paint of the one fill asked for; `auto` is a blur, or zeros where the preprocessing is not known.

    Raises:
        SettingError: several fills, or one that can't be used.
    """
    if isinstance(asked, str) and asked == "auto":
        asked = "zero" if case.preprocess is None else "blur"
        case.notes.append(f'fill "{asked}" was chosen for you')
    found = soft_paints(case, asked)
    if len(found) > 1:
        raise SettingError(f"{len(found)} fills came, and a mask is searched for one; run the method once for each")
    return found[0][1]


def numbers(answers: Tensor, method: str) -> Tensor:
    """The answers, all of them finite.

    Raises:
        MethodError: the network answered with something that is no number.
    """
    bad = int((~torch.isfinite(answers)).sum())
    if bad:
        raise MethodError(
            f"{method}: the score was no finite number for {bad} of {answers.numel()} masked pictures; "
            "try another fill, or a target without a logarithm"
        )
    return answers


def scores_of(case: Case, inputs: Float[Tensor, "b c *space"], method: str) -> Float[Tensor, "b"]:
    """The scores of one other input for every image, finite."""
    found = [case.scores(one[None], [image]) for image, one in enumerate(inputs)]
    return numbers(torch.cat(found), method)


def whole(name: str, value: int, low: int, high: int) -> None:
    """
    Raises:
        SettingError: a count outside its limits.
    """
    if not low <= value <= high:
        raise SettingError(f"{name}={value}; use {low:,} to {high:,}")


def inside_image(cells: int, usual: int, case: Case) -> int:
    """How many cells a grid has along the shortest side: those asked for, or the usual ones as far as they fit.

    Raises:
        SettingError: a grid of fewer than two cells, or finer than the image's pixels.
    """
    shortest = min(case.x.shape[2:])
    chosen = cells or min(usual, shortest)
    if not 2 <= chosen <= shortest:
        raise SettingError(f"cells={cells}; the shortest side of the input has {shortest} px, so use 2 to {shortest}")
    return chosen
