"""`pellucid methods`, `models`, `layers` and `doctor`: what there is, and what works on a network."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
import typer
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from pellucid.core.errors import LayerError, SettingError
from pellucid.core.layers import last_spatial
from pellucid.core.record import record
from pellucid.methods import METHODS
from pellucid.methods.doctor import doctor, example_input
from pellucid.methods.registry import find
from pellucid.models.model import Model
from pellucid.models.resolve import load, sources

Print = Callable[[Any], None]


def _table(*columns: str) -> Table:
    return Table(*columns, box=None, pad_edge=False)


def show_methods(show: Print, as_json: bool) -> None:
    """Every method with its settings."""
    if as_json:
        typer.echo(json.dumps([_method_facts(name) for name in METHODS], indent=1))
        return
    table = _table("method", "title", "map of the", "settings")
    for method in METHODS.values():
        settings = ", ".join(f"{k}={v}" for k, v in method.values.items())
        table.add_row(method.name, method.title, method.site, escape(settings))
    show(table)
    show("\n`pellucid methods NAME` tells its equation, source, units and when it misleads")


def _method_facts(name: str) -> dict[str, Any]:
    method = METHODS[name]
    settings = {s.name: {"default": s.default, "help": s.help} for s in method.settings.values()}
    keys = ("name", "title", "site", "signed", "reduce", "units", "source", "misleads")
    return {**{key: getattr(method, key) for key in keys}, "settings": settings}


def show_method(name: str, show: Print, as_json: bool) -> None:
    """One method: equation, units, source, settings, when it misleads."""
    method = find(name)
    if as_json:
        typer.echo(json.dumps(_method_facts(method.name), indent=1))
        return
    show(f"[bold]{method.title}[/bold] ({method.name}), a map of the {method.site}")
    show(escape((method.compute.__doc__ or "").strip()))
    show(f"\nunits: {escape(method.units)}\nsource: {escape(method.source)}\nmisleads: {escape(method.misleads)}")
    for setting in method.settings.values():
        show(f"--set {method.name}.{setting.name}={escape(str(setting.default))}   {escape(setting.help)}")


def show_models(show: Print, as_json: bool) -> None:
    """Every form of --model and whether it is usable here."""
    found = sources()
    if as_json:
        typer.echo(json.dumps([vars(s) for s in found], indent=1))
        return
    table = _table("--model", "what it is", "usable here")
    for source in found:
        table.add_row(
            escape(source.spec), escape(source.text), "yes" if source.ready else escape(f"no: {source.remedy}")
        )
    show(table)


def _loaded(model: str, weights: str | None, preprocess: Path | None, size: str | None) -> tuple[Model, Tensor]:
    """The network and an input for it."""
    loaded = load(model, weights=weights, preprocess=preprocess)
    if size is None:
        return loaded, example_input(loaded)
    parts = size.lower().split("x")
    if not all(part.isdigit() and int(part) for part in parts) or len(parts) < 2:
        raise SettingError(f'--input "{size}" came; write channels and sizes, such as 3x224x224')
    return loaded, torch.randn(1, *map(int, parts), generator=torch.Generator().manual_seed(0))


def show_layers(
    model: str, weights: str | None, preprocess: Path | None, size: str | None, show: Print, as_json: bool
) -> None:
    """The layers that ran, with their outputs; the one that would be chosen is marked."""
    loaded, x = _loaded(model, weights, preprocess, size)
    trace = record(loaded.module, x)
    try:
        chosen = last_spatial(trace)[0].partition("#")[0]
    except LayerError:
        chosen = ""
    rows = [
        {
            "layer": path,
            "kind": trace.kinds[path],
            "calls": len(calls),
            "output": [list(v.shape[1:]) for v in calls[-1]],
            "chosen": path == chosen,
        }
        for path, calls in trace.layers.items()
    ]
    if as_json:
        typer.echo(json.dumps(rows, indent=1))
        return
    table = _table("layer", "kind", "calls", "output", "")
    for row in rows:
        shapes = ", ".join("×".join(map(str, shape)) for shape in row["output"])
        table.add_row(
            escape(row["layer"]),
            row["kind"],
            str(row["calls"]),
            shapes,
            "← chosen when none is named" if row["chosen"] else "",
        )
    show(table)


def show_doctor(
    model: str, weights: str | None, preprocess: Path | None, size: str | None, show: Print, as_json: bool
) -> None:
    """What each method can do on a network, and why."""
    loaded, x = _loaded(model, weights, preprocess, size)
    found = doctor(loaded, x)
    if as_json:
        verdicts = {name: vars(verdict) for name, verdict in found.verdicts.items()}
        typer.echo(json.dumps({**vars(found), "verdicts": verdicts}, indent=1))
        return
    show(f"[bold]{escape(found.model)}[/bold], input {'×'.join(map(str, found.input_shape))}")
    show(f"recorded: {', '.join(f'{name} ×{count}' for name, count in found.operations.items())}")
    show(f"recorded gradient against autograd: largest difference {found.gradient_error:.1e} of the largest value")
    for warning in found.warnings:
        show(f"[yellow]note:[/yellow] {escape(warning)}")
    table = _table("method", "here", "because")
    for name, verdict in found.verdicts.items():
        table.add_row(name, verdict.fit, escape(verdict.why))
    show(table)
