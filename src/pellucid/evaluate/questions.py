"""Which scenes a network is shown, and which of its numbers is to be explained."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, get_args

import numpy as np
from jaxtyping import Bool

from pellucid.core.errors import ModelError, SettingError, check_known
from pellucid.core.target import Target, contrast, logit
from pellucid.images.scenes import CLASSES, Rendered, Scene, Shortcut, cleaned, planted, render, sibling, without
from pellucid.images.scenes.shortcuts import checked
from pellucid.models.builtin import shipped
from pellucid.models.model import Model

TruthName = Literal["decisive", "mark"]
TargetName = Literal["contrast", "logit"]
MARK = "mark"  # the name of a planted mark among the parts
LEAST_SEEN_PX = 8  # what is seen in fewer pixels is not asked about


@dataclass(frozen=True, eq=False)
class Posed:
    """A painted scene and the two classes that are asked about, by name; the first is the right answer."""

    picture: Rendered
    label: str
    against: str
    mask: Bool[np.ndarray, "h w"]


@dataclass(frozen=True)
class Question:
    """What is asked of every scene.

    "decisive": why this class and not its sibling? The truth is the decisive mask, and the scene is shown as it is.
    "mark": the mark of another class is pasted in; why does the network now say that class? The truth is the mark.

    Attributes:
        target: "contrast", the logit of the class minus that of the other one (the sibling, or what the scene really
            shows), or "logit", that of the class alone.
        shortcut: what is planted where truth is "mark".
    """

    truth: TruthName
    target: TargetName
    shortcut: Shortcut | None = None

    @property
    def words(self) -> str:
        """What is explained, for people."""
        first, second = ("class", "its sibling") if self.truth == "decisive" else ("mark's class", "the scene's own")
        return f"logit of the {first}" + (f" minus logit of {second}" if self.target == "contrast" else "")

    def pose(self, scene: Scene) -> Posed | None:
        """The scene as it is shown; None where the mask is hidden, or no other class has a mark."""
        label, against = scene.label, sibling(scene.label)
        if self.truth == "mark":
            other = other_class(scene, self.shortcut)
            if self.shortcut is None or other is None:
                return None
            scene, label, against = planted(scene, self.shortcut, other), other, scene.label
        picture = render(scene)
        mask = picture.decisive if self.truth == "decisive" else picture.mark
        return Posed(picture, label, against, mask) if mask.sum() >= LEAST_SEEN_PX else None

    def targets(self, posed: Sequence[Posed], classes: dict[str, int]) -> Target:
        """The number to explain, one class, or pair of classes, per picture."""
        labels = [classes[one.label] for one in posed]
        return logit(labels) if self.target == "logit" else contrast(labels, [classes[one.against] for one in posed])


def other_class(scene: Scene, shortcut: Shortcut | None) -> str | None:
    """A class that has a mark, other than the scene's own; which one depends on the scene's seed only."""
    named = CLASSES if shortcut is None or shortcut.classes is None else shortcut.classes
    others = [name for name in named if name != scene.label]
    return others[scene.seed % len(others)] if others else None


def removable(posed: Posed) -> dict[str, tuple[Bool[np.ndarray, "h w"], Scene]]:
    """Each part that is seen, and the mark: where, and the scene as if it had never been there."""
    picture, scene = posed.picture, posed.picture.scene
    found = {name: (picture.part(name), without(scene, name)) for name in scene.parts}
    if scene.marks:
        found[MARK] = (picture.mark, cleaned(scene))
    return {name: (place, rest) for name, (place, rest) in found.items() if place.sum() >= LEAST_SEEN_PX}


def choose_question(
    model: Model, truth: str | None = None, target: str | None = None, shortcut: Shortcut | None = None
) -> Question:
    """What is asked of a network: about the mark where it is known to follow one, else about the decisive pixels.

    Raises:
        SettingError: an unknown word, or a mark is asked for and nobody said which.
    """
    if truth == "decisive" and shortcut is not None:
        raise SettingError(
            'truth="decisive" and a shortcut came; leave out one of them: a mark is asked about with "mark"'
        )
    shortcut = shortcut or shortcut_of(model)
    truth = truth or ("decisive" if shortcut is None else "mark")
    target = target or ("contrast" if truth == "decisive" else "logit")
    check_known("truth", truth, get_args(TruthName))
    check_known("target", target, get_args(TargetName))
    if truth == "decisive":
        return Question("decisive", target)  # pyright: ignore[reportArgumentType]
    if shortcut is None:
        raise SettingError(
            f'truth="mark" needs a shortcut that {model.name} follows, and none is known; give '
            'shortcut=scenes.Shortcut("watermark"), or rank builtin:scenes-watermark'
        )
    checked([shortcut])
    return Question("mark", target, shortcut)  # pyright: ignore[reportArgumentType]


def classes_of(model: Model) -> dict[str, int]:
    """The output of each class of the scenes.

    Raises:
        ModelError: the network has no labels, or lacks a class; or its preprocessing is not known.
    """
    missing = [name for name in CLASSES if name not in (model.labels or ())]
    if missing:
        knows = f'lacks "{missing[0]}"' if model.labels else "has no labels"
        raise ModelError(
            f"{model.name} {knows}, and only a network that knows the {len(CLASSES)} classes of the scenes can be "
            "ranked on them; use builtin:scenes, or one trained on `pellucid scenes make` and wrapped with labels"
        )
    if model.preprocess is None:
        raise ModelError(
            f"how {model.name} wants its pictures is not known; wrap it with preprocess=pel.preprocess(mean=…, std=…)"
        )
    return {name: (model.labels or ()).index(name) for name in CLASSES}


def shortcut_of(model: Model) -> Shortcut | None:
    """The shortcut that a network that ships inside was trained to follow, as its card tells; None for the others."""
    source, _, name = model.name.partition(":")
    place = shipped() / f"{name}.json"
    if source != "builtin" or not place.is_file():
        return None
    told: dict[str, Any] | str | None = json.loads(place.read_text(encoding="utf-8")).get("shortcut")
    if not told:
        return None
    if isinstance(told, str):
        return Shortcut(told)
    classes = tuple(told["classes"]) if told.get("classes") else None
    return Shortcut(told["kind"], told.get("strength", 1.0), told.get("share", 1.0), classes)
