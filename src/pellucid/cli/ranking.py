"""`pellucid rank`: the methods sorted by how far their maps agree with the truth."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pellucid.cli.explaining import with_settings
from pellucid.cli.making import shortcuts_of
from pellucid.cli.printing import Print, echo_json, safe, table
from pellucid.core.errors import SettingError, check_known
from pellucid.evaluate.rank import DATA, rank
from pellucid.evaluate.ranking import Ranking, check_file
from pellucid.methods.registry import Method
from pellucid.models.resolve import load

STYLES = {"method": "", "control": "dim", "reference": "green"}


@dataclass(frozen=True)
class Request:
    """What the user typed."""

    data: str
    model: str
    weights: str | None
    labels: str | None
    preprocess: Path | None
    methods: list[str]
    settings: list[str]
    n: int
    seed: int
    px: int
    split: str
    truth: str | None
    target: str | None
    shortcut: str | None
    out: Path | None
    overwrite: bool


def run(request: Request, show: Print, *, as_json: bool, quiet: bool) -> None:
    """Rank, print the table, and write it where that was asked for."""
    check_known("data to rank on", request.data, DATA)
    if request.out is not None:
        check_file(request.out, request.overwrite)
    shortcuts = shortcuts_of([request.shortcut] if request.shortcut else [])
    methods = _methods(request)
    model = load(request.model, weights=request.weights, labels=request.labels, preprocess=request.preprocess)
    found = rank(
        model, data=request.data, methods=methods, n=request.n, seed=request.seed, split=request.split, px=request.px,
        truth=request.truth, target=request.target, shortcut=shortcuts[0] if shortcuts else None,
        progress=False if quiet or as_json else None,
    )  # fmt: skip
    if request.out is not None:
        found.save(request.out, overwrite=request.overwrite)
    if as_json:
        echo_json(found.to_json())
    _tell(found, request.out, show)


def _methods(request: Request) -> list[Method] | None:
    if request.settings and not request.methods:
        raise SettingError("--set came without --method; name the methods to rank")
    return with_settings(request.methods, request.settings) or None


def _tell(found: Ranking, out: Path | None, show: Print) -> None:
    show(f"[bold]{safe(found.model)}[/bold] on {found.data}: {found.pictures}")
    show(f"explained: {found.target}; best first, 1 is perfect, a control knows nothing of the network\n")
    head, *lines = found.table()
    rows: Any = table(*head)
    for row, line in zip(found.rows, lines, strict=True):
        rows.add_row(*map(safe, line), style=STYLES[row.kind])
    show(rows)
    for name, why in found.refused.items():
        show(f"[yellow]not ranked:[/yellow] {safe(name)}: {safe(why)}")
    if out is not None:
        show(f"table: {safe(out.resolve())}")
