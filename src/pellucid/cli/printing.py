"""What the commands print: tables that fit any terminal, JSON that any program reads, text that can't act."""

import io
import sys
from collections.abc import Callable
from typing import Any

import typer
from rich.markup import escape
from rich.table import Table

from pellucid.render.visible import visible

Print = Callable[[Any], None]


def printer(quiet: bool) -> Print:
    """Prints text and tables on stdout, or nothing."""
    from rich.console import Console

    bear_any_text()
    return (lambda thing: None) if quiet else Console(highlight=False, soft_wrap=True).print


def bear_any_text() -> None:
    """Let streams of a narrow encoding show what they lack as `?` instead of failing."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")


def safe(text: object) -> str:
    """Text of the user's for a table or a line: no markup, no control characters."""
    return escape(visible(str(text)))


def table(*columns: str) -> Table:
    """A table without lines whose long words are folded, never cut; names of methods and models stay whole."""
    made = Table(box=None, pad_edge=False)
    for column in columns:
        made.add_column(column, overflow="fold", no_wrap=column in ("method", "--model"))
    return made


def echo_json(found: Any) -> None:
    """One JSON document on stdout."""
    from pellucid.store.files import json_text

    typer.echo(json_text(found))
