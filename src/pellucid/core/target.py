"""Which number is explained: a class, a difference of classes, a unit, a region, or anything the user writes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pellucid.core.derivatives import gradient_at
from pellucid.core.errors import TargetError
from pellucid.core.trace import Trace, Value

Index = int | np.integer | str | Sequence[int] | Tensor | np.ndarray


@dataclass(frozen=True, eq=False)
class Target:
    """One number per image, read from the main output or from a layer.

    Attributes:
        words: what it is, for people, with a `{}` for each class: `logit of {}`.
        read: `(tensor, rows) -> (b,)`: the tensor read from, and for each of its images the number of
            the original image (so that per-image classes also work on repeated images).
        layer: read from this layer's output instead of the network's; `#k` picks a call.
        classes: for each `{}` the class of every image, or one class for all.
        whole: read from the output as it is, also where that ends in a softmax.
        later: for classes given by label: makes the target once a network's labels are known (`resolved`).
    """

    words: str
    read: Callable[[Tensor, Sequence[int]], Tensor]
    layer: str | None = None
    classes: tuple[tuple[int, ...], ...] = ()
    whole: bool = False
    later: "Callable[[Callable[[str], int]], Target] | None" = None

    def resolved(self, find: Callable[[str], int]) -> "Target":
        """The target with its labels looked up by `find`."""
        return self if self.later is None else self.later(find)

    def value(self, trace: Trace) -> Value:
        """The recorded value that the number is read from."""
        if self.layer is not None:
            return trace.at(self.layer)
        return trace.output if self.whole else class_scores(trace)

    def name(self, image: int = 0, label: Callable[[int], str] = str) -> str:
        """What it is for one image, with the classes called by `label`."""
        return self.words.format(*(label(c[0] if len(c) == 1 else c[image]) for c in self.classes))

    def score(self, trace: Trace, rows: Sequence[int] | None = None) -> Tensor:
        """The number for each image, shape `(b,)`."""
        data = self.value(trace).data
        return self._read(data, rows)

    def seeds(self, trace: Trace, rows: Sequence[int] | None = None) -> Mapping[Value, Tensor]:
        """`∂ score / ∂ tensor`: where a walk backwards starts."""
        value = self.value(trace)
        return {value: gradient_at(value.data, lambda t: self._read(t, rows))}

    def _read(self, data: Tensor, rows: Sequence[int] | None) -> Tensor:
        if rows is None:
            self._check_count(data.shape[0])
        number = self.read(data, list(range(data.shape[0])) if rows is None else rows)
        if not isinstance(number, Tensor) or number.numel() != data.shape[0]:
            came = tuple(number.shape) if isinstance(number, Tensor) else type(number).__name__
            raise TargetError(
                f"target {self.name()!r} gave {came} for {data.shape[0]} images; give one number per image"
            )
        return number.reshape(-1)

    def _check_count(self, images: int) -> None:
        wrong = next((c for c in self.classes if len(c) not in (1, images)), None)
        if wrong is not None:
            raise TargetError(f"{len(wrong)} classes came for {images} images; give one class for all or one per image")

    def __repr__(self) -> str:
        return f"Target({self.name()})"


def logit(index: Index) -> Target:
    """The raw score `f_c(x)` of a class before the softmax; for a dense output its mean over all positions."""
    if isinstance(index, str):
        return _by_label(logit, index)
    classes = _indices(index)
    return Target("logit of {}", lambda y, rows: _pick(_per_class(y), classes, rows), classes=(classes,))


def probability(index: Index) -> Target:
    """`softmax(f(x))_c`, or the sigmoid where the network has a single output."""
    if isinstance(index, str):
        return _by_label(probability, index)
    classes = _indices(index)

    def read(y: Tensor, rows: Sequence[int]) -> Tensor:
        scores = _per_class(y)
        shares = torch.sigmoid(scores) if scores.shape[1] == 1 else torch.softmax(scores, 1)
        return _pick(shares, classes, rows)

    return Target("probability of {}", read, classes=(classes,))


def log_probability(index: Index) -> Target:
    """`log softmax(f(x))_c`, or the log-sigmoid where the network has a single output."""
    if isinstance(index, str):
        return _by_label(log_probability, index)
    classes = _indices(index)

    def read(y: Tensor, rows: Sequence[int]) -> Tensor:
        scores = _per_class(y)
        single = scores.shape[1] == 1
        return _pick(torch.nn.functional.logsigmoid(scores) if single else torch.log_softmax(scores, 1), classes, rows)

    return Target("log-probability of {}", read, classes=(classes,))


def contrast(index: Index, against: Index) -> Target:
    """`f_a(x) − f_b(x)`: why class a rather than class b; classes by number or label."""
    if isinstance(index, str) or isinstance(against, str):
        return _by_label(contrast, index, against)
    first, second = _indices(index), _indices(against)

    def read(y: Tensor, rows: Sequence[int]) -> Tensor:
        scores = _per_class(y)
        return _pick(scores, first, rows) - _pick(scores, second, rows)

    return Target("logit of {} minus logit of {}", read, classes=(first, second))


def unit(layer: str, channel: int, position: Sequence[int] | str = "mean") -> Target:
    """One channel of a layer: its mean or max over positions, or its value at one position.

    Args:
        position: `"mean"`, `"max"`, or one coordinate per spatial axis.
    """

    def read(a: Tensor, rows: Sequence[int]) -> Tensor:
        if not 0 <= channel < a.shape[1]:
            raise TargetError(f'unit {channel} came, layer "{layer}" has {a.shape[1]} units (0 to {a.shape[1] - 1})')
        maps = a[:, channel].reshape(a.shape[0], -1)
        if isinstance(position, str):
            if position not in ("mean", "max"):
                raise TargetError(f'position "{position}" came; use "mean", "max" or coordinates')
            return maps.mean(1) if position == "mean" else maps.amax(1)
        if len(position) != a.dim() - 2 or any(not 0 <= p < n for p, n in zip(position, a.shape[2:], strict=True)):
            raise TargetError(
                f'position {tuple(position)} is not inside the maps of layer "{layer}", {tuple(a.shape[2:])}'
            )
        return a[(slice(None), channel, *position)]

    where = position if isinstance(position, str) else f"at {tuple(position)}"
    return Target(f"unit {channel} of {layer} ({where})".replace("{", "").replace("}", ""), read, layer=layer)


def region(index: Index, mask: Tensor) -> Target:
    """The mean logit of a class over a region of a dense output (segmentation).

    Args:
        mask: `(h, w)` (or one axis per spatial axis), True inside, on the grid of the network's output.
    """
    if isinstance(index, str):
        return _by_label(lambda known: region(known, mask), index)
    classes = _indices(index)

    def read(y: Tensor, rows: Sequence[int]) -> Tensor:
        inside = torch.as_tensor(mask, dtype=y.dtype, device=y.device)
        if y.dim() < 3 or inside.shape != y.shape[2:]:
            raise TargetError(
                f"a mask of {tuple(inside.shape)} came; the network's dense output has {tuple(y.shape[2:])}"
            )
        if not inside.any():
            raise TargetError("the mask is empty; mark at least one position")
        scores = (y * inside).flatten(2).sum(2) / inside.sum()
        return _pick(scores, classes, rows)

    return Target("logit of {} inside a region", read, classes=(classes,))


def _by_label(make: Callable[..., Target], *asked: Index) -> Target:
    """A target whose labels wait for a network that knows them."""

    def read(y: Tensor, rows: Sequence[int]) -> Tensor:
        raise TargetError(f"the label {asked[0]!r} needs a network with labels; give class numbers, or a pel.Model")

    def later(find: Callable[[str], int]) -> Target:
        return make(*(find(a) if isinstance(a, str) else a for a in asked))

    words = "score of " + " against ".join(map(str, asked))
    return Target(words.replace("{", "").replace("}", ""), read, later=later)


def custom(function: Callable[[Tensor], Tensor], name: str | None = None) -> Target:
    """Any function of the main output that gives one number per image."""
    words = name or getattr(function, "__name__", "custom")
    return Target(words.replace("{", "").replace("}", ""), lambda y, rows: function(y.clone()), whole=True)


def class_scores(trace: Trace) -> Value:
    """The scores before a final softmax, where the network ends in one; else its main output."""
    node = trace.output.node
    ends_in_softmax = node is not None and node.kind == "softmax" and node.inputs[0].data.dim() > 1
    return node.inputs[0] if node is not None and ends_in_softmax else trace.output


def _per_class(y: Tensor) -> Tensor:
    """`(b, classes)` from logits, a single logit, or a dense output (mean over positions)."""
    if y.dim() == 1:
        return y[:, None]
    return y if y.dim() == 2 else y.flatten(2).mean(2)


def _pick(scores: Tensor, classes: tuple[int, ...], rows: Sequence[int]) -> Tensor:
    count = scores.shape[1]
    wrong = next((c for c in classes if not 0 <= c < count), None)
    if wrong is not None:
        raise TargetError(f"class {wrong} came; the network has {count} classes (0 to {count - 1})")
    if len(classes) > 1 and max(rows, default=0) >= len(classes):
        raise TargetError(
            f"{len(classes)} classes came for {max(rows) + 1} images; give one class for all or one per image"
        )
    chosen = [classes[0] if len(classes) == 1 else classes[r] for r in rows]
    return scores.gather(1, torch.tensor(chosen, device=scores.device)[:, None])[:, 0]


def _indices(index: Any) -> tuple[int, ...]:
    if isinstance(index, (Tensor, np.ndarray, np.generic)):
        index = index.flatten().tolist()
    values: tuple[Any, ...] = tuple(index) if isinstance(index, (list, tuple, range)) else (index,)
    if not values or any(isinstance(v, bool) or not isinstance(v, int) for v in values):
        raise TargetError(f"class {index!r} came; give a class number, or one number per image")
    return values
