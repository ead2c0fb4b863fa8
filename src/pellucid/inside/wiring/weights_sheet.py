"""How weights are drawn: filters as little pictures with grey for zero, connections as matrices, biases as bars."""

from collections.abc import Sequence
from math import ceil, sqrt

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageDraw, ImageFont

from pellucid.inside.wiring.kernels import Kernel
from pellucid.render import paint
from pellucid.render.bars import COLD, WARM
from pellucid.render.fitting import fitted
from pellucid.render.sheet import FAINT, INK, Panel, in_rows, sheet, shortened

MOST_TILES, MOST_CHANNELS, MOST_PANELS, PER_ROW = 256, 16, 96, 6
TILES_PX, THUMB_PX, BARS_PX, BAR_HIGH_PX = 400, 150, 860, 64
PERCENTILE = 99.5


def overview(title: str, kernels: Sequence[Kernel], picture: Image.Image | None = None) -> Image.Image:
    """All layers: the filters on the input large, then every layer's connections and biases."""
    first = [panel for k in kernels if k.first and (panel := tiles(k)) is not None]
    shown = kernels[:MOST_PANELS]
    thumbs = [_thumb(k) for k in shown]
    if len(shown) < len(kernels):
        title = f"{title}: the first {len(shown)} of {len(kernels)} layers"
    head = ([(fitted(picture, 220, exact=True), ["the picture"])] if picture is not None else []) + first
    return sheet(title, [], [head, *in_rows(thumbs, PER_ROW)])


def detail(title: str, kernel: Kernel, picture: Image.Image | None = None) -> Image.Image:
    """One layer: its filters, its connections, on a picture what went through each, and its numbers as bars."""
    panels = [(fitted(picture, 220, exact=True), ["the picture"])] if picture is not None else []
    filters = tiles(kernel)
    panels += [] if filters is None else [filters]
    if kernel.channels > 1:
        panels.append(
            _matrix(kernel.matrix, 300, ["length of each connection", "channels down, filters across"], False)
        )
    if kernel.paths is not None:
        words = ["weight times activation on this picture", "channels down, filters across"]
        panels.append(_matrix(kernel.paths, 300, words, True))
    strips = [bars(kernel.norms, "length of each filter")]
    if kernel.bias is not None:
        strips.append(bars(kernel.bias, "bias"))
    if kernel.norm is not None:
        strips += [bars(kernel.norm.scale, "BatchNorm scale"), bars(kernel.norm.shift, "BatchNorm implicit bias")]
    below = Image.new("RGB", (BARS_PX, sum(s.height for s in strips)), "white")
    for number, strip in enumerate(strips):
        below.paste(strip, (0, sum(s.height for s in strips[:number])))
    return sheet(title, [], [panels], below)


def tiles(
    kernel: Kernel,
    chosen: Sequence[int] | None = None,
    most_px: int = TILES_PX,
    channels: Sequence[int] | None = None,
) -> Panel | None:
    """Filters as pictures with one limit for the layer; None where they have no window.

    In colours where they look at an input of three channels; else a map for each channel, a row for each filter.

    Args:
        chosen: numbers of the filters; all where None, as far as there is room.
        channels: numbers of the channels of their own group, in the order in which they are shown.
    """
    window, wide = kernel.weight.shape[2:], kernel.weight.shape[1]
    if not window or (max(window) == 1 and wide > MOST_CHANNELS and channels is None):
        return None
    end = paint.limit(kernel.weight, PERCENTILE)
    colour = kernel.first and wide == 3 and len(window) == 2
    numbers = list(range(kernel.filters) if chosen is None else chosen)
    numbers = numbers[: MOST_TILES if colour or wide == 1 else MOST_CHANNELS]
    across = list(range(min(wide, MOST_CHANNELS)) if channels is None else channels)
    if colour:
        drawn = [_coloured(kernel.weight[n], end) for n in numbers]
    else:
        drawn = [paint.draw(_flat(kernel.weight[n, c]), end, True) for n in numbers for c in across]
    columns = ceil(sqrt(1.5 * len(drawn))) if colour or wide == 1 else len(across)
    told = f"{len(numbers)} of {kernel.filters} filters" if len(numbers) < kernel.filters else f"{len(numbers)} filters"
    if not colour and wide > 1:
        told += f" down, {len(across)} of {wide} channels across" if wide > len(across) else " down, channels across"
    zero = "grey is 0, colours end at ±" if colour else "white is 0, colours end at ±"
    return _grid(drawn, columns, most_px), [f"{kernel.name}: {told}", f"{zero}{paint.plain(end)}"]


def _coloured(one: Float[np.ndarray, "3 h w"], end: float) -> Image.Image:
    shares = np.clip(one / end if end else one, -1, 1)
    return Image.fromarray(np.rint(127.5 + 127.5 * shares).astype(np.uint8).transpose(1, 2, 0).copy())


def _flat(window: Float[np.ndarray, "*window"]) -> Float[np.ndarray, "h w"]:
    """A window as a picture: a signal is one row, the slices of a volume stand side by side."""
    if window.ndim == 1:
        return window[None]
    if window.ndim == 2:
        return window
    return np.concatenate([np.pad(one, ((0, 0), (0, 1))) for one in window], 1)[:, :-1]


