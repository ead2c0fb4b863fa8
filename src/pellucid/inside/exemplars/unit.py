"""What one unit likes best, least and in between."""

from collections import Counter
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from PIL import Image
from torch import Tensor

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.fields import Field
from pellucid.core.tables import Table, curve, table
from pellucid.core.watch import Watch
from pellucid.inside.exemplars.crops import (
    Reach,
    at_centres,
    crop,
    drawn,
    masked,
    patch,
    reach,
    view,
)
from pellucid.inside.exemplars.sketch import Sketch
from pellucid.inside.exemplars.tally import Chosen, Tally
from pellucid.inside.opened import Opened, Unit
from pellucid.inside.showing import Shows
from pellucid.methods.pictures import home_of
from pellucid.render.fitting import fitted
from pellucid.render.paint import number as digits

if TYPE_CHECKING:
    from pellucid.inside.exemplars.result import Exemplars

MASK_QUANTILE = 0.995


@dataclass(frozen=True)
class Exemplar:
    """One picture of the data set, and where on it a unit is highest.

    Attributes:
        number: which picture of the data set.
        name: its file name, or its number.
        label: its class, where the data says so.
        value: the highest value on the unit's map.
        position: where on the map that is, the first of equals; empty for a layer without positions.
    """

    number: int
    name: str
    label: str | None
    value: float
    position: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class UnitExemplars(Shows):
    """The pictures that one unit of a network likes best, and how its values are distributed.

    Attributes:
        unit: which unit.
        top: pictures with the highest values, the highest first.
        bottom: pictures whose highest value is lowest, the lowest first.
        random: pictures drawn without looking.
        stratified: one picture out of each of equally large groups, from the lowest values to the highest.
    """

    unit: Unit
    found: "Exemplars"

    def __repr__(self) -> str:
        best = f", best {digits(self.top[0].value)} on {self.top[0].name}" if self.top else ""
        return f'UnitExemplars("{self.unit}", {len(self.top)} of {self.found.read} pictures{best})'

    @property
    def title(self) -> str:
        return f"{self.unit} of {self.found.model}: what it likes best"

    @cached_property
    def top(self) -> list[Exemplar]:
        return self._exemplars(self._tally.top)

    @cached_property
    def bottom(self) -> list[Exemplar]:
        return self._exemplars(self._tally.bottom)

    @cached_property
    def random(self) -> list[Exemplar]:
        return self._exemplars(self._tally.drawn)[: self._tally.wanted.random]

    @cached_property
    def stratified(self) -> list[Exemplar]:
        if not self._tally.wanted.quantile_bins:
            return []
        all_drawn = self._exemplars(self._tally.drawn)
        return [all_drawn[column] for column in self._tally.strata(self._row)]

    # ------------------------------------------------------------------------------------------------------ values

    @property
    def dead(self) -> bool:
        """Whether the unit is never above zero, on no picture."""
        return not float(self._tally.highest[self._row]) > 0

    @property
    def highest(self) -> float:
        return float(self._tally.highest[self._row])

    @property
    def rank_error(self) -> float:
        """How far the rank of a quantile may be off, as a fraction; 0 where every value was kept."""
        return self.found.rank_error(self.unit.layer)

    def quantile(self, q: float, *, of: str = "positions") -> float:
        """The value below which a fraction q of the unit's values lies.

        Args:
            q: from 0 to 1.
            of: all `positions` of all pictures, or the highest value of each of the `pictures`.

        Raises:
            SettingError: q is out of range, or another word.
        """
        if not 0 <= q <= 1:
            raise SettingError(f"a quantile lies between 0 and 1, not {q}")
        if q == 1:
            return self.highest
        return float(self._sketch(of).quantile(self._row, q))

    def percentile(self, value: float, *, of: str = "positions") -> float:
        """Which percentage of the unit's values lies below one; of equal ones half counts."""
        return 100 * float(self._sketch(of).below(self._row, value))

    def histogram(
        self, bins: int = 64, *, of: str = "positions"
    ) -> tuple[Int64[np.ndarray, "n"], Float64[np.ndarray, "m"]]:
        """How many values lie in each of equally wide bins, and the bins' edges."""
        return self._sketch(of).histogram(self._row, bins)

    @property
    def labels(self) -> dict[str, int]:
        """Of which classes the top pictures are, the most frequent first."""
        counts = Counter(e.label for e in self.top if e.label is not None)
        return dict(sorted(counts.items(), key=lambda pair: (-pair[1], pair[0])))

    # ----------------------------------------------------------------------------------------------------- pictures

    def field(self, exemplar: Exemplar) -> Field:
        """What the unit can see of that picture's input."""
        return self._inside(exemplar).field(self.unit.layer)

    def box(self, exemplar: Exemplar) -> Reach:
        """First and last pixel of the input that the unit saw there, along each axis; may lie beyond the border."""
        return reach(self.field(exemplar), exemplar.position)

    def crop(self, exemplar: Exemplar, size_px: int | None = None) -> Image.Image:
        """What the unit saw: its field on the picture's own pixels, grey beyond the border.

        Args:
            size_px: enlarge the longer side to so many pixels, for the eye; None leaves the pixels as they are.
        """
        pixels = crop(view(self.found.data, exemplar.number), self.box(exemplar))
        return Image.fromarray(pixels) if size_px is None else fitted(Image.fromarray(pixels), size_px, exact=True)

    def patch(self, exemplar: Exemplar, fill: float = 0.0) -> Float[Tensor, "c *size"]:
        """What the unit saw in the input's own numbers; `fill` beyond the border."""
        return patch(self.found.data.input(exemplar.number), self.box(exemplar), fill)

    def maps(self, exemplar: Exemplar) -> Float[np.ndarray, "*space"]:
        """The unit's map of that picture, from another run of the network."""
        inside = self._inside(exemplar)
        x = self.found.data.input(exemplar.number)[None].to(home_of(inside.model.module))
        with torch.no_grad():
            (output,) = Watch(inside.trace, [self.unit.layer])(x)
        return inside.maps(self.unit.layer, output)[0, self.unit.channel].float().cpu().numpy()

    def mask(self, exemplar: Exemplar, quantile: float = MASK_QUANTILE, size_px: int | None = None) -> Image.Image:
        """The picture as the network got it, dimmed where the unit stays below a quantile of its values.

        The map is laid over the input with its values at the centres of the fields, linear in between.

        Raises:
            LayerError: the unit has no map, or not one of rows and columns.

        Source: Bau et al. 2017, arXiv:1704.05796, section 3.2 (drawn like the authors' pictures).
        """
        cells, field = self.maps(exemplar), self.field(exemplar)
        x = self.found.data.input(exemplar.number)
        if cells.ndim != 2 or x.dim() != 3:
            raise LayerError(f'"{self.unit}" has no map of rows and columns to lay over a picture')
        size = (int(x.shape[1]), int(x.shape[2]))
        over = at_centres(cells.astype(np.float64), field, size) > self.quantile(quantile)
        pixels = masked(drawn(x, self.found.data.preprocess), over)
        return Image.fromarray(pixels) if size_px is None else fitted(Image.fromarray(pixels), size_px, exact=True)

    # ------------------------------------------------------------------------------------------------------ showing

    def image(self) -> Image.Image:
        from pellucid.inside.exemplars.drawing import unit_sheet

        return unit_sheet(self)

    def sentence(self) -> str:
        if self.dead:
            return f"{self.unit} is never above zero on {self.found.read} pictures of {self.found.source}: a dead unit."
        classes = ", ".join(f"{name} {count}" for name, count in list(self.labels.items())[:4])
        of_classes = f" Of these {len(self.top)}: {classes}." if classes else ""
        best = self.top[0] if self.top else None
        where = f", the highest {digits(best.value)} on {best.name}" if best else ""
        return (
            f"{self.unit} of {self.found.model} over {self.found.read} pictures: half of its values lie below "
            f"{digits(self.quantile(0.5))}, 99.9 % below {digits(self.quantile(0.999))}{where}.{of_classes}"
            f"{self.found.remarks()}"
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [
            [kind, rank + 1, e.name, e.label, e.value, " ".join(map(str, e.position))]
            for kind in ("top", "bottom", "random", "stratified")
            for rank, e in enumerate(getattr(self, kind))
        ]
        counts, edges = self.histogram()
        middles = (edges[1:] + edges[:-1]) / 2
        parts = [
            table("exemplars", ["kind", "rank", "picture", "class", "value", "position"], rows),
            curve("histogram", ["value", "positions"], list(zip(middles.tolist(), counts.tolist(), strict=True))),
        ]
        if self.labels:
            parts.append(table("classes", ["class", "top pictures"], list(self.labels.items())))
        return tuple(parts)

    # ------------------------------------------------------------------------------------------------------- inside

    @property
    def _tally(self) -> Tally:
        return self.found.tallies[self.unit.layer]

    @property
    def _row(self) -> int:
        return self.found.channels[self.unit.layer].index(self.unit.channel)

    def _inside(self, exemplar: Exemplar) -> Opened:
        return self.found.opened_on(exemplar.number)

    def _sketch(self, of: str) -> Sketch:
        if of not in ("positions", "pictures"):
            raise SettingError(f'of is "{of}"; values of all "positions", or the highest of each of the "pictures"')
        return self._tally.sketch if of == "positions" else self._tally.peaks

    def _exemplars(self, chosen: Chosen) -> list[Exemplar]:
        data, row = self.found.data, self._row
        found = []
        for value, number, place in zip(
            chosen.values[row].tolist(), chosen.numbers[row].tolist(), chosen.places[row].tolist(), strict=True
        ):
            shape = self.found.positions(self.unit.layer, number)
            position = tuple(int(p) for p in np.unravel_index(place, shape)) if shape else ()
            found.append(Exemplar(number, str(data.names[number]), data.labels[number], value, position))
        return found
