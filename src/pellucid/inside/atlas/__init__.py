"""What a layer tells apart, as a map of icons; and what it sees at each place of one picture."""

from pellucid.inside.atlas.making import atlas
from pellucid.inside.atlas.result import Atlas
from pellucid.inside.atlas.spatial import SpatialAtlas, spatial_atlas

__all__ = ["Atlas", "SpatialAtlas", "atlas", "spatial_atlas"]
