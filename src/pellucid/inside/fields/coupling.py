"""How much of what a layer gives comes through each unit of an earlier layer."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import nn

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table
from pellucid.images.datasets import Data
from pellucid.inside.fields.drawing import map_panel
from pellucid.inside.fields.looking import Looked, drawn, looked
from pellucid.inside.fields.slopes import Slope, Task
from pellucid.inside.opened import Opened
from pellucid.inside.showing import Shows
from pellucid.methods.run import check_seed
from pellucid.models.model import Model
from pellucid.render.paint import number
from pellucid.render.sheet import sheet

STRONGEST, MATRIX_PX = 20, 520


@dataclass(frozen=True, eq=False, repr=False)
class Coupling(Shows):
    """The contribution between the units of two layers.

    Attributes:
        signed: mean contribution of each source unit to each target unit, `(source units, target units)`.
        mass: the same from the sizes of all terms; NaN for a target unit that was not asked.
        units: which target units the columns are.
        source, target, model: the layers, and in what.
        positions: how many target positions were asked, of all units together.
        pictures: how many.
    """

    signed: Float[np.ndarray, "i j"]
    mass: Float[np.ndarray, "i j"]
    units: tuple[int, ...]
    source: str
    target: str
    model: str
    positions: int
    pictures: int
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def total(self) -> float:
        """The mass that a target unit receives through the whole source, on average: how close the two layers are."""
        return float(np.nanmean(self.mass.sum(0)))

    @property
    def title(self) -> str:
        return f"Coupling of {self.target} to {self.source}"

    def sentence(self) -> str:
        row = self._strongest(1)[0]
        return (
            f'A unit of "{self.target}" receives {number(self.total)} through "{self.source}" on average, over '
            f"{self.pictures} pictures; the strongest way is from {row[0]} to {row[1]} ({number(float(row[2]))})."
        )

    def _strongest(self, count: int) -> list[tuple[int, int, float, float]]:
        order = np.argsort(-np.nan_to_num(self.mass, nan=-1.0), axis=None, kind="stable")[:count]
        pairs = [np.unravel_index(int(k), self.mass.shape) for k in order]
        return [(int(i), self.units[j], float(self.mass[i, j]), float(self.signed[i, j])) for i, j in pairs]

    @property
    def tables(self) -> tuple[Table, ...]:
        columns = (f"unit of {self.source}", f"unit of {self.target}", "mass", "contribution")
        return (Table("strongest", columns, tuple(self._strongest(STRONGEST))),)

    def facts(self) -> dict[str, Any]:
        own = {
            "source": self.source, "target": self.target, "model": self.model, "total": self.total,
            "positions": self.positions, "pictures": self.pictures, "settings": self.settings,
            "notes": list(self.notes),
        }  # fmt: skip
        return {**super().facts(), **own}

    def image(self) -> Image.Image:
        words = [f"down: {self.target}", f"across: {self.source}"]
        words += ["hatched: not asked"] if np.isnan(self.mass).any() else []
        panels = [
            map_panel(self.mass.T, ["mass", *words], diverging=False, side_px=MATRIX_PX),
            map_panel(self.signed.T, ["contribution", *words], diverging=True, side_px=MATRIX_PX),
        ]
        return sheet(self.title, [], [panels])

    def __repr__(self) -> str:
        i, j = self.mass.shape
        return f"Coupling({self.source} → {self.target}, {i} × {j} units, {self.total:.3g} a unit)"


def coupling(
    model: Model | nn.Module | str,
    source: str,
    target: str,
    data: Data,
    *,
    units: Sequence[int] | None = None,
    samples: int = 2000,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Coupling:
    """What flows from one layer to another: `C_ij = mean_q Σ_p A_i(p) ∂B_j(q)/∂A_i(p)`, over pictures and positions q.

    The mass is the same with the size of every term. It says how close two parts of a network are: through which units
    of A the units of B receive what they give.

    Args:
        source: A, a module path, or `"input"`; it must come first.
        target: B; a layer without positions, such as the scores, will do.
        units: of the target; all where it is None.
        samples: backward passes at most; target units and positions are drawn where there are more.
        seed: of the draw.

    Raises:
        LayerError: no such layer or unit, or the target does not come from the source.
        SettingError: no samples.

    Source: specification §2.3; no paper.
    """
    if samples < 1:
        raise SettingError(f"samples={samples} came; give at least 1")
    check_seed(seed)
    asked, found = looked(model, data)
    at = Looked(asked, found, asked.layer(target), source)
    chosen = _units(asked, target, units)
    sums, random = _Sums(len(chosen)), np.random.default_rng(seed)
    with watching(progress) as bar, torch.inference_mode(False):
        bar.expect(len(found))
        for place, x in at.batches():
            every, most = list(product(range(len(chosen)), place.groups)), max(1, samples // len(found))
            if most < len(every):
                at.told(f"{most} of {len(every)} pairs of a unit and positions were drawn for each picture")
            pairs = [(row, j, g) for row in range(len(x)) for j, g in drawn(every, most, random)]
            tasks = [Task(row, chosen[j], tuple(g)) for row, j, g in pairs]
            for (_, j, _), slope in zip(pairs, place.slopes(x, tasks, at.told), strict=True):
                sums.add(j, slope)
            sums.pictures += len(x)
            bar.advance(len(x), "pictures")
    return sums.result(at.asked, source, target, chosen, {"samples": samples, "seed": seed}, at.notes)


def _units(asked: Opened, target: str, units: Sequence[int] | None) -> list[int]:
    count = asked.units(target)
    chosen = list(range(count)) if units is None else [int(u) for u in units]
    wrong = next((u for u in chosen if not 0 <= u < count), None)
    if not chosen:
        raise SettingError(f'units=[] came; name units of layer "{target}", or leave units=None for all')
    if wrong is not None:
        raise LayerError(f'unit {wrong} of layer "{target}" came; it has {count}, from 0 to {count - 1}')
    return chosen


class _Sums:
    """What adds up over tasks."""

    def __init__(self, units: int) -> None:
        self.counts, self.pictures = np.zeros(units), 0
        self.signed: np.ndarray | None = None
        self.mass: np.ndarray | None = None

    def add(self, j: int, slope: Slope) -> None:
        """One target unit at some positions."""
        terms = (slope.source * slope.gradient).double().flatten(1).cpu()
        if self.signed is None or self.mass is None:
            self.signed, self.mass = np.zeros((len(terms), len(self.counts))), np.zeros((len(terms), len(self.counts)))
        self.signed[:, j] += terms.sum(1).numpy()
        self.mass[:, j] += terms.abs().sum(1).numpy()
        self.counts[j] += len(slope.task.positions)

    def result(
        self, asked: Opened, source: str, target: str, units: list[int], settings: dict[str, Any], notes: list[str]
    ) -> Coupling:
        """The means."""
        assert self.signed is not None and self.mass is not None, "one picture at least was read"
        counts = np.where(self.counts > 0, self.counts, np.nan)
        return Coupling(
            self.signed / counts,
            self.mass / counts,
            tuple(units),
            source,
            target,
            asked.model.name,
            int(self.counts.sum()),
            self.pictures,
            settings,
            tuple(notes),
        )
