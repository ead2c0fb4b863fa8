"""What a picture is made for: units, channels, directions, layers, classes; they add, subtract and scale."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn import functional as F

from pellucid.core.errors import LayerError, SettingError, TargetError
from pellucid.core.target import Target, class_scores
from pellucid.core.target import logit as logit_target
from pellucid.core.trace import Value
from pellucid.core.watch import OUTPUT
from pellucid.inside.opened import Opened, Unit

LEAST_COSINE = 0.1


@dataclass(frozen=True, eq=False)
class Seen:
    """What one step shows of the pictures that are made for one objective.

    Attributes:
        outputs: layer -> its output for these pictures.
        pixels: the pictures themselves, before any transform, (n, c, h, w) in [0, 1].
        wished: layer -> its output for the picture that is imitated, under the same transforms.
    """

    opened: Opened
    outputs: Mapping[str, Tensor]
    pixels: Tensor
    wished: Mapping[str, Tensor] = field(default_factory=dict)

    def maps(self, layer: str) -> Float[Tensor, "n c *space"]:
        return self.opened.maps(layer, self.outputs[layer])


Read = Callable[[Seen], Tensor]


@dataclass(frozen=True, eq=False)
class Reading:
    """An objective that has met its network: the layers it reads, and one number per picture from them.

    Attributes:
        unit: the one unit that it is about, where there is one.
    """

    layers: tuple[str, ...]
    read: Read
    unit: Unit | None = None


@dataclass(frozen=True, eq=False)
class Objective:
    """A number per picture that is made as large as can be; `2 * a - b + c` makes others of it.

    Attributes:
        words: what it is, for people.
        on: meets a network: checks the names, looks up the labels.

    Example:
        >>> from pellucid.inside.optimise.groups import total_variation
        >>> 2 * channel("conv:3") - total_variation()
        Objective(2 × channel conv:3 − total variation)
    """

    words: str
    on: Callable[[Opened], Reading]

    def __add__(self, other: "Objective") -> "Objective":
        return _both(self, other, "+", 1.0)

    def __sub__(self, other: "Objective") -> "Objective":
        return _both(self, other, "−", -1.0)

    def __mul__(self, factor: int | float) -> "Objective":
        if isinstance(factor, bool) or not isinstance(factor, int | float) or not np.isfinite(factor):
            raise SettingError(f"an objective is multiplied by a finite number, not by {factor!r}")
        bare = any(sign in self.words for sign in (" + ", " − "))
        name = f"({self.words})" if bare else self.words
        return Objective(f"{factor:g} × {name}".replace("-", "−", factor < 0), lambda o: _scaled(self.on(o), factor))

    def __rmul__(self, factor: int | float) -> "Objective":
        return self * factor

    def __neg__(self) -> "Objective":
        return self * -1

    def __repr__(self) -> str:
        return f"Objective({self.words})"


def objective_of(given: Any, opened: Opened) -> Objective:
    """What is asked for, however it was said: `"layer:17"`, a layer's name, a `Unit`, a `Target`, an `Objective`.

    Raises:
        SettingError: none of these.
        LayerError: no such layer or unit.
    """
    if isinstance(given, Objective):
        return given
    if isinstance(given, Target):
        return _named(given, opened)
    if isinstance(given, Unit):
        return channel(given)
    if not isinstance(given, str):
        raise SettingError(
            f'{type(given).__name__} came as an objective; give "LAYER:CHANNEL", "LAYER", "logit:LABEL", a target such '
            "as pel.logit(3), or one of pel.objectives"
        )
    if given in opened.trace.layers:
        return layer(given)
    kind, _, rest = given.partition(":")
    if kind in ("logit", "class"):
        return _named(logit_target(int(rest) if rest.isdigit() else rest), opened)
    name, _, where = given.partition("@")
    if where == "centre":
        return unit(name)
    return channel(name) if ":" in name else layer(opened.layer(name))


def channel(name: str | Unit) -> Objective:
    """The mean of one channel over its positions, `mean_yx A_k`."""

    def on(opened: Opened) -> Reading:
        unit = opened.unit(name)
        return Reading(
            (unit.layer,), lambda s: s.maps(unit.layer)[:, unit.channel].reshape(len(s.pixels), -1).mean(1), unit
        )

    return Objective(f"channel {name}", on)


def unit(name: str | Unit, position: Sequence[int] | None = None) -> Objective:
    """One channel at one position; in the middle (lower right of it where the sides are even) by default.

    Args:
        position: one coordinate per axis of the map.
    """

    def on(opened: Opened) -> Reading:
        one = opened.unit(name)
        _inside(opened, one.layer, position)
        return Reading((one.layer,), lambda seen: _at(seen.maps(one.layer), position)[:, one.channel], one)

    return Objective(f"unit {name} at {'the centre' if position is None else tuple(position)}", on)


def direction(
    layer: str,
    vector: Tensor | np.ndarray | Sequence[float],
    *,
    cosine_power: int | float = 0,
    whiten: Float[Tensor, "c c"] | None = None,
    position: Sequence[int] | str = "mean",
) -> Objective:
    """A direction in the space of a layer's channels, `h·(S v) max(0.1, cos(h, v))^p`.

    Args:
        vector: v, one number per channel; all pictures of the objective share it.
        cosine_power: p; 0 is the dot product, larger ones ask for the direction and not for length.
        whiten: S, such as the inverse of the second moment `E[h hᵀ]`; the identity by default.
        position: `"mean"` over positions, `"centre"`, or one coordinate per axis.
    """
    v = torch.as_tensor(np.asarray(vector), dtype=torch.float32).flatten()
    return directions(layer, v[None], cosine_power=cosine_power, whiten=whiten, position=position)


def directions(
    layer: str,
    vectors: Float[Tensor, "n c"],
    *,
    cosine_power: int | float = 0,
    whiten: Float[Tensor, "c c"] | None = None,
    position: Sequence[int] | str = "mean",
) -> Objective:
    """One direction for each picture of the objective, or one for all; see `direction`."""
    pushed = vectors if whiten is None else vectors @ whiten.to(vectors).T
    return aimed(layer, vectors, pushed, cosine_power, position)


def aimed(
    layer: str,
    vectors: Float[Tensor, "n c"],
    pushed: Float[Tensor, "n c"],
    cosine_power: int | float,
    position: Sequence[int] | str,
) -> Objective:
    """`directions` with S v already worked out."""
    if not torch.isfinite(pushed).all() or bool((vectors == 0).all(1).any()):
        raise SettingError("a direction has finite numbers that are not all zero")

    def on(opened: Opened) -> Reading:
        if opened.units(layer) != vectors.shape[1]:
            raise LayerError(
                f'a vector of {vectors.shape[1]} came for the {opened.units(layer)} units of layer "{layer}"'
            )
        if not isinstance(position, str):
            _inside(opened, layer, position)

        def read(seen: Seen) -> Tensor:
            maps = seen.maps(layer)
            h = maps.flatten(2) if maps.dim() > 2 else maps[:, :, None]
            if position != "mean":
                h = _at(maps, None if isinstance(position, str) else position)[:, :, None]
            return _towards(h, pushed.to(h), vectors.to(h), float(cosine_power))

        return Reading((layer,), read)

    return Objective(f"direction in {layer}", on)


def layer(name: str) -> Objective:
    """All of a layer, `mean A²`, as deep dream asks for."""

    def on(opened: Opened) -> Reading:
        opened.layer(name)
        return Reading((name,), lambda seen: seen.outputs[name].flatten(1).square().mean(1))

    return Objective(f"layer {name}", on)


def logit(index: int | str) -> Objective:
    """The score of a class, by number or label, before any softmax."""
    return target(logit_target(index))


def target(wanted: Target) -> Objective:
    """Any target, as explanations have them."""
    asked = wanted.name() if wanted.later is None else wanted.words.replace("score", "logit", 1)

    def on(opened: Opened) -> Reading:
        known = wanted.resolved(opened.model.index)
        where = known.layer or (OUTPUT if known.whole else before_softmax(opened))
        _ = known.score(opened.trace, [0] * opened.trace.batch)
        return Reading((where,), lambda seen: known.read(seen.outputs[where], range(len(seen.pixels))).reshape(-1))

    return Objective(asked, on)


def _named(wanted: Target, opened: Opened) -> Objective:
    """A target's objective with its classes called by their labels, where they are known."""
    labels = opened.model.labels or ()
    known = wanted.resolved(opened.model.index)
    words = known.name(0, lambda c: labels[c] if 0 <= c < len(labels) else str(c))
    return Objective(words, target(known).on)


