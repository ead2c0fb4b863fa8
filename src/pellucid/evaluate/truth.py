"""The truth score: how far a heat map agrees with what is known of its picture."""

from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Float64

from pellucid.core.errors import SettingError
from pellucid.core.ranks import spearman


@dataclass(frozen=True, eq=False)
class Known:
    """What is known of one picture, one network and one question.

    Attributes:
        mask: the pixels that decide; at least one.
        names: of the parts that are seen.
        places: the pixels in which each part is seen.
        importances: by how much the explained score falls when the part is taken away, and the scene painted again.
    """

    mask: Bool[np.ndarray, "h w"]
    names: tuple[str, ...]
    places: Bool[np.ndarray, "parts y x"]
    importances: Float64[np.ndarray, " numbers"]

    def __post_init__(self) -> None:
        if not self.mask.any():
            raise SettingError(
                "the mask of the decisive pixels is empty, so no map can be right; leave the picture out"
            )
        counts = {len(self.names), len(self.places), len(self.importances)}
        if len(counts) > 1 or self.places.shape[1:] != self.mask.shape:
            raise SettingError(
                f"{len(self.names)} names, places {self.places.shape} and {len(self.importances)} importances came for "
                f"a picture of {self.mask.shape}; give one of each a part, places on the picture's grid"
            )


@dataclass(frozen=True)
class Agreement:
    """The three components of the truth score of one heat map; NaN where one is undefined.

    Attributes:
        share: of the positive heat, how much lies on the mask, in [0, 1].
        rank_correlation: of the heat of the parts with their importances, in [-1, 1].
        pointing: 1 if the largest heat lies on the mask, 0 if not.
    """

    share: float
    rank_correlation: float
    pointing: float

    @property
    def defined(self) -> bool:
        """Whether all three components are."""
        return not np.isnan([self.share, self.rank_correlation, self.pointing]).any()

    @property
    def counted(self) -> "Agreement":
        """The same with what an undefined component counts as: no share, no correlation, not pointed."""
        nothing = [0.0 if np.isnan(v) else v for v in (self.share, self.rank_correlation, self.pointing)]
        return Agreement(*nothing)

    @property
    def score(self) -> float:
        """`(share + (1 + rank_correlation) / 2 + pointing) / 3`, in [0, 1]."""
        one = self.counted
        return (one.share + (1 + one.rank_correlation) / 2 + one.pointing) / 3


def agreement(heat: Float[np.ndarray, "h w"], known: Known) -> Agreement:
    """How far one heat map agrees with the truth; the scale of the heat does not matter.

    Args:
        heat: signed, on the picture's grid. A value that is no finite number makes all three components undefined.
        known: the truth about the picture.

    Raises:
        SettingError: the heat has another size than the picture.
    """
    if heat.shape != known.mask.shape:
        raise SettingError(f"heat of {heat.shape} came for a picture of {known.mask.shape}; place it on the picture")
    if not np.isfinite(heat).all():
        return Agreement(np.nan, np.nan, np.nan)
    correlation = spearman(part_sums(heat, known.places), known.importances)
    return Agreement(share_inside(heat, known.mask), correlation, pointing(heat, known.mask))


def share_inside(heat: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """`Σ_{mask} max(e, 0) / Σ max(e, 0)`, in [0, 1]; NaN without positive heat, or for an empty mask.

    Source: relevance mass accuracy, Arras et al. 2022, arXiv:2003.07258, eq. 3, with the positive part as pooling.
    """
    positive = np.maximum(heat.astype(np.float64), 0)
    largest = positive.max(initial=0.0)
    if largest <= 0 or not mask.any():
        return float("nan")
    positive /= largest  # so that no sum of very large or very small heat overflows
    return float(positive[mask].sum() / positive.sum())


def part_sums(heat: Float[np.ndarray, "h w"], places: Bool[np.ndarray, "p h w"]) -> Float64[np.ndarray, " p"]:
    """`E_p = Σ_{pixels of p} e`: the signed heat of each part."""
    return np.array([heat[place].sum(dtype=np.float64) for place in places])


def pointing(heat: Float[np.ndarray, "h w"], mask: Bool[np.ndarray, "h w"]) -> float:
    """1 if the largest heat lies on the mask, 0 if not; of several equal ones, the share that does.

    NaN for an empty mask, which can be neither hit nor missed.

    Source: the pointing game, Zhang et al. 2016, arXiv:1608.00507, without its margin of 15 pixels.
    """
    return float(mask[heat == heat.max()].mean()) if mask.any() else float("nan")
