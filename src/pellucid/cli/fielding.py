"""`pellucid fields`: what every layer can see, and what a unit sees in fact."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli.findings import AnySeed, FoundFileIfAny, check_file, finished, show_rows
from pellucid.cli.manners import (
    AsJson,
    Overwrite,
    Preprocessing,
    Quiet,
    Weights,
    stopped_at_once,
    told,
    words,
)


def fields(
    model: Annotated[str, typer.Argument(help="as for --model", show_default=False)] = "builtin:photos",
    layer: Annotated[list[str] | None, typer.Option("--layer", "-l", help="one or several; default all")] = None,
    unit: Annotated[
        str | None, typer.Option("--unit", "-u", help="LAYER:CHANNEL: what it sees in fact, on noise or on --data")
    ] = None,
    image: Annotated[Path | None, typer.Option("--image", "-i", help="a picture to draw fields on")] = None,
    position: Annotated[
        str | None, typer.Option("--position", "-p", help="y,x on the layer's maps; the middle by default")
    ] = None,
    data: Annotated[
        str | None, typer.Option("--data", "-d", help="a folder of pictures, or a .zip, for --unit")
    ] = None,
    signal: Annotated[
        str | None,
        typer.Option("--signal", "-s", help="contribution, gradient, correlation or occlusion: the matrix of --unit"),
    ] = None,
    source: Annotated[
        str | None, typer.Option("--source", help="an earlier layer in place of the input, for --signal")
    ] = None,
    whiten: Annotated[bool, typer.Option("--whiten", help="divide a correlation by the pictures' own")] = False,
    samples: Annotated[
        int | None, typer.Option("--samples", min=1, help="pictures (100), or backward passes of --signal (1000)")
    ] = None,
    out: FoundFileIfAny = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    preprocess: Preprocessing = None,
    seed: AnySeed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show how far layers can look, and how far a unit looks in fact."""
    with told():
        with stopped_at_once():
            from pellucid.models.resolve import load

        _check(unit, words(layer), data, signal, source, whiten)
        check_file(out, overwrite, "fields are")
        place = None if position is None else _numbers(position)
        network = load(model, weights=weights, preprocess=preprocess)
        if unit is None:
            found: Any = _theoretical(network, image, words(layer), place)
        else:
            given = data if data is not None else None if image is None else [image]
            settings: dict[str, Any] = {"seed": seed, "progress": False if quiet or as_json else None}
            settings |= {} if samples is None else {"samples": samples}
            settings |= {} if signal is None else {"signal": signal, "source": source, "whiten": whiten}
            found = _measured(network, unit, given, place, settings)
        show = finished(found, out, overwrite, "fields", as_json=as_json, quiet=quiet)
        for one in found.tables:
            show_rows(one, show)


def _check(
    unit: str | None, layers: list[str], data: str | None, signal: str | None, source: str | None, whiten: bool
) -> None:
    """Options that don't go together are refused before anything is loaded."""
    from pellucid.core.errors import SettingError

    if unit is None and (signal is not None or data is not None):
        raise SettingError("--signal and --data look at one unit; name it with --unit LAYER:CHANNEL")
    if unit is not None and layers:
        raise SettingError("--unit names its layer itself; leave --layer away")
    if signal is None and (source is not None or whiten):
        raise SettingError("--source and --whiten belong to a matrix; add --signal contribution")


def _theoretical(network: Any, image: Path | None, layers: list[str], place: tuple[int, ...] | None) -> Any:
    """Of all layers, or of some."""
    from pellucid.core.errors import SettingError
    from pellucid.inside.fields import receptive_fields

    if place is not None and not layers:
        raise SettingError("--position is one of a layer's; name the layer with --layer, or a unit with --unit")
    found = receptive_fields(network, image)
    return found.only(layers, place) if layers else found


def _measured(network: Any, unit: str, data: Any, place: tuple[int, ...] | None, settings: dict[str, Any]) -> Any:
    """The effective field of a unit, or its matrix."""
    from pellucid.core.errors import SettingError
    from pellucid.inside.fields import effective_field, rfm

    if "signal" not in settings:
        return effective_field(network, unit, data, position=place, **settings)
    if data is None:
        raise SettingError("--signal is measured on pictures; name a folder with --data, or one picture with --image")
    if place is not None:
        raise SettingError("--signal is the mean over all positions; leave --position away")
    return rfm(network, unit, data, **settings)


def _numbers(position: str) -> tuple[int, ...]:
    """`"3,5"` as numbers.

    Raises:
        SettingError: it is not of that form.
    """
    from pellucid.core.errors import SettingError

    try:
        return tuple(int(part) for part in position.split(","))
    except ValueError:
        raise SettingError(f'--position "{position}" came; write y,x on the layer\'s maps, such as 3,5') from None
