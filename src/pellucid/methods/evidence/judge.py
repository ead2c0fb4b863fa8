"""The symptom taken away, then everything but the symptom: by how much does the answer move?"""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float64
from torch import Tensor, nn

from pellucid.core.edits import Box, Edits, Masked
from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress
from pellucid.images.fills import Fill
from pellucid.images.fills import fills as chosen_fills
from pellucid.methods.covering import paint_of
from pellucid.methods.evidence.asking import Asked, asked_about
from pellucid.methods.evidence.controls import Move, moves, other_units, rank_p, stay
from pellucid.methods.evidence.symptoms import Symptom, symptom_of
from pellucid.methods.evidence.verdict import Evidence, Reply, UnderFill
from pellucid.methods.pictures import seen
from pellucid.models.model import Model

FILLS = ("mean", "blur", "noise")
LEAST_CONTROLS, MOST_CONTROLS = 19, 9999  # with fewer than 19 no p is below 0.05
_OFF = "zero"  # what takes the place of units


@dataclass(frozen=True, eq=False)
class Trial:
    """The edits under one fill: without the symptom, with it alone, then the same for each control.

    Attributes:
        scores: of every edit, in that order.
        pixels: what the network was shown in the first two; None where that is no 2-D picture.
    """

    fill: str
    scores: Float64[Tensor, "n answers"]
    pixels: tuple[np.ndarray, np.ndarray] | None


