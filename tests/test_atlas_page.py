"""The atlas in a browser and from a shell."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from atlas_cases import Planted, clusters, flat_icons
from pellucid.cli.charting import atlas as command
from pellucid.images import scenes
from pellucid.inside.atlas import Atlas, atlas
from pellucid.inside.atlas.page import page as whole_page
from pellucid.models.model import wrap


@pytest.fixture(scope="module")
def file(tmp_path_factory):
    x, _ = clusters()
    found = atlas(Planted().eval(), x, "layer", layout="pca", grid=12, least=4, invert=flat_icons)
    path = tmp_path_factory.mktemp("atlas") / "atlas.html"
    found.save(path)
    return found, path


def test_the_page_loads_nothing_and_says_so(file):
    found, path = file
    text = path.read_text()
    assert "default-src 'none'" in text and "script-src 'sha256-" in text and "<noscript>" in text
    assert "http://" not in text.replace("http://www.w3.org", "") and "https://" not in text
    assert text.count("<tr>") > len(found.cells)


def test_labels_can_not_break_out_of_the_page():
    x, _ = clusters(60)
    labels = ["</script><script>alert(1)</script>", '"><img src=x onerror=alert(1)>', "plain"]
    found = atlas(wrap(Planted().eval(), labels=labels), x, "layer", layout="pca", grid=2, least=2, icons=False)
    text = whole_page(found)
    assert "<script>alert" not in text and "<img src=x" not in text


@pytest.mark.browser
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_cells_are_found_by_mouse_and_by_keyboard(page, file, scheme):
    found, path = file
    errors = []
    page.on("console", lambda message: errors.append(message.text))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.emulate_media(color_scheme=scheme)
    page.goto(path.as_uri())
    cells = page.locator(".cell")
    assert cells.count() == len(found.cells)
    cells.nth(2).hover()
    told = page.locator("#told")
    cell = found.cells[2]
    assert f"{cell.count} activations; row {cell.row}, column {cell.column}" in told.inner_text()
    assert found.labels[cell.classes[0]] in told.inner_text() and told.locator(".patch").count() == len(cell.examples)
    cells.nth(2).click()
    cells.nth(5).hover()
    assert f"row {cell.row}, column {cell.column}" in told.inner_text()
    page.keyboard.press("Escape")
    cells.nth(2).focus()
    page.keyboard.press("ArrowRight")
    page.keyboard.press("+")
    assert "scale(1.5)" in (page.locator("#plane").get_attribute("style") or "")
    page.locator("#whole").click()
    page.locator("#class").select_option(index=1)
    number = int(page.locator("#class").input_value())
    assert page.locator(".cell.dim").count() == sum(c.classes[0] != number for c in found.cells)
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not errors


@pytest.mark.browser
def test_the_page_reads_without_its_script(chromium, file):
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        page = browser.new_context(offline=True, java_script_enabled=False).new_page()
        page.goto(file[1].as_uri())
        assert page.locator("noscript img").count() == 1 and not page.locator("#atlas").is_visible()
        browser.close()


@pytest.fixture
def folder(tmp_path):
    for k, scene in enumerate(scenes.stream(16, seed=2)):
        Image.fromarray(np.asarray(scenes.render(scene).pixels)).save(tmp_path / f"{k}.png")
    return tmp_path


def run(*words):
    app = typer.Typer()
    app.command()(command)
    return CliRunner().invoke(app, ["--model", "builtin:scenes", *map(str, words)])


def test_an_atlas_of_a_folder_from_a_shell(folder, tmp_path):
    out = tmp_path / "made" / "atlas.html"
    options = ["--data", folder, "--layout", "pca", "--grid", 2, "--least", 2, "--steps", 2, "--out", out]
    first = run(*options)
    assert first.exit_code == 0 and "cells hold" in first.stdout and out.exists()
    again = run(*options)
    assert again.exit_code == 1 and "--overwrite" in again.stderr
    kept = tmp_path / "a.safetensors"
    facts = json.loads(run(*options[:-1], kept, "--json", "--no-icons", "--class", "house").stdout)
    assert facts["settings"]["class"] == 0
    assert json.loads(json.dumps(Atlas.open(kept).facts()["cells"])) == facts["cells"]


def test_an_atlas_of_one_picture_from_a_shell(folder, tmp_path):
    out = tmp_path / "one.png"
    found = run("--image", folder / "0.png", "--no-icons", "--every", 6, "--out", out, "--quiet")
    assert found.exit_code == 0 and not found.stdout and Image.open(out).width > 300


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "give --data DIR"),
        (["--data", "nowhere", "--image", "x.png"], "give --data DIR"),
        (["--data", "nowhere", "--every", "3"], "--every belongs to --image"),
        (["--image", "x.png", "--grid", "3"], "--grid belongs to --data"),
        (["--image", "x.png", "--out", "x.safetensors"], "an atlas is saved as .png, .html, .json"),
        (["--data", "nowhere"], "nowhere"),
    ],
)
def test_wrong_words_are_told(words, told):
    found = run(*words)
    assert found.exit_code == 1 and told in found.stderr
