"""Dense maps: a layer on a grid several times finer, with the network's own values where they were (C7)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from pellucid.core.atrous import Grid, Stage, Steps, Way, atrous, way_to
from pellucid.core.errors import LayerError, MethodError, SettingError, TraceError
from pellucid.core.fields import Box, Field, fields
from pellucid.core.layers import last_spatial
from pellucid.core.layout import UNKNOWN, layout
from pellucid.core.progress import Progress, watching
from pellucid.core.runners import bound, difference
from pellucid.core.tables import Table, table
from pellucid.core.target import class_scores, logit
from pellucid.core.trace import Trace, Value
from pellucid.inside.opened import Opened, pictured
from pellucid.inside.showing import Shows
from pellucid.methods.cams import pooled_head
from pellucid.methods.pictures import seen
from pellucid.models.model import Model
from pellucid.render.fitting import fitted
from pellucid.render.paint import colour_bar, draw, limit, number
from pellucid.render.sheet import Panel, sheet

USUAL_FACTOR = 4
PANEL_PX = 224


@dataclass(frozen=True, eq=False)
class Dense(Shows):
    """A layer's maps on a finer grid.

    Attributes:
        layer: the layer, or the value in the network that was asked for.
        maps: (b, c, *space); `maps[..., ::rate]` along each axis is what the network itself gives.
        original: what the network itself gives, (b, c, *space).
        rate: places of the fine grid from one old place to the next, along each axis.
        field: what each place of the fine grid sees of the input.
        error: largest difference on the old places, as a part of the largest value.
        start: the first operation whose stride was dropped.
        notes: what was chosen on the way.
        value: the layer in the recording.
        order: its axes as (b, c, *space).
    """

    opened: Opened
    layer: str
    maps: Float[Tensor, "b c *fine"]
    original: Float[Tensor, "b c *coarse"]
    rate: tuple[int, ...]
    field: Field
    error: float
    start: str
    notes: tuple[str, ...]
    value: Value
    order: tuple[int, ...]

    @property
    def stride_px(self) -> tuple[float, ...]:
        """Input pixels from one place to the next."""
        return self.field.stride_px

    def oriented(self, tensor: Tensor) -> Float[Tensor, "b c *coarse"]:
        """A tensor in the shape of the layer's own output as (b, c, *space)."""
        return tensor.permute(self.order)

    def box(self, position: Sequence[int]) -> Box:
        """The input pixels that one place of the fine grid sees, cut at the border."""
        return self.field.box(position)

    def class_maps(self, classes: Sequence[int | str]) -> Float[Tensor, "b k *fine"]:
        """Class activation maps on the fine grid, `M_c(p) = Σ_k w_ck A_k(p)`.

        w_ck is the weight of channel k in the score of class c, where the scores are a linear function of averaged
        maps; on the old places the maps are those of the method `cam`.

        Args:
            classes: numbers or labels.

        Raises:
            MethodError: the network's head is not of that kind, or this layer is not the one that is averaged.

        Source: Zhou et al. 2016, arXiv:1512.04150, equation 2.
        """
        trace = self.opened.trace
        maps, name = pooled_head(trace)
        if maps is not self.value:
            raise MethodError(f'class maps are read off "{name}", which is averaged into the scores; densify that one')
        found = []
        for c in classes:
            target = logit(c).resolved(self.opened.model.index)
            weights = self.oriented(trace.pull(target, keep=[maps]).at(maps)) * self.original[0, 0].numel()
            flat = weights.flatten(2)
            if not torch.allclose(flat, flat[..., :1].expand_as(flat), atol=1e-5 * float(flat.abs().max())):
                raise MethodError(f'the weights of "{name}" differ from place to place; class maps need one average')
            found.append((flat[..., :1].reshape(*flat.shape[:2], *[1] * len(self.rate)) * self.maps).sum(1))
        return torch.stack(found, 1)

    @property
    def title(self) -> str:
        return f"Dense maps of {self.layer}"

    def sentence(self) -> str:
        """What was made, and how well it agrees."""
        fine, coarse = ("×".join(map(str, t.shape[2:])) for t in (self.maps, self.original))
        return (
            f"{self.layer} on {fine} places instead of {coarse}: strides from {self.start} on are one and later "
            f"kernels dilated. On the {coarse} old places the values are the network's own (largest difference "
            f"{number(self.error)} of the largest value)."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        def words(values: Sequence[int | float]) -> str:
            return "×".join(f"{v:g}" for v in values)

        old = fields(self.opened.trace)[self.value]
        rows = [
            ("places", words(self.original.shape[2:]), words(self.maps.shape[2:])),
            ("stride (px)", words(old.stride_px), words(self.stride_px)),
            ("receptive field (px)", words(old.size_px), words(self.field.size_px)),
        ]
        return (table("grid", ("", "network", "dense"), rows, " ".join(self.notes)),)

    def image(self) -> Image.Image:
        """The first picture with its maps, coarse and dense: class maps of the first class where they exist."""
        words, coarse, dense = self._shown()
        if coarse.ndim != 2:
            raise LayerError(f"maps with {coarse.ndim} spatial axes are not drawn; read .maps")
        end, signed = limit(np.stack([coarse.max(), coarse.min()]), 100), bool((coarse < 0).any())
        both = (("network", coarse, fields(self.opened.trace)[self.value]), ("dense", dense, self.field))
        panels: list[Panel] = [
            (
                fitted(draw(laid(m, field), end, signed), PANEL_PX, exact=True, cells=True),
                (f"{name}, {m.shape[0]} x {m.shape[1]}", words),
            )
            for name, m, field in both
        ]
        if self.opened.picture is not None:
            x = seen(self.opened.trace.inputs[0].data[0], self.opened.model.preprocess)
            panels.insert(0, (fitted(Image.fromarray(x), PANEL_PX, exact=True), ("what the network sees",)))
        return sheet(self.title, [], [panels], colour_bar(end, signed))

    def _shown(self) -> tuple[str, np.ndarray, np.ndarray]:
        """What is drawn, in words, on both grids."""
        try:
            scores = class_scores(self.opened.trace).data
            best = int(scores[0].flatten(1).mean(1).argmax() if scores.dim() > 2 else scores[0].argmax())
            dense = self.class_maps([best])[0, 0]
            thin = dense[tuple(slice(None, None, r) for r in self.rate)]
            coarse = thin[tuple(slice(n) for n in self.original.shape[2:])]
            return f"class map of {self.opened.model.label(best)}", coarse.double().numpy(), dense.double().numpy()
        except MethodError:
            coarse, dense = (t[0].double().norm(dim=0).numpy() for t in (self.original, self.maps))
            return "length of the activation", coarse, dense

    def __repr__(self) -> str:
        return (
            f'Dense("{self.layer}", {tuple(self.original.shape)} -> {tuple(self.maps.shape)}, error {self.error:.1g})'
        )


def laid(values: Float[np.ndarray, "h w"], field: Field) -> Float[np.ndarray, "H W"]:
    """A map over the input: each pixel has the value of the place whose field has its middle nearest to it."""
    rows, columns = (
        np.abs(np.arange(n)[:, None] + 0.5 - (w + h + 1) / 2).argmin(1)
        for n, w, h in zip(field.input_px, field.low, field.high, strict=True)
    )
    return values[np.ix_(rows, columns)]


def densify(
    model: Model | nn.Module | str,
    image: Any,
    layer: str | None = None,
    *,
    factor: int | None = None,
    start: str | None = None,
    progress: Progress | bool | None = None,
) -> Dense:
    """A layer's maps on a finer grid, `dense[::s, ::s] = original`.

    From a chosen operation on every stride becomes 1, and later kernels read every s-th place, so the values that the
    network itself gives stay where they were and new ones lie between them: those that it would give for shifted
    pictures. The result is compared with the network's own maps before it is handed out.

    Args:
        image: whatever `explain` takes for one picture, or inputs (b, c, *space).
        layer: by default the maps that are averaged into the scores, or else the last layer with maps.
        factor: how many times finer; the product of the last strides. By default the largest up to 4.
        start: a layer; the strides of it and of all that runs after it are dropped (instead of `factor`).

    Returns:
        The dense maps, (b, c, *space), with what each place sees. Costs about factor² times what lies behind the
        first dropped stride.

    Raises:
        SettingError: a factor that the strides don't make, or nothing has a stride from `start` on.
        LayerError: no such layer, or an operation on the way that keeps no positions (an upsampling, attention).
        TraceError: the dense maps differ from the network's on its own places.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2)).eval()
        >>> found = densify(net, torch.rand(1, 1, 16, 16), "2")
        >>> found.maps.shape, found.rate, found.error < 1e-6
        (torch.Size([1, 2, 16, 16]), (4, 4), True)

    Source: Holschneider et al. 1989 (algorithme à trous); Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 3.2.
    """
    inside = pictured(model, image)
    value, name, notes = _place(inside, layer)
    way = way_to(inside.trace, value)
    stages = _chosen(way, factor, start)
    if factor is None and start is None and stages:
        notes += (f"factor {_factor(way, stages[0])} was chosen for you.",)
    if way.gates and stages:
        first = way.gates[0].node
        notes += (
            f"{len(way.gates)} values that gather the whole picture keep what the network gave them (the first in "
            f'"{"" if first is None else first.path}").',
        )
    with watching(progress) as bar:
        grid = atrous(way, {stage.node for stage in stages}, bar)
    order = _order(inside.trace, value, grid)
    dense, original = grid.data.permute(order).contiguous(), value.data.detach().permute(order)
    error = _checked(dense, original, grid.rate, name)
    finer = _finer(fields(inside.trace)[value], grid, dense.shape[2:], way.strides[value])
    first = stages[0].node.path if stages else "nothing"
    return Dense(inside, name, dense, original, grid.rate, finer, error, first or "the network", notes, value, order)


def _place(inside: Opened, layer: str | None) -> tuple[Value, str, tuple[str, ...]]:
    """The value that is made denser, its name, and what was chosen."""
    trace = inside.trace
    if layer is not None:
        return trace.at(inside.spatial(inside.layer(layer))), layer, ()
    try:
        value, name = pooled_head(trace)
    except MethodError:
        name, value = last_spatial(trace)
    return value, name, (f'layer "{name}" was chosen for you.',)


def _factor(way: Way, stage: Stage) -> int:
    """How many times finer the maps become when this stage is the first to lose its stride."""
    return max(e // b for e, b in zip(way.strides[way.end], stage.before, strict=True))


def _chosen(way: Way, factor: int | None, start: str | None) -> list[Stage]:
    """The operations that lose their stride."""
    if factor is not None and start is not None:
        raise SettingError("both factor and start came; give one of them")
    if start is not None:
        return _from(way, start)
    if factor == 1:
        return []
    factors = {_factor(way, stage): stage for stage in reversed(way.stages)}
    known = sorted(f for f in factors if f > 1)
    if not known:
        raise SettingError("nothing on the way to this layer has a stride, so its maps are dense already")
    if factor is None:
        factor = max((f for f in known if f <= USUAL_FACTOR), default=known[0])
    if factor not in factors:
        raise SettingError(f"factor={factor} came; the strides of this layer make {', '.join(map(str, known))} or 1")
    least = prod(factors[factor].before)
    return [stage for stage in way.stages if prod(stage.before) >= least]


def _from(way: Way, start: str) -> list[Stage]:
    way.trace.at(start)
    path = start.partition("#")[0]
    inside = [n.position for n in way.trace.nodes if n.path == path or n.path.startswith(f"{path}.")]
    found = [stage for stage in way.stages if inside and stage.node.position >= inside[0]]
    if not found:
        have = ", ".join(dict.fromkeys(f'"{stage.node.path}"' for stage in way.stages)) or "none"
        raise SettingError(f'nothing has a stride from "{start}" on; the layers with one are {have}')
    return found


def _order(trace: Trace, value: Value, grid: Grid) -> tuple[int, ...]:
    """The value's axes as (b, c, *space)."""
    known = layout(trace).get(value, UNKNOWN).channel
    order = (0, 1 if known is None else known, *grid.space)
    if sorted(order) != list(range(len(value.shape))):
        raise LayerError(f'"{trace.name_of(value)}" of shape {tuple(value.shape)} has no maps with one axis of units')
    return order


def _checked(dense: Tensor, original: Tensor, rate: Steps, name: str) -> float:
    """The largest difference on the old places.

    Raises:
        TraceError: it is more than rounding, or a new place holds no number.
    """
    cutter = tuple(slice(0, (n - 1) * r + 1, r) for n, r in zip(original.shape[2:], rate, strict=True))
    if not torch.isfinite(original).all():
        raise TraceError(
            f'"{name}" gives numbers that are not finite on this input, so there is nothing to compare with'
        )
    error = difference(dense[(..., *cutter)], original)
    if not error <= bound(original.dtype):
        raise TraceError(
            f'the dense maps of "{name}" differ from the network\'s by {error:.1g} of the largest value, so they are '
            "not handed out; please report this network"
        )
    if not torch.isfinite(dense).all():
        raise TraceError(f'some places between those of "{name}" see nothing but padding; try a smaller factor')
    return error


def _finer(field: Field, grid: Grid, lengths: Sequence[int], strides: Steps) -> Field:
    """What each place of the fine grid sees: the field of the old place before it, moved on."""

    def between(ends: np.ndarray, n: int, r: int, px: int) -> np.ndarray:
        at = np.arange(n)
        return ends[at // r] + at % r * (px // r)

    facts = list(zip(lengths, grid.rate, strides, strict=True))
    low = tuple(between(w, *f) for w, f in zip(field.low, facts, strict=True))
    return replace(field, low=low, high=tuple(between(h, *f) for h, f in zip(field.high, facts, strict=True)))
