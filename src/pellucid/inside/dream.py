"""Deep dreams: a picture changed, octave by octave, towards what a layer sees in it."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float32, UInt8
from PIL import Image
from torch import Tensor, nn

from pellucid.core.chunks import out_of_memory
from pellucid.core.errors import Cancelled, ImageError, SettingError, TraceError
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, curve, table
from pellucid.inside.dream_steps import Aim, Climber, Octave, canvas_of, resized
from pellucid.inside.opened import pictured
from pellucid.inside.showing import Shows
from pellucid.methods.run import LARGEST_SEED
from pellucid.models.model import Model
from pellucid.render.leaf import picture_html
from pellucid.render.sheet import sheet
from pellucid.render.tabular import tables_html

STEP = 1.5 / 255  # of the original notebook, as a part of the range of pixels


@dataclass(frozen=True, eq=False)
class Dream(Shows):
    """A dream.

    Attributes:
        network, towards: which network dreamt, and of what.
        values: `(c, h, w)`, pixels in [0, 1]; for a tensor of inputs, an input in the same units.
        original, pixels: the picture before and after, as people see it.
        octaves: those that were finished, the smallest first.
        settings: everything that was set.
        notes: what happened on the way.
    """

    network: str
    towards: str
    values: Float32[np.ndarray, "c h w"]
    original: UInt8[np.ndarray, "h w 3"]
    pixels: UInt8[np.ndarray, "h w 3"]
    octaves: tuple[Octave, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"{self.network} dreams of {self.towards}"

    def image(self) -> Image.Image:
        """The dream, of the picture's own size."""
        return Image.fromarray(self.pixels)

    def sheet(self) -> Image.Image:
        """The picture, the dream, and what each octave left."""
        left = [(_small(self.original), ["picture"]), (_small(self.pixels), ["dream"])]
        steps = [
            (_small(o.pixels, 128), [f"{o.size_px[0]} x {o.size_px[1]} px", f"{o.before:.3g} to {o.after:.3g}"])
            for o in self.octaves
        ]
        return sheet(self.title, [], [left, steps])

    def sentence(self) -> str:
        """What the dream goes towards, and how far it came."""
        told = ", ".join(f"{o.size_px[0]}×{o.size_px[1]} px: {o.before:.3g} to {o.after:.3g}" for o in self.octaves)
        return f"{self.title}; objective per position, octave by octave: {told}"

    @property
    def tables(self) -> tuple[Table, ...]:
        """Each octave, and the objective step by step."""
        rows = [(o.size_px[0], o.size_px[1], o.before, o.after, o.silent) for o in self.octaves]
        values = [(n, v) for n, v in enumerate((v for o in self.octaves for v in o.steps), start=1)]
        columns = ("height (px)", "width (px)", "objective before", "objective after", "steps without gradient")
        steps = curve(
            "steps", ("step", "objective"), values, "on the shifted picture; it falls where a larger octave begins"
        )
        return (table("octaves", columns, rows), *([steps] if values else []))

    def facts(self) -> dict[str, Any]:
        """The dream as JSON values, without its pixels."""
        return {**super().facts(), "settings": self.settings, "notes": list(self.notes)}

    def html(self) -> str:
        """The dream in full, then the sheet."""
        shown = picture_html(self.image(), self.sentence())
        return f"{shown}{picture_html(self.sheet(), 'the picture, the dream, each octave')}{tables_html(self.tables)}"

    def __repr__(self) -> str:
        return f"Dream({self.title}, {self.pixels.shape[0]} x {self.pixels.shape[1]} px, {len(self.octaves)} octaves)"


