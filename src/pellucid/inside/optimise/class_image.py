"""Class images: the input that scores highest for a class, held short."""

from dataclasses import dataclass, field
from math import inf
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, UInt8
from PIL import Image
from torch import Tensor, nn

from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, curve
from pellucid.inside.opened import opened
from pellucid.inside.optimise.ascent import Ascent
from pellucid.inside.optimise.optimised import SHOWN_PX, as_image
from pellucid.inside.optimise.space import Space, space_of
from pellucid.inside.optimise.wishes import objective_of
from pellucid.inside.showing import Shows
from pellucid.models.model import Model
from pellucid.render.fitting import fitted
from pellucid.render.paint import number
from pellucid.render.sheet import sheet

USUAL_DECAY = 10.0  # over the number of values of the input
SEEN_PERCENTILE = 99.5


@dataclass(frozen=True, eq=False)
class ClassImage(Shows):
    """The input that a class likes best, and how it is shown.

    Attributes:
        name: the class.
        input: I, in the network's units, zero being the mean picture.
        score: `S_c(I)`.
        decay: λ.
        heights: the objective after every step.
        eight_bit: the mean picture plus `contrast` times what was found, in 256 steps.
        seen_score: the score of that 8-bit picture.
    """

    model: str
    name: str
    input: Float[np.ndarray, "c h w"]
    score: float
    decay: float
    heights: tuple[float, ...]
    eight_bit: UInt8[np.ndarray, "h w c"]
    contrast: float
    seen_score: float
    settings: dict[str, Any] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    title = "Class image"

    def __repr__(self) -> str:
        return f"ClassImage({self.model}, {self.name}: {number(self.score)}, shown {number(self.seen_score)})"

    @property
    def picture(self) -> Image.Image:
        """As it is shown, at its own size."""
        return as_image(self.eight_bit)

    def image(self) -> Image.Image:
        words = (self.name, f"score {self.score:.3g}", f"as shown {self.seen_score:.3g}")
        return sheet(f"{self.title}: {self.model}", [(fitted(self.picture, SHOWN_PX), words)], [])

    def sentence(self) -> str:
        shown = "as it is" if self.contrast == 1 else f"with {number(self.contrast)} of its contrast, to fit the screen"
        notes = "".join(f" Note: {note}." for note in self.notes)
        return (
            f"The input that {self.model} scores highest for {self.name}, kept short: score {number(self.score)}. "
            f"It is shown {shown}; that picture of 8 bits scores {number(self.seen_score)}.{notes}"
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [[step + 1, height] for step, height in enumerate(self.heights)]
        return (curve("ascent", ["step", "score less penalty"], rows),)

    def facts(self) -> dict[str, Any]:
        own = ("model", "name", "score", "decay", "contrast", "seen_score", "settings")
        return super().facts() | {key: getattr(self, key) for key in own} | {"notes": list(self.notes)}


def class_image(
    model: Model | nn.Module | str,
    label: Any,
    *,
    weight_decay: float | int | None = None,
    steps: int = 512,
    blur_px: float | int = 0,
    blur_every: int = 4,
    image: Any = None,
    progress: Progress | bool | None = None,
) -> ClassImage:
    """Find `argmax_I S_c(I) − λ ‖I‖²`, S_c before the softmax, by gradient ascent from `I = 0`.

    Three quarters of the steps have momentum and get smaller, the others must rise (backtracking).

    For a linear score `w·I` it is `w / (2 λ)`. I is in the network's input units after its mean is subtracted (and
    its deviation divided by), so zero is the mean picture; it is not held between black and white.

    Args:
        label: a class by number or label, or any objective of `optimise`.
        weight_decay: λ, in score per squared input unit; 10 over the number of input values by default.
        steps: of the ascent.
        blur_px: deviation of a Gaussian blur every `blur_every` steps (not in the paper, smoother); 0 for none.
        image: an example of the input, where the preprocessing is not known.

    Returns:
        The input, its score, and a picture of it; when the work is cancelled, as far as it got, with a note.

    Raises:
        TargetError: no such class.
        SettingError: a setting is out of range.

    Source: Simonyan, Vedaldi & Zisserman 2014, arXiv:1312.6034, section 2.
    """
    known = opened(model, image)
    space = space_of(known)
    values = space.channels * space.size_px[0] * space.size_px[1]
    decay = USUAL_DECAY / values if weight_decay is None else float(weight_decay)
    if not 0 < decay < inf or steps < 1 or blur_px < 0 or blur_every < 1:
        raise SettingError(
            f"weight_decay is above 0, steps and blur_every at least 1; {weight_decay}, {steps}, {blur_every} came"
        )
    objective = objective_of(f"logit:{label}" if isinstance(label, str | int) else label, known)
    ascent = Ascent(known, objective.on(known), decay, float(blur_px), blur_every)
    with watching(progress) as bar, torch.inference_mode(False):
        bar.expect(steps)
        ascent.up(steps, space, bar)
    eight, contrast = _shown(space, ascent.x)
    settings = {"steps": steps, "blur_px": blur_px, "blur_every": blur_every}
    return ClassImage(
        known.model.name, objective.words, ascent.x[0].to(space.dtype).cpu().numpy(),
        ascent.score, decay, tuple(ascent.heights),
        eight[0], contrast, ascent.measured(space.of_bytes(eight)), settings,
        (*_about_zero(space), *known.notes, *ascent.notes),
    )  # fmt: skip


def _shown(space: Space, x: Float[Tensor, "1 c h w"]) -> tuple[UInt8[np.ndarray, "1 h w c"], float]:
    """The mean picture plus as much of the contrast as nearly all of it fits on the screen with."""
    x = x.to(space.dtype)
    middle = space.pixels(torch.zeros_like(x)).clamp(0.1, 0.9) if space.preprocess else torch.full_like(x, 0.5)
    away = space.pixels(x) - space.pixels(torch.zeros_like(x))
    beyond = (away / torch.where(away > 0, 1 - middle, middle)).abs().flatten().double().cpu().numpy()
    contrast = min(1.0, 1 / max(float(np.percentile(beyond, SEEN_PERCENTILE)), 1e-12))
    return space.eight_bits(middle + contrast * away), contrast


def _about_zero(space: Space) -> tuple[str, ...]:
    if space.preprocess is None:
        return ("the preprocessing is not known: zero input is taken for the mean picture", *space.notes)
    if not any(space.preprocess.mean):
        return ("the preprocessing subtracts no mean: zero input, which is black, is taken for the mean picture",)
    return ()
