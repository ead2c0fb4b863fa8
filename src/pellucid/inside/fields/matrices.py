"""Receptive-field matrices: how much a unit receives from each place of its field, over positions and pictures."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor, nn

from pellucid.core.errors import SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Data
from pellucid.inside.fields.correlation import Correlation
from pellucid.inside.fields.looking import Looked, by, drawn, looked, positions_of
from pellucid.inside.fields.occluding import occluded
from pellucid.inside.fields.patches import patches
from pellucid.inside.fields.reach import INPUT, Reach
from pellucid.inside.fields.results import Rfm
from pellucid.inside.fields.slopes import Position, Task
from pellucid.inside.fields.spread import spread
from pellucid.inside.opened import Unit
from pellucid.methods.run import check_seed
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
    check_seed(seed)
    asked, found = looked(model, data)
    chosen = asked.unit(unit)
    at = Looked(asked, found, chosen.layer, source or INPUT)
    size = at.first.seen.size
    work = _Work(at, chosen, border, samples, np.random.default_rng(seed))
    with watching(progress) as bar, torch.inference_mode(False):
        bar.expect(len(found))
        if signal == "correlation":
            sums = work.correlated(bar, whiten)
        elif signal == "occlusion":
            sums = work.painted(bar, cell_px or max(1, -(-max(size) // CELLS)))
        else:
            sums = work.pulled(bar, signal)
    return sums.result(at, chosen, signal, {"whiten": whiten, "border": border, "samples": samples, "seed": seed})


@dataclass(eq=False)
class Sums:
    """What adds up over positions and pictures."""

    total: Float[Tensor, "c *size"]
    there: Float[Tensor, "*size"]
    positions: int = 0
    activation: float = 0.0
    inside: float = 0.0
    everywhere: float = 0.0
    seen: list[Reach] = field(default_factory=list)

    @classmethod
    def empty(cls, channels: int, size: tuple[int, ...]) -> "Sums":
        return cls(torch.zeros(channels, *size, dtype=torch.float64), torch.zeros(size, dtype=torch.float64))

    def add(self, found: Tensor, there: Tensor, values: Tensor) -> None:
        """Of some positions: their fields `(n, c, *size)`, what of them is no padding, their activations."""
        self.total += found.double().sum(0)
        self.there += there.double().sum(0)
        self.inside += float(found.double().abs().sum())
        self.positions += len(found)
        self.activation += float(values.double().sum())

    def result(self, at: Looked, unit: Unit, signal: str, settings: dict[str, Any]) -> Rfm:
        """The means."""
        count = max(self.positions, 1)
        channels = (self.total / count).numpy()
        matrix = channels.sum(0)
        share = (self.there / count).numpy()
        template = np.divide(np.abs(matrix), share, out=np.zeros_like(matrix), where=share > 0)
        everywhere, elsewhere = at.first.seen.field.everywhere, 0.0
        if everywhere and self.everywhere > 0:
            elsewhere = max(0.0, 1 - self.inside / self.everywhere)
        beyond = {seen: seen.outside(template) for seen in dict.fromkeys(self.seen)}
        return Rfm(
            matrix=matrix,
            channels=channels,
            signal=signal,
            unit=unit,
            source=at.source,
            model=at.asked.model.name,
            spread=spread(np.abs(matrix), float(np.mean([beyond[seen] for seen in self.seen]))),
            activation=self.activation / count,
            positions=self.positions,
            pictures=len(self.seen),
            elsewhere_fraction=elsewhere,
            everywhere=everywhere,
            settings=settings,
            notes=tuple(at.notes),
        )


@dataclass(eq=False)
class _Work:
    """One call of `rfm`."""

    at: Looked
    unit: Unit
    border: str
    samples: int
    random: np.random.Generator
    _known: dict[Reach, list[Position]] = field(default_factory=dict)

    def pulled(self, bar: Progress, signal: str) -> Sums:
        """By gradients; positions whose fields don't overlap share a pass."""
        sums, most = None, max(1, self.samples // len(self.at.data))
        for place, x in self.at.batches():
            seen = place.seen
            groups = seen.groups(self._positions(seen))
            if most < len(groups):
                self.at.told(f"{most} of {len(groups)} groups of positions were drawn for each picture")
            channel = self.unit.channel
            tasks = [Task(row, channel, tuple(g)) for row in range(len(x)) for g in drawn(groups, most, self.random)]
            for slope in place.slopes(x, tasks, self.at.told):
                signals = slope.gradient.abs() if signal == "gradient" else slope.source * slope.gradient
                sums = sums or Sums.empty(len(signals), seen.size)
                corners = [seen.corner(p) for p in slope.task.positions]
                sums.add(*patches(signals, corners, seen.size), slope.values)
                sums.everywhere += float(signals.abs().sum())
            self._advance(bar, sums, [seen] * len(x))
        return self._made(sums)

    def correlated(self, bar: Progress, whiten: bool) -> Sums:
        """By activations alone."""
        sums: Correlation | None = None
        seen: list[Reach] = []
        for place, x in self.at.batches():
            values, sources = place.values(x)
            for row in range(len(x)):
                sums = sums or Correlation(sources.shape[1], place.seen.size, whiten)
                sums.add(sources[row], values[row, self.unit.channel], self._positions(place.seen), place.seen)
            self._advance(bar, None, seen_now := [place.seen] * len(x))
            seen += seen_now
        if sums is None:
            return self._made(None)
        mean = sums.mean(self.at.told)
        return Sums(mean * sums.positions, sums.there, sums.positions, sums.activation, seen=seen)

    def painted(self, bar: Progress, cell: int) -> Sums:
        """By painting over the picture, a cell at a time."""
        sums: Sums | None = None
        if cell > 1:
            self.at.told(f"{by((cell,) * len(self.at.first.seen.lengths))} pixels were blurred at a time")
        for place, x in self.at.batches():
            seen = place.seen
            for row in range(len(x)):
                chosen = drawn(self._positions(seen), self.samples, self.random)
                sums = sums or Sums.empty(1, seen.size)
                for found, there, activations in occluded(x[row], self.unit.channel, place.values, chosen, seen, cell):
                    sums.add(found, there, activations)
                self._advance(bar, sums, [seen])
        return self._made(sums)

    def _positions(self, seen: Reach) -> list[Position]:
        if seen not in self._known:
            self._known[seen] = positions_of(seen, self.border, self.at.told)
        return self._known[seen]

    def _advance(self, bar: Progress, sums: Sums | None, seen: list[Reach]) -> None:
        if sums is not None:
            sums.seen += seen
        bar.advance(len(seen), "pictures")

    def _made(self, sums: Sums | None) -> Sums:
        assert sums is not None, "one picture at least was read"
        return sums
