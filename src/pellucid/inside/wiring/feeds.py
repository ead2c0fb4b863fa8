"""Who feeds a unit, and whom it feeds."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64, Int64
from PIL import Image
from torch import nn

from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.images.datasets import Data
from pellucid.inside.opened import Unit
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.coupling import SAID, ZERO, Asking, How, coupled
from pellucid.inside.wiring.places import CLASSES, fed, feeding, gathered, names_of, unit_of
from pellucid.inside.wiring.tally import known
from pellucid.models.model import Model
from pellucid.models.resolve import the_model
from pellucid.render.bar_chart import bar_chart
from pellucid.render.sheet import stacked


@dataclass(frozen=True, eq=False)
class Links(Shows):
    """The strongest links of one unit to another layer, strongest first.

    Attributes:
        layer: the other one; `"input"` and `"classes"` are its ends.
        direction: `"feeders"`: the other units come before; `"followers"`: behind.
        channels, names: the other units, by number and by name.
        values: what goes over each link, in the unit of the later unit's mean; positive where the earlier one
            raises the later one.
        errors: standard errors over the pictures; NaN for a single one.
        covered_fraction: part of the sum of all links' sizes that these hold.
        called: the unit's name; a class by its label.
    """

    model: str
    unit: Unit
    layer: str
    direction: Literal["feeders", "followers"]
    how: str
    channels: Int64[np.ndarray, " links"]
    names: tuple[str, ...]
    values: Float64[np.ndarray, " links"]
    errors: Float64[np.ndarray, " links"]
    covered_fraction: float
    pictures: int
    called: str

    @property
    def title(self) -> str:
        """What it is, and of which unit."""
        return f"What feeds {self.called}" if self.direction == "feeders" else f"What {self.called} feeds"

    def image(self) -> Image.Image:
        return bar_chart(
            self.labels, self.values.tolist(), title=f"{self.model}: {self.title}", errors=self.errors.tolist(),
            units=f"{SAID[self.how]}; {self.pictures} pictures",
        )  # fmt: skip

    @property
    def labels(self) -> list[str]:
        """The other units' names; classes by their label alone."""
        return [name if self.layer == CLASSES else f"{self.layer}:{name}" for name in self.names]

    def sentence(self) -> str:
        if not len(self.values):
            return f"Nothing of {self.layer} counts for {self.called}."
        verb = {"feeders": ("raised", "lowered"), "followers": ("raises", "lowers")}[self.direction]
        up, down = ([n for n, v in zip(self.labels, self.values, strict=True) if sign * v > 0] for sign in (1, -1))
        by = " by " if self.direction == "feeders" else " "
        parts = [f"{word}{by}{', '.join(names[:3])}" for word, names in zip(verb, (up, down), strict=True) if names]
        are = "is " if self.direction == "feeders" else ""
        return (
            f"{self.called} {are}{' and '.join(parts) or 'bound to nothing'} most; the {len(self.values)} links shown "
            f"hold {self.covered_fraction:.0%} of what goes between it and {self.layer}."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        errors = [known(e) for e in self.errors]
        rows = list(zip(self.labels, self.values, errors, strict=True))
        return (table(self.direction, ("unit", "strength", "± standard error"), rows, SAID[self.how]),)

    def facts(self) -> dict[str, Any]:
        return {
            **super().facts(), "model": self.model, "unit": str(self.unit), "layer": self.layer, "how": self.how,
            "pictures": self.pictures, "channels": self.channels.tolist(), "values": self.values.tolist(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return f"Links({self.title}: {len(self.values)} of {self.layer}, {self.how}, {self.pictures} pictures)"


@dataclass(frozen=True, eq=False)
class Neighbours(Shows):
    """What feeds a unit, and whom it feeds."""

    feeders: Links
    followers: Links

    @property
    def title(self) -> str:
        """Of which unit."""
        return f"The neighbours of {self.feeders.called}"

    def image(self) -> Image.Image:
        found = stacked([self.feeders.image(), self.followers.image()])
        assert found is not None
        return found

    def sentence(self) -> str:
        return f"{self.feeders.sentence()} {self.followers.sentence()}"

    @property
    def tables(self) -> tuple[Table, ...]:
        return (*self.feeders.tables, *self.followers.tables)

    def __repr__(self) -> str:
        return f"Neighbours({self.feeders!r}, {self.followers!r})"


def feeders(
    model: Model | nn.Module | str,
    unit: str | Unit,
    data: Data,
    count: int = 9,
    *,
    source: str | None = None,
    how: How = "ablation",
    fill: str = ZERO,
    composite: Any = "epsilon_plus",
    baseline: Any = ZERO,
    progress: Progress | bool | None = None,
) -> Links:
    """The units of an earlier layer on which a unit depends most, with their signs.

    The strength of a link is `C_ij` of `coupling_matrix`, averaged over the pictures.

    Args:
        unit: `"LAYER:CHANNEL"`, or a class, `"classes:cat"`.
        data: a picture, or many: a folder, a list, inputs `(n, c, ...)`.
        count: how many links are shown.
        source: the earlier layer, or `"input"`; by default the nearest one through which everything goes.
        how: `ablation`, `relevance`, `deep_lift` or `gradient`; `fill`, `composite` and `baseline` are their settings.

    Raises:
        LayerError: no such layer or unit, or the unit does not depend on the source.
        SettingError: a setting out of range.
        ImageError: no picture can be read.
    """
    asking = Asking(how, fill, composite, baseline)
    return _links(the_model(model), unit, data, count, source, asking, "feeders", progress)


def followers(
    model: Model | nn.Module | str,
    unit: str | Unit,
    data: Data,
    count: int = 9,
    *,
    target: str | None = None,
    how: How = "ablation",
    fill: str = ZERO,
    composite: Any = "epsilon_plus",
    baseline: Any = ZERO,
    progress: Progress | bool | None = None,
) -> Links:
    """The units of a later layer, or the classes, that depend most on a unit, with signs.

    Args:
        target: the later layer, or `"classes"`; by default the nearest one through which everything goes.

    Raises:
        LayerError: no such layer or unit, or the target does not depend on the unit.
        SettingError: a setting out of range.
        ImageError: no picture can be read.
    """
    asking = Asking(how, fill, composite, baseline)
    return _links(the_model(model), unit, data, count, target, asking, "followers", progress)


def neighbours(
    model: Model | nn.Module | str,
    unit: str | Unit,
    data: Data,
    count: int = 9,
    *,
    how: How = "ablation",
    fill: str = ZERO,
    progress: Progress | bool | None = None,
) -> Neighbours:
    """`feeders` and `followers` of a unit, each by default.

    Raises:
        LayerError: no such layer or unit, or the classes do not depend on it.
        SettingError: a setting out of range.
        ImageError: no picture can be read.
    """
    chosen = the_model(model)
    with watching(progress) as bar:
        return Neighbours(
            feeders(chosen, unit, data, count, how=how, fill=fill, progress=bar),
            followers(chosen, unit, data, count, how=how, fill=fill, progress=bar),
        )


def _links(
    model: Model,
    name: str | Unit,
    data: Data,
    count: int,
    other: str | None,
    asking: Asking,
    direction: Literal["feeders", "followers"],
    progress: Progress | bool | None,
) -> Links:
    if count < 1:
        raise SettingError(f"count={count} came; give at least one")
    with watching(progress) as bar:
        data, first = gathered(model, data)
        unit = unit_of(first, name)
        if direction == "feeders":
            layer = other or feeding(first.trace, unit.layer)
            tally, _ = coupled(asking, data, first, layer, unit.layer, bar, targets=[unit.channel])
            values, errors = tally.mean[:, 0], tally.error[:, 0]
        else:
            layer = other or fed(first.trace, unit.layer)
            tally, _ = coupled(asking, data, first, unit.layer, layer, bar, sources=[unit.channel])
            values, errors = tally.mean[0], tally.error[0]
    order = np.argsort(-np.abs(values), kind="stable")[:count]
    order = order[values[order] != 0]
    names, whole = names_of(first, layer), float(np.abs(values).sum())
    covered = float(np.abs(values[order]).sum()) / whole if whole else 0.0
    at_the_end = unit.layer == CLASSES and CLASSES not in first.trace.layers
    called = names_of(first, CLASSES)[unit.channel] if at_the_end else str(unit)
    return Links(
        model.name, unit, layer, direction, asking.how, order, tuple(names[i] for i in order), values[order],
        errors[order], covered, tally.count, called,
    )  # fmt: skip
