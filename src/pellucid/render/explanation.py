"""One explanation: a frozen value that knows its picture, its receipt and how to show itself."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

import numpy as np
from jaxtyping import Float32
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from torch import Tensor

from pellucid.core.errors import FileError, SettingError, check_known
from pellucid.core.receipt import Receipt
from pellucid.core.tables import Table
from pellucid.images.decode import Picture
from pellucid.images.transforms import Placement
from pellucid.render import paint
from pellucid.store.files import whole_file, write_text

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Site = Literal["input", "layer"]
Reduce = Literal["sum", "max_abs", "sum_abs", "none"]
_REDUCE = {
    "sum": lambda a: a.sum(0),
    "max_abs": lambda a: a.abs().amax(0),
    "sum_abs": lambda a: a.abs().sum(0),
}


@dataclass(frozen=True)
class Prediction:
    """One of the classes the network found most probable; `probability` in 0..1."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, eq=False, kw_only=True)
class Explanation:
    """Which pixels, or which places of a layer, one number of the network came from.

    Attributes:
        attribution: raw values, never rescaled, "c h w" at the input or "h w" at a layer, on the CPU.
        method: name as it is typed, e.g. `grad_cam`; `title` as it is written, e.g. Grad-CAM.
        target: which number was explained, e.g. "logit of 281 tabby"; `score` is its value on this picture.
        site: whether the attribution lies on the network's input or on the grid of `layer`.
        layer_chosen: the layer was chosen for the user.
        signed: False for a method whose heat is >= 0 by definition.
        reduce: how channels become one heat value; "none" where there is one channel only.
        units: what one unit of heat is, e.g. "logit" or "logit per unit of input".
        placement: where the network's input lies on the picture.
        predictions: the five most probable classes, best first; empty for other outputs.
        misleads: one sentence, when this method misleads; `source` is the paper.
        tables: what the method found besides the map: regions, curves, how well a surrogate fits.
        extra_maps: further maps on the grid of the attribution, channels reduced, such as one per fill.
    """

    attribution: Tensor
    method: str
    title: str
    target: str
    score: float
    site: Site
    signed: bool
    picture: Picture
    placement: Placement
    layer: str | None = None
    layer_chosen: bool = False
    reduce: Reduce = "none"
    settings: Mapping[str, Any] = field(default_factory=dict)
    units: str = ""
    receipt: Receipt = field(default_factory=Receipt)
    seconds: float = 0.0
    predictions: tuple[Prediction, ...] = ()
    model: str = ""
    versions: Mapping[str, str] = field(default_factory=dict)
    misleads: str = ""
    source: str = ""
    tables: tuple[Table, ...] = ()
    extra_maps: Mapping[str, Tensor] = field(default_factory=dict)

    def __post_init__(self) -> None:
        shape = tuple(self.attribution.shape)
        channels = shape[0] if len(shape) == 3 else 1
        if len(shape) not in (2, 3) or 0 in shape:
            raise SettingError(f"the attribution has shape {shape}; expected (c, h, w) or (h, w), none of them 0")
        if self.site not in get_args(Site):
            raise SettingError(f'site is "{self.site}"; expected "input" or "layer"')
        if self.reduce not in (*_REDUCE, "none"):
            raise SettingError(f'reduce is "{self.reduce}"; expected one of {", ".join((*_REDUCE, "none"))}')
        if self.reduce == "none" and channels > 1:
            raise SettingError(f'{channels} channels can\'t be drawn with reduce="none"; try "sum" or "max_abs"')
        if tuple(self.placement.original_px) != tuple(self.picture.size_px):
            raise SettingError(
                f"the placement is for a picture of {self.placement.original_px} pixels, "
                f"the picture has {self.picture.size_px}; give the placement that this picture's preprocessing returned"
            )
        grid = shape[-2:]
        for name, values in self.extra_maps.items():
            if tuple(values.shape) != grid or not values.is_floating_point():
                raise SettingError(
                    f'the further map "{name}" has shape {tuple(values.shape)} and holds {values.dtype}; '
                    f"expected floating-point numbers on the grid of the attribution, {grid}, channels reduced"
                )

    @cached_property
    def native(self) -> Float32[np.ndarray, "a b"]:
        """The heat on the grid it was computed on, channels reduced; read-only."""
        values = self.attribution.detach().float().cpu()
        if values.ndim == 3:
            values = values[0] if values.shape[0] == 1 and self.reduce == "none" else _REDUCE[self.reduce](values)
        heat = values.numpy().copy()
        heat.flags.writeable = False
        return heat

    @cached_property
    def heat(self) -> Float32[np.ndarray, "h w"]:
        """The heat on the original picture, smoothly interpolated, NaN where the network did not look; read-only."""
        heat = self.placement.place(self.native)
        heat.flags.writeable = False
        return heat

    @property
    def diverging(self) -> bool:
        """Whether the colours have two sides: the method is signed, or negative values came out all the same."""
        return self.signed or bool((self.native < 0).any())

    def limits(self, percentile: int | float = 98) -> tuple[float, float]:
        """Where the colours end: symmetric about zero for signed heat, from zero otherwise.

        Args:
            percentile: of |heat| over the computed cells, without NaN; the maximum where this percentile is zero.
        """
        end = paint.limit(self.native, percentile)
        return (-end if self.diverging else 0.0), end

    def placed(
        self, longest_px: int | None = None, *, native: bool = False, sign: paint.Sign = "all"
    ) -> Float32[np.ndarray, "h w"]:
        """The heat on the picture, or on a picture shrunk to `longest_px` on its longer side.

        Args:
            longest_px: None keeps the size of the picture.
            native: show the computed cells as they are instead of interpolating between them.
            sign: which part of the heat.
        """
        height, width = self._size(longest_px)
        top, left, bottom, right = self.placement.box
        down, across = height / self.placement.original_px[0], width / self.placement.original_px[1]
        box = (top * down, left * across, bottom * down, right * across)
        place = replace(self.placement, original_px=(height, width), box=box)
        return paint.signed_part(place.place(self.native, smooth=not native), sign)

    def overlay(
        self,
        opacity: int | float = 0.6,
        sign: paint.Sign = "all",
        native: bool = False,
        *,
        percentile: int | float = 98,
        longest_px: int | None = None,
        end: float | None = None,
    ) -> Image.Image:
        """The heat laid over the picture; where it is zero the picture shows unchanged.

        Args:
            opacity: 0 shows the picture alone, 1 covers it where the heat is strongest.
            sign: all, positive, negative or absolute.
            native: show the computed cells instead of interpolating between them.
            percentile: of |heat|, where the colours end (see `limits`).
            longest_px: shrink to this many pixels on the longer side; None keeps the size.
            end: where the colours end, in the unit of the heat, to compare maps; None takes the percentile.
        """
        heat = self.placed(longest_px, native=native, sign=sign)
        picture = self.picture.image()
        if picture.size != heat.shape[::-1]:
            picture = picture.resize(heat.shape[::-1], Image.Resampling.LANCZOS)
        end = self.limits(percentile)[1] if end is None else end
        return paint.blend(picture, heat, end, self._two_sided(sign), opacity)

    def picture_heat(
        self,
        sign: paint.Sign = "all",
        native: bool = False,
        *,
        percentile: int | float = 98,
        longest_px: int | None = None,
    ) -> Image.Image:
        """The heat alone, on the grid of the picture; zero is the neutral colour, unseen margins are hatched."""
        heat = self.placed(longest_px, native=native, sign=sign)
        return paint.draw(heat, self.limits(percentile)[1], self._two_sided(sign))

    def caption(self, percentile: int | float = 98) -> str:
        """Method, layer, target and limits in one line."""
        low, high = (paint.number(value) for value in self.limits(percentile))
        chosen = " (chosen for you)" if self.layer_chosen else ""
        layer = f" at {self.layer}{chosen}" if self.layer else ""
        return f"{self.title}{layer} for {self.target}; colours end at {low} and {high} (percentile {percentile:g})"

    def extra(self, name: str) -> "Explanation":
        """One of the further maps as an explanation that can be drawn and saved.

        Raises:
            SettingError: there is no such map.
        """
        from pellucid.render.extras import extra

        check_known("further map", name, self.extra_maps)
        return extra(self, name)

    def sentence(self) -> str:
        """What the map says, in words for a reader who is no expert."""
        from pellucid.render.sentence import sentence

        return sentence(self)

    def plot(self, ax: "Axes | None" = None) -> "Axes":
        """Draws picture, heat and colour bar into matplotlib axes and returns them; never shows a window."""
        from pellucid.render.plot import plot

        return plot(self, ax)

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Writes the explanation whole (`.pel`), its overlay (`.png`), its heat (`.npy`) or a table (`.csv`) in one go.

        Args:
            path: of several tables, the one that the file is named after is written: `regions.csv`.

        Raises:
            FileError: another ending, no such table, or the file can't be written.
        """
        from pellucid.render.pel import write
        from pellucid.render.tabular import csv_text, named

        ending = Path(path).suffix.lower()
        if ending == ".pel":
            return write(self, path, overwrite=overwrite)
        if ending == ".csv":
            return write_text(path, csv_text(named(self.tables, Path(path).stem)), overwrite=overwrite)
        if ending not in (".png", ".npy"):
            raise FileError(
                f'can\'t save as "{Path(path).name}"; expected a name that ends in .pel, .png, .npy or .csv'
            )
        with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
            self._write_png(file) if ending == ".png" else np.save(file, self.heat, allow_pickle=False)
        return Path(path)

    @classmethod
    def open(cls, path: str | Path) -> "Explanation":
        """Reads a `.pel` file; nothing in it is run as code.

        Raises:
            FileError: missing, too large, damaged or not written by pellucid.
        """
        from pellucid.render.pel import read

        return read(path)

    def _write_png(self, file: Any) -> None:
        words = PngInfo()
        for key, value in (("Title", self.caption()), ("Description", self.sentence()), ("Software", "pellucid")):
            words.add_itxt(key, value)
        words.add_itxt("pellucid", json.dumps({"method": self.method, "target": self.target, "limits": self.limits()}))
        self.overlay().save(file, "PNG", pnginfo=words)

    def _size(self, longest_px: int | None) -> tuple[int, int]:
        height, width = self.placement.original_px
        scale = min(1.0, (longest_px or max(height, width)) / max(height, width))
        return max(1, round(height * scale)), max(1, round(width * scale))

    def _two_sided(self, sign: paint.Sign) -> bool:
        return self.diverging and sign != "absolute"

    def _repr_html_(self) -> str:
        from pellucid.render.notebook import card

        return card(self)

    def __repr__(self) -> str:
        grid = "x".join(str(n) for n in self.attribution.shape)
        layer = f", layer={self.layer!r}" if self.layer else ""
        return (
            f"Explanation({self.method!r}, {self.target!r}, score={self.score:.4g}{layer}, "
            f"grid={grid}, picture={self.picture.name!r}, receipt={self.receipt.verdict!r})"
        )
