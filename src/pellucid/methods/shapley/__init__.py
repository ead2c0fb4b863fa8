"""Who in a team of regions, units or layers deserves how much of the score? Shapley values."""

from pellucid.methods.shapley.layers import LayerShares, layer_shapley
from pellucid.methods.shapley.regions import shap
from pellucid.methods.shapley.units import unit_shapley

__all__ = ["LayerShares", "layer_shapley", "shap", "unit_shapley"]