def dream(
    model: Model | nn.Module | str,
    image: Any,
    *,
    layer: str | Sequence[str] | None = None,
    channel: int | None = None,
    guide: Any = None,
    octaves: int = 4,
    octave_scale: int | float = 1.4,
    steps: int = 10,
    step_size: int | float = STEP,
    jitter_px: int = 32,
    tile_px: int = 512,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Dream:
    """A picture changed towards what a layer sees in it: `x += step · g / mean|g|`, `g = ∂ ½‖A(x)‖² / ∂x`.

    The picture is shrunk into octaves. From the smallest on, each takes over the detail that the one before has added,
    is shifted at random at every step (and back), and stays within valid pixels. The network runs at the octave's size
    and no further than the layer, so that a head of fixed size does not matter before it.

    Args:
        image: a picture of any size, or one input `(1, c, h, w)`, whose units are kept.
        layer: one or several (each then counts by its value on the picture); the last one with maps by default.
        channel: dream of this channel's sum instead of the whole layer.
        guide: a second picture: every position goes towards the guide's position that it matches best,
            `Σ_p max_q A_p · G_q`, as in the original notebook.
        octaves: how many sizes.
        octave_scale: each is smaller than the next by this.
        steps: at each size; 0 leaves the picture as it is.
        step_size: mean change of a pixel in one step, in parts of their range.
        jitter_px: the largest shift.
        tile_px: a picture larger than this is run in tiles, whose edges move at every step.
        seed: of the shifts.
        progress: where to report. When it is cancelled, what the finished octaves gave is returned.

    Raises:
        LayerError: no such layer or channel.
        ImageError: not a picture, or one on which the network can't run up to the layer.
        SettingError: a setting is out of its range.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten(), nn.Linear(144, 2)).eval()
        >>> found = dream(net, torch.rand(1, 3, 8, 8), layer="1", octaves=1, steps=2, jitter_px=2)
        >>> found.values.shape, found.octaves[0].after > found.octaves[0].before
        ((3, 8, 8), True)

    Source: Mordvintsev, Olah & Tyka 2015, "Inceptionism"; defaults of their notebook.
    """
    settings = {
        "layer": layer, "channel": channel, "octaves": octaves, "octave_scale": octave_scale, "steps": steps,
        "step_size": step_size, "jitter_px": jitter_px, "tile_px": tile_px, "seed": seed, "guided": guide is not None,
    }  # fmt: skip
    _check(settings, guide)
    if isinstance(image, Tensor) and image.dim() > 0 and len(image) != 1:
        raise ImageError(f"inputs of shape {tuple(image.shape)} came; dream of one at a time, (1, c, h, w)")
    inside = pictured(model, image)
    canvas = canvas_of(inside, image)
    layers = [inside.layer(name) for name in ([layer] if layer is None or isinstance(layer, str) else layer)]
    aim = Aim.of(inside, layers, channel, guide)
    sizes = [_size(canvas.values, octave_scale**k) for k in reversed(range(octaves))]
    with watching(progress) as bar, torch.inference_mode(False), torch.enable_grad():
        bar.expect(octaves * max(steps, 1))
        values, found, notes = _octaves(Climber(canvas, aim, settings, bar, torch.Generator().manual_seed(seed)), sizes)
    settings["layer"] = layers
    return Dream(
        inside.model.name, aim.words, values.detach().float().cpu().numpy(), canvas.seen(canvas.values),
        canvas.seen(values), tuple(found), settings, (*inside.notes, *canvas.notes, *notes),
    )  # fmt: skip


def _check(settings: dict[str, Any], guide: Any) -> None:
    """Every number in its range."""
    least = {"octaves": 1, "steps": 0, "jitter_px": 0, "tile_px": 16, "seed": 0}
    for name, low in least.items():
        number = settings[name]
        if isinstance(number, bool) or not isinstance(number, int) or number < low:
            raise SettingError(f"{name}={number!r} came; use a whole number from {low} on")
    if settings["seed"] >= LARGEST_SEED:
        raise SettingError(f"seed={settings['seed']} came; use a whole number below {LARGEST_SEED}")
    if not 1 < settings["octave_scale"] <= 10:
        raise SettingError(
            f"octave_scale={settings['octave_scale']} came; use a number over 1 and up to 10, such as 1.4"
        )
    if not 0 < settings["step_size"] <= 1:
        raise SettingError(f"step_size={settings['step_size']} came; use a part of the pixels' range, such as 0.006")
    channel = settings["channel"]
    if channel is not None and (isinstance(channel, bool) or not isinstance(channel, int) or channel < 0):
        raise SettingError(f"channel={channel!r} came; use the number of a channel, from 0 on")
    if guide is not None and channel is not None:
        raise SettingError("a guide and a channel came; a guide speaks for all channels, so leave one of them out")


def _octaves(dreamer: Climber, sizes: Sequence[tuple[int, int]]) -> tuple[Tensor, list[Octave], list[str]]:
    """From the smallest to the full size, detail handed up; those too small for the network are passed over."""
    whole = dreamer.canvas.values
    detail, found, notes = whole.new_zeros(len(whole), 1, 1), list[Octave](), list[str]()
    for number, size in enumerate(sizes):
        base = resized(whole, size)
        try:
            x, octave = dreamer.climbed(base + resized(detail, size))
        except Cancelled:
            if not found:
                raise
            notes.append(f"stopped on request after {len(found)} of {len(sizes)} octaves")
            break
        except (RuntimeError, ValueError, AssertionError, IndexError, TraceError) as error:
            if out_of_memory(error) or found:
                raise
            if number + 1 == len(sizes):
                raise ImageError(_refused(dreamer, size, error)) from error
            notes.append(f"the octave of {size[0]} x {size[1]} px is too small for the network and was passed over")
            dreamer.bar.advance(dreamer.settings["steps"])
            continue
        detail = x - base
        found.append(octave)
    silent = sum(octave.silent for octave in found)
    if silent:
        notes.append(
            f"{silent} steps changed nothing: no gradient came, as from a layer or channel that is silent there"
        )
    done = whole + resized(detail, (whole.shape[1], whole.shape[2]))
    return done.clamp(dreamer.canvas.low, dreamer.canvas.high), found, notes


def _refused(dreamer: Climber, size: tuple[int, int], error: Exception) -> str:
    why = (str(error).strip() or type(error).__name__).splitlines()[0]
    return (
        f'the network can\'t run up to layer "{dreamer.aim.watch.layers[-1]}" on {size[0]} x {size[1]} px ({why}); '
        "choose a layer before those of fixed size, or a picture of the network's own size with octaves=1"
    )


def _size(x: Tensor, smaller: int | float) -> tuple[int, int]:
    return max(1, round(x.shape[1] / smaller)), max(1, round(x.shape[2] / smaller))


def _small(pixels: UInt8[np.ndarray, "h w 3"], side_px: int = 320) -> Image.Image:
    image = Image.fromarray(pixels)
    image.thumbnail((side_px, side_px))
    return image
