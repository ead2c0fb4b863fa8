"""The two colour maps, interpolated in OKLab, and the colour of a missing value.

Diverging: blue, neutral, orange-red, of equal lightness at equal distance from zero. Sequential: neutral, amber, red,
purple, of falling lightness. Both start at the same neutral colour, which is zero. Blue against orange-red stays
apart for every common kind of colour blindness.

Source: Ottosson 2020, "A perceptual color space for image processing" (OKLab).
"""

import numpy as np
from jaxtyping import Float, UInt8

STEPS = 256
_LIGHTEST, _DIVERGING_END, _SEQUENTIAL_END = 0.955, 0.46, 0.30
_NEUTRAL = (0.004, 90.0)
_WARM = ((0.15, 42.0), (0.185, 28.0))
_COOL = ((0.13, 248.0), (0.185, 264.0))
_HEAT = ((0.125, 82.0), (0.175, 45.0), (0.185, 5.0), (0.13, 318.0))
NAN_COLOURS = ((110, 110, 110), (165, 165, 165))
NAN_STRIPES = 48

_TO_LMS = np.array(
    [[1.0, 0.3963377774, 0.2158037573], [1.0, -0.1055613458, -0.0638541728], [1.0, -0.0894841775, -1.2914855480]]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def oklab_to_srgb(lab: Float[np.ndarray, "n 3"]) -> UInt8[np.ndarray, "n 3"]:
    """OKLab (L in 0..1) to 8-bit sRGB; colours outside the gamut are clipped."""
    linear = np.clip((lab @ _TO_LMS.T) ** 3 @ _TO_RGB.T, 0.0, 1.0)
    encoded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return np.rint(255 * encoded).astype(np.uint8)


def _arm(anchors: tuple[tuple[float, float], ...], darkest: float) -> UInt8[np.ndarray, "n 3"]:
    chroma, degrees = np.array((_NEUTRAL, *anchors)).T
    radians = np.deg2rad(degrees)
    at = np.linspace(0.0, 1.0, len(chroma))
    t = np.linspace(0.0, 1.0, STEPS + 1)
    lightness = _LIGHTEST + (darkest - _LIGHTEST) * t
    a = np.interp(t, at, chroma * np.cos(radians))
    b = np.interp(t, at, chroma * np.sin(radians))
    return oklab_to_srgb(np.stack([lightness, a, b], axis=1))


def _with_alpha(colours: UInt8[np.ndarray, "n 3"], distance: Float[np.ndarray, " n"]) -> UInt8[np.ndarray, "n 4"]:
    alpha = np.rint(255 * distance).astype(np.uint8)
    return np.concatenate([colours, alpha[:, None]], axis=1)


def _diverging() -> UInt8[np.ndarray, "n 4"]:
    cool, warm = _arm(_COOL, _DIVERGING_END), _arm(_WARM, _DIVERGING_END)
    distance = np.abs(np.linspace(-1.0, 1.0, 2 * STEPS + 1))
    return _with_alpha(np.concatenate([cool[:0:-1], warm]), distance)


DIVERGING = _diverging()
SEQUENTIAL = _with_alpha(_arm(_HEAT, _SEQUENTIAL_END), np.linspace(0.0, 1.0, STEPS + 1))
NEUTRAL: tuple[int, int, int] = (int(SEQUENTIAL[0, 0]), int(SEQUENTIAL[0, 1]), int(SEQUENTIAL[0, 2]))
