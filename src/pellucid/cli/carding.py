"""`pellucid unit`: all there is to know of a unit, on one page."""

import re
from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.findings import AnySeed, refuse_existing, written
from pellucid.cli.manners import (
    AsJson,
    Labels,
    Overwrite,
    Preprocessing,
    Quiet,
    Weights,
    stopped_at_once,
    told,
    words,
)


def unit(
    model: Annotated[str, typer.Argument(help="as for --model")],
    units: Annotated[list[str], typer.Argument(help="LAYER:CHANNEL, one or several", show_default=False)],
    data: Annotated[str, typer.Option("--data", "-d", help="a folder or .zip of pictures", show_default=False)],
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="a .html, .png or .json file; a folder for several units")
    ] = None,
    part: Annotated[
        list[str] | None,
        typer.Option(help="only these: exemplars,optimised,projection,field,feeders,followers,ablation"),
    ] = None,
    top: Annotated[int, typer.Option(min=1, help="strongest pictures that are shown")] = 9,
    steps: Annotated[int, typer.Option(min=1, help="of the optimised picture")] = 256,
    samples: Annotated[int, typer.Option(min=1, help="pictures on which connections are measured")] = 64,
    seed: AnySeed = 0,
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Tell what a unit responds to, how far it looks, what feeds it and what is lost without it."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import echo_json, printer, safe
            from pellucid.inside.card import unit_card
            from pellucid.inside.exemplars import exemplars
            from pellucid.models.resolve import load

        places = _places(units, out)
        for place in places:
            refuse_existing(place, overwrite)
        loaded = load(model, weights=weights, labels=labels, preprocess=preprocess)
        watched = False if quiet or as_json else None
        found = exemplars(loaded, data, units=units, top=top, seed=seed, progress=watched)
        show, facts = printer(quiet or as_json), []
        for name, place in zip(units, places, strict=True):
            card = unit_card(
                loaded, name, data, parts=words(part) or None, top=top, steps=steps, samples=samples, found=found,
                seed=seed, progress=watched,
            )  # fmt: skip
            facts.append({**card.facts(), "file": None if place is None else str(place.resolve())})
            show(f"[bold]{safe(card.title)}[/bold]\n{safe(card.sentence())}")
            for words_ in (*card.missing.values(), *card.notes):
                show(f"note: {safe(words_)}")
            if place is not None:
                show(f"card: {safe(written(card, place, overwrite))}")
        if as_json:
            echo_json(facts)


def _places(units: list[str], out: Path | None) -> list[Path | None]:
    """Where each card goes: the file itself for one unit, files in a folder for several."""
    if out is None:
        return [None] * len(units)
    if out.suffix in (".html", ".png", ".json") and len(units) == 1:
        return [out]
    return [out / f"{re.sub(r'[^A-Za-z0-9._-]+', '_', name)}.html" for name in units]
