"""Draw docs/pictures/optimise.png and optimise_after.png.

python scripts/draw_optimised.py SQUEEZENET.safetensors     # weights of torchvision's squeezenet1_1
"""

import argparse
from pathlib import Path
from typing import Any

from PIL import Image
from skimage import data

import pellucid as pel
from pellucid.inside.optimise.class_image import class_image
from pellucid.inside.optimise.imitating import caricature, invert
from pellucid.inside.optimise.making import optimise
from pellucid.render.sheet import sheet

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
PHOTOS = "builtin:photos"
UNITS = ["stage1.1:2", "stage2.0:3", "stage2.2:7", "stage2.2:33", "logit:cat", "logit:horse"]
LARGE = [
    "features.3:5",
    "features.6:11",
    "features.9:100",
    "features.12:300",
    "features.12:120",
    "logit:golden retriever",
]


def saved(image: Image.Image, name: str) -> None:
    """A small file."""
    few = image.convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(PICTURES / name, optimize=True)


def panel(image: Image.Image, *words: str) -> tuple[Image.Image, list[str]]:
    """A picture a page has room for, with its words."""
    kind = Image.Resampling.NEAREST if image.width < 100 else Image.Resampling.LANCZOS
    return image.resize((160, 160), kind), list(words)


def row(found: Any) -> list[Any]:
    """The pictures of a result beside one another."""
    named = zip(found.images(), found.names, found.values, strict=True)
    return [panel(image, name, f"value {value:.3g}") for image, name, value in named]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of squeezenet1_1")
    squeezenet = pel.load("torchvision:squeezenet1_1", weights=parser.parse_args().weights)
    made = [row(optimise(PHOTOS, UNITS)), row(optimise(squeezenet, LARGE))]
    saved(
        sheet("builtin:photos (32 px, above) and SqueezeNet (224 px), all settings at their defaults", [], made),
        "optimise.png",
    )
    cat, layers = data.chelsea()[20:280, 100:360], ["features.1", "features.4", "features.7", "features.10"]
    again = [panel(Image.fromarray(cat), "the picture"), *row(invert(squeezenet, cat, layers, steps=128))]
    more = row(caricature(squeezenet, cat, layers[2:], steps=128))
    more += row(optimise(PHOTOS, ["stage2.2:7", "logit:cat"], parametrisation="maco"))
    one = class_image(PHOTOS, "cat")
    more.append(panel(one.picture, "class image of cat", f"score {one.score:.3g}"))
    saved(
        sheet("Above: what layers keep of a picture. Below: caricatures, MACO, a class image", [], [again, more]),
        "optimise_after.png",
    )


if __name__ == "__main__":
    main()
