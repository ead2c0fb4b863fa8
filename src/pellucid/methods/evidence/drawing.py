"""The results as pictures: what was outlined, what the network was shown, and how the controls did."""

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Int64, UInt8
from PIL import Image, ImageDraw, ImageFont

from pellucid.images.decode import Picture
from pellucid.images.placement import Placement
from pellucid.methods.evidence.parting import Between
from pellucid.methods.evidence.region_sets import Change, MinimalSets, RegionSet
from pellucid.methods.evidence.verdict import Evidence, Reply
from pellucid.render.colours import DIVERGING
from pellucid.render.fitting import fitted
from pellucid.render.sentence import share_text
from pellucid.render.sheet import FAINT, INK, Panel, sheet

Pixels = UInt8[np.ndarray, "h w 3"]
LARGE_PX, SMALL_PX = 336, 156
LINE = (255, 255, 255)
BINS = 40


def of_evidence(found: Evidence) -> Image.Image:
    """Picture with outline, the two questions under each fill, and the histogram of the controls."""
    shown = [row for row in found.rows if row.pixels is not None]
    rows: list[list[Panel]] = []
    if shown:
        heads = ("without it", "with it alone")
        for which, head in enumerate(heads):
            rows.append([
                (fitted(Image.fromarray(row.pixels[which]), SMALL_PX, exact=True),
                 (f"{row.fill}: {head}", said((row.without, row.alone)[which])))
                for row in shown if row.pixels is not None
            ])  # fmt: skip
    left = []
    if found.image is not None and found.mask is not None and found.mask.ndim == 2:
        words = (f"{found.answer} ({share_text(found.share)})", found.symptom)
        left = [(outlined(found.image, found.placement, [found.mask], LARGE_PX), words)]
    title = f"{found.verdict}: Sym {found.sym:.2f}, Env {found.env:.2f}, FE {found.fe:+.2f}, p {found.p:.2g}"
    return sheet(title, left, rows, histogram(found, 560))


def of_sets(found: MinimalSets) -> Image.Image:
    """Picture with the outline of what can't be spared, and what the network was shown."""
    words = (("covered", found.necessary), ("shown alone", found.sufficient))
    return _sets("Which regions can't be spared, and which are enough", found, words)


def of_change(found: Change) -> Image.Image:
    """Picture with the outline of what must change, and what the network was shown under each fill."""
    tried = tuple((f"covered with {fill}", one) for fill, one in found.tried.items())
    return _sets(f"What must change for {found.to}", found, tried)


def of_between(found: Between) -> Image.Image:
    """Some pictures whose answers part, before a background of each data set."""
    rows: list[list[Panel]] = [[], []]
    for pair, *shown in found.shown:
        replies = ((found.names[0], pair.answer_a), (found.names[1], pair.answer_b))
        for row, pixels, (name, answer) in zip(rows, shown, replies, strict=True):
            row.append((fitted(Image.fromarray(pixels), SMALL_PX, exact=True), (f"before {name}", answer)))
    return sheet(f"Answers part in {share_text(found.disagreement)} of {len(found.pairs)} pictures", [], rows)


def _sets(title: str, found: MinimalSets | Change, sets: Sequence[tuple[str, RegionSet | None]]) -> Image.Image:
    some = [(word, one) for word, one in sets if one is not None]
    left: list[Panel] = []
    if found.image is not None and found.labels.ndim == 2:
        first = [one.mask for _, one in some[:1]]
        drawn = outlined(found.image, found.placement, first, LARGE_PX, found.labels)
        regions = "; outlined: ".join([f"{found.labels.max() + 1} regions", *(word for word, _ in some[:1])])
        left = [(drawn, (f"{found.answer} ({share_text(found.share)})", regions))]
    row = [
        (
            fitted(Image.fromarray(one.pixels), SMALL_PX, exact=True),
            (f"{word}: {len(one.regions)}", f"{one.answer} ({share_text(one.share)})"),
        )
        for word, one in some
        if one.pixels is not None
    ]
    return sheet(title, left, [row] if row else [])


def said(reply: Reply) -> str:
    """What the network says to one edited picture."""
    return f"{reply.answer} ({share_text(reply.share)})"


