"""`pellucid`: explain pictures, list methods and models, look at layers, examine a network."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pellucid.core.errors import Cancelled, PellucidError
from pellucid.core.version import VERSION

app = typer.Typer(
    help="Open convolutional image models: which pixels a decision came from, and how far to trust the answer.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
REFUSED, STOPPED = 1, 130

ModelName = Annotated[
    str,
    typer.Option(
        "--model", "-m", help="builtin:photos, torchvision:NAME, timm:NAME, hf:NAME, FILE.pt2 or package.module:factory"
    ),
]
Weights = Annotated[
    str | None, typer.Option("--weights", "-w", help="FILE.safetensors, .pt or .pth (never run as code), or random")
]
Labels = Annotated[str | None, typer.Option("--labels", help="class names: .txt, one a line, or .json")]
Preprocessing = Annotated[Path | None, typer.Option("--preprocess", help="how pictures are prepared: a .json file")]
InputShape = Annotated[str | None, typer.Option("--input", help="input shape without the batch, e.g. 3x224x224")]
AsJson = Annotated[bool, typer.Option("--json", help="print JSON for programs")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="print nothing but errors, show no progress")]


@contextmanager
def told() -> Iterator[None]:
    """Our own errors as one sentence on stderr and an exit code; anything else is a bug and keeps its stack."""
    try:
        yield
    except (Cancelled, KeyboardInterrupt) as error:
        _complain(f"stopped: {error}" if str(error) else "stopped")
        raise typer.Exit(STOPPED) from None
    except PellucidError as error:
        _complain(f"error: {error}")
        raise typer.Exit(REFUSED) from None


@contextmanager
def stopped_at_once() -> Iterator[None]:
    """While libraries are imported, Ctrl-C ends the program on the spot: torch does not survive a broken import.

    Nothing has been written by then, so nothing is left half-written.
    """
    ours = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT)
    if not ours or before is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, _stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


def _stop(*_: object) -> None:
    os.write(2, b"stopped\n")
    os._exit(STOPPED)


def _complain(words: str) -> None:
    from pellucid.cli.printing import bear_any_text
    from pellucid.render.visible import visible

    bear_any_text()
    typer.echo(visible(words), err=True)


def _words(given: list[str] | None) -> list[str]:
    """Values of a repeatable option, each of which may also hold several joined by commas."""
    return [word.strip() for part in given or [] for word in part.split(",") if word.strip()]


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
    setting: Annotated[
        list[str] | None, typer.Option("--set", "-s", help="METHOD.SETTING=VALUE, e.g. integrated_gradients.steps=64")
    ] = None,
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

        names, chosen = _words(method) or ["grad_cam"], _words(layer)
        request = Request(
            images, model, names, target or ["top1"], chosen, setting or [], out, overwrite, weights, labels,
            preprocess, seed, box,
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
def layers(
    model: Annotated[str, typer.Argument(help="as for --model")],
    weights: Weights = None,
    preprocess: Preprocessing = None,
    size: InputShape = None,
    as_json: AsJson = False,
) -> None:
    """List the layers that ran, their outputs, and the one that is chosen when none is named."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_layers
            from pellucid.cli.printing import printer

        show_layers(model, weights, preprocess, size, printer(False), as_json)


@app.command()
def doctor(
    model: Annotated[str, typer.Argument(help="as for --model")],
    weights: Weights = None,
    preprocess: Preprocessing = None,
    size: InputShape = None,
    as_json: AsJson = False,
) -> None:
    """Say for each method whether it is exact, approximate or impossible on a network, and why."""
    with told():
        with stopped_at_once():
            from pellucid.cli.listing import show_doctor
            from pellucid.cli.printing import printer

        show_doctor(model, weights, preprocess, size, printer(False), as_json)


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
