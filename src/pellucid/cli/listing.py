"""`pellucid methods`, `models`, `layers` and `doctor`: what there is, and what works on a network."""

import inspect
from collections.abc import Sequence
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from pellucid.cli.printing import Print, echo_json, safe, table
from pellucid.core.errors import LayerError, SettingError
from pellucid.core.fields import fields
from pellucid.core.layers import last_spatial
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.methods import METHODS
from pellucid.methods.books import Line, books
from pellucid.methods.doctor import doctor, example_input
from pellucid.methods.registry import Method, find
from pellucid.models.model import Model
from pellucid.models.resolve import load, sources

MOST_NUMBERS = 100_000_000


def show_methods(show: Print, as_json: bool) -> None:
    """Every method with its settings."""
    if as_json:
        echo_json([_method_facts(name) for name in METHODS])
        return
    rows = table("method", "title", "map of the", "settings")
    for method in METHODS.values():
        settings = ", ".join(f"{k}={v}" for k, v in method.values.items())
        rows.add_row(method.name, method.title, method.site, safe(settings))
    show(rows)
    show("\n`pellucid methods NAME` tells its equation, source, units and when it misleads")


def _method_facts(name: str) -> dict[str, Any]:
    method = METHODS[name]
    settings = {s.name: {"default": s.default, "help": s.help} for s in method.settings.values()}
    keys = ("name", "title", "site", "signed", "reduce", "units", "source", "misleads")
    return {**{key: getattr(method, key) for key in keys}, "text": _text(method), "settings": settings}


def _text(method: Method) -> str:
    """Equation and what there is to know about it."""
    return inspect.cleandoc(method.compute.__doc__ or "")


def show_method(name: str, show: Print, as_json: bool) -> None:
    """One method: equation, units, source, settings, when it misleads."""
    method = find(name)
    if as_json:
        echo_json(_method_facts(method.name))
        return
    show(f"[bold]{method.title}[/bold] ({method.name}), a map of the {method.site}")
    show(safe(_text(method)))
    show(f"\nunits: {safe(method.units)}\nsource: {safe(method.source)}\nmisleads: {safe(method.misleads)}")
    for setting in method.settings.values():
        show(f"--set {method.name}.{setting.name}={safe(str(setting.default))}   {safe(setting.help)}")


def show_models(show: Print, as_json: bool) -> None:
    """Every form of --model and whether it is usable here."""
    found = sources()
    if as_json:
        echo_json([vars(s) for s in found])
        return
    rows = table("--model", "what it is", "usable here")
    for source in found:
        rows.add_row(safe(source.spec), safe(source.text), "yes" if source.ready else safe(f"no: {source.remedy}"))
    show(rows)


def _loaded(model: str, weights: str | None, preprocess: Path | None, size: str | None) -> tuple[Model, Tensor]:
    """The network and an input for it."""
    loaded = load(model, weights=weights, preprocess=preprocess)
    if size is not None:
        return loaded, _noise(size, loaded)
    if loaded.preprocess is None:
        raise SettingError(
            f"the input size of {loaded.name} is not known; add --input 3x224x224 (channels and sizes), "
            "or --preprocess FILE.json"
        )
    return loaded, example_input(loaded)


def _noise(size: str, model: Model) -> Tensor:
    """Seeded noise of a shape as it is typed, in the network's own precision."""
    parts = size.lower().replace("×", "x").split("x")
    if not all(part.isascii() and part.isdigit() and len(part) < 10 and int(part) for part in parts) or len(parts) < 2:
        raise SettingError(f'--input "{size}" came; write channels and sizes, such as 3x224x224')
    shape = [int(part) for part in parts]
    if prod(shape) > MOST_NUMBERS:
        raise SettingError(f"--input {size} makes {prod(shape):,} numbers; at most {MOST_NUMBERS:,} are tried")
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    first = next((p for p in model.module.parameters() if p.is_floating_point()), noise)
    return noise.to(first.detach())


