"""What the tests that compare with the slow "what if" definitions share: labels, inputs, fills in pixels."""

from collections.abc import Sequence

import torch
from torch import Tensor

from method_cases import COLOURS, D, random_input
from pellucid.core.tables import Table
from pellucid.methods.run import Outcome

EXACT = 1e-9  # of the largest value: rounding in float64, the scores are some hundred times their differences


def table(found: Outcome, image: int, name: str) -> Table:
    (one,) = [t for t in found.tables[image] if t.name == name]
    return one


def numbers(found: Table, column: str) -> Tensor:
    """A column of numbers, exactly as they stand there."""
    return torch.tensor([float(str(cell)) for cell in found.column(column)], dtype=D)


def blocks(axes: int, outside: bool = False) -> Tensor:
    """Four regions of different sizes on 8 pixels along each axis; with `outside`, a corner in none."""
    cuts = torch.tensor([0, 0, 0, 1, 1, 1, 1, 1])
    rows = 2 * cuts.reshape(-1, *[1] * (axes - 1))
    labels = (rows + cuts.flip(0)).expand(*[8] * axes).clone() if axes > 1 else torch.tensor([0, 0, 0, 1, 1, 2, 3, 3])
    if outside:
        labels[(slice(0, 2),) * axes] = -1
    return labels


def as_given(labels: Tensor) -> Tensor:
    """As a user gives them: in volumes 0 is what lies outside, as in atlases."""
    return labels + 1 if labels.ndim == 3 else labels


def images(count: int, axes: int, seed: int = 0) -> Tensor:
    return random_input(count, 3, *[8] * axes, seed=seed)


def photos(count: int, axes: int = 2) -> Tensor:
    """Inputs whose pixels are uniform in 0..1, under the preprocessing `COLOURS`."""
    pixels = torch.rand(count, 3, *[8] * axes, generator=torch.Generator().manual_seed(5), dtype=D)
    return normalised(pixels)


def colours(values: Sequence[float], x: Tensor) -> Tensor:
    return torch.tensor(values, dtype=x.dtype).reshape(-1, *[1] * (x.ndim - 2))


def normalised(pixels: Tensor) -> Tensor:
    return (pixels - colours(COLOURS.mean, pixels)) / colours(COLOURS.std, pixels)


def pixels_of(x: Tensor) -> Tensor:
    return x * colours(COLOURS.std, x) + colours(COLOURS.mean, x)


def painted(name: str, x: Tensor) -> Tensor:
    """The colours of the fills as their help says, in pixels, then normalised."""
    pixels = pixels_of(x[None])[0]
    if name == "mean":
        flat = pixels.flatten(1).mean(1).reshape(-1, *[1] * (x.ndim - 1)).expand_as(pixels)
    else:
        flat = torch.full_like(pixels, {"grey": 0.5, "black": 0.0, "white": 1.0}[name])
    return normalised(flat[None])[0]
