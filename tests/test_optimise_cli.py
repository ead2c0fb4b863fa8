"""`pellucid optimise` as people call it."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pellucid.cli.optimising import optimise

app = typer.Typer()
app.command()(optimise)


def run(*words):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def picture(tmp_path):
    file = tmp_path / "picture.png"
    Image.effect_mandelbrot((40, 40), (-2, -1, 1, 1), 30).convert("RGB").save(file)
    return file


def test_units_and_classes(tmp_path):
    out, each = tmp_path / "made.png", tmp_path / "each"
    result = run("stage2.1:3", "logit:cat", "--steps", 3, "--out", out, "--each", each)
    assert result.exit_code == 0 and "logit of cat" in result.output
    assert Image.open(out).width > 300
    files = sorted(p.name for p in each.iterdir())
    assert files == ["000_channel_stage2.1_3.png", "001_logit_of_cat.png"]
    assert Image.open(each / files[0]).size == (32, 32)


def test_json_for_programs(tmp_path):
    out = tmp_path / "made.html"
    facts = json.loads(run("stage2.1:3", "--steps", 2, "--param", "maco", "--out", out, "--json").stdout)
    assert facts["names"] == ["channel stage2.1:3"] and len(facts["values"]) == 1
    assert facts["settings"]["steps"] == 2 and "Maco" in facts["settings"]["parametrisation"]
    assert "<img" in out.read_text()


def test_data_give_the_colours(tmp_path, picture):
    facts = json.loads(
        run("stem:3", "--steps", 1, "--data", picture.parent, "--out", tmp_path / "o.json", "--json").stdout
    )
    assert "1 pictures of the data" in facts["settings"]["colours"]


@pytest.mark.parametrize("more", [(), ("--caricature",)])
def test_pictures_after_a_picture(tmp_path, picture, more):
    out = tmp_path / "again.json"
    result = run("--invert", picture, "--layer", "stem,stage2.1", "--steps", 2, "--out", out, "--quiet", *more)
    assert result.exit_code == 0 and result.output == ""
    names = json.loads(out.read_text())["names"]
    assert names == [f"{'exaggeration' if more else 'match'} of {layer}" for layer in ("stem", "stage2.1")]


def test_a_class_image(tmp_path):
    out = tmp_path / "class.png"
    result = run("--class-image", "3", "--steps", 8, "--out", out, "--each", tmp_path / "each")
    assert result.exit_code == 0 and "scores highest for logit of cat" in result.output
    assert np.asarray(Image.open(next((tmp_path / "each").iterdir()))).shape == (32, 32, 3)


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "give objectives"),
        (("stem:1", "--class-image", "cat"), "give objectives"),
        (("stem:1", "--caricature"), "--invert"),
        (("stem:99", "--steps", "1"), "no unit 99"),
        (("steam:1", "--steps", "1"), "did you mean"),
        (("logit:cow", "--steps", "1"), "no class is called"),
        (("stem:1", "--param", "oil"), "no parametrisation"),
        (("stem:1", "--out", "made.gif"), ".png, .html, .json"),
        (("--invert", "nowhere.png"), "no file"),
    ],
)
def test_mistakes_are_told_in_one_sentence(tmp_path, monkeypatch, words, told):
    monkeypatch.chdir(tmp_path)
    result = run(*words)
    assert result.exit_code == 1 and result.stderr.startswith("error: ") and told in result.stderr
    assert not list(tmp_path.iterdir())


def test_an_existing_file_is_kept(tmp_path):
    out = tmp_path / "made.png"
    out.write_bytes(b"mine")
    assert "--overwrite" in run("stem:1", "--steps", 1, "--out", out).stderr
    assert out.read_bytes() == b"mine"
    assert run("stem:1", "--steps", 1, "--out", out, "--overwrite").exit_code == 0
