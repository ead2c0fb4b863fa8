"""Preprocessing as an invertible record: what the network is fed, and where that lies on the original picture."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from math import ceil, floor, isfinite
from typing import Any, Literal, get_args

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor

from pellucid.core.errors import ImageError, SettingError
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement

__all__ = ["Placement", "Prepared", "Preprocess", "preprocess"]

Interpolation = Literal["bilinear", "bicubic", "nearest", "lanczos", "box"]
Size = int | tuple[int, int]
Box = tuple[int, int, int, int]  # top, left, bottom, right

_MOST_PX = 100_000_000  # a resized picture beyond this is not made


@dataclass(frozen=True, eq=False)
class Prepared:
    """A picture ready for the network, before normalisation.

    Attributes:
        pixels: values in [0, 1].
        placement: where these pixels lie on the original picture.
        notes: what was done that the settings alone don't tell, such as padding.
    """

    pixels: Float[Tensor, "c h w"]
    placement: Placement
    notes: tuple[str, ...]


@dataclass(frozen=True)
class Preprocess:
    """How a network wants its pictures: central crop by fraction, resize, central crop, then (pixels - mean) / std.

    Sizes and rounding are torchvision's (`Resize`, `CenterCrop`, `ToTensor`, `Normalize` on Pillow images), so that
    published accuracies hold.

    Attributes:
        resize_px: the shorter side, or (height, width) to warp to; None keeps the size.
        crop_px: side of the central square, or (height, width); padded with black, and said, where the picture is
            smaller; None keeps everything.
        mean: subtracted, one number a channel, in units of [0, 1] pixels; empty means zeros.
        std: divided by, one number a channel; empty means ones.
        channels: 3 for RGB, 1 for grey (ITU-R 601 luma).
        interpolation: Pillow's filter of that name, antialiased.
        crop_fraction: central part of both sides that is kept before resizing, in (0, 1] (as in TensorFlow).
    """

    resize_px: Size | None = None
    crop_px: Size | None = None
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    channels: int = 3
    interpolation: Interpolation = "bilinear"
    crop_fraction: float | None = None

    def __post_init__(self) -> None:
        if type(self.channels) is not int or self.channels not in (1, 3):
            raise SettingError(f"channels is 1 (grey) or 3 (RGB), not {self.channels!r}")
        if self.interpolation not in get_args(Interpolation):
            known = ", ".join(get_args(Interpolation))
            raise SettingError(f'no interpolation "{self.interpolation}"; there are {known}')
        for name in ("resize_px", "crop_px"):
            object.__setattr__(self, name, _size(name, getattr(self, name)))
        object.__setattr__(self, "mean", _per_channel("mean", self.mean, 0.0, self.channels))
        object.__setattr__(self, "std", _per_channel("std", self.std, 1.0, self.channels))
        if min(self.std) <= 0:
            raise SettingError(f"std must be above 0, not {self.std}")
        if self.crop_fraction is not None and not 0 < _number("crop_fraction", self.crop_fraction) <= 1:
            raise SettingError(f"crop_fraction lies in (0, 1], not {self.crop_fraction!r}")

    @property
    def input_size_px(self) -> tuple[int, int] | None:
        """Height and width the network is fed; None where that depends on the picture."""
        if isinstance(self.crop_px, int):
            return self.crop_px, self.crop_px
        return self.crop_px or (self.resize_px if isinstance(self.resize_px, tuple) else None)

    def __call__(self, picture: Picture) -> Prepared:
        """Crop, resize and crop the picture; `normalise` is left to the caller.

        Raises:
            ImageError: the picture is so elongated that resizing would make it enormous.
        """
        kept = _central_fraction(picture.size_px, self.crop_fraction)
        resized = _resized_size((kept[2] - kept[0], kept[3] - kept[1]), self.resize_px)
        window, notes = _window(resized, self.input_size_px if self.crop_px is not None else None)
        pixels = self._resize(picture.pixels[kept[0] : kept[2], kept[1] : kept[3]], resized, window)
        tensor = torch.from_numpy(pixels).permute(2, 0, 1).to(torch.float32, memory_format=torch.contiguous_format)
        size = (window[2] - window[0], window[3] - window[1])
        return Prepared(tensor.div(255), Placement(picture.size_px, size, _to_original(kept, resized, window)), notes)

    def _resize(
        self, pixels: UInt8[np.ndarray, "h w 3"], resized: tuple[int, int], window: Box
    ) -> UInt8[np.ndarray, "H W c"]:
        """The window of the resized picture, black where it reaches beyond."""
        image = Image.fromarray(pixels) if self.channels == 3 else Image.fromarray(pixels).convert("L")
        method = Image.Resampling[self.interpolation.upper()]
        if resized[0] * resized[1] > _MOST_PX:
            image, window = _resized_window(image, resized, window, method)
        elif resized != (image.height, image.width):
            image = image.resize((resized[1], resized[0]), method)
        return _cut(np.asarray(image).reshape(image.height, image.width, self.channels), window)

    def normalise(self, pixels: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """What the network is fed: (pixels - mean) / std, on the tensor's own device and dtype."""
        mean, std = self._constants(pixels)
        return (pixels - mean) / std

    def denormalise(self, x: Float[Tensor, "*b c h w"]) -> Float[Tensor, "*b c h w"]:
        """Back to [0, 1] pixels: x std + mean."""
        mean, std = self._constants(x)
        return x * std + mean

    def _constants(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.ndim < 3 or x.shape[-3] != self.channels or not x.is_floating_point():
            raise SettingError(
                f"expected floats of shape (…, {self.channels}, h, w), not {x.dtype} of shape {tuple(x.shape)}"
            )
        return (
            torch.tensor(self.mean, dtype=x.dtype, device=x.device).view(-1, 1, 1),
            torch.tensor(self.std, dtype=x.dtype, device=x.device).view(-1, 1, 1),
        )

    def to_json(self) -> dict[str, Any]:
        return {key: list(value) if isinstance(value, tuple) else value for key, value in asdict(self).items()}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> "Preprocess":
        known = [field.name for field in fields(cls)]
        unknown = [key for key in data if key not in known]
        if unknown:
            raise SettingError(f"unknown preprocessing setting {', '.join(unknown)}; there are {', '.join(known)}")
        settings: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in data.items()}
        return cls(**settings)


