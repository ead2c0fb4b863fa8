"""A ranking: the truth score of each method with its interval, as a value that shows and saves itself."""

import csv
import io
import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float64

from pellucid.core.errors import FileError, check_known
from pellucid.render.notebook import escape
from pellucid.render.visible import visible
from pellucid.store.files import write_text

Kind = Literal["method", "control", "reference"]
RESAMPLES = 1000
COLUMNS = {
    "method": "method", "score": "score", "interval": "95 % interval", "share": "share",
    "rank_correlation": "rank corr.", "pointing": "pointing", "seconds": "seconds", "undefined": "undefined",
}  # fmt: skip


@dataclass(frozen=True)
class Row:
    """One line of a ranking; every number is a mean over the pictures.

    Attributes:
        name: the method with the settings it was given, or the control map.
        kind: a method, a control map that knows nothing of the network, or the perfect map.
        score: the truth score; low and high are the ends of its 95 % bootstrap interval over pictures.
        share, rank_correlation, pointing: its components, undefined ones counted as 0.
        seconds: for each picture, the recording included.
        undefined: pictures on which a component was undefined.
    """

    name: str
    kind: Kind
    score: float
    low: float
    high: float
    share: float
    rank_correlation: float
    pointing: float
    seconds: float
    undefined: int


@dataclass(frozen=True)
class Ranking:
    """Methods sorted by their truth score, the best first, with control maps among them.

    Attributes:
        truth: which mask is the truth: "decisive" pixels or the planted "mark".
        target: what was explained.
        n: pictures drawn; `used` of them count.
        wrong: left out, since the network did not answer rightly.
        hidden: left out, since too little of the mask is seen.
        refused: methods that are not in the table, each with its reason.
    """

    model: str
    data: str
    truth: str
    target: str
    n: int
    used: int
    wrong: int
    hidden: int
    seed: int
    split: str
    px: int
    rows: tuple[Row, ...]
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def pictures(self) -> str:
        """How many pictures count and why others don't, in one sentence."""
        wrong = "not rightly classified" if self.truth == "decisive" else "where the mark did not decide"
        return (
            f"{self.used} of {self.n} pictures; left out {self.wrong} {wrong}, {self.hidden} whose {self.truth} pixels "
            "are hidden"
        )

    def row(self, name: str) -> Row:
        """The line of a method or control map.

        Raises:
            SettingError: no such line.
        """
        found = {row.name: row for row in self.rows}
        check_known("line", name, found)
        return found[name]

    def to_json(self) -> dict[str, Any]:
        """Everything as JSON values."""
        return {**asdict(self), "rows": [asdict(row) for row in self.rows], "refused": dict(self.refused)}

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Writes the table as `.json`, `.csv` or `.md`, in one step.

        Raises:
            FileError: another ending, or the file can't be written.
        """
        check_file(Path(path), overwrite)
        return write_text(path, WRITERS[Path(path).suffix.lower()](self), overwrite=overwrite)

    def table(self) -> list[list[str]]:
        """Head and rows as text; the last column only where a component was undefined."""
        keys = [key for key in COLUMNS if key != "undefined" or any(row.undefined for row in self.rows)]
        return [[COLUMNS[key] for key in keys], *([cells(row)[key] for key in keys] for row in self.rows)]

    def __repr__(self) -> str:
        table = self.table()
        widths = [max(map(len, column)) for column in zip(*table, strict=True)]
        lines = [f"Ranking of {self.model} on {self.data}: {self.pictures}", f"explained: {self.target}"]
        lines += ["  ".join(word.ljust(w) for word, w in zip(line, widths, strict=True)).rstrip() for line in table]
        return "\n".join(map(visible, [*lines, *_refusals(self)]))

    def _repr_html_(self) -> str:
        head, *rows = self.table()
        top = "".join(f"<th>{escape(word)}</th>" for word in head)
        body = "".join("<tr>" + "".join(f"<td>{escape(word)}</td>" for word in line) + "</tr>" for line in rows)
        notes = "".join(f"<p>{escape(line)}</p>" for line in (f"{self.model}: {self.pictures}", *_refusals(self)))
        return f"{notes}<table><thead><tr>{top}</tr></thead><tbody>{body}</tbody></table>"


def check_file(path: Path, overwrite: bool) -> None:
    """Refuse, before any work, a file that the table can't go into.

    Raises:
        FileError: another ending, a folder that is missing, or a file that is there already.
    """
    if path.suffix.lower() not in WRITERS:
        raise FileError(f'can\'t save as "{path.name}"; expected a name that ends in {", ".join(WRITERS)}')
    if not path.resolve().parent.is_dir():
        raise FileError(f"can't write {path}: the folder {path.resolve().parent} does not exist; make it first")
    if path.exists() and not overwrite:
        raise FileError(f"{path} exists already; choose another name or pass overwrite=True")


def cells(row: Row) -> dict[str, str]:
    """The columns of a row as text; what is no method says so."""
    name = row.name if row.kind == "method" else f"{row.name} ({row.kind})"
    numbers = {key: f"{getattr(row, key):.3f}" for key in ("share", "rank_correlation", "pointing")}
    interval = f"{row.low:.2f} to {row.high:.2f}"
    return {
        "method": name, "score": f"{row.score:.3f}", "interval": interval, **numbers,
        "seconds": f"{row.seconds:.3f}", "undefined": str(row.undefined),
    }  # fmt: skip


def interval(scores: Float64[np.ndarray, " n"], seed: int) -> tuple[float, float]:
    """The 95 % bootstrap interval of a mean: pictures drawn again with replacement, the same for every method.

    Source: Efron and Tibshirani 1993, ch. 13, the percentile interval.
    """
    random = np.random.default_rng(seed)
    means = [scores[random.integers(0, len(scores), len(scores))].mean() for _ in range(RESAMPLES)]
    low, high = np.percentile(means, [2.5, 97.5])
    return float(low), float(high)


def _refusals(ranking: Ranking) -> list[str]:
    return [f"not ranked: {name}: {why}" for name, why in ranking.refused.items()]


def _json(ranking: Ranking) -> str:
    return json.dumps(ranking.to_json(), indent=1, allow_nan=False) + "\n"


def _csv(ranking: Ranking) -> str:
    held = io.StringIO()
    writer = csv.DictWriter(held, list(Row.__dataclass_fields__), lineterminator="\n")
    writer.writeheader()
    writer.writerows(asdict(row) for row in ranking.rows)
    return held.getvalue()


def _markdown(ranking: Ranking) -> str:
    lines = ["| " + " | ".join(map(_cell, line)) + " |" for line in ranking.table()]
    lines.insert(1, "|---" * len(ranking.table()[0]) + "|")
    told = [f"{ranking.pictures}; seed {ranking.seed}, split {ranking.split}, {ranking.px} px.", *_refusals(ranking)]
    title = f"# {ranking.model} on {ranking.data}: {ranking.target}"
    return "\n\n".join([visible(title), "\n".join(lines), *map(visible, told)]) + "\n"


def _cell(word: str) -> str:
    return visible(word).replace("|", "\\|")


WRITERS: Mapping[str, Callable[[Ranking], str]] = {".json": _json, ".csv": _csv, ".md": _markdown}
