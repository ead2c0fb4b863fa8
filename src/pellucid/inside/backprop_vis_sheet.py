"""The sheet of BackpropVis: maps in a row, shares as bars, and the channels that carry the score with their filters."""

from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from pellucid.inside.carriers import Carrier
from pellucid.inside.wiring.weights_sheet import tiles
from pellucid.render import paint
from pellucid.render.bar_chart import bar_chart
from pellucid.render.explanation import Explanation
from pellucid.render.fitting import fitted
from pellucid.render.sheet import INK, Panel, sheet, side_by_side, stacked
from pellucid.render.visible import drawable

MAP_PX, CHANNEL_PX, MOST_BARS, MOST_WINDOWS = 200, 190, 14, 6


def drawn(
    title: str,
    layer: str,
    maps: Mapping[str, Explanation],
    shares: Mapping[str, float],
    carriers: Sequence[Carrier],
) -> Image.Image:
    """All of it as one picture."""
    first = next(iter(maps.values()))
    head = [(fitted(first.picture.image(), MAP_PX, exact=True), ["the picture", first.picture.name])]
    row = [*head, *(_map(one) for one in maps.values())]
    channels = [_channel(c, first) for c in carriers]
    words = f"channels of {layer} that carry the score, their maps and one of their filters"
    parts = [_words("FullGrad: shares of the score"), _bars(shares)]
    parts += [_words(words), side_by_side(channels)] if channels else []
    return sheet(title, [], [row], stacked(parts))


def _map(one: Explanation) -> Panel:
    """An overlay with its colour bar."""
    overlay = fitted(one.overlay(longest_px=MAP_PX), MAP_PX, exact=True)
    bar = paint.colour_bar(one.limits()[1], one.diverging, width_px=overlay.width)
    canvas = Image.new("RGB", (overlay.width, overlay.height + 4 + bar.height), "white")
    canvas.paste(overlay, (0, 0))
    canvas.paste(bar, (0, overlay.height + 4))
    at = f"at {one.layer}" if one.layer else "on the input"
    if one.method == "gated_backprop":
        return canvas, ["both multiplied", f"{one.settings['cam']} x", f"{one.settings['backprop']}"]
    return canvas, [one.title, at]


def _words(text: str) -> Image.Image:
    font = ImageFont.load_default(13)
    canvas = Image.new("RGB", (round(font.getlength(drawable(text))) + 4, 30), "white")
    ImageDraw.Draw(canvas).text((0, 8), drawable(text), fill=INK, font=font)
    return canvas


def _bars(shares: Mapping[str, float]) -> Image.Image:
    """The largest shares in the order of the network, the others together, and their sum."""
    kept = sorted(shares, key=lambda name: -abs(shares[name]))[:MOST_BARS]
    rows = [(name or "the network itself", shares[name]) for name in shares if name in kept or name == "input"]
    rest = [share for name, share in shares.items() if name not in kept and name != "input"]
    rows += [(f"{len(rest)} other layers", sum(rest))] if rest else []
    rows.append(("together: the score", sum(shares.values())))
    return bar_chart([name for name, _ in rows], [value for _, value in rows])


def _channel(carrier: Carrier, first: Explanation) -> Panel:
    """A channel's map over the picture, one of its filters, and its numbers."""
    over = fitted(_activation(carrier, first), CHANNEL_PX, exact=True)
    most = float(np.abs(carrier.activation).max(initial=0))
    words = [f"channel {carrier.channel} carries {carrier.carries:.3g}"]
    words += [f"CAM weight {carrier.weight:.3g}", f"its map goes up to {most:.3g}"]
    if not carrier.filters:
        return over, [*words, "made by no filter alone"]
    filters, one = carrier.filters, carrier.filters[0]
    words.append(f"filter {one.number} of {one.kernel.name}")
    words.append(f"bias {_number(one.bias)}, length {one.length:.3g}")
    if one.scale is not None:
        words.append(f"BatchNorm scale {one.scale:.3g}, bias {_number(one.shift)}")
    if one.fed():
        words.append(f"fed most by {', '.join(str(source) for source, _ in one.fed())}")
    if len(filters) > 1:
        words.append(f"and {len(filters) - 1} filters added to it")
    shown = tiles(one.kernel, [one.number], CHANNEL_PX, one.strongest_own(MOST_WINDOWS))
    if shown is None:
        return over, words
    words += ["its windows on these:", shown[1][1].split(", ")[-1]]
    windows = shown[0].crop((0, 0, min(shown[0].width, CHANNEL_PX), min(shown[0].height, CHANNEL_PX // 2)))
    canvas = Image.new("RGB", (CHANNEL_PX, over.height + 6 + CHANNEL_PX // 6), "white")
    canvas.paste(over, (0, 0))
    canvas.paste(windows, (0, over.height + 6))
    return canvas, words


def _activation(carrier: Carrier, first: Explanation) -> Image.Image:
    """The channel's own map over the picture, coloured by the largest |value|."""
    heat = first.placement.place(carrier.activation.astype(np.float32))
    end = paint.limit(carrier.activation, 100)
    return paint.blend(first.picture.image(), heat, end, bool((carrier.activation < 0).any()))


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"
