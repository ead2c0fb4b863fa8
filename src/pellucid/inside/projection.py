"""Deconvolution with switches: the pixels of one picture that excited one unit, walked down from its activation."""

from collections.abc import Sequence
from dataclasses import dataclass
from math import isfinite
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image
from torch import Tensor, nn

from pellucid.core.chunks import fitting
from pellucid.core.errors import ImageError, LayerError, SettingError, check_known
from pellucid.core.layers import between
from pellucid.core.pull import EXACT, Rules
from pellucid.core.tables import Table, table
from pellucid.core.trace import Trace, Value
from pellucid.images.placement import Placement
from pellucid.inside.exemplars.crops import Reach, View, crop, drawn, on_square, patch, plane, reach, view
from pellucid.inside.exemplars.result import Exemplars
from pellucid.inside.opened import Opened, Unit, opened, pictured
from pellucid.inside.showing import Shows
from pellucid.methods.gradients import SMOOTH
from pellucid.methods.pictures import home_of
from pellucid.models.model import Model
from pellucid.models.resolve import the_model
from pellucid.render.fitting import fitted
from pellucid.render.paint import colour_bar, draw, limit
from pellucid.render.paint import number as digits
from pellucid.render.sheet import Panel, sheet
from pellucid.rules.rectifiers import DECONVNET, GUIDED

RULES: dict[str, Rules] = {"deconvnet": DECONVNET, "guided": GUIDED, "gradient": EXACT}
SIDE_PX, SMALL_PX = 224, 112
CAVEAT = (
    "Such a map is in part the picture itself, recovered through the network's pooling, and says little about classes "
    "(Nie et al. 2018): compare it with that of the same network with random weights."
)

Where = str | Sequence[int] | None


