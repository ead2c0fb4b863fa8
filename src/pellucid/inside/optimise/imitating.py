"""Pictures after a picture: what a layer keeps of it, and what it would exaggerate."""

from dataclasses import replace
from math import inf
from typing import Any

from torch import nn

from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress
from pellucid.inside.opened import Opened, pictured
from pellucid.inside.optimise.groups import exaggeration, likeness, total_variation
from pellucid.inside.optimise.making import Plan, carried_out, pixels_of, plan
from pellucid.inside.optimise.optimised import Optimised
from pellucid.inside.optimise.transforms import Transforms
from pellucid.inside.optimise.wishes import Objective
from pellucid.models.model import Model

SHIFTS = Transforms(None, (0.95, 1.05), 5.0, None)


def invert(
    model: Model | nn.Module | str,
    image: Any,
    layer: str | list[str] | None = None,
    *,
    smoothness: float | int = 0.02,
    parametrisation: str = "fourier",
    steps: int = 256,
    count: int = 1,
    data: Any = None,
    transforms: Transforms | str = SHIFTS,
    learning_rate: float | int = 0.05,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Optimised:
    """Find a picture that a layer can't tell from a given one, `argmin_u ‖A(u) − A₀‖² / ‖A₀‖² + λ TV(u)`.

    It starts from noise: what comes back is what the layer keeps, what does not is lost to it. Both pictures are seen
    under the same small shifts.

    Args:
        image: the picture, or a tensor of one input.
        layer: one or several; the last with maps by default.
        smoothness: λ, on the mean total variation of pixels in [0, 1].
        count: pictures from different noise; where they differ the layer does not care.
        data: pictures for the colours.

    Returns:
        The value of each is `− ‖A(u) − A₀‖² / ‖A₀‖² − λ TV(u)`: 0 would be a perfect match.

    Raises:
        LayerError: no such layer.
        ImageError: the picture can't be read.

    Source: Mahendran & Vedaldi 2015, arXiv:1412.0035; Olah et al. 2017 (the parametrisation).
    """
    if not smoothness >= 0:
        raise SettingError(f"smoothness is at least 0, not {smoothness}")
    known = pictured(model, image)
    made = _imitated(known, image, parametrisation, steps, data, transforms, learning_rate, seed)
    asked = [
        _named(likeness(name) - smoothness * total_variation(), f"match of {name}") for name in _layers(known, layer)
    ]
    found = carried_out(made, asked, count=count, progress=progress)
    return replace(found, settings=found.settings | {"smoothness": smoothness})


def caricature(
    model: Model | nn.Module | str,
    image: Any,
    layer: str | list[str] | None = None,
    *,
    cosine_power: float | int = 4,
    parametrisation: str = "fourier",
    steps: int = 256,
    data: Any = None,
    transforms: Transforms | str = SHIFTS,
    learning_rate: float | int = 0.05,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Optimised:
    """Exaggerate what a layer sees in a picture, `argmax_u A(u)·A₀ / ‖A₀‖² max(0.1, cos(A(u), A₀))^p`.

    The value is 1 for the picture itself and above for a caricature. It starts from noise.

    Args:
        image: the picture, or a tensor of one input.
        layer: one or several; the last with maps by default.
        cosine_power: p; the higher, the closer it keeps to the picture.

    Raises:
        LayerError: no such layer.
        ImageError: the picture can't be read.

    Source: Lucid (Olah et al. 2018), notebook "Activation-vector caricatures".
    """
    if not 0 <= cosine_power < inf:
        raise SettingError(f"cosine_power={cosine_power} came; use a number from 0 on, such as 4")
    known = pictured(model, image)
    made = _imitated(known, image, parametrisation, steps, data, transforms, learning_rate, seed)
    asked = [exaggeration(name, cosine_power) for name in _layers(known, layer)]
    return carried_out(made, asked, progress=progress)


def _imitated(
    known: Opened,
    image: Any,
    parametrisation: str,
    steps: int,
    data: Any,
    transforms: Transforms | str,
    learning_rate: float | int,
    seed: int,
) -> Plan:
    if parametrisation not in ("fourier", "pixels"):
        raise SettingError(f'a picture is imitated with "fourier" or "pixels", not {parametrisation!r}')
    made = plan(
        known, parametrisation=parametrisation, steps=steps, size_px=None, transforms=transforms, colour=None,
        data=data, learning_rate=learning_rate, seed=seed, snapshots=(),
    )  # fmt: skip
    return replace(made, wished=pixels_of(made, image))


def _layers(known: Opened, given: str | list[str] | None) -> list[str]:
    return [known.layer(name) for name in (given if isinstance(given, list) else [given])]


def _named(objective: Objective, words: str) -> Objective:
    return Objective(words, objective.on)
