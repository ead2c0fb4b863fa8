"""What the networks for tests share: seeds, unsettled statistics, a trunk to hang one oddity on."""

from collections.abc import Callable
from dataclasses import is_dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

Shapes = tuple[tuple[int, ...], ...]
Factory = Callable[[], nn.Module]
Entry = tuple[Factory, Shapes]

IMAGE: Shapes = ((2, 3, 12, 12),)


def unsettle(model: nn.Module, seed: int = 0) -> nn.Module:
    """BatchNorm statistics and affine parameters of all normalisations, away from 0 and 1; some slopes negative."""
    random = torch.Generator().manual_seed(seed)

    def uniform(t: Tensor, low: float, high: float) -> None:
        t.copy_(torch.rand(t.shape, generator=random) * (high - low) + low)

    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, _BatchNorm) and module.running_mean is not None and module.running_var is not None:
                uniform(module.running_mean, -0.5, 0.5)
                uniform(module.running_var, 0.5, 2.0)
            if isinstance(module, _BatchNorm | nn.LayerNorm | nn.GroupNorm | nn.InstanceNorm2d):
                if module.weight is not None:
                    uniform(module.weight, 0.5, 1.5)
                    module.weight.flatten()[::5].neg_()
                if module.bias is not None:
                    uniform(module.bias, -0.3, 0.3)
    return model


def seeded(make: Callable[[], nn.Module], seed: int = 0) -> Factory:
    """A factory that always gives the same network, in evaluation mode, and leaves torch's random state alone."""

    def factory() -> nn.Module:
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return unsettle(make(), seed).eval()

    return factory


def example(shapes: Shapes, seed: int = 0, dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
    """One random input per shape."""
    random = torch.Generator().manual_seed(seed)
    return tuple(torch.randn(shape, generator=random, dtype=torch.float64).to(dtype) for shape in shapes)


def logits(output: Any) -> Tensor:
    """The tensor of scores in a tensor, tuple, dict, or object with `.logits`."""
    if isinstance(output, Tensor):
        return output
    if isinstance(output, dict):
        return output["logits"] if "logits" in output else output["out"]
    if is_dataclass(output) or hasattr(output, "logits"):
        return output.logits  # type: ignore[union-attr]
    return output[0]


def class_one(output: Any) -> Tensor:
    """A scalar score that any output has: class 1 (or the only value), summed over batch and places."""
    found = logits(output)
    return found.sum() if found.ndim == 1 or found.shape[1] == 1 else found[:, 1].sum()


class Trunk(nn.Module):
    """conv, BatchNorm, `middle` (what the test is about: 8 channels in, 8 out), conv, global average, linear."""

    def __init__(self, channels: int = 8, classes: int = 5) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1)
        self.head = nn.Linear(channels, classes)

    def middle(self, x: Tensor) -> Tensor:
        return x

    def forward(self, x: Tensor) -> Tensor:
        x = self.middle(self.bn1(self.conv1(x)))
        return self.head(torch.tanh(self.conv2(x)).mean((2, 3)))
