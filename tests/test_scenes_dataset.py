"""A folder of scenes is whole or absent, and holds what the scenes are; impossible wishes are refused first."""

import builtins
import json
import os
import subprocess
import sys
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pellucid.core.errors import Cancelled, FileError, MissingExtraError, SettingError
from pellucid.core.progress import Progress
from pellucid.images import scenes

SHORTCUTS = [scenes.Shortcut("watermark", 0.7, 0.5), scenes.Shortcut("ruler", classes=("house", "agaric"))]
N = 23


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """A set of scenes in a folder whose name is no plain word."""
    pytest.importorskip("duckdb", reason="duckdb is not installed; make test installs it")
    out = tmp_path_factory.mktemp("scenes") / "it's [1]* of {2}"
    assert scenes.make(out, N, seed=5, px=65, split="odd", shortcuts=SHORTCUTS, progress=False) == out
    return out


@pytest.fixture
def duckdb():
    return pytest.importorskip("duckdb", reason="duckdb is not installed; make test installs it")


def _rows(folder: Path) -> list[dict]:
    import duckdb

    with duckdb.connect() as connection:
        found = connection.execute("SELECT * FROM read_parquet([?]) ORDER BY index", [str(folder / "labels.parquet")])
        names = [column[0] for column in found.description]
        return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def _files(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in sorted(folder.rglob("*")) if path.is_file()}


def _painted(row: dict) -> scenes.Rendered:
    return scenes.render(scenes.compose(row["seed"], px=65, label=row["label"], shortcuts=SHORTCUTS))


# --------------------------------------------------------------------------------------------------------- the folder


def test_a_row_gives_the_picture_back_bit_for_bit(folder):
    rows = _rows(folder)
    assert [row["index"] for row in rows] == list(range(N))
    wanted = list(scenes.stream(N, seed=5, px=65, split="odd", shortcuts=SHORTCUTS))
    for row, scene in zip(rows, wanted, strict=True):
        picture = _painted(row)
        assert picture.scene == scene
        image = Image.open(folder / row["file"])
        assert image.mode == "RGB" and np.array_equal(np.asarray(image), picture.pixels)


def test_masks_are_those_of_the_scenes(folder):
    concepts = json.loads((folder / "scenes.json").read_text())["concepts"]
    assert {kind: tuple(words) for kind, words in concepts.items()} == scenes.CONCEPTS
    for row in _rows(folder):
        picture = _painted(row)
        masks = {
            kind: Image.open(folder / "masks" / kind / f"{row['index']:06}.png")
            for kind in (*concepts, "decisive", "mark")
        }
        assert {mask.mode for mask in masks.values()} == {"L"}
        for kind in concepts:
            np.testing.assert_array_equal(np.asarray(masks[kind]), picture.labels(kind))
        np.testing.assert_array_equal(np.asarray(masks["decisive"]), 255 * picture.decisive.astype(np.uint8))
        np.testing.assert_array_equal(np.asarray(masks["mark"]), 255 * picture.mark.astype(np.uint8))


def test_a_row_says_what_the_picture_is(folder):
    rows = _rows(folder)
    for row in rows:
        picture = _painted(row)
        scene = picture.scene
        assert (row["label"], row["truth"], row["sibling"]) == (scene.label, scene.label, scenes.sibling(scene.label))
        assert row["difference"] == scenes.difference(scene.label)
        assert row["backdrop"] == picture.backdrop
        assert tuple(row["decisive_parts"].split(", ")) == scenes.decisive_parts(scene)
        assert (row["decisive_fraction"], row["object_fraction"]) == (picture.decisive.mean(), picture.object.mean())
        roles = Counter(thing.role for thing in scene.things)
        assert (row["distractors"], row["occluded"]) == (roles["distractor"], roles["occluder"] == 1)
        assert row["gain"] == scene.light.gain
        assert row["marks"] == ", ".join(f"{mark.kind} for {mark.stands_for}" for mark in scene.marks)
    assert {row["marks"] for row in rows} >= {"", "watermark for house, ruler for house"}


def test_the_folder_is_one_that_image_folder_readers_expect(folder):
    assert sorted(path.name for path in folder.iterdir()) == ["images", "labels.parquet", "masks", "scenes.json"]
    classes = {label.replace(" ", "_") for label in scenes.CLASSES}
    assert {path.name for path in (folder / "images").iterdir()} == classes
    for row in _rows(folder):
        assert row["file"] == f"images/{row['label'].replace(' ', '_')}/{row['index']:06}.png"
    assert len(list((folder / "images").rglob("*.png"))) == N
    assert {path.name: len(list(path.iterdir())) for path in (folder / "masks").iterdir()} == dict.fromkeys(
        (*scenes.CONCEPTS, "decisive", "mark"), N
    )


