"""The cells of an atlas: who lies in each, their mean, what it gives to the classes, and the matrix for its icon."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float32, Int64, UInt8

from pellucid.core.errors import SettingError
from pellucid.inside.atlas.collecting import Samples
from pellucid.inside.atlas.layout import cells_of

LABELS, EXAMPLES = 5, 6
PER_CELL = 20
LEAST_SIDE, MOST_SIDE = 3, 60
RIDGE_FRACTION = 1e-3


@dataclass(frozen=True)
class Cell:
    """One cell that is drawn.

    Attributes:
        row, column: its place; row 0 is at the top.
        count: how many activations lie in it.
        classes: the classes to which its activations give most, best first, or the one class of a class atlas.
        shares: mean attribution to each of these, in units of the score.
        examples: the samples nearest to the cell's mean.
    """

    row: int
    column: int
    count: int
    classes: tuple[int, ...]
    shares: tuple[float, ...]
    examples: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Grid:
    """All activations in their cells.

    Attributes:
        places: of each sample, in [0, 1]².
        rows: the number of the drawn cell of each sample; -1 where its cell holds too few.
        counts: how many samples each cell holds, drawn or not; they sum to the number of samples.
        cells: those that are drawn.
        means: the mean activation of each of them.
    """

    places: Float[np.ndarray, "n 2"]
    rows: Int64[np.ndarray, "n"]
    counts: Int64[np.ndarray, "side side"]
    cells: tuple[Cell, ...]
    means: Float32[np.ndarray, "m c"]


def side_for(count: int) -> int:
    """Cells along each side, so that a cell holds about twenty samples."""
    return int(np.clip(round((count / PER_CELL) ** 0.5), LEAST_SIDE, MOST_SIDE))


def gridded(
    samples: Samples, places: Float[np.ndarray, "n 2"], side: int, least: int, single_class: int | None = None
) -> Grid:
    """Samples put into cells; those with fewer than `least` are not drawn.

    Raises:
        SettingError: no cell holds enough.
    """
    at = cells_of(places, side)
    flat = at[:, 0] * side + at[:, 1]
    counts = np.bincount(flat, minlength=side * side)
    full = np.flatnonzero(counts >= least)
    if not len(full):
        raise SettingError(
            f"no cell of a grid of {side}×{side} holds {least} of the {len(samples)} activations (the fullest holds "
            f"{counts.max()}); take a smaller grid=, a smaller least= or more pictures"
        )
    number = np.full(side * side, -1, np.int64)
    number[full] = np.arange(len(full))
    rows = number[flat]
    cells, means = [], []
    for k, cell in enumerate(full.tolist()):
        members = np.flatnonzero(rows == k)
        mean = samples.vectors[members].astype(np.float64).mean(0)
        means.append(mean.astype(np.float32))
        shares = samples.attributions[members].astype(np.float64).mean(0)
        best = [single_class] if single_class is not None else np.argsort(-shares, kind="stable")[:LABELS].tolist()
        near = members[np.argsort(-cosines(samples.vectors[members], mean), kind="stable")[:EXAMPLES]]
        cells.append(
            Cell(
                cell // side, cell % side, int(counts[cell]), tuple(best), tuple(float(shares[c]) for c in best),
                tuple(near.tolist()),
            )
        )  # fmt: skip
    return Grid(places, rows, counts.reshape(side, side), tuple(cells), np.stack(means))


def cosines(vectors: Float[np.ndarray, "n c"], one: Float[np.ndarray, "c"]) -> Float[np.ndarray, "n"]:
    """Cosine of the angle of each vector to one; 0 for vectors of no length."""
    sizes = np.linalg.norm(vectors, axis=1) * np.linalg.norm(one)
    return vectors @ one / np.where(sizes > 0, sizes, 1)


def whitening(vectors: Float[np.ndarray, "n c"]) -> Float32[np.ndarray, "c c"]:
    """`S = (E[h hᵀ] + ε I)⁻¹`, ε a thousandth of the mean eigenvalue: the second moment about zero, not centred.

    Source: Carter et al. 2019, Distill, "Activation atlas", whitened visualisation.
    """
    h = vectors.astype(np.float64)
    moment = h.T @ h / len(h)
    scale = np.trace(moment) / len(moment) or 1.0
    return np.linalg.inv(moment + RIDGE_FRACTION * scale * np.eye(len(moment))).astype(np.float32)


def supporters(attributions: Float[np.ndarray, "n k"], single_class: int, most: int) -> Bool[np.ndarray, "n"]:
    """The samples of a class atlas: of those that give to the class the `most` that give most, and all that give more
    to it than to any other.
    """
    mine = attributions[:, single_class]
    best = np.zeros(len(mine), bool)
    best[np.argsort(-mine, kind="stable")[:most]] = True
    return (best & (mine > 0)) | (attributions.argmax(1) == single_class)


def rgb(pixels: Float[np.ndarray, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels in [0, 1] as a picture; of channels that are neither one nor three the first is shown."""
    shown = pixels if len(pixels) == 3 else np.repeat(pixels[:1], 3, 0)
    return np.rint(np.clip(shown, 0, 1) * 255).astype(np.uint8).transpose(1, 2, 0)