def outlined(
    picture: Picture,
    placement: Placement | None,
    masks: Sequence[Bool[np.ndarray, "a b"]],
    longest_px: int,
    labels: Int64[np.ndarray, "a b"] | None = None,
) -> Image.Image:
    """The picture with the borders of masks drawn on it, white beside black; of regions faintly."""
    image = fitted(Image.fromarray(picture.pixels), longest_px, exact=True)
    pixels = np.asarray(image).copy()
    if labels is not None:
        between = edges(on_picture(labels.astype(np.float64), picture, placement, image))
        pixels[between] = (pixels[between] * 0.6 + 0.4 * np.array(LINE)).astype(np.uint8)
    for mask in masks:
        inner = on_picture(mask.astype(np.float64), picture, placement, image) > 0.5
        line = grown(edges(inner))
        pixels[grown(line) & ~line] = INK
        pixels[line] = LINE
    return Image.fromarray(pixels)


def on_picture(values: np.ndarray, picture: Picture, placement: Placement | None, image: Image.Image) -> np.ndarray:
    """Values of the network's input grid on a drawn picture, cell by cell; NaN where the network does not look."""
    place = placement or Placement.identity(*picture.size_px)
    height, width = image.height, image.width
    down, across = height / place.original_px[0], width / place.original_px[1]
    top, left, bottom, right = place.box
    drawn = replace(place, original_px=(height, width), box=(top * down, left * across, bottom * down, right * across))
    return drawn.place(values, smooth=False)


def edges(values: np.ndarray) -> Bool[np.ndarray, "h w"]:
    """Pixels whose right or lower neighbour has another value."""
    found = np.zeros(values.shape, dtype=bool)
    found[:, :-1] |= values[:, :-1] != values[:, 1:]
    found[:-1] |= values[:-1] != values[1:]
    return found


def grown(mask: Bool[np.ndarray, "h w"]) -> Bool[np.ndarray, "h w"]:
    """A mask and the pixels beside it."""
    found = mask.copy()
    found[:, 1:] |= mask[:, :-1]
    found[:, :-1] |= mask[:, 1:]
    found[1:] |= mask[:-1]
    found[:-1] |= mask[1:]
    return found


def histogram(found: Evidence, width_px: int, height_px: int = 120) -> Image.Image:
    """FE of the controls from −1 to 1 around zero, and where the symptom stands."""
    canvas = Image.new("RGB", (width_px, height_px), "white")
    pen, font = ImageDraw.Draw(canvas), ImageFont.load_default(12)
    base, top, margin = height_px - 20, 18, 12

    def place(fe: int | float) -> float:
        return margin + (fe + 1) / 2 * (width_px - 2 * margin)

    counts, ends = np.histogram(found.control_fe, BINS, (-1, 1))
    for count, low, high in zip(counts, ends[:-1], ends[1:], strict=True):
        tall = (base - top) * count / max(counts.max(), 1)
        colour = tuple(int(c) for c in DIVERGING[round(((low + high) / 2 + 1) / 2 * (len(DIVERGING) - 1)), :3])
        pen.rectangle((place(low), base - tall, place(high) - 1, base), fill=colour)
    pen.line((margin, base, width_px - margin, base), fill=FAINT)
    for value, word in ((-1, "-1 all environment"), (0, "0"), (1, "all symptom 1")):
        anchor = {-1: "la", 0: "ma", 1: "ra"}[value]
        pen.text((place(value), base + 4), word, fill=FAINT, font=font, anchor=anchor)
    pen.line((place(0), top, place(0), base), fill=FAINT)
    at = place(found.fe)
    pen.line((at, top, at, base), fill=INK, width=3)
    words, told = f"this: FE {found.fe:+.2f}", f"bars: {len(found.control_fe)} {found.controls} as controls"
    pen.text((at - 6 if found.fe > 0 else at + 6, 2), words, fill=INK, font=font, anchor="ra" if found.fe > 0 else "la")
    pen.text((margin, 2) if found.fe > 0 else (width_px - margin, 2), told, fill=FAINT, font=font,
             anchor="la" if found.fe > 0 else "ra")  # fmt: skip
    return canvas
