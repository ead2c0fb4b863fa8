"""Draw docs/pictures/scenes*.png, and measure what docs/scenes.md says of the decisive pixels.

python scripts/draw_scenes.py              # the pictures
python scripts/draw_scenes.py --measure    # how many pixels decide, over 2000 scenes
"""

import argparse
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from pellucid.images import scenes
from pellucid.images.scenes import Rendered, Scene, Shortcut

PICTURES = Path(__file__).resolve().parents[1] / "docs" / "pictures"
SEEDS = {"house": 3, "sailboat": 5, "agaric": 7, "striped beetle": 2, "tree left of car": 4}
SCALE, GAP, VISIBLE, MANY = 2, 6, 24, 2000
PALE = 215


def lit(picture: Rendered) -> np.ndarray:
    """The decisive pixels as they are, the others in pale grey."""
    grey = PALE + 0.15 * (picture.pixels.mean(-1, keepdims=True) - 128)
    return np.where(picture.decisive[..., None], picture.pixels, grey).astype(np.uint8)


def painted(labels: np.ndarray) -> np.ndarray:
    """Each label in a colour of its own."""
    turn = (labels[..., None] * 0.381966 + np.array([0.0, 0.33, 0.67])) % 1  # the golden section keeps neighbours apart
    bright = 255 * (0.25 + 0.75 * np.abs(2 * turn - 1))
    return np.where(labels[..., None] == 0, 235, bright).astype(np.uint8)


def sheet(columns: Sequence[Sequence[np.ndarray]]) -> Image.Image:
    """Pictures in columns with gaps, enlarged without smoothing."""
    framed = [
        [np.pad(one, ((0, GAP // SCALE), (0, GAP // SCALE), (0, 0)), constant_values=255) for one in c] for c in columns
    ]
    whole = np.concatenate([np.concatenate(column) for column in framed], axis=1)
    return Image.fromarray(whole.repeat(SCALE, 0).repeat(SCALE, 1))


def classes() -> Image.Image:
    """A column for each pair: a scene, what decides it, its sibling, what decides that."""
    columns = []
    for label, seed in SEEDS.items():
        pair = [scenes.compose(seed, label=label)]
        pair.append(scenes.swapped(pair[0]))
        columns.append([part for one in map(scenes.render, pair) for part in (one.pixels, lit(one))])
    return sheet(columns)


def edits() -> Image.Image:
    """Three rows: one scene and its edits; its labels; planted marks."""
    scene = scenes.compose(SEEDS["house"], label="house")
    changes: tuple[Callable[[Scene], Scene], ...] = (
        lambda s: s,
        lambda s: scenes.without(s, "chimney"),
        lambda s: scenes.recolour(s, "wall", "purple"),
        lambda s: scenes.retexture(s, "roof", "checks"),
        lambda s: scenes.on_background(s, "desert"),
        lambda s: scenes.move(s, 6, -10),
        scenes.swapped,
    )
    top = [scenes.render(change(scene)).pixels for change in changes]
    picture = scenes.render(scene)
    middle = [lit(picture), *(painted(picture.labels(kind)) for kind in scenes.CONCEPTS)]
    marks = [Shortcut(kind, classes=("house",)) for kind in scenes.SHORTCUTS]
    marks += [Shortcut("watermark", 0.3), Shortcut("background", 0.4)]
    bottom = [scenes.render(scenes.planted(scene, mark)).pixels for mark in marks]
    return sheet(list(zip(top, middle, bottom, strict=True)))


def measure() -> None:
    """The number of decisive pixels, and of those in which the sibling visibly differs, for each class."""
    found: dict[str, list[tuple[int, int]]] = {label: [] for label in scenes.CLASSES}
    for scene in scenes.stream(MANY, split="measure"):
        picture, other = scenes.render(scene), scenes.render(scenes.swapped(scene))
        apart = np.abs(picture.pixels.astype(int) - other.pixels).max(-1) > VISIBLE
        found[scene.label].append((int(picture.decisive.sum()), int(apart.sum())))
    print(
        f"{MANY} scenes of 64 px: pixels that decide, and that differ from the sibling's by more than {VISIBLE} of 255"
    )
    for label, counts in found.items():
        (seen, apart) = np.array(counts).T
        numbers = [f"{min(v):4} {np.percentile(v, 1):4.0f} {np.median(v):4.0f}" for v in (seen, apart)]
        print(f"{label:18} decide: least, 1 %, median {numbers[0]}   differ: {numbers[1]}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="print the numbers of the page")
    if parser.parse_args().measure:
        measure()
        return
    for name, draw in (("scenes", classes), ("scenes_edits", edits)):
        goal = PICTURES / f"{name}.png"
        draw().save(goal, optimize=True)
        print(f"{goal.name}: {goal.stat().st_size} bytes")


if __name__ == "__main__":
    main()
