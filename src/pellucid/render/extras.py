"""The further maps of an explanation (one per fill, a spread) as small pictures beside each other.

Maps of one unit share the ends of their colours, so that they can be compared: the largest of their own limits. A
name says its unit in parentheses at its end, `count (samples)`; else it is that of the explanation. A map of a signed
method has two colours around zero, except one without negative values that has a unit of its own or whose name says
that it holds sizes: `disagreement`, `standard error`.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from PIL import Image

from pellucid.core.receipt import Receipt
from pellucid.render import paint

if TYPE_CHECKING:
    from pellucid.render.explanation import Explanation

MOST_STILLS = 24
_SIZES = re.compile("disagreement|error|spread|deviation|variance", re.IGNORECASE)
_UNITS = re.compile(r".*\S \(([^()]+)\)")


@dataclass(frozen=True)
class Still:
    """One further map, ready to draw.

    Attributes:
        name: as the method called it.
        shown: the map as an explanation of its own.
        end: where the colours end, shared by all stills of these units.
    """

    name: str
    shown: "Explanation"
    end: float

    @property
    def limits(self) -> tuple[float, float]:
        return paint.ends(self.end, self.shown.diverging)

    def picture(self, longest_px: int) -> Image.Image:
        """The map over the picture."""
        return self.shown.overlay(longest_px=longest_px, end=self.end)


def stills(explanation: "Explanation") -> list[Still]:
    """Every further map with the limits that it shares."""
    maps = {name: extra(explanation, name) for name in explanation.extra_maps}
    ends: dict[str, float] = {}
    for one in maps.values():
        ends[one.units] = max(ends.get(one.units, 0.0), one.limits()[1])
    return [Still(name, one, ends[one.units]) for name, one in maps.items()]


def extra(explanation: "Explanation", name: str) -> "Explanation":
    """A further map as an explanation of its own; see `Explanation.extra`."""
    own = _UNITS.fullmatch(name)
    return replace(
        explanation,
        attribution=explanation.extra_maps[name],
        title=f"{explanation.title}, {name}",
        units=own[1] if own else explanation.units,
        signed=explanation.signed and not own and not _SIZES.search(name),
        reduce="none",
        receipt=Receipt(notes=(f"one of the {len(explanation.extra_maps)} further maps of {explanation.title}",)),
        tables=(),
        extra_maps={},
    )


def scales(found: Sequence[Still]) -> list[list[Still]]:
    """Stills that share their units, in the order in which they came."""
    groups: dict[str, list[Still]] = {}
    for still in found:
        groups.setdefault(still.shown.units, []).append(still)
    return list(groups.values())