def _grid(drawn: Sequence[Image.Image], columns: int, most_px: int) -> Image.Image:
    wide, tall = drawn[0].size
    rows = ceil(len(drawn) / columns)
    factor = max(1, min((most_px // columns - 2) // wide, (most_px // rows - 2) // tall, 24))
    canvas = Image.new("RGB", (columns * (wide * factor + 2), rows * (tall * factor + 2)), "white")
    for number, one in enumerate(drawn):
        place = (number % columns * (wide * factor + 2), number // columns * (tall * factor + 2))
        canvas.paste(one.resize((wide * factor, tall * factor), Image.Resampling.NEAREST), place)
    return canvas


def _thumb(kernel: Kernel) -> Panel:
    """A layer in the overview: connections above, biases (behind the BatchNorm) below."""
    own = tiles(kernel, range(min(kernel.filters, 64)), THUMB_PX) if kernel.weight.shape[1] == 1 else None
    values, signed = (kernel.matrix, False) if kernel.paths is None else (kernel.paths, True)
    head = _matrix(values, THUMB_PX, [], signed)[0] if own is None or kernel.paths is not None else own[0]
    told = paint.plain(max(float(values.max(initial=0)), -float(values.min(initial=0))))
    canvas = Image.new("RGB", (THUMB_PX, THUMB_PX + 34), "white")
    canvas.paste(head.crop((0, 0, min(head.width, THUMB_PX), min(head.height, THUMB_PX))), (0, 0))
    canvas.paste(_drawn_bars(kernel.merged_bias, THUMB_PX, 30), (0, THUMB_PX + 4))
    window = "x".join(map(str, kernel.weight.shape[2:]))
    low, high = float(kernel.merged_bias.min(initial=0)), float(kernel.merged_bias.max(initial=0))
    found = [f"{int(kernel.dead.sum())} dead"] if kernel.dead.any() else []
    found += [f"{len(kernel.twins)} pairs alike"] if kernel.twins else []
    return canvas, [
        kernel.name,
        f"{kernel.channels} to {kernel.filters}{f', {window}' if window else ''}",
        f"{'w*a' if signed else 'length'} up to {told}",
        f"bias {paint.plain(low)} to {paint.plain(high)}",
        ", ".join(found) or "none dead or alike",
    ]


def _matrix(values: Float[np.ndarray, "rows columns"], px: int, words: list[str], diverging: bool) -> Panel:
    """Numbers as cells, enlarged evenly up to a size, or averaged down to it before they are coloured."""
    values = _averaged(values, px)
    end = paint.limit(values, PERCENTILE)
    drawn = fitted(paint.draw(values, end, diverging), px, cells=True, least_px=6)
    canvas = Image.new("RGB", (max(drawn.width, 200 if words else 1), drawn.height), "white")
    canvas.paste(drawn, (0, 0))
    sign = "±" if diverging else "0 to "
    return canvas, [*words, f"colours: {sign}{paint.plain(end)}"]


def _averaged(values: Float[np.ndarray, "rows columns"], most: int) -> Float[np.ndarray, "fewer_rows fewer_columns"]:
    """The means of blocks of neighbours, so that the longer side has at most so many."""
    share = min(most / max(values.shape), 1.0)
    for axis, count in enumerate(values.shape):
        starts = np.unique(np.floor(np.arange(max(round(count * share), 1)) * count / max(round(count * share), 1)))
        starts = starts.astype(int)
        size = np.diff(np.append(starts, count))
        values = np.add.reduceat(values, starts, axis) / np.expand_dims(size, 1 - axis).astype(values.dtype)
    return values


def bars(values: Float[np.ndarray, "n"], title: str, width_px: int = BARS_PX) -> Image.Image:
    """One thin bar for each value around zero, warm above and cold below, with the ends printed."""
    canvas = Image.new("RGB", (width_px, BAR_HIGH_PX + 30), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    low, high = float(values.min(initial=0)), float(values.max(initial=0))
    told = (
        f"{title}, {len(values)} values from {paint.plain(float(values.min()))} to {paint.plain(float(values.max()))}"
    )
    pen.text((0, 4), shortened(told, width_px, font), fill=INK, font=font)
    canvas.paste(_drawn_bars(values, width_px - 60, BAR_HIGH_PX), (60, 24))
    for y, value, anchor in ((24, high, "ra"), (24 + BAR_HIGH_PX, low, "rd")):
        pen.text((54, y), paint.plain(value), fill=FAINT, font=font, anchor=anchor)
    return canvas


def _drawn_bars(values: Float[np.ndarray, "n"], width: int, height: int) -> Image.Image:
    """The bars alone; where there are more values than pixels each column shows the largest of its values."""
    canvas = Image.new("RGB", (width, height), "white")
    pen = ImageDraw.Draw(canvas)
    if len(values) > width:
        parts = np.array_split(values, width)
        values = np.array([p[np.abs(p).argmax()] for p in parts])
    low, high = min(float(values.min(initial=0)), 0.0), max(float(values.max(initial=0)), 0.0)
    span = high - low or 1.0
    zero = (height - 1) * high / span
    each = width / max(len(values), 1)
    for number, value in enumerate(values.tolist()):
        left, right = (
            round(number * each),
            max(round((number + 1) * each) - (2 if each >= 4 else 1), round(number * each)),
        )
        y = zero - (height - 1) * value / span
        pen.rectangle((left, min(y, zero), right, max(y, zero)), fill=WARM if value > 0 else COLD)
    pen.line((0, zero, width, zero), fill=FAINT)
    return canvas
