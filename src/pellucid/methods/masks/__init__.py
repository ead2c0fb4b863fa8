"""Which pixels have to stay? Random masks and masks that are searched for."""

from pellucid.methods.masks.extremal import extremal_perturbation
from pellucid.methods.masks.meaningful import meaningful_perturbation
from pellucid.methods.masks.rise import rise

__all__ = ["extremal_perturbation", "meaningful_perturbation", "rise"]