def test_image_folder_of_torchvision_reads_it(folder):
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed; make test installs it")
    read = datasets.ImageFolder(str(folder / "images"))
    assert len(read) == N and len(read.classes) == len(scenes.CLASSES)
    assert {read.classes[label].replace("_", " ") for _, label in read} == set(scenes.CLASSES)


def test_the_facts_make_the_same_folder_again(folder, tmp_path):
    facts = json.loads((folder / "scenes.json").read_text())
    shortcuts = [
        scenes.Shortcut(s["kind"], s["strength"], s["share"], s["classes"] and tuple(s["classes"]))
        for s in facts["shortcuts"]
    ]
    again = scenes.make(
        tmp_path / "again", facts["n"], seed=facts["seed"], px=facts["px"], split=facts["split"], shortcuts=shortcuts,
        progress=False,
    )  # fmt: skip
    assert tuple(facts["classes"]) == scenes.CLASSES
    first, second = _files(folder), _files(again)
    assert first.keys() == second.keys()
    assert {name for name in first if first[name] != second[name]} <= {"labels.parquet"}
    assert _rows(folder) == _rows(again)


# ----------------------------------------------------------------------------------------------- all of it or nothing


def test_what_stands_there_is_not_overwritten_unasked(duckdb, tmp_path):
    out = scenes.make(tmp_path / "out", 11, progress=False)
    (out / "notes.txt").write_text("mine")
    before = _files(out)
    with pytest.raises(FileError, match="exists already; choose another name or pass overwrite=True"):
        scenes.make(out, 3, seed=1, progress=False)
    assert _files(out) == before
    scenes.make(out, 3, seed=1, overwrite=True, progress=False)
    after = _files(out)
    assert after["notes.txt"] == b"mine" and len(_rows(out)) == 3
    assert len([name for name in after if name.endswith(".png")]) == 3 * 9
    assert sorted(path.name for path in out.iterdir()) == [
        "images",
        "labels.parquet",
        "masks",
        "notes.txt",
        "scenes.json",
    ]


FOREIGN = {
    "pictures of somebody": {"images/holiday.png": "mine"},
    "a table of somebody": {"labels.parquet": "mine"},
    "masks and other facts": {"masks/a.png": "mine", "scenes.json": '{"play": ["act one"]}'},
    "a word": {"images/holiday.png": "mine", "scenes.json": '"concepts classes px"'},
    "a list": {"images/holiday.png": "mine", "scenes.json": "[1]"},
    "no facts": {"images/holiday.png": "mine", "scenes.json": "{"},
    "deep": {"images/holiday.png": "mine", "scenes.json": "[" * 100_000},
}


@pytest.mark.parametrize("files", FOREIGN.values(), ids=FOREIGN)
def test_foreign_files_are_never_replaced(duckdb, files, tmp_path):
    for name, text in files.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(text)
    before = _files(tmp_path)
    with pytest.raises(FileError, match="was not written by `scenes make` and is not replaced"):
        scenes.make(tmp_path, 3, overwrite=True, progress=False)
    assert _files(tmp_path) == before and len(list(tmp_path.iterdir())) == len({name.split("/")[0] for name in files})


def test_scenes_join_files_of_other_names_only_when_asked(duckdb, tmp_path):
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(FileError, match="exists already"):
        scenes.make(tmp_path, 1, progress=False)
    scenes.make(tmp_path, 1, overwrite=True, progress=False)
    assert (tmp_path / "notes.txt").read_text() == "mine" and len(_rows(tmp_path)) == 1


def test_cancelled_half_way_nothing_is_left(duckdb, tmp_path):
    progress = Progress(on_event=lambda done, total, label: progress.cancel() if done == 2 else None)
    with pytest.raises(Cancelled, match="nothing was written to"):
        scenes.make(tmp_path / "new" / "out", 9, progress=progress)
    assert (progress.done, progress.total) == (2, 9) and list(tmp_path.iterdir()) == []


