"""The weights themselves: filters as pictures, connections as matrices, biases and BatchNorm as bars."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from pellucid.core.errors import ImageError, LayerError, nearest
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.images.decode import Picture
from pellucid.inside.opened import Opened, opened
from pellucid.inside.showing import Shows
from pellucid.inside.wiring import weights_sheet
from pellucid.inside.wiring.kernels import ALIKE, Kernel, Norm, filters_behind, kernels, norms
from pellucid.models.model import Model
from pellucid.render import paint

MOST_CONNECTIONS = 20


@dataclass(frozen=True, eq=False)
class Weights(Shows):
    """The weights of a network, or of some of its layers.

    Attributes:
        model: its name.
        layer: what was asked for; None for all.
        kernels: the layers with weights, in the order in which they were used.
        norms: every BatchNorm that ran, whether or not it stands behind one of these layers.
        picture: what the activations are of; None where none was given.
    """

    model: str
    layer: str | None
    kernels: tuple[Kernel, ...]
    norms: tuple[Norm, ...]
    picture: Picture | None = None
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"Weights of {self.model}" + (f", {self.layer}" if self.layer else "")

    def of(self, layer: str) -> Kernel:
        """One layer's weights.

        Raises:
            LayerError: no such layer here; the nearest names are offered.
        """
        found = {k.name: k for k in self.kernels}
        if layer not in found:
            raise LayerError(f'no weights called "{layer}"{nearest(layer, found) or "; there are " + ", ".join(found)}')
        return found[layer]

    def image(self) -> Image.Image:
        picture = None if self.picture is None else Image.fromarray(self.picture.pixels)
        if len(self.kernels) == 1:
            return weights_sheet.detail(self.title, self.kernels[0], picture)
        return weights_sheet.overview(self.title, self.kernels, picture)

    def sentence(self) -> str:
        numbers = sum(k.weight.size for k in self.kernels)
        dead = {k.name: int(k.dead.sum()) for k in self.kernels if k.dead.any()}
        alike = {k.name: len(k.twins) for k in self.kernels if k.twins}
        told = [f"{_count(len(self.kernels), 'layer')} with {numbers:,} weights"]
        told.append(f"dead filters: {_listed(dead)}" if dead else "no filter is dead")
        skipped = [k.name for k in self.kernels if k.twins is None]
        none = "no two filters are near alike" if len(skipped) < len(self.kernels) else ""
        told.append(f"pairs with a cosine over {ALIKE}: {_listed(alike)}" if alike else none)
        told.append(f"filters of {', '.join(skipped)} were not compared, they are too many" if skipped else "")
        seen = [k for k in self.kernels if k.paths is not None]
        if len(seen) == 1:
            i, o, value, share = strongest(seen[0], 1)[0]
            told.append(f"most goes from channel {i} to filter {o}: {paint.number(value)}, {share:.1%} of all |w·a|")
        return "; ".join(filter(None, told)) + "."

    @property
    def tables(self) -> tuple[Table, ...]:
        found = [self._layers()]
        if len(self.kernels) == 1:
            found.append(_filters(self.kernels[0]))
        if any(k.paths is not None for k in self.kernels):
            found.append(self._connections())
        if self.layer is None and self.norms:
            found.append(_norms(self.norms))
        return tuple(found)

    def _layers(self) -> Table:
        rows = [_row(k) for k in self.kernels]
        columns = ("layer", "operation", "shape", "groups", "weights", "mean length", "longest", "dead", "alike")
        note = f"shape: filters × channels of the group × window; alike: pairs with a cosine over {ALIKE}, empty where "
        note += "comparing all pairs would take too long; bias: behind the BatchNorm where there is one"
        return table("layers", (*columns, "lowest bias", "highest bias", "BatchNorm"), rows, note)

    def _connections(self) -> Table:
        each = MOST_CONNECTIONS if len(self.kernels) == 1 else 1
        rows = [(k.name, *edge) for k in self.kernels if k.paths is not None for edge in strongest(k, each)]
        note = "sum over all positions of weight times activation, before bias and BatchNorm"
        return table("connections", ("layer", "channel", "filter", "w · a", "share of all |w · a|"), rows, note)

    def facts(self) -> dict[str, Any]:
        return {"model": self.model, "layer": self.layer, "notes": list(self.notes), **super().facts()}

    def __repr__(self) -> str:
        return f"Weights({self.model}, {_count(len(self.kernels), 'layer')})"


def weights(
    model: Model | nn.Module | str,
    layer: str | None = None,
    image: Any = None,
    *,
    progress: Progress | bool | None = None,
) -> Weights:
    """The weights of every layer, read off the operations that used them.

    Convolutions of any kind (grouped, depthwise, transposed, in one to three dimensions) and linear layers, called as
    functions or as modules, with whatever parametrisation: what is shown is what was multiplied.

    Args:
        layer: one layer, or a module with several; a layer without weights of its own stands for those that make it.
        image: a picture; with it each connection is told with its activation, `Σ_positions w · a`.

    Raises:
        LayerError: no such layer, or none with weights.
        ModelError: no image was given and the network's input size is not known.

    Example:
        >>> found = weights("builtin:photos", "stem.0")
        >>> found.kernels[0].weight.shape, found.kernels[0].norm.name
        ((32, 3, 3, 3), 'stem.1')
    """
    with watching(progress) as bar:
        one = opened(model, image)
        found = kernels(one.trace, bar, seen=image is not None)
    if any(kernel.paths is not None and not np.isfinite(kernel.paths).all() for kernel in found):
        raise ImageError("numbers that are not finite go through the network on this input; look for NaN in the input")
    if not found:
        raise LayerError(f"{one.model.name} has no layer with constant weights")
    chosen = found if layer is None else _chosen(one, layer, found)
    return Weights(
        one.model.name, layer, tuple(chosen), tuple(norms(one.trace)), one.picture, (*one.notes, *_asleep(one))
    )


def _chosen(one: Opened, layer: str, found: list[Kernel]) -> list[Kernel]:
    inside = [k for k in found if k.name == layer or k.name.startswith((f"{layer}.", f"{layer}:"))]
    if inside:
        return inside
    value = one.value(layer)
    axis = one.channel_axis(layer)
    makers = {node.position for c in range(value.shape[axis]) for node, _ in filters_behind(value, c, axis)}
    behind = [k for k in found if makers.intersection(k.positions)]
    if not behind:
        names = ", ".join(k.name for k in found[-3:])
        raise LayerError(f'layer "{layer}" has no weights, and none lead to it alone; layers with weights: … {names}')
    return behind


def _asleep(one: Opened) -> list[str]:
    """Modules whose weights were not used on this input."""
    own = [name for name, m in one.trace.module.named_modules() if name and any(True for _ in m.parameters(False))]
    idle = [
        name for name in own if name not in one.trace.layers and not any(n.startswith(name) for n in one.trace.layers)
    ]
    return [f"did not run on this input: {', '.join(idle[:5])}"] if idle else []


def strongest(kernel: Kernel, count: int) -> list[tuple[int, int, float, float]]:
    """The connections through which most goes: channel, filter, `Σ w · a`, and the share of all `|Σ w · a|`."""
    if kernel.paths is None:
        return []
    sizes = torch.from_numpy(np.abs(kernel.paths).ravel())
    total = float(sizes.sum(dtype=torch.float64)) or 1.0
    best = sizes.topk(min(count, len(sizes)))
    order = sorted(zip(best.indices.tolist(), best.values.tolist(), strict=True), key=lambda one: (-one[1], one[0]))
    found = []
    for place, size in order:
        i, o = divmod(place, kernel.filters)
        found.append((i, o, float(kernel.paths[i, o]), size / total))
    return found


def _row(k: Kernel) -> tuple[Any, ...]:
    shape, bias, lengths = "×".join(map(str, k.weight.shape)), k.merged_bias, k.norms
    alike = None if k.twins is None else len(k.twins)
    biased = k.bias is not None or k.norm is not None
    ends = (float(bias.min()), float(bias.max())) if biased else (None, None)
    told = (k.name, k.operation, shape, k.groups, k.weight.size, float(lengths.mean()), float(lengths.max()))
    return (*told, int(k.dead.sum()), alike, *ends, "" if k.norm is None else k.norm.name)


def _filters(k: Kernel) -> Table:
    best: dict[int, tuple[int, float]] = {}
    for i, j, cosine in k.twins or ():
        best.setdefault(i, (j, cosine))
        best.setdefault(j, (i, cosine))
    lengths, dead = k.norms, k.dead
    rows = [
        (
            n,
            float(lengths[n]),
            bool(dead[n]),
            None if k.bias is None else float(k.bias[n]),
            None if k.norm is None else float(k.norm.scale[n]),
            None if k.norm is None else float(k.norm.shift[n]),
            *best.get(n, (None, None)),
        )
        for n in range(k.filters)
    ]
    columns = ("filter", "length", "dead", "bias", "γ/σ", "β − μγ/σ", "alike", "cosine")
    return table("filters", columns, rows, "γ/σ and β − μγ/σ: what the BatchNorm behind multiplies with and adds")


def _norms(found: tuple[Norm, ...]) -> Table:
    rows = [
        (n.name, len(n.scale), *map(float, (n.scale.min(), n.scale.max(), n.shift.min(), n.shift.max()))) for n in found
    ]
    columns = ("BatchNorm", "channels", "lowest γ/σ", "highest γ/σ", "lowest β − μγ/σ", "highest β − μγ/σ")
    return table("batch_norms", columns, rows, "y = γ/σ · x + (β − μγ/σ)")


def _count(number: int, word: str) -> str:
    return f"{number} {word}{'' if number == 1 else 's'}"


def _listed(counts: dict[str, int]) -> str:
    told = [f"{n} in {name}" for name, n in list(counts.items())[:4]]
    return ", ".join(told) + (f" and {_count(len(counts) - 4, 'other layer')}" if len(counts) > 4 else "")
