"""Receptive-field matrices: how much a unit receives from each place of its field, over positions and pictures."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.core.watch import Watch
from pellucid.images.datasets import Data
from pellucid.inside.fields.correlation import Correlation
from pellucid.inside.fields.looking import Looked, by, drawn, looked, positions_of
from pellucid.inside.fields.occluding import occluded
from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import INPUT, Reach, reach
from pellucid.inside.fields.results import Rfm
from pellucid.inside.fields.slopes import Position, Slopes, Task
from pellucid.inside.fields.spread import spread
from pellucid.inside.opened import Unit
from pellucid.models.model import Model

SIGNALS = ("contribution", "gradient", "correlation", "occlusion")
CELLS = 16  # so many cells are blurred along the side of a field, at most


def rfm(
    model: Model | nn.Module | str,
    unit: Unit | str,
    data: Data,
    *,
    signal: str = "contribution",
    source: str | None = None,
    whiten: bool = False,
    border: str = "exclude",
    samples: int = 1000,
    cell_px: int | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Rfm:
    """The receptive-field matrix (RFM) of a unit: what reaches it from each place of its receptive field.

    Entry (u, v), averaged over positions q and pictures, x_p being what lies at place (u, v) of q's field:

        contribution   x_p · ∂a_q/∂x_p              what is received; on a bias-free net the sum is the mean activation
        gradient       |∂a_q/∂x_p|                  what could be received (the effective field)
        correlation    Σ a_q x_p / Σ |a_q| − x̄_p Σ a_q / Σ |a_q|     without gradients
        occlusion      a_q − a_q(place blurred)      without gradients, for the input only

    Args:
        unit: `"LAYER:CHANNEL"`.
        data: whatever `pel.pictures` takes; a tensor counts as inputs `(n, c, *space)`.
        source: an earlier layer whose positions take the place of the pixels; the input where it is None.
        whiten: divide the correlation by the covariance of the patches, as natural pictures need it.
        border: `exclude` leaves out positions whose field goes over the border (all are counted where none is left);
            `count` takes them, and what lies in the padding gives nothing.
        samples: backward passes at most; positions are drawn where there are more.
        cell_px: side of what is blurred at a time for `occlusion`; a sixteenth of the field where it is None.
        seed: of the draw.

    Returns:
        The matrix, per channel and summed, with its width, centroid and padding mass.

    Raises:
        LayerError: no such unit, or it does not come from the source.
        SettingError: an unknown signal or border, no samples, or occlusion of a layer.
        ImageError: no picture can be read, or inputs differ in size.

    Source: specification §2.3; the gradient is Luo et al. 2016, arXiv:1701.04128; the correlation is the
    spike-triggered average.
    """
    check_known("signal", signal, SIGNALS)
    if samples < 1 or (cell_px is not None and cell_px < 1):
        raise SettingError(f"samples={samples}, cell_px={cell_px} came; both start at 1")
    if whiten and signal != "correlation":
        raise SettingError(f'whiten=True came with signal="{signal}"; it belongs to "correlation"')
    if signal == "occlusion" and source not in (None, INPUT):
        raise SettingError('occlusion paints over the input; for a layer choose "contribution" or "gradient"')
    at = looked(model, data)
    chosen = at.asked.unit(unit)
    seen = reach(at.asked, chosen.layer, source or INPUT)
    work = _Work(at, chosen, seen, positions_of(seen, border, at.notes), samples, seed)
    with watching(progress) as bar:
        bar.expect(len(at.data))
        if signal == "correlation":
            found = work.correlated(bar, whiten)
        elif signal == "occlusion":
            found = work.painted(bar, cell_px or max(1, -(-max(seen.size) // CELLS)))
        else:
            found = work.pulled(bar, signal)
    return found.result(
        at, chosen, seen, signal, {"whiten": whiten, "border": border, "samples": samples, "seed": seed}
    )


@dataclass(eq=False)
class Sums:
    """What adds up over positions and pictures."""

    total: Float[Tensor, "c *size"]
    there: Float[Tensor, "*size"]
    positions: int = 0
    activation: float = 0.0
    everywhere: float = 0.0
    pictures: int = 0

    @classmethod
    def empty(cls, channels: int, size: tuple[int, ...]) -> "Sums":
        return cls(torch.zeros(channels, *size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, found: Tensor, there: Tensor, values: Tensor) -> None:
        """Of some positions: their fields `(n, c, *size)`, what of them is no padding, their activations."""
        self.total += found.double().sum(0)
        self.there += there.double().sum(0)
        self.positions += len(found)
        self.activation += float(values.double().sum())

    def result(self, at: Looked, unit: Unit, seen: Reach, signal: str, settings: dict[str, Any]) -> Rfm:
        """The means."""
        count = max(self.positions, 1)
        channels = (self.total / count).numpy()
        matrix = channels.sum(0)
        share = (self.there / count).numpy()
        template = np.divide(np.abs(matrix), share, out=np.zeros_like(matrix), where=share > 0)
        inside = float(np.abs(matrix).sum())
        elsewhere = (
            max(0.0, 1 - inside / (self.everywhere / count)) if self.everywhere > 0 and seen.field.everywhere else 0.0
        )
        return Rfm(
            matrix=matrix,
            channels=channels,
            signal=signal,
            unit=unit,
            source=seen.source,
            model=at.asked.model.name,
            spread=spread(np.abs(matrix), seen.outside(template)),
            activation=self.activation / count,
            positions=self.positions,
            pictures=self.pictures,
            elsewhere_fraction=elsewhere,
            everywhere=seen.field.everywhere,
            settings=settings,
            notes=tuple(at.notes),
        )


@dataclass(eq=False)
class _Work:
    """One call of `rfm`."""

    at: Looked
    unit: Unit
    seen: Reach
    positions: list[Position]
    samples: int
    seed: int

    def pulled(self, bar: Progress, signal: str) -> Sums:
        """By gradients; positions whose fields don't overlap share a pass."""
        slopes, sums = Slopes(self.at.asked, self.unit.layer, self.seen.source), None
        groups, random = self.seen.groups(self.positions), np.random.default_rng(self.seed)
        most = max(1, self.samples // max(len(self.at.data), 1))
        if most < len(groups):
            self.at.told(f"{most} of {len(groups)} groups of positions were drawn for each picture")
        for x in self.at.inputs():
            tasks = [
                Task(row, self.unit.channel, tuple(g)) for row in range(len(x)) for g in drawn(groups, most, random)
            ]
            for slope in slopes(x, tasks, self.at.told):
                signals = slope.gradient.abs() if signal == "gradient" else slope.source * slope.gradient
                sums = sums or Sums.empty(len(signals), self.seen.size)
                corners = [self.seen.corner(p) for p in slope.task.positions]
                sums.add(*patches(signals, corners, self.seen.size), slope.values)
                sums.everywhere += float(signals.sum(0).abs().sum())
            self._advance(bar, len(x), sums)
        return self._made(sums)

    def correlated(self, bar: Progress, whiten: bool) -> Sums:
        """By activations alone."""
        values_of = self._values()
        sums: Correlation | None = None
        for x in self.at.inputs():
            values, sources = values_of(x)
            for row in range(len(x)):
                sums = sums or Correlation(sources.shape[1], self.seen.size, whiten)
                sums.add(sources[row], values[row, self.unit.channel], self.positions, self.seen)
            self._advance(bar, len(x), sums)
        if sums is None:
            return self._made(None)
        mean = sums.mean(self.at.told)
        made = Sums(mean * sums.positions, sums.there, sums.positions, sums.activation, pictures=sums.pictures)
        return made

    def painted(self, bar: Progress, cell: int) -> Sums:
        """By painting over the picture, a cell at a time."""
        values, sums, random = self._values(), None, np.random.default_rng(self.seed)
        if cell > 1:
            self.at.told(f"{by((cell,) * len(self.seen.lengths))} pixels were blurred at a time")
        for x in self.at.inputs():
            for row in range(len(x)):
                chosen = drawn(self.positions, max(1, self.samples), random)
                sums = sums or Sums.empty(1, self.seen.size)
                for found, there, activations in occluded(x[row], self.unit.channel, values, chosen, self.seen, cell):
                    sums.add(found, there, activations)
                self._advance(bar, 1, sums)
        return self._made(sums)

    def _values(self) -> Callable[[Tensor], tuple[Tensor, Tensor]]:
        """What the target and the source give for inputs."""
        asked, source = self.at.asked, self.seen.source
        watch = Watch(asked.trace, [self.unit.layer, *([] if source == INPUT else [source])])

        def values(x: Tensor) -> tuple[Tensor, Tensor]:
            with torch.inference_mode(False), torch.no_grad():
                given = watch(x)
            sources = x if source == INPUT else asked.maps(source, given[1])
            return asked.maps(self.unit.layer, given[0]), sources

        return values

    def _advance(self, bar: Progress, count: int, sums: "Sums | Correlation | None") -> None:
        if sums is not None:
            sums.pictures += count
        bar.advance(count, "pictures")

    def _made(self, sums: Sums | None) -> Sums:
        assert sums is not None, "one picture at least was read"
        return sums
