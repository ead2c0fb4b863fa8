"""Every channel of any layer for one picture, and what is read off them."""

from pellucid.inside.maps.layer import LayerMaps
from pellucid.inside.maps.opening import maps
from pellucid.inside.maps.result import Maps

__all__ = ["LayerMaps", "Maps", "maps"]
