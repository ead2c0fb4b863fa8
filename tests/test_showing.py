"""Findings about the inside: saved whole or not at all, as a picture, a page that loads nothing, or facts."""

import json

import pytest
from PIL import Image

from pellucid.core.errors import FileError
from pellucid.core.tables import Table, table
from pellucid.inside.showing import Shows
from pellucid.render.leaf import leaf


class Found(Shows):
    """One finding with markup in its words."""

    title = "<b>unit</b> 3"

    def image(self) -> Image.Image:
        return Image.new("RGB", (40, 20), "white")

    def sentence(self) -> str:
        return 'It likes "edges" & <script>alert(1)</script>.'

    @property
    def tables(self) -> tuple[Table, ...]:
        return (table("classes", ("class", "count"), [("cat", 3)]),)


@pytest.mark.parametrize("suffix", [".png", ".html", ".json"])
def test_it_is_saved_by_its_suffix(suffix, tmp_path):
    path = Found().save(tmp_path / f"found{suffix}")
    assert path.stat().st_size > 50 and [p.name for p in tmp_path.iterdir()] == [path.name]


def test_facts_and_picture_come_back(tmp_path):
    facts = json.loads(Found().save(tmp_path / "a.json").read_text(encoding="utf-8"))
    assert facts["sentence"] == Found().sentence() and facts["tables"][0]["rows"] == [["cat", 3]]
    with Image.open(Found().save(tmp_path / "a.png")) as image:
        assert image.size == (40, 20)


def test_words_never_act_as_markup():
    page = leaf(Found.title, Found().sentence(), Found().html())
    assert "<script>" not in page and "<b>unit" not in page and "&lt;script&gt;" in page
    assert "<script>" not in Found()._repr_html_()


def test_a_page_allows_its_own_script_and_no_other():
    page = leaf("t", "l", "", script="let a = 1;")
    assert "script-src 'sha256-" in page and "default-src 'none'" in page and "://" not in page
    assert "script-src" not in leaf("t", "l", "")


def test_another_suffix_and_an_existing_file_are_refused(tmp_path):
    with pytest.raises(FileError, match=r"[.]png, [.]html, [.]json"):
        Found().save(tmp_path / "a.gif")
    Found().save(tmp_path / "a.png")
    with pytest.raises(FileError, match="exists"):
        Found().save(tmp_path / "a.png", overwrite=False)


@pytest.mark.browser
def test_the_page_opens_without_a_word_of_complaint(page, tmp_path):
    complaints = []
    page.on("console", lambda message: complaints.append(message.text))
    page.on("pageerror", lambda error: complaints.append(str(error)))
    path = tmp_path / "page.html"
    path.write_text(leaf("A unit", "It ran.", Found().html(), script="document.title = 'ran'"), encoding="utf-8")
    page.goto(path.as_uri())
    assert page.title() == "ran" and not complaints
    assert page.locator("img").evaluate("i => i.naturalWidth") == 40