preprocess = Preprocess  # `pel.preprocess(resize_px=256, …)` reads like the other calls


def _number(name: str, value: Any) -> float:
    try:
        number = float(value)
    except (TypeError, ValueError) as error:
        raise SettingError(f"{name} is a number, not {value!r}") from error
    if not isfinite(number):
        raise SettingError(f"{name} is a finite number, not {value!r}")
    return number


def _size(name: str, value: Any) -> Size | None:
    """An int, a pair of ints or None; a sequence of one (torchvision's habit) is an int."""
    if value is None:
        return None
    sides = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else [value]
    whole = all(isinstance(side, int | np.integer) and not isinstance(side, bool) and side >= 1 for side in sides)
    if not whole or len(sides) not in (1, 2):
        raise SettingError(f"{name} is a whole number of at least 1, or a pair (height, width) of them, not {value!r}")
    if int(sides[0]) * int(sides[-1]) > _MOST_PX:
        raise SettingError(f"{name} of {value!r} makes more than {_MOST_PX:,} pixels")
    return int(sides[0]) if len(sides) == 1 else (int(sides[0]), int(sides[1]))


def _per_channel(name: str, values: Any, default: float, channels: int) -> tuple[float, ...]:
    if isinstance(values, int | float | str) or not hasattr(values, "__iter__"):
        raise SettingError(f"{name} has one number a channel ({channels}), not {values!r}")
    numbers = tuple(_number(name, value) for value in values)
    if numbers and len(numbers) != channels:
        raise SettingError(f"{name} has one number a channel ({channels}), not {len(numbers)}: {numbers}")
    return numbers or (default,) * channels


