"""`pellucid wiring`: one question a run, written as a picture, a page or facts."""

import json

import pytest
import typer
from PIL import Image
from typer.testing import CliRunner

from pellucid.cli.wiring import wiring
from pellucid.images.scenes import compose, render


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Eight scenes in folders by class."""
    root = tmp_path_factory.mktemp("set")
    for number in range(8):
        scene = compose(number)
        place = root / scene.label.replace(" ", "_")
        place.mkdir(exist_ok=True)
        Image.fromarray(render(scene).pixels).save(place / f"{number}.png")
    return root


def ask(*words: object):
    app = typer.Typer()
    app.command()(wiring)
    return CliRunner().invoke(app, [str(word) for word in words])


@pytest.mark.parametrize(
    ("question", "says"),
    [
        (("--source", "features.12", "--target", "pool", "--how", "gradient"), "strongest of"),
        (("--unit", "features.14:36"), "features.14:36 is"),
        (("--ablate", "features.14"), "accuracy is"),
        (("--layers", "features.12,pool,classes"), "strongest dependence"),
        (("--graph", "pool"), "Spearman"),
        (("--stdp", "head"), "cosine of"),
    ],
)
def test_every_question_is_answered_and_written(question, says, folder, tmp_path):
    out = tmp_path / "found.json"
    found = ask("builtin:scenes", "--data", folder, *question, "--out", out, "--json")
    assert found.exit_code == 0, found.output
    facts = json.loads(found.output)
    assert says in facts["sentence"] and facts["file"] == str(out.resolve())
    assert json.loads(out.read_text())["title"] == facts["title"]


def test_a_picture_a_page_and_what_is_printed(folder, tmp_path):
    for kind in ("png", "html"):
        found = ask("builtin:scenes", "-d", folder, "--ablate", "features.14:3", "-o", tmp_path / f"a.{kind}")
        assert found.exit_code == 0 and "features.14:3" in found.output and (tmp_path / f"a.{kind}").exists()
    again = ask("builtin:scenes", "-d", folder, "--ablate", "features.14:3", "-o", tmp_path / "a.png")
    assert again.exit_code == 1 and "--overwrite" in again.output
    quiet = ask("builtin:scenes", "-d", "scenes", "--n", 2, "--ablate", "features.14:3", "-q", "--overwrite", "-o",
                tmp_path / "a.png")  # fmt: skip
    assert quiet.exit_code == 0 and not quiet.output


def test_mistakes_are_told(folder, tmp_path):
    start = ("builtin:scenes", "--data", folder, "--out", tmp_path / "a.png")
    for words, says in [
        ((), "no question came"),
        (("--graph", "all", "--stdp", "head"), "--graph and --stdp came"),
        (("--target", "pool"), "two ends"),
        (("--source", "pool", "--target", "features.3"), "does not depend"),
        (("--unit", "features.14:36", "--how", "guess"), "no way of asking"),
        (("--ablate", "features.77"), "did you mean"),
    ]:
        found = ask(*start, *words)
        assert found.exit_code == 1 and says in found.output, found.output
    assert ask("builtin:scenes", "--data", folder, "--graph", "all", "--out", "a.txt").exit_code == 1
    assert not (tmp_path / "a.png").exists()
