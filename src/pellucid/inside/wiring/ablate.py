"""What a network loses when a unit is switched off, class by class."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from jaxtyping import Float, Float64, Int64
from PIL import Image
from torch import Tensor, nn

from pellucid.core.errors import LayerError, SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data
from pellucid.inside.opened import Opened, Unit
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.drawing import matrix_picture
from pellucid.inside.wiring.places import (
    CLASSES,
    class_names,
    class_of,
    downstream,
    gathered,
    place,
    probabilities,
    recordings,
    unit_of,
)
from pellucid.inside.wiring.switching import fills, without
from pellucid.inside.wiring.tally import Tally, known
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

Fill = Literal["zero", "mean"]
SHOWN_UNITS, SHOWN_CLASSES = 40, 24


@dataclass(frozen=True, eq=False)
class Ablation(Shows):
    """The loss of every class score when each unit is off; positive where the unit speaks for the class.

    Attributes:
        scores: mean over the pictures of the score less the score with the unit off.
        score_errors: its standard error; NaN for a single picture.
        probabilities: the same for probabilities.
        flipped: fraction of pictures that are decided otherwise.
        accuracy, accuracy_off: of the pictures whose label is a class; None and NaN where there are none.
        selectivity: `(μ_max − μ_rest) / (μ_max + μ_rest)` of the unit's mean activation by class, from 0 to 1; NaN
            where a class mean is negative or the unit is silent.
        prefers: the class of `μ_max`; −1 where there is none.
        by_label: selectivity was measured by the labels; else by the network's own decisions.
    """

    model: str
    units: tuple[Unit, ...]
    classes: tuple[str, ...]
    fill: str
    pictures: int
    scores: Float64[np.ndarray, "units classes"]
    score_errors: Float64[np.ndarray, "units classes"]
    probabilities: Float64[np.ndarray, "units classes"]
    flipped: Float64[np.ndarray, " units"]
    accuracy: float | None
    accuracy_off: Float64[np.ndarray, " units"]
    selectivity: Float64[np.ndarray, " units"]
    prefers: Int64[np.ndarray, " units"]
    by_label: bool
    title: str = "Units switched off"

    def row(self, unit: str | Unit) -> int:
        """The row of a unit in every array.

        Raises:
            LayerError: it was not switched off here.
        """
        found = [number for number, one in enumerate(self.units) if str(one) == str(unit)]
        if not found:
            raise LayerError(f'unit "{unit}" was not switched off here; those were {self._span()}')
        return found[0]

    def strongest(self, unit: str | Unit, count: int = 3) -> list[tuple[str, float, float]]:
        """The classes that lose or gain most: label, loss of the score, loss of the probability."""
        row = self.row(unit)
        order = np.argsort(-np.abs(self.scores[row]), kind="stable")[:count]
        return [(self.classes[k], float(self.scores[row, k]), float(self.probabilities[row, k])) for k in order]

    def image(self) -> Image.Image:
        rows, columns = _largest(self.scores, SHOWN_UNITS, 1), _largest(self.scores, SHOWN_CLASSES, 0)
        more = f" (the {len(rows)} units of {len(self.units)} that matter most)" if len(rows) < len(self.units) else ""
        return matrix_picture(
            self.scores[np.ix_(rows, columns)],
            f"{self.model}: what each class loses when a unit is off{more}",
            [str(self.units[i]) for i in rows],
            [self.classes[k] for k in columns],
            sides=("units", "classes"),
            units=f"score lost (warm) or gained (cold), mean of {self.pictures} pictures; off is {self.fill}",
        )

    def sentence(self) -> str:
        if not self.scores.any():
            return f"None of {len(self.units)} units changes any score in {self.pictures} pictures."
        u, k = np.unravel_index(np.argmax(np.abs(self.scores)), self.scores.shape)
        verb = "loses" if self.scores[u, k] > 0 else "gains"
        most = (
            f"Of {len(self.units)} units, {self.units[u]} matters most: without it"
            if len(self.units) > 1
            else (f"Without {self.units[u]}")
        )
        told = (
            f"{most} {self.classes[k]} {verb} "
            f"{abs(self.scores[u, k]):.3g} of its score and {self.flipped[u]:.0%} of {self.pictures} pictures are "
            "decided otherwise"
        )
        if self.accuracy is None:
            return f"{told}."
        worst = int(np.nanargmin(self.accuracy_off))
        if self.accuracy_off[worst] >= self.accuracy:
            return f"{told}; accuracy is {self.accuracy:.1%}, and no less without any of them."
        return (
            f"{told}; accuracy is {self.accuracy:.1%}, and falls furthest, to {self.accuracy_off[worst]:.1%}, "
            f"without {self.units[worst]}."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        columns = ("unit", "class that loses most", "score lost", "± standard error", "probability lost",
                   "decisions changed", "accuracy without", "prefers", "selectivity")  # fmt: skip
        rows = []
        for i in np.argsort(-np.abs(self.scores).max(1), kind="stable"):
            k = int(np.argmax(np.abs(self.scores[i])))
            prefers = self.classes[self.prefers[i]] if self.prefers[i] >= 0 else None
            rows.append((
                str(self.units[i]), self.classes[k], self.scores[i, k], known(self.score_errors[i, k]),
                self.probabilities[i, k], self.flipped[i], known(self.accuracy_off[i]), prefers,
                known(self.selectivity[i]),
            ))  # fmt: skip
        by = "labels" if self.by_label else "the network's own decisions"
        return (table("units", columns, rows, f"off is {self.fill}; selectivity by {by}"),)

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(), "model": self.model, "fill": self.fill, "pictures": self.pictures,
            "accuracy": self.accuracy, "units": [str(u) for u in self.units], "classes": list(self.classes),
            "scores": self.scores.tolist(), "probabilities": self.probabilities.tolist(),
        }  # fmt: skip

    def _span(self) -> str:
        return f"{self.units[0]} to {self.units[-1]}" if self.units else "none"

    def __repr__(self) -> str:
        return f"Ablation({self.model}, {len(self.units)} units, {len(self.classes)} classes, {self.pictures} pictures)"


def ablation(
    model: Model | nn.Module | str,
    units: str | Unit | Sequence[str | Unit] | None,
    data: Data,
    *,
    fill: Fill = "zero",
    progress: Progress | bool | None = None,
) -> Ablation:
    """Switch off each unit of a layer, at all of its positions, and see what every class loses.

    `E_uk = mean_x [f_k(x) − f_k(x | a_u := fill)]`. What lies before the layer is run once; only what the unit can
    reach is run again.

    Args:
        units: a layer, for all of its units; `"LAYER:CHANNEL"`; or several of these. The last layer with maps by
            default.
        data: a folder (with one folder a class, accuracy is told too), pictures, or inputs `(n, c, ...)`.
        fill: what stands for the unit: zero, or its mean over all positions of all pictures.

    Returns:
        Losses in units of the score: positive where the unit speaks for the class.

    Raises:
        LayerError: no such layer or unit.
        SettingError: an unknown fill, or no units.
        ImageError: no picture can be read.

    Source: class selectivity: Morcos et al. 2018, arXiv:1803.06959, section 2.3; switching off: the same, 2.2.
    """
    check_known("fill", fill, ("zero", "mean"))
    chosen = the_model(model)
    with watching(progress) as bar:
        data, first = gathered(chosen, data)
        wanted = _units(first, units)
        bar.expect(len(wanted) * len(data))
        work = _Work(first, tuple(wanted), bar, {})
        for layer in dict.fromkeys(unit.layer for unit in wanted):
            downstream(first.trace, layer, CLASSES)
            work.fills[layer] = fills(data, first, layer, fill)
        for numbers, now in recordings(data, first):
            work.add(now, [class_of(chosen, data.labels[i]) for i in numbers])
        return work.done(fill)


@dataclass(eq=False)
class _Work:
    """The sums over all pictures."""

    first: Opened
    units: tuple[Unit, ...]
    bar: Progress
    fills: dict[str, Tensor]

    def __post_init__(self) -> None:
        self.scores, self.chances, self.flips, self.right = Tally(), Tally(), Tally(), Tally()
        self.levels: dict[bool, dict[int, Tally]] = {True: {}, False: {}}

    def add(self, now: Opened, labels: list[int | None]) -> None:
        """One recorded batch."""
        classes = place(now.trace, CLASSES)
        before = classes.means(classes.value.data)
        parts, levels = [], []
        for layer in dict.fromkeys(unit.layer for unit in self.units):
            at, mine = place(now.trace, layer), [u.channel for u in self.units if u.layer == layer]
            parts.append(without(now.trace, at, mine, self.fills[layer], classes, self.bar))
            levels.append(at.means(at.value.data)[:, mine])
        after, level = torch.cat(parts, 1), torch.cat(levels, 1)
        self.scores.add(before[:, None] - after)
        chance = probabilities(after.flatten(0, 1)).view(after.shape)
        self.chances.add(probabilities(before)[:, None] - chance)
        said, says = decisions(before), decisions(after.flatten(0, 1)).view(after.shape[:2])
        self.flips.add((says != said[:, None]).double())
        known = [i for i, label in enumerate(labels) if label is not None]
        if known:
            truth = torch.tensor([label for label in labels if label is not None], device=said.device)
            right = torch.cat([said[known, None], says[known]], 1) == truth[:, None]
            self.right.add(right.double())
        for row in range(len(level)):
            self.levels[False].setdefault(int(said[row]), Tally()).add(level[row : row + 1])
            label = labels[row]
            if label is not None:
                self.levels[True].setdefault(label, Tally()).add(level[row : row + 1])

    def done(self, fill: str) -> Ablation:
        if not self.scores.count:
            raise SettingError("no picture was left to look at")
        by_label = bool(self.levels[True])
        selectivity, prefers = selectivities({k: t.mean for k, t in self.levels[by_label].items()}, len(self.units))
        right = self.right.mean
        return Ablation(
            self.first.model.name, self.units, class_names(self.first), fill, self.scores.count,
            self.scores.mean, self.scores.error, self.chances.mean, self.flips.mean,
            float(right[0]) if right.size else None, right[1:] if right.size else np.full(len(self.units), np.nan),
            selectivity, prefers, by_label,
        )  # fmt: skip


def decisions(scores: Float[Tensor, "b classes"]) -> Tensor:
    """The class of every row; for a single score whether it is positive."""
    return (scores[:, 0] > 0).long() if scores.shape[1] == 1 else scores.argmax(1)


def selectivities(
    levels: dict[int, Float64[np.ndarray, " units"]], units: int
) -> tuple[Float64[np.ndarray, " units"], Int64[np.ndarray, " units"]]:
    """`(μ_max − μ_rest) / (μ_max + μ_rest)` over class means, μ_rest the mean of the other classes', and the class."""
    if len(levels) < 2:
        return np.full(units, np.nan), np.full(units, -1)
    classes = sorted(levels)
    means = np.stack([levels[k] for k in classes])
    best = means.argmax(0)
    top = means.max(0)
    rest = (means.sum(0) - top) / (len(classes) - 1)
    sound = (means.min(0) >= 0) & (top > 0)
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(sound, (top - rest) / (top + rest), np.nan), np.where(top > 0, np.array(classes)[best], -1)


def _units(first: Opened, units: Any) -> list[Unit]:
    """Every unit that is meant, in order, once."""
    several: list[Any] = list(units) if isinstance(units, Sequence) and not isinstance(units, str) else [units]
    found: list[Unit] = []
    for one in several:
        if one is None or (isinstance(one, str) and (":" not in one or one in first.trace.layers)):
            name = first.layer(one)
            found += [Unit(name, i) for i in range(place(first.trace, name).units)]
        else:
            found.append(unit_of(first, one))
    if not found:
        raise SettingError('no unit came to be switched off; name a layer, or units such as "layer4:17"')
    return list(dict.fromkeys(found))


def _largest(values: Float64[np.ndarray, "units classes"], count: int, axis: int) -> Int64[np.ndarray, " shown"]:
    """The rows (axis 1 is looked along) or columns with the largest entries, in their own order."""
    size = np.abs(values).max(axis)
    return np.sort(np.argsort(-size, kind="stable")[:count])
