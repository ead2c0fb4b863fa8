"""Explanations with known heat, for the tests of render and report."""

import numpy as np
import torch

from pellucid.core.receipt import Check, Receipt
from pellucid.images.decode import Picture
from pellucid.images.transforms import Placement
from pellucid.render.explanation import Explanation, Prediction

PREDICTIONS = (Prediction("tabby cat", 281, 0.83), Prediction("tiger cat", 282, 0.09), Prediction("lynx", 287, 0.004))
RECEIPT = Receipt(
    checks=(
        Check("completeness", 0.012, 0.05, "pass", "the heat sums to the score up to 1.2 %"),
        Check("stability", 0.93, None, "told", "rank correlation under slight noise"),
    ),
    notes=("layer features.12 chosen",),
    operations={"exact: convolution": 12},
)
HOSTILE = "</script><img src=x onerror=\"document.title='owned'\"><!--<script>'&amp;"


def picture(height: int = 60, width: int = 90, name: str = "cat.png") -> Picture:
    """Smooth colours, different at every place."""
    y, x = np.mgrid[:height, :width]
    pixels = np.stack([40 + 150 * x / width, 60 + 120 * y / height, 90 + 60 * (x + y) / (height + width)], axis=-1)
    return Picture(pixels.astype(np.uint8), name)


def bump(cells: int, y: float, x: float, size: float = 1.0, spread: float = 0.08) -> np.ndarray:
    """A bell of heat around a place given in 0..1."""
    rows, columns = (np.mgrid[:cells, :cells] + 0.5) / cells
    return (size * np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * spread**2))).astype(np.float32)


def explanation(heat: np.ndarray | None = None, crop: bool = False, **facts) -> Explanation:
    """Grad-CAM-like by default: 8x8 cells, no sign, brightest in the upper left ninth."""
    shown = facts.pop("picture", None) or picture()
    height, width = shown.size_px
    margin = (width - height) / 2 if crop else 0.0
    box = (0.0, margin, float(height), width - margin)
    heat = bump(8, 0.2, 0.2) if heat is None else heat
    given = {
        "attribution": torch.from_numpy(np.array(heat, np.float32)),
        "method": "grad_cam",
        "title": "Grad-CAM",
        "target": "logit of 281 tabby cat",
        "score": 9.31,
        "site": "layer",
        "layer": "features.12",
        "layer_chosen": True,
        "signed": False,
        "picture": shown,
        "placement": Placement((height, width), (224, 224), box),
        "settings": {"relu": True, "size": [3, 4], "fill": None},
        "units": "logit",
        "seconds": 0.12,
        "predictions": PREDICTIONS,
        "model": "builtin:photos",
        "receipt": RECEIPT,
        "versions": {"torch": "2.13.0"},
        "misleads": "when two objects of one class are in the picture, it often marks only one",
        "source": "Selvaraju et al. 2017, arXiv:1610.02391",
    }
    return Explanation(**{**given, **facts})


def signed_explanation(**facts) -> Explanation:
    """For the target in the centre, against it in the lower left corner, on 32x32 cells of a central crop."""
    heat = bump(32, 0.5, 0.5) - bump(32, 0.9, 0.1, 0.6)
    return explanation(heat, **{"crop": True, "signed": True, "method": "lrp", "title": "LRP", "layer": None, **facts})
