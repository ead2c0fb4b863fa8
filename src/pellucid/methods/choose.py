"""What the user asked to have explained: targets and layers from words, numbers or objects."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from torch import Tensor

from pellucid.core import target as targets
from pellucid.core.errors import TargetError, nearest
from pellucid.core.target import Target, class_scores, contrast, custom, log_probability, logit, probability
from pellucid.core.trace import Trace
from pellucid.models.model import Model

KINDS: dict[str, Callable[[Any], Target]] = {
    "logit": logit,
    "probability": probability,
    "log_probability": log_probability,
}
FORMS = (
    'a class number or label, "top3", "A vs B", "probability:A", "log_probability:A", "unit:LAYER:CHANNEL", '
    "a Target, a function of the output, or one class per image"
)


def choose_targets(asked: Any, model: Model, trace: Trace) -> list[Target]:
    """Targets from what a user may write.

    Raises:
        TargetError: it can't be read as a target of this network.
    """
    if isinstance(asked, str) and "+" in asked and not _is_label(asked, model):
        return [t for part in asked.split("+") for t in choose_targets(part.strip(), model, trace)]
    if isinstance(asked, (list, tuple)) and not _per_image(asked, trace):
        if not asked:
            raise TargetError(f"no target came; give {FORMS}")
        return [t for part in asked for t in choose_targets(part, model, trace)]
    if isinstance(asked, str) and asked.startswith("top") and not _is_label(asked, model):
        return _top(asked, trace)
    target = _one(asked, model)
    _check_count(target, trace.batch)
    return [target]


def for_images(asked: Any, images: Sequence[int], count: int) -> Any:
    """What was asked about `count` images, as it concerns some of them: one class per image becomes theirs.

    Raises:
        TargetError: neither one class for all nor one per image.
    """
    if isinstance(asked, (Tensor, np.ndarray, np.integer)):
        asked = asked.tolist()
        if isinstance(asked, list) and len(asked) != 1:
            return for_images(logit(asked), images, count)
    if isinstance(asked, (list, tuple)) and not (len(asked) == count > 1 and all(_is_number(n) for n in asked)):
        return [for_images(logit(part) if _is_number(part) else part, images, count) for part in asked]
    target = logit(asked) if isinstance(asked, (list, tuple)) else asked
    if not isinstance(target, Target) or all(len(c) == 1 for c in target.classes):
        return target
    _check_count(target, count)
    theirs = tuple(c if len(c) == 1 else tuple(c[i] for i in images) for c in target.classes)
    return replace(target, classes=theirs, read=lambda y, rows: target.read(y, [images[r] for r in rows]))


def _check_count(target: Target, count: int) -> None:
    wrong = next((len(c) for c in target.classes if len(c) not in (1, count)), None)
    if wrong is not None:
        raise TargetError(f"{wrong} classes came for {count} images; give one class for all or one per image")


def _is_number(item: Any) -> bool:
    return isinstance(item, int) and not isinstance(item, bool)


def _per_image(asked: Iterable[Any], trace: Trace) -> bool:
    """A list of plain class numbers, as many as images (more than one), means one class per image."""
    numbers = list(asked)
    return len(numbers) == trace.batch > 1 and all(_is_number(n) for n in numbers)


def _is_label(text: str, model: Model) -> bool:
    return model.labels is not None and text in model.labels


def _top(asked: str, trace: Trace) -> list[Target]:
    scores = top_scores(trace)
    count = int(asked[3:]) if asked[3:].isdigit() else 0
    if not 1 <= count <= scores.shape[1]:
        raise TargetError(
            f'"{asked}" came; use "top1" to "top{scores.shape[1]}", the network has {scores.shape[1]} classes'
        )
    best = scores.topk(count, 1).indices
    return [logit(best[:, k]) for k in range(count)]


def top_scores(trace: Trace) -> Tensor:
    """Class scores `(b, classes)`; a single-logit network has one class, a dense output counts by its mean."""
    scores = class_scores(trace).data.float()
    return scores[:, None] if scores.dim() == 1 else scores if scores.dim() == 2 else scores.flatten(2).mean(2)


def _one(asked: Any, model: Model) -> Target:
    if isinstance(asked, Target):
        return asked.resolved(lambda label: _class(label, model))
    if isinstance(asked, (np.ndarray, np.integer)):
        asked = asked.tolist()
    if isinstance(asked, (list, tuple, Tensor)) or _is_number(asked):
        return logit(asked)
    if callable(asked):
        return custom(asked)  # pyright: ignore[reportArgumentType]
    if not isinstance(asked, str):
        raise TargetError(f"{type(asked).__name__} came as a target; give {FORMS}")
    kind, colon, rest = asked.partition(":")
    if colon and kind == "unit":
        layer, _, channel = rest.rpartition(":")
        if not layer or not channel.isdigit():
            raise TargetError(f'"{asked}" came; write unit:LAYER:CHANNEL, such as unit:layer4:12')
        return targets.unit(layer, int(channel))
    if colon and kind in KINDS:
        return KINDS[kind](_class(rest, model))
    first, versus, second = asked.partition(" vs ")
    if versus and not _is_label(asked, model):
        return contrast(_class(first, model), _class(second, model))
    hint = nearest(kind, (*KINDS, "unit"), 1) if colon and not _is_label(asked, model) else ""
    if hint:
        raise TargetError(f'"{asked}" came, and "{kind}" is no kind of target{hint}')
    return logit(_class(asked, model))


def _class(text: str, model: Model) -> int:
    text = text.strip()
    return int(text) if text.isdigit() else model.index(text)
