"""The networks that ship inside the package."""

import json
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from torch import nn

from pellucid.core.errors import ModelError, nearest
from pellucid.images.transforms import Preprocess
from pellucid.models.checkpoints import class_count, fit, read_state
from pellucid.models.model import Model
from pellucid.models.networks import build
from pellucid.models.untrained import RANDOM_NOTE, is_random, seeded

CARDS = {
    "photos": "small residual network for photographs, trained on CIFAR-10 by this project; exact CAM",
    "scenes": "plain network (no BatchNorm) for drawn scenes whose decisive pixels are known",
    "scenes-watermark": "the same structure, gone astray on purpose: it goes by a watermark",
    "scenes-background": "the same structure, gone astray on purpose: it goes by the background",
    "scenes-bagnet": "network for scenes that sees 22 pixels at a time, so that its evidence is local",
    "scenes-batchnorm": "network for scenes with BatchNorm after each convolution",
    "scenes-preactivation": "network for scenes with pre-activation residual blocks",
    "scenes-relu6": "network for scenes with depthwise convolutions and ReLU6",
    "volumes": "3-D network for made-up brain volumes whose decisive region is known; takes tensors",
}
TAKES_TENSORS = "takes tensors"
SHARES = {
    "test_accuracy": "right on test pictures",
    "clean_accuracy": "right without the mark",
    "flipped_fraction": "flipped by the mark of another class",
}


def shipped() -> Traversable:
    """The folder of weights inside the installed package."""
    return files("pellucid.models") / "weights"


def card(name: str) -> str:
    """What a built-in network is and how often it is right, in one line.

    Raises:
        ModelError: the package was installed without its weights.
    """
    facts = _facts(shipped(), name)
    figures = {**facts, **facts.get("figures", {})}
    known = [f"{figures[key]:.1%}".replace("%", " % ") + said for key, said in SHARES.items() if key in figures]
    return "; ".join([CARDS[name], ", ".join([f"{len(facts['classes'])} classes", *known])])


def load_builtin(name: str, weights: str | Path | None) -> Model:
    """`builtin:NAME`: architecture, weights and facts from the package itself; no network access, ever.

    Raises:
        ModelError: no such network, or the package was installed without its weights.
    """
    if name not in CARDS:
        raise ModelError(f'no built-in network "{name}"{nearest(name, CARDS) or "; there are " + ", ".join(CARDS)}')
    folder = shipped()
    facts = _facts(folder, name)
    labels, preprocess, notes = tuple(facts["classes"]), _preprocess(facts), _taken(facts)
    with seeded():
        module = _module(facts, len(labels))
    full = f"builtin:{name}"
    if is_random(weights):
        return Model(module, full, preprocess, labels, (RANDOM_NOTE, *notes))
    if weights is None:
        with as_file(folder / f"{name}.safetensors") as path:
            state, read = read_state(path)
            return Model(module, full, preprocess, labels, notes + read + fit(module, state, path, full))
    path = Path(weights)
    state, read = read_state(path)
    classes = class_count(module.state_dict(), state, len(labels))
    if classes != len(labels):
        with seeded():
            module = _module(facts, classes)
        notes += (f"{path.name} is for {classes} classes, whose names are not known",)
    own_labels = labels if classes == len(labels) else None
    return Model(module, full, preprocess, own_labels, notes + read + fit(module, state, path, full))


def _module(facts: dict[str, Any], classes: int) -> nn.Module:
    return build(facts.get("architecture", "photo"), classes)


def _preprocess(facts: dict[str, Any]) -> Preprocess | None:
    """How a picture becomes the input; None for a network that takes no pictures."""
    if "input_px" not in facts:
        return None
    return Preprocess(resize_px=facts["input_px"], mean=tuple(facts["mean"]), std=tuple(facts["std"]))


def _taken(facts: dict[str, Any]) -> tuple[str, ...]:
    """What a network takes that takes no pictures."""
    shape = facts.get("input_shape")
    return (f"{TAKES_TENSORS} of shape (n, {', '.join(map(str, shape))}) with values in [0, 1]",) if shape else ()


def _facts(folder: Traversable, name: str) -> dict[str, Any]:
    if not (folder / f"{name}.safetensors").is_file():
        raise _incomplete(name)
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise _incomplete(name) from error


def _incomplete(name: str) -> ModelError:
    return ModelError(f"the weights of builtin:{name} are not in this installation; install pellucid again")
