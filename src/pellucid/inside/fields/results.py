"""What is found about fields: a value that draws itself."""

from dataclasses import asdict, dataclass
from math import isnan
from typing import Any

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image

from pellucid.core.tables import Table
from pellucid.inside.fields.drawing import WHITE, Frame, Reached, framed, map_panel
from pellucid.inside.fields.looking import by
from pellucid.inside.fields.spread import Spread
from pellucid.inside.opened import Unit
from pellucid.inside.showing import Shows
from pellucid.render.paint import blend, limit, number
from pellucid.render.sheet import sheet

MOST_CHANNELS = 4  # drawn one by one
CLEAR, PALE = 98, 0.45  # the percentile where colours end on a picture, and how much white is mixed into it
WORDS = {
    "contribution": "what it receives from each place, activation times gradient",
    "gradient": "how strongly each place can move it, the size of the gradient",
    "correlation": "the patches that go with its activation, against the mean patch",
    "occlusion": "what it loses when each place is blurred",
}
BRIEF = {
    "contribution": "activation times gradient",
    "gradient": "size of the gradient",
    "correlation": "patches that go with it",
    "occlusion": "lost when a place is blurred",
}


def width_table(spread: Spread) -> Table:
    """A field's width as numbers."""
    facts = plain(spread)
    rows = [
        ("σ of the fitted Gaussian (px)", facts["sigma_px"]),
        *((f"σ by moments, axis {a} (px)", s) for a, s in enumerate(facts["sigmas_px"])),
        *((f"centroid, axis {a} (px of the field)", c) for a, c in enumerate(facts["centroid"])),
        ("area over 4.55 % of the centre (px)", facts["area_px"]),
        ("area over the theoretical field", facts["trf_fraction"]),
        ("4σ over the field's side", facts["reach_fraction"]),
        ("mass in the padding", facts["padding_mass"]),
    ]
    return Table("width", ("measure", "value"), tuple(rows))


def _wide(s: Spread) -> str:
    return f"σ {number(s.sigma_px)} px, {100 * s.trf_fraction:.0f} % of that field over 4.55 % of the centre"


def plain(spread: Spread) -> dict[str, Any]:
    """A field's width as JSON values; None for what is not defined."""
    told = lambda v: None if isinstance(v, float) and isnan(v) else v  # noqa: E731
    return {k: [told(e) for e in v] if isinstance(v, tuple) else told(v) for k, v in asdict(spread).items()}


@dataclass(frozen=True, eq=False, repr=False)
class Rfm(Shows):
    """A receptive-field matrix.

    Attributes:
        matrix: the sum over the source's channels, of the size of the theoretical field.
        channels: the same for each channel.
        signal: what was measured.
        unit, source, model: whose field it is, and in what.
        spread: how wide the sizes are.
        activation: the unit's mean activation at the positions that were counted.
        positions, pictures: how many.
        elsewhere_fraction: the part of the mass outside the local field, where an operation sees everything.
        everywhere: that operation.
        settings, notes: how it was measured, and what was decided on the way.
    """

    matrix: Float[np.ndarray, "*size"]
    channels: Float[np.ndarray, "c *size"]
    signal: str
    unit: Unit
    source: str
    model: str
    spread: Spread
    activation: float
    positions: int
    pictures: int
    elsewhere_fraction: float
    everywhere: str
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"Receptive-field matrix of {self.unit} in {self.source}: {self.signal}"

    def sentence(self) -> str:
        s = self.spread
        size = by(self.matrix.shape)
        words = (
            f"{self.unit} of {self.model}: {WORDS[self.signal]}, over {self.positions} positions of {self.pictures} "
            f"picture{'s' * (self.pictures != 1)}. Its theoretical field is {size}; {_wide(s)}, "
            f"{100 * s.padding_mass:.0f} % of the mass in the padding."
        )
        if not np.abs(self.matrix).any():
            words = f"{self.unit} of {self.model} receives nothing at {self.positions} positions: it is silent there."
        if self.everywhere:
            words += (
                f" {self.everywhere} sees everything; {100 * self.elsewhere_fraction:.0f} % of the mass is outside the "
                "local field."
            )
        return words

    @property
    def tables(self) -> tuple[Table, ...]:
        return (width_table(self.spread),)

    def facts(self) -> dict[str, Any]:
        own = {
            "unit": str(self.unit), "source": self.source, "model": self.model, "signal": self.signal,
            "size": list(self.matrix.shape), "activation": self.activation, "positions": self.positions,
            "pictures": self.pictures, "elsewhere_fraction": self.elsewhere_fraction, "everywhere": self.everywhere,
            "settings": self.settings, "notes": list(self.notes),
        }  # fmt: skip
        return {**super().facts(), **own, "spread": plain(self.spread)}

    def panel(self) -> Image.Image:
        """The matrix alone, with its colour bar."""
        return map_panel(self.matrix, [], diverging=self.signal != "gradient")[0]

    def image(self) -> Image.Image:
        signed = self.signal != "gradient"
        panels = [(self.panel(), ["all channels", BRIEF[self.signal]])]
        if 1 < len(self.channels) <= MOST_CHANNELS:
            end = limit(self.channels, 100)
            panels += [
                map_panel(c, [f"channel {i} of {self.source}"], diverging=signed, end=end)
                for i, c in enumerate(self.channels)
            ]
        return sheet(self.title, [], [panels])

    def __repr__(self) -> str:
        return (
            f"Rfm({self.unit} in {self.source}, {self.signal}, {by(self.matrix.shape)}, σ {self.spread.sigma_px:.3g})"
        )


