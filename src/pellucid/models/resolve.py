"""A network in one string: which source it names, and what is known about it there."""

import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from os import PathLike
from pathlib import Path

from torch import nn

from pellucid.core.errors import ModelError, nearest
from pellucid.images.transforms import Preprocess
from pellucid.models.builtin import CARDS, TAKES_TENSORS, card, load_builtin
from pellucid.models.checkpoints import PICKLED
from pellucid.models.from_export import load_export
from pellucid.models.from_factory import load_factory
from pellucid.models.from_hf import load_hf
from pellucid.models.from_timm import load_timm
from pellucid.models.from_torchvision import load_torchvision
from pellucid.models.libraries import EXTRAS, broken, installed, library
from pellucid.models.model import Labels, Model, assumed, read_labels, read_preprocess, wrap

FORMS = "builtin:photos, torchvision:NAME, timm:NAME, hf:NAME, FILE.pt2 or package.module:factory"
LOADERS: dict[str, Callable[[str, str | Path | None], Model]] = {
    "builtin": load_builtin,
    "torchvision": load_torchvision,
    "timm": load_timm,
    "hf": load_hf,
}
LIBRARIES = {"torchvision": "torchvision", "timm": "timm", "hf": "transformers"}
FACTORY = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*(\.[^\W\d]\w*)*")
CODE_FILES = (".onnx", ".h5", ".keras", ".pb", ".tflite", ".pkl", ".pickle", ".joblib")


@dataclass(frozen=True)
class Source:
    """One line of `pellucid models`.

    Attributes:
        spec: what to write, e.g. `"builtin:photos"` or `"timm:NAME"`.
        text: what it is.
        ready: whether it can be used on this machine.
        remedy: what to do where it can't; empty where it can.
    """

    spec: str
    text: str
    ready: bool
    remedy: str = ""


def the_model(model: Model | nn.Module | str) -> Model:
    """A network however it was named: a `Model`, a module or a string that `load` takes."""
    return load(model) if isinstance(model, str) else model if isinstance(model, Model) else wrap(model)


def load(
    spec: str | PathLike[str],
    *,
    weights: str | PathLike[str] | None = None,
    labels: Labels | None = None,
    preprocess: Preprocess | str | PathLike[str] | None = None,
) -> Model:
    """Load a network by name, in evaluation mode, with its preprocessing and labels where the source knows them.

    Args:
        spec: `builtin:photos`, `torchvision:NAME`, `timm:NAME`, `hf:NAME` (a folder or a repository of the hub),
            `FILE.pt2`, or `package.module:factory`.
        weights: a .safetensors, .pt or .pth file to fill it with; `"random"` for an untrained network; the source's
            own by default. Pickled code in a file is refused, never executed.
        labels: class names in the order of the outputs, `{index: name}`, or a .txt or .json file; the source's own
            by default.
        preprocess: how a picture becomes its input, or a .json file that says so; the source's own by default.

    Returns:
        The model; its `notes` say what was assumed.

    Raises:
        ModelError: no such network, missing or unfitting weights, or a file that can't be read.
        MissingExtraError: the library that has this network is not installed.

    Example:
        >>> load("builtin:photos")
        Model("builtin:photos", 10 labels, any input size)
    """
    text = str(spec).strip()
    given_labels, given_preprocess = read_labels(labels), read_preprocess(preprocess)
    model = _found(text, str(weights) if weights is not None else None)
    if given_labels and model.labels and len(given_labels) != len(model.labels):
        raise ModelError(
            f"{len(given_labels)} labels came, but {text} has {len(model.labels)} classes; give one for each"
        )
    if any(layer.training for layer in model.module.modules()):
        model.module.eval()
    own_labels, own_preprocess = given_labels or model.labels, given_preprocess or model.preprocess
    tensors = any(note.startswith(TAKES_TENSORS) for note in model.notes)
    notes = model.notes + assumed(own_labels, own_preprocess, takes_pictures=not tensors)
    return replace(model, labels=own_labels, preprocess=own_preprocess, notes=notes)


