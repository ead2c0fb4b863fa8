"""The pictures of a data set that excite units most, cropped to what they saw."""

from pellucid.inside.exemplars.exemplars import exemplars
from pellucid.inside.exemplars.result import Exemplars
from pellucid.inside.exemplars.unit import Exemplar, UnitExemplars

__all__ = ["Exemplar", "Exemplars", "UnitExemplars", "exemplars"]
