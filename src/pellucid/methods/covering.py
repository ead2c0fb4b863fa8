"""Fills and regions for a case: in the network's input space, on its grid."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.core.tables import Cell
from pellucid.images.fills import Fill
from pellucid.images.regions import Regions, regions
from pellucid.methods.case import Case

OF_ITSELF = ("mean", "blur", "inpaint")
Paint = Tensor | Callable[[Sequence[int], Tensor], Tensor]


def paint_of(case: Case, fill: Fill, image: int) -> Paint:
    """What covers one image, ready for `Masked` and `covered`.

    Returns:
        Inputs `(1, c, *space)`; a function `(which, masks) -> (n, c, *space)` where the fill hangs on the mask.

    Raises:
        SettingError: the fill lives in pixel space and the preprocessing is not known, or it does not fit the image.
    """
    x = case.x[image : image + 1]
    if fill.space == "inputs":
        return fill.paint(x[0], seed=case.seed)[None]
    preprocess = case.preprocess
    if preprocess is None:
        return _without_pixels(fill, x, case.seed)
    pixels = preprocess.denormalise(x)[0]
    if not fill.needs_mask:
        return preprocess.normalise(fill.paint(pixels, seed=case.seed)[None]).to(x)

    def paint(which: Sequence[int], masks: Tensor) -> Tensor:
        if masks.dtype is not torch.bool:
            raise SettingError(
                f'fill "{fill.name}" needs masks that hide a pixel or not, and these fade; use fill="blur" instead'
            )
        return preprocess.normalise(fill.under(pixels, masks, seed=case.seed)).to(x)

    return paint


def _without_pixels(fill: Fill, x: Tensor, seed: int) -> Paint:
    """Fills that only mix the picture's own values are the same in input space, whatever scaled the channels."""
    if fill.name not in OF_ITSELF:
        raise SettingError(
            f'fill "{fill.name}" lives in pixel space, and the preprocessing is not known; give preprocess=, '
            f'a tensor of inputs, or fill="zero" (zeros in input space), {", ".join(OF_ITSELF)}'
        )
    if not fill.needs_mask:
        return fill.paint(x[0], seed=seed)[None]
    return lambda which, masks: fill.under(x[0], masks, seed=seed)


def regions_of(case: Case, asked: Any, image: int, *, count: int = 50) -> Regions:
    """The regions of one image, on the network's input grid.

    Args:
        asked: as for `pellucid.images.regions.regions`.
        count: about how many, where the form asked for can choose.

    Raises:
        SettingError, ImageError: as `regions`.
    """
    placement = None if case.placements is None else case.placements[image]
    found = regions(asked, _pixels(case, image), count=count, seed=case.seed, placement=placement)
    if case.preprocess is None and found.kind in ("slic", "felzenszwalb", "quickshift"):
        case.notes.append("the preprocessing is not known: regions were found in the input rescaled to its own range")
    case.notes.extend(found.notes)
    return found


def region_columns(case: Case, found: Regions, image: int) -> tuple[tuple[str, ...], list[tuple[Cell, ...]]]:
    """The first columns of a table of regions, and a row for each: number, name where it has one, centre, size.

    The centre is a row and a column of the original picture; without a picture, coordinates of the input.
    """
    named = list(found.names) != [str(r) for r in range(found.count)]
    placement = None if case.placements is None or found.labels.dim() != 2 else case.placements[image]
    rows: list[tuple[Cell, ...]] = []
    for number in range(found.count):
        centre = [float(c) for c in (found.labels == number).nonzero().double().mean(0) + 0.5]
        if placement is None:
            where = "at " + ", ".join(f"{c:.0f}" for c in centre)
        else:
            where = "row {:.0f}, column {:.0f}".format(*placement.to_original(*centre))
        rows.append((number, *([found.names[number]] if named else []), where, found.sizes[number]))
    return ("region", *(["name"] if named else []), "where", "size px"), rows


def _pixels(case: Case, image: int) -> Tensor:
    """The image as people see it; its input stretched to [0, 1] where the preprocessing is not known."""
    x = case.x[image].detach()
    if case.preprocess is not None:
        return case.preprocess.denormalise(x).clamp(0, 1).cpu()
    low, high = x.amin(), x.amax()
    return ((x - low) / (high - low).clamp(min=1e-12)).cpu()
