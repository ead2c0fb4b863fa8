"""Pictures whose truth is known: composed scenes, planted shortcuts, and true counterfactuals.

scene = compose(7)
picture = render(scene)                  # pixels, six kinds of labels, the decisive pixels
render(swapped(scene)), render(without(scene, scene.parts[0]))
"""

from pellucid.images.scenes.blueprints import CLASSES, difference, sibling
from pellucid.images.scenes.dataset import make
from pellucid.images.scenes.edits import (
    cleaned,
    decisive_parts,
    exchanged,
    move,
    on_background,
    planted,
    recolour,
    retexture,
    swapped,
    truth,
    without,
)
from pellucid.images.scenes.render import CONCEPTS, Rendered, render
from pellucid.images.scenes.scene import Scene, compose, stream
from pellucid.images.scenes.shortcuts import SHORTCUTS, Mark, Shortcut
from pellucid.images.scenes.vocabulary import BACKDROPS, COLOURS, MATERIALS, TEXTURES

__all__ = [
    "BACKDROPS", "CLASSES", "COLOURS", "CONCEPTS", "MATERIALS", "SHORTCUTS", "TEXTURES",
    "Mark", "Rendered", "Scene", "Shortcut",
    "cleaned", "compose", "decisive_parts", "difference", "exchanged", "make", "move", "on_background", "planted",
    "recolour", "render", "retexture", "sibling", "stream", "swapped", "truth", "without",
]  # fmt: skip
