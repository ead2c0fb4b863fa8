"""What came out: a frozen value that says its verdict, in a word, a sentence, a table and a picture."""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from jaxtyping import Bool, UInt8
from PIL import Image

from pellucid.core.tables import Table, table
from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods.evidence.results import Result

Word = Literal["evidence", "counter-evidence", "no evidence", "inconclusive"]
MOST_ENV, LEAST_SYM, MOST_P = 0.1, 0.5, 0.05


@dataclass(frozen=True)
class Reply:
    """What the network says to one edited picture.

    Attributes:
        answer: the most probable class, and its probability `share`.
        own_share: the probability of the answer that is followed.
        change: total variation from what it said to the untouched picture, 0 to 1.
        flipped: whether the most probable class is another one.
    """

    answer: str
    share: float
    own_share: float
    change: float
    flipped: bool


@dataclass(frozen=True, eq=False)
class UnderFill:
    """Both questions under one fill, and the controls' means.

    Attributes:
        without: the symptom covered; `alone`: the environment covered.
        control_sym, control_env: means over the controls.
        p: of FE under this fill.
        pixels: what the network was shown, without and alone; None where that is no 2-D picture.
    """

    fill: str
    without: Reply
    alone: Reply
    control_sym: float
    control_env: float
    p: float
    pixels: tuple[UInt8[np.ndarray, "h w 3"], UInt8[np.ndarray, "h w 3"]] | None = None

    @property
    def sym(self) -> float:
        return self.without.change

    @property
    def env(self) -> float:
        return self.alone.change


@dataclass(frozen=True, eq=False, kw_only=True)
class Evidence(Result):
    """Whether a decision came from a symptom.

    Attributes:
        watched: what counts as a change: all classes, one against the rest, or two.
        answer: what the network says to the untouched picture, and its probability `share`.
        followed: the answer whose probability is listed.
        symptom, environment: what was taken away, in words.
        fraction: how much of the picture (or of the layer's units) the symptom is.
        mask: the symptom on the network's input grid; None for units.
        rows: for each fill.
        control_sym, control_env: for each control, the mean over the fills.
        p: how seldom a control has as large an FE; `p_low`: as small a one.
    """

    watched: str
    answer: str
    share: float
    followed: str
    symptom: str
    environment: str
    fraction: float
    mask: Bool[np.ndarray, "*space"] | None
    rows: tuple[UnderFill, ...]
    control_sym: tuple[float, ...]
    control_env: tuple[float, ...]
    p: float
    p_low: float
    seed: int
    controls: str = "masks"
    image: Picture | None = None
    placement: Placement | None = None

    @property
    def sym(self) -> float:
        """`Sym`, the mean over the fills of TV(p, p|do(m := fill)): how far the answer moves without the symptom."""
        return float(np.mean([row.sym for row in self.rows]))

    @property
    def env(self) -> float:
        """`Env`, the mean over the fills of TV(p, p|do(1 − m := fill)): how far it moves with the symptom alone."""
        return float(np.mean([row.env for row in self.rows]))

    @property
    def fe(self) -> float:
        """`FE = Sym − Env`, from −1 (all environment) to 1 (all symptom)."""
        return float(np.mean([row.sym - row.env for row in self.rows]))

    @property
    def worst(self) -> tuple[float, float, float]:
        """The least Sym, the largest Env and the least FE of any fill."""
        rows = self.rows
        return min(r.sym for r in rows), max(r.env for r in rows), min(r.sym - r.env for r in rows)

    @property
    def flip_rates(self) -> tuple[float, float]:
        """The share of fills under which another class wins: without the symptom, and with it alone."""
        rows = self.rows
        return float(np.mean([r.without.flipped for r in rows])), float(np.mean([r.alone.flipped for r in rows]))

    @property
    def control_fe(self) -> tuple[float, ...]:
        """FE of each control."""
        return tuple(s - e for s, e in zip(self.control_sym, self.control_env, strict=True))

    @property
    def verdict(self) -> Word:
        """`evidence` iff Env ≤ 0.1, Sym ≥ 0.5 and p < 0.05; `counter-evidence` iff FE < 0; else, where Sym ≤ 0.1,
        `no evidence`, and `inconclusive` for what lies between.
        """
        return verdict(self.sym, self.env, self.fe, self.p)

    @property
    def table(self) -> Table:
        """One row for each fill, then the mean and the worst of them."""
        rows: list[tuple[Any, ...]] = [
            (
                r.fill, r.sym, r.env, r.sym - r.env, r.p, r.without.answer, r.without.own_share, r.alone.answer,
                r.alone.own_share, r.control_sym, r.control_env,
            )
            for r in self.rows
        ]  # fmt: skip
        means = [float(np.mean([getattr(r, name) for r in self.rows])) for name in ("control_sym", "control_env")]
        rows.append(("mean", self.sym, self.env, self.fe, self.p, None, None, None, None, *means))
        rows.append(("worst", *self.worst, None, None, None, None, None, None, None))
        own = f"probability of {self.followed}"
        columns = (
            "fill", "Sym", "Env", "FE", "p", "answer without it", f"{own} without it", "answer with it alone",
            f"{own} with it alone", "Sym of the controls", "Env of the controls",
        )  # fmt: skip
        return table("evidence", columns, rows, "Sym, Env: how far the answer moves, 0 not at all, 1 entirely")

    @property
    def control_table(self) -> Table:
        """One row for each control: Sym, Env and FE, means over the fills."""
        found = zip(self.control_sym, self.control_env, self.control_fe, strict=True)
        rows = [(number, *row) for number, row in enumerate(found)]
        return table("controls", ("control", "Sym", "Env", "FE"), rows, f"the same over {self.controls}")

    def sentence(self) -> str:
        """The verdict in words for a reader who is no expert."""
        from pellucid.methods.evidence.words import of_evidence

        return of_evidence(self)

    def picture(self) -> Image.Image:
        """The picture with the symptom outlined, what the network was shown, and FE among the controls."""
        from pellucid.methods.evidence.drawing import of_evidence

        return of_evidence(self)

    def to_json(self) -> dict[str, Any]:
        """Everything but the pixels, as JSON values."""
        least_sym, most_env, least_fe = self.worst
        without, alone = self.flip_rates
        return {
            "kind": "evidence", "verdict": self.verdict, "watched": self.watched, "answer": self.answer,
            "share": self.share, "followed": self.followed,
            "symptom": self.symptom, "environment": self.environment, "fraction": self.fraction,
            "sym": self.sym, "env": self.env, "fe": self.fe, "p": self.p, "p_low": self.p_low,
            "worst": {"sym": least_sym, "env": most_env, "fe": least_fe},
            "flip_rates": {"without": without, "alone": alone},
            "controls": self.control_table.to_json(), "seed": self.seed, **self.facts(),
        }  # fmt: skip

    def __repr__(self) -> str:
        return (
            f"Evidence({self.verdict}: {self.symptom!r} for {self.followed!r}, Sym={self.sym:.3f}, Env={self.env:.3f}, "
            f"FE={self.fe:+.3f}, p={self.p:.3g}, {len(self.rows)} fills, {len(self.control_sym)} controls)"
        )


def verdict(sym: int | float, env: int | float, fe: int | float, p: int | float) -> Word:
    """The word for these numbers; see `Evidence.verdict`."""
    if env <= MOST_ENV and sym >= LEAST_SYM and p < MOST_P:
        return "evidence"
    if fe < 0:
        return "counter-evidence"
    return "no evidence" if sym <= MOST_ENV else "inconclusive"
