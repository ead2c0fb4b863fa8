"""Maps that know nothing of the network: what a method must beat before it is believed."""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Float64, UInt8

LUMA = (0.299, 0.587, 0.114)  # ITU-R 601
REFERENCE = "perfect"
Seed = int | tuple[int, ...]


def random(pixels: UInt8[np.ndarray, "h w 3"], seed: Seed) -> Float64[np.ndarray, "h w"]:
    """Independent standard normal numbers."""
    return np.random.default_rng(seed).standard_normal(pixels.shape[:2])


def centre(pixels: UInt8[np.ndarray, "h w 3"], seed: Seed) -> Float64[np.ndarray, "h w"]:
    """`exp(-½ ((y - ½)² + (x - ½)²) / ¼²)`, y and x as fractions of the sides: things stand in the middle."""
    y, x = ((np.arange(n) + 0.5) / n - 0.5 for n in pixels.shape[:2])
    return np.exp(-0.5 * (y[:, None] ** 2 + x[None, :] ** 2) / 0.25**2)


def sobel(pixels: UInt8[np.ndarray, "h w 3"], seed: Seed) -> Float64[np.ndarray, "h w"]:
    """`√(G_y² + G_x²)` of the grey picture, its edge repeated: a map of edges, whatever the network looks at.

    Source: Adebayo et al. 2018, arXiv:1810.03292, who compare heat maps with an edge detector.
    """
    grey = np.pad(pixels / 255 @ np.array(LUMA), 1, mode="edge")
    down, across = grey[2:] - grey[:-2], grey[:, 2:] - grey[:, :-2]
    y = down[:, :-2] + 2 * down[:, 1:-1] + down[:, 2:]
    x = across[:-2] + 2 * across[1:-1] + across[2:]
    return np.hypot(y, x)


def perfect(mask: Bool[np.ndarray, "h w"]) -> Float64[np.ndarray, "h w"]:
    """The decisive mask itself: the reference that no method can beat in share and pointing."""
    return mask.astype(np.float64)


CONTROLS: Mapping[str, Callable[[UInt8[np.ndarray, "h w 3"], Seed], Float64[np.ndarray, "h w"]]] = {
    "random": random,
    "centre": centre,
    "sobel": sobel,
}