def sources() -> tuple[Source, ...]:
    """Every form that `load` takes, and whether it is usable here; tries to import the optional libraries."""
    own = [_own(name) for name in CARDS]
    optional = [_optional(kind, name) for kind, name in LIBRARIES.items()]
    return (
        *own,
        *optional,
        Source(
            "FILE.pt2", "a network saved by torch.export.save; archives that could run code are refused", ready=True
        ),
        Source("package.module:factory", "your own code, with weights=FILE.safetensors, .pt or .pth", ready=True),
    )


def _found(text: str, weights: str | None) -> Model:
    kind, colon, name = text.partition(":")
    if not text:
        raise ModelError(f"no network was named; write {FORMS}")
    if Path(text).suffix.lower() == ".pt2":
        if weights is not None:
            raise ModelError(
                f"{text} brings its own weights; leave weights out, or name its code as package.module:factory"
            )
        return load_export(Path(text))
    if colon and kind in LOADERS:
        if not name:
            raise ModelError(f"{text} lacks the name of a network; write {_example(kind)}")
        return LOADERS[kind](name, weights)
    _refuse_file(text)
    if not FACTORY.fullmatch(text):
        raise ModelError(_unknown(text))
    near = get_close_matches(kind, LOADERS, 1, cutoff=0.75)
    if near and not installed(kind) and not Path(f"{kind}.py").exists() and not Path(kind).is_dir():
        raise ModelError(f'no source of networks is called "{kind}"; did you mean "{near[0]}:{name}"?')
    return load_factory(text, weights)


def _refuse_file(text: str) -> None:
    suffix = Path(text).suffix.lower()
    if suffix in (".safetensors", *PICKLED):
        raise ModelError(
            f"{text} is a file of weights (or pickled code), not a network; name the network and give the file as "
            f'weights: load("package.module:factory", weights="{text}")'
        )
    if suffix in CODE_FILES:
        raise ModelError(
            f"{text} is not a format of torch; rebuild the network in torch and name it as package.module:factory"
        )
    if suffix == ".py" or ".py:" in text:
        stem = Path(text.partition(":")[0]).stem
        raise ModelError(f"{text}: write the module and the function, {stem}:build, and start where {stem}.py lies")


def _unknown(text: str) -> str:
    if text in CARDS:
        return f'"{text}" is built in; write builtin:{text}'
    if ":" in text:
        return f'"{text}" names no network; write {FORMS}'
    known = f"; if it is a network of torchvision, write torchvision:{text}" if text.isidentifier() else ""
    return f'"{text}" names no source of networks{nearest(text, CARDS)}{known}; the forms are {FORMS}'


def _example(kind: str) -> str:
    names = {"builtin": "photos", "torchvision": "resnet50", "timm": "resnet50", "hf": "microsoft/resnet-50"}
    return f"{kind}:{names[kind]}"


def _own(name: str) -> Source:
    try:
        return Source(f"builtin:{name}", card(name), ready=True)
    except ModelError as error:
        return Source(f"builtin:{name}", CARDS[name], ready=False, remedy=str(error))


def _optional(kind: str, name: str) -> Source:
    text = f"the networks of {name}, with their weights, labels and preprocessing"
    if not installed(name):
        return Source(f"{kind}:NAME", text, ready=False, remedy=f'pip install "pellucid[{EXTRAS[name]}]"')
    try:
        found = library(name)
        if name == "transformers":
            _ = found.AutoModelForImageClassification, found.AutoImageProcessor
    except ModelError as error:
        return Source(f"{kind}:NAME", text, ready=False, remedy=str(error))
    except (ImportError, RuntimeError) as error:
        return Source(f"{kind}:NAME", text, ready=False, remedy=str(broken(name, error)))
    return Source(f"{kind}:NAME", text, ready=True)