def show_layers(
    model: str, weights: str | None, preprocess: Path | None, size: str | None, show: Print, as_json: bool
) -> None:
    """The layers that ran, with their outputs, fields and parameters; the one that would be chosen is marked."""
    loaded, x = _loaded(model, weights, preprocess, size)
    trace = record(loaded.module, x)
    try:
        chosen = last_spatial(trace)[0].partition("#")[0]
    except LayerError:
        chosen = ""
    layers = [_layer_facts(trace, path, path == chosen) for path in trace.layers]
    if as_json:
        echo_json(layers)
        return
    rows = table("layer", "kind", "calls", "output", "sees", "every", "weights", "")
    for row in layers:
        rows.add_row(
            safe(row["layer"]),
            safe(row["kind"]),
            str(row["calls"]),
            ", ".join(_times(shape) for shape in row["output"]),
            "all" if row["everywhere"] else _side(row["field_px"]),
            _side(row["stride_px"]),
            str(row["parameters"]),
            "←" if row["chosen"] else "",
        )
    show(rows)
    show("sees, every: how far a unit looks and how far units lie apart on the input, in pixels; all: the whole of it")
    if chosen:
        show(f"← {safe(chosen)} is chosen when none is named")


def _layer_facts(trace: Trace, path: str, chosen: bool) -> dict[str, Any]:
    """One layer: what it gives out, how far its units see and how far they lie apart on the input, its parameters."""
    calls = trace.layers[path]
    field = next((fields(trace)[v] for v in calls[-1][:1] if v in fields(trace)), None)
    everywhere = "" if field is None else field.everywhere or ("no positions" if not field.low else "")
    return {
        "layer": path,
        "kind": trace.kinds[path],
        "calls": len(calls),
        "output": [list(v.shape[1:]) for v in calls[-1]],
        "field_px": [] if field is None else list(field.size_px),
        "stride_px": [] if field is None else [round(s, 2) for s in field.stride_px],
        "everywhere": everywhere,
        "parameters": sum(p.numel() for p in trace.module.get_submodule(path).parameters()),
        "chosen": chosen,
    }


def _side(numbers: Sequence[int | float]) -> str:
    """A length for all axes where they agree; – where there is none."""
    if not any(numbers):
        return "–"
    return f"{numbers[0]:g}" if len(set(numbers)) == 1 else _times(numbers)


def _times(numbers: Sequence[int | float]) -> str:
    """`3×224×224`."""
    return "×".join(f"{n:g}" for n in numbers)


def show_doctor(
    model: str,
    weights: str | None,
    preprocess: Path | None,
    size: str | None,
    composite: str | None,
    show: Print,
    as_json: bool,
) -> None:
    """What each method can do on a network, and why; or where relevance goes under a composite."""
    loaded, x = _loaded(model, weights, preprocess, size)
    if composite is not None:
        _show_books(books(loaded, x, composite=composite), composite, show, as_json)
        return
    found = doctor(loaded, x)
    if as_json:
        verdicts = {name: vars(verdict) for name, verdict in found.verdicts.items()}
        echo_json({**vars(found), "verdicts": verdicts})
        return
    show(f"[bold]{safe(found.model)}[/bold], input {'×'.join(map(str, found.input_shape))}")
    show(f"recorded: {', '.join(f'{name} ×{count}' for name, count in found.operations.items())}")
    show(f"recorded gradient against autograd: largest difference {found.gradient_error:.1e} of the largest value")
    for warning in found.warnings:
        show(f"[yellow]note:[/yellow] {safe(warning)}")
    rows = table("method", "here", "because")
    for name, verdict in found.verdicts.items():
        rows.add_row(name, verdict.fit, safe(verdict.why))
    show(rows)


def _show_books(lines: list[Line], composite: str, show: Print, as_json: bool) -> None:
    """The ledger of one relevance walk, from the scores down to the input."""
    if as_json:
        echo_json([vars(line) for line in lines])
        return
    show(f"relevance under {safe(composite)}, from the highest score down; what stays, by what kept it")
    rows = table("operation", "layer", "rule", "arrived", "sent on", "stayed", "closing error")
    for line in lines:
        kept = ", ".join(f"{reason} {amount:.3g}" for reason, amount in line.kept.items() if amount)
        rows.add_row(
            line.operation, safe(line.layer), line.rule, f"{line.arrived:.4g}", f"{line.sent:.4g}", kept,
            f"{line.closing:.0e}",
        )  # fmt: skip
    show(rows)
