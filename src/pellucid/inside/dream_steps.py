"""What a dream is made of: what is painted on, what is to grow, and the climb at one size."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import ImageError, LayerError, ModelError
from pellucid.core.progress import Progress
from pellucid.core.watch import Watch
from pellucid.images.decode import decode
from pellucid.inside.opened import Opened
from pellucid.methods.pictures import home_of, one_image

MATCHES = 2**22  # products of the picture's and the guide's positions held at a time


@dataclass(frozen=True, eq=False)
class Octave:
    """One size of the dream.

    Attributes:
        size_px: height and width.
        before, after: the objective for each position, with nothing shifted.
        steps: the objective at each step, on the shifted picture.
        silent: steps at which no gradient came, so that nothing changed.
        pixels: the picture at the end, at this size, as people see it.
    """

    size_px: tuple[int, int]
    before: float
    after: float
    steps: tuple[float, ...]
    silent: int
    pixels: UInt8[np.ndarray, "h w 3"]

    def __repr__(self) -> str:
        return f"Octave({self.size_px[0]} x {self.size_px[1]} px, {self.before:.4g} -> {self.after:.4g})"


@dataclass(frozen=True, eq=False)
class Canvas:
    """What is painted on: values with their range, and how they become an input and a picture."""

    values: Float[Tensor, "c h w"]
    low: Tensor
    high: Tensor
    fed: Callable[[Tensor], Tensor]
    seen: Callable[[Tensor], UInt8[np.ndarray, "h w 3"]]
    notes: tuple[str, ...] = ()


def canvas_of(inside: Opened, image: Any) -> Canvas:
    """The whole of a picture in its own size, as pixels; or an input in its own units.

    Raises:
        ModelError: a picture came, and how the network wants pictures is not known.
        ImageError: the picture can't be read, or the input is none of a picture.
    """
    preprocess, home = inside.model.preprocess, home_of(inside.model.module)
    paint = torch.promote_types(home.dtype, torch.float32)
    if isinstance(image, Tensor):
        return _tensor_canvas(inside, image.detach()[0].to(home.device, paint), home)
    if preprocess is None:
        raise ModelError(f"how {inside.model.name} wants its pictures is not known; pass a tensor of inputs")
    picture = decode(image).image().convert("RGB" if preprocess.channels == 3 else "L")
    array = np.asarray(picture).reshape(picture.height, picture.width, -1)
    pixels = torch.from_numpy(array.copy()).permute(2, 0, 1).to(home.device, paint).div(255)
    zero = torch.zeros_like(pixels[:, :1, :1])
    return Canvas(pixels, zero, zero + 1, lambda x: preprocess.normalise(x).to(home), _as_picture)


def _tensor_canvas(inside: Opened, x: Tensor, home: Tensor) -> Canvas:
    """An input in its own units; its range is that of valid pixels where that is known, and its own in any case."""
    if not torch.isfinite(x).all():
        raise ImageError("the input holds numbers that are not finite; replace them, as by torch.nan_to_num")
    if x.dim() != 3:
        raise ImageError(f"an input of shape {(1, *x.shape)} came; dreams are made of pictures, (1, c, h, w)")
    low, high = (end.expand(len(x)).view(-1, 1, 1) for end in (x.min(), x.max()))
    preprocess, notes = inside.model.preprocess, ("the range of the input is taken as the range of its pixels",)
    if preprocess is not None and preprocess.channels == len(x):
        ends = [preprocess.normalise(torch.full_like(x[:, :1, :1], end)) for end in (0, 1)]
        low, high, notes = (
            torch.minimum(x.amin((1, 2), True), ends[0]),
            torch.maximum(x.amax((1, 2), True), ends[1]),
            (),
        )
    flat = high <= low
    low, high = low - flat.to(x), high + flat.to(x)

    def shown(values: Tensor) -> UInt8[np.ndarray, "h w 3"]:
        return _as_picture((values - low) / (high - low))

    return Canvas(x, low, high, lambda values: values.to(home), shown, notes)


def _as_picture(pixels: Float[Tensor, "c h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Pixels as bytes; of channels that are neither one nor three the first is shown."""
    colours = pixels.detach() if len(pixels) == 3 else pixels.detach()[:1].expand(3, -1, -1)
    return (colours.clamp(0, 1) * 255).round().to(torch.uint8).permute(1, 2, 0).contiguous().cpu().numpy()


