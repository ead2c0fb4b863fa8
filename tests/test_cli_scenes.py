"""`pellucid rank`, `pellucid scenes make` and `pellucid scenes show`."""

import json

import numpy as np
import pytest
from PIL import Image

from cli_runs import outside, pellucid, printed, refused, snapshot
from pellucid.cli.making import shortcuts_of
from pellucid.core.errors import SettingError
from pellucid.evaluate.controls import CONTROLS
from pellucid.images import scenes
from pellucid.images.scenes import Shortcut
from scene_networks import PREPROCESS

NETWORK = ("--model", "scene_networks:net", "--labels", "labels.txt", "--preprocess", "prep.json")


@pytest.fixture
def desk(tmp_path, monkeypatch):
    """A folder with what the network needs beside its module."""
    (tmp_path / "labels.txt").write_text("\n".join(scenes.CLASSES))
    (tmp_path / "prep.json").write_text(json.dumps(PREPROCESS.to_json()))
    monkeypatch.chdir(tmp_path)
    return tmp_path


# ---- rank -----------------------------------------------------------------------------------------------------------


def test_a_table_and_the_same_as_json(desk):
    words = (*NETWORK, "--method", "saliency,grad_cam", "--n", "12")
    text = pellucid("rank", *words).stdout
    found = printed("rank", *words)
    names = [row["name"] for row in found["rows"]]
    assert names[0] == "perfect" and set(names) == {"perfect", "saliency", "grad_cam", *CONTROLS}
    assert "12 of 12 pictures" in text
    places = [text.index(f"\n{name}") for name in names]
    assert places == sorted(places)
    for row in found["rows"]:
        assert f"{row['score']:.3f}" in text
    assert (found["n"], found["used"], found["truth"], found["refused"]) == (12, 12, "decisive", {})


def test_settings_reach_the_method_and_the_table_a_file(desk):
    words = ("rank", *NETWORK, "--method", "smoothgrad", "--set", "smoothgrad.samples=2", "--n", "2", "--quiet")
    assert pellucid(*words, "--out", "table.md").stdout == ""
    assert "| smoothgrad(samples=2) |" in (desk / "table.md").read_text()
    before = snapshot(desk)
    assert "exists already" in refused(*words, "--out", "table.md")
    assert snapshot(desk) == before
    assert pellucid(*words, "--out", "table.md", "--overwrite").exit_code == 0
    pellucid(*words, "--out", "table.csv")
    assert (desk / "table.csv").read_text().startswith("name,kind,score")


def test_marks_are_asked_about_on_request(desk):
    words = ("--method", "saliency", "--n", "10", "--shortcut", "watermark", "--target", "contrast")
    text = pellucid("rank", *NETWORK, "--model", "scene_networks:marked", *words).stdout
    assert "10 of 10 pictures; left out 0 where the mark did not decide" in text
    assert "logit of the mark's class minus logit of the scene's own" in text


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--data", "photos"), 'no data to rank on "photos"; there are scenes'),
        (("--model", "builtin:photos"), "builtin:scenes"),
        (("--model", "scene_networks:net"), "no labels"),
        ((*NETWORK, "--truth", "deciding"), 'did you mean "decisive"'),
        ((*NETWORK, "--truth", "mark"), "builtin:scenes-watermark"),
        ((*NETWORK, "--shortcut", "watermark:much"), '"much" is no number'),
        ((*NETWORK, "--method", "gradcam"), 'did you mean "grad_cam"'),
        ((*NETWORK, "--set", "saliency.x=1"), "--set came without --method"),
        ((*NETWORK, "--px", "20"), "too small"),
        ((*NETWORK, "--out", "table.txt"), ".json, .csv, .md"),
        ((*NETWORK, "--out", "no/table.md"), "does not exist"),
    ],
)
def test_a_ranking_that_cannot_be_is_refused(desk, words, told):
    before = snapshot(desk)
    assert told in refused("rank", *words)
    assert snapshot(desk) == before


# ---- shortcuts as they are typed ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("watermark", Shortcut("watermark")),
        ("frame:0.5", Shortcut("frame", 0.5)),
        ("background:1:0.9", Shortcut("background", 1.0, 0.9)),
        (" ruler : 1 : .25 : house + tree left of car", Shortcut("ruler", 1.0, 0.25, ("house", "tree left of car"))),
    ],
)
def test_shortcuts_are_read(text, wanted):
    assert shortcuts_of([text]) == (wanted,)


@pytest.mark.parametrize("text", ["", ":1", "frame:", "frame:x", "frame:1:x", "ruler:1:1:house:more"])
def test_shortcuts_that_are_none_are_told(text):
    with pytest.raises(SettingError, match="KIND:STRENGTH:SHARE"):
        shortcuts_of([text])


# ---- scenes make ----------------------------------------------------------------------------------------------------


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb", reason="duckdb is not installed; make test installs it")


