"""How do I train the networks that ship, or my own?"""

from pellucid.training.augment import Jitter, Standardise
from pellucid.training.fit import accuracy, fit, predictions
from pellucid.training.history import Epoch, History

__all__ = ["Epoch", "History", "Jitter", "Standardise", "accuracy", "fit", "predictions"]
