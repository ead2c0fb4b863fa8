"""Vectors laid out on a plane so that neighbours are alike, and the plane cut into cells."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64

from pellucid.core.errors import MissingExtraError, SettingError, check_known

LAYOUTS = ("auto", "umap", "tsne", "pca")
NEIGHBOURS, NEAR = {False: 50, True: 20}, {False: 0.05, True: 0.01}  # usual, class atlas
PRINCIPAL, MOST_FOR_TSNE = 50, 20_000
PERCENTILES, MARGIN_FRACTION = (1, 99), 0.1


def which_layout(asked: str, count: int) -> tuple[str, str]:
    """The layout that is used, and what was chosen for the user.

    Raises:
        SettingError: an unknown layout.
        MissingExtraError: it needs a library that is not installed.
    """
    check_known("layout", asked, LAYOUTS)
    have = {"umap": find_spec("umap") is not None, "tsne": find_spec("sklearn") is not None, "pca": True}
    if asked != "auto":
        if not have[asked]:
            library = {"umap": "umap-learn", "tsne": "scikit-learn"}[asked]
            raise MissingExtraError(library, "atlas", f'the layout "{asked}"')
        return asked, ""
    chosen = "umap" if have["umap"] else "tsne" if have["tsne"] and count <= MOST_FOR_TSNE else "pca"
    why = {"umap": "", "tsne": ", since umap-learn is not installed", "pca": ", since no other library fits"}[chosen]
    return chosen, f"layout {chosen} was chosen for you{why}."


def lay_out(
    vectors: Float[np.ndarray, "n c"], layout: str, *, seed: int = 0, single_class: bool = False
) -> Float[np.ndarray, "n 2"]:
    """Places in [0, 1]², alike vectors near each other; vectors are compared by their angle.

    UMAP with 50 neighbours and least distance 0.05 (20 and 0.01 in the atlas of one class); t-SNE of the first 50
    principal components of the vectors brought to length 1; or their first two principal components.

    Args:
        layout: `umap`, `tsne` or `pca`.

    Source: Carter et al. 2019, Distill; McInnes et al. 2018, arXiv:1802.03426; van der Maaten & Hinton 2008, JMLR 9.
    """
    if len(vectors) < 3:
        raise SettingError(f"{len(vectors)} activations came; an atlas needs at least 3, and hundreds to show anything")
    if not np.isfinite(vectors).all():
        raise SettingError("some activations are no finite numbers; look for NaN in the layer first")
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    unit = (vectors / np.maximum(lengths, 1e-12)).astype(np.float64)
    if layout == "umap":
        return scaled(_umap(unit, seed, single_class))
    if layout == "tsne":
        return scaled(_tsne(unit, seed))
    return scaled(principal(unit, 2))


def principal(points: Float[np.ndarray, "n c"], count: int) -> Float[np.ndarray, "n count"]:
    """Coordinates on the first principal axes, whose signs are fixed by their largest entry."""
    centred = torch.from_numpy(points - points.mean(0))
    if len(points) < points.shape[1]:
        axes = torch.linalg.svd(centred, full_matrices=False)[2][:count]
    else:
        axes = torch.linalg.eigh(centred.T @ centred)[1].flip(1).T[:count]
    largest = axes.abs().argmax(1, keepdim=True)
    axes = axes * torch.where(axes.gather(1, largest) < 0, -1.0, 1.0).to(axes)
    found = (centred @ axes.T).numpy()
    return np.pad(found, ((0, 0), (0, count - found.shape[1])))


def _umap(unit: np.ndarray, seed: int, single_class: bool) -> np.ndarray:
    import umap

    neighbours = min(NEIGHBOURS[single_class], len(unit) - 1)
    reducer: Any = umap.UMAP(
        n_components=2,
        n_neighbors=neighbours,
        min_dist=NEAR[single_class],
        metric="cosine",
        random_state=seed,
        n_jobs=1,
    )
    return np.asarray(reducer.fit_transform(unit), np.float64)


def _tsne(unit: np.ndarray, seed: int) -> np.ndarray:
    from sklearn.manifold import TSNE

    few = principal(unit, min(PRINCIPAL, *unit.shape))
    perplexity = min(30.0, (len(few) - 1) / 3)
    found = TSNE(2, perplexity=perplexity, init="random" if few.shape[1] < 2 else "pca", random_state=seed, n_jobs=1)
    return np.asarray(found.fit_transform(few), np.float64)


def scaled(points: Float[np.ndarray, "n 2"]) -> Float[np.ndarray, "n 2"]:
    """Points clipped a little outside the percentiles 1 and 99, and scaled so that they fill [0, 1]²."""
    low, high = np.percentile(points, PERCENTILES, axis=0)
    margin = MARGIN_FRACTION * (high - low)
    clipped = np.clip(points, low - margin, high + margin)
    first, last = clipped.min(0), clipped.max(0)
    room = last - first
    return np.where(room > 0, (clipped - first) / np.where(room > 0, room, 1), 0.5)


def cells_of(places: Float[np.ndarray, "n 2"], side: int) -> Int64[np.ndarray, "n 2"]:
    """Row and column of the cell of each place of [0, 1]²: `⌊y n⌋, ⌊x n⌋`, the far edges in the last cell."""
    return np.clip(np.floor(places[:, ::-1] * side), 0, side - 1).astype(np.int64)
