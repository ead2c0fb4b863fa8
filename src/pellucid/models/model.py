"""A network with what one needs to know to explain it: labels, preprocessing, and what was assumed."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

from torch import Tensor, nn
from torch.nn.modules.conv import _ConvNd
from torch.nn.parameter import is_lazy

from pellucid.core.errors import ModelError, SettingError, TargetError, nearest
from pellucid.images.transforms import Preprocess

MAX_TEXT_BYTES = 16 * 1024 * 1024
SHOWN_LABELS = 12

Labels = Sequence[str] | Mapping[int, str] | Mapping[str, str] | str | PathLike[str]


@dataclass(frozen=True, eq=False)
class Model:
    """A network, never changed by pellucid, and the facts about it.

    Attributes:
        module: the user's own module, in the mode the user left it.
        name: how it was asked for (`"torchvision:resnet50"`) or its class name.
        preprocess: how a picture becomes its input; None where nobody said.
        labels: the class names in the order of the outputs; None where nobody said.
        notes: what was assumed on the way, one sentence each.
    """

    module: nn.Module
    name: str
    preprocess: Preprocess | None = None
    labels: tuple[str, ...] | None = None
    notes: tuple[str, ...] = ()

    def __call__(self, *x: Any) -> Any:
        return self.module(*x)

    def __repr__(self) -> str:
        labels = f"{len(self.labels)} labels" if self.labels else "no labels"
        size = self.preprocess.input_size_px if self.preprocess else None
        taken = (
            f"input {size[0]}×{size[1]} px" if size else ("any input size" if self.preprocess else "no preprocessing")
        )
        return f'Model("{self.name}", {labels}, {taken})'

    def label(self, index: int) -> str:
        """The name of class `index`; `"class 7"` where the network has no labels.

        Raises:
            TargetError: the network has labels, but none of this number.
        """
        if index >= 0 and self.labels is None:
            return f"class {index}"
        if self.labels is None or not 0 <= index < len(self.labels):
            known = (
                f"has labels for the classes 0 to {len(self.labels) - 1}" if self.labels else "counts classes from 0"
            )
            raise TargetError(f"no class {index}; {self.name} {known}, give one label for each output of the network")
        return self.labels[index]

    def index(self, label_text: str) -> int:
        """The number of the class called `label_text`, upper and lower case alike.

        A label may hold several names parted by commas ("tench, Tinca tinca"). Tried in this order, each must
        be met by one class only: the whole label, one of its names, any part of it.

        Raises:
            TargetError: no label fits, or several do.
        """
        if self.labels is None:
            raise TargetError(
                f'{self.name} has no labels, so there is no "{label_text}"; give the class number, or labels=…'
            )
        sought = label_text.strip().casefold()
        plain = [label.casefold() for label in self.labels]
        tests = (
            lambda label: label == sought,
            lambda label: sought in (name.strip() for name in label.split(",")),
            lambda label: bool(sought) and sought in label,
        )
        for fits in tests:
            found = [index for index, label in enumerate(plain) if fits(label)]
            if len(found) == 1:
                return found[0]
            if found:
                raise TargetError(self._several(label_text, found))
        raise TargetError(f'no class is called "{label_text}" in {self.name}{self._near(label_text)}')

    def _several(self, text: str, found: Sequence[int]) -> str:
        shown = ", ".join(f'{index} "{self.label(index)}"' for index in found[:5]) + (", …" if len(found) > 5 else "")
        return f'"{text}" fits {len(found)} classes of {self.name}: {shown}; give the number of one'

    def _near(self, text: str) -> str:
        names = {name.strip().casefold(): name.strip() for label in self.labels or () for name in label.split(",")}
        hint = nearest(text.strip().casefold(), names)
        few = self.labels is not None and len(self.labels) <= SHOWN_LABELS
        known = f"; its classes are {', '.join(self.labels or ())}" if few else "; model.labels holds its class names"
        return hint or f"{known}, and a class number works as well"


def wrap(
    module: nn.Module,
    *,
    labels: Labels | None = None,
    preprocess: Preprocess | str | PathLike[str] | None = None,
    name: str | None = None,
) -> Model:
    """Take a module as it is: nothing about it is changed, not even its mode.

    Args:
        module: the network.
        labels: class names in the order of the outputs, `{index: name}`, or a .txt (one a line) or .json file.
        preprocess: how a picture becomes its input, or the .json file that says so.
        name: what to call it; its class name by default.

    Raises:
        ModelError: `module` is not a module, or a file can't be read.
    """
    if not isinstance(module, nn.Module):
        what = (
            f"the class {module.__name__}" if isinstance(module, type) else f"an object of type {type(module).__name__}"
        )
        raise ModelError(
            f"a network must be a torch.nn.Module, but {what} came; give the module itself, e.g. wrap(Net())"
        )
    given_labels, given_preprocess = read_labels(labels), read_preprocess(preprocess)
    notes = assumed(given_labels, given_preprocess)
    if getattr(module, "training", False):  # a frozen TorchScript module has no mode
        notes += ("the network is in training mode; call module.eval() before explaining it",)
    return Model(module, name or type(module).__name__, given_preprocess, given_labels, notes)


def assumed(
    labels: tuple[str, ...] | None, preprocess: Preprocess | None, *, takes_pictures: bool = True
) -> tuple[str, ...]:
    """One sentence for each fact that nobody gave; a network of tensors needs no preprocessing of pictures."""
    notes = ()
    if labels is None:
        notes += ("no labels are known, classes are called by their number; give labels=…",)
    if preprocess is None and takes_pictures:
        notes += ("no preprocessing is known for this network; give preprocess=…",)
    return notes


def read_labels(source: Labels | None) -> tuple[str, ...] | None:
    """Class names in the order of the outputs.

    Args:
        source: names, `{index: name}`, or the path of a .txt (one a line) or .json (list or `{index: name}`) file.

    Raises:
        ModelError: a file that can't be read, names that are no text, or numbers that leave a gap.
    """
    if source is None:
        return None
    where = "labels"
    if isinstance(source, str | PathLike):
        where, source = str(source), _labels_of_file(Path(source))
    if isinstance(source, Mapping):
        source = _in_order(source, where)
    if not isinstance(source, Sequence) or not source or not all(isinstance(label, str) for label in source):
        raise ModelError(
            f"{where}: expected a list of class names or {{index: name}}, one for each output of the network"
        )
    return tuple(source)


def read_preprocess(source: Preprocess | str | PathLike[str] | None) -> Preprocess | None:
    """The preprocessing itself, or what a .json file says about it.

    Raises:
        ModelError: the file can't be read or does not describe a preprocessing.
    """
    if source is None or isinstance(source, Preprocess):
        return source
    if not isinstance(source, str | PathLike):
        raise ModelError(f"preprocess must be pel.preprocess(…) or a .json file, but {type(source).__name__} came")
    return preprocess_of(read_json(Path(source)), str(source))


def preprocess_of(facts: Any, where: str) -> Preprocess:
    """A Preprocess out of parsed JSON; an error names where it came from."""
    try:
        return Preprocess.from_json(facts)
    except (SettingError, TypeError, ValueError, KeyError, AttributeError) as error:
        raise ModelError(
            f"{where} does not describe a preprocessing ({error}); pel.preprocess(…).to_json() shows how"
        ) from error


def read_json(path: Path) -> Any:
    """Parsed JSON of a file the user named."""
    try:
        return json.loads(read_text(path))
    except (ValueError, RecursionError) as error:
        raise ModelError(f"{path} is not JSON ({error}); mend the file or give the values in Python") from error


def read_text(path: Path) -> str:
    """UTF-8 text of a file the user named, of at most MAX_TEXT_BYTES."""
    try:
        with path.open("rb") as file:
            data = file.read(MAX_TEXT_BYTES + 1)
        if len(data) > MAX_TEXT_BYTES:
            raise ModelError(f"{path} is larger than {MAX_TEXT_BYTES:,} bytes; is it the right file?")
        return data.decode("utf-8-sig")
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
        raise ModelError(f"{path} can't be read ({why}); check the path, the file must be UTF-8 text") from error


def check_input(model: Model, x: Tensor) -> None:
    """Refuse a wrong channel count where the first layer makes it plain.

    Silent where the first layer with parameters is no convolution, or where any other layer of the network takes
    that many channels: the order in which layers were defined need not be the order in which they run.

    Args:
        x: `(b, c, …)` or `(c, …)`, the input as the network would get it.

    Raises:
        ModelError: says how many channels came and how many the first convolution expects.
    """
    layers = [(name, layer) for name, layer in model.module.named_modules() if layer._parameters]
    if not layers or not isinstance(layers[0][1], _ConvNd) or is_lazy(layers[0][1].weight):
        return
    name, first = layers[0][0], layers[0][1]
    space = len(first.kernel_size)
    if x.ndim not in (space + 1, space + 2):
        return
    came, wanted = x.shape[-space - 1], first.in_channels
    if came != wanted and all(getattr(layer, "in_channels", None) != came for _, layer in layers):
        settable = f"set channels={wanted} in preprocess=pel.preprocess(…)"
        remedy = settable if wanted in (1, 3) else f"give an input with {wanted} channels"
        raise ModelError(f'{model.name} takes {wanted} channels ("{name}"), but the input has {came}; {remedy}')


def _labels_of_file(path: Path) -> Any:
    if path.suffix.lower() == ".json":
        return read_json(path)
    if path.suffix.lower() != ".txt":
        raise ModelError(f"labels {path}: expected a .txt (one a line) or a .json file; a list in Python works as well")
    return [line.strip() for line in read_text(path).strip().splitlines()]


def _in_order(names: Mapping[Any, str], where: str) -> list[str]:
    try:
        by_index = {int(index): name for index, name in names.items()}
    except (TypeError, ValueError) as error:
        raise ModelError(f"{where}: expected class numbers as keys, e.g. {{0: 'cat', 1: 'dog'}} ({error})") from error
    missing = next((index for index in range(len(by_index)) if index not in by_index), None)
    if missing is not None:
        raise ModelError(f"{where}: class {missing} has no name; give every class from 0 to {max(by_index)} one")
    return [by_index[index] for index in range(len(by_index))]
