"""torchvision's operators, defined where its compiled part does not fit this torch; for tests and benchmarks only."""

from importlib.util import find_spec
from pathlib import Path

import torch

SCHEMAS = (
    "nms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
    "qnms(Tensor dets, Tensor scores, float iou_threshold) -> Tensor",
)
_kept: list[torch.library.Library] = []


def define_missing_torchvision_operators() -> None:
    """Let torchvision be imported where its compiled part does not fit this torch (the CPU build)."""
    found = find_spec("torchvision")
    if _kept or found is None or found.origin is None:
        return
    for library in Path(found.origin).parent.glob("_C*.so"):
        try:
            torch.ops.load_library(library)
            return
        except OSError:
            continue
    made = torch.library.Library("torchvision", "DEF")
    for schema in SCHEMAS:
        made.define(schema)
    _kept.append(made)