@dataclass(frozen=True, eq=False)
class Aim:
    """What is to grow.

    Attributes:
        words: for people.
        terms: one for each layer: from its maps to a sum over positions.
        weights: of the terms.
        watch: gives the layers' outputs.
    """

    words: str
    inside: Opened
    watch: Watch
    terms: Sequence[Callable[[Float[Tensor, "c n"]], Tensor]]
    weights: Sequence[float]

    @classmethod
    def of(cls, inside: Opened, layers: Sequence[str], channel: int | None, guide: Any) -> "Aim":
        watch = Watch(inside.trace, layers)
        words = " and ".join(layers)
        terms: list[Callable[[Tensor], Tensor]] = [_energy for _ in layers]
        if channel is not None:
            units = [inside.unit(f"{name}:{channel}" if channel >= 0 else name) for name in layers]
            terms, words = [lambda a, k=u.channel: a[k].sum() for u in units], " and ".join(map(str, units))
        if guide is not None:
            x = one_image(inside.model, guide)[0][None].to(home_of(inside.model.module))
            with torch.no_grad():
                outputs = watch(x)
            guides = [_flat(inside, name, a) for name, a in zip(layers, outputs, strict=True)]
            terms, words = [lambda a, g=g: _match(a, g) for g in guides], f"{words}, guided by a second picture"
        recorded = [_flat(inside, name, inside.value(name).data) for name in layers]
        starts = [abs(float(term(a))) for term, a in zip(terms, recorded, strict=True)]
        weights = [1.0] if len(layers) == 1 else [1 / s if s > 0 else 1.0 for s in starts]
        return cls(words, inside, watch, terms, weights)

    def __call__(self, x: Tensor) -> tuple[Tensor, int]:
        """The objective summed over positions, and how many the first layer has."""
        outputs = self.watch(x[None])
        maps = [_flat(self.inside, name, a) for name, a in zip(self.watch.layers, outputs, strict=True)]
        parts = [w * term(a) for w, term, a in zip(self.weights, self.terms, maps, strict=True)]
        return torch.stack(parts).sum(), maps[0].shape[1]


def _flat(inside: Opened, layer: str, output: Tensor) -> Float[Tensor, "c n"]:
    return inside.maps(layer, output)[0].flatten(1) if output.dim() > 2 else output[0][:, None]


def _energy(maps: Float[Tensor, "c n"]) -> Tensor:
    """`½‖A‖²`."""
    return maps.square().sum() / 2


def _match(maps: Float[Tensor, "c n"], guide: Float[Tensor, "c m"]) -> Tensor:
    """`Σ_p max_q A_p · G_q`; the best matches are looked up a few positions at a time."""
    with torch.no_grad():
        rows = maps.T.split(max(1, MATCHES // guide.shape[1]))
        best = torch.cat([(part @ guide).argmax(1) for part in rows])
    return (maps * guide[:, best]).sum()


@dataclass(frozen=True, eq=False)
class Climber:
    """Climbs at one size."""

    canvas: Canvas
    aim: Aim
    settings: dict[str, Any]
    bar: Progress
    random: torch.Generator

    def climbed(self, x: Tensor) -> tuple[Tensor, Octave]:
        """The picture after the steps of one octave."""
        before, values, silent = self.objective(x), [], 0
        span = self.canvas.high - self.canvas.low
        for number in range(self.settings["steps"]):
            shift = self._shift(x)
            value, slope = self._gradient(x.roll(shift, (1, 2)))
            slope = slope.roll([-s for s in shift], (1, 2)) * span
            size = slope.abs().mean()
            silent += not size > 0
            if size > 0:
                x = (x + self.settings["step_size"] * span * slope / size).clamp(self.canvas.low, self.canvas.high)
            values.append(value)
            self.bar.advance(1, f"dreaming at {x.shape[1]} x {x.shape[2]} px, step {number + 1}")
        after = self.objective(x) if values else before
        size_px = (x.shape[1], x.shape[2])
        return x, Octave(size_px, before, after, tuple(values), silent, self.canvas.seen(x))

    def objective(self, x: Tensor) -> float:
        """For each position, with nothing shifted."""
        with torch.no_grad():
            parts = [self.aim(self.canvas.fed(x[:, a, b])) for a, b in _tiles(x, self.settings["tile_px"])]
        return float(sum(float(total) for total, _ in parts) / sum(count for _, count in parts))

    def _gradient(self, x: Tensor) -> tuple[float, Tensor]:
        """The objective for each position and its gradient, tile by tile."""
        slope, total, positions = torch.zeros_like(x), 0.0, 0
        for rows, columns in _tiles(x, self.settings["tile_px"]):
            part = x[:, rows, columns].detach().clone().requires_grad_()
            value, count = self.aim(self.canvas.fed(part))
            if not value.requires_grad:
                raise LayerError(
                    f'no gradient comes from layer "{self.aim.watch.layers[0]}" to the picture; choose another'
                )
            slope[:, rows, columns] = torch.autograd.grad(value, part)[0]
            total, positions = total + float(value.detach()), positions + count
        return total / positions, slope

    def _shift(self, x: Tensor) -> list[int]:
        """By how much to roll: as far as half a tile where there are several, so that no edge stays."""
        jitter, tile = self.settings["jitter_px"], self.settings["tile_px"]
        reach = [max(jitter, tile // 2) if n > tile and jitter else jitter for n in x.shape[1:]]
        return [int(torch.randint(-r, r + 1, (), generator=self.random)) for r in reach]


def _tiles(x: Tensor, tile_px: int) -> Iterator[tuple[slice, slice]]:
    """Tiles of nearly equal size, none larger than asked for."""
    for rows in _cuts(x.shape[1], tile_px):
        for columns in _cuts(x.shape[2], tile_px):
            yield rows, columns


def _cuts(length: int, most: int) -> list[slice]:
    count = -(-length // most)
    return [slice(length * k // count, length * (k + 1) // count) for k in range(count)]


def resized(x: Float[Tensor, "c a b"], size: tuple[int, int]) -> Float[Tensor, "c h w"]:
    """Bilinear, averaged where it shrinks; the very same where the size is."""
    if tuple(x.shape[1:]) == tuple(size):
        return x
    return F.interpolate(x[None], size, mode="bilinear", align_corners=False, antialias=True)[0]
