"""`pellucid explain` and `pellucid demo`."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import typer
from rich.markup import escape

from pellucid.core.errors import FileError, ImageError, MissingExtraError, PellucidError, SettingError
from pellucid.images.decode import Picture, decode
from pellucid.methods.explain import explain
from pellucid.methods.localise import localise
from pellucid.methods.registry import Method, find
from pellucid.models.model import Model
from pellucid.models.resolve import load
from pellucid.render.explanation import Explanation
from pellucid.render.panel import Panel

DEMO_METHODS = ("cam", "grad_cam", "saliency", "guided_backprop", "smoothgrad", "integrated_gradients")
Print = Callable[[Any], None]


@dataclass(frozen=True)
class Request:
    """What the user typed."""

    images: list[Path]
    model: str
    methods: list[str]
    targets: list[str]
    layers: list[str]
    settings: list[str]
    out: Path | None
    overwrite: bool
    weights: str | None
    labels: str | None
    preprocess: Path | None
    seed: int
    localise: float | None


def run(request: Request, show: Print, *, as_json: bool, quiet: bool) -> bool:
    """Explain every picture that can be read; True if one could not.

    A picture that fails is told and passed over, so that the others are not lost.
    """
    methods = with_settings(request.methods, request.settings)
    if request.out is not None:
        _free(request.out, request.overwrite)
    model = load(request.model, weights=request.weights, labels=request.labels, preprocess=request.preprocess)
    pictures, failed = _read(request.images)
    if not pictures:
        raise ImageError("no picture could be read")
    found = explain(
        model, pictures, methods=methods, targets=request.targets, layers=request.layers or None, seed=request.seed,
        progress=False if quiet or as_json else None,
    )  # fmt: skip
    panel = found if isinstance(found, Panel) else Panel([found])
    saved = None if request.out is None else panel.save(request.out, overwrite=request.overwrite)
    if as_json:
        typer.echo(json.dumps([facts(one, request.localise) for one in panel], indent=1))
    _tell(model, panel, saved[0] if saved else None, show, request.localise)
    return failed


def _free(folder: Path, overwrite: bool) -> None:
    """Refuse a folder that holds something before any work is done."""
    if folder.exists() and not overwrite and (not folder.is_dir() or any(folder.iterdir())):
        raise FileError(f"{folder} exists and is not empty; name another folder, or add --overwrite")


def _read(paths: list[Path]) -> tuple[list[Picture], bool]:
    pictures, failed = [], False
    for path in paths:
        try:
            pictures.append(decode(path))
        except ImageError as error:
            failed = True
            typer.echo(f"error: {error}", err=True)
    return pictures, failed


def with_settings(names: list[str], settings: list[str]) -> list[Method]:
    """Methods with the settings that were given as `METHOD.SETTING=VALUE`.

    Raises:
        SettingError: not of that form, or for a method that was not asked for.
    """
    methods = {find(name).name: find(name) for name in names}
    for text in settings:
        key, equals, value = text.partition("=")
        method, dot, setting = key.strip().partition(".")
        if not (equals and dot):
            raise SettingError(
                f'--set "{text}" came; write METHOD.SETTING=VALUE, such as integrated_gradients.steps=64'
            )
        if find(method).name not in methods:
            raise SettingError(f'--set "{text}" is for {method}, which was not asked for; add it to --method')
        methods[find(method).name] = methods[find(method).name](**{setting: value.strip()})
    return list(methods.values())


def facts(one: Explanation, localised: float | None = None) -> dict[str, Any]:
    """One explanation as JSON, without its arrays; with the box of its heat where that was asked for."""
    box = {} if localised is None else {"box": localise(one, localised).box}
    return {
        **box,
        "picture": one.picture.name,
        "model": one.model,
        "method": one.method,
        "target": one.target,
        "score": one.score,
        "layer": one.layer,
        "layer_chosen": one.layer_chosen,
        "settings": dict(one.settings),
        "units": one.units,
        "limits": list(one.limits()),
        "seconds": one.seconds,
        "predictions": [{"label": p.label, "index": p.index, "probability": p.probability} for p in one.predictions],
        "receipt": {"verdict": one.receipt.verdict, **one.receipt.to_json()},
        "sentence": one.sentence(),
    }


def _tell(model: Model, panel: Panel, report: Path | None, show: Print, localised: float | None) -> None:
    from rich.table import Table

    for note in model.notes:
        show(f"note: {escape(note)}")
    table = Table("picture", "prediction", "method", "target", "layer", "receipt", "seconds", box=None, pad_edge=False)
    for one in panel:
        best = one.predictions[0] if one.predictions else None
        table.add_row(
            escape(one.picture.name),
            escape(f"{best.label} {best.probability:.0%}") if best else "",
            one.method,
            escape(f"{one.target} = {one.score:.3g}"),
            escape(f"{one.layer}{' (chosen)' if one.layer_chosen else ''}") if one.layer else "",
            one.receipt.verdict,
            f"{one.seconds:.2f}",
        )
    show(table)
    if localised is not None:
        for one in panel:
            top, left, bottom, right = localise(one, localised).box
            show(f"{escape(one.picture.name)} {one.method}: rows {top} to {bottom}, columns {left} to {right}")
    if report is not None:
        show(f"report: {escape(str(report.resolve()))}")
    elif len(panel) == 1:
        show(escape(panel[0].sentence()))


def run_demo(out: Path, show: Print, *, quiet: bool) -> None:
    """Explain scikit-image's photograph of a cat with `builtin:photos`; its own earlier report is replaced."""
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError("scikit-image", "demo", "the demo's photograph") from error
    picture = Picture(data.chelsea(), "chelsea, a cat (scikit-image)")
    found = explain(
        "builtin:photos", [picture], methods=list(DEMO_METHODS), targets="top2", progress=False if quiet else None
    )
    if not isinstance(found, Panel):
        raise PellucidError("the demo made a single map; this is a bug")
    path = out / "report.html"
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out} can't be made ({error.strerror}); name another folder with --out") from error
    found.report(path, title="A cat, opened")
    show(escape(found[0].sentence()))
    show(f"report: {escape(str(path.resolve()))}")
