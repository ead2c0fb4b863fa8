"""Which pixels mattered? Importing this room registers every method."""

from pellucid.methods import (
    cams,
    deeplift,
    fullgrad,
    gated_backprop,
    gradients,
    masks,
    occlusion,
    paths,
    relevance,
    replayed_cams,
    shapley,
    surrogates,
    visual_backprop,
    xrai,
)
from pellucid.methods.registry import METHODS, Method, method

__all__ = [
    "METHODS",
    "Method",
    "cams",
    "deeplift",
    "fullgrad",
    "gated_backprop",
    "gradients",
    "masks",
    "method",
    "occlusion",
    "paths",
    "relevance",
    "replayed_cams",
    "shapley",
    "surrogates",
    "visual_backprop",
    "xrai",
]
