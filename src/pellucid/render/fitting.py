"""A picture brought to a size at which it can be looked at."""

from PIL import Image


def fitted(
    image: Image.Image, side_px: int, *, exact: bool = False, cells: bool = False, least_px: int = 1
) -> Image.Image:
    """So that the longer side has about so many pixels: small pictures keep their pixels as squares.

    Enlarged to twice its size or more by whole multiples, without smoothing; else brought to the size smoothly.

    Args:
        exact: the longer side has just so many pixels, though some squares become larger than others.
        cells: the pixels are positions of a map in colours, which smoothing would turn into those of other values:
            it is not enlarged to less than twice its size, and to make it smaller the colours are averaged.
        least_px: no side is shorter than this.

    Example:
        >>> fitted(Image.new("RGB", (30, 20)), 100).size
        (90, 60)
        >>> fitted(Image.new("RGB", (30, 20)), 100, exact=True).size
        (100, 67)
    """
    share = side_px / max(image.size)
    if not exact and (share >= 2 or (cells and share >= 1)):
        share = int(share)
    width, height = (max(least_px, round(n * share)) for n in image.size)
    if share >= (1 if cells else 2):
        kind = Image.Resampling.NEAREST
    else:
        kind = Image.Resampling.BOX if cells else Image.Resampling.LANCZOS
    return image.convert("RGB").resize((width, height), kind)
