"""`pellucid wiring`: what feeds a unit, what layers take from one another, what units are needed for."""

from pathlib import Path
from typing import Annotated, Any

import typer

from pellucid.cli.findings import FoundFile, check_file, finished, show_rows
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

SCENES = "scenes"
ROWS, COLUMNS = 10, 5  # of what is printed


def wiring(
    model: Annotated[str, typer.Argument(help="as for --model", show_default=False)],
    data: Annotated[
        str, typer.Option("--data", "-d", help="a folder of pictures (with one folder a class), a .zip, or scenes")
    ],
    source: Annotated[str | None, typer.Option("--source", help="an earlier layer, or input")] = None,
    target: Annotated[
        str | None, typer.Option("--target", help="a later layer, or classes: the matrix of both")
    ] = None,
    how: Annotated[
        str, typer.Option("--how", help="ablation, relevance, deep_lift or gradient; for --target and --unit")
    ] = "ablation",
    unit: Annotated[
        str | None, typer.Option("--unit", "-u", help="what feeds LAYER:CHANNEL, and whom it feeds")
    ] = None,
    ablate: Annotated[
        str | None, typer.Option("--ablate", help="switch off each unit of a layer, or LAYER:CHANNEL: who loses what?")
    ] = None,
    layers: Annotated[
        str | None, typer.Option("--layers", help="how strongly each layer depends on each earlier one: L,L,L or all")
    ] = None,
    graph: Annotated[
        str | None, typer.Option("--graph", help="the strongest links from layer to layer: L,L,L or all")
    ] = None,
    stdp: Annotated[
        str | None, typer.Option("--stdp", help="what spike timing would make of a layer, on a copy")
    ] = None,
    fill: Annotated[str, typer.Option("--fill", help="what stands for a unit that is off: zero or mean")] = "zero",
    n: Annotated[int, typer.Option("--n", min=1, help="pictures at most, spread evenly")] = 200,
    out: FoundFile = Path("wiring.png"),
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say what feeds a unit, what layers take from one another, and what units are needed for: one question a run."""
    with told():
        with stopped_at_once():
            from pellucid.models.resolve import load

        check_file(out, overwrite, "wiring is")
        ask = _asked(source, target, how, unit, ablate, layers, graph, stdp, fill)
        network = load(model, weights=weights, labels=labels, preprocess=preprocess)
        found = ask(network, _pictures(data, network, n), False if quiet or as_json else None)
        show = finished(found, out, overwrite, "written", as_json=as_json, quiet=quiet)
        show_rows(found.tables[0], show, ROWS, found.tables[0].columns[:COLUMNS])


def _asked(
    source: str | None,
    target: str | None,
    how: str,
    unit: str | None,
    ablate: str | None,
    layers: str | None,
    graph: str | None,
    stdp: str | None,
    fill: str,
) -> Any:
    """The one question, as a function of the network, the pictures and the progress.

    Raises:
        SettingError: none or several were asked, or one end of a matrix is missing.
    """
    from pellucid.core.errors import SettingError
    from pellucid.inside.wiring.ablate import ablation
    from pellucid.inside.wiring.coupling import Asking
    from pellucid.inside.wiring.feeds import neighbours
    from pellucid.inside.wiring.graph import influence_graph
    from pellucid.inside.wiring.matrix import coupling_matrix
    from pellucid.inside.wiring.stages import layer_coupling
    from pellucid.inside.wiring.stdp import stdp_probe

    asking: Any = Asking(how, fill)
    way: dict[str, Any] = {"how": asking.how, "fill": asking.fill}
    ends: Any = (source, target) if source or target else None
    given: dict[str, tuple[Any, Any]] = {
        "--target": (ends, lambda e, m, d, p: coupling_matrix(m, e[0], e[1], d, progress=p, **way)),
        "--unit": (unit, lambda u, m, d, p: neighbours(m, u, d, progress=p, **way)),
        "--ablate": (ablate, lambda u, m, d, p: ablation(m, u, d, fill=asking.fill, progress=p)),
        "--layers": (layers, lambda names, m, d, p: layer_coupling(m, _several(names), d, progress=p)),
        "--graph": (graph, lambda names, m, d, p: influence_graph(m, _several(names), d, progress=p)),
        "--stdp": (stdp, lambda name, m, d, p: stdp_probe(m, name, d, progress=p)),
    }
    asked = [name for name, (word, _) in given.items() if word is not None]
    if len(asked) != 1:
        came = " and ".join(asked) or "no question"
        raise SettingError(f"{came} came; ask one of {', '.join(given)} a run (--target goes with --source)")
    if asked == ["--target"] and (source is None or target is None):
        raise SettingError("a matrix has two ends; give --source LAYER and --target LAYER")
    word, ask = given[asked[0]]
    return lambda m, d, p: ask(word, m, d, p)


def _several(names: str) -> list[str] | None:
    """Layers parted by commas; None, the choice of the function, for `all`."""
    return None if names == "all" else words([names])


def _pictures(data: str, model: Any, n: int) -> Any:
    """Pictures of a folder, or scenes drawn for the size of the network."""
    from pellucid.images.datasets import Pictures, pictures
    from pellucid.images.scenes import render, stream

    if data != SCENES or Path(data).exists():
        return pictures(data, model.preprocess, limit=n)
    size = model.preprocess.input_size_px if model.preprocess else None
    drawn = list(stream(n, px=min(max(size[0] if size else 64, 64), 512), split="test"))
    sources = [render(scene).pixels for scene in drawn]
    return Pictures(sources, [f"scene {i}" for i in range(n)], [scene.label for scene in drawn], model.preprocess)
