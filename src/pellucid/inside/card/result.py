"""The card of a unit: findings under one another, with one sentence on top."""

from dataclasses import dataclass
from typing import Any

from PIL import Image

from pellucid.core.tables import Table
from pellucid.inside.opened import Unit
from pellucid.inside.showing import Shows
from pellucid.render.leaf import picture_html
from pellucid.render.notebook import escape
from pellucid.render.sheet import sheet, stacked
from pellucid.render.tabular import tables_html

HEADINGS = {
    "exemplars": "What it responds to in the data",
    "optimised": "The picture it would like best",
    "projection": "Which pixels excited it",
    "field": "How far it looks",
    "feeders": "What feeds it",
    "followers": "Whom it feeds",
    "ablation": "What is lost without it",
}
OPEN = ("histogram", "classes")  # tables that are not folded away


@dataclass(frozen=True, eq=False)
class UnitCard(Shows):
    """All that was found out about one unit.

    Attributes:
        model: the network's name.
        findings: part -> what was found, in the order of the page.
        missing: part -> why it could not be made.
        lead: one sentence for each part, for people.
        settings: what was asked for.
        notes: what else a reader should know.
    """

    model: str
    unit: Unit
    findings: dict[str, Shows]
    missing: dict[str, str]
    lead: tuple[str, ...]
    settings: dict[str, Any]
    notes: tuple[str, ...] = ()

    @property
    def title(self) -> str:
        """The unit and the network."""
        return f"Unit {self.unit} of {self.model}"

    def __repr__(self) -> str:
        return f"UnitCard({self.unit} of {self.model}: {', '.join(self.findings)})"

    def __getitem__(self, part: str) -> Shows:
        """One finding by its name."""
        return self.findings[part]

    def sentence(self) -> str:
        return " ".join(self.lead)

    def image(self) -> Image.Image:
        parts = [finding.image() for finding in self.findings.values()]
        return sheet(self.title, [], [], stacked(parts))

    @property
    def tables(self) -> tuple[Table, ...]:
        return tuple(table for finding in self.findings.values() for table in finding.tables)

    def facts(self) -> dict[str, Any]:
        return {
            "title": self.title,
            "sentence": self.sentence(),
            "model": self.model,
            "unit": str(self.unit),
            "settings": self.settings,
            "parts": {part: finding.facts() for part, finding in self.findings.items()},
            "missing": self.missing,
            "notes": list(self.notes),
        }

    def html(self) -> str:
        told = "".join(f"<li>{escape(note)}</li>" for note in self.notes)
        notes = f"<section><h2>Notes</h2><ul>{told}</ul></section>" if told else ""
        return "".join(self._section(part) for part in HEADINGS) + notes

    def _section(self, part: str) -> str:
        heading = f"<h2>{escape(HEADINGS[part])}</h2>"
        if part in self.missing:
            return f"<section>{heading}<p>{escape(self.missing[part])}</p></section>"
        if part not in self.findings:
            return ""
        finding = self.findings[part]
        open_, folded = [t for t in finding.tables if t.name in OPEN], [t for t in finding.tables if t.name not in OPEN]
        more = f"<details><summary>Numbers</summary>{tables_html(folded)}</details>" if folded else ""
        said = finding.sentence()
        shown = f"{picture_html(finding.image(), said)}{tables_html(open_)}"
        return f"<section>{heading}<p>{escape(said)}</p>{shown}{more}</section>"
