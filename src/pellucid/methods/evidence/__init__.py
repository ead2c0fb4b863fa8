"""Did the decision come from here? Interventions with a control, smallest sets of regions, two data sets."""

from pellucid.methods.evidence.between import evidence_between
from pellucid.methods.evidence.judge import evidence
from pellucid.methods.evidence.parting import Between
from pellucid.methods.evidence.region_sets import Change, MinimalSets, RegionSet
from pellucid.methods.evidence.sets import minimal_sets, what_must_change
from pellucid.methods.evidence.verdict import Evidence

__all__ = [
    "Between",
    "Change",
    "Evidence",
    "MinimalSets",
    "RegionSet",
    "evidence",
    "evidence_between",
    "minimal_sets",
    "what_must_change",
]
