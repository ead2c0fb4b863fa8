"""Which parts can a picture be cut into? Regions: every pixel in one of them, or in none."""

from pellucid.images.regions.asked import regions
from pellucid.images.regions.regions import Regions

__all__ = ["Regions", "regions"]
