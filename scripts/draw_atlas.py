"""Draw the pictures of docs/atlas.md and docs/densify.md: `python scripts/draw_atlas.py CIFAR_TEST.zip SQUEEZENET`.

The first is an archive of CIFAR-10 test pictures, the second torchvision's SqueezeNet 1.1 as safetensors.
"""

import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from skimage.data import chelsea

import pellucid as pel

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
COUNT = 2000


def photographs(archive: str) -> list[np.ndarray]:
    """Every so many pictures of the archive."""
    with zipfile.ZipFile(archive) as files:
        names = [name for name in files.namelist() if name.endswith((".jpg", ".png"))]
        return [np.asarray(Image.open(files.open(name)).convert("RGB")) for name in names[:: len(names) // COUNT]]


def main() -> None:
    """All pictures."""
    archive, weights = sys.argv[1:]
    cifar, scene = photographs(archive), pel.scenes.render(pel.scenes.compose(7, px=64)).pixels
    saved("dense", pel.densify(pel.load("torchvision:squeezenet1_1", weights=weights), chelsea()))
    saved("atlas_spatial", pel.spatial_atlas("builtin:scenes", scene))
    saved("atlas", pel.atlas("builtin:photos", cifar, layout="tsne", grid=10))
    saved("atlas_class", pel.atlas("builtin:photos", cifar, class_="ship", layout="tsne", grid=6))


def saved(name: str, found: Any) -> None:
    """A small file, and the sentence that goes with it."""
    few = found.image().convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(PICTURES / f"{name}.png", optimize=True)
    sys.stdout.write(f"{name}: {found.sentence()}\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
