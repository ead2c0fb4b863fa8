"""What the tests of the methods share: small networks, one-line runs, errors relative to the largest value."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from networks.common import logits, seeded
from pellucid.core.record import record
from pellucid.core.target import Target
from pellucid.images.transforms import Preprocess
from pellucid.methods import METHODS
from pellucid.methods.case import Case, Walks
from pellucid.methods.run import Outcome, attribute
from pellucid.models.model import Model, wrap

D = torch.float64
COLOURS = Preprocess(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
CONV: dict[int, Any] = {1: nn.Conv1d, 2: nn.Conv2d, 3: nn.Conv3d}
NORM: dict[int, Any] = {1: nn.BatchNorm1d, 2: nn.BatchNorm2d, 3: nn.BatchNorm3d}
POOL: dict[int, Any] = {1: nn.AdaptiveAvgPool1d, 2: nn.AdaptiveAvgPool2d, 3: nn.AdaptiveAvgPool3d}


def outcomes(model: nn.Module | Model, x: Any, method: Any, targets: Any = 1, **words: Any) -> list[Outcome]:
    """`attribute` on one input tensor or a tuple of them, settings of the method among the words."""
    own = {name: words.pop(name) for name in ("layers", "seed", "progress") if name in words}
    preprocess = words.pop("preprocess", None)
    model = wrap(model, preprocess=preprocess) if isinstance(model, nn.Module) else model
    chosen = METHODS[method](**words) if isinstance(method, str) else method
    return attribute(model, *((x,) if isinstance(x, Tensor) else x), methods=chosen, targets=targets, **own)


def outcome(model: nn.Module | Model, x: Any, method: Any, targets: Any = 1, **words: Any) -> Outcome:
    (found,) = outcomes(model, x, method, targets, **words)
    return found


def heat(model: nn.Module | Model, x: Any, method: Any, targets: Any = 1, **words: Any) -> Tensor:
    return outcome(model, x, method, targets, **words).attribution


def score(index: int = 1) -> Callable[[Any], Tensor]:
    """One class, summed over the batch, as the oracles want it."""
    return lambda output: logits(output)[:, index].sum()


def case(model: nn.Module, x: Tensor, target: Target, **words: Any) -> Case:
    trace = record(model, x)
    return Case(trace, target, Walks(trace, target), **words)


def check(found: Outcome, name: str, image: int = 0) -> float:
    """The number of one check in the receipt."""
    (value,) = [c.value for c in found.receipts[image].checks if c.name == name]
    return value


def error(found: Tensor, expected: Tensor) -> float:
    """Largest difference over the largest expected value."""
    assert found.shape == expected.shape, f"{tuple(found.shape)} instead of {tuple(expected.shape)}"
    size = expected.abs().max().clamp(min=torch.finfo(expected.dtype).tiny)
    return float((found - expected).abs().max() / size)


def close(found: Tensor, expected: Tensor, bound: float) -> None:
    size = error(found, expected)
    assert size <= bound, f"off by {size:.1e} of the largest value, allowed {bound:.0e}"


def random_input(*shape: int, seed: int = 0, dtype: torch.dtype = D) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64).to(dtype)


def plain(axes: int = 2, bias: bool = True, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """VGG-like, float64: three convolutions and a linear layer on the flattened maps; input (b, 3, 8, ...)."""
    conv = CONV[axes]

    def make() -> nn.Module:
        parts = [conv(3, 6, 3, padding=1, bias=bias), act(), conv(6, 8, 3, stride=2, padding=1, bias=bias), act()]
        parts += [conv(8, 8, 3, padding=1, bias=bias), act(), nn.Flatten(), nn.Linear(8 * 4**axes, 5, bias=bias)]
        return nn.Sequential(*parts)

    return seeded(make)().to(D)


def pooled(axes: int = 2, act: Callable[[], nn.Module] = nn.ReLU) -> nn.Module:
    """Convolutions with BatchNorm, global average, linear; float64, layer "5" is the last with maps."""
    conv, norm = CONV[axes], NORM[axes]

    def make() -> nn.Module:
        parts = [conv(3, 6, 3, padding=1), norm(6), act(), conv(6, 8, 3, padding=1, stride=2), norm(8), act()]
        return nn.Sequential(*parts, POOL[axes](1), nn.Flatten(), nn.Linear(8, 5))

    return seeded(make)().to(D)


@contextmanager
def undrawn() -> Iterator[None]:
    """Python's random numbers as before: the type checker of the tests draws which items of a list it looks at."""
    state = random.getstate()
    try:
        yield
    finally:
        random.setstate(state)


class Counted(nn.Module):
    """A network that counts its forwards and notes how many images each of them had; fails beyond `limit` images."""

    def __init__(self, inside: nn.Module, limit: int | None = None) -> None:
        super().__init__()
        self.inside, self.limit = inside.eval(), limit
        self.sizes: list[int] = []
        self.eval()

    def forward(self, x: Tensor) -> Tensor:
        self.sizes.append(len(x))
        if self.limit is not None and len(x) > self.limit:
            raise torch.OutOfMemoryError(f"{len(x)} images don't fit")
        return self.inside(x)
