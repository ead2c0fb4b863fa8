"""`pellucid`: explain pictures, list methods and models, look at layers, examine a network."""

from pathlib import Path
from typing import Annotated

import typer

from pellucid.cli.backpropvis import backpropvis
from pellucid.cli.carding import unit
from pellucid.cli.charting import atlas
from pellucid.cli.dreaming import dream
from pellucid.cli.fielding import fields
from pellucid.cli.layering import layers
from pellucid.cli.manners import (
    REFUSED,
    AsJson,
    InputShape,
    Labels,
    ModelName,
    Overwrite,
    Preprocessing,
    Px,
    Quiet,
    Settings,
    Shortcuts,
    Weights,
    stopped_at_once,
    told,
    words,
)
from pellucid.cli.optimising import optimise
from pellucid.cli.weighing import weights
from pellucid.cli.wiring import wiring
from pellucid.core.version import VERSION

app = typer.Typer(
    help="Open convolutional image models: which pixels a decision came from, and how far to trust the answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
scenes = typer.Typer(help="Make pictures whose truth is known, or look at one.", no_args_is_help=True)
app.add_typer(scenes, name="scenes")


@app.command()
def explain(
    images: Annotated[list[Path], typer.Argument(help="pictures to explain", show_default=False)],
    model: ModelName = "builtin:photos",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-e", help="one or several, joined by commas; default grad_cam")
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help='top3, a class number or label, "A vs B", unit:LAYER:N')
    ] = None,
    layer: Annotated[
        list[str] | None, typer.Option("--layer", "-l", help="module path; the last one with maps by default")
    ] = None,
    setting: Settings = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for report.html and one .pel and .png per map")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier report and its maps; other files are kept")
    ] = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="for everything random")] = 0,
    box: Annotated[
        float | None, typer.Option("--localise", help="also give the box of the heat above this fraction, such as 0.15")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Explain pictures: which pixels each decision came from."""
    with told():
        with stopped_at_once():
            from pellucid.cli.explaining import Request, run
            from pellucid.cli.printing import printer

        names, chosen = words(method) or ["grad_cam"], words(layer)
        request = Request(
            images, model, names, target or ["top1"], chosen, setting or [], out, overwrite, weights, labels,
            preprocess, seed, box,
        )  # fmt: skip
        failed = run(request, printer(quiet or as_json), as_json=as_json, quiet=quiet)
    if failed:
        raise typer.Exit(REFUSED)


@app.command()
def evidence(
    image: Annotated[Path, typer.Argument(help="one picture", show_default=False)],
    model: ModelName = "builtin:photos",
    symptom: Annotated[
        str | None,
        typer.Option("--symptom", help="a mask file, slic:50#3,7, heat:METHOD:FRACTION or unit:LAYER:NUMBERS"),
    ] = None,
    environment: Annotated[
        str | None, typer.Option("--environment", help="a mask file of what counts as the rest; all else by default")
    ] = None,
    target: Annotated[str, typer.Option("--target", "-t", help='top1 (all classes), a class, or "A vs B"')] = "top1",
    fill: Annotated[
        list[str] | None, typer.Option("--fill", "-f", help="what covers, joined by commas; default mean,blur,noise")
    ] = None,
    controls: Annotated[int, typer.Option("--controls", help="masks in other places to hold it against")] = 99,
    minimal: Annotated[
        bool, typer.Option("--minimal", help="the smallest regions it can't do without, and those that are enough")
    ] = False,
    to: Annotated[str | None, typer.Option("--to", help="which regions must change for this class")] = None,
    regions: Annotated[
        str, typer.Option("--regions", help="for --minimal and --to: slic:30, grid:16, a file of labels, …")
    ] = "slic:30",
    budget: Annotated[int, typer.Option("--budget", help="sets of regions that may be tried")] = 1000,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder for JSON, tables and pictures")] = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="for everything random")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Say whether a decision came from a part of the picture, what it needs, and what must change for another."""
    with told():
        with stopped_at_once():
            from pellucid.cli.evidencing import Request, run
            from pellucid.cli.printing import printer

        request = Request(
            image, model, symptom, environment, target, words(fill), controls, minimal, to, regions, budget, out,
            overwrite, weights, labels, preprocess, seed,
        )  # fmt: skip
        run(request, printer(quiet or as_json), as_json=as_json, quiet=quiet)


@app.command()
def whatif(
    images: Annotated[list[Path], typer.Argument(help="pictures to cover parts of", show_default=False)],
    model: ModelName = "builtin:photos",
    cover: Annotated[
        str, typer.Option("--cover", "-c", help="slic, grid, felzenszwalb or quickshift, also with :COUNT; or a file")
    ] = "slic:50",
    fill: Annotated[
        list[str] | None, typer.Option("--fill", "-f", help="what covers, joined by commas; default grey,blur,mean")
    ] = None,
    pairs: Annotated[bool, typer.Option("--pairs", help="also cover the strongest regions two by two")] = False,
    layer: Annotated[
        list[str] | None,
        typer.Option("--layer", "-l", help="also switch 2 to 12 layers off in all combinations: who shares the score?"),
    ] = None,
    target: Annotated[
        list[str] | None, typer.Option("--target", "-t", help='top3, a class number or label, "A vs B", unit:LAYER:N')
    ] = None,
    out: Annotated[
        Path | None, typer.Option("--out", "-o", help="folder for report.html, tables (.csv), maps (.pel, .png)")
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="replace an earlier report, its maps and tables; other files are kept")
    ] = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    seed: Annotated[int, typer.Option(min=0, max=2**32 - 1, help="for everything random")] = 0,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Cover each region of a picture and tell how far the score drops, under several paints."""
    with told():
        with stopped_at_once():
            from pellucid.cli.asking import asked, run
            from pellucid.cli.explaining import Request
            from pellucid.cli.printing import printer

        settings = asked(cover, words(fill), pairs)
        request = Request(
            images, model, [], target or ["top1"], words(layer), settings, out, overwrite, weights, labels, preprocess,
            seed, None,
        )  # fmt: skip
        failed = run(request, printer(quiet or as_json), as_json=as_json, quiet=quiet)
    if failed:
        raise typer.Exit(REFUSED)


@app.command()
def demo(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for the report")] = Path("demo"),
    quiet: Quiet = False,
) -> None:
    """Explain a real photograph of a cat with the network that ships inside."""
    with told():
        with stopped_at_once():
            from pellucid.cli.explaining import run_demo
            from pellucid.cli.printing import printer

        run_demo(out, printer(quiet), quiet=quiet)


@app.command()
def methods(
    name: Annotated[str | None, typer.Argument(help="one method, with its settings")] = None, as_json: AsJson = False
) -> None:
    """List the methods, or one with its settings, source and when it misleads."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_method, show_methods
            from pellucid.cli.printing import printer

        show_methods(printer(False), as_json) if name is None else show_method(name, printer(False), as_json)


@app.command()
def models(as_json: AsJson = False) -> None:
    """List the forms of --model and what is usable on this machine."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_models
            from pellucid.cli.printing import printer

        show_models(printer(False), as_json)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="as for --model")],
    weights: Weights = None,
    preprocess: Preprocessing = None,
    size: InputShape = None,
    relevance: Annotated[
        str | None,
        typer.Option("--relevance", help="in place of that, the ledger of one walk under this composite, as for lrp"),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Say for each method whether it is exact, approximate or impossible on a network, and why."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_doctor
            from pellucid.cli.printing import printer

        show_doctor(model, weights, preprocess, size, relevance, printer(False), as_json)


@app.command()
def rank(
    data: Annotated[str, typer.Option("--data", "-d", help="pictures whose truth is known: scenes")] = "scenes",
    model: ModelName = "builtin:scenes",
    method: Annotated[
        list[str] | None, typer.Option("--method", "-e", help="one or several, joined by commas; all by default")
    ] = None,
    setting: Settings = None,
    n: Annotated[int, typer.Option("--n", min=1, help="pictures drawn")] = 100,
    px: Px = 64,
    seed: Annotated[int, typer.Option(min=0, help="of the pictures and for everything random")] = 0,
    split: Annotated[str, typer.Option(help="another word gives other pictures")] = "test",
    truth: Annotated[
        str | None, typer.Option(help="decisive or mark; mark by default for networks known to follow one")
    ] = None,
    target: Annotated[
        str | None, typer.Option("--target", "-t", help="contrast (this class, not the other) or logit")
    ] = None,
    shortcut: Annotated[str | None, typer.Option(help="the mark that is pasted in, as for scenes make")] = None,
    out: Annotated[Path | None, typer.Option("--out", "-o", help="a file for the table: .json, .csv or .md")] = None,
    overwrite: Overwrite = False,
    weights: Weights = None,
    labels: Labels = None,
    preprocess: Preprocessing = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Sort the methods by how far their maps agree with what is known to decide, control maps among them."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import printer
            from pellucid.cli.ranking import Request, run

        request = Request(
            data, model, weights, labels, preprocess, words(method), setting or [], n, seed, px, split, truth, target,
            shortcut, out, overwrite,
        )  # fmt: skip
        run(request, printer(quiet or as_json), as_json=as_json, quiet=quiet)


@app.command()
def train(
    names: Annotated[
        list[str], typer.Argument(help="scenes, scenes-watermark, …, volumes, or all", show_default=False)
    ],
    out: Annotated[Path | None, typer.Option("--out", "-o", help="folder for weights, facts and card")] = None,
    n: Annotated[int | None, typer.Option("--n", min=1, help="pictures to learn from; the card's by default")] = None,
    epochs: Annotated[int | None, typer.Option(min=1, help="passes over them; the card's by default")] = None,
    seed: Annotated[
        int | None, typer.Option(min=0, help="of data, first weights and order; the card's by default")
    ] = None,
    resume: Annotated[bool, typer.Option("--resume", help="go on where a training was broken off")] = False,
    overwrite: Overwrite = False,
    measured: Annotated[
        bool, typer.Option("--measure", help="train nothing: measure the figures of the card again")
    ] = False,
    weights: Annotated[
        Path | None, typer.Option("--weights", "-w", help="with --measure: NAME.safetensors that train wrote")
    ] = None,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Train the networks that ship on scenes and volumes, or measure them again."""
    with told():
        with stopped_at_once():
            from pellucid.cli.printing import printer
            from pellucid.cli.training import Request, run

        request = Request(words(names), out, n, epochs, seed, resume, overwrite, measured, weights)
        run(request, printer(quiet or as_json), as_json=as_json, quiet=quiet)


@scenes.command("make")
def make_scenes(
    out: Annotated[Path, typer.Option("--out", "-o", help="folder for images, masks and labels")],
    n: Annotated[int, typer.Option("--n", min=1, help="pictures, every class equally often")] = 1000,
    px: Px = 64,
    seed: Annotated[int, typer.Option(min=0, help="the same seed gives the same bytes")] = 0,
    split: Annotated[str, typer.Option(help="another word gives other pictures")] = "train",
    shortcut: Shortcuts = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Write scenes to a folder: pictures by class, masks of six kinds of concept, one row of labels each."""
    with told():
        with stopped_at_once():
            from pellucid.cli.making import make
            from pellucid.cli.printing import printer

        show = printer(quiet or as_json)
        make(out, n, px, seed, split, shortcut or [], overwrite, show, as_json=as_json, quiet=quiet)


@scenes.command("show")
def show_one_scene(
    seed: Annotated[int, typer.Argument(min=0, help="which scene")],
    out: Annotated[Path, typer.Option("--out", "-o", help="a .png file")],
    px: Px = 64,
    label: Annotated[
        str | None, typer.Option("--class", help="which class; drawn by the seed when none is given")
    ] = None,
    shortcut: Shortcuts = None,
    overwrite: Overwrite = False,
    as_json: AsJson = False,
    quiet: Quiet = False,
) -> None:
    """Draw one scene: the picture, its decisive pixels, and the same scene as its sibling class."""
    with told():
        with stopped_at_once():
            from pellucid.cli.making import show_scene
            from pellucid.cli.printing import printer

        show_scene(seed, out, px, label, shortcut or [], overwrite, printer(quiet or as_json), as_json)


for looking in (layers, fields, unit, optimise, dream, atlas, weights, wiring, backpropvis):
    app.command()(looking)


def _version(wanted: bool) -> bool:
    if wanted:
        typer.echo(f"pellucid {VERSION}")
        raise typer.Exit
    return wanted


@app.callback()
def main(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version")
    ] = False,
) -> None:
    """Open convolutional image models."""


if __name__ == "__main__":
    app()
