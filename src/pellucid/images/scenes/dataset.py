"""A folder of scenes: pictures by class, masks, and one row of labels each."""

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from pellucid.core.errors import Cancelled, FileError, MissingExtraError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.images.scenes.blueprints import CLASSES, difference, sibling
from pellucid.images.scenes.edits import decisive_parts, truth
from pellucid.images.scenes.render import CONCEPTS, Rendered, render
from pellucid.images.scenes.scene import Scene, stream
from pellucid.images.scenes.shortcuts import Shortcut
from pellucid.store.files import whole_folder

FACTS, LABELS = "scenes.json", "labels.parquet"
MASKS = (*CONCEPTS, "decisive", "mark")
MOST_PICTURES = 1_000_000


def make(
    out: str | Path,
    n: int,
    *,
    seed: int = 0,
    px: int = 64,
    split: str = "train",
    shortcuts: Sequence[Shortcut] = (),
    overwrite: bool = False,
    progress: Progress | bool | None = None,
) -> Path:
    """Write n scenes to a folder, all of it or nothing.

    `images/CLASS/000000.png` is what image-folder readers expect; `masks/KIND/000000.png` holds, in 8-bit grey, the
    index of each pixel's word in `scenes.json` (for "decisive" and "mark" 0 or 255); `labels.parquet` has one row a
    picture. `compose(row.seed, px=…, label=row.label, shortcuts=…)` gives the scene back.

    Args:
        out: made if missing.
        n: at least 1.
        split: another word gives other pictures.
        overwrite: replace an earlier set of scenes in this folder.

    Raises:
        SettingError: as for `stream`, or no picture asked for.
        FileError: the folder holds anything and `overwrite` is False, or can't be written.
        MissingExtraError: duckdb, which writes the Parquet file, is not installed.
        Cancelled: on request; nothing is left.
    """
    if not isinstance(n, int) or isinstance(n, bool) or not 1 <= n <= MOST_PICTURES:
        raise SettingError(f"n={n!r} pictures came; use a whole number from 1 to {MOST_PICTURES}")
    _duckdb()
    scenes = stream(n, seed=seed, px=px, split=split, shortcuts=shortcuts)
    facts = {
        "n": n, "seed": seed, "px": px, "split": split, "shortcuts": [asdict(s) for s in shortcuts],
        "classes": CLASSES, "concepts": CONCEPTS,
    }  # fmt: skip
    try:
        with watching(progress) as bar, whole_folder(out, overwrite=overwrite) as folder:
            _refuse_foreign(Path(out))
            bar.expect(n)
            rows = list(_written(folder, scenes, bar))
            (folder / FACTS).write_text(json.dumps(facts, indent=1) + "\n", encoding="utf-8")
            _write_parquet(folder / LABELS, rows)
    except Cancelled as error:
        raise Cancelled(f"stopped on request; nothing was written to {out}") from error
    return Path(out)


def _written(folder: Path, scenes: Iterator[Scene], bar: Progress) -> Iterator[dict[str, Any]]:
    for label in CLASSES:
        (folder / "images" / folder_of(label)).mkdir(parents=True)
    for kind in MASKS:
        (folder / "masks" / kind).mkdir(parents=True)
    for i, scene in enumerate(scenes):
        picture = render(scene)
        file = f"images/{folder_of(scene.label)}/{i:06}.png"
        Image.fromarray(picture.pixels).save(folder / file)
        for kind in MASKS:
            Image.fromarray(_mask(picture, kind)).save(folder / "masks" / kind / f"{i:06}.png")
        yield {"index": i, "file": file, **_row(scene, picture)}
        bar.advance(1, "painting scenes")


def _refuse_foreign(out: Path) -> None:
    """
    Raises:
        FileError: something of the same name lies there that no earlier call of `make` wrote.
    """
    names = [name for name in ("images", "masks", LABELS, FACTS) if (out / name).exists()]
    try:
        facts = json.loads((out / FACTS).read_text(encoding="utf-8")) if names else {}
    except (OSError, ValueError, RecursionError):
        facts = None
    if names and not (isinstance(facts, dict) and {"classes", "concepts", "px"} <= set(facts)):
        raise FileError(f"{out / names[0]} was not written by `scenes make` and is not replaced; name another folder")


def folder_of(label: str) -> str:
    """The folder of a class."""
    return label.replace(" ", "_")


def _mask(picture: Rendered, kind: str) -> np.ndarray:
    if kind in CONCEPTS:
        return picture.labels(kind).astype(np.uint8)
    return (picture.decisive if kind == "decisive" else picture.mark).astype(np.uint8) * 255


def _row(scene: Scene, picture: Rendered) -> dict[str, Any]:
    roles = [thing.role for thing in scene.things]
    return {
        "seed": scene.seed,
        "label": scene.label,
        "truth": truth(scene),
        "sibling": sibling(scene.label),
        "difference": difference(scene.label),
        "backdrop": picture.backdrop,
        "decisive_parts": ", ".join(decisive_parts(scene)),
        "decisive_fraction": float(picture.decisive.mean()),
        "object_fraction": float(picture.object.mean()),
        "distractors": roles.count("distractor"),
        "occluded": "occluder" in roles,
        "gain": scene.light.gain,
        "marks": ", ".join(f"{m.kind} for {m.stands_for}" for m in scene.marks),
    }


def _duckdb() -> Any:
    try:
        import duckdb
    except ImportError as error:
        raise MissingExtraError("duckdb", "data", "the Parquet file of labels") from error
    return duckdb


def _write_parquet(path: Path, rows: list[dict[str, Any]]) -> None:
    """Rows as Parquet, through a temporary JSON-lines file that duckdb reads with the types it is told."""
    types = {bool: "BOOLEAN", int: "BIGINT", float: "DOUBLE", str: "VARCHAR", type(None): "VARCHAR"}
    columns = ", ".join(f"{name}: '{types[type(value)]}'" for name, value in rows[0].items())
    lines = path.with_suffix(".jsonl")
    lines.write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    source, target = (str(p).replace("'", "''") for p in (lines, path))
    try:
        with _duckdb().connect() as connection:
            connection.execute(
                f"COPY (SELECT * FROM read_json('{source}', format='newline_delimited', columns={{{columns}}})) "
                f"TO '{target}' (FORMAT parquet)"
            )
    except _duckdb().Error as error:
        raise FileError(f"can't write {path.name}: {error}") from error
    lines.unlink()
