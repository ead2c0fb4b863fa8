"""Fills: what is put in place of the pixels that are covered."""

import re
from dataclasses import dataclass
from math import isfinite
from typing import Any, Literal

import torch
from jaxtyping import Float, Shaped
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.baselines import baseline
from pellucid.core.errors import SettingError, nearest
from pellucid.images.decode import Picture, decode
from pellucid.images.inpaint import inpaint

FILLS = ("grey", "black", "white", "mean", "blur", "noise", "inpaint", "zero")
Space = Literal["pixels", "inputs"]

_STREAM = 7_368_787  # a prime that sets the fill's random numbers apart from those of the method
_DONOR = "donor:"


@dataclass(frozen=True, eq=False)
class Fill:
    """What is put in place of covered pixels.

    Attributes:
        name: `grey` 0.5, `black` 0, `white` 1, `mean` the picture's mean colour, `blur` the picture under a Gaussian of
            a tenth of its shorter side, `noise` independent uniform numbers in [0, 1], `inpaint` each hidden pixel
            from its neighbours, `zero` zeros in the network's input space; of a donor or a given tensor, what it is.
        space: what `paint` and `under` take and give: pixels in [0, 1], or inputs of the network.
        tensor: the pixels of a donor, or the given inputs.
        noise: standard deviation of the normal noise that `inpaint` adds.
    """

    name: str
    space: Space = "pixels"
    tensor: Tensor | None = None
    noise: float = 0.0

    @property
    def needs_mask(self) -> bool:
        """Whether what is put in place hangs on what else is hidden."""
        return self.name.startswith("inpaint")

    @classmethod
    def donor(cls, image: Any) -> "Fill":
        """Another picture, cut in the middle to the proportions of the covered one and scaled to its size.

        Args:
            image: whatever `decode` reads (a path, bytes, a Pillow image, an array, a `Picture`), or a tensor of pixels
                (c, …) in [0, 1].
        """
        if isinstance(image, Tensor):
            if image.dim() < 2 or not image.is_floating_point() or 0 in image.shape:
                raise SettingError(
                    f"a donor of {image.dtype} and shape {tuple(image.shape)} came; expected floats (c, …) in [0, 1]"
                )
            return cls("donor", tensor=image.detach())
        picture = decode(image)
        return cls(f"donor {picture.name}", tensor=_as_pixels(picture))

    @classmethod
    def given(cls, inputs: Tensor, name: str = "given tensor") -> "Fill":
        """A tensor of the network's inputs, of a shape that spreads to (c, …)."""
        if not inputs.is_floating_point():
            raise SettingError(f"a fill of {inputs.dtype} came; give floating inputs of the network, or Fill.donor(…)")
        return cls(name, "inputs", inputs.detach())

    def paint(self, pixels: Float[Tensor, "c *space"], *, seed: int = 0) -> Float[Tensor, "c *space"]:
        """A whole picture of fill.

        Args:
            pixels: the picture, in the fill's own `space`.

        Raises:
            SettingError: the fill hangs on the mask, or does not fit the picture.
        """
        if self.needs_mask:
            raise SettingError('fill "inpaint" hangs on what is hidden; call under(pixels, keep)')
        if self.name == "zero" and self.space == "inputs":
            return torch.zeros_like(pixels)
        if self.tensor is None:
            name = "uniform" if self.name == "noise" else self.name
            return baseline(name, pixels[None], seed=_stream(seed))[0]
        return _fitted(self.tensor, pixels) if self.space == "pixels" else _spread(self.tensor, pixels)

    def under(
        self, pixels: Float[Tensor, "c *space"], keep: Shaped[Tensor, "n *masked"], *, seed: int = 0
    ) -> Float[Tensor, "n c *space"]:
        """The picture with its hidden pixels filled, once for each mask.

        Args:
            keep: for each mask whether a pixel is seen, bool.
        """
        if keep.dtype != torch.bool or keep.shape[1:] != pixels.shape[1:]:
            raise SettingError(
                f"a mask of {keep.dtype} and shape {tuple(keep.shape)} came; expected bool (n, "
                f"{', '.join(map(str, pixels.shape[1:]))}), True where the picture is seen"
            )
        keep = keep.to(pixels.device)
        if not self.needs_mask:
            return torch.where(keep[:, None], pixels, self.paint(pixels, seed=seed))
        found = inpaint(pixels, keep)
        if not self.noise:
            return found
        random = torch.Generator().manual_seed(_stream(seed))
        noise = self.noise * torch.randn(pixels.shape, generator=random, dtype=pixels.dtype).to(pixels.device)
        return torch.where(keep[:, None], found, found + noise)

    def __repr__(self) -> str:
        return f"Fill({self.name!r})"


