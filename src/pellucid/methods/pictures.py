"""How pictures and tensors come before a network, and how an input is shown to people."""

from dataclasses import dataclass
from os import PathLike
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from pellucid.core.errors import ImageError, ModelError
from pellucid.images.decode import Picture, decode
from pellucid.images.placement import Placement
from pellucid.images.transforms import Preprocess
from pellucid.models.model import Model

ImageLike = str | PathLike[str] | bytes | np.ndarray | Image.Image | Picture


@dataclass(frozen=True, eq=False)
class Shown:
    """One image as it is fed in, `x` (c, h, w), and as it is shown."""

    picture: Picture
    placement: Placement
    x: Tensor
    notes: tuple[str, ...]


def prepared(model: Model, image: ImageLike) -> Shown:
    """A picture put through the network's own preprocessing.

    Raises:
        ImageError: it can't be read.
        ModelError: the preprocessing is not known.
    """
    picture = decode(image)
    if model.preprocess is None:
        raise ModelError(
            f"how {model.name} wants its pictures is not known; give preprocess=pel.preprocess(resize_px=…, crop_px=…, "
            "mean=…, std=…) to wrap or load, or pass a tensor of inputs"
        )
    ready = model.preprocess(picture)
    x = model.preprocess.normalise(ready.pixels[None])[0]
    return Shown(picture, ready.placement, x, (*model.notes, *picture.notes, *ready.notes))


def one_image(model: Model, image: Any) -> tuple[Tensor, Picture | None, Placement | None, tuple[str, ...]]:
    """One image as the network gets it `(c, …)`, as people see it, where the first lies on the second, and notes."""
    if isinstance(image, Tensor):
        return _from_tensor(model, image)
    one = prepared(model, image)
    return one.x, one.picture, one.placement, one.notes


def _from_tensor(model: Model, x: Tensor) -> tuple[Tensor, Picture | None, Placement | None, tuple[str, ...]]:
    if x.dim() not in (3, 4, 5) or len(x) != 1 or not x.is_floating_point() or 0 in x.shape:
        raise ImageError(
            f"a tensor of shape {tuple(x.shape)} and {x.dtype} came; give the floating inputs of one picture, "
            "(1, c, h, w), and ask about each picture alone"
        )
    x = x.detach()[0]
    if x.dim() != 3:
        return x, None, None, model.notes
    picture = Picture(seen(x, model.preprocess), "input")
    return x, picture, Placement.identity(*x.shape[1:]), model.notes


def seen(x: Float[Tensor, "c h w"], preprocess: Preprocess | None) -> UInt8[np.ndarray, "h w 3"]:
    """An input as people see it: its pixels, or its values stretched where the preprocessing is not known.

    Of channels that are neither one nor three the first is shown.
    """
    x = x.detach().float().cpu()
    if preprocess is not None:
        pixels = preprocess.denormalise(x[None])[0]
    else:
        low, high = x.min(), x.max()
        pixels = (x - low) / (high - low).clamp(min=1e-12)
    pixels = pixels if pixels.shape[0] == 3 else pixels[:1].expand(3, -1, -1)
    return (pixels.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()


def home_of(module: nn.Module) -> Tensor:
    """An empty or first parameter that says on which device and in which floating dtype the network computes."""
    first = next((p for p in module.parameters() if p.is_floating_point()), None)
    return torch.empty(0) if first is None else first.detach()
