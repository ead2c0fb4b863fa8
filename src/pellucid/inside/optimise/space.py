"""Between pixels in [0, 1] and what the network is fed."""

from dataclasses import dataclass
from math import isfinite

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor

from pellucid.core.errors import ImageError, ModelError
from pellucid.images.datasets import Pictures
from pellucid.images.transforms import Preprocess
from pellucid.inside.opened import Opened
from pellucid.methods.pictures import home_of

MOST_PICTURES = 128
LEVELS = 255


@dataclass(frozen=True, eq=False)
class Space:
    """How pixels become inputs: by the network's own preprocessing, or from the lowest to the highest value.

    Attributes:
        channels: of the input.
        size_px: height and width that the network was recorded with.
        preprocess: None where it is not known; then `low + (high − low) u` is fed, one number per channel.
        home: says on which device and in which precision the network computes.
        notes: what was assumed.
    """

    channels: int
    size_px: tuple[int, int]
    preprocess: Preprocess | None
    low: Float[Tensor, "c"]
    high: Float[Tensor, "c"]
    home: Tensor
    notes: tuple[str, ...] = ()

    @property
    def dtype(self) -> torch.dtype:
        """The precision in which pictures are kept: that of the network, but not below 32 bits."""
        return torch.float64 if self.home.dtype == torch.float64 else torch.float32

    def fed(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """What the network is fed for pixels in [0, 1]."""
        x = self.preprocess.normalise(pixels) if self.preprocess else self.units(pixels)
        return x.to(self.home.dtype) if self.home.numel() else x

    def units(self, pixels: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Pixels in the units of results: as they are, or as the network's input where that is all that is known."""
        if self.preprocess is not None:
            return pixels
        low, high = (t.to(pixels).view(-1, 1, 1) for t in (self.low, self.high))
        return low + (high - low) * pixels

    def pixels(self, x: Float[Tensor, "n c h w"]) -> Float[Tensor, "n c h w"]:
        """Inputs as pixels."""
        if self.preprocess is not None:
            return self.preprocess.denormalise(x)
        low, high = (t.to(x).view(-1, 1, 1) for t in (self.low, self.high))
        return (x - low) / (high - low)

    def eight_bits(self, pixels: Float[Tensor, "n c h w"]) -> UInt8[np.ndarray, "n h w c"]:
        """The pixels in 256 steps."""
        whole = (pixels.detach().clamp(0, 1) * LEVELS).round().to(torch.uint8)
        return whole.permute(0, 2, 3, 1).contiguous().cpu().numpy()

    def of_bytes(self, pixels: UInt8[np.ndarray, "n h w c"]) -> Float[Tensor, "n c h w"]:
        """What the network is fed for a picture of 8 bits."""
        tensor = torch.from_numpy(pixels).permute(0, 3, 1, 2).to(self.home.device, self.dtype)
        return self.fed(tensor.contiguous() / LEVELS)


def space_of(opened: Opened, data: Pictures | None = None) -> Space:
    """The space of a network's inputs; where the preprocessing is unknown, its range is that of the data or example.

    Raises:
        ModelError: the network does not take pictures `(b, c, h, w)`.
    """
    x = opened.trace.inputs[0].data
    if x.dim() != 4 or not x.is_floating_point():
        raise ModelError(
            f"{opened.model.name} takes {tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}; pictures are made for "
            "networks of floating inputs (b, c, h, w)"
        )
    home, sides = home_of(opened.model.module), (x.shape[2], x.shape[3])
    if opened.model.preprocess is not None and opened.model.preprocess.channels == x.shape[1]:
        ones = torch.ones(x.shape[1])
        return Space(x.shape[1], sides, opened.model.preprocess, ones * 0, ones, home)
    source, examples = ("data", few(data)) if data is not None and len(data) else ("example", [x[0].float().cpu()])
    low, high = _range(examples)
    words = f"from {float(low.min()):.3g} to {float(high.max()):.3g}, the range of the {source}"
    note = f"the preprocessing is not known: pictures are made in the network's own input units, {words}"
    return Space(x.shape[1], sides, None, low, high, home, (note,))


def few(data: Pictures, most: int = MOST_PICTURES) -> list[Tensor]:
    """At most so many inputs, spread over the data; unreadable ones are passed over.

    Raises:
        ModelError: none can be read.
    """
    found = []
    for number in np.unique(np.linspace(0, len(data) - 1, min(most, len(data))).round().astype(int)):
        try:
            found.append(data.input(int(number)).float().cpu())
        except ImageError as error:
            data.failed[int(number)] = str(error)
    if not found:
        raise ModelError("none of the pictures of the data can be read")
    if len({len(x) for x in found}) > 1:
        raise ModelError(f"inputs with {' and '.join(map(str, sorted({len(x) for x in found})))} channels came as data")
    return found


def _range(examples: list[Tensor]) -> tuple[Float[Tensor, "c"], Float[Tensor, "c"]]:
    """Lowest and highest value of each channel, or of all where a channel is flat."""
    low = torch.stack([e.flatten(1).amin(1) for e in examples]).amin(0)
    high = torch.stack([e.flatten(1).amax(1) for e in examples]).amax(0)
    flat = high - low <= 0
    low, high = torch.where(flat, low.min(), low), torch.where(flat, high.max(), high)
    if not isfinite(float((high - low).sum())):
        raise ModelError("the example input holds numbers that are not finite; give another one")
    return (low, high) if bool((high > low).all()) else (low - 0.5, high + 0.5)
