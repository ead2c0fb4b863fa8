"""`pellucid evidence`: what it prints, what it writes, and what it refuses."""

import json
import re

import numpy as np
import pytest
from PIL import Image

from cli_runs import pellucid, printed, refused, snapshot
from pellucid.evaluate.questions import Question
from pellucid.images import scenes

NET = ("--model", "builtin:scenes-watermark")
QUICK = ("--controls", "19", "--fill", "mean,blur")
FILES = {"evidence.json", "evidence.csv", "evidence.png", "evidence_controls.csv"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A scene with the watermark of another class, and masks of it."""
    place = tmp_path_factory.mktemp("pictures")
    question = Question("mark", "logit", scenes.Shortcut("watermark"))
    one = next(found for scene in scenes.stream(3, split="test") if (found := question.pose(scene)))
    Image.fromarray(one.picture.pixels).save(place / "scene.png")
    Image.fromarray(one.mask.astype(np.uint8) * 255).save(place / "mark.png")
    Image.fromarray(one.picture.object.astype(np.uint8) * 255).save(place / "object.png")
    Image.fromarray(np.zeros((64, 64), np.uint8)).save(place / "nothing.png")
    (place / "label.txt").write_text(one.label)
    return place


def test_a_mask_is_judged_in_words_and_in_json(folder):
    result = pellucid("evidence", folder / "scene.png", *NET, "--symptom", folder / "mark.png")
    assert result.exit_code == 0, result.output
    assert "Does it come from mark.png (2 % of the picture)?" in result.stdout and "this is evidence" in result.stdout
    found = printed("evidence", folder / "scene.png", *NET, "--symptom", folder / "object.png", *QUICK)
    assert list(found) == ["evidence", "files"] and found["files"] == []
    facts = found["evidence"]
    assert (facts["verdict"], facts["picture"], len(facts["controls"]["rows"])) == ("counter-evidence", "scene.png", 19)
    assert [row[0] for row in facts["table"]["rows"]] == ["mean", "blur", "mean", "worst"]
    assert facts["sym"] < 0.1 < facts["env"] and facts["fe"] == pytest.approx(facts["sym"] - facts["env"])


@pytest.mark.parametrize(
    "symptom",
    ["grid:16#15", "heat:saliency:0.1", "unit:features.14:5,9", "{mark}"],
    ids=["grid", "heat", "unit", "mask"],
)
def test_every_form_of_a_symptom(folder, symptom):
    symptom = symptom.format(mark=folder / "mark.png")
    facts = printed("evidence", folder / "scene.png", *NET, "--symptom", symptom, *QUICK)["evidence"]
    assert 0 < facts["fraction"] < 0.2 and 0 <= facts["sym"] <= 1 and 0 < facts["p"] <= 1
    assert facts["answer"] == (folder / "label.txt").read_text()


def test_the_folder_holds_everything(folder, tmp_path):
    out = tmp_path / "new" / "out"
    asked = ("evidence", folder / "scene.png", *NET, "--out", out, "--regions", "grid:16")
    result = pellucid(*asked, "--symptom", folder / "mark.png", "--minimal", "--to", "house", *QUICK)
    assert result.exit_code == 0, result.output
    stems = ("minimal_sets", "what_must_change")
    assert {f.name for f in out.iterdir()} == FILES | {s + e for s in stems for e in (".json", ".csv", ".png")}
    assert str(out.resolve()) in result.stdout
    rows = (out / "evidence_controls.csv").read_text().splitlines()
    assert rows[0] == "control,Sym,Env,FE" and len(rows) == 20
    assert Image.open(out / "evidence.png").width > 600
    change = json.loads((out / "what_must_change.json").read_text())
    assert change["to"] == "house" and set(change["tried"]) == {"mean", "blur"}
    sets = json.loads((out / "minimal_sets.json").read_text())
    assert sets["fill"] == "mean" and sets["sufficient"]["regions"] == [15]


def test_files_of_the_users_are_not_replaced(folder, tmp_path):
    asked = ("evidence", folder / "scene.png", *NET, "--symptom", folder / "mark.png", "--out", tmp_path, *QUICK)
    assert pellucid(*asked).exit_code == 0
    before = snapshot(tmp_path)
    assert "not empty" in refused(*asked)
    (tmp_path / "notes.txt").write_text("mine")
    again = pellucid(*asked, "--overwrite", "--seed", "1")
    assert again.exit_code == 0 and (tmp_path / "notes.txt").read_text() == "mine"
    assert snapshot(tmp_path)["evidence.json"] != before["evidence.json"]
    for name, other in (("evidence.csv", "fill,Sym\nmine,1\n"), ("evidence.json", "[1]"), ("evidence.png", "mine")):
        kept = (tmp_path / name).read_bytes()
        (tmp_path / name).write_text(other)
        assert "was changed since" in refused(*asked, "--overwrite")
        assert (tmp_path / name).read_text() == other
        (tmp_path / name).write_bytes(kept)
    assert pellucid(*asked, "--overwrite").exit_code == 0


def test_the_same_seed_gives_the_same_answer(folder):
    asked = ("evidence", folder / "scene.png", *NET, "--symptom", folder / "mark.png", *QUICK)
    first, again, other = (printed(*asked, "--seed", str(seed))["evidence"] for seed in (3, 3, 4))
    assert first["controls"] == again["controls"] != other["controls"] and first["p"] == again["p"]


def test_quiet_prints_nothing(folder):
    asked = ("evidence", folder / "scene.png", *NET, "--symptom", folder / "mark.png", *QUICK)
    assert pellucid(*asked, "--quiet").output == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ((), "nothing was asked"),
        (("--symptom", "{folder}/nothing.png"), "nowhere|empty|at least one pixel"),
        (("--symptom", "grid:4#0,1,2,3"), "whole picture"),
        (("--symptom", "grid:9"), "name them by number"),
        (("--symptom", "{folder}/missing.png"), "missing.png"),
        (("--symptom", "{folder}/mark.png", "--fill", "blurr"), 'did you mean "blur"'),
        (("--symptom", "{folder}/mark.png", "--controls", "3"), "19 to 9,999"),
        (("--symptom", "{folder}/mark.png", "--target", "horse"), "horse"),
        (("--symptom", "{folder}/mark.png", "--environment", "{folder}/mark.png"), "share"),
        (("--symptom", "heat:grad_cam:2"), "between 0 and 1"),
        (("--symptom", "unit:nolayer:1"), "nolayer"),
        (("--to", "{label}"), "already"),
        (("--to", "horse"), "horse"),
        (("--minimal", "--budget", "0"), "budget=0"),
        (("--minimal", "--regions", "grid:1"), "1 region|one region|two or more"),
    ],
)
def test_what_makes_no_sense_is_refused_in_one_sentence(folder, words, told, tmp_path):
    label = (folder / "label.txt").read_text()
    given = [word.format(folder=folder, label=label) for word in words]
    out = tmp_path / "out"
    message = refused("evidence", folder / "scene.png", *NET, *given, "--out", out)
    assert re.search(told, message), message
    assert not out.exists()


def test_a_picture_that_is_none(folder, tmp_path):
    assert "no file" in refused("evidence", tmp_path / "no.png", *NET, "--symptom", folder / "mark.png")
