"""Draws the pictures of docs/exemplars.md and docs/projection.md: a unit of the built-in network of scenes."""

from pathlib import Path

import pellucid as pel

PICTURES = Path(__file__).resolve().parent.parent / "docs" / "pictures"
MODEL, LAYER, UNIT = "builtin:scenes", "features.9", "features.9:21"


def scenes(count: int) -> list[tuple]:
    """Scenes and what they show."""
    made = [pel.scenes.compose(number) for number in range(count)]
    return [(pel.scenes.render(scene).pixels, scene.label) for scene in made]


def main() -> None:
    found = pel.exemplars(MODEL, scenes(400), layers=LAYER, bottom=3, progress=False)
    found.save(PICTURES / "exemplars.png")
    found.of(UNIT).save(PICTURES / "exemplars_unit.png")
    pel.project_top(MODEL, found, UNIT).save(PICTURES / "projection.png")


if __name__ == "__main__":
    main()
