"""`pellucid scenes`: make pictures whose truth is known, or look at one."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pellucid.cli.printing import Print, echo_json, safe
from pellucid.core.errors import FileError, SettingError
from pellucid.images import scenes
from pellucid.images.scenes import Rendered, Scene, Shortcut
from pellucid.images.scenes.dataset import FACTS
from pellucid.store.files import whole_file

SHOWN_PX = 256  # each picture of `show` is enlarged, by a whole number, to about this side
GAP_PX = 8
PALE = (140, 0.3)  # pixels that don't decide: from this grey, by this share of their own
FORM = "KIND, KIND:STRENGTH, KIND:STRENGTH:SHARE or KIND:STRENGTH:SHARE:CLASS+CLASS, such as watermark:1:0.9"


def make(
    out: Path, n: int, px: int, seed: int, split: str, planted: Sequence[str], overwrite: bool, show: Print, *,
    as_json: bool, quiet: bool,
) -> None:  # fmt: skip
    """Write scenes with their masks and labels to a folder."""
    shortcuts = shortcuts_of(planted)
    scenes.make(
        out, n, seed=seed, px=px, split=split, shortcuts=shortcuts, overwrite=overwrite,
        progress=False if quiet or as_json else None,
    )  # fmt: skip
    if as_json:
        facts = json.loads((out / FACTS).read_text(encoding="utf-8"))
        echo_json({"folder": str(out.resolve()), **facts})
    show(f"{n} scenes of {px} px in {safe(out.resolve())}: images/CLASS, masks/KIND, labels.parquet, scenes.json")


def shortcuts_of(texts: Sequence[str]) -> tuple[Shortcut, ...]:
    """Shortcuts from what was typed.

    Raises:
        SettingError: not of the form `KIND[:STRENGTH[:SHARE[:CLASS+CLASS]]]`.
    """
    return tuple(map(_shortcut, texts))


def _shortcut(text: str) -> Shortcut:
    kind, *rest = (word.strip() for word in text.split(":"))
    if not kind or len(rest) > 3:
        raise SettingError(f'--shortcut "{text}" came; write {FORM}')
    numbers = [_number(text, word) for word in rest[:2]]
    classes = tuple(word.strip() for word in rest[2].split("+")) if len(rest) == 3 else None
    return Shortcut(kind, *numbers, classes=classes)


def _number(text: str, word: str) -> float:
    try:
        return float(word)
    except ValueError as error:
        raise SettingError(f'--shortcut "{text}": "{word}" is no number; write {FORM}') from error


def show_scene(
    seed: int,
    out: Path,
    px: int,
    label: str | None,
    planted: Sequence[str],
    overwrite: bool,
    show: Print,
    as_json: bool,
) -> None:
    """Write one picture, what is decisive in it, and its sibling's counterfactual, side by side."""
    if out.suffix.lower() != ".png":
        raise FileError(f'can\'t save as "{out.name}"; expected a name that ends in .png')
    scene = scenes.compose(seed, px=px, label=label, shortcuts=shortcuts_of(planted))
    other = scenes.swapped(scene)
    picture = scenes.render(scene)
    sheet = side_by_side([picture.pixels, lit(picture), scenes.render(other).pixels])
    with whole_file(out, overwrite=overwrite) as temporary:
        sheet.save(temporary, "PNG")
    facts = scene_facts(scene, picture, other)
    if as_json:
        echo_json({"picture": str(out.resolve()), **facts})
    for key, value in facts.items():
        show(f"{key.replace('_', ' ')}: {safe(', '.join(value) if isinstance(value, list) else value)}")
    show(f"picture, decisive pixels, and the same as {safe(other.label)}: {safe(out.resolve())}")


def scene_facts(scene: Scene, picture: Rendered, other: Scene) -> dict[str, Any]:
    """What is known of a scene, for people and programs."""
    return {
        "class": scene.label,
        "sibling": other.label,
        "differs_in": scenes.difference(scene.label),
        "decisive_parts": list(scenes.decisive_parts(scene)),
        "decisive_px": int(picture.decisive.sum()),
        "parts": list(scene.parts),
        "background": picture.backdrop,
        "marks": [f"{mark.kind} for {mark.stands_for}" for mark in scene.marks],
        "seed": scene.seed,
    }


def lit(picture: Rendered) -> np.ndarray:
    """The picture in pale grey, its decisive pixels as they are."""
    grey = PALE[0] + PALE[1] * picture.pixels.mean(axis=2, keepdims=True)
    return np.where(picture.decisive[..., None], picture.pixels, grey).astype(np.uint8)


def side_by_side(pictures: Sequence[np.ndarray]) -> Image.Image:
    """Pictures of one size in a row, enlarged without smoothing."""
    side = len(pictures[0])
    factor = max(1, SHOWN_PX // side)
    large = [one.repeat(factor, axis=0).repeat(factor, axis=1) for one in pictures]
    gap = np.full((side * factor, GAP_PX, 3), 255, np.uint8)
    return Image.fromarray(np.concatenate([large[0], gap, large[1], gap, large[2]], axis=1))
