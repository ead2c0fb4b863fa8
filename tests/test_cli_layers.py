"""`pellucid layers` with a picture, and `pellucid dream`; fields and parameters in the list of layers."""

import json

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from cli_runs import printed
from pellucid.cli.dreaming import dream
from pellucid.cli.layering import layers

app = typer.Typer()
app.command()(layers)
app.command()(dream)


@pytest.fixture
def cat(tmp_path):
    noise = np.random.default_rng(0).integers(0, 256, (40, 60, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "cat.png")
    return tmp_path / "cat.png"


def run(*words, code=0):
    result = CliRunner().invoke(app, [str(word) for word in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    assert result.exit_code == code, result.output
    return result.stderr if code else result.stdout


def test_layers_are_listed_with_fields_and_parameters():
    rows = {row["layer"]: row for row in json.loads(run("layers", "builtin:photos", "--json"))}
    assert rows["stem.0"]["field_px"] == [3, 3] and rows["stem.0"]["stride_px"] == [1, 1]
    assert rows["stem.0"]["parameters"] == 864
    assert rows["stage2"]["field_px"] == [41, 41] and rows["stage2"]["stride_px"] == [4, 4] and rows["stage2"]["chosen"]
    assert rows["head"]["everywhere"] and rows["head"]["parameters"] == 1290
    text = run("layers", "builtin:photos")
    assert "stage2 is chosen when none is named" in text


def test_series_have_fields_too():
    rows = printed("layers", "user_networks:signal", "--input", "2x64")
    assert all(len(row["field_px"]) == 1 for row in rows if not row["everywhere"])


def test_a_picture_on_all_layers(cat, tmp_path):
    text = run("layers", "builtin:photos", "--image", cat, "--contributions", "--out", tmp_path / "maps.html")
    assert "channels" in text and "FullGrad" in text and (tmp_path / "maps.html").stat().st_size > 1000
    facts = json.loads(run("layers", "builtin:photos", "--image", cat, "--contributions", "--json"))
    assert [table["name"] for table in facts["tables"]] == ["layers", "contributions"]


def test_one_layer_is_sorted_and_written_page_by_page(cat, tmp_path):
    folder = tmp_path / "sheets"
    words = ("layers", "builtin:photos", "--image", cat, "--layer", "stage2.1", "--sort", "max", "--data", cat.parent)
    text = run(*words, "--out", folder)
    assert "percentile" in text and "the first 20 of 128" in text
    names = ["stage2.1.json", "stage2.1_01.png", "stage2.1_02.png"]
    assert sorted(p.name for p in folder.iterdir()) == names
    rows = json.loads((folder / "stage2.1.json").read_text())["tables"][0]["rows"]
    assert [row[2] for row in rows] == sorted((row[2] for row in rows), reverse=True)
    assert "--overwrite" in run(*words, "--out", folder, code=1)
    run(*words, "--out", folder, "--overwrite", "--quiet")


def test_layers_refuses_in_one_sentence(cat):
    assert "--layer came without a picture" in run("layers", "builtin:photos", "--layer", "stage2", code=1)
    assert "--input and --image" in run("layers", "builtin:photos", "--image", cat, "--input", "3x32x32", code=1)
    assert 'did you mean "stage1"' in run("layers", "builtin:photos", "--image", cat, "--layer", "stag1", code=1)
    wrong = run("layers", "builtin:photos", "--image", cat, "--layer", "stage1", "--sort", "maxx", code=1)
    assert 'did you mean "max"' in wrong


def test_a_dream_is_written_in_the_pictures_size(cat, tmp_path):
    out = tmp_path / "new" / "dream.png"
    words = ("dream", cat, "--layer", "stage1", "--octaves", "2", "--steps", "1", "--out", out)
    assert "octave by octave" in run(*words)
    assert Image.open(out).size == (60, 40)
    assert "add --overwrite" in run(*words, code=1)
    facts = json.loads(run(*words, "--overwrite", "--json", "--seed", "3", "--guide", cat))
    assert facts["settings"]["seed"] == 3 and facts["file"] == str(out)


def test_a_dream_without_steps_is_the_picture(cat, tmp_path):
    run("dream", cat, "--steps", "0", "--out", tmp_path / "same.png", "--quiet")
    assert (np.asarray(Image.open(tmp_path / "same.png")) == np.asarray(Image.open(cat))).all()


def test_dream_refuses_in_one_sentence(cat, tmp_path):
    assert ".png, .html, .json" in run("dream", cat, "--out", tmp_path / "dream.jpg", code=1)
    assert "octaves=0" in run("dream", cat, "--octaves", "0", "--out", tmp_path / "d.png", code=1)
    assert "it has 64" in run("dream", cat, "-l", "stage1", "-c", "99", "--out", tmp_path / "d.png", code=1)
    assert "no file" in run("dream", tmp_path / "dog.png", "--out", tmp_path / "d.png", code=1)
    assert not (tmp_path / "d.png").exists()