@dataclass(frozen=True, eq=False)
class Projection(Shows):
    """What one unit's activation becomes when it is walked back down to the pixels of a picture.

    Attributes:
        unit: which unit.
        position: where on its map; None for the whole map at once, empty for a unit without a map.
        value: its activation there; of the whole map the highest.
        map: the projection on the input's grid, signed.
        box: first and last pixel along each axis that the unit can see there; may lie beyond the border.
        rules: by which rules it was walked down.
        view: the picture as people see it.
        notes: what limits what it says.
    """

    model: str
    unit: Unit
    position: tuple[int, ...] | None
    value: float
    map: Float[np.ndarray, "c *space"]
    box: Reach
    rules: str
    view: View
    notes: tuple[str, ...] = ()

    def __repr__(self) -> str:
        return f'Projection("{self.unit}" at {self._place()}, value {digits(self.value)}, {self.rules})'

    @property
    def title(self) -> str:
        return f"{self.unit} of {self.model}, projected down ({self.rules})"

    @property
    def heat(self) -> Float[np.ndarray, "*space"]:
        """The map summed over the input's channels."""
        return self.map.sum(0)

    def crop(self, size_px: int | None = None) -> Image.Image:
        """What the unit saw of the picture, grey beyond the border."""
        pixels = crop(self.view, self.box)
        return Image.fromarray(pixels) if size_px is None else fitted(Image.fromarray(pixels), size_px, exact=True)

    def colours(self, size_px: int | None = None) -> Image.Image:
        """The map within the field, symmetric around grey: grey is zero, one scale for all colours."""
        part = plane(self._part())
        part = part if len(part) == 3 else part.sum(0, keepdim=True).expand(3, -1, -1)
        scaled = 0.5 + part / (2 * (float(part.abs().max()) or 1.0))
        pixels = (255 * scaled).round().to(torch.uint8).permute(1, 2, 0).contiguous().numpy()
        return self._like_crop(Image.fromarray(pixels), size_px)

    def signed(self, size_px: int | None = None) -> Image.Image:
        """The map within the field summed over colours: red where it is positive, blue where it is negative."""
        return self._like_crop(draw(self._sum(), self._end(), True), size_px)

    def image(self) -> Image.Image:
        """The crop, the map in colours, the map summed."""
        last = on_square(self.signed(SIDE_PX), SIDE_PX)
        panels = [
            (on_square(self.crop(SIDE_PX), SIDE_PX), ["what the unit saw", f"activation {self.value:.3g}"]),
            (on_square(self.colours(SIDE_PX), SIDE_PX), ["projection in colours", "grey is zero"]),
            (last, ["projection, colours summed", "red adds, blue takes away"]),
        ]
        bar = colour_bar(self._end(), True, width_px=SIDE_PX)
        below = Image.new("RGB", (3 * SIDE_PX + 20, bar.height), "white")
        below.paste(bar, (2 * SIDE_PX + 20, 0))
        return sheet(self.title, [], [panels], below)

    def sentence(self) -> str:
        notes = "".join(f" Note: {note}." for note in self.notes)
        return (
            f"{self.unit} of {self.model} at {self._place()} has the activation {digits(self.value)}; walked down to "
            f"the pixels by the rules of {self.rules}.{notes} {CAVEAT}"
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        heat = self.heat
        rows = [
            ["activation", self.value],
            ["sum of the map", float(heat.sum())],
            ["largest size", float(np.abs(self.map).max(initial=0.0))],
            ["part that is positive", float((self.map > 0).mean())],
        ]
        return (table("projection", ["what", "value"], rows),)

    def _place(self) -> str:
        if self.position is None:
            return "its whole map"
        return f"position ({', '.join(map(str, self.position))})" if self.position else "its output"

    def _like_crop(self, image: Image.Image, size_px: int | None) -> Image.Image:
        """For the eye: as large as the crop, whose pixels may have another shape than the input's."""
        if size_px is None:
            return image
        size = self.crop(size_px).size
        return image.resize(size, Image.Resampling.NEAREST if size[0] > image.width else Image.Resampling.LANCZOS)

    def _part(self) -> Tensor:
        return patch(torch.from_numpy(self.map), self.box)

    def _sum(self) -> Float[np.ndarray, "h w"]:
        return plane(self._part()).sum(0).numpy()

    def _end(self) -> float:
        return limit(self._sum(), 99.5)


def project(
    model: Model | nn.Module | str,
    image: Any,
    unit: str | Unit,
    *,
    position: Where = None,
    rules: str = "deconvnet",
) -> Projection:
    """Walk one activation back down to the pixels of a picture, as the deconvolutional network does.

    At the unit's layer all but the chosen activation is zero; on the way down a max-pool puts what arrives where its
    maximum was, a rectifier lets through what is positive, whatever went up, a filter is transposed, without its
    bias: `R ← unpool(R)`, `R ← max(R, 0)`, `R ← Wᵀ R`. BatchNorm multiplies by `γ/√(σ² + ε)`, a sum hands a copy to
    each branch.

    Args:
        image: whatever `explain` takes for one picture.
        unit: `"LAYER:CHANNEL"`.
        position: where on the unit's map, row first; the highest where it is None, the first of equals; `"all"` for
            the whole map at once.
        rules: `"deconvnet"`; `"guided"` (rectifiers also close where they were closed); `"gradient"` (the activation
            times its derivative).

    Returns:
        The map on the input's grid, in units of the activation for each unit of normalised input.

    Raises:
        LayerError: no such unit, or its layer does not depend on the picture.
        SettingError: no such rules, or a position outside the map.

    Example:
        >>> net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten()).eval()
        >>> project(net, torch.rand(1, 1, 8, 8), "2:0", position=(1, 1)).map.shape
        (1, 8, 8)

    Source: Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1; Springenberg et al. 2015, arXiv:1412.6806 (guided).
    """
    check_known("rules", rules, RULES)
    if isinstance(image, Tensor) and image.dim() > 0 and len(image) != 1:
        raise ImageError(f"inputs of shape {tuple(image.shape)} came; project one at a time, (1, c, *space)")
    inside = pictured(model, image)
    known = inside.unit(unit)
    x = inside.trace.inputs[0].data[0]
    if inside.picture is None or inside.placement is None:
        pixels = drawn(x, inside.model.preprocess)
        shown = View(pixels, Placement.identity(*pixels.shape[:2]))
    else:
        shown = View(inside.picture.pixels, inside.placement)
    return _projected(inside, known, [position], rules, [shown])[0]


@dataclass(frozen=True, eq=False)
class TopProjections(Shows):
    """The projections of one unit on the pictures that excite it most."""

    projections: tuple[Projection, ...]
    names: tuple[str, ...]

    def __repr__(self) -> str:
        return f"TopProjections({self.projections[0].unit}, {len(self)} pictures)"

    def __len__(self) -> int:
        return len(self.projections)

    def __getitem__(self, number: int) -> Projection:
        return self.projections[number]

    @property
    def title(self) -> str:
        return f"{self[0].title}: the {len(self)} pictures that excite it most"

    def image(self) -> Image.Image:
        """What the unit saw in each, and below it what its activation becomes; each on a scale of its own."""
        crops = [
            (on_square(one.crop(SMALL_PX), SMALL_PX), [f"{one.value:.3g}", name.rpartition("/")[2]])
            for one, name in zip(self.projections, self.names, strict=True)
        ]
        maps: list[Panel] = [(on_square(one.colours(SMALL_PX), SMALL_PX), []) for one in self.projections]
        sums: list[Panel] = [
            (on_square(one.signed(SMALL_PX), SMALL_PX), [f"± {one._end():.3g}"]) for one in self.projections
        ]
        return sheet(self.title, [], [crops, maps, sums])

    def sentence(self) -> str:
        notes = "".join(f" Note: {note}." for note in self[0].notes)
        return (
            f"The pictures that excite {self[0].unit} of {self[0].model} most, what it saw of them, and its activation "
            f"walked down to the pixels by the rules of {self[0].rules}: in colours, where grey is zero, and summed "
            f"over colours, each on a scale of its own.{notes} {CAVEAT}"
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [
            [name, one.value, " ".join(map(str, one.position or ())), float(one.heat.sum())]
            for one, name in zip(self.projections, self.names, strict=True)
        ]
        return (table("projections", ["picture", "activation", "position", "sum of the map"], rows),)


def project_top(
    model: Model | nn.Module | str,
    exemplars: Exemplars,
    unit: str | Unit,
    count: int = 9,
    *,
    rules: str = "deconvnet",
) -> TopProjections:
    """One unit's activations on the pictures that excite it most, walked down to their pixels, some at a time.

    Args:
        exemplars: what `exemplars` found for the same network.
        count: how many of its top pictures.

    Raises:
        SettingError: no such rules, or no pictures.
        LayerError: the unit was not watched.

    Source: Zeiler & Fergus 2014, arXiv:1311.2901, section 4 (the nine best of each feature map).
    """
    check_known("rules", rules, RULES)
    found, chosen = exemplars.of(unit), the_model(model)
    best = found.top[:count] if count > 0 else []
    if not best:
        raise SettingError(f"count is {count} and {len(found.top)} top pictures are known; ask for at least one of one")
    made = list[Projection]()
    while len(made) < len(best):
        first = exemplars.data.input(best[len(made)].number)
        group, inputs = [best[len(made)]], [first]
        room = _room(exemplars.opened_on(group[0].number).trace)
        for one in best[len(made) + 1 : len(made) + room]:
            x = exemplars.data.input(one.number)
            if x.shape != first.shape:
                break
            group, inputs = [*group, one], [*inputs, x]
        inside = opened(chosen, torch.stack(inputs).to(home_of(chosen.module)))
        views = [view(exemplars.data, one.number) for one in group]
        made += _projected(inside, inside.unit(found.unit), [one.position for one in group], rules, views)
    return TopProjections(tuple(made), tuple(one.name for one in best))


def _projected(
    inside: Opened, unit: Unit, places: Sequence[Where], rules: str, views: Sequence[View]
) -> list[Projection]:
    """One walk down for all pictures of a recording."""
    value, trace = inside.value(unit.layer), inside.trace
    if not between(trace, trace.inputs[0], value):
        raise LayerError(f'layer "{unit.layer}" does not depend on the picture')
    maps = inside.maps(unit.layer, value.data)[:, unit.channel]
    if len(maps) != len(places):
        raise LayerError(f'layer "{unit.layer}" mixes the pictures of a batch; project it for one picture')
    seed = torch.zeros_like(value.data)
    target = inside.maps(unit.layer, seed)[:, unit.channel]
    chosen = [_position(maps[n], place, unit) for n, place in enumerate(places)]
    for n, place in enumerate(chosen):
        where = (n, *(place if place is not None else ()))
        target[where] = maps[where]
    down = trace.pull({value: seed}, RULES[rules]).input()
    notes, field = _notes(trace, value, rules), inside.field(unit.layer)
    found = []
    for n, place in enumerate(chosen):
        box = reach(field, place or ())
        peak = float(maps[n].max() if place is None else maps[(n, *place)])
        if not isfinite(peak):
            raise ImageError(f'"{unit}" is {peak} there: nothing can be walked down; look for NaN in the input')
        array = down[n].detach().float().cpu().numpy()
        found.append(Projection(inside.model.name, unit, place, peak, array, box, rules, views[n], notes))
    return found


def _position(cells: Tensor, place: Where, unit: Unit) -> tuple[int, ...] | None:
    """Where on a map; None for all of it.

    Raises:
        SettingError: outside the map, or not a position.
    """
    if isinstance(place, str):
        if place != "all":
            raise SettingError(f'position is "{place}"; give (row, column), "all", or None for the highest')
        return None if cells.dim() else ()
    if place is None:
        highest = int(torch.nan_to_num(cells.flatten(), nan=-torch.inf).argmax())
        return tuple(int(p) for p in np.unravel_index(highest, tuple(cells.shape))) if cells.dim() else ()
    place = tuple(int(p) for p in place)
    if len(place) != cells.dim() or not all(0 <= p < n for p, n in zip(place, cells.shape, strict=True)):
        raise SettingError(f'position {place} is not on the map of "{unit}", which has the size {tuple(cells.shape)}')
    return place


def _notes(trace: Trace, value: Value, rules: str) -> tuple[str, ...]:
    """What limits a projection on this network."""
    on_way = [trace.nodes[k] for k in between(trace, trace.inputs[0], value)]
    notes = []
    if not any(node.kind == "max_pool" for node in on_way) and rules == "deconvnet":
        notes.append(
            "there is no max-pooling on the way, so there are no switches, and the map hardly depends on the picture"
        )
    smooth = sorted({node.base for node in on_way if node.kind == "rectifier" and node.base in SMOOTH})
    if smooth and rules != "gradient":
        notes.append(f"the papers define the rule for ReLU; {', '.join(smooth)} is treated alike")
    if rules != "gradient" and not any(node.kind == "rectifier" for node in on_way):
        notes.append("no rectifier lies on the way, so this is the gradient times the activation")
    return tuple(notes)


def _room(trace: Trace) -> int:
    """How many pictures are recorded at once in bounded memory."""
    each = sum(v.shape.numel() * 4 for node in trace.nodes for v in node.outputs if v is not None) // trace.batch
    return max(fitting(trace.inputs[0].data.device, each))
