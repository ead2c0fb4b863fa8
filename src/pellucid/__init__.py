"""pellucid opens convolutional image models: which pixels a decision came from, and how far to trust the answer."""

from pellucid.core.baselines import baseline
from pellucid.core.errors import PellucidError
from pellucid.core.progress import Progress
from pellucid.core.pull import EXACT, Rules, Walk
from pellucid.core.receipt import Check, Receipt
from pellucid.core.record import record
from pellucid.core.target import Target, contrast, custom, log_probability, logit, probability, region, unit
from pellucid.core.trace import Trace
from pellucid.images.decode import Picture, decode
from pellucid.images.transforms import Placement
from pellucid.images.transforms import Preprocess as preprocess  # noqa: N813
from pellucid.methods import METHODS, Method, method
from pellucid.methods.case import Case
from pellucid.methods.doctor import doctor
from pellucid.methods.explain import explain
from pellucid.methods.explain import open_explanation as open  # noqa: A001
from pellucid.methods.localise import localise
from pellucid.methods.run import attribute
from pellucid.models.model import Model, wrap
from pellucid.models.resolve import load
from pellucid.render.explanation import Explanation
from pellucid.render.panel import Panel
from pellucid.rules.rectifiers import DECONVNET, GUIDED

__version__ = "0.1.0"

globals().update(METHODS)  # pel.saliency, pel.integrated_gradients(steps=64) …

__all__ = [
    "DECONVNET", "EXACT", "GUIDED", "METHODS", "Case", "Check", "Explanation", "Method", "Model", "Panel", "PellucidError",
    "Picture", "Placement", "Progress", "Receipt", "Rules", "Target", "Trace", "Walk", "attribute", "baseline", "contrast",
    "custom", "decode", "doctor", "explain", "load", "localise", "log_probability", "logit", "method", "open", "preprocess",
    "probability", "record", "region", "unit", "wrap",
]  # fmt: skip