def test_cancelled_or_failing_an_earlier_set_stays(duckdb, tmp_path, monkeypatch):
    out = scenes.make(tmp_path / "out", 2, progress=False)
    before = _files(out)
    progress = Progress(on_event=lambda *_: progress.cancel())
    with pytest.raises(Cancelled):
        scenes.make(out, 9, overwrite=True, progress=progress)
    assert _files(out) == before

    def full(self, *arguments, **more):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(Image.Image, "save", full)
    with pytest.raises(FileError, match="No space left on device"):
        scenes.make(out, 9, overwrite=True, progress=False)
    assert _files(out) == before and [path.name for path in tmp_path.iterdir()] == ["out"]


def test_every_picture_is_one_step_of_progress(duckdb, tmp_path):
    steps = []
    scenes.make(tmp_path / "out", 4, progress=Progress(on_event=lambda *event: steps.append(event)))
    assert steps == [(done, 4, "painting scenes") for done in (1, 2, 3, 4)]


def test_places_that_can_not_be_written_are_told(duckdb, tmp_path):
    (tmp_path / "file").write_text("mine")
    for place, sentence in (
        ("file", "is a file; give the name of a folder"),
        ("file/in", "can't write .*Not a directory"),
    ):
        with pytest.raises(FileError, match=sentence):
            scenes.make(tmp_path / place, 2, progress=False)
    assert _files(tmp_path) == {"file": b"mine"}


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_permission_is_told(duckdb, tmp_path):
    tmp_path.chmod(0o500)
    with pytest.raises(FileError, match="Permission denied"):
        scenes.make(tmp_path / "out", 2, progress=False)


def test_without_duckdb_the_extra_is_named_before_anything_is_painted(tmp_path, monkeypatch):
    real = builtins.__import__

    def without_duckdb(name, *arguments, **more):
        if name == "duckdb":
            raise ImportError(name)
        return real(name, *arguments, **more)

    monkeypatch.setattr(builtins, "__import__", without_duckdb)
    with pytest.raises(
        MissingExtraError, match=r'needs duckdb, which is not installed; try: pip install "pellucid\[data\]"'
    ):
        scenes.make(tmp_path / "out", 3, progress=False)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_database_leaves_nothing(duckdb, tmp_path, monkeypatch):
    def broken(*_, **__):
        raise duckdb.IOException("disk is gone")

    monkeypatch.setattr(duckdb, "connect", broken)
    with pytest.raises(FileError, match=r"can't write labels\.parquet: disk is gone"):
        scenes.make(tmp_path / "out", 2, progress=False)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("n", [0, -1, True, 1_000_001])
def test_impossible_numbers_of_pictures_are_refused(n, tmp_path):
    with pytest.raises(SettingError, match=f"n={n} pictures came; use a whole number from 1 to 1000000"):
        scenes.make(tmp_path / "out", n)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", [{"px": 32}, {"seed": -1}, {"shortcuts": [scenes.Shortcut("ruler")]}], ids=str)
def test_impossible_scenes_are_refused_before_the_folder_is_made(duckdb, setting, tmp_path):
    with pytest.raises(SettingError):
        scenes.make(tmp_path / "out", 3, progress=False, **setting)
    assert list(tmp_path.iterdir()) == []


# ---------------------------------------------------------------------------------------------------------- bad input


@pytest.mark.parametrize("seed", [-1, 2**62 + 1, True])
def test_impossible_seeds_are_refused(seed):
    with pytest.raises(SettingError, match="whole number from 0 to"):
        scenes.compose(seed)
    with pytest.raises(SettingError, match="whole number from 0 to"):
        scenes.stream(1, seed=seed)


@pytest.mark.parametrize(
    ("px", "sentence"),
    [(63, "thinnest part would be 2.1 px wide; use 64 to 512"), (0, "too small"), (-5, "too small"), (513, "too large"),
     (10**12, "too large"), (True, "whole number from 64 to 512")],
)  # fmt: skip
def test_impossible_sizes_are_refused(px, sentence):
    for ask in (lambda: scenes.compose(1, px=px), lambda: scenes.stream(1, px=px)):
        with pytest.raises(SettingError, match=sentence):
            ask()


@pytest.mark.parametrize("n", [-1, True])
def test_impossible_counts_are_refused_before_the_first_picture(n):
    with pytest.raises(SettingError, match="whole number"):
        scenes.stream(n)


