"""`pellucid weights`: the weights of a network, layer by layer."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.findings import FoundFileIfAny, check_file, finished, show_rows
from pellucid.cli.manners import AsJson, Overwrite, Preprocessing, Quiet, Weights, stopped_at_once, told

LAYERS = ("layer", "operation", "shape", "dead", "alike", "BatchNorm")
MOST_ROWS = 20


def weights(
    model: Annotated[str, typer.Argument(help="as for --model", show_default=False)] = "builtin:photos",
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="one layer, or a module with several")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="a picture: what goes through each connection on it")
    ] = None,
    out: FoundFileIfAny = None,
    overwrite: Overwrite = False,
    checkpoint: Weights = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List a network's weights and biases, dead and near-alike filters; draw them."""
    with told():
        with stopped_at_once():
            from pellucid.inside.wiring.weights import weights as weighed
            from pellucid.models.resolve import load

        check_file(out, overwrite, "weights are")
        network = load(model, weights=checkpoint, preprocess=preprocess)
        found = weighed(network, layer, image, progress=False if quiet or as_json else None)
        show = finished(found, out, overwrite, "weights", as_json=as_json, quiet=quiet)
        for one in found.tables[: 1 if len(found.kernels) > 1 else None]:
            whole = one.name == "layers"
            show_rows(one, show, None if whole else MOST_ROWS, LAYERS if whole else ())
