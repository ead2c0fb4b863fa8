"""Several explanations that belong together: methods, targets, images."""

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import overload

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from pellucid.core.errors import SettingError
from pellucid.render import bars, paint
from pellucid.render.datablock import picture_key
from pellucid.render.earlier import REPORT, leftovers, refuse_foreign, table_names
from pellucid.render.explanation import Explanation
from pellucid.render.fitting import fitted
from pellucid.render.notebook import cards
from pellucid.render.tabular import csv_text
from pellucid.store.files import whole_folder, write_text

_CELL_PX, _GAP_PX, _LINE_PX = 256, 12, 15


@dataclass(frozen=True, eq=False, repr=False)
class Panel(Sequence[Explanation]):
    """A frozen sequence of explanations that is drawn, reported and saved as one."""

    explanations: tuple[Explanation, ...]

    def __init__(self, explanations: Iterable[Explanation]) -> None:
        object.__setattr__(self, "explanations", tuple(explanations))

    @overload
    def __getitem__(self, index: int) -> Explanation: ...
    @overload
    def __getitem__(self, index: slice) -> "Panel": ...
    def __getitem__(self, index: int | slice) -> "Explanation | Panel":
        found = self.explanations[index]
        return Panel(found) if isinstance(found, tuple) else found

    def __len__(self) -> int:
        return len(self.explanations)

    def __iter__(self) -> Iterator[Explanation]:
        return iter(self.explanations)

    @property
    def attribution(self) -> Tensor:
        """All raw attributions, stacked along a first dimension.

        Raises:
            SettingError: their shapes differ, or there are none.
        """
        shapes = {tuple(explanation.attribution.shape) for explanation in self}
        if len(shapes) != 1:
            found = ", ".join(str(shape) for shape in sorted(shapes)) or "nothing"
            raise SettingError(f"attributions of one shape can be stacked, here are {found}; take them one by one")
        return torch.stack([explanation.attribution for explanation in self])

    def grid(self, cell_px: int = _CELL_PX) -> Image.Image:
        """All overlays as one picture, a row for each image and target, each with its colour bar and limits.

        Args:
            cell_px: longer side of each overlay.
        """
        rows = self._rows()
        cells = [[_cell(explanation, cell_px) for explanation in row] for row in rows]
        columns, height = max(map(len, cells), default=0), max((c.height for row in cells for c in row), default=0)
        step_x, step_y = cell_px + _GAP_PX, height + _GAP_PX
        sheet = Image.new("RGB", (columns * step_x + _GAP_PX, len(cells) * step_y + _GAP_PX), "white")
        for y, row in enumerate(cells):
            for x, cell in enumerate(row):
                sheet.paste(cell, (_GAP_PX + x * step_x, _GAP_PX + y * step_y))
        return sheet

    def bars(self) -> Image.Image:
        """How much of each target's relevance speaks for it (warm) and against it (cold), as a bar chart.

        Raises:
            SettingError: no relevance method explains several targets of one picture.
        """
        charts = [bars.picture(*found) for row in self._pictures() for found in bars.bars_of(row).items()]
        if not charts:
            raise SettingError('bars compare targets: explain one picture with methods="lrp" and targets="top5"')
        sheet = Image.new("RGB", (max(c.width for c in charts), sum(c.height for c in charts)), "white")
        for number, chart in enumerate(charts):
            sheet.paste(chart, (0, sum(c.height for c in charts[:number])))
        return sheet

    def _pictures(self) -> list[list[Explanation]]:
        groups: dict[object, list[Explanation]] = {}
        for explanation in self:
            groups.setdefault(picture_key(explanation.picture), []).append(explanation)
        return list(groups.values())

    def report(self, path: str | Path, *, title: str | None = None, overwrite: bool = True) -> Path:
        """Writes one self-contained HTML page; see `pellucid.render.report.report`."""
        from pellucid.render.report import report

        return report(self, path, title=title, overwrite=overwrite)

    def save(self, folder: str | Path, *, overwrite: bool = False) -> tuple[Path, ...]:
        """Writes `report.html` and, for each explanation, a `.pel`, a `.png` and a `.csv` per table, all or nothing.

        Args:
            folder: made if missing.
            overwrite: False refuses a folder that holds anything; True replaces the report and the maps of an earlier
                run, and keeps every file that pellucid did not write.

        Returns:
            The paths of the files, the report first.

        Raises:
            FileError: the folder is occupied or can't be written, or a file of the user's bears a name that is needed.
        """
        names = [f"{number:03d}-{_slug(explanation)}" for number, explanation in enumerate(self, 1)]
        tables = [table_names(name, one.tables) for name, one in zip(names, self, strict=True)]
        files = [REPORT, *(file for name, own in zip(names, tables, strict=True) for file in _files(name, own))]
        place = Path(folder)
        if overwrite:
            refuse_foreign(place, files)
        earlier = leftovers(place, files)
        with whole_folder(place, overwrite=overwrite) as temporary:
            self.report(temporary / REPORT)
            for name, own, explanation in zip(names, tables, self, strict=True):
                explanation.save(temporary / f"{name}.pel")
                explanation.save(temporary / f"{name}.png")
                for file, table in zip(own, explanation.tables, strict=True):
                    write_text(temporary / file, csv_text(table))
        for path in earlier:
            path.unlink(missing_ok=True)
        return tuple(place / file for file in files)

    def _rows(self) -> list[list[Explanation]]:
        rows: dict[tuple[object, str], list[Explanation]] = {}
        for explanation in self:
            rows.setdefault((picture_key(explanation.picture), explanation.target), []).append(explanation)
        return list(rows.values())

    def _repr_html_(self) -> str:
        return cards(self.explanations)

    def __repr__(self) -> str:
        methods = ", ".join(dict.fromkeys(explanation.method for explanation in self))
        pictures = len({(explanation.picture.name, explanation.picture.size_px) for explanation in self})
        targets = len({explanation.target for explanation in self})
        return f"Panel({len(self)} explanations: {methods}; targets: {targets}, images: {pictures})"


def _files(name: str, tables: list[str]) -> list[str]:
    return [f"{name}.pel", f"{name}.png", *tables]


def _slug(explanation: Explanation) -> str:
    words = f"{Path(explanation.picture.name).stem} {explanation.method} {explanation.target}"
    return re.sub(r"[^A-Za-z0-9_]+", "-", words).strip("-")[:90]


def _cell(explanation: Explanation, size_px: int) -> Image.Image:
    overlay = fitted(explanation.overlay(longest_px=size_px), size_px, exact=True)
    bar = paint.colour_bar(explanation.limits()[1], explanation.diverging, width_px=size_px)
    cell = Image.new("RGB", (size_px, 2 * _LINE_PX + overlay.height + bar.height + 4), "white")
    pen, font = ImageDraw.Draw(cell), ImageFont.load_default(12)
    for line, words in enumerate((explanation.title, explanation.target)):
        pen.text((0, line * _LINE_PX), _fitted(words, pen, font, size_px), fill="black", font=font)
    cell.paste(overlay, (0, 2 * _LINE_PX))
    cell.paste(bar, (0, 2 * _LINE_PX + overlay.height + 4))
    return cell


def _fitted(words: str, pen: ImageDraw.ImageDraw, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, px: int) -> str:
    line = " ".join(words.split())[:200]
    if pen.textlength(line, font=font) <= px:
        return line
    while line and pen.textlength(line + "…", font=font) > px:
        line = line[:-1]
    return line + "…"
