"""The networks that ship inside the package."""

import json
from importlib.resources import as_file, files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from pellucid.core.errors import ModelError, nearest
from pellucid.images.transforms import Preprocess
from pellucid.models.checkpoints import class_count, fit, read_state
from pellucid.models.model import Model
from pellucid.models.networks import PhotoNet
from pellucid.models.untrained import RANDOM_NOTE, is_random, seeded

CARDS = {"photos": "small residual network for photographs, trained on CIFAR-10 by this project; exact CAM"}


def shipped() -> Traversable:
    """The folder of weights inside the installed package."""
    return files("pellucid.models") / "weights"


def card(name: str) -> str:
    """What a built-in network is and how often it is right, in one line.

    Raises:
        ModelError: the package was installed without its weights.
    """
    facts = _facts(shipped(), name)
    accuracy = (
        f", {facts['test_accuracy']:.1%}".replace("%", " % right on test pictures") if "test_accuracy" in facts else ""
    )
    return f"{CARDS[name]}; {len(facts['classes'])} classes{accuracy}"


def load_builtin(name: str, weights: str | Path | None) -> Model:
    """`builtin:NAME`: architecture, weights and facts from the package itself; no network access, ever.

    Raises:
        ModelError: no such network, or the package was installed without its weights.
    """
    if name not in CARDS:
        raise ModelError(f'no built-in network "{name}"{nearest(name, CARDS) or "; there are " + ", ".join(CARDS)}')
    folder = shipped()
    facts = _facts(folder, name)
    labels = tuple(facts["classes"])
    preprocess = Preprocess(resize_px=facts["input_px"], mean=tuple(facts["mean"]), std=tuple(facts["std"]))
    with seeded():
        module = PhotoNet(len(labels))
    full = f"builtin:{name}"
    if is_random(weights):
        return Model(module, full, preprocess, labels, (RANDOM_NOTE,))
    if weights is not None:
        return _own_weights(module, full, preprocess, labels, Path(weights))
    with as_file(folder / f"{name}.safetensors") as path:
        state, notes = read_state(path)
        return Model(module, full, preprocess, labels, notes + fit(module, state, path, full))


def _own_weights(module: PhotoNet, full: str, preprocess: Preprocess, labels: tuple[str, ...], path: Path) -> Model:
    state, notes = read_state(path)
    classes = class_count(module.state_dict(), state, len(labels))
    if classes != len(labels):
        with seeded():
            module = PhotoNet(classes)
        notes += (f"{path.name} is for {classes} classes, whose names are not known",)
    return Model(
        module, full, preprocess, labels if classes == len(labels) else None, notes + fit(module, state, path, full)
    )


def _facts(folder: Traversable, name: str) -> dict[str, Any]:
    if not (folder / f"{name}.safetensors").is_file():
        raise _incomplete(name)
    try:
        return json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
    except (OSError, json.JSONDecodeError) as error:
        raise _incomplete(name) from error


def _incomplete(name: str) -> ModelError:
    return ModelError(f"the weights of builtin:{name} are not in this installation; install pellucid again")