def interpolation(first: Objective, second: Objective) -> Objective:
    """From one objective to another over the pictures that are made: `(1 − w) a + w b`, w from 0 to 1."""

    def on(opened: Opened) -> Reading:
        a, b = first.on(opened), second.on(opened)

        def read(seen: Seen) -> Tensor:
            n = len(seen.pixels)
            w = torch.linspace(0, 1, n).to(seen.pixels) if n > 1 else torch.full((1,), 0.5).to(seen.pixels)
            return (1 - w) * a.read(seen) + w * b.read(seen)

        return Reading((*a.layers, *b.layers), read)

    return Objective(f"from {first.words} to {second.words}", on)


def pair(first: Objective, second: Objective, weight: int | float = 0.5) -> Objective:
    """Two at once, `(1 − w) a + w b`."""
    return (1 - weight) * first + weight * second


def before_softmax(opened: Opened) -> str:
    """The layer that gives the class scores; `""` is the output itself.

    Raises:
        TargetError: the network ends in a softmax of something that no layer gives.
    """
    value: Value | None = class_scores(opened.trace)
    if value is opened.trace.output:
        return OUTPUT
    names = {values[0]: path for path, calls in opened.trace.layers.items() for values in calls[-1:] if values}
    while value is not None and value not in names:
        value = _unshaped(value)
    if value is None:
        raise TargetError("no layer gives the scores before the softmax; name a layer instead, such as fc:3")
    return names[value]


