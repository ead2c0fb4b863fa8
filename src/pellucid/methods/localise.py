"""Weakly supervised localisation: from a heat map to a mask and a box (Simonyan 2013, section 3.2)."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool

from pellucid.core.errors import SettingError
from pellucid.render.explanation import Explanation


@dataclass(frozen=True, eq=False)
class Localisation:
    """Where the object probably is, on the grid of the original picture.

    Attributes:
        mask: the largest connected part of the heat above the threshold.
        box: its bounding box `(top, left, bottom, right)` in pixels, end-exclusive.
        threshold: the heat that a pixel needed.
    """

    mask: Bool[np.ndarray, "h w"]
    box: tuple[int, int, int, int]
    threshold: float


def localise(explanation: Explanation, fraction: float = 0.15) -> Localisation:
    """The largest connected part of the strongest positive heat.

    Args:
        explanation: any map; its positive heat counts.
        fraction: threshold as a fraction of the largest heat, in (0, 1).

    Raises:
        SettingError: a fraction outside its range, or a map without positive heat.

    Source: Simonyan et al. 2013, arXiv:1312.6034, section 3.2; thresholding instead of GraphCut.
    """
    if not 0 < fraction < 1:
        raise SettingError(f"fraction={fraction}; use a number between 0 and 1, such as 0.15")
    heat = np.nan_to_num(explanation.heat, nan=0.0)
    top = float(heat.max())
    if top <= 0:
        raise SettingError(
            "the map has no positive heat, so there is nothing to localise; try another method or target"
        )
    mask = largest_part(heat >= fraction * top)
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    box = (int(rows[0]), int(columns[0]), int(rows[-1]) + 1, int(columns[-1]) + 1)
    return Localisation(mask, box, fraction * top)


def largest_part(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """The largest 4-connected part of a mask, the first in reading order among equals."""
    parents: list[int] = []
    labels = np.full(mask.shape, -1, dtype=np.int64)
    previous: list[tuple[int, int, int]] = []
    for y, row in enumerate(mask):
        edges = np.flatnonzero(np.diff(np.concatenate([[0], row.view(np.int8), [0]])))
        runs = []
        for start, stop in zip(edges[::2].tolist(), edges[1::2].tolist(), strict=True):
            parents.append(len(parents))
            own = len(parents) - 1
            for s, e, other in previous:
                if s < stop and start < e:
                    parents[_root(parents, own)] = _root(parents, other)
            labels[y, start:stop] = own
            runs.append((start, stop, own))
        previous = runs
    if not parents:
        return np.zeros_like(mask)
    roots = np.array([_root(parents, p) for p in range(len(parents))])
    parts = np.where(labels >= 0, roots[labels], -1)
    sizes = np.bincount(parts[parts >= 0])
    return parts == sizes.argmax()


def _root(parents: list[int], own: int) -> int:
    while parents[own] != own:
        parents[own] = parents[parents[own]]
        own = parents[own]
    return own
