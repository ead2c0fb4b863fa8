"""`pellucid evidence`: did the decision come from here, what does it need, and what must change for another."""

import json
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.cli.printing import Print, echo_json, safe
from pellucid.core.errors import FileError, SettingError
from pellucid.core.tables import Table
from pellucid.images.decode import decode
from pellucid.methods.evidence import Evidence, evidence, minimal_sets, what_must_change
from pellucid.methods.evidence.judge import FILLS
from pellucid.methods.evidence.results import ENDINGS, Result
from pellucid.methods.evidence.sets import FILL
from pellucid.models.resolve import load
from pellucid.render.earlier import check_place, is_ours
from pellucid.render.tabular import csv_text
from pellucid.store.files import whole_folder, write_text

STEMS = {"evidence": "evidence", "minimal": "minimal_sets", "to": "what_must_change"}
CONTROLS = "evidence_controls.csv"


@dataclass(frozen=True)
class Request:
    """What the user typed."""

    image: Path
    model: str
    symptom: str | None
    environment: str | None
    target: str
    fills: list[str]
    controls: int
    minimal: bool
    to: str | None
    regions: str
    budget: int
    out: Path | None
    overwrite: bool
    weights: str | None
    labels: str | None
    preprocess: Path | None
    seed: int


def run(request: Request, show: Print, *, as_json: bool, quiet: bool) -> None:
    """Ask what was asked, tell it, and write it where that was asked for."""
    if request.symptom is None and not request.minimal and request.to is None:
        raise SettingError(
            "nothing was asked; give --symptom MASK.png (or slic:50#3,7, heat:grad_cam:0.1, unit:LAYER:5,9), "
            "--minimal, or --to CLASS"
        )
    if request.out is not None:
        check_place(request.out, request.overwrite)
    found = _asked(request, progress=False if quiet or as_json else None)
    files = [] if request.out is None else _write(found, request.out, request.overwrite)
    if as_json:
        echo_json({**{name: one.to_json() for name, one in found.items()}, "files": [str(f) for f in files]})
    for one in found.values():
        show(f"{safe(one.sentence())}\n")
        for note in one.receipt.notes:
            show(f"note: {safe(note)}")
    if files:
        show(f"files: {safe(files[0].parent)}")


def _asked(request: Request, progress: bool | None) -> dict[str, Result]:
    """Every result that was asked for, by the name of its files."""
    model = load(request.model, weights=request.weights, labels=request.labels, preprocess=request.preprocess)
    picture = decode(request.image)
    search: dict[str, Any] = {
        "regions": request.regions, "budget": request.budget, "seed": request.seed, "progress": progress
    }  # fmt: skip
    fills = request.fills or list(FILLS)
    found: dict[str, Result] = {}
    if request.symptom is not None:
        found[STEMS["evidence"]] = evidence(
            model, picture, request.symptom, environment=request.environment, target=request.target, fills=fills,
            controls=request.controls, seed=request.seed, progress=progress,
        )  # fmt: skip
    if request.minimal:
        fill = request.fills[0] if request.fills else FILL
        found[STEMS["minimal"]] = minimal_sets(model, picture, target=request.target, fill=fill, **search)
    if request.to is not None:
        goal = int(request.to) if request.to.isdigit() else request.to
        found[STEMS["to"]] = what_must_change(model, picture, goal, fills=fills, **search)
    return found


def _write(found: Mapping[str, Result], folder: Path, overwrite: bool) -> list[Path]:
    """Every result as JSON, table and picture, all or nothing."""
    names = [f"{stem}{ending}" for stem in found for ending in ENDINGS]
    controls = next((one.control_table for one in found.values() if isinstance(one, Evidence)), None)
    names += [] if controls is None else [CONTROLS]
    foreign = next((n for n in names if os.path.lexists(folder / n) and not _ours(folder / n)), None)
    if foreign is not None:
        raise FileError(
            f"{folder / foreign} was not written by pellucid, or was changed since, and is not replaced; name another "
            "folder"
        )
    with whole_folder(folder, overwrite=overwrite) as temporary:
        for stem, one in found.items():
            for ending in ENDINGS:
                one.save(temporary / f"{stem}{ending}")
        if controls is not None:
            write_text(temporary / CONTROLS, csv_text(controls))
    return [(folder / name).resolve() for name in names]


def _ours(path: Path) -> bool:
    """Whether an earlier run wrote this file: a picture carries a mark, a table is what the JSON beside it says."""
    if path.suffix == ".png":
        return is_ours(path)
    stem, key = ("evidence", "controls") if path.name == CONTROLS else (path.stem, "table")
    try:
        facts = json.loads(path.with_name(f"{stem}.json").read_text(encoding="utf-8"))
        table = Table.from_json(facts[key])
        return path.suffix == ".json" or path.read_bytes() == csv_text(table).encode("utf-8", "replace")
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
