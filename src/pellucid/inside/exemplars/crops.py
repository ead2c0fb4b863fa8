"""What a unit saw of a picture: its theoretical field, cut out of the picture's own pixels."""

from dataclasses import dataclass
from math import ceil, floor

import numpy as np
from jaxtyping import Bool, Float, UInt8
from PIL import Image
from torch import Tensor

from pellucid.core.errors import ImageError
from pellucid.core.fields import Field
from pellucid.images.datasets import Pictures
from pellucid.images.placement import Placement
from pellucid.images.transforms import Preprocess
from pellucid.methods.pictures import seen

GREY = 128
DIM = 0.5
OUTLINE = (255, 255, 0)

Reach = tuple[tuple[int, int], ...]  # first and last pixel along each axis of the input, maybe beyond the border


@dataclass(frozen=True, eq=False)
class View:
    """A picture as people see it, and where the network's input lies on it."""

    pixels: UInt8[np.ndarray, "h w 3"]
    placement: Placement


def reach(field: Field, position: tuple[int, ...]) -> Reach:
    """The pixels that the unit at a position can see; all of them where it sees everything."""
    if field.everywhere or not field.low or not position:
        return tuple((0, n - 1) for n in field.input_px)
    return field.reach(position)


def view(data: Pictures, number: int) -> View:
    """A picture of the data; of inputs that are none, their values drawn.

    Lines (one axis) are drawn as strips, of volumes the middle slice is shown.
    """
    picture, placement = data.picture(number)
    if picture is not None and placement is not None:
        return View(picture.pixels, placement)
    pixels = drawn(data.input(number), data.preprocess)
    return View(pixels, Placement.identity(*pixels.shape[:2]))


def drawn(x: Tensor, preprocess: Preprocess | None) -> UInt8[np.ndarray, "h w 3"]:
    """An input of one to three axes as a picture: lines as strips, of volumes the middle slice."""
    usual = preprocess if preprocess is not None and x.dim() == 3 and len(x) == preprocess.channels else None
    return seen(plane(x), usual)


def plane(x: Float[Tensor, "c *space"]) -> Float[Tensor, "c h w"]:
    """
    Raises:
        ImageError: it has no axes, or more than three.
    """
    if x.dim() not in (2, 3, 4):
        raise ImageError(f"an input of shape {tuple(x.shape)} can't be drawn; inputs have one to three axes")
    return x[:, None] if x.dim() == 2 else x[:, x.shape[1] // 2] if x.dim() == 4 else x


def crop(shown: View, box: Reach) -> UInt8[np.ndarray, "h w 3"]:
    """The part of the picture that a box of the input covers, on the picture's own pixels.

    Pixels that are touched in part belong to it; grey is what lies beyond the picture's border or outside the part
    that the network was fed.
    """
    rows, columns = _sides(box)
    lies = shown.placement
    top, left = lies.to_original(float(rows[0]), float(columns[0]))
    bottom, right = lies.to_original(float(rows[1] + 1), float(columns[1] + 1))
    fed_top, fed_left, fed_bottom, fed_right = lies.box
    height, width = shown.pixels.shape[:2]
    down = _cut(top, bottom, max(fed_top, 0.0), min(fed_bottom, float(height)))
    across = _cut(left, right, max(fed_left, 0.0), min(fed_right, float(width)))
    out = np.full((down[1] - down[0], across[1] - across[0], 3), GREY, np.uint8)
    part = shown.pixels[down[2] : down[3], across[2] : across[3]]
    y, x = down[2] - down[0], across[2] - across[0]
    out[y : y + part.shape[0], x : x + part.shape[1]] = part
    return out


def patch(x: Float[Tensor, "c *space"], box: Reach, fill: float = 0.0) -> Float[Tensor, "c *size"]:
    """The part of an input that a box covers, in the input's own numbers; what lies beyond the border is `fill`."""
    out = x.new_full((len(x), *(last - first + 1 for first, last in box)), fill)
    inside = [(max(first, 0), min(last + 1, n)) for (first, last), n in zip(box, x.shape[1:], strict=True)]
    if all(start < stop for start, stop in inside):
        to = tuple(slice(a - first, b - first) for (a, b), (first, _) in zip(inside, box, strict=True))
        out[(slice(None), *to)] = x[(slice(None), *(slice(a, b) for a, b in inside))]
    return out


def at_centres(cells: Float[np.ndarray, "a b"], field: Field, size_px: tuple[int, int]) -> Float[np.ndarray, "h w"]:
    """A map at the input's size: each value at the centre of its field, linear in between, constant beyond."""
    lines = [(low + high) / 2 for low, high in zip(field.low, field.high, strict=True)]
    rows = np.stack([np.interp(np.arange(size_px[1]), lines[1], row) for row in cells])
    return np.stack([np.interp(np.arange(size_px[0]), lines[0], column) for column in rows.T], 1)


def masked(pixels: UInt8[np.ndarray, "h w 3"], mask: Bool[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """The picture with all outside the mask dimmed, and a yellow line around it."""
    padded = np.pad(mask, 1)
    height, width = mask.shape
    near = np.zeros_like(mask)
    for y in range(3):
        for x in range(3):
            near |= padded[y : y + height, x : x + width]
    out = np.where(mask[..., None], pixels, pixels * DIM)
    out[near & ~mask] = OUTLINE
    return np.rint(out).astype(np.uint8)


def on_square(image: Image.Image, side_px: int) -> Image.Image:
    """In the middle of a white square."""
    square = Image.new("RGB", (side_px, side_px), "white")
    square.paste(image, ((side_px - image.width) // 2, (side_px - image.height) // 2))
    return square


def _sides(box: Reach) -> Reach:
    """Rows and columns of the drawn picture: of lines one row, of volumes the last two axes."""
    if len(box) == 1:
        return ((0, 0), box[0])
    if not box:
        return ((0, 0), (0, 0))
    return box[-2:]


def _cut(start: float, stop: float, lowest: float, highest: float) -> tuple[int, int, int, int]:
    """First pixel and the one behind the last, as asked for, and as there is something to see."""
    first, behind = floor(start + 1e-6), max(ceil(stop - 1e-6), floor(start + 1e-6) + 1)
    seen_first = min(max(first, floor(lowest + 1e-6)), behind)
    return first, behind, seen_first, max(seen_first, min(behind, ceil(highest - 1e-6)))
