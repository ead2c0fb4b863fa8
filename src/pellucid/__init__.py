"""pellucid opens convolutional image models: which pixels a decision came from, and how far to trust the answer.

Names are imported when they are first used, so that the command line starts without torch. Every method is
an attribute too: `pel.saliency`, `pel.integrated_gradients(steps=64)`.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from pellucid.core.version import VERSION

if TYPE_CHECKING:
    from pellucid import rules
    from pellucid.core import edits
    from pellucid.core.ahead import Answers, answers
    from pellucid.core.baselines import baseline
    from pellucid.core.errors import PellucidError
    from pellucid.core.progress import Progress
    from pellucid.core.pull import EXACT, Rules, Walk
    from pellucid.core.receipt import Check, Receipt
    from pellucid.core.record import record
    from pellucid.core.tables import Table
    from pellucid.core.target import Target, contrast, custom, log_probability, logit, probability, region, unit
    from pellucid.core.trace import Trace
    from pellucid.evaluate.rank import rank
    from pellucid.evaluate.ranking import Ranking
    from pellucid.images import scenes, volumes
    from pellucid.images.decode import Picture, decode
    from pellucid.images.placement import Placement
    from pellucid.images.transforms import preprocess
    from pellucid.inside.optimise.making import optimise
    from pellucid.inside.optimise.optimised import Optimised
    from pellucid.methods import METHODS, Method, method
    from pellucid.methods.books import books
    from pellucid.methods.case import Case
    from pellucid.methods.deeplift import influence
    from pellucid.methods.doctor import doctor
    from pellucid.methods.evidence import (
        Between,
        Change,
        Evidence,
        MinimalSets,
        evidence,
        evidence_between,
        minimal_sets,
        what_must_change,
    )
    from pellucid.methods.explain import explain, open
    from pellucid.methods.localise import localise
    from pellucid.methods.run import attribute
    from pellucid.methods.shapley import LayerShares, layer_shapley
    from pellucid.models.model import Model, wrap
    from pellucid.models.resolve import load
    from pellucid.render.explanation import Explanation
    from pellucid.render.panel import Panel
    from pellucid.rules.rectifiers import DECONVNET, GUIDED

__version__ = VERSION

_HOMES = {
    "core.ahead": ("Answers", "answers"),
    "core.baselines": ("baseline",),
    "core.errors": ("PellucidError",),
    "core.progress": ("Progress",),
    "core.pull": ("EXACT", "Rules", "Walk"),
    "core.receipt": ("Check", "Receipt"),
    "core.record": ("record",),
    "core.tables": ("Table",),
    "core.target": ("Target", "contrast", "custom", "log_probability", "logit", "probability", "region", "unit"),
    "core.trace": ("Trace",),
    "evaluate.rank": ("rank",),
    "evaluate.ranking": ("Ranking",),
    "images.decode": ("Picture", "decode"),
    "images.placement": ("Placement",),
    "images.transforms": ("preprocess",),
    "inside.optimise.making": ("optimise",),
    "inside.optimise.optimised": ("Optimised",),
    "methods": ("METHODS", "Method", "method"),
    "methods.books": ("books",),
    "methods.case": ("Case",),
    "methods.deeplift": ("influence",),
    "methods.doctor": ("doctor",),
    "methods.evidence": (
        "Between",
        "Change",
        "Evidence",
        "MinimalSets",
        "evidence",
        "evidence_between",
        "minimal_sets",
        "what_must_change",
    ),
    "methods.explain": ("explain", "open"),
    "methods.localise": ("localise",),
    "methods.run": ("attribute",),
    "methods.shapley": ("LayerShares", "layer_shapley"),
    "models.model": ("Model", "wrap"),
    "models.resolve": ("load",),
    "render.explanation": ("Explanation",),
    "render.panel": ("Panel",),
    "rules.rectifiers": ("DECONVNET", "GUIDED"),
}
_MODULES = {"edits": "core.edits", "rules": "rules", "scenes": "images.scenes", "volumes": "images.volumes"}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DECONVNET",
    "EXACT",
    "GUIDED",
    "METHODS",
    "Answers",
    "Between",
    "Case",
    "Change",
    "Check",
    "Evidence",
    "Explanation",
    "LayerShares",
    "Method",
    "MinimalSets",
    "Model",
    "Optimised",
    "Panel",
    "PellucidError",
    "Picture",
    "Placement",
    "Progress",
    "Ranking",
    "Receipt",
    "Rules",
    "Table",
    "Target",
    "Trace",
    "Walk",
    "answers",
    "attribute",
    "baseline",
    "books",
    "contrast",
    "custom",
    "decode",
    "doctor",
    "edits",
    "evidence",
    "evidence_between",
    "explain",
    "influence",
    "layer_shapley",
    "load",
    "localise",
    "log_probability",
    "logit",
    "method",
    "minimal_sets",
    "open",
    "optimise",
    "preprocess",
    "probability",
    "rank",
    "record",
    "region",
    "rules",
    "scenes",
    "unit",
    "volumes",
    "what_must_change",
    "wrap",
]


def __getattr__(name: str) -> Any:
    if name.startswith("_"):
        raise AttributeError(name)
    home = _HOME_OF.get(name)
    if name in _MODULES:
        value = import_module(f"pellucid.{_MODULES[name]}")
    elif home is not None:
        value = getattr(import_module(f"pellucid.{home}"), name)
    else:
        methods = import_module("pellucid.methods").METHODS
        if name not in methods:
            raise AttributeError(f"pellucid has no {name!r}; methods are listed by `pellucid methods`")
        value = methods[name]
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, *import_module("pellucid.methods").METHODS])
