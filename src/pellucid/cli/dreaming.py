"""`pellucid dream`: a picture changed towards what a layer sees in it."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.findings import AnySeed, FoundFile, check_file, finished
from pellucid.cli.manners import (
    AsJson,
    ModelName,
    Overwrite,
    Preprocessing,
    Quiet,
    Weights,
    stopped_at_once,
    told,
    words,
)


def dream(
    image: Annotated[Path, typer.Argument(help="a picture of any size", show_default=False)],
    model: ModelName = "builtin:photos",
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="one or several layers; the last one with maps by default")
    ] = None,
    channel: Annotated[int | None, typer.Option("--channel", "-c", help="dream of this channel of the layer")] = None,
    guide: Annotated[
        Path | None, typer.Option("--guide", "-g", help="a second picture, to dream of what it has")
    ] = None,
    octaves: Annotated[int, typer.Option("--octaves", help="sizes, from small to large")] = 4,
    octave_scale: Annotated[float, typer.Option("--octave-scale", help="from one size to the next")] = 1.4,
    steps: Annotated[int, typer.Option("--steps", help="at each size")] = 10,
    step_size: Annotated[
        float | None, typer.Option("--step-size", help="mean change of a pixel in one step; 0.0059 of its range")
    ] = None,
    jitter: Annotated[int, typer.Option("--jitter", help="largest random shift, in pixels")] = 32,
    tile: Annotated[int, typer.Option("--tile", help="larger pictures are run in tiles of at most this side")] = 512,
    seed: AnySeed = 0,
    out: FoundFile = Path("dream.png"),
    overwrite: Overwrite = False,
    weights: Weights = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Change a picture towards what a layer sees in it."""
    with told():
        with stopped_at_once():
            from pellucid.inside.dream import STEP
            from pellucid.inside.dream import dream as dreamt
            from pellucid.models.resolve import load

        check_file(out, overwrite, "a dream is")
        found = dreamt(
            load(model, weights=weights, preprocess=preprocess), image, layer=words(layer) or None, channel=channel,
            guide=guide, octaves=octaves, octave_scale=octave_scale, steps=steps,
            step_size=STEP if step_size is None else step_size, jitter_px=jitter, tile_px=tile, seed=seed,
            progress=False if quiet or as_json else None,
        )  # fmt: skip
        finished(found, out, overwrite, "dream", as_json=as_json, quiet=quiet)
