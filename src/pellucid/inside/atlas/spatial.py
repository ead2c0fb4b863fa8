"""The spatial atlas: one picture as overlapping regions, each with what the layer finds there (C7)."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import torch
from jaxtyping import Float, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor, nn

from pellucid.core.errors import Cancelled, LayerError, SettingError
from pellucid.core.fields import Field
from pellucid.core.layers import ancestors, last_spatial
from pellucid.core.progress import Progress, watching
from pellucid.core.tables import Table, table
from pellucid.core.target import class_scores, logit
from pellucid.inside.atlas.cells import rgb, whitening
from pellucid.inside.densify import Dense, densify
from pellucid.inside.optimise.vectors import invert_vectors
from pellucid.inside.showing import Shows
from pellucid.methods.pictures import seen
from pellucid.models.model import Model
from pellucid.render.fitting import fitted
from pellucid.render.paint import colour_bar, draw, limit, number
from pellucid.render.sheet import INK, Panel, sheet, shortened, stacked

SIDE_PX = 320
COLOURS = ((31, 76, 189), (214, 94, 0), (0, 128, 96), (156, 60, 150), (120, 120, 20))
CLASSES, ICONS_AT_ONCE, MOST_ICONS = 5, 16, 400
OVERLAP_FRACTION, ACROSS = 0.5, 8


@dataclass(frozen=True, eq=False)
class SpatialAtlas(Shows):
    """One picture as a layer sees it, region by region.

    Attributes:
        dense: the dense maps from which the regions are sampled.
        every: places of the dense maps from one region to the next.
        positions: the place of each region on the dense maps, rows first.
        boxes: (first pixel, one behind the last) of what each sees, along each axis; maybe beyond the border.
        norms: the length of the activation at each.
        classes: the class that each supports most, of those that the network finds most likely.
        shares: how much it gives to the score of that class, if it stood alone at the old place nearest to it.
        icons: a picture for the activation of each region; fewer where the work was stopped, none where none is wanted.
        labels: the names of all classes.
        notes: what was chosen on the way.
    """

    dense: Dense
    every: int
    positions: Int64[np.ndarray, "n 2"]
    boxes: Int64[np.ndarray, "n 2 2"]
    norms: Float[np.ndarray, "n"]
    classes: Int64[np.ndarray, "n"]
    shares: Float[np.ndarray, "n"]
    icons: UInt8[np.ndarray, "i h w 3"]
    labels: tuple[str, ...]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        return f"Spatial atlas of {self.dense.layer}"

    def coverage(self) -> Int64[np.ndarray, "h w"]:
        """How many regions see each pixel of the input."""
        return covered(self.boxes, self.dense.field.input_px)

    def sentence(self) -> str:
        """What the regions are."""
        share = float((self.coverage() > 0).mean())
        lines, across = (len(np.unique(self.positions[:, a])) for a in (0, 1))
        px = "×".join(map(str, self.dense.field.size_px))
        step = "×".join(f"{s * self.every:g}" for s in self.dense.stride_px)
        return (
            f"{lines}×{across} regions of {px} px, {step} px apart, each with the activation of "
            f"{self.dense.layer} that sees it; together they see {share:.0%} of the picture."
        )

    @property
    def tables(self) -> tuple[Table, ...]:
        rows = [
            (int(p[0]), int(p[1]), *(int(e) for e in b.flatten()), float(n), self.labels[int(c)], float(s))
            for p, b, n, c, s in zip(self.positions, self.boxes, self.norms, self.classes, self.shares, strict=True)
        ]
        columns = ("row", "column", "top", "bottom", "left", "right", "length", "class", "attribution (score)")
        return (table("regions", columns, rows, " ".join(self.notes)),)

    def tiles(self) -> Int64[np.ndarray, "h w"]:
        """For each pixel of the input the number of the region whose middle is nearest."""
        lines = [np.unique(self.boxes[:, a].sum(1) / 2) for a in (0, 1)]
        ends = self.dense.field.input_px
        near = [np.abs(np.arange(n)[:, None] + 0.5 - m).argmin(1) for n, m in zip(ends, lines, strict=True)]
        return near[0][:, None] * len(lines[1]) + near[1]

    def image(self) -> Image.Image:
        """The picture, the lengths of the activations, the classes, and the icons, each where its region lies."""
        x = self.dense.opened.trace.inputs[0].data[0]
        plain = fitted(Image.fromarray(seen(x, self.dense.opened.model.preprocess)), SIDE_PX, exact=True)
        tiles, end = self.tiles(), limit(self.norms, 100)
        drawn = fitted(draw(self.norms[tiles], end, False), SIDE_PX, exact=True, cells=True)
        named, key = self._classes(plain, tiles)
        panels: list[Panel] = [(plain, ("the picture",)), (drawn, ("length of the activation",))]
        panels.append((named, ("class supported most",)))
        rows: list[list[Panel]] = [panels]
        if len(self.icons):
            rows.append([(self._mosaic(2 * SIDE_PX), ("made for each activation, in the order of the regions",))])
        return sheet(self.title, [], rows, stacked([colour_bar(end, False), key]))

    def _mosaic(self, side_px: int) -> Image.Image:
        """The icons in the order of their regions."""
        lines, across = (len(np.unique(self.positions[:, a])) for a in (0, 1))
        px = side_px // max(lines, across)
        canvas = Image.new("RGB", (across * px, lines * px), "white")
        for k, icon in enumerate(self.icons):
            small = Image.fromarray(np.ascontiguousarray(icon)).resize((px - 1, px - 1), Image.Resampling.LANCZOS)
            canvas.paste(small, (k % across * px, k // across * px))
        return canvas

    def _classes(self, plain: Image.Image, tiles: np.ndarray) -> tuple[Image.Image, Image.Image]:
        """Each tile in the colour of its class, stronger where it gives more to it, over the picture; and the key."""
        known = list(dict.fromkeys(self.classes[np.argsort(-self.shares, kind="stable")].tolist()))
        colours = np.array([COLOURS[known.index(int(c))] for c in self.classes], float)
        strength = np.clip(self.shares / max(float(self.shares.max()), 1e-12), 0, 1)[:, None]
        painted = (255 + (colours - 255) * strength).astype(np.uint8)[tiles]
        over = Image.fromarray(painted).resize(plain.size, Image.Resampling.NEAREST)
        key = Image.new("RGB", (2 * SIDE_PX, 18 * len(known) + 4), "white")
        pen, font = ImageDraw.Draw(key), ImageFont.load_default(12)
        for line, c in enumerate(known):
            pen.rectangle((0, 18 * line + 4, 12, 18 * line + 16), fill=COLOURS[line])
            words = f"{self.labels[c]}: most at {int((self.classes == c).sum())} of {len(self.classes)} places"
            pen.text((20, 18 * line + 3), shortened(words, key.width - 24, font), fill=INK, font=font)
        return Image.blend(plain.convert("L").convert("RGB"), over, 0.6), key

    def __repr__(self) -> str:
        best = int(self.shares.argmax())
        place = tuple(map(int, self.positions[best]))
        return (
            f'SpatialAtlas("{self.dense.layer}", {len(self.positions)} regions every {self.every}; strongest: '
            f"{self.labels[int(self.classes[best])]} {number(float(self.shares[best]))} at {place})"
        )


def spatial_atlas(
    model: Model | nn.Module | str,
    image: Any,
    layer: str | None = None,
    *,
    every: int | None = None,
    factor: int | None = None,
    icons: bool = True,
    icon_px: int | None = None,
    steps: int = 128,
    invert: Callable[..., Any] = invert_vectors,
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> SpatialAtlas:
    """One picture as overlapping regions: dense maps of a layer, sampled every d places, each drawn where it looks.

    Args:
        layer: by default the maps that are averaged into the scores, or else the last layer with maps.
        every: d, places of the dense maps from one region to the next; by default the largest with which neighbours
            share half of what they see, eight lie side by side, and no pixel goes unseen that any place sees.
        factor: how many times finer than the network's own the maps are; see `densify`.
        icons: whether a picture is made for the activation of each region.
        icon_px, steps, invert: how; see `atlas`.

    Returns:
        The regions with their activations. When it is stopped while icons are made, those that are finished are kept.

    Raises:
        SettingError: `every` out of range, or the picture makes more than 400 icons.
        LayerError: the layer has no maps over a picture, or they can't be made denser.
    """
    if every is not None and (isinstance(every, bool) or every < 1):
        raise SettingError(f"every={every} came; take every place (1), every second one (2), …")
    if isinstance(steps, bool) or steps < 1:
        raise SettingError(f"steps={steps} came; take at least 1")
    with watching(progress) as bar:
        dense = _dense(model, image, layer, factor, bar)
        field = dense.field
        notes = [*dense.notes]
        step = _step(field) if every is None else every
        if every is None:
            notes.append(f"every {step} places of the dense maps was chosen for you.")
        positions = sampled(field.positions, step)
        boxes = np.array([_box(field, p) for p in positions], np.int64)
        vectors = torch.stack([dense.maps[(0, slice(None), *p)] for p in positions]).float().cpu()
        classes, shares = _supported(dense, positions, vectors)
        drawn: UInt8[np.ndarray, "i h w 3"] = np.zeros((0, 1, 1, 3), np.uint8)
        if icons:
            if len(vectors) > MOST_ICONS:
                raise SettingError(f"{len(vectors)} icons would be made; take a larger every= or icons=False")
            drawn = _icons(dense, vectors, invert, icon_px, steps, seed, bar, notes)
    known = dense.opened.model
    count = max(int(classes.max()) + 1, len(known.labels or ()))
    return SpatialAtlas(
        dense, step, np.array(positions, np.int64), boxes, vectors.norm(dim=1).double().numpy(), classes, shares, drawn,
        tuple(known.label(c) for c in range(count)), tuple(dict.fromkeys(notes)),
    )  # fmt: skip


def _dense(model: Model | nn.Module | str, image: Any, layer: str | None, factor: int | None, bar: Progress) -> Dense:
    try:
        dense = densify(model, image, layer, factor=factor, progress=bar)
    except SettingError:
        if factor is not None:
            raise
        dense = densify(model, image, layer, factor=1, progress=bar)  # nothing has a stride
    trace = dense.opened.trace
    if dense.layer.partition("#")[0] not in trace.layers:  # averaged maps that no module gives out
        return _dense(dense.opened.model, image, last_spatial(trace)[0], factor, bar)
    if len(dense.field.input_px) != 2:
        raise LayerError("a spatial atlas is drawn over a picture; this network takes none")
    if len(dense.maps) != 1:
        raise SettingError(f"{len(dense.maps)} inputs came; a spatial atlas is made of one")
    return dense


def sampled(lengths: Sequence[int], every: int) -> list[tuple[int, ...]]:
    """Every d-th place along each axis, the last one always among them."""
    return list(product(*(sorted({*range(0, n, every), n - 1}) for n in lengths)))


def _step(field: Field) -> int:
    """The largest step: neighbours share half of their field, eight fit side by side, nothing goes unseen."""
    sizes = [s / max(px, 1e-9) * (1 - OVERLAP_FRACTION) for s, px in zip(field.size_px, field.stride_px, strict=True)]
    largest = int(max(1, min(*sizes, max(field.positions) / ACROSS)))
    full = int((covered([_box(field, p) for p in sampled(field.positions, 1)], field.input_px) > 0).sum())
    for step in range(largest, 1, -1):
        boxes = [_box(field, p) for p in sampled(field.positions, step)]
        if int((covered(boxes, field.input_px) > 0).sum()) == full:
            return step
    return 1


def _box(field: Field, position: Sequence[int]) -> list[tuple[int, int]]:
    """What one place sees, maybe beyond the border; without what reaches it by way of the whole picture (gates)."""
    return [(first, last + 1) for first, last in field.reach(position)]


def covered(boxes: Any, size: Sequence[int]) -> Int64[np.ndarray, "h w"]:
    """How many boxes hold each pixel."""
    out = np.zeros(tuple(size), np.int64)
    for (top, bottom), (left, right) in boxes:
        out[max(top, 0) : max(bottom, 0), max(left, 0) : max(right, 0)] += 1
    return out


def _supported(
    dense: Dense, positions: Sequence[tuple[int, ...]], vectors: Float[Tensor, "n c"]
) -> tuple[Int64[np.ndarray, "n"], Float[np.ndarray, "n"]]:
    """For each place the class, of the likeliest ones, to which its activation gives most."""
    trace, value = dense.opened.trace, dense.value
    end = class_scores(trace)
    if value not in ancestors(trace, end) or end.data.dim() < 2:
        return np.zeros(len(positions), np.int64), np.zeros(len(positions))
    scores = end.data[0] if end.data.dim() == 2 else end.data[0].flatten(1).mean(1)
    likely = scores.topk(min(CLASSES, len(scores))).indices.tolist()
    nearest = [
        tuple(min(round(p / r), n - 1) for p, r, n in zip(position, dense.rate, dense.original.shape[2:], strict=True))
        for position in positions
    ]
    given = []
    for c in likely:
        slopes = dense.oriented(trace.pull(logit(c), keep=[value]).at(value))
        given.append(torch.stack([slopes[(0, slice(None), *p)] for p in nearest]).float().cpu().mul(vectors).sum(1))
    best = torch.stack(given, 1).max(1)
    return np.array([likely[i] for i in best.indices.tolist()], np.int64), best.values.double().numpy()


def _icons(
    dense: Dense, vectors: Float[Tensor, "n c"], invert: Callable[..., Any], icon_px: int | None, steps: int, seed: int,
    bar: Progress, notes: list[str],
) -> UInt8[np.ndarray, "i h w 3"]:  # fmt: skip
    """A picture for each activation, a few at a time; places without any activation are grey."""
    everywhere = dense.original[0].flatten(1).T.float().cpu().numpy()
    pushed = torch.from_numpy(whitening(everywhere))
    made: list[np.ndarray] = []
    for start in range(0, len(vectors), ICONS_AT_ONCE):
        part = vectors[start : start + ICONS_AT_ONCE]
        alive = (part != 0).any(1)
        try:
            pixels = invert(
                dense.opened, dense.layer, part[alive], whiten=pushed, icon_px=icon_px, steps=steps, seed=seed,
                progress=bar,
            ) if bool(alive.any()) else []  # fmt: skip
            bar.advance(0)
        except (Cancelled, KeyboardInterrupt):
            notes.append(f"stopped after {len(made)} of {len(vectors)} icons.")
            break
        ready = iter(rgb(np.asarray(one)) for one in pixels)
        made += [next(ready) if one else np.full((1, 1, 3), 128, np.uint8) for one in alive.tolist()]
    side = max((one.shape[0] for one in made), default=1)
    whole = [np.broadcast_to(one, (side, side, 3)) if one.shape[0] == 1 else one for one in made]
    return np.stack(whole) if whole else np.zeros((0, 1, 1, 3), np.uint8)
