"""Draw docs/pictures/wiring_*.png from forty scenes, and print what docs/wiring.md says of them.

python scripts/draw_wiring.py
"""

from pathlib import Path

from PIL import Image

import pellucid as pel
from pellucid.images.datasets import Pictures
from pellucid.images.scenes import render, stream
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.feeds import neighbours
from pellucid.inside.wiring.stdp import StdpRule, stdp_probe

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
NET, COUNT = "builtin:scenes", 40


def saved(found: Shows, name: str) -> None:
    """A small file, and the sentence that goes with it."""
    few = found.image().convert("RGB").quantize(256, kmeans=8, dither=Image.Dither.NONE)
    few.save(PICTURES / f"wiring_{name}.png", optimize=True)
    print(f"{name}: {found.sentence()}")


def main() -> None:
    drawn = list(stream(COUNT, split="test"))
    model = pel.load(NET)
    scenes = Pictures(
        [render(s).pixels for s in drawn], [f"scene {i}" for i in range(COUNT)], [s.label for s in drawn],
        model.preprocess,
    )  # fmt: skip
    saved(neighbours(model, "features.14:36", scenes), "unit")
    saved(pel.ablation(model, "features.14", scenes), "ablation")
    saved(pel.coupling_matrix(model, "features.12", "pool", scenes), "matrix")
    saved(pel.influence_graph(model, None, scenes), "graph")
    saved(stdp_probe(model, "features.3", scenes), "stdp")
    strong = stdp_probe(model, "features.3", scenes, rule=StdpRule(gain=0.4, loss=0.3))
    print(f"stdp at a hundred times the rates: {strong.sentence()}")
    photos = pel.load("builtin:photos")
    layers = ["stem", "stage1.0", "stage1.1.relu1", "stage1.1.conv2", "stage1", "stage2", "classes"]
    saved(pel.layer_coupling(photos, layers, [render(s).pixels for s in drawn]), "layers")


if __name__ == "__main__":
    main()
