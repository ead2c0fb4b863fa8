"""The interactive page of an atlas: one file, nothing loaded, readable without its script."""

from importlib.resources import files
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from pellucid.render.datablock import embed
from pellucid.render.leaf import leaf, picture_html
from pellucid.render.notebook import data_uri, escape
from pellucid.render.tabular import tables_html

if TYPE_CHECKING:
    from pellucid.inside.atlas.result import Atlas

JPEG = {"quality": 88}


def page(atlas: "Atlas") -> str:
    """The whole page as text."""
    here = files("pellucid.inside.atlas")
    style, script = (here.joinpath(name).read_text(encoding="utf-8") for name in ("page.css", "page.js"))
    notes = "".join(f"<li>{escape(note)}</li>" for note in atlas.notes)
    body = f"""
<div class="atlas" id="atlas" hidden>
<div class="controls">
<button type="button" id="closer" aria-label="zoom in">+</button>
<button type="button" id="farther" aria-label="zoom out">−</button>
<button type="button" id="whole">show all</button>
<label>class <select id="class"><option value="">all</option></select></label>
<span class="quiet">Wheel or <kbd>+</kbd> <kbd>−</kbd> zoom, dragging moves, arrow keys go from cell to cell,
<kbd>Enter</kbd> keeps a cell, <kbd>Esc</kbd> lets it go.</span>
</div>
<div class="two">
<div class="window" id="window"><div class="plane" id="plane" role="group" aria-label="cells of the atlas"></div></div>
<section class="told" id="told" aria-live="polite"></section>
</div>
</div>
<noscript>{picture_html(atlas.image(), atlas.sentence())}</noscript>
{f'<ul class="quiet">{notes}</ul>' if notes else ""}
<details><summary>All cells as a table</summary>{tables_html(atlas.tables)}</details>
<script type="application/json" id="pellucid-atlas">{embed(_data(atlas))}</script>
"""
    return leaf(atlas.title, atlas.sentence(), body, style=style, script=script)


def _data(atlas: "Atlas") -> dict[str, Any]:
    """What the script draws: cells, and two sheets of pictures."""
    icons = [atlas.picture(k) for k in range(len(atlas.cells))]
    classes = sorted({c for cell in atlas.cells for c in cell.classes[:1]})
    return {
        "side": len(atlas.grid.counts),
        "icons": _strip([i for i in icons if i is not None]),
        "patches": _strip(list(atlas.patches.reshape(-1, *atlas.patches.shape[2:]))),
        "examples": int(atlas.patches.shape[1]),
        "classes": [{"number": c, "label": atlas.labels[c]} for c in classes],
        "cells": [
            {
                "row": cell.row, "column": cell.column, "count": cell.count, "size": round(atlas.size(k), 3),
                "caption": atlas.caption(cell), "made": k in atlas.drawn, "class": cell.classes[0],
                "labels": [[atlas.labels[c], share] for c, share in zip(cell.classes, cell.shares, strict=True)],
                "names": [atlas.names[e] for e in cell.examples],
            }
            for k, cell in enumerate(atlas.cells)
        ],
    }  # fmt: skip


def _strip(pictures: list[np.ndarray]) -> dict[str, Any] | None:
    """Pictures of one size on one sheet, with the side of a tile and how many there are in a row."""
    if not pictures:
        return None
    side = max(p.shape[0] for p in pictures)
    columns = max(1, min(len(pictures), 4096 // side))
    rows = -(-len(pictures) // columns)
    sheet = Image.new("RGB", (columns * side, rows * side))
    for k, pixels in enumerate(pictures):
        one = Image.fromarray(np.ascontiguousarray(pixels))
        one = one if one.size == (side, side) else one.resize((side, side), Image.Resampling.BICUBIC)
        sheet.paste(one, (k % columns * side, k // columns * side))
    return {"uri": data_uri(sheet, "JPEG", **JPEG), "columns": columns, "rows": rows}
