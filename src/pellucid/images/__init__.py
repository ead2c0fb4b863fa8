"""How do pictures get in, and how is preprocessing undone?"""

from pellucid.images.decode import Limits, Picture, decode
from pellucid.images.transforms import Placement, Prepared, Preprocess

__all__ = ["Limits", "Picture", "Placement", "Prepared", "Preprocess", "decode"]
