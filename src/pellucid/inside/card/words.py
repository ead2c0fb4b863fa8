"""One sentence for each part of a card, for people."""

from collections.abc import Mapping

from pellucid.core.fields import Field
from pellucid.inside.opened import Opened, Unit
from pellucid.inside.showing import Shows


def lead(known: Opened, unit: Unit, findings: Mapping[str, Shows]) -> tuple[str, ...]:
    """What the parts say, most telling first."""
    kind = known.trace.kinds.get(unit.layer.partition("#")[0], "layer")
    count = known.units(unit.layer)
    told = [f"Unit {unit.channel} of the {count} in layer {unit.layer} ({kind}); {looks(known.field(unit.layer))}."]
    return (*told, *(finding.sentence() for part, finding in findings.items() if part in ("exemplars", "ablation")))


def looks(field: Field) -> str:
    """How far a unit looks."""
    if field.everywhere or not field.low:
        return "it can see the whole picture"
    return f"each of its positions sees {'×'.join(map(str, field.size_px))} pixels of the input"
