"""Pictures that were made: what they are, what they excite, and how they are shown."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pellucid.core.tables import Table, curve, table
from pellucid.inside.opened import Unit
from pellucid.inside.showing import Shows
from pellucid.render.fitting import fitted
from pellucid.render.paint import number
from pellucid.render.sheet import Panel, in_rows, sheet

SHOWN_PX, ROW = 192, 4


@dataclass(frozen=True, eq=False)
class Optimised(Shows):
    """Pictures made for objectives, one or more for each.

    Attributes:
        model: the network's name.
        names: what each picture was made for.
        pictures: (n, c, h, w) in [0, 1], or in the network's input units where its preprocessing is not known.
        eight_bit: the same in 256 steps, (n, h, w, c): what is measured, shown and saved.
        values: the objective of each 8-bit picture, put through the network without any transform.
        units: the unit that each is about, where it is one.
        peaks: the highest value of that unit on its map for the 8-bit picture; NaN where there is none.
        heights: (n, steps) the objective at each step, under that step's transforms.
        snapshots: step -> the 8-bit pictures as they were then.
        opacity: (n, h, w) in [0, 1] how strongly each pixel was pulled at, for MACO; None otherwise.
        settings: what it was made with.
    """

    model: str
    names: tuple[str, ...]
    pictures: Float[np.ndarray, "n c h w"]
    eight_bit: UInt8[np.ndarray, "n h w c"]
    values: tuple[float, ...]
    units: tuple[Unit | None, ...]
    peaks: tuple[float, ...]
    heights: Float[np.ndarray, "n steps"]
    snapshots: dict[int, UInt8[np.ndarray, "n h w c"]] = field(default_factory=dict)
    opacity: Float[np.ndarray, "n h w"] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    title = "Optimised pictures"

    def __len__(self) -> int:
        return len(self.names)

    def __repr__(self) -> str:
        shown = ", ".join(f"{n}: {number(v)}" for n, v in zip(self.names[:4], self.values, strict=False))
        more = ", …" if len(self) > 4 else ""
        return f"Optimised({self.model}, {len(self)} pictures of {self.pictures.shape[2:]} px; {shown}{more})"

    def images(self, *, transparent: bool = False) -> list[Image.Image]:
        """Every picture by itself, at its own size; other than 1 or 3 channels are laid out side by side, in grey.

        Args:
            transparent: MACO only: what was hardly pulled at can be seen through, and the contrast is stretched
                from the 1st to the 99th percentile; for the eye, not what was measured.
        """
        if not transparent or self.opacity is None:
            return [as_image(pixels) for pixels in self.eight_bit]
        made = [as_image(_stretched(pixels)) for pixels in self.eight_bit]
        for image, alpha in zip(made, self.opacity, strict=True):
            image.putalpha(Image.fromarray(np.rint(alpha * 255).astype(np.uint8)).resize(image.size))
        return made

    def percentile(self, exemplars: Any) -> list[float]:
        """Which part of the data excites each picture's unit less than the picture does, in percent.

        Args:
            exemplars: what `exemplars` found over a data set; or one array of values for each picture.
        """
        from pellucid.inside.optimise.beside import percentiles

        return percentiles(self, exemplars)

    def beside(self, exemplars: Any, count: int = 4) -> Image.Image:
        """Each picture with the patches of a data set that excite its unit most.

        Such pictures alone can mislead: look at both.
        """
        from pellucid.inside.optimise.beside import sheet_beside

        return sheet_beside(self, exemplars, count)

    @property
    def traces(self) -> Table:
        """The objective at every step, one line per picture."""
        rows = [[step + 1, *map(float, column)] for step, column in enumerate(self.heights.T)]
        return curve("traces", ["step", *_distinct(self.names)], rows, "as seen under the transforms of each step")

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [
            [name, value, None if np.isnan(peak) else peak]
            for name, value, peak in zip(self.names, self.values, self.peaks, strict=True)
        ]
        columns = ["made for", "value of the 8-bit picture", "highest on the map"]
        return table("values", columns, rows, "without transforms"), self.traces

    def sentence(self) -> str:
        each = "; ".join(f"{n} {number(v)}" for n, v in zip(self.names[:6], self.values, strict=False))
        more = f" and {len(self) - 6} more" if len(self) > 6 else ""
        notes = "".join(f" Note: {note}." for note in self.notes)
        return (
            f"Made for {self.model} in {self.heights.shape[1]} steps. What the network gives for the 8-bit pictures as "
            f"they are: {each}{more}.{notes}"
        )

    def facts(self) -> dict[str, Any]:
        return super().facts() | {
            "model": self.model,
            "names": list(self.names),
            "values": list(self.values),
            "peaks": [None if np.isnan(peak) else peak for peak in self.peaks],
            "settings": self.settings,
            "notes": list(self.notes),
        }

    def image(self) -> Image.Image:
        panels: list[Panel] = [
            (fitted(image, SHOWN_PX), (name, f"value {value:.3g}"))
            for image, name, value in zip(self.images(), self.names, self.values, strict=True)
        ]
        return sheet(f"{self.title}: {self.model}", [], in_rows(panels, ROW))


def as_image(pixels: UInt8[np.ndarray, "h w c"]) -> Image.Image:
    """An 8-bit picture of any number of channels."""
    height, width, channels = pixels.shape
    if channels == 3:
        return Image.fromarray(pixels)
    if channels == 1:
        return Image.fromarray(pixels[:, :, 0]).convert("RGB")
    across = int(np.ceil(np.sqrt(channels)))
    canvas = np.full((-(-channels // across) * (height + 1) - 1, across * (width + 1) - 1), 255, np.uint8)
    for channel in range(channels):
        top, left = channel // across * (height + 1), channel % across * (width + 1)
        canvas[top : top + height, left : left + width] = pixels[:, :, channel]
    return Image.fromarray(canvas).convert("RGB")


def _stretched(pixels: UInt8[np.ndarray, "h w c"]) -> UInt8[np.ndarray, "h w c"]:
    low, high = np.percentile(pixels, (1, 99))
    return np.rint((pixels.astype(float) - low) / max(high - low, 1) * 255).clip(0, 255).astype(np.uint8)


def _distinct(names: Sequence[str]) -> list[str]:
    """Names of columns, numbered where they repeat."""
    return [n if names.count(n) == 1 else f"{n} ({names[:i].count(n) + 1})" for i, n in enumerate(names)]
