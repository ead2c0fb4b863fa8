"""`pellucid optimise`: pictures that units, layers and classes would like best, and pictures after a picture."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.findings import check_file, finished, refuse_existing
from pellucid.cli.manners import (
    AsJson,
    Labels,
    ModelName,
    Overwrite,
    Preprocessing,
    Quiet,
    Weights,
    stopped_at_once,
    told,
    words,
)

if TYPE_CHECKING:
    from pellucid.inside.optimise.class_image import ClassImage
    from pellucid.inside.optimise.optimised import Optimised
    from pellucid.models.model import Model


def optimise(
    objectives: Annotated[
        list[str] | None,
        typer.Argument(help="LAYER:CHANNEL, LAYER:CHANNEL@centre, LAYER or logit:LABEL", show_default=False),
    ] = None,
    model: ModelName = "builtin:photos",
    param: Annotated[str, typer.Option("--param", "-p", help="fourier, pixels or maco")] = "fourier",
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="of the ascent; 256, for class images 512")
    ] = None,
    count: Annotated[int, typer.Option("--count", min=1, help="pictures for each objective")] = 1,
    size: Annotated[int | None, typer.Option("--size", min=2, help="side in pixels; the network's input")] = None,
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="pictures of the network's kind, for colours and spectrum")
    ] = None,
    start: Annotated[Path | None, typer.Option("--start", help="a picture to start from")] = None,
    invert: Annotated[
        Path | None, typer.Option("--invert", help="a picture to make again from what a layer keeps")
    ] = None,
    caricature: Annotated[bool, typer.Option("--caricature", help="exaggerate that picture instead")] = False,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="for --invert; the last one with maps by default")
    ] = None,
    class_image: Annotated[
        str | None, typer.Option("--class-image", help="the class image of a label or number (Simonyan et al.)")
    ] = None,
    seed: Annotated[int, typer.Option("--seed", min=0, max=2**32 - 1, help="for everything random")] = 0,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="all pictures (.png), a page (.html) or facts (.json)")
    ] = Path("optimised.png"),
    each: Annotated[Path | None, typer.Option("--each", help="a folder for every picture at its own size")] = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Make the pictures that units, layers or classes would like best."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import safe
            from pellucid.models.resolve import load

        _one_question(objectives, invert, caricature, class_image)
        check_file(out, overwrite, "pictures are")
        refuse_existing(each, overwrite)
        loaded = load(model, weights=weights, labels=labels, preprocess=preprocess)
        common: dict[str, Any] = {"progress": False if quiet or as_json else None}
        if steps is not None:
            common["steps"] = steps
        if class_image is not None:
            found = _of_class(loaded, class_image, common)
        elif invert is not None:
            found = _after(loaded, invert, words(layer), caricature, common | {"data": data, "seed": seed})
        else:
            more = {"parametrisation": param, "count": count, "size_px": size, "start": start}
            found = _made(loaded, objectives or [], common | more | {"data": data, "seed": seed})
        files = [] if each is None else _each(found, each, overwrite)
        show = finished(
            found, out, overwrite, "pictures", as_json=as_json, quiet=quiet, files=[str(file) for file in files]
        )
        if each is not None:
            show(f"{len(files)} in {safe(each)}")


def _one_question(objectives: list[str] | None, invert: Path | None, caricature: bool, class_image: str | None) -> None:
    from pellucid.core.errors import SettingError

    asked = sum((bool(objectives), invert is not None, class_image is not None))
    if asked != 1:
        raise SettingError(
            "give objectives such as stage2.1:3 or logit:cat, or --invert PICTURE, or --class-image LABEL"
        )
    if caricature and invert is None:
        raise SettingError("--caricature exaggerates the picture that --invert names")


def _made(model: "Model", asked: list[str], settings: dict[str, Any]) -> "Optimised":
    from pellucid.inside.optimise.making import optimise as make

    return make(model, asked, **settings)


def _after(model: "Model", picture: Path, layers: list[str], caricature: bool, settings: dict[str, Any]) -> "Optimised":
    from pellucid.inside.optimise import imitating

    make = imitating.caricature if caricature else imitating.invert
    return make(model, picture, layers or None, **settings)


def _of_class(model: "Model", label: str, settings: dict[str, Any]) -> "ClassImage":
    from pellucid.inside.optimise.class_image import class_image

    return class_image(model, int(label) if label.isdigit() else label, **settings)


def _each(found: "Optimised | ClassImage", folder: Path, overwrite: bool) -> list[Path]:
    """Every 8-bit picture at its own size, all or nothing."""
    from pellucid.inside.optimise.optimised import Optimised
    from pellucid.store.files import whole_folder

    named = (
        zip(found.names, found.images(), strict=True) if isinstance(found, Optimised) else [(found.name, found.picture)]
    )
    files = []
    with whole_folder(folder, overwrite=overwrite) as temporary:
        for number, (name, image) in enumerate(named):
            file = f"{number:03}_{re.sub(r'[^A-Za-z0-9._-]+', '_', name)[:80]}.png"
            image.save(temporary / file)
            files.append(folder / file)
    return files