def evidence(
    model: Model | nn.Module | str,
    image: Any,
    symptom: Any,
    *,
    environment: Any = None,
    target: Any = "top1",
    fills: Any = FILLS,
    controls: int = 99,
    count: int = 50,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Evidence:
    """Whether a decision came from a symptom: a controlled two-factor intervention.

    `Sym = mean_f TV(p, p|do(m := f))`, `Env = mean_f TV(p, p|do(1 − m := f))`, `FE = Sym − Env` over the fills f, where
    p are the class probabilities and `TV(p, q) = ½ Σ_c |p_c − q_c|`. The control is the same mask rolled, mirrored and
    turned to other places, under the same fills; p is the rank of FE among these.

    Args:
        model: a `Model`, a module or a name.
        image: whatever `explain` takes, one picture; or a tensor `(1, c, *space)` of its inputs, 1-D to 3-D.
        symptom: a mask (True inside; array, tensor or file, of the picture or of the network's input), regions with
            their numbers (`"slic:50#3,7"`, `(regions, [3, 7])`), the hottest part of a map (`"heat:grad_cam:0.1"`,
            `(explanation, 0.1)`, `(array, 0.1)`), or units that are switched off (`"unit:layer4:5,9"`).
        environment: a mask of what counts as the rest; everything but the symptom by default.
        target: `"top1"` watches all classes, a class whether it is this one, `"A vs B"` these two only.
        fills: what takes the place of covered pixels; several, since each has its own bias. Units are set to zero.
        controls: R, how many masks of equal area (or sets of as many units) it is held against.
        count: about how many regions, where the symptom names none.
        seed: of the controls, of noise, and for ties of ranks.

    Returns:
        The evidence, with a verdict: see `Evidence.verdict`.

    Raises:
        SettingError: an empty symptom, the whole picture, an unknown fill, too few controls.
        TargetError: a dense output, or a target that is no answer.

    Source: the seeds' "fidelity evidence"; p-value by randomised ranks (Vovk et al. 2005, ch. 2.5; from memory).
    """
    if not LEAST_CONTROLS <= controls <= MOST_CONTROLS:
        raise SettingError(
            f"controls={controls} came; use {LEAST_CONTROLS} to {MOST_CONTROLS:,}, with fewer no p is below 0.05"
        )
    start = time.perf_counter()
    with asked_about(model, image, target, seed, progress) as asked:
        found = symptom_of(asked, symptom, count)
        rest = None if environment is None else _environment(asked, found, environment, count)
        if found.mask is None:
            trials = [_without_units(asked, found, controls)]
            notes = () if tuple(_listed(fills)) == FILLS else ("units are switched off, so the fills were not used",)
        else:
            trials, notes = _without_pixels(asked, found.mask, rest, chosen_fills(fills), controls)
        return _judged(asked, found, rest, trials, notes, time.perf_counter() - start)


def _listed(asked: Any) -> list[Any]:
    return list(asked) if isinstance(asked, (list, tuple)) else [asked]


def _environment(asked: Asked, symptom: Symptom, given: Any, count: int) -> Tensor:
    if symptom.mask is None:
        raise SettingError("the environment of units is the other units of the layer; leave environment out")
    found = symptom_of(asked, given, count, "environment").mask
    if found is None:
        raise SettingError("units came as the environment of pixels; give a mask")
    if (found & symptom.mask).any():
        shared = int((found & symptom.mask).sum())
        raise SettingError(f"symptom and environment share {shared} pixels; mark each pixel in one of them only")
    return found


def _without_pixels(
    asked: Asked, mask: Tensor, rest: Tensor | None, chosen: tuple[Fill, ...], controls: int
) -> tuple[list[Trial], tuple[str, ...]]:
    hidden = (mask, ~mask if rest is None else rest)
    places = [stay(mask.dim()), *moves(mask.shape, controls, asked.case.seed)]
    boxes = [_box(move(part)) for move in places for part in hidden]
    keep = _keep(hidden, places)
    trials = []
    for fill in chosen:
        edits = Masked(asked.case.x, paint_of(asked.case, fill, 0), keep, [0] * len(boxes), boxes)
        trials.append(Trial(fill.name, asked.scores(edits), _pixels(asked, edits)))
    few = len(chosen) < 3
    return trials, (f"only {len(chosen)} of fills; three or more show how much it depends on them",) * few


def _keep(hidden: Sequence[Tensor], places: Sequence[Move]) -> Callable[[Sequence[int]], Bool[Tensor, "n *space"]]:
    """For some of the edits the pixels that stay, made when they are asked for."""
    return lambda which: torch.stack([~places[i // 2](hidden[i % 2]) for i in which])


def _box(mask: Tensor) -> Box:
    """The smallest box around a mask that is not empty."""
    found = []
    for axis in range(mask.dim()):
        inside = mask.movedim(axis, 0).flatten(1).any(1).nonzero() if mask.dim() > 1 else mask.nonzero()
        found.append((int(inside.min()), int(inside.max()) + 1))
    return tuple(found)


def _pixels(asked: Asked, edits: Edits) -> tuple[np.ndarray, np.ndarray] | None:
    if asked.picture is None:
        return None
    without, alone = (seen(x, asked.case.preprocess) for x in edits.inputs([0, 1]))
    return without, alone


class Switched:
    """Units of a layer's value switched off."""

    def __init__(self, value: Tensor, axis: int, off: Bool[Tensor, "n units"]) -> None:
        self.value, self.axis, self.off = value, axis, off
        self.rows: Sequence[int] = [0] * len(off)
        self.boxes: Sequence[Box] | None = None

    def inputs(self, which: Sequence[int]) -> Tensor:
        """The layer's value with the units of each edit at zero."""
        off = self.off[list(which)].to(self.value.device)
        shape = [len(off), *(off.shape[1] if axis == self.axis else 1 for axis in range(1, self.value.dim()))]
        return torch.where(off.view(shape), torch.zeros_like(self.value), self.value)

    def inside(self, which: int) -> Tensor:
        raise SettingError(f"edit {which} of units has no box")


def _without_units(asked: Asked, symptom: Symptom, controls: int) -> Trial:
    if symptom.place is None:
        raise SettingError("a symptom without mask and without layer can't be taken away")
    units = symptom.place.shape[symptom.axis]
    own = torch.zeros(1, units, dtype=torch.bool)
    own[0, list(symptom.units)] = True
    sets = torch.cat([own, other_units(units, len(symptom.units), controls, asked.case.seed)])
    off = torch.stack([sets, ~sets], 1).flatten(0, 1)
    edits = Switched(symptom.place.data, symptom.axis, off)
    return Trial(_OFF, asked.scores(edits, symptom.place), None)


def _judged(
    asked: Asked, symptom: Symptom, rest: Tensor | None, trials: list[Trial], notes: tuple[str, ...], seconds: float
) -> Evidence:  # fmt: skip
    changes = torch.stack([asked.decision.change(asked.before, t.scores) for t in trials]).numpy()
    sym, env = changes[:, 0::2], changes[:, 1::2]
    random = np.random.default_rng([asked.case.seed, 3])
    fe = (sym - env).mean(0)
    p, p_low = (rank_p(float(s * fe[0]), (s * fe[1:]).tolist(), random) for s in (1, -1))
    rows = tuple(
        _row(asked, trial, s, e, rank_p(float(s[0] - e[0]), (s - e)[1:].tolist(), random))
        for trial, s, e in zip(trials, sym, env, strict=True)
    )
    decision, winner = asked.decision, int(asked.decision.winners(asked.before[None])[0])
    units = symptom.mask is None
    return Evidence(
        model=asked.model.name, receipt=asked.receipt(*notes), seconds=seconds,
        watched=decision.words, answer=decision.names[winner], share=decision.share(asked.before, winner),
        followed=decision.names[decision.own], symptom=symptom.words,
        environment=_rest_words(rest, units), fraction=_fraction(symptom),
        mask=None if symptom.mask is None else symptom.mask.numpy(), rows=rows,
        control_sym=tuple(sym.mean(0)[1:].tolist()),
        control_env=tuple(env.mean(0)[1:].tolist()),
        p=p, p_low=p_low, seed=asked.case.seed, controls="sets of units" if units else "masks",
        image=asked.picture, placement=asked.placement,
    )  # fmt: skip


def _rest_words(rest: Tensor | None, units: bool) -> str:
    if rest is not None:
        return "the environment that was given"
    return "the other units of the layer" if units else "everything else"


def _fraction(symptom: Symptom) -> float:
    if symptom.mask is not None:
        return float(symptom.mask.double().mean())
    return len(symptom.units) / (1 if symptom.place is None else symptom.place.shape[symptom.axis])


def _row(asked: Asked, trial: Trial, sym: np.ndarray, env: np.ndarray, p: float) -> UnderFill:
    without, alone = (_reply(asked, trial.scores[i], float(change[0])) for i, change in enumerate((sym, env)))
    return UnderFill(
        trial.fill, without, alone, float(sym[1:].mean()), float(env[1:].mean()), p, trial.pixels
    )  # fmt: skip


def _reply(asked: Asked, scores: Tensor, change: float) -> Reply:
    decision = asked.decision
    winner, before = (int(decision.winners(s[None])[0]) for s in (scores, asked.before))
    return Reply(
        decision.names[winner], decision.share(scores, winner), decision.share(scores), change, winner != before
    )
