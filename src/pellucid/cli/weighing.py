"""`pellucid weights`: the weights of a network, layer by layer."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.manners import AsJson, Overwrite, Preprocessing, Quiet, Weights, stopped_at_once, told

LAYERS = ("layer", "operation", "shape", "dead", "alike", "BatchNorm")
MOST_ROWS = 20


def weights(
    model: Annotated[str, typer.Argument(help="as for --model", show_default=False)] = "builtin:photos",
    layer: Annotated[str | None, typer.Option("--layer", "-l", help="one layer, or a module with several")] = None,
    image: Annotated[
        Path | None, typer.Option("--image", "-i", help="a picture: what goes through each connection on it")
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="a picture (.png), a page (.html), or facts (.json)")
    ] = None,
    overwrite: Overwrite = False,
    checkpoint: Weights = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """List a network's weights and biases, dead and near-alike filters; draw them."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import echo_json, printer, safe, table
            from pellucid.core.errors import FileError
            from pellucid.inside.showing import SUFFIXES
            from pellucid.inside.wiring.weights import weights as weighed
            from pellucid.models.resolve import load
            from pellucid.render.tabular import cell_text

        if out is not None and out.suffix not in SUFFIXES:
            raise FileError(f"{out} came; weights are saved as {', '.join(SUFFIXES)}")
        if out is not None and out.exists() and not overwrite:
            raise FileError(f"{out} exists; add --overwrite, or name another file with --out")
        network = load(model, weights=checkpoint, preprocess=preprocess)
        found = weighed(network, layer, image, progress=False if quiet or as_json else None)
        if out is not None:
            out.parent.mkdir(parents=True, exist_ok=True)
            out = found.save(out, overwrite=overwrite).resolve()
        show = printer(quiet or as_json)
        if as_json:
            echo_json({**found.facts(), "file": None if out is None else str(out)})
        for one in found.tables[: 1 if len(found.kernels) > 1 else None]:
            columns = LAYERS if one.name == "layers" else one.columns
            rows = table(*columns)
            for cells in list(zip(*map(one.column, columns), strict=True))[
                : None if one.name == "layers" else MOST_ROWS
            ]:
                rows.add_row(*(safe(cell_text(cell)) for cell in cells))
            show(rows)
            if one.name != "layers" and len(one.rows) > MOST_ROWS:
                show(f"the first {MOST_ROWS} of {len(one.rows)}; --out FILE.json has all")
            show("")
        show(safe(found.sentence()))
        for note in found.notes:
            show(f"note: {safe(note)}")
        if out is not None:
            show(f"weights: {safe(out)}")
