"""Every kind of pixel value to 8-bit RGB: palettes, transparency, CMYK, 16 bits, floats; what was changed is said."""

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from pellucid.core.errors import ImageError


def to_rgb(image: Image.Image, name: str, sixteen: bool = False) -> tuple[Image.Image, list[str]]:
    """A loaded image of any Pillow mode as RGB, and what was done to it.

    Args:
        image: loaded.
        name: for error messages.
        sixteen: the file stored 16 bits a channel (older Pillows tell 16 from 32 bits only before loading).
    """
    if image.mode.startswith("I") or image.mode == "F":
        return _grey(image, name, sixteen)
    if image.has_transparency_data:
        return on_white(image.convert("RGBA"))
    notes = ["CMYK converted to RGB without its colour profile"] if image.mode == "CMYK" else []
    return image.convert("RGB"), notes


def on_white(rgba: Image.Image) -> tuple[Image.Image, list[str]]:
    """Transparency over white; said only if a pixel is really transparent."""
    if rgba.getchannel("A").getextrema() == (255, 255):
        return rgba.convert("RGB"), []
    white = Image.new("RGBA", rgba.size, "white")
    return Image.alpha_composite(white, rgba).convert("RGB"), ["transparency laid on white"]


def _grey(image: Image.Image, name: str, sixteen: bool) -> tuple[Image.Image, list[str]]:
    """Grey values wider than 8 bits (Pillow modes I;16*, I and F), scaled to 8."""
    values = np.asarray(image)
    low, high = values.min(), values.max()
    if image.mode == "F":
        grey, note = _grey_floats(values, name)
    elif low < 0 or high > 65535:
        raise ImageError(f'"{name}" holds whole numbers from {low} to {high}; expected 0 to 65535: scale them first')
    elif image.mode == "I" and high <= 255 and not sixteen:
        grey, note = values.astype(np.uint8), "32-bit grey with values up to 255 taken as 8 bits"
    else:
        grey, note = _eight_bits(values), "16-bit grey scaled to 8 bits"
    clear = values == image.info.get("transparency")  # the one grey that a PNG may declare transparent
    if not clear.any():
        return Image.fromarray(grey).convert("RGB"), [note]
    return Image.fromarray(np.where(clear, np.uint8(255), grey)).convert("RGB"), [note, "transparency laid on white"]


def _grey_floats(values: np.ndarray, name: str) -> tuple[np.ndarray, str]:
    low, high = values.min(), values.max()  # NaN if any value is
    if not (low >= 0 and high <= 255):
        raise ImageError(
            f'"{name}" holds floats from {low:g} to {high:g}; expected 0 to 1 or 0 to 255: scale them first'
        )
    if high <= 1:
        return np.rint(values * 255).astype(np.uint8), "float grey in [0, 1] scaled to 8 bits"
    return np.rint(values).astype(np.uint8), "float grey in [0, 255] rounded to 8 bits"


def _eight_bits(values: np.ndarray) -> np.ndarray:
    """0..65535 to 0..255, rounded: v / 257."""
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def to_bytes(array: np.ndarray) -> tuple[UInt8[np.ndarray, "..."], tuple[str, ...]]:
    """An array of uint8, bool, uint16 or floats in [0, 1] as contiguous uint8, and what was done to it."""
    kind = array.dtype.newbyteorder("=")
    if kind == np.uint8:
        return np.ascontiguousarray(array), ()
    if kind == np.bool_:
        return array.astype(np.uint8) * np.uint8(255), ()
    if kind == np.uint16:
        return _eight_bits(array), ("16-bit values scaled to 8 bits",)
    if not np.issubdtype(kind, np.floating):
        raise ImageError(f"an array of {array.dtype} is no picture; expected uint8, uint16, bool or floats in [0, 1]")
    low, high = float(array.min()), float(array.max())  # NaN if any value is
    if not (low >= -1e-6 and high <= 1 + 1e-6):
        hint = "; if 255 is white, try array / 255" if 1 < high <= 255 and low >= 0 else ""
        raise ImageError(f"a float array must lie in [0, 1] without NaN, not in [{low:g}, {high:g}]{hint}")
    return np.rint(np.clip(array, 0, 1).astype(np.float64) * 255).astype(np.uint8), ()
