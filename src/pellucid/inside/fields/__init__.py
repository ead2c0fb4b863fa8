"""How far does a unit look: what it can see, and what it sees in fact."""

from pellucid.inside.fields.coupling import Coupling, coupling
from pellucid.inside.fields.effective import effective_field
from pellucid.inside.fields.matrices import rfm
from pellucid.inside.fields.results import EffectiveField, Rfm
from pellucid.inside.fields.theoretical import ReceptiveFields, receptive_fields

__all__ = [
    "Coupling",
    "EffectiveField",
    "ReceptiveFields",
    "Rfm",
    "coupling",
    "effective_field",
    "receptive_fields",
    "rfm",
]
