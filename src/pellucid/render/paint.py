"""How a map becomes colours: zero is neutral, limits are symmetric and stated, a missing value is hatched."""

from typing import Literal, get_args

import numpy as np
from jaxtyping import Float, Float32, Int16, UInt8
from PIL import Image, ImageDraw, ImageFont

from pellucid.core.errors import SettingError
from pellucid.render.colours import DIVERGING, NAN_COLOURS, NAN_STRIPES, SEQUENTIAL, STEPS

Sign = Literal["all", "positive", "negative", "absolute"]


def signed_part(heat: Float[np.ndarray, "h w"], sign: Sign) -> Float[np.ndarray, "h w"]:
    """The part of the heat that is asked for; what is left out becomes zero, NaN stays NaN."""
    parts = {"all": lambda: heat, "positive": lambda: np.maximum(heat, 0), "negative": lambda: np.minimum(heat, 0)}
    if sign not in get_args(Sign):
        raise SettingError(f'sign is "{sign}"; expected one of {", ".join(get_args(Sign))}')
    return parts.get(sign, lambda: np.abs(heat))()


def limit(heat: Float[np.ndarray, "..."], percentile: int | float = 98) -> float:
    """Where the colours end: the percentile of |heat|, or its maximum where that percentile is zero.

    Args:
        heat: any shape; values that are not finite are left out.
        percentile: over 0, at most 100.

    Returns:
        A number >= 0 in the unit of the heat; 0 for a map that is zero, empty or NaN everywhere.

    Raises:
        SettingError: the percentile is out of range.
    """
    if not 0 < percentile <= 100:
        raise SettingError(f"percentile is {percentile}; expected a number over 0 and at most 100, such as 98")
    sizes = np.abs(heat[np.isfinite(heat)])
    if not sizes.size:
        return 0.0
    return float(np.percentile(sizes, percentile)) or float(sizes.max())


def rgba(heat: Float[np.ndarray, "h w"], end: float, diverging: bool) -> UInt8[np.ndarray, "h w 4"]:
    """Colours of a map, with an alpha proportional to the distance from zero.

    Args:
        heat: values; what lies beyond the limit gets the last colour.
        end: the limit in the unit of the heat; 0 draws everything neutral.
        diverging: blue to red around zero; else from neutral to dark, negative values neutral.
    """
    table = DIVERGING if diverging else SEQUENTIAL
    whole_colours = table.view(np.uint32)[:, 0]  # one look-up instead of four
    colours = whole_colours[_positions(heat, end, diverging)].view(np.uint8).reshape(*heat.shape, 4)
    missing = ~np.isfinite(heat)
    if missing.any():
        colours[missing] = _hatch(*heat.shape)[missing]
    return colours


def draw(heat: Float[np.ndarray, "h w"], end: float, diverging: bool) -> Image.Image:
    """The map alone, opaque, on its own grid."""
    return Image.fromarray(np.ascontiguousarray(rgba(heat, end, diverging)[..., :3]))


def blend(
    picture: Image.Image, heat: Float[np.ndarray, "h w"], end: float, diverging: bool, opacity: int | float = 0.6
) -> Image.Image:
    """Lays a map over a picture of the same size; where the heat is zero the picture is left as it is.

    Raises:
        SettingError: the opacity is not in 0..1.
    """
    if not 0 <= opacity <= 1:
        raise SettingError(f"opacity is {opacity}; expected a number from 0 (picture alone) to 1")
    layer = rgba(heat, end, diverging)
    alpha = np.rint(np.arange(256) * opacity).astype(np.uint8)[layer[..., 3]]
    colours = Image.fromarray(np.ascontiguousarray(layer[..., :3]))
    return Image.composite(colours, picture.convert("RGB"), Image.fromarray(alpha))


def strip(diverging: bool, sign: Sign = "all") -> UInt8[np.ndarray, "1 n 3"]:
    """The colours from the lower to the upper limit, as one row of pixels."""
    both = diverging and sign != "absolute"
    table = (DIVERGING if both else SEQUENTIAL)[:, :3]
    rows = {"positive": table[STEPS:], "negative": table[: STEPS + 1]} if both else {}
    return rows.get(sign, table)[None]


def ends(end: float, diverging: bool, sign: Sign = "all") -> tuple[float, float]:
    """The numbers at both ends of the colour bar."""
    low = -end if diverging and sign in ("all", "negative") else 0.0
    return low, 0.0 if diverging and sign == "negative" else end


def colour_bar(end: float, diverging: bool, sign: Sign = "all", width_px: int = 256) -> Image.Image:
    """A horizontal colour bar with its limits printed below it."""
    height = 34
    bar = Image.new("RGB", (width_px, height), "white")
    bar.paste(Image.fromarray(strip(diverging, sign)).resize((width_px, 14), Image.Resampling.NEAREST), (0, 0))
    low, high = (f"{value:.3g}" for value in ends(end, diverging, sign))
    pen, font = ImageDraw.Draw(bar), ImageFont.load_default(12)
    pen.text((1, 17), low, fill="black", font=font)
    pen.text((width_px - 1 - pen.textlength(high, font=font), 17), high, fill="black", font=font)
    if diverging and sign == "all":
        pen.text((width_px / 2, 17), "0", fill="black", font=font, anchor="ma")
    return bar


def number(value: int | float) -> str:
    """A value with three digits that count and a true minus sign.

    Example:
        >>> number(-0.028456)
        '−0.0285'
    """
    return plain(value).replace("-", "\N{MINUS SIGN}")


def plain(value: int | float) -> str:
    """The same in letters that Pillow's own font has, to be drawn."""
    return f"{value:.3g}"


def _positions(heat: Float[np.ndarray, "h w"], end: float, diverging: bool) -> Int16[np.ndarray, "h w"]:
    if np.float32(end) <= 0:
        return np.full(heat.shape, STEPS if diverging else 0, np.int16)
    finite = np.where(np.isfinite(heat), heat, 0).astype(np.float32)
    with np.errstate(over="ignore"):
        share: Float32[np.ndarray, "h w"] = np.clip(finite / np.float32(end), -1.0 if diverging else 0.0, 1.0)
    return np.rint(share * STEPS).astype(np.int16) + np.int16(STEPS if diverging else 0)


def _hatch(height: int, width: int) -> UInt8[np.ndarray, "h w 4"]:
    period = max(2, max(height, width) // NAN_STRIPES)
    dark = (np.arange(height)[:, None] + np.arange(width)) // period % 2 == 0
    greys = np.array([(*grey, 255) for grey in NAN_COLOURS], np.uint8)
    return greys[dark.astype(np.int8)]
