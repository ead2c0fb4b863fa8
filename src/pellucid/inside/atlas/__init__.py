"""What a layer tells apart, as a map of icons; and what it sees at each place of one picture."""

from pellucid.inside.atlas.making import atlas
from pellucid.inside.atlas.result import Atlas

__all__ = ["Atlas", "atlas"]
