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
    from pellucid.images.datasets import Pictures, pictures
    from pellucid.images.decode import Picture, decode
    from pellucid.images.placement import Placement
    from pellucid.images.transforms import preprocess
    from pellucid.inside.atlas import Atlas, SpatialAtlas, atlas, spatial_atlas
    from pellucid.inside.backprop_vis import BackpropVis, backprop_vis
    from pellucid.inside.card import UnitCard, unit_card
    from pellucid.inside.densify import Dense, densify
    from pellucid.inside.dream import Dream, dream
    from pellucid.inside.exemplars import Exemplars, UnitExemplars, exemplars
    from pellucid.inside.fields import (
        Coupling,
        EffectiveField,
        ReceptiveFields,
        Rfm,
        coupling,
        effective_field,
        receptive_fields,
        rfm,
    )
    from pellucid.inside.maps import LayerMaps, Maps, maps
    from pellucid.inside.opened import Unit
    from pellucid.inside.optimise import objectives
    from pellucid.inside.optimise.class_image import ClassImage, class_image
    from pellucid.inside.optimise.imitating import caricature, invert
    from pellucid.inside.optimise.maco import Maco
    from pellucid.inside.optimise.making import optimise
    from pellucid.inside.optimise.optimised import Optimised
    from pellucid.inside.optimise.transforms import Transforms
    from pellucid.inside.projection import Projection, TopProjections, project, project_top
    from pellucid.inside.wiring.ablate import Ablation, ablation
    from pellucid.inside.wiring.feeds import Links, Neighbours, feeders, followers, neighbours
    from pellucid.inside.wiring.graph import InfluenceGraph, influence_graph
    from pellucid.inside.wiring.matrix import CouplingMatrix, coupling_matrix
    from pellucid.inside.wiring.stages import LayerCoupling, layer_coupling
    from pellucid.inside.wiring.stdp import StdpRule, stdp_probe
    from pellucid.inside.wiring.stdp_found import StdpProbe
    from pellucid.inside.wiring.weights import Weights, weights
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
    "images.datasets": ("Pictures", "pictures"),
    "images.decode": ("Picture", "decode"),
    "images.placement": ("Placement",),
    "images.transforms": ("preprocess",),
    "inside.atlas": ("Atlas", "SpatialAtlas", "atlas", "spatial_atlas"),
    "inside.backprop_vis": ("BackpropVis", "backprop_vis"),
    "inside.card": ("UnitCard", "unit_card"),
    "inside.densify": ("Dense", "densify"),
    "inside.dream": ("Dream", "dream"),
    "inside.exemplars": ("Exemplars", "UnitExemplars", "exemplars"),
    "inside.fields": (
        "Coupling",
        "EffectiveField",
        "ReceptiveFields",
        "Rfm",
        "coupling",
        "effective_field",
        "receptive_fields",
        "rfm",
    ),
    "inside.maps": ("LayerMaps", "Maps", "maps"),
    "inside.opened": ("Unit",),
    "inside.optimise.class_image": ("ClassImage", "class_image"),
    "inside.optimise.imitating": ("caricature", "invert"),
    "inside.optimise.maco": ("Maco",),
    "inside.optimise.making": ("optimise",),
    "inside.optimise.optimised": ("Optimised",),
    "inside.optimise.transforms": ("Transforms",),
    "inside.projection": ("Projection", "TopProjections", "project", "project_top"),
    "inside.wiring.ablate": ("Ablation", "ablation"),
    "inside.wiring.feeds": ("Links", "Neighbours", "feeders", "followers", "neighbours"),
    "inside.wiring.graph": ("InfluenceGraph", "influence_graph"),
    "inside.wiring.matrix": ("CouplingMatrix", "coupling_matrix"),
    "inside.wiring.stages": ("LayerCoupling", "layer_coupling"),
    "inside.wiring.stdp": ("StdpRule", "stdp_probe"),
    "inside.wiring.stdp_found": ("StdpProbe",),
    "inside.wiring.weights": ("Weights", "weights"),
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
_MODULES = {
    "edits": "core.edits",
    "objectives": "inside.optimise.objectives",
    "rules": "rules",
    "scenes": "images.scenes",
    "volumes": "images.volumes",
}
_HOME_OF = {name: home for home, names in _HOMES.items() for name in names}

__all__ = [
    "DECONVNET",
    "EXACT",
    "GUIDED",
    "METHODS",
    "Ablation",
    "Answers",
    "Atlas",
    "BackpropVis",
    "Between",
    "Case",
    "Change",
    "Check",
    "ClassImage",
    "Coupling",
    "CouplingMatrix",
    "Dense",
    "Dream",
    "EffectiveField",
    "Evidence",
    "Exemplars",
    "Explanation",
    "InfluenceGraph",
    "LayerCoupling",
    "LayerMaps",
    "LayerShares",
    "Links",
    "Maco",
    "Maps",
    "Method",
    "MinimalSets",
    "Model",
    "Neighbours",
    "Optimised",
    "Panel",
    "PellucidError",
    "Picture",
    "Pictures",
    "Placement",
    "Progress",
    "Projection",
    "Ranking",
    "Receipt",
    "ReceptiveFields",
    "Rfm",
    "Rules",
    "SpatialAtlas",
    "StdpProbe",
    "StdpRule",
    "Table",
    "Target",
    "TopProjections",
    "Trace",
    "Transforms",
    "Unit",
    "UnitCard",
    "UnitExemplars",
    "Walk",
    "Weights",
    "ablation",
    "answers",
    "atlas",
    "attribute",
    "backprop_vis",
    "baseline",
    "books",
    "caricature",
    "class_image",
    "contrast",
    "coupling",
    "coupling_matrix",
    "custom",
    "decode",
    "densify",
    "doctor",
    "dream",
    "edits",
    "effective_field",
    "evidence",
    "evidence_between",
    "exemplars",
    "explain",
    "feeders",
    "followers",
    "influence",
    "influence_graph",
    "invert",
    "layer_coupling",
    "layer_shapley",
    "load",
    "localise",
    "log_probability",
    "logit",
    "maps",
    "method",
    "minimal_sets",
    "neighbours",
    "objectives",
    "open",
    "optimise",
    "pictures",
    "preprocess",
    "probability",
    "project",
    "project_top",
    "rank",
    "receptive_fields",
    "record",
    "region",
    "rfm",
    "rules",
    "scenes",
    "spatial_atlas",
    "stdp_probe",
    "unit",
    "unit_card",
    "volumes",
    "weights",
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