@dataclass(frozen=True, eq=False, repr=False)
class EffectiveField(Shows):
    """What one unit sees in fact: the mean size of its gradient.

    Attributes:
        heat: over the whole input.
        field: the part in the theoretical field; 0 beyond the border.
        unit, position, model: whose it is.
        reached: the theoretical field, maybe beyond the border.
        spread: how wide it is.
        outside_fraction: mass outside the theoretical field; over 0 only where an operation sees everything.
        everywhere: that operation.
        pictures: how many were looked at; noise where no data came.
        shown: the first picture as people see it; None where an input is none.
    """

    heat: Float[np.ndarray, "*space"]
    field: Float[np.ndarray, "*size"]
    unit: Unit
    position: tuple[int, ...]
    model: str
    reached: Reached
    spread: Spread
    outside_fraction: float
    everywhere: str
    pictures: int
    on_noise: bool
    settings: dict[str, Any]
    shown: UInt8[np.ndarray, "h w 3"] | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"Effective field of {self.unit} at {', '.join(map(str, self.position)) or 'its only position'}"

    def sentence(self) -> str:
        s = self.spread
        what = ("noise input" if self.on_noise else "picture") + "s" * (self.pictures != 1)
        if not self.heat.any():
            at = f"{self.position} on {self.pictures} {what}"
            return f"{self.unit} of {self.model} has no gradient at {at}: it is silent there."
        return (
            f"{self.unit} of {self.model} can see {by(self.field.shape)} px; over {self.pictures} {what} its gradient "
            f"has {_wide(s)}." + (f" {self.everywhere} sees everything." if self.everywhere else "")
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        return (width_table(self.spread),)

    def facts(self) -> dict[str, Any]:
        own = {
            "unit": str(self.unit), "position": list(self.position), "model": self.model, "pictures": self.pictures,
            "on_noise": self.on_noise, "reached": [list(r) for r in self.reached], "everywhere": self.everywhere,
            "outside_fraction": self.outside_fraction, "settings": self.settings, "notes": list(self.notes),
        }  # fmt: skip
        return {**super().facts(), **own, "spread": plain(self.spread)}

    def image(self) -> Image.Image:
        panels = [map_panel(self.field, ["in the theoretical field", "mean size of the gradient"], diverging=False)]
        if self.heat.ndim == 2:
            panels.insert(0, (self.drawn(), ["on the input", "framed: the theoretical field"]))
        return sheet(self.title, [], [panels])

    def drawn(self) -> Image.Image:
        """The field over the first picture, framed by what the unit can see."""
        end = limit(self.field[self.field > 0], CLEAR) if self.field.any() else 0.0
        base = Image.new("RGB", self.heat.shape[::-1], "white")
        if self.shown is not None and not self.on_noise:
            base = Image.blend(Image.fromarray(self.shown).convert("L").convert("RGB"), base, PALE)
        mixed = blend(base, self.heat.astype(np.float32), end, False, 0.9)
        return framed(mixed, [Frame(self.reached, WHITE)], 300)

    def __repr__(self) -> str:
        return (
            f"EffectiveField({self.unit} at {self.position}, σ {self.spread.sigma_px:.3g} px of {by(self.field.shape)})"
        )
