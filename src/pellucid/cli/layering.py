"""`pellucid layers`: what the layers are; with a picture, what every channel of them does in it."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from pellucid.cli.findings import refuse_existing, show_rows, written
from pellucid.cli.manners import (
    AsJson,
    InputShape,
    Labels,
    Overwrite,
    Preprocessing,
    Quiet,
    Weights,
    stopped_at_once,
    told,
)

if TYPE_CHECKING:
    from pellucid.cli.printing import Print
    from pellucid.core.tables import Table
    from pellucid.inside.maps import LayerMaps, Maps

FIRST_ROWS = 20


def layers(
    model: Annotated[str, typer.Argument(help="as for --model")],
    image: Annotated[Path | None, typer.Option("--image", "-i", help="a picture: what do the layers do in it?")] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="with --image: every channel of this layer as a map")
    ] = None,
    sort: Annotated[
        str, typer.Option("--sort", help="channels by variance, mean, max, sparsity, support or number")
    ] = "variance",
    data: Annotated[
        Path | None, typer.Option("--data", "-d", help="a folder or .zip of pictures: maps on the scale of a data set")
    ] = None,
    target: Annotated[
        str, typer.Option("--target", "-t", help="what support and contributions are counted for")
    ] = "top1",
    contributions: Annotated[
        bool, typer.Option("--contributions", help="with --image: what each layer adds to the decision")
    ] = False,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="a .png, .html or .json file; a folder for a picture a page")
    ] = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    size: InputShape = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List the layers with their outputs, fields and parameters; or show what their channels do in a picture."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_layers
            from pellucid.cli.printing import echo_json, printer
            from pellucid.core.errors import SettingError

        show = printer(quiet or as_json)
        if image is None:
            asked = {"--layer": layer, "--data": data, "--out": out, "--contributions": contributions or None}
            extra = next((name for name, value in asked.items() if value is not None), None)
            if extra is not None:
                raise SettingError(f"{extra} came without a picture; add --image FILE")
            show_layers(model, weights, preprocess, size, show, as_json)
            return
        if size is not None:
            raise SettingError(
                "--input and --image came; a picture has the size that the network's preprocessing gives it"
            )
        refuse_existing(out, overwrite)
        found = _opened(model, image, layer, data, target, (weights, labels, preprocess), None if not quiet else False)
        one: Maps | LayerMaps = found
        if layer is not None:
            one = found.of(layer).sorted(sort, "data" if data is not None else "channel")
        tables = [*one.tables, *([found.contributions] if contributions else [])]
        files = [] if out is None else list(_written(one, out, overwrite))
        if as_json:
            echo_json({**one.facts(), "tables": [t.to_json() for t in tables], "files": [str(f) for f in files]})
        _tell(one, tables, files, show)


def _opened(
    model: str, image: Path, layer: str | None, data: Path | None, target: str, how: tuple[Any, Any, Any], watched: Any
) -> "Maps":
    """The picture on the layers that were asked for."""
    from pellucid.inside.maps import maps
    from pellucid.models.resolve import load

    loaded = load(model, weights=how[0], labels=how[1], preprocess=how[2])
    aim = int(target) if target.isdigit() else target
    return maps(loaded, image, layer, data=data, target=aim, progress=watched)


def _written(one: "Maps | LayerMaps", out: Path, overwrite: bool) -> Iterator[Path]:
    """One file, or a folder with a picture for each page and the facts."""
    from pellucid.inside.maps import LayerMaps
    from pellucid.inside.showing import SUFFIXES
    from pellucid.store.files import whole_folder

    if out.suffix in SUFFIXES:
        yield written(one, out, overwrite)
        return
    stem = re.sub(r"[^A-Za-z0-9._-]+", "_", one.layer) if isinstance(one, LayerMaps) else "layers"
    pages = list(one.pages()) if isinstance(one, LayerMaps) else [one.image()]
    with whole_folder(out, overwrite=overwrite) as temporary:
        names = [f"{stem}_{number:02d}.png" for number in range(1, len(pages) + 1)]
        for name, page in zip(names, pages, strict=True):
            page.save(temporary / name)
        one.save(temporary / f"{stem}.json")
    yield from ((out / name).resolve() for name in [*names, f"{stem}.json"])


def _tell(one: "Maps | LayerMaps", tables: "list[Table]", files: list[Path], show: "Print") -> None:
    """The sentence, the first rows of each table, and where the files are."""
    from pellucid.cli.printing import safe

    show(safe(one.sentence()))
    for numbers in tables:
        show_rows(numbers, show, FIRST_ROWS if numbers.name == "channels" else None)
        if numbers.note:
            show(safe(numbers.note))
    for file in files:
        show(f"file: {safe(file)}")
