"""What was measured, as lines of a table: for the terminal, for Markdown, for JSON."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from harness import Ratio
from work import Target

COLUMNS = {  # heading -> width on the terminal
    "work": 29,
    "by": 30,
    "× ideal (quartiles)": 21,
    "× fastest peer": 25,
    "target": 16,
    "met": 18,
    "CPU ms": 7,
    "wall ms": 7,
    "extra MB": 8,
    "equal to pellucid": 0,
}
SAME = 1e-4


@dataclass
class Line:
    """One contender of one row; `cpu_ms` and `wall_ms` are medians."""

    by: str
    cpu_ms: float | None = None
    wall_ms: float | None = None
    over_ideal: Ratio | None = None
    over_peer: Ratio | None = None
    extra_mb: float | None = None
    difference: float | None = None
    differs: str | None = None
    error: str | None = None
    repeats: int = 0


@dataclass
class Result:
    """One row on one network; the first line is pellucid's, lines named `ideal …` are bare passes."""

    network: str
    work: str
    ideal: str
    target: Target
    lines: list[Line]
    fastest_peer: str | None = None
    met: str = "–"
    notes: list[str] = field(default_factory=list)


def verdict(target: Target, mine: Line) -> str:
    """`yes`, `no` and why, or `–` without a target; a `?` says that the quartiles straddle the limit."""
    if target == Target() or mine.over_ideal is None:
        return "–"
    failed, unsure = [], False
    as_fast = 1.0 if target.beats_peers else None
    for limit, found, why in ((target.times, mine.over_ideal, "passes"), (as_fast, mine.over_peer, "peer")):
        if limit is None or found is None:
            continue
        if found.value > limit:
            failed.append(why)
        unsure |= found.low <= limit <= found.high
    if target.extra_mb is not None and mine.extra_mb is not None and mine.extra_mb > target.extra_mb:
        failed.append("memory")
    mark = "?" if unsure else ""
    return f"no{mark}: {', '.join(failed)}" if failed else f"yes{mark}"


def words(target: Target) -> str:
    parts = [f"≤ {target.times:.2f}"] if target.times is not None else []
    parts += ["≤ peers"] if target.beats_peers else []
    parts += [f"≤ {target.extra_mb:.0f} MB"] if target.extra_mb is not None else []
    return ", ".join(parts) or "–"


def rows_of(result: Result) -> list[tuple[str, ...]]:
    """The cells of a result's lines."""
    cells = []
    for line in result.lines:
        mine = line is result.lines[0]
        cells.append(
            (
                result.work if mine else "",
                line.by,
                line.error or _ratio(line.over_ideal),
                _peer(result, line) if mine else "",
                words(result.target) if mine else "",
                result.met if mine else "",
                _number(line.cpu_ms),
                _number(line.wall_ms),
                _number(line.extra_mb),
                _equal(line),
            )
        )
    return cells


def _peer(result: Result, line: Line) -> str:
    return f"{line.over_peer.value:.2f} {result.fastest_peer}" if line.over_peer is not None else "–"


def _ratio(found: Ratio | None) -> str:
    return "–" if found is None else f"{found.value:.2f} ({found.low:.2f}–{found.high:.2f})"


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.1f}" if value < 10 else f"{value:.0f}"


def _equal(line: Line) -> str:
    if line.difference is None:
        return line.differs or "" if line.error is None else ""
    if line.difference <= SAME:
        return f"yes, to {line.difference:.0e}"
    size = "another shape" if line.difference == float("inf") else f"no, off by {line.difference:.1g}"
    return f"{size}: {line.differs or 'UNEXPECTED'}"


def text(cells: Sequence[str]) -> str:
    """One line for the terminal."""
    return " ".join(cell.ljust(width) for cell, width in zip(cells, COLUMNS.values(), strict=True)).rstrip()


def markdown(heading: Sequence[str], results: Sequence[Result]) -> str:
    lines = ["# pellucid and its peers", "", *[f"- {h}" for h in heading], ""]
    for network in dict.fromkeys(r.network for r in results):
        lines += [f"## {network}", "", _bar(list(COLUMNS)), _bar(["---"] * len(COLUMNS))]
        for result in (r for r in results if r.network == network):
            lines += [_bar(cells) for cells in rows_of(result)]
        lines += ["", *[f"- {n}" for r in results if r.network == network for n in r.notes], ""]
    return "\n".join(lines)


def _bar(cells: Sequence[str]) -> str:
    return "| " + " | ".join(c.replace("|", "\\|") for c in cells) + " |"


def write(path: Path, heading: Sequence[str], results: Sequence[Result], raw: dict[str, Any]) -> None:
    """Everything so far into a `.json` or `.md` file."""
    if path.suffix == ".json":
        content = json.dumps({"about": list(heading), "results": [asdict(r) for r in results], "times": raw}, indent=1)
    else:
        content = markdown(heading, results)
    waiting = path.with_name(path.name + ".part")
    waiting.write_text(content, encoding="utf-8")
    waiting.replace(path)