def test_scenes_are_made(desk, duckdb):
    words = ("scenes", "make", "--n", "12", "--out", "a", "--seed", "3", "--split", "mine", "--shortcut", "frame:0.5:1")
    assert "12 scenes of 64 px" in pellucid(*words).stdout
    shown = list(scenes.stream(12, seed=3, split="mine", shortcuts=[Shortcut("frame", 0.5)]))
    paths = sorted((desk / "a" / "images").rglob("*.png"), key=lambda path: path.name)
    for scene, path in zip(shown, paths, strict=True):
        assert path.parent.name == scene.label.replace(" ", "_")
        assert (np.asarray(Image.open(path)) == scenes.render(scene).pixels).all()
    pellucid(*words[:4], "--out", "b", *words[6:], "--quiet")
    assert snapshot(desk / "b") == snapshot(desk / "a")


def test_scenes_are_made_for_programs(desk, duckdb):
    result = pellucid("scenes", "make", "--n", "2", "--px", "80", "--out", "a", "--json")
    found = json.loads(result.stdout)
    assert (found["folder"], found["n"], found["px"], found["split"]) == (str(desk / "a"), 2, 80, "train")
    assert pellucid("scenes", "make", "--n", "2", "--out", "b", "--quiet").stdout == ""


def test_nothing_is_replaced_unasked(desk, duckdb):
    words = ("scenes", "make", "--n", "2", "--out", "a")
    pellucid(*words)
    before = snapshot(desk)
    assert "exists already" in refused(*words)
    assert snapshot(desk) == before
    assert pellucid(*words, "--overwrite", "--seed", "1").exit_code == 0
    assert snapshot(desk) != before


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("--px", "32"), "px=32 is too small"),
        (("--shortcut", "stamp"), 'no shortcut "stamp"'),
        (("--shortcut", "ruler"), "name some"),
        (("--shortcut", "frame", "--shortcut", "frame:0.5"), "two shortcuts of kind frame"),
        (("--shortcut", "ruler:1:1:hut"), 'no class "hut"'),
    ],
)
def test_scenes_that_cannot_be_made_are_refused(desk, duckdb, words, told):
    before = snapshot(desk)
    assert told in refused("scenes", "make", "--n", "2", "--out", "a", *words)
    assert snapshot(desk) == before


def test_wrong_usage_ends_with_2(desk):
    for words in (("scenes", "make"), ("scenes", "make", "--out", "a", "--n", "0"), ("scenes", "show", "-1")):
        assert pellucid(*words).exit_code == 2
    assert list(desk.glob("a")) == []


# ---- scenes show ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("px", "factor"), [(64, 4), (100, 2), (300, 1)])
def test_a_scene_its_decisive_pixels_and_its_sibling(desk, px, factor):
    text = pellucid("scenes", "show", "5", "--px", px, "--class", "house", "--out", "s.png").stdout
    assert "class: house" in text and "sibling: chapel" in text and "decisive parts: chimney" in text
    scene = scenes.compose(5, px=px, label="house")
    picture = scenes.render(scene)
    sheet = np.asarray(Image.open("s.png"))[::factor]
    side = px * factor
    assert sheet.shape == (px, 3 * side + 16, 3)
    first, middle, last = (sheet[:, k * (side + 8) : k * (side + 8) + side : factor] for k in range(3))
    assert (first == picture.pixels).all()
    assert (last == scenes.render(scenes.swapped(scene)).pixels).all()
    assert (middle[picture.decisive] == picture.pixels[picture.decisive]).all()
    others = middle[~picture.decisive]
    assert (others == others[:, :1]).all()  # grey


def test_a_scene_for_programs(desk):
    found = json.loads(pellucid("scenes", "show", "7", "--out", "s.png", "--shortcut", "frame", "--json").stdout)
    scene = scenes.compose(7)
    assert (found["class"], found["seed"], found["parts"]) == (scene.label, 7, list(scene.parts))
    assert found["marks"] == [f"frame for {scene.label}"]
    assert pellucid("scenes", "show", "7", "--out", "t.png", "--quiet").stdout == ""


@pytest.mark.parametrize(
    ("words", "told"),
    [
        (("5", "--out", "s.jpg"), ".png"),
        (("5", "--out", "no/s.png"), "does not exist"),
        (("5", "--out", "s.png", "--class", "hut"), 'no class "hut"'),
        (("5", "--out", "s.png", "--px", "10"), "too small"),
        ((2**70, "--out", "s.png"), "seed="),
    ],
)
def test_a_scene_that_cannot_be_shown_is_refused(desk, words, told):
    before = snapshot(desk)
    assert told in refused("scenes", "show", *words)
    assert snapshot(desk) == before


def test_a_picture_is_not_replaced_unasked(desk):
    pellucid("scenes", "show", "5", "--out", "s.png")
    before = snapshot(desk)
    assert "exists already" in refused("scenes", "show", "6", "--out", "s.png")
    assert snapshot(desk) == before
    assert pellucid("scenes", "show", "6", "--out", "s.png", "--overwrite").exit_code == 0
    assert snapshot(desk) != before


def test_help_is_quick_and_light():
    code = outside("scenes", "--help")
    assert code.returncode == 0 and "make" in code.stdout and "show" in code.stdout
