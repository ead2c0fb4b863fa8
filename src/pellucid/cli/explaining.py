"""`pellucid explain` and `pellucid demo`."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import typer

from pellucid.cli.printing import Print, echo_json, safe, table
from pellucid.core.errors import Cancelled, FileError, ImageError, MissingExtraError, PellucidError, SettingError
from pellucid.images.decode import Picture, decode
from pellucid.methods.explain import explain
from pellucid.methods.localise import localise
from pellucid.methods.registry import Method, find
from pellucid.models.model import Model
from pellucid.models.resolve import load
from pellucid.render.earlier import REPORT, check_place, refuse_foreign
from pellucid.render.explanation import Explanation
from pellucid.render.panel import Panel
from pellucid.render.visible import visible

DEMO_METHODS = ("cam", "grad_cam", "saliency", "guided_backprop", "smoothgrad", "integrated_gradients")

VERDICTS = {"pass": "pass", "warn": "warn", "fail": "FAIL", "told": "no check"}


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
    """Explain every picture that can be; True if one could not.

    A picture that fails is told and passed over, so that the others are not lost.
    """
    methods = with_settings(request.methods, request.settings)
    if request.localise is not None and not 0 < request.localise < 1:
        raise SettingError(f"--localise {request.localise} came; use a number between 0 and 1, such as 0.15")
    model, panel, saved = gathered(request, methods, watched=not (quiet or as_json))
    report = saved[0].resolve() if saved else None
    if as_json:
        place = None if report is None else str(report)
        echo_json([{**facts(one, request.localise), "report": place} for one in panel])
    _tell(model, panel, report, show, request.localise)
    return incomplete(request, panel)


def gathered(request: Request, methods: list[Method], *, watched: bool) -> tuple[Model, Panel, tuple[Path, ...]]:
    """The network, every map that could be made, and the files that were written, the report first."""
    if request.out is not None:
        check_place(request.out, request.overwrite)
    model = load(request.model, weights=request.weights, labels=request.labels, preprocess=request.preprocess)
    pictures = _read(request.images)
    if not pictures:
        raise ImageError("no picture could be read")

    def ask(some: list[Picture]) -> list[Explanation]:
        found = explain(
            model, some, methods=methods, targets=request.targets, layers=request.layers or None, seed=request.seed,
            progress=None if watched else False,
        )  # fmt: skip
        return list(found) if isinstance(found, Panel) else [found]

    panel = Panel(_explained(ask, pictures))
    return model, panel, () if request.out is None else panel.save(request.out, overwrite=request.overwrite)


def incomplete(request: Request, panel: Panel) -> bool:
    """Whether a picture that was asked for could not be explained."""
    return len({id(one.picture) for one in panel}) < len(request.images)


def _read(paths: list[Path]) -> list[Picture]:
    """The pictures that can be read; where several files share a name, each is called by its whole path."""
    names = Counter(path.name for path in paths)
    pictures = []
    for path in paths:
        try:
            picture = decode(path)
        except ImageError as error:
            _complain(str(error))
        else:
            pictures.append(picture if names[path.name] == 1 else replace(picture, name=str(path)))
    return pictures


def _explained(ask: Callable[[list[Picture]], list[Explanation]], pictures: list[Picture]) -> list[Explanation]:
    """All pictures together; where that fails, one by one, so that only those are lost that must be."""
    try:
        return ask(pictures)
    except Cancelled:
        raise
    except PellucidError:
        if len(pictures) == 1:
            raise
    found: list[Explanation] = []
    errors: list[tuple[Picture, PellucidError]] = []
    for picture in pictures:
        try:
            found += ask([picture])
        except Cancelled:
            raise
        except PellucidError as error:
            errors.append((picture, error))
    if not found:
        raise errors[0][1]
    for picture, error in errors:
        _complain(f"{picture.name}: {error}")
    return found


def _complain(words: str) -> None:
    typer.echo(f"error: {visible(words)}", err=True)


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
    box = {} if localised is None else {"box": _box(one, localised)}
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
        "tables": [table.to_json() for table in one.tables],
        "sentence": one.sentence(),
    }


def _box(one: Explanation, fraction: float) -> tuple[int, int, int, int] | None:
    """The box of the heat; None for a map without positive heat."""
    return localise(one, fraction).box if np.nanmax(one.heat, initial=0.0) > 0 else None


def _tell(model: Model, panel: Panel, report: Path | None, show: Print, localised: float | None) -> None:
    for note in model.notes:
        show(f"note: {safe(note)}")
    rows = table("picture", "prediction", "method", "target", "layer", "receipt", "seconds")
    for one in panel:
        best = one.predictions[0] if one.predictions else None
        rows.add_row(
            safe(one.picture.name),
            safe(f"{best.label} {best.probability:.0%}") if best else "",
            one.method,
            safe(f"{one.target} = {one.score:.3g}"),
            safe(f"{one.layer}{' (chosen)' if one.layer_chosen else ''}") if one.layer else "",
            VERDICTS[one.receipt.verdict],
            f"{one.seconds:.2f}",
        )
    show(rows)
    if localised is not None:
        for one in panel:
            box = _box(one, localised)
            where = "rows {0} to {2}, columns {1} to {3}".format(*box) if box else "no positive heat, so no box"
            show(f"{safe(one.picture.name)} {one.method}, {safe(one.target)}: {where}")
    if report is not None:
        show(f"report: {safe(report)}")
    elif len(panel) == 1:
        show(safe(panel[0].sentence()))


def run_demo(out: Path, show: Print, *, quiet: bool) -> None:
    """Explain scikit-image's photograph of a cat with `builtin:photos`; its own earlier report is replaced."""
    try:
        from skimage import data
    except ImportError as error:
        raise MissingExtraError("scikit-image", "demo", "the demo's photograph") from error
    _make_folder(out)
    picture = Picture(data.chelsea(), "chelsea, a cat (scikit-image)")
    found = explain(
        "builtin:photos", [picture], methods=list(DEMO_METHODS), targets="top2", progress=False if quiet else None
    )
    if not isinstance(found, Panel):
        raise PellucidError("the demo made a single map; this is a bug")
    path = found.report(out / REPORT, title="A cat, opened")
    show(safe(found[0].sentence()))
    show(f"report: {safe(path.resolve())}")


def _make_folder(out: Path) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"{out} can't be made ({error.strerror}); name another folder with --out") from error
    refuse_foreign(out, [REPORT])
