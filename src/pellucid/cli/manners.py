"""What the commands have in common: the options they share, and how they end."""

import os
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

import typer

from pellucid.core.errors import Cancelled, PellucidError

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
Settings = Annotated[
    list[str] | None, typer.Option("--set", "-s", help="METHOD.SETTING=VALUE, e.g. integrated_gradients.steps=64")
]
Px = Annotated[int, typer.Option("--px", help="side of the pictures, 64 to 512")]
Shortcuts = Annotated[
    list[str] | None,
    typer.Option("--shortcut", help="KIND[:STRENGTH[:SHARE[:CLASS+CLASS]]], such as watermark:1:0.9; may be repeated"),
]
Overwrite = Annotated[bool, typer.Option("--overwrite", help="replace what an earlier run wrote")]
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


def words(given: list[str] | None) -> list[str]:
    """Values of a repeatable option, each of which may also hold several joined by commas."""
    return [word.strip() for part in given or [] for word in part.split(",") if word.strip()]
