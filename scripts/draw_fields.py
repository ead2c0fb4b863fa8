"""Draw docs/pictures/fields.png and fields_rfm.png.

python scripts/draw_fields.py SQUEEZENET.safetensors PHOTOS     # weights of torchvision's squeezenet1_1, a folder
"""

import argparse
from pathlib import Path

from PIL import Image
from skimage import data

import pellucid as pel
from pellucid.inside.opened import opened
from pellucid.render.sheet import sheet

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
LAYERS = ("features.4", "features.7", "features.9", "features.12")
SIGNALS = ("contribution", "gradient", "correlation", "occlusion")


def saved(image: Image.Image, name: str) -> None:
    """A small file."""
    few = image.convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.FLOYDSTEINBERG)
    few.save(PICTURES / name, optimize=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("weights", help="weights of squeezenet1_1")
    parser.add_argument("photos", help="a folder of photos")
    given = parser.parse_args()
    squeezenet = pel.load("torchvision:squeezenet1_1", weights=given.weights)
    cat = data.chelsea()
    fields = pel.receptive_fields(squeezenet, cat)
    row = []
    asked = opened(squeezenet, cat)
    for layer in LAYERS:
        maps = asked.maps(layer, asked.value(layer).data)[0]
        unit = int(maps[:, maps.shape[1] // 2, maps.shape[2] // 2].argmax())
        found = pel.effective_field(squeezenet, f"{layer}:{unit}", [cat])
        words = f"sigma {found.spread.sigma_px:.1f} px of {found.field.shape[0]}"
        row.append((found.drawn().resize((230, 230)), [f"{layer}:{unit}", words]))
        print(found.sentence())
    title = "What units of SqueezeNet can see, and what the most active ones in the middle look at here"
    saved(sheet(title, [], [[(fields.drawn(), [])], row]), "fields.png")
    rows = []
    for unit in ("stage1.0:9", "stage1:3"):
        parts = []
        for signal in SIGNALS:
            found = pel.rfm("builtin:photos", unit, given.photos, signal=signal)
            parts.append((found.panel(), [f"{unit}, {signal}", f"sigma {found.spread.sigma_px:.2f} px"]))
            print(found.sentence())
        rows.append(parts)
    saved(sheet("Receptive-field matrices of two units of builtin:photos", [], rows), "fields_rfm.png")


if __name__ == "__main__":
    main()
