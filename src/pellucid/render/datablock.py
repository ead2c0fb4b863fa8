"""The data of a report: everything the viewer draws, as one JSON object apart from page and script.

Top level: `format` (this page is format 1), `title`, `colours` (RGBA tables in base64), `percentiles`, `images`,
`maps`. A map holds its facts, `box` (top, left, bottom, right of the network's input as fractions of the picture),
`limits` (one for each of `percentiles`), `tables` (name, columns, rows, kind, note) and `grid`: rows, columns, scale
and little-endian int16 in base64, row by row; heat = int16 x scale, and -32768 is a missing value.
"""

import base64
import hashlib
import json
from collections.abc import Mapping, Sequence
from math import isfinite
from typing import Any

import numpy as np
from jaxtyping import Float
from PIL import Image

from pellucid.images.decode import Picture
from pellucid.render import paint
from pellucid.render.colours import DIVERGING, NAN_COLOURS, NAN_STRIPES, NEUTRAL, SEQUENTIAL, STEPS
from pellucid.render.explanation import Explanation
from pellucid.render.notebook import data_uri
from pellucid.render.sentence import alt_text, sentence

FORMAT = 1
PERCENTILES = (90.0, 95.0, 98.0, 99.0, 99.5, 100.0)
PICTURE_PX = 1024
GRID_CELLS = 512
_TINY_PX = 128
_MISSING = -32768


def data_block(explanations: Sequence[Explanation], title: str) -> dict[str, Any]:
    """Everything the viewer needs, JSON-able."""
    keys = [picture_key(explanation.picture) for explanation in explanations]
    order = list(dict.fromkeys(keys))
    first = {key: explanations[keys.index(key)] for key in order}
    return {
        "format": FORMAT,
        "title": title,
        "colours": {
            "steps": STEPS,
            "diverging": _base64(DIVERGING.tobytes()),
            "sequential": _base64(SEQUENTIAL.tobytes()),
            "neutral": NEUTRAL,
            "missing": NAN_COLOURS,
            "stripes": NAN_STRIPES,
        },
        "percentiles": PERCENTILES,
        "images": [_image(first[key]) for key in order],
        "maps": [_map(one, order.index(key)) for one, key in zip(explanations, keys, strict=True)],
    }


def embed(data: Mapping[str, Any]) -> str:
    """JSON that can stand inside a <script> element: no text of the user can close it or open another."""
    text = json.dumps(plain(data), allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


def plain(value: Any) -> Any:
    """The same value in the words of JSON; what JSON can't say (NaN, infinity, objects) becomes text."""
    if isinstance(value, Mapping):
        return {str(key): plain(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [plain(entry) for entry in value]
    if value is None or isinstance(value, bool | int | str):
        return value
    return value if isinstance(value, float) and isfinite(value) else str(value)


def picture_key(picture: Picture) -> tuple[str, str]:
    """Equal for the same picture, also when it was read from two files."""
    return picture.name, hashlib.sha256(picture.pixels.tobytes()).hexdigest()


def picture_uri(picture: Image.Image, longest_px: int) -> str:
    """A picture as a `data:` address, JPEG, or PNG where it is tiny."""
    small = picture.copy()
    small.thumbnail((longest_px, longest_px), Image.Resampling.LANCZOS)
    if max(small.size) <= _TINY_PX:
        return data_uri(small)
    return data_uri(small, "JPEG", quality=86)


def _image(explanation: Explanation) -> dict[str, Any]:
    picture = explanation.picture
    return {
        "name": picture.name,
        "size_px": picture.size_px,
        "notes": picture.notes,
        "picture": picture_uri(picture.image(), PICTURE_PX),
        "predictions": [vars(prediction) for prediction in explanation.predictions],
    }


def _map(explanation: Explanation, image: int) -> dict[str, Any]:
    facts = ("method", "title", "target", "score", "site", "layer", "layer_chosen", "signed", "reduce", "settings")
    more = ("units", "seconds", "model", "versions", "misleads", "source", "diverging")
    height, width = explanation.placement.original_px
    sizes = (height, width, height, width)
    return {
        **{name: getattr(explanation, name) for name in (*facts, *more)},
        "image": image,
        "receipt": explanation.receipt.to_json() | {"verdict": explanation.receipt.verdict},
        "sentence": sentence(explanation),
        "alt": alt_text(explanation),
        "box": [edge / size for edge, size in zip(explanation.placement.box, sizes, strict=True)],
        "limits": [paint.limit(explanation.native, percentile) for percentile in PERCENTILES],
        "computed_cells": explanation.native.shape,
        "tables": [table.to_json() for table in explanation.tables],
        "grid": grid(explanation.native),
    }


def grid(heat: Float[np.ndarray, "a b"]) -> dict[str, Any]:
    """A heat map as int16 steps of its largest value; beyond 512 cells on a side, averaged down."""
    cells = _averaged(heat)
    finite = np.isfinite(cells)
    scale = float(np.abs(cells[finite]).max(initial=0.0)) / 32767
    steps = np.rint(np.where(finite, cells, 0).astype(np.float64) / (scale or 1.0))
    packed = np.where(finite, steps, _MISSING).astype("<i2")
    return {"rows": cells.shape[0], "columns": cells.shape[1], "scale": scale, "int16": _base64(packed.tobytes())}


def _averaged(heat: Float[np.ndarray, "a b"]) -> Float[np.ndarray, "c d"]:
    rows, columns = (min(size, GRID_CELLS) for size in heat.shape)
    if (rows, columns) == heat.shape:
        return heat
    finite = np.where(np.isfinite(heat), heat, np.nan).astype(np.float32)
    return np.asarray(Image.fromarray(finite).resize((columns, rows), Image.Resampling.BOX))


def _base64(data: bytes) -> str:
    return base64.b64encode(data).decode("ascii")
