"""How strongly each layer depends on each earlier one."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Float64
from PIL import Image
from torch import Tensor, nn

from pellucid.core.errors import LayerError
from pellucid.core.layers import ancestors
from pellucid.core.progress import Progress, watching
from pellucid.core.pull import Walk
from pellucid.core.replay import replayed
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data
from pellucid.inside.opened import Opened
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.coupling import EXCITATION, composite_of
from pellucid.inside.wiring.drawing import matrix_picture
from pellucid.inside.wiring.places import Place, chain, gathered, place, recordings
from pellucid.inside.wiring.switching import means_of
from pellucid.inside.wiring.tally import Tally, known
from pellucid.models.model import Model
from pellucid.models.resolve import the_model
from pellucid.render.sheet import beside
from pellucid.rules.composites import Composite


@dataclass(frozen=True, eq=False)
class LayerCoupling(Shows):
    """Two triangles: rows are the later layers, columns the earlier ones; NaN where there is no dependence.

    Attributes:
        changed: `‖b − b'‖ / ‖b‖`, b' the later layer with the earlier one at its spatial mean; mean over the pictures.
        relevance: `Σ|R_a| / Σ|R_b|` of a walk that starts with all that is positive in the later layer; 1 where all of
            it goes through the earlier one, less where some goes past it or stays with biases.
        composite: the relevance rules.
    """

    model: str
    layers: tuple[str, ...]
    changed: Float64[np.ndarray, "later earlier"]
    relevance: Float64[np.ndarray, "later earlier"]
    composite: str
    pictures: int
    title: str = "How strongly each layer depends on each earlier one"

    def image(self) -> Image.Image:
        rows, columns = self.layers[1:], self.layers[:-1]
        parts = [
            matrix_picture(
                matrix[1:, :-1], title, rows, columns, sides=("later layer", "earlier layer"), units=units,
                diverging=False, written=True,
            )
            for matrix, title, units in (
                (self.changed, f"{self.model}: change when only the mean of a layer is left",
                 f"change of the later layer, over its size; {self.pictures} pictures"),
                (self.relevance, f"relevance that goes through a layer ({self.composite})",
                 "relevance at the earlier layer, over that at the later one"),
            )
        ]  # fmt: skip
        found = beside(parts)
        assert found is not None
        return found

    def sentence(self) -> str:
        if np.isnan(self.changed).all():
            return "No layer of these depends on another."
        later, earlier = np.unravel_index(np.nanargmax(self.changed), self.changed.shape)
        return (
            f"The strongest dependence on where a layer is active: with only the mean of {self.layers[earlier]} left, "
            f"{self.layers[later]} changes by {self.changed[later, earlier]:.0%} of its size "
            f"({self.pictures} pictures)."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        pairs = [(i, j) for i, j in np.argwhere(~np.isnan(self.changed))]
        rows = [
            (self.layers[i], self.layers[j], known(self.changed[i, j]), known(self.relevance[i, j])) for i, j in pairs
        ]
        columns = ("later layer", "earlier layer", "change with its mean alone", "relevance through it")
        return (table("layers", columns, rows),)

    def facts(self) -> dict[str, Any]:
        return {**super().facts(), "model": self.model, "layers": list(self.layers), "pictures": self.pictures}

    def __repr__(self) -> str:
        return f"LayerCoupling({self.model}, {len(self.layers)} layers, {self.pictures} pictures)"


def layer_coupling(
    model: Model | nn.Module | str,
    layers: Sequence[str] | None,
    data: Data,
    *,
    composite: Any = EXCITATION,
    progress: Progress | bool | None = None,
) -> LayerCoupling:
    """How strongly each layer depends on each earlier one: by what changes without it, and by relevance.

    The earlier layer is put to its spatial mean, channel by channel, so that what is there is kept and where it is is
    lost; one without positions is put to its mean over all pictures.

    Args:
        layers: two or more, in any order; by default those through which everything goes, and the classes.
        data: a folder, pictures, or inputs `(n, c, ...)`.
        composite: the relevance rules, such that sizes add up and nothing cancels; an operation without a rule of its
            own gets `x·∂/∂x`.

    Raises:
        LayerError: no such layer, or fewer than two.
        ImageError: no picture can be read.
    """
    chosen, rules = the_model(model), replace(composite_of(composite), unknown="generic")
    with watching(progress) as bar:
        data, first = gathered(chosen, data)
        names = _in_order(first, chain(first.trace) if layers is None else layers)
        flat = [name for name in names if not _spatial(place(first.trace, name))]
        means = dict(zip(flat, means_of(data, first, flat), strict=True))
        bar.expect(2 * len(names) * len(data))
        tallies = {(i, j): (Tally(), Tally()) for i in range(len(names)) for j in range(i)}
        for _, now in recordings(data, first):
            _add(now, names, means, rules, tallies, bar)
    found = np.full((2, len(names), len(names)), np.nan)
    for (i, j), pair in tallies.items():
        for which, tally in enumerate(pair):
            found[which, i, j] = tally.mean if tally.count else np.nan
    count = max((t.count for pair in tallies.values() for t in pair), default=0)
    return LayerCoupling(chosen.name, tuple(names), found[0], found[1], rules.name, count)


def _in_order(first: Opened, layers: Sequence[str]) -> list[str]:
    names = sorted(dict.fromkeys(layers), key=lambda name: place(first.trace, name).value.position)
    if len(names) < 2:
        raise LayerError(f"{len(names)} layers came; name two or more")
    return names


def _add(
    now: Opened,
    names: Sequence[str],
    means: dict[str, Float64[np.ndarray, " units"]],
    rules: Composite,
    tallies: dict[tuple[int, int], tuple[Tally, Tally]],
    bar: Progress,
) -> None:
    """One recorded batch."""
    trace, places = now.trace, [place(now.trace, name) for name in names]
    values = [p.value for p in places]
    leading = [ancestors(trace, value) for value in values]
    for j, a in enumerate(places):
        after = replayed(trace, edits={a.value: _levelled(a, means.get(names[j]))})
        for i in range(j + 1, len(names)):
            b = values[i]
            if a.value in leading[i] and b is not a.value:
                tallies[i, j][0].add(_size(b.data - after.get(b, b.data), 2) / _size(b.data, 2).clamp(min=1e-30))
        bar.advance(trace.batch, names[j])
    for i, b in enumerate(values):
        walk = Walk(trace, {b: b.data.relu()}, rules.on(trace), values)
        for j in range(i - 1, -1, -1):
            if values[j] in leading[i] and values[j] is not b:
                tallies[i, j][1].add(_size(walk.at(values[j]), 1) / _size(b.data.relu(), 1).clamp(min=1e-30))
        bar.advance(trace.batch, names[i])


def _levelled(a: Place, mean: Float64[np.ndarray, " units"] | None) -> Float[Tensor, "b ..."]:
    """A layer with each unit at its mean over the positions, or at a mean that is given."""
    units = a.per_unit(a.value.data)
    if mean is None:
        flat = units.mean(list(range(2, units.dim())), keepdim=True)
    else:
        flat = torch.from_numpy(mean).to(units).view(1, -1, *[1] * (units.dim() - 2))
    return flat.expand_as(units).movedim(1, 1 if a.axis is None else a.axis).reshape(a.value.shape).clone()


def _spatial(a: Place) -> bool:
    units = a.per_unit(a.value.data)
    return units.dim() > 2 and units.shape[2:].numel() > 1


def _size(tensor: Tensor, power: int) -> Float[Tensor, " b"]:
    return torch.linalg.vector_norm(tensor.double().flatten(1) if tensor.dim() > 1 else tensor[:, None], power, 1)
