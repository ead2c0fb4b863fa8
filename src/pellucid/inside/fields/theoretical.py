"""What every layer can see, as a table and drawn on the picture."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from jaxtyping import UInt8
from PIL import Image
from torch import nn

from pellucid.core.errors import LayerError, nearest
from pellucid.core.fields import Box, Field, fields
from pellucid.core.tables import Cell, Table
from pellucid.inside.fields.drawing import Frame, framed, legend, shades
from pellucid.inside.fields.looking import by
from pellucid.inside.opened import opened
from pellucid.inside.showing import Shows
from pellucid.methods.pictures import seen as as_seen
from pellucid.models.model import Model
from pellucid.render.paint import number
from pellucid.render.sheet import sheet

DRAWN = 6  # layers on the picture


@dataclass(frozen=True, eq=False, repr=False)
class ReceptiveFields(Shows):
    """The theoretical receptive field of every layer.

    Attributes:
        layers: layer -> its field, in the order in which the layers ran.
        kinds: layer -> class.
        counts: layer -> size of its maps.
        input_px: the input's sides.
        model: the network.
        shown: the picture as the network gets it; None where the input is none.
        position: of the units that are drawn; the middle of each layer's maps where it is None.
    """

    layers: dict[str, Field]
    kinds: dict[str, str]
    counts: dict[str, tuple[int, ...]]
    input_px: tuple[int, ...]
    model: str
    shown: UInt8[np.ndarray, "h w 3"] | None = None
    position: tuple[int, ...] | None = None

    @property
    def title(self) -> str:
        return f"Receptive fields of {self.model}"

    def of(self, layer: str) -> Field:
        """One layer's field.

        Raises:
            LayerError: no such layer; the nearest names are offered.
        """
        if layer not in self.layers:
            raise LayerError(f'no layer "{layer}" that depends on the input{nearest(layer, self.layers)}')
        return self.layers[layer]

    def only(self, layers: Sequence[str], position: Sequence[int] | None = None) -> "ReceptiveFields":
        """Some of the layers, their units drawn at one position.

        Raises:
            LayerError: no such layer or position.
        """
        chosen = {name: self.of(name) for name in layers}
        for name, field in chosen.items():
            self._position(name, field, position)
        return replace(self, layers=chosen, position=None if position is None else tuple(position))

    def box(self, layer: str, position: Sequence[int]) -> Box:
        """The pixels that the units of a layer can see from one position: first, and one behind the last.

        Raises:
            LayerError: no such layer or position.
        """
        field = self.of(layer)
        return field.box(self._position(layer, field, position))

    def _position(self, layer: str, field: Field, given: Sequence[int] | None) -> tuple[int, ...]:
        sides = field.positions
        place = tuple(n // 2 for n in sides) if given is None else tuple(int(p) for p in given)
        if len(place) != len(sides) or any(not 0 <= p < n for p, n in zip(place, sides, strict=True)):
            raise LayerError(f'position {place} came; the maps of layer "{layer}" are {by(sides) or "none"}')
        return place

    def drawn(self, layers: str | Sequence[str] | None = None, position: Sequence[int] | None = None) -> Image.Image:
        """Fields as frames on the picture; grey is beyond its border.

        Args:
            layers: one or several; a few of all where it is None.
            position: of the units; the middle of each layer's maps where it is None.

        Raises:
            LayerError: no such layer or position.
        """
        names = [layers] if isinstance(layers, str) else self._few() if layers is None else list(layers)
        frames = self._frames(names, position)
        drawn = framed(self._base(), [replace(f, words="") for f in frames])
        words = legend(frames, drawn.height)
        canvas = Image.new("RGB", (drawn.width + 14 + words.width, drawn.height), "white")
        canvas.paste(drawn, (0, 0))
        canvas.paste(words, (drawn.width + 14, 0))
        return canvas

    def _frames(self, names: Sequence[str], position: Sequence[int] | None) -> list[Frame]:
        """The largest first, so that the others lie on it."""
        frames = []
        for name in names:
            field = self.of(name)
            place = self._position(name, field, position)
            reached = field.reach(place) if field.low else tuple((0, n - 1) for n in self.input_px)
            frames.append(Frame(reached[-2:], (0, 0, 0), f"{name}   {by(field.size_px)} px"))
        frames.sort(key=_area, reverse=True)
        return [replace(f, colour=c) for f, c in zip(frames, shades(len(frames))[::-1], strict=True)]

    def _base(self) -> Image.Image:
        height, width = (*(1,) * (2 - len(self.input_px)), *self.input_px)[-2:]
        blank = np.full((height, width, 3), 255, np.uint8)
        return Image.fromarray(blank if self.shown is None else self.shown)

    def _few(self) -> list[str]:
        """Layers whose fields differ, spread over all of them; all where there are few."""
        if len(self.layers) <= DRAWN:
            return list(self.layers)
        sizes: dict[tuple[int, ...], str] = {}
        for name, field in self.layers.items():
            if field.low and not (field.everywhere and self._whole(field)):
                sizes[field.size_px] = name
        names = list(sizes.values())
        steps = np.linspace(0, len(names) - 1, min(DRAWN, len(names))).round().astype(int)
        return [names[i] for i in steps]

    def _whole(self, field: Field) -> bool:
        return all(s >= n for s, n in zip(field.size_px, self.input_px, strict=True))

    def image(self) -> Image.Image:
        where = "in the middle of each layer's maps" if self.position is None else f"at {by_commas(self.position)}"
        words = [f"units {where}; grey: beyond the border, where there is padding"]
        return sheet(self.title, [], [[(self.drawn(position=self.position), words)]])

    def sentence(self) -> str:
        found = [(n, f) for n, f in self.layers.items() if f.low and not f.everywhere]
        if not found:
            return f"Every layer of {self.model} sees the whole input of {by(self.input_px)} px."
        name, field = found[-1]
        words = (
            f'{self.model} takes {by(self.input_px)} px. The units of "{name}" can see {by(field.size_px)} px, '
            f"{' × '.join(map(number, field.stride_px))} px apart."
        )
        first = next((f.everywhere for f in self.layers.values() if f.everywhere), "")
        return words + (f" From {first} on, units see everything." if first else "")

    @property
    def tables(self) -> tuple[Table, ...]:
        columns = (
            "layer", "kind", "positions", "field (px)", "stride (px)", "first centre (px)", "sees everything by",
            "aligned",
        )  # fmt: skip
        rows = tuple(self._row(name, field) for name, field in self.layers.items())
        note = "a field is a side along each axis, border or not; aligned: all ways to the layer are centred alike"
        return (Table("fields", columns, rows, note=note),)

    def _row(self, name: str, field: Field) -> tuple[Cell, ...]:
        local = bool(field.low)
        first = field.centre((0,) * len(field.positions)) if local else ()
        return (
            name, self.kinds.get(name.partition("#")[0], ""), by(self.counts[name]) or "–",
            by(field.size_px), " × ".join(map(number, field.stride_px)) if any(field.stride_px) else "–",
            ", ".join(map(number, first)) or "–", field.everywhere or "–", field.aligned,
        )  # fmt: skip

    def facts(self) -> dict[str, Any]:
        layers = {
            name: {
                "kind": self.kinds.get(name.partition("#")[0], ""), "positions": list(self.counts[name]),
                "size_px": list(f.size_px), "stride_px": list(f.stride_px), "aligned": f.aligned,
                "first_centre_px": list(f.centre((0,) * len(f.positions))) if f.low else [], "everywhere": f.everywhere,
            }
            for name, f in self.layers.items()
        }  # fmt: skip
        return {"title": self.title, "sentence": self.sentence(), "input_px": list(self.input_px), "layers": layers}

    def __repr__(self) -> str:
        return f"ReceptiveFields({self.model}: {len(self.layers)} layers on {by(self.input_px)} px)"


def by_commas(numbers: Sequence[int]) -> str:
    """As a position is written.

    Example:
        >>> by_commas((3, 5))
        '3, 5'
    """
    return ", ".join(map(str, numbers))


def _area(frame: Frame) -> int:
    return int(np.prod([b - a + 1 for a, b in frame.reached]))


def receptive_fields(model: Model | nn.Module | str, image: Any = None) -> ReceptiveFields:
    """What the units of every layer can see, from a recording of the network as it is.

    For a kernel k, stride s, padding p and dilation d along each way through the network:

        r ← r + (k − 1) d j,   start ← start + ((k − 1) d / 2 − p) j,   j ← j s

    and where ways meet, the smallest box around all of them.

    Args:
        image: the picture to draw on, or an input; noise of the network's input size where it is None.

    Raises:
        ModelError: no image was given and the network's input size is not known.

    Example:
        >>> import torch
        >>> found = receptive_fields(nn.Sequential(nn.Conv2d(1, 2, 3), nn.MaxPool2d(2)), torch.zeros(1, 1, 9, 9))
        >>> found.of("1").size_px, found.of("1").stride_px, found.box("1", (0, 2))
        ((4, 4), (2.0, 2.0), ((0, 4), (4, 8)))

    Source: Araujo, Norris & Sim 2019, "Computing receptive fields of convolutional neural networks", Distill.
    """
    asked = opened(model, image)
    trace, found = asked.trace, fields(asked.trace)
    x, layers = trace.inputs[0].data, dict[str, Field]()
    for path, calls in trace.layers.items():
        for number_, values in enumerate(calls):
            if path and values and values[0] in found:
                layers[path if len(calls) == 1 else f"{path}#{number_}"] = found[values[0]]
    order = sorted(layers, key=lambda name: trace.at(name).position)
    return ReceptiveFields(
        {name: layers[name] for name in order},
        dict(trace.kinds),
        {name: asked.positions(name) if len(trace.at(name).shape) > 1 else () for name in order},
        tuple(x.shape[2:]),
        asked.model.name,
        as_seen(x[0], asked.model.preprocess) if x.dim() == 4 else None,
    )
