"""An atlas that was made: its cells, its sheet, its page, its file."""

from dataclasses import asdict, dataclass
from math import log
from pathlib import Path
from typing import Any

import numpy as np
import torch
from jaxtyping import UInt8
from PIL import Image, ImageDraw, ImageFont

from pellucid.core.errors import FileError, SettingError
from pellucid.core.tables import Table, table
from pellucid.inside.atlas.cells import Cell, Grid
from pellucid.inside.atlas.collecting import Samples
from pellucid.inside.atlas.page import page
from pellucid.inside.showing import Shows
from pellucid.render.paint import number
from pellucid.render.sheet import INK, shortened
from pellucid.render.visible import drawable
from pellucid.store.files import read_tensors, write_tensors, write_text

SHEET_PX, CELL_PX, WORDS_PX = 1200, (24, 112), 72
SMALLEST = 0.45  # of a cell's side, for the least dense one that is drawn
TENSORS = ("vectors", "attributions", "pictures", "positions", "boxes")
KIND = "activation atlas"
DOT = (90, 110, 160)


@dataclass(frozen=True, eq=False)
class Atlas(Shows):
    """A map of what a layer tells apart.

    Attributes:
        model, layer: where it was made.
        labels: the names of all classes.
        names: the picture of each sample.
        samples: the activations, one row each.
        grid: who lies in which cell; `grid.cells` are those that are drawn.
        drawn: the numbers of the cells that have an icon.
        icons: one picture for each of these.
        patches: what the examples of each cell see, (cells, examples, p, p, 3).
        settings: what it was made with.
        notes: what was chosen on the way.
    """

    model: str
    layer: str
    labels: tuple[str, ...]
    names: tuple[str, ...]
    samples: Samples
    grid: Grid
    drawn: tuple[int, ...]
    icons: UInt8[np.ndarray, "i h w 3"]
    patches: UInt8[np.ndarray, "m e p q 3"]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def cells(self) -> tuple[Cell, ...]:
        return self.grid.cells

    @property
    def title(self) -> str:
        about = "" if self.settings.get("class") is None else f": {self.labels[self.settings['class']]}"
        return f"Activation atlas of {self.layer}{about}"

    def sentence(self) -> str:
        """What was collected and drawn."""
        inside = sum(cell.count for cell in self.cells)
        rest = len(self.samples) - inside
        sparse = f"; {rest} lie in cells too sparse to be drawn" if rest else ""
        return (
            f"{len(self.samples)} activations of {self.layer} in {self.model}, laid out by {self.settings['layout']}: "
            f"{len(self.cells)} cells hold {inside} of them{sparse}. {self._pictured()}"
        )

    def _pictured(self) -> str:
        if not self.patches.shape[1] and not self.drawn:
            return ""
        if len(self.drawn) == len(self.cells):
            return "Each icon is a picture made to excite the layer like the mean of its cell."
        if not self.drawn:
            return "Each cell shows the patch of the data that is nearest to its mean."
        return f"{len(self.drawn)} cells show an icon made for their mean, the others a patch of the data."

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [
            (c.row, c.column, c.count, self.labels[c.classes[0]], c.shares[0], self.names[c.examples[0]])
            for c in sorted(self.cells, key=lambda c: (c.row, c.column))
        ]
        columns = ("row", "column", "activations", "class", "mean attribution (score)", "nearest picture")
        return (table("cells", columns, rows, " ".join(self.notes)),)

    def facts(self) -> dict[str, Any]:
        """The atlas as JSON values, without its arrays."""
        cells = [asdict(cell) | {"class": self.labels[cell.classes[0]]} for cell in self.cells]
        known = {"model": self.model, "layer": self.layer, "settings": self.settings, "notes": list(self.notes)}
        return {**super().facts(), **known, "counts": self.grid.counts.tolist(), "cells": cells}

    def picture(self, cell: int) -> UInt8[np.ndarray, "h w 3"] | None:
        """What stands for a cell: its icon, or else the patch nearest to its mean; None where there is neither."""
        if cell in self.drawn:
            return self.icons[self.drawn.index(cell)]
        return self.patches[cell, 0] if self.patches.shape[1] else None

    def caption(self, cell: Cell) -> str:
        """The name of a cell's class; in the atlas of one class how much the cell gives to it."""
        return f"{cell.shares[0]:.3g}" if len(cell.classes) == 1 else self.labels[cell.classes[0]]

    def size(self, cell: int) -> float:
        """The side of a cell's picture as a part of the cell, growing with the logarithm of its count."""
        most = log(max(c.count for c in self.cells) + 1)
        return SMALLEST + (1 - SMALLEST) * log(self.cells[cell].count + 1) / most

    def image(self) -> Image.Image:
        """The sheet: every cell in its place; with the name of its class where there is room."""
        side = len(self.grid.counts)
        px = int(np.clip(SHEET_PX // side, *CELL_PX))
        words = 16 if px >= WORDS_PX else 0
        canvas = Image.new("RGB", (side * px + 20, side * (px + words) + 64), "white")
        pen = ImageDraw.Draw(canvas)
        pen.text((10, 8), drawable(self.title), fill=INK, font=ImageFont.load_default(15))
        below = f"{len(self.samples)} activations, {self.settings['layout']}; larger means more activations"
        below += "" if self.settings.get("class") is None else "; numbers are mean attributions"
        pen.text((10, canvas.height - 24), drawable(below), fill=INK, font=ImageFont.load_default(12))
        for k, cell in enumerate(self.cells):
            left, top = 10 + cell.column * px, 34 + cell.row * (px + words)
            shown, own = self.picture(k), max(4, round((px - 2) * self.size(k)))
            if shown is None:
                x, y = left + px // 2, top + px // 2
                pen.ellipse((x - own // 2, y - own // 2, x + own // 2, y + own // 2), fill=DOT)
            else:
                small = Image.fromarray(shown).resize((own, own), Image.Resampling.LANCZOS)
                canvas.paste(small, (left + (px - own) // 2, top + (px - own) // 2))
            if words:
                font = ImageFont.load_default(11)
                text = shortened(self.caption(cell), px - 2, font)
                pen.text((left + px / 2, top + px + 7), text, fill=INK, font=font, anchor="mm")
        return canvas

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Write it by the suffix of the path: an interactive page (.html), the sheet (.png), facts (.json), or all of
        it, to be opened again (.safetensors).

        Raises:
            FileError: another suffix, or the file can't be written.
        """
        path = Path(path)
        if path.suffix == ".html":
            return write_text(path, page(self), overwrite=overwrite)
        if path.suffix != ".safetensors":
            return super().save(path, overwrite=overwrite)
        arrays = {name: getattr(self.samples, name) for name in TENSORS}
        arrays |= {name: getattr(self.grid, name) for name in ("places", "rows", "counts", "means")}
        arrays |= {"icons": self.icons, "patches": self.patches}
        facts = {
            "kind": KIND, "model": self.model, "layer": self.layer, "labels": self.labels, "names": self.names,
            "cells": [asdict(cell) for cell in self.cells], "drawn": self.drawn, "settings": self.settings,
            "notes": self.notes,
        }  # fmt: skip
        tensors = {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
        return write_tensors(path, tensors, facts, overwrite=overwrite)

    @classmethod
    def open(cls, path: str | Path) -> "Atlas":
        """Read what `save` wrote as .safetensors; nothing in the file is run as code.

        Raises:
            FileError: no such file, or it holds no atlas.
        """
        tensors, facts = read_tensors(path)
        if facts.get("kind") != KIND:
            raise FileError(f"{path} holds no activation atlas; open what Atlas.save wrote as .safetensors")
        try:
            a = {name: tensor.numpy() for name, tensor in tensors.items()}
            cells = tuple(map(_cell, facts["cells"]))
            samples = Samples(*(a[name] for name in TENSORS))
            return cls(
                facts["model"], facts["layer"], tuple(facts["labels"]), tuple(facts["names"]), samples,
                Grid(a["places"], a["rows"], a["counts"], cells, a["means"]), tuple(facts["drawn"]), a["icons"],
                a["patches"], facts["settings"], tuple(facts["notes"]),
            )  # fmt: skip
        except (KeyError, TypeError, ValueError) as error:
            raise FileError(f"{path} is damaged: {error}; make the atlas again") from error

    def find(self, label: str | int) -> list[int]:
        """The numbers of the cells whose first class is this one, the fullest first.

        Raises:
            SettingError: no class of that name.
        """
        if isinstance(label, str) and label not in self.labels:
            raise SettingError(f'no class "{label}" in this atlas; its labels are those of {self.model}')
        number_ = self.labels.index(label) if isinstance(label, str) else label
        found = [k for k, cell in enumerate(self.cells) if cell.classes[0] == number_]
        return sorted(found, key=lambda k: -self.cells[k].count)

    def __repr__(self) -> str:
        best = max(self.cells, key=lambda c: c.count)
        return (
            f'Atlas("{self.layer}" of {self.model}, {len(self.samples)} activations, {len(self.cells)} cells, '
            f"{len(self.drawn)} icons; fullest: {self.labels[best.classes[0]]} {number(best.shares[0])})"
        )


def _cell(facts: dict[str, Any]) -> Cell:
    classes, shares, examples = (tuple(facts[name]) for name in ("classes", "shares", "examples"))
    return Cell(facts["row"], facts["column"], facts["count"], classes, shares, examples)
