"""Draw docs/pictures/volumes.png: one brain with a healthy and an atrophied left hippocampus, and its regions.

python scripts/draw_volumes.py
"""

from pathlib import Path

import numpy as np
from PIL import Image

from pellucid.images import volumes

GOAL = Path(__file__).resolve().parents[1] / "docs" / "pictures" / "volumes.png"
SEED, VOXELS, SCALE = 43, 64, 3
COLOURS = np.array("000000 9a9a9a dddddd 8c6d31 c7a76c 4a4a4a f2c75c 2f7fb8 7fb4dc 1b3a5c 44688f d6453d 5aa55a".split())


def rows() -> list[np.ndarray]:
    """Healthy, atrophied, and the regions: (d, h, w, 3) of bytes."""
    volume = volumes.without_lesions(volumes.compose(SEED, voxels=VOXELS, label="healthy"))
    pictures = []
    for state in (volume, volumes.atrophied(volume)):
        grey = np.rint(volumes.render(state).voxels[0] * 255).astype(np.uint8)
        pictures.append(np.repeat(grey[..., None], 3, axis=-1))
    palette = np.array([[int(colour[i : i + 2], 16) for i in (0, 2, 4)] for colour in COLOURS], np.uint8)
    return [*pictures, palette[volumes.render(volume).atlas]]


def cuts(brain: np.ndarray, centre: tuple[int, int, int]) -> np.ndarray:
    """From the front, from above and from the side, through one point; beside each other."""
    d, h, w = centre
    return np.concatenate([brain[:, h], brain[d], brain[:, :, w]], axis=1)


def main() -> None:
    volume = volumes.compose(SEED, voxels=VOXELS)
    d, h, w = (int(axis.mean()) for axis in np.nonzero(volumes.render(volume).decisive))
    sheet = np.concatenate([cuts(brain, (d, h, w)) for brain in rows()])
    large = sheet.repeat(SCALE, axis=0).repeat(SCALE, axis=1)
    Image.fromarray(large).save(GOAL, optimize=True)
    print(f"{GOAL.name}: {GOAL.stat().st_size} bytes")


if __name__ == "__main__":
    main()
