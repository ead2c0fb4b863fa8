"""`pellucid atlas`: what a layer tells apart over a data set, or what it finds at each place of one picture."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.findings import AnySeed, check_file, finished
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
)


def atlas(
    model: ModelName = "builtin:photos",
    data: Annotated[Path | None, typer.Option("--data", "-d", help="folder of pictures, also one with classes")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="one picture: its regions instead of a data set")
    ] = None,
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="module path; the last one with maps by default")
    ] = None,
    grid: Annotated[int | None, typer.Option("--grid", help="cells along each side; about 20 pictures a cell")] = None,
    class_: Annotated[str | None, typer.Option("--class", "-c", help="only what gives to this class")] = None,
    layout: Annotated[str, typer.Option("--layout", help="umap, tsne, pca, or auto: the first installed")] = "auto",
    samples: Annotated[
        int | None, typer.Option("--samples", help="activations to collect; one from each picture by default")
    ] = None,
    least: Annotated[
        int | None, typer.Option("--least", help="cells with fewer activations are not drawn; 6, with --class 4")
    ] = None,
    every: Annotated[
        int | None, typer.Option("--every", help="with --image: places of the dense maps between regions")
    ] = None,
    factor: Annotated[
        int | None, typer.Option("--factor", help="with --image: how many times denser the maps are made")
    ] = None,
    icons: Annotated[bool, typer.Option("--icons/--no-icons", help="make a picture for every cell")] = True,
    steps: Annotated[int, typer.Option("--steps", help="of the ascent that makes the icons")] = 128,
    out: Annotated[
        Path, typer.Option("--out", "-o", help="a page (.html), a sheet (.png), facts (.json), or all (.safetensors)")
    ] = Path("atlas.html"),
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    seed: AnySeed = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw what a layer tells apart: activations of many pictures as a map of icons, or one picture's regions."""
    with told():
        with stopped_at_once():
            from pellucid.core.errors import SettingError
            from pellucid.inside.atlas import atlas as made
            from pellucid.inside.atlas import spatial_atlas
            from pellucid.models.resolve import load

        if (data is None) == (image is None):
            raise SettingError("give --data DIR for the atlas of a data set, or --image FILE for that of one picture")
        mine = {"--grid": grid, "--class": class_, "--samples": samples, "--least": least}
        other = {"--every": every, "--factor": factor}
        odd = next((name for name, given in (mine if data is None else other).items() if given is not None), None)
        if odd is not None:
            raise SettingError(f"{odd} belongs to {'--data' if data is None else '--image'}; leave it out")
        check_file(out, overwrite, "an atlas is", () if data is None else (".safetensors",))
        known = load(model, weights=weights, labels=labels, preprocess=preprocess)
        progress = False if quiet or as_json else None
        if image is not None:
            found = spatial_atlas(
                known, image, layer, every=every, factor=factor, icons=icons, steps=steps, seed=seed, progress=progress
            )
        else:
            found = made(
                known, data, layer, grid=grid, layout=layout, class_=_number(class_), samples=samples, least=least,
                icons=icons, steps=steps, seed=seed, progress=progress,
            )  # fmt: skip
        finished(found, out, overwrite, "atlas", as_json=as_json, quiet=quiet)


def _number(word: str | None) -> int | str | None:
    """A class by its number, or by its label."""
    return int(word) if word is not None and word.isascii() and word.isdigit() else word
