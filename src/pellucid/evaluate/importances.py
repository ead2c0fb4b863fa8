"""What each part of a scene is worth to a network, measured by painting the scene again without it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TypeVar

import numpy as np
import torch
from torch import Tensor

from pellucid.core.record import record
from pellucid.core.target import Target
from pellucid.evaluate.questions import Posed, Question, removable
from pellucid.evaluate.truth import Known
from pellucid.images.decode import Picture
from pellucid.images.scenes import Scene, render
from pellucid.methods.choose import top_scores
from pellucid.models.model import Model

T = TypeVar("T")
BATCH = 8  # pictures recorded at a time


@dataclass(frozen=True, eq=False)
class Answered:
    """A picture that the network answered rightly, and what is known of it."""

    posed: Posed
    known: Known


def rightly_answered(
    model: Model, question: Question, classes: dict[str, int], posed: Sequence[Posed]
) -> list[Answered]:
    """The pictures whose first class is what the network says, each with the importance of its parts.

    `importance(p) = score(scene) - score(scene without p)`, under the same target.
    """
    right = [one for one, said in zip(posed, predictions(model, posed), strict=True) if said == classes[one.label]]
    if not right:
        return []
    target = question.targets(right, classes)
    parts = [removable(one) for one in right]
    whole = scores(model, target, ((row, one.picture.scene) for row, one in enumerate(right)))
    rests = ((row, rest) for row, found in enumerate(parts) for _, rest in found.values())
    left = scores(model, target, rests)
    both = zip(right, parts, strict=True)
    worth = iter((whole[[row for row, found in enumerate(parts) for _ in found]] - left).tolist())
    return [Answered(one, _known(one, found, list(islice(worth, len(found))))) for one, found in both]


def _known(posed: Posed, parts: dict[str, tuple[np.ndarray, Scene]], importances: list[float]) -> Known:
    places = np.zeros((len(parts), *posed.mask.shape), dtype=bool)
    for i, (place, _) in enumerate(parts.values()):
        places[i] = place
    return Known(posed.mask, tuple(parts), places, np.array(importances))


def predictions(model: Model, posed: Sequence[Posed]) -> list[int]:
    """The class with the highest score for each picture."""
    found: list[int] = []
    for batch in batches(posed, BATCH):
        found += (
            top_scores(record(model.module, inputs(model, [one.picture.pixels for one in batch]))).argmax(1).tolist()
        )
    return found


def scores(model: Model, target: Target, scenes: Iterable[tuple[int, Scene]]) -> np.ndarray:
    """The target's number for scenes, each given with the picture of the target that it belongs to."""
    found: list[float] = []
    for batch in batches(scenes, BATCH):
        trace = record(model.module, inputs(model, [render(scene).pixels for _, scene in batch]))
        found += target.score(trace, [row for row, _ in batch]).tolist()
    return np.array(found)


def inputs(model: Model, pixels: Sequence[np.ndarray]) -> Tensor:
    """Pictures as the network is fed them, on its device and in its precision."""
    assert model.preprocess is not None
    x = torch.stack([model.preprocess(Picture(one, "scene")).pixels for one in pixels])
    first = next((p for p in model.module.parameters() if p.is_floating_point()), x)
    return model.preprocess.normalise(x).to(first.detach())


def batches(some: Iterable[T], size: int) -> Iterator[list[T]]:
    """Neighbours together, `size` at a time."""
    rest = iter(some)
    while batch := list(islice(rest, size)):
        yield batch
