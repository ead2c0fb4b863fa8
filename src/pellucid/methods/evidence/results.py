"""What every result of this package can do: be saved, and show itself in a notebook."""

import json
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from PIL import Image
from PIL.PngImagePlugin import PngInfo

from pellucid.core.errors import FileError
from pellucid.core.receipt import Receipt
from pellucid.core.tables import Table
from pellucid.images.decode import Picture
from pellucid.render.notebook import data_uri, escape
from pellucid.render.tabular import csv_text
from pellucid.store.files import whole_file, write_text

ENDINGS = (".json", ".csv", ".png")


@dataclass(frozen=True, eq=False, kw_only=True)
class Result(ABC):
    """A result that knows its network and its picture.

    Attributes:
        model: the network's name.
        receipt: checks of how it was computed, and what was chosen for the user or done on the way.
        seconds: how long it took.
    """

    model: str
    receipt: Receipt = field(default_factory=Receipt)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The picture's name."""
        image: Picture | None = getattr(self, "image", None)
        return "input" if image is None else image.name

    @property
    @abstractmethod
    def table(self) -> Table:
        """The numbers in rows."""

    @abstractmethod
    def sentence(self) -> str:
        """What came out, in words for a reader who is no expert."""

    @abstractmethod
    def picture(self) -> Image.Image:
        """What came out, drawn."""

    @abstractmethod
    def to_json(self) -> Mapping[str, Any]:
        """Everything but the pixels, as JSON values."""

    def facts(self) -> dict[str, Any]:
        """What every result has, as JSON values."""
        return {
            "model": self.model, "picture": self.name, "table": self.table.to_json(), "sentence": self.sentence(),
            "receipt": {"verdict": self.receipt.verdict, **self.receipt.to_json()}, "seconds": self.seconds,
        }  # fmt: skip

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Writes everything (`.json`), the table (`.csv`) or the picture (`.png`) in one step.

        Raises:
            FileError: another ending, or the file can't be written.
        """
        ending = Path(path).suffix.lower()
        if ending not in ENDINGS:
            raise FileError(f'can\'t save as "{Path(path).name}"; expected a name that ends in {", ".join(ENDINGS)}')
        if ending == ".json":
            return write_text(path, json.dumps(self.to_json(), indent=1, allow_nan=False) + "\n", overwrite=overwrite)
        if ending == ".csv":
            return write_text(path, csv_text(self.table), overwrite=overwrite)
        with whole_file(path, overwrite=overwrite) as temporary, temporary.open("wb") as file:
            words = PngInfo()
            for key, value in (("Title", repr(self)), ("Description", self.sentence()), ("Software", "pellucid")):
                words.add_itxt(key, value)
            words.add_itxt("pellucid", json.dumps({"kind": type(self).__name__}))
            self.picture().save(file, "PNG", pnginfo=words)
        return Path(path)

    def _repr_html_(self) -> str:
        source = data_uri(self.picture())
        words = escape(self.sentence())
        shown = f'<img src="{source}" alt="{words}" style="max-width:100%">'
        return f'<div style="max-width:960px">{shown}<p>{words}</p></div>'
