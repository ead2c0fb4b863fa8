"""Run pellucid and other libraries side by side and print what each costs over the ideal number of passes.

Example: python bench/run.py --nets resnet18 --rows single --repeats 5 --out table.md
"""

import argparse
import logging
import os
import platform
import sys
import warnings
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any

import blas  # noqa: F401
import harness
import memory
import nets
import peers
import startup
import table
import torch
from race import Effort, Times, clock_of, compete
from rows import GROUPS, chosen
from table import Line, Result
from work import Row, Target

IMPORT_S, HELP_S = 0.3, 1.0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", default="resnet18,mobilenet_v2,vgg16,squeezenet1_1", help="torchvision names")
    parser.add_argument("--rows", default="all", help=f"names, patterns (*cam*) or groups: all, {', '.join(GROUPS)}")
    parser.add_argument("--repeats", type=int, default=7, help="interleaved rounds, the median is printed (7)")
    parser.add_argument(
        "--seconds", type=float, default=60, help="a row that takes longer gets fewer repeats, never below 3 (60)"
    )
    parser.add_argument(
        "--patience", type=float, default=60, help="a contender whose first call takes longer is called once (60)"
    )
    parser.add_argument("--threads", type=int, default=1, help="torch's threads; 1 gives CPU time its meaning (1)")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--max-gb", type=float, default=12, help="address space that a contender may take (12)")
    parser.add_argument("--no-memory", action="store_true", help="skip the child processes that watch memory")
    parser.add_argument("--no-peers", action="store_true", help="pellucid and the ideal passes only")
    parser.add_argument("--check", action="store_true", help="compare the maps only: one call each, nothing timed")
    parser.add_argument(
        "--out", type=Path, action="append", default=[], metavar="FILE.json|.md", help="may be repeated"
    )
    given = parser.parse_args()
    if any(path.suffix not in (".json", ".md") for path in given.out):
        parser.error("--out takes FILE.json or FILE.md")
    if given.device == "cuda" and not torch.cuda.is_available():
        parser.error("this torch sees no CUDA device")
    return given


def heading(given: argparse.Namespace) -> list[str]:
    side, machine = nets.SIDE_PX, f"{platform.machine()}, {os.cpu_count()} cores"
    libraries = ", ".join(f"{k} {v}" for k, v in peers.versions().items())
    clock = "processor time" if clock_of(given.device, given.threads) == "cpu" else "wall time"
    return [
        libraries,
        f"{machine}, {given.threads} thread(s), {given.device}; load at the start {os.getloadavg()[0]:.1f}",
        f"one image of 3×{side}×{side}, random weights, evaluation mode, parameters that require gradients",
        "F: forward without a graph; FB: forward and backward to the input, parameters frozen; FL: the trunk without "
        "a graph, the head forward and backward; B = FB − F, L = FL − F; all measured in the same repeats",
        "folded F: forward with BatchNorm merged into the convolutions, channels last",
        f"ratios are of medians of {clock}, in brackets their quartiles; a ? in 'met': these straddle the target",
    ]


def measure(
    net: nets.Network, row: Row, given: argparse.Namespace, extra: Mapping[Any, Any]
) -> tuple[Result, dict[str, Any]]:
    """One row on one network."""
    passes = harness.passes_for(row.ideal)
    wanted = [*passes, *([row.reference] if row.reference and row.reference not in passes else [])]
    bare = {f"ideal {p}": partial(harness.PASSES[p], net) for p in wanted}
    calls = {c.name: partial(c.run, net) for c in row.contenders}
    effort = Effort(0, 0) if given.check else Effort(given.repeats, given.seconds, given.patience)
    if row.long:
        found = compete(calls, effort, net.tidy, given.device, bare)
        found |= {name: _together([times.beside[name] for times in found.values()]) for name in bare}
    else:
        found = compete({**bare, **calls}, effort, net.tidy, given.device)
    result = judge(net, row, found, extra, clock_of(given.device, given.threads))
    return result, {name: {"cpu": t.cpu, "wall": t.wall} for name, t in found.items()}


def _together(parts: list[Times]) -> Times:
    return Times([ms for part in parts for ms in part.cpu], [ms for part in parts for ms in part.wall])


def judge(net: nets.Network, row: Row, found: Mapping[str, Times], extra: Mapping[Any, Any], clock: str) -> Result:
    """The lines of a row: ratios, memory, agreement, and whether the target is met."""
    ideal, target = row.ideal_on(net), row.target.on(net.name)
    result = Result(net.name, row.name, " + ".join(f"{n:g} {u}" for u, n in ideal.items()), target, [])
    for contender in row.contenders:
        times = found[contender.name]
        line = _line(contender.name, times, extra.get((row.name, contender.name)))
        line.differs = contender.differs
        if line.error is None and times.cpu:
            line.over_ideal = harness.over_ideal(times.on(clock), ideal, _passes(row, found, times, clock))
        if contender is not row.contenders[0]:
            line.difference = _difference(net, contender, found[row.contenders[0].name].result, times.result)
        result.lines.append(line)
    for name in (n for n in found if n.startswith("ideal ")):
        line = _line(name, found[name], extra.get(("ideal", name.removeprefix("ideal "))))
        if row.reference is not None and name == f"ideal {row.reference}":
            line.difference = _difference(net, None, found[row.contenders[0].name].result, found[name].result)
        result.lines.append(line)
    in_ideals = {
        c.name: harness.in_ideals(t.on(clock), ideal, _passes(row, found, t, clock))
        for c in row.contenders
        if (t := found[c.name]).cpu
    }
    _against_peers(result, row, in_ideals if row.long else {name: found[name].on(clock) for name in in_ideals})
    result.met = table.verdict(target, result.lines[0])
    return result


