"""All objectives under one name: `objectives.channel("layer3:17") - 2 * objectives.diversity("layer2")`."""

from pellucid.inside.optimise.groups import (
    alignment,
    boundary,
    diversity,
    exaggeration,
    l1,
    l2,
    likeness,
    total_variation,
)
from pellucid.inside.optimise.wishes import (
    Objective,
    channel,
    direction,
    directions,
    interpolation,
    layer,
    logit,
    pair,
    target,
    unit,
)

__all__ = [
    "Objective", "alignment", "boundary", "channel", "direction", "directions", "diversity", "exaggeration",
    "interpolation", "l1", "l2", "layer", "likeness", "logit", "pair", "target", "total_variation", "unit",
]  # fmt: skip
