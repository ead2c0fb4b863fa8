"""The lead of a card: one sentence for each part, for people."""

from collections.abc import Mapping

from pellucid.core.fields import Field
from pellucid.inside.exemplars import UnitExemplars
from pellucid.inside.opened import Opened, Unit
from pellucid.inside.optimise.optimised import Optimised
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.ablate import Ablation
from pellucid.render.paint import number


def lead(known: Opened, unit: Unit, findings: Mapping[str, Shows]) -> tuple[str, ...]:
    """What the parts say, most telling first."""
    kind = known.trace.kinds.get(unit.layer.partition("#")[0], "layer")
    found, made, off = (findings.get(part) for part in ("exemplars", "optimised", "ablation"))
    return (
        f"Unit {unit.channel} of the {known.units(unit.layer)} in layer {unit.layer} ({kind}): "
        f"{looks(known.field(unit.layer))}.",
        *([responds(found)] if isinstance(found, UnitExemplars) else []),
        *([wishes(made, found)] if isinstance(made, Optimised) and isinstance(found, UnitExemplars) else []),
        *([loses(off)] if isinstance(off, Ablation) else []),
    )


def looks(field: Field) -> str:
    """How far a unit looks."""
    if field.everywhere or not field.low:
        return "it can see the whole picture"
    return f"each of its positions can see {' × '.join(map(str, field.size_px))} pixels of the input"


def responds(found: UnitExemplars) -> str:
    """What excites it in the data."""
    read = found.found.read
    if found.dead or not found.top:
        return f"It is never above zero on {read} pictures: a dead unit."
    classes = ", ".join(f"{name} {count}" for name, count in list(found.labels.items())[:4])
    of_classes = f"; the strongest {len(found.top)} are of {classes}" if classes else ""
    best = found.top[0]
    return f"In {read} pictures its highest value is {number(best.value)}, on picture {best.name}{of_classes}."


def wishes(made: Optimised, found: UnitExemplars) -> str:
    """Whether the picture that was made excites it more than the data do."""
    peak = made.peaks[0] if made.peaks[0] == made.peaks[0] else made.values[0]
    above = found.percentile(peak)
    against = "more than any picture of the data" if peak > found.highest else f"more than {above:.3g} % of its values"
    return f"The picture that was made for it excites it to {number(peak)} at its strongest place, {against}."


def loses(off: Ablation) -> str:
    """What the classes lose without it."""
    name, lost, _ = off.strongest(off.units[0], 1)[0]
    verb = "loses" if lost > 0 else "gains"
    return (
        f"When it is switched off, {name} {verb} {number(abs(lost))} of its score, and {off.flipped[0]:.0%} of "
        f"{off.pictures} pictures are decided otherwise."
    )