def _passes(row: Row, found: Mapping[str, Times], times: Times, clock: str) -> dict[str, list[float]]:
    """The ideal passes measured with a contender's repeats."""
    of = times.beside if row.long else found
    return {p: of[f"ideal {p}"].on(clock) for p in harness.passes_for(row.ideal)}


def _line(name: str, times: Times, extra: float | str | None) -> Line:
    line = Line(name, error=times.error, repeats=len(times.cpu), extra_mb=times.device_mb)
    if isinstance(extra, str):
        line.error = line.error or f"in its own process: {extra}"
    elif extra is not None:
        line.extra_mb = extra
    if times.cpu:
        line.cpu_ms, line.wall_ms = median(times.cpu), median(times.wall)
    return line


def _difference(net: nets.Network, contender: peers.Contender | None, mine: Any, theirs: Any) -> float | None:
    if not isinstance(mine, torch.Tensor) or not isinstance(theirs, torch.Tensor):
        return None
    if contender is not None and contender.differs == "other random numbers":
        return None
    shown = mine if contender is None or contender.like is None else contender.like(net, mine)
    return harness.difference(shown, theirs)


def _against_peers(result: Result, row: Row, ran: Mapping[str, list[float]]) -> None:
    """Against the fastest peer; in ideals where the repeats of a row lie far apart."""
    mine, theirs = row.contenders[0].name, [c.name for c in row.contenders[1:] if c.name in ran]
    if theirs and mine in ran:
        result.fastest_peer = min(theirs, key=lambda name: median(ran[name]))
        result.lines[0].over_peer = harness.ratio(ran[mine], ran[result.fastest_peer])


def start_up(repeats: int) -> tuple[list[Result], dict[str, Any]]:
    """Import times over `import torch`, and the first answer of the command line."""
    found = startup.times(repeats)
    bare = found["torch"]
    lines = []
    for name in ("pellucid", "pellucid, nothing used yet", *peers.LIBRARIES):
        line = _line(name, found[name], None)
        if line.error is None:
            line.cpu_ms = median(found[name].cpu) - median(bare.cpu)
            line.wall_ms = median(found[name].wall) - median(bare.wall)
        lines.append(line)
    lines.append(_line("torch itself", bare, None))
    imports = Result("start-up", "import over torch", "", Target(), lines)
    answer = _line("pellucid", found["pellucid --help"], None)
    helped = Result("start-up", "pellucid --help, in all", "", Target(), [answer])
    for result, limit in ((imports, IMPORT_S), (helped, HELP_S)):
        wall = result.lines[0].wall_ms
        result.met = "–" if wall is None else f"{'yes' if wall <= 1e3 * limit else 'no'}: {limit:g} s"
    return [imports, helped], {name: {"cpu": t.cpu, "wall": t.wall} for name, t in found.items()}


def _memory(name: str, rows: list[Row], given: argparse.Namespace) -> Mapping[Any, Any]:
    if given.no_memory or given.check or given.device != "cpu":
        return {}
    passes = dict.fromkeys(p for row in rows for p in harness.passes_for(row.ideal))
    jobs = [("ideal", p) for p in passes] + [
        (r.name, c.name) for r in rows for c in r.contenders[: 1 if r.long else None]
    ]
    return memory.peaks(name, jobs, given.threads, given.max_gb)


def main() -> None:
    if startup.SRC.is_dir():
        sys.path.insert(0, str(startup.SRC))
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    given = arguments()
    rows, with_startup = chosen(given.rows)
    if given.no_peers:
        rows = [replace(row, contenders=row.contenders[:1]) for row in rows]
    torch.set_num_threads(given.threads)
    nets.define_missing_torchvision_operators()
    about = heading(given)
    print(*about, sep="\n", flush=True)
    results: list[Result] = []
    raw: dict[str, Any] = {}

    def tell(result: Result, times: dict[str, Any]) -> None:
        results.append(result)
        raw[f"{result.network}: {result.work}"] = times
        for cells in table.rows_of(result):
            print(table.text(cells), flush=True)
        for path in given.out:
            table.write(path, about, results, raw)

    for name in given.nets.split(",") if rows else []:
        extra = _memory(name, rows, given)
        peers.import_all()
        net = nets.build(name, given.device)
        if given.device == "cpu":
            harness.limit_memory(given.max_gb)
        print(f"\n{name}: CAMs read layer {net.layer!r}", table.text(list(table.COLUMNS)), sep="\n", flush=True)
        for row in rows:
            tell(*measure(net, row, given, extra))
    if with_startup and not given.check:
        print("", table.text(list(table.COLUMNS)), sep="\n", flush=True)
        found, times = start_up(given.repeats)
        for result in found:
            tell(result, times)


if __name__ == "__main__":
    main()
