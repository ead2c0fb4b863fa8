"""What every finding about the inside of a network has in common: it is drawn, told in facts, and saved."""

from pathlib import Path
from typing import Any

from PIL import Image

from pellucid.core.errors import FileError
from pellucid.core.tables import Table
from pellucid.render.leaf import leaf, picture_html
from pellucid.render.tabular import tables_html
from pellucid.store.files import whole_file, write_json, write_text

SUFFIXES = (".png", ".html", ".json")


class Shows:
    """A finding that shows itself; a subclass draws `image` and gives `sentence`, `tables` and `facts`."""

    title = ""

    def image(self) -> Image.Image:
        """All of it as one picture."""
        raise NotImplementedError("a subclass draws it")

    def sentence(self) -> str:
        """What was found, for people."""
        raise NotImplementedError("a subclass says it")

    @property
    def tables(self) -> tuple[Table, ...]:
        """The numbers behind it."""
        return ()

    def facts(self) -> dict[str, Any]:
        """The finding as JSON values, without its arrays."""
        return {"title": self.title, "sentence": self.sentence(), "tables": [t.to_json() for t in self.tables]}

    def html(self) -> str:
        """The body of its page: the sentence, the picture, the tables."""
        return f"{picture_html(self.image(), self.sentence())}{tables_html(self.tables)}"

    def save(self, path: str | Path, *, overwrite: bool = True) -> Path:
        """Write it in one step, by the suffix of the path: a picture (.png), a page (.html) or facts (.json).

        Raises:
            FileError: another suffix, or the file can't be written.
        """
        path = Path(path)
        if path.suffix == ".png":
            with whole_file(path, overwrite=overwrite) as temporary:
                self.image().save(temporary, "PNG")
            return path
        if path.suffix == ".html":
            return write_text(path, leaf(self.title, self.sentence(), self.html()), overwrite=overwrite)
        if path.suffix == ".json":
            return write_json(path, self.facts(), overwrite=overwrite)
        raise FileError(f"{path} came; a {type(self).__name__} is saved as {', '.join(SUFFIXES)}")

    def _repr_html_(self) -> str:
        return picture_html(self.image(), self.sentence())
