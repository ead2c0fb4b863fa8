"""`maps`: a network opened on one picture, every channel of every layer measured."""

from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from torch import Tensor, nn

from pellucid.core.derivatives import Grads, exact
from pellucid.core.errors import ImageError, LayerError, TargetError
from pellucid.core.progress import Progress
from pellucid.core.pull import Rules
from pellucid.core.target import Target
from pellucid.core.trace import Node, Value
from pellucid.inside.maps.channels import limits_of, measured, usable
from pellucid.inside.maps.layer import LayerMaps
from pellucid.inside.maps.result import Maps
from pellucid.inside.maps.spread import Spread, spreads
from pellucid.inside.opened import Opened, pictured
from pellucid.methods.choose import choose_targets
from pellucid.methods.pictures import seen
from pellucid.models.model import Model


def maps(
    model: Model | nn.Module | str,
    image: Any,
    layers: str | Sequence[str] | None = None,
    *,
    data: Any = None,
    target: Any = "top1",
    progress: Progress | bool | None = None,
) -> Maps:
    """Every channel of any layer for one picture: what is active where, and which layer carries the decision.

    Args:
        image: whatever `explain` takes for one picture, or an input `(1, c, *space)`.
        layers: names; every layer that gives out units where it is None (of several that give out the same, one).
        data: a data set (a folder, pictures, inputs) or `Exemplars`, for percentiles of every channel; with it a
            unit is dead only if it is zero in every picture.
        target: whose support is counted: the gradient times the activation, summed over the positions.
        progress: where to report; a bar on a terminal or in a notebook by default.

    Raises:
        LayerError: no such layer; the nearest names are offered.
        ImageError: the picture can't be read, or several inputs came.

    Example:
        >>> from pellucid.inside.maps import maps
        >>> found = maps(nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.Flatten()).eval(), torch.rand(1, 3, 8, 8))
        >>> found.energy("0", "layer").shape, [len(v) for v in found.hypercolumn(3, 4).values()]
        ((6, 6), [4, 4])
    """
    if isinstance(image, Tensor) and image.dim() > 0 and len(image) != 1:
        raise ImageError(
            f"inputs of shape {tuple(image.shape)} came; give one, (1, c, *space), and ask about each alone"
        )
    inside = pictured(model, image)
    names = _names(inside, layers)
    aim, words = _aim(inside, target)
    spread = {} if data is None else spreads(inside, names, data, progress)
    support = _supports(inside, aim, names)
    x = inside.trace.inputs[0].data[0]
    picture = Image.fromarray(seen(x, inside.model.preprocess)) if inside.picture is not None else None
    found = {n: _layer(inside, n, support[n], words, spread.get(n), picture) for n in names}
    return Maps(inside, aim, words, found, progress)


def _names(inside: Opened, layers: str | Sequence[str] | None) -> list[str]:
    """The layers that were asked for, or one name for each value that a layer gives out, in the order they ran."""
    if layers is not None:
        names = [layers] if isinstance(layers, str) else list(layers)
        for name in names:
            _check(inside, name)
        return list(dict.fromkeys(names))
    calls = (c for calls in inside.trace.layers.values() for c in calls)
    values = sorted({c[0] for c in calls if c and usable(inside, c[0])}, key=lambda v: v.position)
    if not values:
        raise LayerError(f"no layer of {inside.model.name} gives out units on this input")
    return [inside.trace.name_of(value) for value in values]


def _check(inside: Opened, name: str) -> None:
    value = inside.value(name)
    if not usable(inside, value):
        raise LayerError(
            f'layer "{name}" gives {tuple(value.shape)} of {value.dtype}, in which no axis is known to count the units '
            "of one picture; choose a layer whose output is (1, channels, …)"
        )


def _aim(inside: Opened, target: Any) -> tuple[Target, str]:
    chosen = choose_targets(target, inside.model, inside.trace)
    if len(chosen) != 1:
        raise TargetError(f"{len(chosen)} targets came; maps count support towards one, such as top1 or a class")
    return chosen[0], chosen[0].name(0, inside.model.label)


def _supports(inside: Opened, target: Target, names: Sequence[str]) -> dict[str, Tensor]:
    """`Σ_positions a · ∂S/∂a` of every channel, in one walk that keeps sums only."""
    wanted = {inside.value(name): name for name in names}
    found: dict[Value, Tensor] = {}

    def rule(node: Node, grads: Grads) -> Grads:
        for value, grad in zip(node.outputs, grads, strict=True):
            if value in wanted and value is not None and grad is not None:
                share = inside.maps(wanted[value], value.data.double() * grad)[0]
                found[value] = share.flatten(1).sum(1) if share.dim() > 1 else share
        return exact(node, grads)

    inside.trace.pull(target, Rules("support", default=rule)).input()
    none = {name: torch.zeros(inside.units(name), dtype=torch.float64) for name in names}
    return {name: found.get(inside.value(name), none[name]) for name in names}


def _layer(
    inside: Opened, name: str, support: Tensor, words: str, spread: Spread | None, picture: Image.Image | None
) -> LayerMaps:
    value = inside.value(name)
    values = inside.maps(name, value.data)[0].detach().float().cpu()
    alive = None if spread is None else spread.alive
    labels = inside.model.labels if value is inside.trace.output else None
    return LayerMaps(
        inside.model.name, name, values.contiguous().numpy(),
        measured(values, support, limits_of(value), alive), words, spread,
        labels if labels is not None and len(labels) == len(values) else None, picture,
    )  # fmt: skip
