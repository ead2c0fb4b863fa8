"""`pellucid backpropvis`: one score of one picture on one sheet: maps, biases, and the weights that carry it."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.findings import AnySeed, FoundFile, check_file, finished
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


def backpropvis(
    image: Annotated[Path, typer.Argument(help="a picture", show_default=False)],
    model: ModelName = "builtin:photos",
    target: Annotated[str, typer.Option("--target", "-t", help="a class number or label, top1, A vs B, …")] = "top1",
    cam: Annotated[str, typer.Option("--cam", help="a class activation map: grad_cam, layer_cam, score_cam, …")] = (
        "grad_cam"
    ),
    backprop: Annotated[
        str, typer.Option("--backprop", help="a map on the pixels: guided_backprop, saliency, lrp, deconvnet, …")
    ] = "guided_backprop",
    layer: Annotated[
        str | None, typer.Option("--layer", "-l", help="where the CAM is read; the last one with maps by default")
    ] = None,
    channels: Annotated[int, typer.Option("--channels", min=1, max=48, help="how many channels are shown")] = 6,
    seed: AnySeed = 0,
    out: FoundFile = Path("backpropvis.png"),
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Show a CAM times a backprop map, and the weights and biases that carry the score."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import safe
            from pellucid.inside.backprop_vis import backprop_vis
            from pellucid.models.resolve import load

        check_file(out, overwrite, "a BackpropVis is")
        found = backprop_vis(
            load(model, weights=weights, labels=labels, preprocess=preprocess), image, target=target, cam=cam,
            backprop=backprop, layer=layer, channels=channels, seed=seed, progress=False if quiet or as_json else None,
        )  # fmt: skip
        show = finished(found, out, overwrite, "sheet", as_json=as_json, quiet=quiet)
        show(safe(found.receipt.checks[0].text))
