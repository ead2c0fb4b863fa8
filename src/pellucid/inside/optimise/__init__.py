"""Pictures made by going uphill: which picture a unit, a layer or a class would like best."""

from pellucid.inside.optimise.making import optimise

__all__ = ["optimise"]
