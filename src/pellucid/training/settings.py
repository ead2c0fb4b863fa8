"""What a training was asked to do, checked before it begins."""

from dataclasses import dataclass
from math import cos, isfinite, pi
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import SGD, AdamW, Optimizer

from pellucid.core.errors import ModelError, SettingError

OPTIMIZERS = ("adamw", "sgd")
PRECISIONS = ("float32", "bfloat16")

WARM_UP_FRACTION = 0.25
FIRST, LAST = 1 / 25, 1e-4  # learning rates of the first and the last step, in units of the peak


@dataclass(frozen=True)
class Settings:
    """The numbers of a training; `fit` explains each."""

    epochs: int
    batch: int
    peak_learning_rate: float
    seed: int
    optimizer: str
    weight_decay: float
    label_smoothing: float
    clip_norm: float | None
    precision: str
    patience: int | None

    def __post_init__(self) -> None:
        for name in ("epochs", "batch", "patience"):
            _at_least(name, getattr(self, name), 1)
        _at_least("seed", self.seed, 0)
        for name in ("peak_learning_rate", "clip_norm"):
            _above_zero(name, getattr(self, name))
        if not 0 <= self.weight_decay < 1:
            raise SettingError(f"weight_decay lies in [0, 1), not {self.weight_decay!r}")
        if not 0 <= self.label_smoothing < 1:
            raise SettingError(f"label_smoothing lies in [0, 1), not {self.label_smoothing!r}")
        for name, known in (("optimizer", OPTIMIZERS), ("precision", PRECISIONS)):
            if getattr(self, name) not in known:
                raise SettingError(f'no {name} "{getattr(self, name)}"; there are {", ".join(known)}')

    def made_optimizer(self, module: nn.Module) -> Optimizer:
        """The optimizer over the parameters that require a gradient.

        Raises:
            ModelError: no parameter does.
        """
        parameters = [p for p in module.parameters() if p.requires_grad]
        if not parameters:
            raise ModelError(f"{type(module).__name__} has no parameter that requires a gradient; unfreeze some")
        lr, decay = self.peak_learning_rate, self.weight_decay
        if self.optimizer == "sgd":
            return SGD(parameters, lr, momentum=0.9, nesterov=True, weight_decay=decay)
        return AdamW(parameters, lr, weight_decay=decay)

    def learning_rate(self, step: int, steps: int) -> float:
        """One cycle: half a cosine from the first value up to the peak in a quarter of the steps, another down.

        Args:
            step: number of the step, from 0.
            steps: how many there are.

        Source: Smith and Topin 2018, "Super-convergence", arXiv:1708.07120; cosines as in fast.ai.
        """
        rise = max(1, round(WARM_UP_FRACTION * steps))
        low, place = (FIRST, step / rise) if step < rise else (LAST, (steps - 1 - step) / max(1, steps - 1 - rise))
        return self.peak_learning_rate * (low + (1 - low) * (1 - cos(pi * place)) / 2)


def check_data(name: str, x: Tensor, y: Tensor, classes: int | None = None) -> None:
    """Refuse what can't be learnt from.

    Args:
        name: what to call the data in an error.
        x: `(n, c, …)`, uint8 or floats.
        y: `(n,)` class numbers.
        classes: how many classes the network has; not checked where None.

    Raises:
        SettingError: empty, of different numbers, of wrong kinds, not finite, or labels outside the classes.
    """
    if x.ndim < 2 or y.ndim != 1 or len(x) != len(y):
        raise SettingError(
            f"{name}: inputs of shape {tuple(x.shape)} came with labels of shape {tuple(y.shape)}; "
            "expected (n, channels, …) and (n,) with the same n"
        )
    if x.numel() == 0:
        raise SettingError(f"{name}: inputs of shape {tuple(x.shape)} hold nothing; give at least one picture")
    if y.is_floating_point() or y.is_complex() or y.dtype == torch.bool:
        raise SettingError(f"{name}: labels are of {y.dtype}; give class numbers, y.long()")
    if not (x.dtype == torch.uint8 or x.is_floating_point()):
        raise SettingError(f"{name}: inputs are of {x.dtype}; give uint8 in [0, 255] or floats")
    if x.is_floating_point() and not bool(torch.isfinite(x).all()):
        raise SettingError(f"{name}: some inputs are not finite; take NaN and infinity out of them")
    low, high = int(y.min()), int(y.max())
    if classes is not None and not 0 <= low <= high < classes:
        raise SettingError(
            f"{name}: labels from {low} to {high} came, but the network has {classes} classes; "
            f"give numbers from 0 to {classes - 1}"
        )


def described(thing: Any) -> str:
    """A name by which a checkpoint knows a function or a record of settings again."""
    return str(getattr(thing, "__qualname__", thing if thing is None else repr(thing)))


def _at_least(name: str, value: Any, least: int) -> None:
    if value is not None and (type(value) is not int or value < least):
        raise SettingError(f"{name} is a whole number of at least {least}, not {value!r}")


def _above_zero(name: str, value: float | None) -> None:
    if value is not None and not (isfinite(value) and value > 0):
        raise SettingError(f"{name} is a finite number above 0, not {value!r}")