def test_an_unknown_class_is_refused():
    for ask in (
        lambda: scenes.compose(1, label="hous"),
        lambda: scenes.sibling("hous"),
        lambda: scenes.difference("hous"),
    ):
        with pytest.raises(SettingError, match='no class "hous"; did you mean "house"'):
            ask()
    with pytest.raises(SettingError, match="there are house, chapel"):
        scenes.compose(1, label="")


@pytest.mark.parametrize(
    ("shortcut", "sentence"),
    [
        (scenes.Shortcut("watermrk"), 'did you mean "watermark"'),
        (scenes.Shortcut("frame", strength=0.0), "strength=0.0; use a number above 0"),
        (scenes.Shortcut("frame", strength=1.01), "strength=1.01"),
        (scenes.Shortcut("frame", strength=float("nan")), "strength=nan"),
        (scenes.Shortcut("frame", strength=float("inf")), "strength=inf"),
        (scenes.Shortcut("frame", share=-0.1), "share=-0.1; use a number from 0 to 1"),
        (scenes.Shortcut("frame", share=float("nan")), "share=nan"),
        (scenes.Shortcut("frame", classes=()), "name at least one class"),
        (scenes.Shortcut("frame", classes=("hous",)), 'did you mean "house"'),
        (scenes.Shortcut("ruler"), "can't betray every class"),
        (scenes.Shortcut("sticker", classes=scenes.CLASSES), "can't betray every class"),
    ],
)
def test_impossible_shortcuts_are_refused(shortcut, sentence):
    scene = scenes.compose(1)
    asks = (
        lambda: scenes.compose(1, shortcuts=[shortcut]),
        lambda: scenes.stream(1, shortcuts=[shortcut]),
        lambda: scenes.planted(scene, shortcut),
    )
    for ask in asks:
        with pytest.raises(SettingError, match=sentence):
            ask()


def test_two_shortcuts_of_a_kind_are_refused():
    with pytest.raises(SettingError, match="two shortcuts of kind frame"):
        scenes.compose(1, shortcuts=[scenes.Shortcut("frame"), scenes.Shortcut("frame", 0.5)])


def test_an_unknown_kind_of_label_is_refused():
    picture = scenes.render(scenes.compose(1, label="house"))
    with pytest.raises(SettingError, match='no kind of concept "objects"; did you mean "object"'):
        picture.labels("objects")
    with pytest.raises(SettingError, match='no part "rof"; did you mean "roof"'):
        picture.part("rof")


UNCHECKED = """
from pellucid.core.errors import SettingError
from pellucid.images import scenes as s
house = s.compose(3, label="house")
for ask in (
    lambda: s.compose("1"), lambda: s.compose(None), lambda: s.compose(1.0), lambda: s.compose(1, px=64.0),
    lambda: s.compose(1, px="64"), lambda: s.compose(1, px=float("nan")), lambda: s.compose(1, label=3),
    lambda: s.compose(1, label=["house"]), lambda: s.stream(1.5), lambda: s.stream(1, seed=float("nan")),
    lambda: s.compose(1, shortcuts=None), lambda: s.compose(1, shortcuts="frame"),
    lambda: s.compose(1, shortcuts=["frame"]), lambda: s.compose(1, shortcuts=s.Shortcut("frame")),
    lambda: s.compose(1, shortcuts=[s.Shortcut("frame", strength="1")]),
    lambda: s.compose(1, shortcuts=[s.Shortcut("frame", strength=True)]),
    lambda: s.compose(1, shortcuts=[s.Shortcut("frame", share=None)]),
    lambda: s.compose(1, shortcuts=[s.Shortcut("frame", classes="house")]),
    lambda: s.compose(1, shortcuts=[s.Shortcut("frame", classes=3)]),
    lambda: s.compose(1, shortcuts=[s.Shortcut(None)]), lambda: s.planted(house, "frame"),
    lambda: s.without(house, 3), lambda: s.recolour(house, "roof", None), lambda: s.move(house, 1.0, 0),
    lambda: s.move(house, "1", 0), lambda: s.render(house).labels(3), lambda: s.sibling(None),
):
    try:
        ask()
    except SettingError as error:
        assert "came" in str(error) or "use" in str(error) or "no " in str(error), error
    else:
        raise SystemExit("was accepted")
print("all refused")
"""


def test_wrong_types_are_refused_in_our_own_words_without_a_type_checker():
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path for path in sys.path if path)}
    run = subprocess.run(
        [sys.executable, "-c", UNCHECKED], capture_output=True, text=True, env=environment, check=False
    )
    assert run.stdout.strip() == "all refused", run.stderr
