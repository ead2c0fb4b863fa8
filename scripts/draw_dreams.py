"""Draw docs/pictures/maps.png, maps_energy.png and dream.png.

python scripts/draw_dreams.py SQUEEZENET.safetensors     # weights of torchvision's squeezenet1_1
"""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image
from skimage import data

import pellucid as pel
from pellucid.inside.dream import dream
from pellucid.inside.maps import maps
from pellucid.render.sheet import sheet

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"


def saved(image: Image.Image, name: str) -> None:
    """A small file."""
    few = image.convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(PICTURES / name, optimize=True)


def panel(image: Any, *words: str) -> tuple[Image.Image, list[str]]:
    """A picture a page has room for, with its words."""
    small = image if isinstance(image, Image.Image) else Image.fromarray(image)
    return small.resize((300, round(300 * small.height / small.width)), Image.Resampling.LANCZOS), list(words)


def dreams(cat: Any, cup: Any, squeezenet: pel.Model) -> Image.Image:
    """One cat, five dreams."""
    rows: list[list[Any]] = [[panel(cat, "the picture")], []]
    for layer in ("stage1", "stage2.1"):
        found = dream("builtin:photos", cat, layer=layer)
        rows[0].append(panel(found.image(), f"builtin:photos, {layer}"))
    for layer in ("features.5", "features.10"):
        rows[1].append(panel(dream(squeezenet, cat, layer=layer).image(), f"SqueezeNet, {layer}"))
    guided = dream(squeezenet, cat, layer="features.8", guide=cup)
    rows[1].append(panel(guided.image(), "SqueezeNet, features.8, guided by a cup of coffee"))
    return sheet("Dreams of one picture, all settings at their defaults", [], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of squeezenet1_1")
    squeezenet = pel.load("torchvision:squeezenet1_1", weights=parser.parse_args().weights)
    cat, cup = data.chelsea(), data.coffee()
    found = maps(squeezenet, cat, data=[cat, cup, data.astronaut(), data.rocket()])
    saved(found.of("features.8").page("max", top=32, scale="data"), "maps.png")
    blocks = ["stem.0", "stem", "stage1.0", "stage1", "stage2.0", "stage2.1", "stage2"]
    saved(maps("builtin:photos", cat, blocks).image(), "maps_energy.png")
    saved(dreams(cat, cup, squeezenet), "dream.png")


if __name__ == "__main__":
    main()
