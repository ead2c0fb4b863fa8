"""Which pixels mattered? Importing this room registers every method."""

from pellucid.methods import cams, fullgrad, gradients, paths
from pellucid.methods.registry import METHODS, Method, method

__all__ = ["METHODS", "Method", "cams", "fullgrad", "gradients", "method", "paths"]
