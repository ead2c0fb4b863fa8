"""Regions that the user brings: arrays of labels, masks, atlases, on the input's grid or on the original picture's."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Int64, Shaped
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.images.placement import Placement
from pellucid.images.regions.regions import Regions, numbered

MASK_NAME = "mask"
_LARGEST_LABEL = 2**53


def given(
    array: Shaped[np.ndarray, "..."] | Shaped[Tensor, "..."],
    space: tuple[int, ...],
    *,
    names: Mapping[Any, Any] | Sequence[Any] | None = None,
    outside: int | None = None,
    placement: Placement | None = None,
) -> Regions:
    """Regions from labels or a mask.

    Args:
        array: whole numbers, one region for each number, -1 for none; or bool, one region where it is True.
        space: the size of the network's input.
        names: by label.
        outside: the label that means no region; None where every label from 0 is one.
        placement: where the input lies on the original picture; an array of the original's size is cut and sampled
            with it, at the centre of each input pixel.

    Raises:
        SettingError: another size, numbers that are not whole or below -1, or nothing inside the input.
    """
    labels, kind = _labels(array)
    if outside is not None and kind == "labels":
        labels = torch.where(labels == outside, -1, labels)
    regions = int(torch.unique(labels[labels >= 0]).numel())
    if not regions:
        what = "a mask that is nowhere True" if kind == "mask" else "labels that name no region"
        raise SettingError(f"{what} came; mark at least one pixel")
    placed = _placed(labels, space, placement)
    if not bool((placed >= 0).any()):
        raise SettingError(
            "none of the regions lies inside the network's input, which is a part of the picture; see its placement"
        )
    words = {0: MASK_NAME} if kind == "mask" else _by_label(names)
    found = numbered(placed, kind, words)
    lost = regions - found.count
    note = f"{lost} of {regions} regions lie outside the network's input, or between its pixels"
    return Regions(found.labels, kind, found.names, (note,)) if lost else found


def _labels(array: Any) -> tuple[Int64[Tensor, "..."], str]:
    """Checked labels of 64 bits with -1 for none, and whether they are labels or a mask."""
    values = array.detach().cpu().numpy() if isinstance(array, Tensor) else array
    if values.dtype == np.bool_:
        return torch.from_numpy(np.where(values, 0, -1).astype(np.int64)), "mask"
    if values.dtype.kind not in "iu":
        raise SettingError(f"labels of {values.dtype} came; give whole numbers (try .astype(int)) or bool for a mask")
    if values.size and not -1 <= int(values.min()) <= int(values.max()) <= _LARGEST_LABEL:
        raise SettingError(
            f"labels from {values.min()} to {values.max()} came; a label is 0 or more, and -1 where there is no region"
        )
    return torch.from_numpy(values.astype(np.int64)), "labels"


def _by_label(names: Mapping[Any, Any] | Sequence[Any] | None) -> dict[int, str]:
    pairs = names.items() if isinstance(names, Mapping) else enumerate(names or ())
    try:
        return {int(label): str(name) for label, name in pairs}
    except (TypeError, ValueError) as error:
        raise SettingError(f"names under {list(names or ())[:3]} came; a mapping goes from labels to names") from error


def _placed(labels: Tensor, space: tuple[int, ...], placement: Placement | None) -> Tensor:
    """The labels on the grid of the input; -1 where the input reaches beyond the picture."""
    size = tuple(labels.shape)
    if placement is not None and size == placement.original_px and space == placement.input_px:
        whole = Placement.identity(*space)
        return labels if placement == whole else _sampled(labels, placement)
    if size == space:
        return labels
    original = f", or of the original picture, {placement.original_px}" if placement is not None else ""
    turned = "; the axes seem to be turned" if sorted(size) == sorted(space) else ""
    raise SettingError(
        f"labels of shape {size} came; expected the size of the network's input, {space}{original}{turned}"
    )


def _sampled(labels: Tensor, placement: Placement) -> Tensor:
    height, width = placement.input_px
    y, x = placement.to_original(np.arange(height) + 0.5, np.arange(width) + 0.5)
    rows, columns = (torch.from_numpy(np.floor(at).astype(np.int64)) for at in (y, x))
    inside = _within(rows, labels.shape[0])[:, None] & _within(columns, labels.shape[1])
    taken = labels[rows.clamp(0, labels.shape[0] - 1)][:, columns.clamp(0, labels.shape[1] - 1)]
    return torch.where(inside, taken, -1)


def _within(places: Tensor, size: int) -> Tensor:
    return (places >= 0) & (places < size)