def _unshaped(value: Value) -> Value | None:
    """The same numbers before they were given another shape."""
    node = value.node
    if node is None or node.kind != "view" or len(node.inputs) != 1:
        return None
    return node.inputs[0] if node.inputs[0].shape.numel() == value.shape.numel() else None


def _towards(h: Tensor, pushed: Tensor, wanted: Tensor, power: float) -> Tensor:
    """`mean_p h·(S v) max(0.1, cos(h, v))^p` of `(n, c, positions)`."""
    dot = (h * pushed[:, :, None]).sum(1)
    if power:
        dot = dot * F.cosine_similarity(h, wanted[:, :, None].expand_as(h), dim=1).clamp(min=LEAST_COSINE) ** power
    return dot.mean(1)


def _at(maps: Tensor, position: Sequence[int] | None) -> Tensor:
    place = [n // 2 for n in maps.shape[2:]] if position is None else list(position)
    return maps[(slice(None), slice(None), *place)]


def _inside(opened: Opened, name: str, position: Sequence[int] | None) -> None:
    sides = opened.positions(opened.layer(name))
    if position is not None and (
        len(position) != len(sides) or any(not 0 <= p < n for p, n in zip(position, sides, strict=True))
    ):
        raise LayerError(f'position {tuple(position)} is not inside the maps of layer "{name}", {sides}')


def _both(first: Objective, second: Any, sign: str, factor: float) -> Objective:
    if not isinstance(second, Objective):
        raise SettingError(f"an objective is added to an objective, not to {type(second).__name__}")

    def on(opened: Opened) -> Reading:
        a, b = first.on(opened), second.on(opened)
        return Reading((*a.layers, *b.layers), lambda seen: a.read(seen) + factor * b.read(seen))

    return Objective(f"{first.words} {sign} {second.words}", on)


def _scaled(reading: Reading, factor: int | float) -> Reading:
    return Reading(reading.layers, lambda seen: factor * reading.read(seen))
