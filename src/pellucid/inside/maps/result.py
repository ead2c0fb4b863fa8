"""One picture on every layer: energy, hypercolumns, regions, what is left of the picture, who carries the decision."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pellucid.core.errors import LayerError, SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.core.target import Target
from pellucid.inside.maps.align import Places, centres, laid, through, weights
from pellucid.inside.maps.deciding import contributions
from pellucid.inside.maps.layer import LayerMaps
from pellucid.inside.maps.rebuild import Rebuilt, least_squares
from pellucid.inside.maps.regions import LEVEL, Region, masks
from pellucid.inside.opened import Opened
from pellucid.inside.showing import Shows
from pellucid.methods.pictures import seen
from pellucid.render.fitting import fitted
from pellucid.render.paint import blend, number, plain
from pellucid.render.sheet import in_rows, sheet

Grid = Literal["picture", "input", "layer"]
SHOWN = 12


@dataclass(frozen=True, eq=False)
class Maps(Shows):
    """What every channel of every layer does in one picture.

    Attributes:
        inside: the network, recorded on the picture.
        target: towards what the channels' support and the layers' contributions are counted.
        words: the target in words.
        found: layer -> its channels.
        progress: told about long work.
    """

    inside: Opened
    target: Target
    words: str
    found: dict[str, LayerMaps]
    progress: Progress | bool | None = None

    @property
    def title(self) -> str:
        name = self.inside.picture.name if self.inside.picture is not None else "input"
        shown = {"input": "this input", "array": "this picture", "image": "this picture"}.get(name, name)
        return f"What the layers of {self.inside.model.name} do in {shown}"

    def of(self, layer: str | None = None) -> LayerMaps:
        """One layer; the last one with maps where none is named.

        Raises:
            LayerError: no such layer, or not one of those that were asked for.
        """
        if layer is None and len(self.found) == 1:
            return next(iter(self.found.values()))
        name = self.inside.layer(layer)
        if name not in self.found:
            value = self.inside.value(name)
            name = next((n for n in self.found if self.inside.value(n) is value), name)
        if name not in self.found:
            raise LayerError(f'layer "{name}" was not asked for; there are {", ".join(self.found)}')
        return self.found[name]

    def energy(self, layer: str | None = None, grid: Grid = "picture") -> Float[np.ndarray, "*space"]:
        """`‖A‖₂` over the channels at each position.

        Args:
            layer: a layer with maps.
            grid: of the original picture (NaN where the network saw nothing of it), of the network's input, or of the
                layer itself. Values lie at the centres of receptive fields, with linear interpolation between them.
        """
        check_known("grid", grid, ("picture", "input", "layer"))
        name = self._spatial(layer)
        own = self._maps(name).square().sum(0).sqrt()
        if grid == "layer":
            return own.numpy()
        whole = laid(own[None], self._centres(name), self._input_px)[0].numpy()
        placement = self.inside.placement
        return whole if grid == "input" or placement is None else placement.place(whole)

    def hypercolumn(self, *pixel: int | float) -> dict[str, Float[np.ndarray, "c"]]:
        """What every layer with maps says at one pixel: layer -> one number for each channel.

        Args:
            pixel: row and column on the original picture (on the input where there is no picture); 3 is the middle of
                the fourth pixel.

        Raises:
            SettingError: not a pixel of the picture, or one that the network was not fed.
        """
        at = self._on_input(pixel)
        found = {}
        for name, one in self.found.items():
            if one.values.ndim - 1 != len(at):
                continue
            vector = self._maps(name)
            for axis, (places, where) in enumerate(zip(self._centres(name), at, strict=True), start=1):
                vector = through(vector, weights(places, np.array([where])), axis)
            found[name] = vector.flatten().numpy()
        return found

    def regions(self, layer: str | None = None, count: int = 3, level: int | float = LEVEL) -> list[Region]:
        """The most active places of a layer, by energy: key points with the connected positions around them.

        Args:
            count: at most so many.
            level: how far up from the least energy to the key point's a position must be to belong to its region.
        """
        name = self._spatial(layer)
        values, field, energy = self.found[name].values, self.inside.field(name), self.energy(name, "layer")
        whole = tuple((0, n) for n in self._input_px)
        return [
            Region(
                point, float(energy[point]), mask, values[:, mask].mean(1),
                field.box(point) if field.positions == energy.shape else whole,
            )
            for point, mask in masks(energy, count, level)
        ]  # fmt: skip

    def reconstruction(self, layer: str | None = None) -> Rebuilt:
        """The input by least squares from a layer's maps laid on its pixels, and how much of its variance they hold."""
        name = self._spatial(layer)
        x = self.inside.trace.inputs[0].data[0].detach().double().cpu()
        values, explained = least_squares(self._maps(name), x, self._centres(name))
        shown = None
        if x.dim() == 3:
            before, after = (Image.fromarray(seen(t.float(), self.inside.model.preprocess)) for t in (x, values))
            shown = (before, after)
        return Rebuilt(name, x.float().numpy(), values.float().numpy(), explained, shown)

    @cached_property
    def contributions(self) -> Table:
        """What each layer contributes to the target; see `deciding.contributions`."""
        with watching(self.progress) as bar:
            return contributions(self.inside, self.target, bar)

    def image(self) -> Image.Image:
        """The picture, and the energy of layers from first to last laid over it."""
        names = [n for n, one in self.found.items() if one.values.ndim == 3 and one.values[0].size > 1]
        shown = [names[k] for k in np.unique(np.linspace(0, len(names) - 1, min(SHOWN, len(names))).astype(int))]
        if self.inside.picture is None or not shown:
            return self.of(next(reversed(self.found))).image()
        base = self.inside.picture.image()
        panels = [self._energy_panel(name, base) for name in shown]
        return sheet(self.title, [(fitted(base, 224), ["picture"])], in_rows(panels, 4))

    def sentence(self) -> str:
        """How many layers and channels there are, and how many do nothing."""
        count = sum(one.count for one in self.found.values())
        dead = sum(int(one.channels.dead.sum()) for one in self.found.values())
        silent = sum(int(one.channels.silent.sum()) for one in self.found.values()) - dead
        score = float(self.target.score(self.inside.trace)[0])
        rest = f" and {silent} silent in this picture only" if silent else ""
        told = f"{len(self.found)} layers with {count} channels, {dead} of them dead{rest}"
        return f"{told}; {self.words} is {number(score)}"

    @property
    def tables(self) -> tuple[Table, ...]:
        """One row for each layer."""
        columns = (
            "layer",
            "channels",
            "positions",
            "zeros (fraction)",
            "dead",
            "silent here",
            "saturated",
            "mean energy",
        )
        rows = [
            (
                name, one.count, "×".join(map(str, one.values.shape[1:])), one.sparsity, int(one.channels.dead.sum()),
                int((one.channels.silent & ~one.channels.dead).sum()), int(one.channels.saturated.sum()),
                float(np.sqrt(np.square(one.values, dtype=np.float64).sum(0)).mean()),
            )
            for name, one in self.found.items()
        ]  # fmt: skip
        return (table("layers", columns, rows),)

    def __repr__(self) -> str:
        return f"Maps({self.inside.model.name}, {self.sentence()})"

    def _spatial(self, layer: str | None) -> str:
        return self.of(None if layer is None else self.inside.spatial(layer)).layer

    def _maps(self, name: str) -> Tensor:
        return torch.from_numpy(self.found[name].values).double()

    @property
    def _input_px(self) -> tuple[int, ...]:
        return tuple(self.inside.trace.inputs[0].shape[2:])

    def _centres(self, name: str) -> Places:
        return centres(self.inside.field(name), self.found[name].values.shape[1:], name)

    def _on_input(self, pixel: Sequence[int | float]) -> tuple[float, ...]:
        """The middle of a pixel of the picture in continuous coordinates of the input."""
        placement, size = self.inside.placement, self._input_px
        asked = placement.original_px if placement is not None else size
        if len(pixel) != len(size) or not all(0 <= p < n for p, n in zip(pixel, asked, strict=True)):
            raise SettingError(
                f"pixel {pixel} came; the picture has {'×'.join(map(str, asked))} pixels, counted from 0"
            )
        middle = tuple(p + 0.5 for p in pixel)
        at = tuple(middle) if placement is None else tuple(map(float, placement.to_input(*middle)))
        if not all(0 <= p <= n for p, n in zip(at, size, strict=True)):
            raise SettingError(f"pixel {pixel} lies outside of what the network was fed: it sees {placement}")
        return at

    def _energy_panel(self, name: str, base: Image.Image) -> tuple[Image.Image, list[str]]:
        heat = self.energy(name)
        most = float(heat[np.isfinite(heat)].max(initial=0.0))
        drawn = blend(base, heat, most, False, 0.85)
        return fitted(drawn, 168), [name, f"energy 0 … {plain(most)}"]
