"""The `.pel` file: one explanation as safetensors, with everything else as JSON in its metadata.

Tensors: `attribution` (as computed), `pixels` (uint8, "h w 3") and `extra.0`, `extra.1`, … (the further maps, "h w").
Metadata: `pellucid`, a JSON object with `format` and one entry for each other field of `Explanation`; `extra_maps`
holds the names of the further maps in their order.

Format 1 has neither tables nor further maps, format 2 has both entries. A file is written in the lowest format that
holds it whole: what has no tables can still be opened by an older pellucid, and one that would drop the tables without
a word refuses the file instead.
"""

from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, get_args

import numpy as np
import torch
from torch import Tensor

from pellucid.core.errors import FileError, PellucidError
from pellucid.core.receipt import Receipt, Verdict
from pellucid.core.tables import Table
from pellucid.images.decode import Picture
from pellucid.images.transforms import Placement
from pellucid.render.explanation import Explanation, Prediction
from pellucid.store.files import read_tensors, write_tensors

FORMAT = 2
_WORDS = ("method", "title", "target", "site", "reduce", "units", "model", "misleads", "source")
_NUMBERS = ("score", "seconds")
_SWITCHES = ("signed", "layer_chosen")


def write(explanation: Explanation, path: str | Path, *, overwrite: bool = True) -> Path:
    """Writes an explanation; reading it back gives the same bits."""
    facts = {name: getattr(explanation, name) for name in (*_WORDS, *_NUMBERS, *_SWITCHES, "layer")}
    facts |= {
        "format": 1,
        "kind": "explanation",
        "settings": dict(explanation.settings),
        "versions": dict(explanation.versions),
        "receipt": explanation.receipt.to_json(),
        "placement": explanation.placement.to_json(),
        "predictions": [asdict(prediction) for prediction in explanation.predictions],
        "picture": {"name": explanation.picture.name, "notes": list(explanation.picture.notes)},
    }
    pixels = torch.from_numpy(np.array(explanation.picture.pixels, np.uint8))
    tensors = {"attribution": explanation.attribution, "pixels": pixels}
    if explanation.tables or explanation.extra_maps:
        facts |= {
            "format": 2,
            "tables": [table.to_json() for table in explanation.tables],
            "extra_maps": list(explanation.extra_maps),
        }
        tensors |= {f"extra.{number}": values for number, values in enumerate(explanation.extra_maps.values())}
    return write_tensors(path, tensors, facts, overwrite=overwrite)


def read(path: str | Path) -> Explanation:
    """Reads what `write` wrote.

    Raises:
        FileError: missing, too large, damaged, of a later format, or not an explanation.
    """
    tensors, facts = read_tensors(path)
    if facts.get("kind") != "explanation" or not isinstance(facts.get("format"), int):
        raise FileError(f"{path} was written by pellucid but holds no explanation; expected one from Explanation.save")
    if facts["format"] > FORMAT:
        raise FileError(f"{path} has format {facts['format']}, this pellucid reads up to {FORMAT}; install a newer one")
    try:
        return _build(tensors, facts)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError, PellucidError) as error:
        raise FileError(f"{path} is damaged ({error}); save it again from Python") from error


def _build(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> Explanation:
    attribution, pixels = tensors["attribution"], tensors["pixels"]
    _expect(attribution.is_floating_point(), "the attribution is not floating point")
    _expect(pixels.dtype == torch.uint8 and pixels.ndim == 3 and pixels.shape[2] == 3, "the picture is not RGB")
    picture = Picture(pixels.numpy(), str(facts["picture"]["name"]), tuple(map(str, facts["picture"]["notes"])))
    layer = facts["layer"]
    simple: dict[str, Any] = {name: str(facts[name]) for name in _WORDS}
    simple |= {name: float(facts[name]) for name in _NUMBERS} | {name: bool(facts[name]) for name in _SWITCHES}
    return Explanation(
        attribution=attribution,
        picture=picture,
        placement=Placement.from_json(facts["placement"]),
        layer=None if layer is None else str(layer),
        settings=dict(facts["settings"]),
        versions={str(name): str(version) for name, version in facts["versions"].items()},
        receipt=_receipt(facts["receipt"]),
        predictions=tuple(_prediction(entry) for entry in facts["predictions"]),
        tables=tables_of(facts),
        extra_maps=_extra_maps(tensors, facts),
        **simple,
    )


def tables_of(facts: Mapping[str, Any]) -> tuple[Table, ...]:
    """The tables in the record of a file.

    Raises:
        ValueError, TypeError, KeyError, AttributeError, SettingError: the record is damaged.
    """
    if facts["format"] < 2:
        return ()
    _expect(isinstance(facts["tables"], list), "the tables are no list")
    return tuple(map(_table, facts["tables"]))


def _table(data: dict[str, Any]) -> Table:
    lists = (data["columns"], data["rows"], *data["rows"])
    _expect(all(isinstance(part, list) for part in lists), "a table is not made of lists")
    table = Table.from_json(data)
    words = (table.name, table.note, *table.columns)
    _expect(all(isinstance(word, str) for word in words), "a table or column has no name")
    _expect(table.kind in ("table", "curve"), "a table is neither table nor curve")
    cells = [cell for row in table.rows for cell in row if cell is not None]
    _expect(all(isinstance(cell, str | int | float) for cell in cells), "a cell holds neither text nor number")
    return table


def _extra_maps(tensors: Mapping[str, Tensor], facts: Mapping[str, Any]) -> dict[str, Tensor]:
    names = facts["extra_maps"] if facts["format"] > 1 else []
    _expect(isinstance(names, list) and all(isinstance(name, str) for name in names), "a further map has no name")
    _expect(len(set(names)) == len(names), "two further maps bear one name")
    return {name: tensors[f"extra.{number}"] for number, name in enumerate(names)}


def _receipt(data: Mapping[str, Any]) -> Receipt:
    _expect(all(isinstance(told, str) for told in (*data["approximate"], *data["notes"])), "a note is no text")
    receipt = Receipt.from_json(data)
    for check in receipt.checks:
        _expect(check.verdict in get_args(Verdict), "a check has no known verdict")
        _expect(isinstance(check.name, str) and isinstance(check.text, str), "a check has no name or text")
        numbers = (check.value, 0.0 if check.bound is None else check.bound)
        _expect(all(isinstance(n, int | float) for n in numbers), "the value or bound of a check is no number")
    _expect(all(isinstance(n, int) for n in receipt.operations.values()), "operations are not counted")
    return receipt


def _prediction(entry: Mapping[str, Any]) -> Prediction:
    return Prediction(str(entry["label"]), int(entry["index"]), float(entry["probability"]))


def _expect(holds: bool, what: str) -> None:
    if not holds:
        raise ValueError(what)
