"""`pellucid whatif`: cover each region of a picture and see what becomes of the score."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pellucid.cli.explaining import Request, facts, gathered, incomplete, with_settings
from pellucid.cli.printing import Print, echo_json, safe, table
from pellucid.core.tables import Table
from pellucid.images.fills import fills
from pellucid.methods.pictures import home_of, prepared
from pellucid.methods.shapley import layer_shapley
from pellucid.models.model import Model
from pellucid.render import paint
from pellucid.render.explanation import Explanation
from pellucid.render.panel import Panel
from pellucid.render.sentence import share_text
from pellucid.render.tabular import cell_text

METHOD, APART = "region_occlusion", "disagreement between fills"
PAIRED, TOP, TOP_PAIRS = 8, 10, 5
_EFFECT = "effect "


def asked(cover: str, fill: Sequence[str], pairs: bool) -> list[str]:
    """The settings of region occlusion, as `--set` would give them.

    Raises:
        SettingError: an unknown fill; nothing has been loaded by then.
    """
    settings = {"regions": cover, "pairs": PAIRED if pairs else 0}
    if fill:
        settings["fill"] = "+".join(one if "donor:" in one else one.lower() for one in fill)
        fills(settings["fill"])
    return [f"{METHOD}.{name}={value}" for name, value in settings.items()]


def run(request: Request, show: Print, *, as_json: bool, quiet: bool) -> bool:
    """Ask for every picture that can be; True if one could not."""
    methods = with_settings([METHOD], request.settings)
    model, panel, saved = gathered(request, methods, watched=not (quiet or as_json))
    csvs = [_csv_files(saved, number) for number in range(1, len(panel) + 1)]
    shares = [_layer_shares(model, one, request, watched=not (quiet or as_json)) for one in panel]
    if as_json:
        report = str(saved[0].resolve()) if saved else None
        echo_json([_facts(*found, report) for found in zip(panel, csvs, shares, strict=True)])
    for note in model.notes:
        show(f"note: {safe(note)}")
    _tell(panel, csvs, show)
    for found in filter(None, shares):
        _show(found, [list(map(cell_text, row)) for row in found.rows], found.columns, show)
    if saved:
        show(f"report: {safe(saved[0].resolve())}")
    return incomplete(request, panel)


def disagreement(one: Explanation) -> str:
    """Whether the answer hangs on the paint, in words: what counts most under each fill, and how far they differ."""
    regions = _table(one, "regions")
    effects = {fill: _effects(regions, fill) for fill in _fills(regions)}
    if len(effects) < 2:
        return "one fill only, so it can't be seen whether the answer depends on the paint; add one: --fill blur,mean"
    first: dict[str, list[str]] = {}
    for fill, drops in effects.items():
        first.setdefault(_strongest(regions, drops), []).append(fill)
    if len(regions.rows) == 1:
        told = f"covering it {', '.join(_moves(drop, fill) for fill, (drop,) in effects.items())}"
    elif len(first) == 1:
        told = f"{next(iter(first))} counts most under every fill"
    else:
        told = "; ".join(f"{region} counts most under {_listed(names)}" for region, names in first.items())
    warned = any(check.name == APART and check.verdict != "pass" for check in one.receipt.checks)
    return f"{'the answer depends on the paint: ' if warned or len(first) > 1 else ''}{told}{_apart(one)}"


def _moves(drop: float, fill: str) -> str:
    return f"{'raises' if drop < 0 else 'lowers'} the score by {paint.number(abs(drop))} under {fill}"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, (", ".join(words[:-1]), words[-1])))


def _effects(regions: Table, fill: str) -> list[float]:
    return [float(effect) for effect in regions.column(_EFFECT + fill) if isinstance(effect, int | float)]


def _strongest(regions: Table, drops: Sequence[float]) -> str:
    """The region whose covering lowers the score most, by its number and name."""
    row = max(range(len(drops)), key=drops.__getitem__)
    if drops[row] <= 0:
        return "no region"
    number = cell_text(regions.column("region")[row])
    name = cell_text(regions.column("name")[row]) if "name" in regions.columns else number
    return f"region {number}" if name == number else f"region {number} ({name})"


def _apart(one: Explanation) -> str:
    found = [check.value for check in one.receipt.checks if check.name == APART]
    share = f"± {share_text(found[0])} of the heat" if found and found[0] <= 1 else "more than the heat itself"
    return f"; the fills differ by {share}" if found else ""


def _layer_shares(model: Model, one: Explanation, request: Request, watched: bool) -> Table | None:
    """What each of the layers that were asked for contributes to the score of one picture."""
    if not request.layers:
        return None
    x = prepared(model, one.picture).x[None].to(home_of(model.module))
    target = request.targets[0] if len(request.targets) == 1 else request.targets
    found = layer_shapley(model, x, layers=request.layers, target=target, progress=None if watched else False)
    return found.tables[0]


def _facts(one: Explanation, files: Sequence[Path], shares: Table | None, report: str | None) -> dict[str, Any]:
    csvs = [str(file.resolve()) for file in files]
    layers = {} if shares is None else {"layers": shares.to_json()}
    return {**facts(one), **layers, "disagreement": disagreement(one), "report": report, "csv": csvs}


def _tell(panel: Panel, csvs: Sequence[Sequence[Path]], show: Print) -> None:
    for one, files in zip(panel, csvs, strict=True):
        best = one.predictions[0] if one.predictions else None
        says = f": {best.label} {best.probability:.0%}" if best else ""
        show(f"[bold]{safe(one.picture.name)}[/bold]{safe(says)}; {safe(one.target)} = {one.score:.3g}")
        _show_regions(_table(one, "regions"), show)
        for found in one.tables:
            if found.name == "pairs":
                _show(found, [list(map(cell_text, row)) for row in found.rows[:TOP_PAIRS]], found.columns, show)
        show(safe(disagreement(one)))
        for check in one.receipt.checks:
            if check.verdict in ("warn", "fail") and check.name != APART:
                show(f"[yellow]{check.verdict}:[/yellow] {safe(check.name)}: {safe(check.text)}")
        for file in files:
            show(f"table: {safe(file.resolve())}")


def _show_regions(found: Table, show: Print) -> None:
    """The strongest regions, without the columns that say nothing new."""
    told = {"size px"} | ({"mean", "disagreement"} if len(_fills(found)) == 1 else set())
    kept = [k for k, name in enumerate(found.columns) if name not in told]
    rows = [[cell_text(row[k]) for k in kept] for row in found.rows[:TOP]]
    _show(found, rows, [found.columns[k] for k in kept], show)


def _show(found: Table, texts: Sequence[Sequence[str]], columns: Sequence[str], show: Print) -> None:
    rows = table(*map(safe, columns))
    for column in rows.columns:
        column.no_wrap = column.header == "disagreement"
    for row in texts:
        rows.add_row(*map(safe, row))
    show(rows)
    left = len(found.rows) - len(texts)
    show(f"{f'and {left} more; ' if left else ''}{safe(found.note)}")


def _fills(regions: Table) -> list[str]:
    return [name.removeprefix(_EFFECT) for name in regions.columns if name.startswith(_EFFECT)]


def _table(one: Explanation, name: str) -> Table:
    return next(found for found in one.tables if found.name == name)


def _csv_files(saved: Sequence[Path], number: int) -> list[Path]:
    """The tables that were written for one map."""
    return [path for path in saved if path.suffix == ".csv" and path.name.startswith(f"{number:03d}-")]
