"""All that is known of one unit, on one page."""

from pellucid.inside.card.making import unit_card
from pellucid.inside.card.result import UnitCard

__all__ = ["UnitCard", "unit_card"]
