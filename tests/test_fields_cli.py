"""`pellucid fields`: tables, pictures and refusals."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import typer
from PIL import Image
from typer.testing import CliRunner, Result

from pellucid.cli.fielding import fields

app = typer.Typer()
app.command()(fields)


def run(*words: object) -> Result:
    result = CliRunner().invoke(app, [str(w) for w in words])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    made = tmp_path / "pictures"
    made.mkdir()
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 255, (40, 40, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(made / f"{i}.png")
    return made


def test_the_table_of_all_layers() -> None:
    told = run("builtin:photos")
    assert told.exit_code == 0 and "13 × 13" in told.output and "adaptive_avg_pool2d in pool" in told.output


def test_json_is_strict_and_names_the_file(tmp_path: Path, folder: Path) -> None:
    out = tmp_path / "fields.png"
    words = ["--layer", "stage1,stage2", "--position", "1,2", "--image", folder / "0.png", "--out", out, "--json"]
    found: Any = json.loads(run("builtin:photos", *words).stdout)
    assert list(found["layers"]) == ["stage1", "stage2"] and found["layers"]["stage2"]["size_px"] == [41, 41]
    assert found["file"] == str(out) and Image.open(out).width > 300


@pytest.mark.parametrize("suffix", ["png", "html", "json"])
def test_a_unit_on_noise_and_on_data(tmp_path: Path, folder: Path, suffix: str) -> None:
    told = run("--unit", "stage1:3", "--samples", 4, "--out", tmp_path / f"field.{suffix}")
    assert told.exit_code == 0 and "4 noise inputs" in told.output and (tmp_path / f"field.{suffix}").exists()
    told = run("--unit", "stage1:3", "--data", folder, "--position", "2,2")
    assert "3 pictures" in told.output


def test_the_matrix_of_a_unit(folder: Path) -> None:
    told = run("--unit", "stage1.1.relu1:3", "--data", folder, "--signal", "gradient", "--samples", 9, "--json")
    found = json.loads(told.stdout)
    assert found["signal"] == "gradient" and found["size"] == [9, 9] and found["pictures"] == 3
    told = run(
        "--unit", "stage2:3", "--image", folder / "1.png", "--signal", "contribution", "--source", "stage1", "-q"
    )
    assert told.exit_code == 0 and told.output == ""


@pytest.mark.parametrize(
    "words, told",
    [
        (["--signal", "gradient"], "name it with --unit"),
        (["--unit", "stage1:3", "--layer", "stage1"], "leave --layer away"),
        (["--unit", "stage1:3", "--signal", "gradient"], "name a folder with --data"),
        (["--unit", "stage1:3", "--whiten"], "add --signal"),
        (["--unit", "stage9:3"], "no layer"),
        (["--unit", "stage1:999"], "no unit 999"),
        (["--layer", "stag1"], "stage1"),
        (["--layer", "stage1", "--position", "a,b"], "write y,x"),
        (["--layer", "stage1", "--position", "99,0"], "16 × 16"),
        (["--position", "1,1"], "name the layer"),
        (["--out", "it.gif"], ".png, .html, .json"),
        (["--unit", "stage1:3", "--data", "/nowhere/at/all"], "nowhere"),
    ],
)
def test_refusals(words: list[str], told: str) -> None:
    result = run(*words)
    assert result.exit_code == 1 and told in result.stderr, result.stderr


def test_an_earlier_file_is_kept(tmp_path: Path) -> None:
    place = tmp_path / "it.json"
    place.write_text("mine")
    assert "add --overwrite" in run("--out", place).stderr
    assert run("--out", place, "--overwrite", "-q").exit_code == 0 and "stage1" in place.read_text()
