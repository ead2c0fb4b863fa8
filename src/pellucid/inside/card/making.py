"""`unit_card`: the parts of `inside` asked about one unit."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from torch import nn

from pellucid.core.errors import Cancelled, PellucidError, SettingError, check_known
from pellucid.core.progress import Progress, watching
from pellucid.images.datasets import Pictures, pictures
from pellucid.inside.card.result import HEADINGS, UnitCard
from pellucid.inside.card.words import lead
from pellucid.inside.exemplars import Exemplars, exemplars
from pellucid.inside.fields import effective_field
from pellucid.inside.opened import Opened, Unit, opened
from pellucid.inside.optimise.making import optimise
from pellucid.inside.projection import project_top
from pellucid.inside.showing import Shows
from pellucid.inside.wiring.ablate import ablation
from pellucid.inside.wiring.feeds import feeders, followers
from pellucid.inside.wiring.places import gathered
from pellucid.methods.run import check_seed
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

SAMPLES = 64  # pictures that are asked again and again: what feeds it, what is lost without it


def unit_card(
    model: Model | nn.Module | str,
    unit: str | Unit,
    data: Any,
    *,
    parts: Sequence[str] | None = None,
    top: int = 9,
    steps: int = 256,
    samples: int = SAMPLES,
    found: Exemplars | None = None,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> UnitCard:
    """All there is to know of one unit, on one page.

    Args:
        unit: `"LAYER:CHANNEL"`.
        data: a folder of pictures, a .zip, a list, or inputs `(n, c, ...)`: what the unit is looked for in.
        parts: some of `exemplars`, `optimised`, `projection`, `field`, `feeders`, `followers`, `ablation`; all by
            default.
        top: how many of the strongest pictures are shown.
        steps: of the optimised picture.
        samples: pictures, spread evenly over the data, on which connections and losses are measured.
        found: exemplars that were gathered before, which saves the pass over the data.
        seed: for everything random.

    Returns:
        The card. A part that can't be made is told in its place; when the work is cancelled, the parts so far.

    Raises:
        LayerError: no such layer or unit; the nearest names are offered.
        ImageError: no picture can be read.
        SettingError: an unknown part, or a number out of range.
    """
    asked = _asked(parts)
    if samples < 1 or top < 1 or steps < 1:
        raise SettingError(f"top, samples and steps are at least 1; {top}, {samples} and {steps} came")
    check_seed(seed)
    known, all_of_it = _opened(model, data)
    wanted = known.unit(unit)
    with watching(progress) as bar:
        work = _Work(known, wanted, all_of_it, top, steps, min(samples, len(all_of_it)), seed, bar, found)
        findings, missing, notes = _gathered(work, asked)
    settings = {"top": top, "steps": steps, "samples": samples, "seed": seed, "pictures": len(all_of_it)}
    sentences = lead(known, wanted, findings)
    return UnitCard(known.model.name, wanted, findings, missing, sentences, settings, tuple(notes))


def _opened(model: Model | nn.Module | str, data: Any) -> tuple[Opened, Pictures]:
    """The network and the data; where its input size is not known, on the first picture that can be read."""
    chosen = the_model(model)
    if chosen.preprocess is None:
        found, first = gathered(chosen, data)
        return first, found
    return opened(chosen), pictures(data, chosen.preprocess)


def _asked(parts: Sequence[str] | None) -> list[str]:
    asked = list(HEADINGS) if parts is None else list(parts)
    for part in asked:
        check_known("part", part, HEADINGS)
    return [part for part in HEADINGS if part in asked]


def _gathered(work: "_Work", asked: Sequence[str]) -> tuple[dict[str, Shows], dict[str, str], list[str]]:
    """Each part; a refusal is kept in its place, and cancelling keeps what there is."""
    findings: dict[str, Shows] = {}
    missing: dict[str, str] = {}
    for number, part in enumerate(asked):
        try:
            findings[part] = work.make(part)
        except Cancelled:
            left = ", ".join(asked[number:])
            return findings, missing, [f"stopped on request before these parts were made: {left}"]
        except PellucidError as error:
            if part == "exemplars":
                raise
            missing[part] = f"Not made: {error}."
    return findings, missing, []


@dataclass
class _Work:
    """One unit, the data, and how much is asked."""

    opened: Opened
    unit: Unit
    data: Pictures
    top: int
    steps: int
    samples: int
    seed: int
    bar: Progress
    found: Exemplars | None = None

    def make(self, part: str) -> Shows:
        """One part of the card."""
        makers: dict[str, Callable[[], Shows]] = {
            "exemplars": lambda: self.exemplars.of(self.unit),
            "optimised": self._optimised,
            "projection": lambda: project_top(self.opened.model, self.exemplars, self.unit, self.top),
            "field": self._field,
            "feeders": lambda: feeders(self.opened.model, self.unit, self.some, progress=self.bar),
            "followers": lambda: followers(self.opened.model, self.unit, self.some, progress=self.bar),
            "ablation": lambda: ablation(self.opened.model, self.unit, self.some, progress=self.bar),
        }
        return makers[part]()

    @property
    def exemplars(self) -> Exemplars:
        """The strongest pictures; gathered once."""
        if self.found is None:
            self.found = exemplars(
                self.opened.model, self.data, units=[self.unit], top=self.top, seed=self.seed, progress=self.bar
            )
        return self.found

    @property
    def some(self) -> Pictures:
        """Pictures spread evenly over the data."""
        return pictures(self.data, self.data.preprocess, limit=self.samples)

    def _optimised(self) -> Shows:
        known = self.opened.model.preprocess is not None
        return optimise(
            self.opened.model, self.unit, steps=self.steps, count=1, data=self.some, seed=self.seed, progress=self.bar,
            image=None if known else self.opened.trace.inputs[0].data[:1],
        )  # fmt: skip

    def _field(self) -> Shows:
        return effective_field(self.opened.model, self.unit, self.some, seed=self.seed, progress=self.bar)
