"""Explanations with tables, a curve and further maps, for the tests of render and report."""

import numpy as np
import torch

from pellucid.core.tables import Table, curve, table
from pellucid.render import Explanation
from render_examples import bump, signed_explanation

REGIONS = table(
    "regions",
    ["region", "name", "size px", "blur (logit)", "mean (logit)", "disagreement (logit)"],
    [[k, f"part {k}", 100 + k, 3.0 - 0.25 * k, 2.5 - 0.125 * k, 0.5] for k in range(20)],
    "What covering one region takes from the score; strongest first.",
)
COVERED = curve(
    "covered",
    ["regions covered", "blur (logit)", "mean (logit)"],
    [[0, 9.0, 9.0], [1, 4.0, 6.0], [2, None, 2.0], [3, -1.0, float("nan")], [4, -3.0, -2.0]],
)


def further() -> dict[str, torch.Tensor]:
    """One map for each of two fills, how far they differ, and a count."""
    blur, mean = bump(32, 0.5, 0.5, 2.0), bump(32, 0.5, 0.5) - bump(32, 0.9, 0.1, 0.6)
    maps = {"blur": blur, "mean": mean, "disagreement": np.abs(blur - mean), "visits (samples)": 100 * blur}
    return {name: torch.from_numpy(values) for name, values in maps.items()}


def told(*tables: Table, **facts) -> Explanation:
    """A signed map with tables and further maps."""
    given = {"method": "region_occlusion", "title": "Region occlusion", "extra_maps": further()}
    return signed_explanation(**{**given, "tables": tables or (REGIONS, COVERED), **facts})
