"""Which pixels mattered? Importing this room registers every method."""

from pellucid.methods import cams, deeplift, fullgrad, gradients, paths, relevance
from pellucid.methods.registry import METHODS, Method, method

__all__ = ["METHODS", "Method", "cams", "deeplift", "fullgrad", "gradients", "method", "paths", "relevance"]