def fills(asked: Any) -> tuple[Fill, ...]:
    """The fills that a user asked for.

    Args:
        asked: a name of `FILLS`, `"donor:PATH"` or `"inpaint:NOISE"`; several joined by `+`; a `Fill`; a tensor of the
            network's inputs; or a list of these.

    Raises:
        SettingError: an unknown name, the same fill twice, or nothing.

    Example:
        >>> fills("grey+blur")
        (Fill('grey'), Fill('blur'))
    """
    several = list(asked) if isinstance(asked, (list, tuple)) else [asked]
    words = [word for one in several for word in (_split(one) if isinstance(one, str) else [one])]
    found = [_fill(word, number) for number, word in enumerate(words, 1)]
    names = [fill.name for fill in found]
    twice = next((name for name in names if names.count(name) > 1), None)
    if twice is not None:
        raise SettingError(f'fill "{twice}" came twice; give each once')
    if not found:
        raise SettingError(f"no fill came; there are {', '.join(FILLS)}, donor:PATH, or a tensor of inputs")
    return tuple(found)


def _split(words: str) -> list[str]:
    """At each `+`; where a path is among them, only before a name that is known."""
    known = "|".join((*FILLS, _DONOR))
    return re.split(rf"\+(?={known})" if _DONOR in words else r"\+", words)


def _fill(word: Any, number: int) -> Fill:
    if isinstance(word, Fill):
        return word
    if isinstance(word, Tensor):
        return Fill.given(word, f"given tensor {number}")
    if not isinstance(word, str):
        raise SettingError(
            f"a fill of {type(word).__name__} came; give a name ({', '.join(FILLS)}), Fill.donor(image) or a tensor"
        )
    name = word.strip()
    if name.startswith(_DONOR):
        return Fill.donor(name.removeprefix(_DONOR))
    if name.startswith("inpaint:"):
        return Fill(name, noise=_noise(name))
    if name not in FILLS:
        raise SettingError(f'no fill "{name}"{nearest(name, FILLS) or "."} Known: {", ".join(FILLS)}, donor:PATH')
    return Fill(name, "inputs" if name == "zero" else "pixels")


def _noise(name: str) -> float:
    try:
        value = float(name.removeprefix("inpaint:"))
    except ValueError:
        value = -1.0
    if not isfinite(value) or value < 0:
        raise SettingError(f'fill "{name}" came; write inpaint:0.01 for noise of standard deviation 0.01, 0 or more')
    return value


def _stream(seed: int) -> int:
    return seed * 1_000_003 + _STREAM


def _as_pixels(picture: Picture) -> Tensor:
    return torch.from_numpy(picture.pixels.copy()).permute(2, 0, 1).float().div(255)


def _fitted(donor: Tensor, pixels: Tensor) -> Tensor:
    """The middle of the donor, of the picture's proportions, at its size; colours as luma for a grey picture."""
    donor = donor.to(pixels)
    if len(donor) == 3 and len(pixels) == 1:
        donor = torch.einsum("c...,c->...", donor, donor.new_tensor([0.299, 0.587, 0.114]))[None]  # ITU-R 601
    if len(donor) not in (1, len(pixels)) or donor.dim() != pixels.dim():
        raise SettingError(
            f"a donor of shape {tuple(donor.shape)} came for a picture of shape {tuple(pixels.shape)}; give one of the "
            "same channels and axes"
        )
    size = pixels.shape[1:]
    scale = min(have / want for have, want in zip(donor.shape[1:], size, strict=True))
    for axis, want in enumerate(size, 1):
        kept = max(1, min(round(want * scale), donor.shape[axis]))
        donor = donor.narrow(axis, (donor.shape[axis] - kept) // 2, kept)
    if donor.shape[1:] != size:
        mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(size)]
        donor = F.interpolate(donor[None], tuple(size), mode=mode, antialias=len(size) == 2)[0]
    return donor.expand_as(pixels).clone()


def _spread(inputs: Tensor, x: Tensor) -> Tensor:
    """Given inputs as the shape of one image; a leading axis of one is for a batch."""
    one = inputs[0] if inputs.dim() == x.dim() + 1 and len(inputs) == 1 else inputs
    try:
        return one.to(x).expand_as(x).clone()
    except RuntimeError as error:
        raise SettingError(
            f"a fill of shape {tuple(inputs.shape)} came; the network's input is {tuple(x.shape)} for one image"
        ) from error