def _central_fraction(size: tuple[int, int], fraction: float | None) -> Box:
    """Top, left, bottom, right of the central part, rounded as tf.image.central_crop does."""
    height, width = size
    if fraction is None:
        return 0, 0, height, width
    top, left = int((height - height * fraction) / 2), int((width - width * fraction) / 2)
    return top, left, height - top, width - left


def _resized_size(size: tuple[int, int], resize_px: Size | None) -> tuple[int, int]:
    if resize_px is None:
        return size
    if isinstance(resize_px, tuple):
        return resize_px
    height, width = size
    if height <= width:
        return resize_px, int(resize_px * width / height)
    return int(resize_px * height / width), resize_px


def _window(size: tuple[int, int], crop: tuple[int, int] | None) -> tuple[Box, tuple[str, ...]]:
    """The crop in pixels of the resized picture (negative where padded), and what to say about it."""
    if crop is None:
        return (0, 0, *size), ()
    top, left = (_offset(have, want) for have, want in zip(size, crop, strict=True))
    padded = crop[0] > size[0] or crop[1] > size[1]
    note = f"picture of {size[0]} x {size[1]} px padded with black to the crop of {crop[0]} x {crop[1]} px"
    return (top, left, top + crop[0], left + crop[1]), (note,) if padded else ()


def _offset(have: int, want: int) -> int:
    return -((want - have) // 2) if want > have else round((have - want) / 2)


def _cut(pixels: np.ndarray, window: Box) -> np.ndarray:
    """The window out of the pixels, zero where it lies outside them."""
    top, left, bottom, right = window
    height, width, channels = pixels.shape
    inside = pixels[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape[:2] == (bottom - top, right - left):
        return inside.copy()
    out = np.zeros((bottom - top, right - left, channels), pixels.dtype)
    down, across = max(-top, 0), max(-left, 0)
    out[down : down + inside.shape[0], across : across + inside.shape[1]] = inside
    return out


def _resized_window(
    image: Image.Image, resized: tuple[int, int], window: Box, method: Image.Resampling
) -> tuple[Image.Image, Box]:
    """Only the part of an enormous resized picture that the window keeps, and the window on that part."""
    top, left, bottom, right = (
        max(window[0], 0),
        max(window[1], 0),
        min(window[2], resized[0]),
        min(window[3], resized[1]),
    )
    if (bottom - top) * (right - left) > _MOST_PX:
        raise ImageError(
            f"resizing {image.height} x {image.width} px would make {resized[0]:,} x {resized[1]:,} px; "
            "use resize_px=(height, width), or crop_px"
        )
    rows, columns = _source(top, bottom, image.height, resized[0]), _source(left, right, image.width, resized[1])
    image = Image.fromarray(np.asarray(image)[rows[0] : rows[1], columns[0] : columns[1]])
    part = image.resize((right - left, bottom - top), method, box=(columns[2], rows[2], columns[3], rows[3]))
    return part, (window[0] - top, window[1] - left, window[2] - top, window[3] - left)


def _source(first: int, last: int, have: int, want: int) -> tuple[int, int, float, float]:
    """Pixels that resizing `have` to `want` reads for the outputs first to last, and the span of these among them.

    They are cut out beforehand because Pillow keeps the span in single precision.
    """
    start, stop = first * have / want, last * have / want
    reach = 1 + ceil(3 * max(1.0, have / want))  # Lanczos, the widest, reaches 3
    low, high = max(0, floor(start) - reach), min(have, ceil(stop) + reach)
    return low, high, start - low, stop - low


def _to_original(kept: Box, resized: tuple[int, int], window: Box) -> tuple[float, float, float, float]:
    """The window in original pixels."""
    height, width = kept[2] - kept[0], kept[3] - kept[1]
    return (
        kept[0] + window[0] * height / resized[0],
        kept[1] + window[1] * width / resized[1],
        kept[0] + window[2] * height / resized[0],
        kept[1] + window[3] * width / resized[1],
    )
