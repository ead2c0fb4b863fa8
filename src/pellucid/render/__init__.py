"""How is it drawn?"""

from pellucid.render.explanation import Explanation, Prediction
from pellucid.render.panel import Panel

__all__ = ["Explanation", "Panel", "Prediction"]
