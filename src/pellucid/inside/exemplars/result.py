"""What a pass over a data set found about all of its units."""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from PIL import Image
from torch import nn

from pellucid.core.errors import LayerError
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data, Pictures
from pellucid.inside.exemplars.scan import Scan
from pellucid.inside.exemplars.tally import Tally
from pellucid.inside.exemplars.unit import UnitExemplars
from pellucid.inside.opened import Opened, Unit, opened
from pellucid.inside.showing import Shows
from pellucid.models.model import Model

TENSORS = ".safetensors"
MOST_SIZES = 8  # recordings of other input sizes that are kept


@dataclass(frozen=True, eq=False)
class Exemplars(Shows):
    """The pictures of a data set that excite each unit of some layers most, and how its values are distributed.

    `found.of("layer3:17")` is about one unit; `len`, iteration and `found.units` about all of them.
    """

    scan: Scan

    def __repr__(self) -> str:
        layers = ", ".join(f"{layer} ({len(units)} units)" for layer, units in self.channels.items())
        return f"Exemplars({self.model}: {layers}; {self.read} of {len(self.data)} pictures)"

    def __len__(self) -> int:
        return sum(map(len, self.channels.values()))

    def __iter__(self) -> Iterator[UnitExemplars]:
        return (UnitExemplars(unit, self) for unit in self.units)

    @property
    def title(self) -> str:
        return f"{self.model}: what its units like best"

    @property
    def model(self) -> str:
        return self.scan.inside.model.name

    @property
    def data(self) -> Pictures:
        return self.scan.data

    @property
    def inside(self) -> Opened:
        return self.scan.inside

    @property
    def read(self) -> int:
        """How many pictures were looked at."""
        return self.scan.read

    @property
    def complete(self) -> bool:
        return self.scan.following >= len(self.data)

    @property
    def channels(self) -> dict[str, list[int]]:
        """The units of each layer that were watched."""
        return self.scan.channels

    @property
    def units(self) -> list[Unit]:
        return [Unit(layer, channel) for layer, units in self.channels.items() for channel in units]

    @property
    def tallies(self) -> dict[str, Tally]:
        return self.scan.tallies

    @property
    def notes(self) -> tuple[str, ...]:
        failed = f"{len(self.data.failed)} pictures could not be used" if self.data.failed else ""
        return tuple(note for note in (*self.inside.notes, *self.scan.notes, failed) if note)

    @property
    def source(self) -> str:
        return "the data"

    def of(self, unit: str | Unit) -> UnitExemplars:
        """What was found about one unit.

        Raises:
            LayerError: no such unit, or it was not watched.
        """
        known = self.inside.unit(unit)
        if known.channel not in self.channels.get(known.layer, ()):
            watched = ", ".join(f'"{layer}"' for layer in self.channels)
            raise LayerError(f'"{known}" was not watched; layers {watched} were: name it in layers= or units=')
        return UnitExemplars(known, self)

    def quantile(self, unit: str | Unit, q: float, *, of: str = "positions") -> float:
        """The value below which a fraction q of a unit's values lies; see `rank_error`."""
        return self.of(unit).quantile(q, of=of)

    def percentile(self, unit: str | Unit, value: float, *, of: str = "positions") -> float:
        """Which percentage of a unit's values lies below one."""
        return self.of(unit).percentile(value, of=of)

    def rank_error(self, layer: str) -> float:
        """How far the rank of a quantile may be off, as a fraction of all values; 0 where every value was kept."""
        thinned = 0.001 if self.scan.thinned(layer) else 0.0
        return max(self.tallies[layer].sketch.rank_error, thinned)

    @property
    def dead(self) -> list[Unit]:
        """Units that are never above zero."""
        return [
            Unit(layer, channel)
            for layer, units in self.channels.items()
            for channel, highest in zip(units, self.tallies[layer].highest.tolist(), strict=True)
            if not highest > 0
        ]

    def positions(self, layer: str, number: int) -> tuple[int, ...]:
        """The size of a layer's maps on one picture."""
        return self.opened_on(number).positions(layer)

    def opened_on(self, number: int) -> Opened:
        """The network recorded on an input of that picture's size."""
        size = self.scan.sizes.get(number)
        if size is None:
            return self.inside
        known = self.inside.trace.memo.setdefault("exemplar sizes", {})
        if tuple(size) not in known:
            while len(known) >= MOST_SIZES:
                known.pop(next(iter(known)))
            known[tuple(size)] = opened(self.inside.model, self.data.input(number)[None])
        return known[tuple(size)]

    def remarks(self) -> str:
        return "".join(f" Note: {note}." for note in self.notes)

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Write it as .png, .html, .json, or whole (.safetensors), to be opened or gone on with.

        Raises:
            FileError: another suffix, or the file can't be written.
        """
        if Path(path).suffix != TENSORS:
            return super().save(path, overwrite=overwrite)
        self.scan.save(Path(path), overwrite=overwrite)
        return Path(path)

    @staticmethod
    def open(path: str | Path, model: Model | nn.Module | str, data: Data) -> "Exemplars":
        """What was saved as .safetensors, for the same network and the same data.

        Raises:
            FileError: it is of another network or other data.
        """
        from pellucid.inside.exemplars.exemplars import reopened

        return reopened(Path(path), model, data)

    def image(self) -> Image.Image:
        from pellucid.inside.exemplars.drawing import overview

        return overview(self)

    def sentence(self) -> str:
        layers = ", ".join(f"{layer} ({len(units)} units)" for layer, units in self.channels.items())
        dead = len(self.dead)
        never = f" {dead} of them {'is' if dead == 1 else 'are'} never above zero." if dead else ""
        return f"{self.model} over {self.read} pictures: {layers}.{never}{self.remarks()}"

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = []
        for one in self:
            best = one.top[0] if one.top else None
            classes = ", ".join(f"{name} {count}" for name, count in list(one.labels.items())[:3])
            middle, high = one.quantile(0.5), one.quantile(0.999)
            name = None if best is None else best.name
            rows.append([str(one.unit), one.highest, name, classes, middle, high, one.dead])
        columns = ["unit", "highest", "on", "classes of the top pictures", "median", "99.9 % below", "dead"]
        return (table("units", columns, rows),)
