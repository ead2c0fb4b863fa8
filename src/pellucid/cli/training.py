"""`pellucid train`: the networks that ship, trained and measured again."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.cli.printing import Print, echo_json, safe, table
from pellucid.core.errors import Cancelled, SettingError
from pellucid.training.cards import MEANT
from pellucid.training.networks import CHECKPOINT, RECIPES, check_place, measure, train
from pellucid.training.recipes import recipe_of

ALL = "all"


@dataclass(frozen=True)
class Request:
    """What the user typed."""

    names: list[str]
    out: Path | None
    n: int | None
    epochs: int | None
    seed: int | None
    resume: bool
    overwrite: bool
    measure: bool
    weights: Path | None


def run(request: Request, show: Print, *, as_json: bool, quiet: bool) -> None:
    """Train each network in turn, or measure it again, and tell its figures."""
    names = _names(request.names)
    _check(request, names)
    progress = False if quiet or as_json else None
    told: list[dict[str, Any]] = []
    for name in names:
        if request.measure:
            found = measure(name, weights=request.weights, progress=progress)
            told.append({"name": name, "figures": found})
        else:
            told.append(_trained(request, name, progress))
        _tell(told[-1], show)
    if as_json:
        echo_json(told)


def _names(given: list[str]) -> list[str]:
    """The networks that were named, each once; all of them for "all"."""
    names = [name.removeprefix("builtin:") for name in given]
    if ALL in names:
        return list(RECIPES)
    return list(dict.fromkeys(recipe_of(name).name for name in names))


def _check(request: Request, names: list[str]) -> None:
    """Refuse before hours of work what would be refused after them."""
    if request.weights is not None and not (request.measure and len(names) == 1):
        raise SettingError("--weights FILE goes with --measure and the name of one network")
    if request.measure and (request.out is not None or request.resume or request.overwrite):
        raise SettingError("--measure trains nothing and writes nothing; leave --out, --resume and --overwrite away")
    if request.measure and (request.n, request.epochs, request.seed) != (None, None, None):
        raise SettingError("--measure uses the test pictures of the card; leave --n, --epochs and --seed away")
    if request.out is None:
        if not request.measure:
            raise SettingError("a trained network needs a place; add --out FOLDER, or --measure to train nothing")
        return
    for name in names:
        if not _finished(request, name):
            check_place(request.out, name, resume=request.resume, overwrite=request.overwrite)


def _finished(request: Request, name: str) -> bool:
    """Whether a broken-off `train` over several networks had this one done already."""
    done = request.out is not None and (request.out / f"{name}.safetensors").exists()
    return done and request.resume and not request.overwrite


def _trained(request: Request, name: str, progress: bool | None) -> dict[str, Any]:
    out = request.out or Path()
    if not _finished(request, name):
        with _hint(out / f"{name}{CHECKPOINT}"):
            train(
                name, out=out, seed=request.seed, n=request.n, epochs=request.epochs, resume=request.resume,
                overwrite=request.overwrite, progress=progress,
            )  # fmt: skip
    facts = json.loads((out / f"{name}.json").read_text(encoding="utf-8"))
    return {"name": name, "weights": str(out / f"{name}.safetensors"), **facts}


@contextmanager
def _hint(checkpoint: Path) -> Iterator[None]:
    """Ctrl-C tells how to go on."""
    try:
        yield
    except (Cancelled, KeyboardInterrupt) as error:
        if not checkpoint.exists():
            raise
        raise Cancelled(
            f"the last whole epoch is kept in {checkpoint}; the same command with --resume goes on"
        ) from error


def _tell(found: dict[str, Any], show: Print) -> None:
    place = f"  {found['weights']}" if "weights" in found else ""
    show(f"[bold]{found['name']}[/bold]{safe(place)}")
    rows = table("figure", "share", "of what")
    for key, value in found["figures"].items():
        rows.add_row(key, f"{100 * value:.2f} %", MEANT.get(key, ""))
    show(rows)
