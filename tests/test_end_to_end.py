"""From files to files: what is written, what is never touched, what is left after a failure or an interrupt."""

import json
import os
import resource
import signal
import subprocess
import time
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import pellucid as pel
from cli_runs import PROGRAM, drawn, environment, outside, pellucid, printed, refused, snapshot
from pellucid.core.errors import FileError
from pellucid.render import Panel
from pellucid.store import files
from render_examples import explanation, signed_explanation

OWN = ("--model", "user_networks:plain", "--preprocess", "prep.json")


@pytest.fixture
def cat(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prep.json").write_text(json.dumps({"resize_px": [32, 32]}))
    return drawn(tmp_path / "cat.png")


@pytest.fixture
def no_work(monkeypatch):
    """Fails the test if a network is even loaded."""

    def loaded(*_, **__):
        raise AssertionError("work was done before the refusal")

    monkeypatch.setattr("pellucid.cli.explaining.load", loaded)


# ---- what is written --------------------------------------------------------------------------------------------


def test_a_folder_holds_the_report_and_each_map_twice(cat):
    assert pellucid("explain", cat, "-e", "saliency,grad_cam", "-t", "top2", "-o", "out").exit_code == 0
    names = sorted(os.listdir("out"))
    assert len(names) == 9
    assert "report.html" in names
    for name in names:
        if name.endswith(".pel"):
            one = pel.open(Path("out") / name)
            assert one.method in name
            with Image.open(Path("out") / name.replace(".pel", ".png")) as overlay:
                assert overlay.size == one.picture.image().size == (60, 40)
                assert json.loads(overlay.info["pellucid"])["method"] == one.method
    assert sorted(os.listdir()) == ["cat.png", "out", "prep.json"]


def test_a_saved_map_is_the_map(cat):
    (found,) = printed("explain", cat, "-e", "grad_cam", "-o", "out")
    again = pel.explain("builtin:photos", "cat.png")
    (path,) = Path("out").glob("*.pel")
    saved = pel.open(path)
    assert np.array_equal(saved.attribution, again.attribution)
    assert (saved.score, saved.target) == (found["score"], found["target"])


def test_pictures_of_different_sizes_and_formats(cat):
    shapes = {"a.jpg": (30, 90), "b.webp": (200, 100), "c.bmp": (33, 33), "d.gif": (8, 50), "e.tiff": (1, 1)}
    for name, (height, width) in shapes.items():
        drawn(cat.parent / name, height, width)
    found = printed("explain", *shapes, "-o", "out")
    assert [one["picture"] for one in found] == list(shapes)
    sizes = {pel.open(path).picture.name: pel.open(path).heat.shape for path in Path("out").glob("*.pel")}
    assert sizes == shapes


@pytest.mark.parametrize(
    "name", ["with space.png", "é 猫 🐈.png", "-t.png", "a" * 251 + ".png", "猫" * 83 + ".png", "[red]x.png", "x.y.png"]
)
def test_any_file_name_will_do(cat, name):
    path = drawn(cat.parent / name)
    (found,) = printed("explain", "-o", "out", "--", path)
    assert found["picture"] == name
    assert len(os.listdir("out")) == 3
    assert name.split()[0][:4] in pellucid("explain", "--", path).stdout


def test_a_name_that_is_no_text(cat):
    odd = os.fsdecode(b"\xff\xfe.png")
    cat.rename(cat.parent / odd)
    run = outside("explain", odd, "-o", "out")
    assert (run.returncode, run.stderr) == (0, "")
    assert len(os.listdir("out")) == 3
    assert json.loads(outside("explain", odd, "--json").stdout)[0]["picture"] == odd


@pytest.mark.parametrize("out", ["deep/er/out", "out put", "猫" * 85, "o" * 255, "./x/../out"])
def test_any_folder_name_will_do(cat, out):
    (cat.parent / "x").mkdir()
    assert pellucid("explain", cat, "-o", out).exit_code == 0
    assert len(os.listdir(out)) == 3


def test_files_of_one_name_are_told_apart(cat):
    for folder in ("first", "second"):
        (cat.parent / folder).mkdir()
        drawn(cat.parent / folder / "scan.png", 40 if folder == "first" else 50)
    found = printed("explain", "first/scan.png", "second/scan.png", "cat.png", "-o", "out")
    assert [one["picture"] for one in found] == ["first/scan.png", "second/scan.png", "cat.png"]
    html = Path("out/report.html").read_text()
    assert "<h2>first/scan.png</h2>" in html
    assert "<h2>second/scan.png</h2>" in html


def test_an_empty_folder_and_the_working_directory_will_do(cat, monkeypatch):
    (cat.parent / "empty").mkdir()
    assert pellucid("explain", cat, "-o", "empty").exit_code == 0
    (cat.parent / "here").mkdir()
    monkeypatch.chdir(cat.parent / "here")
    assert pellucid("explain", cat, "-o", ".").exit_code == 0
    assert len(os.listdir()) == 3


def test_the_demo(cat):
    result = pellucid("demo", "--out", "shown")
    assert (result.exit_code, result.stderr) == (0, "")
    assert "The network says cat" in result.stdout
    assert str((cat.parent / "shown" / "report.html").resolve()) in result.stdout.replace("\n", "")
    assert os.listdir("shown") == ["report.html"]
    assert pellucid("demo", "--out", "shown", "--quiet").stdout == ""


# ---- what is never touched --------------------------------------------------------------------------------------


def test_an_occupied_folder_is_refused_before_any_work(cat, no_work):
    (cat.parent / "out" / "sub").mkdir(parents=True)
    (cat.parent / "out" / "thesis.tex").write_text("mine")
    before = snapshot(cat.parent)
    assert "--overwrite" in refused("explain", cat, "-o", "out")
    for words in (("-o", "cat.png"), ("-o", "cat.png", "--overwrite"), ("-o", "cat.png/out")):
        assert "error" in refused("explain", cat, *words)
    (cat.parent / "dangling").symlink_to("nowhere")
    assert "no folder" in refused("explain", cat, "-o", "dangling")
    (cat.parent / "dangling").unlink()
    assert snapshot(cat.parent) == before


def test_overwrite_keeps_every_file_of_the_users(cat):
    assert pellucid("explain", cat, "-e", "saliency,grad_cam,cam", "-o", "out").exit_code == 0
    out = cat.parent / "out"
    mine = {"thesis.tex": b"mine", "001-notes.png": b"no picture", "004-mine.pel": b"x", "sub/001-deep.pel": b"y"}
    (out / "sub").mkdir()
    for name, content in mine.items():
        (out / name).write_bytes(content)
    drawn(out / "007-my own.png")
    explanation().save(out / "my favourite.pel")
    kept = {name: what for name, what in snapshot(out).items() if name[0] not in "0r"} | {
        name: snapshot(out)[name] for name in ("001-notes.png", "004-mine.pel", "007-my own.png")
    }
    assert pellucid("explain", cat, "-e", "saliency", "-o", "out", "--overwrite").exit_code == 0
    after = snapshot(out)
    assert kept.items() <= after.items()
    new = set(after) - set(kept)
    assert len(new) == 3
    assert "report.html" in new
    assert not [name for name in new if "cam" in name]


@pytest.mark.parametrize("name", ["report.html", "001-cat-grad_cam-logit-of-"])
def test_a_file_of_the_users_is_not_replaced_even_with_overwrite(cat, name):
    assert pellucid("explain", cat, "-o", "out").exit_code == 0
    path = next(path for path in Path("out").iterdir() if path.name.startswith(name))
    path.write_bytes(b"<html>my own page</html>")
    before = snapshot(cat.parent)
    assert path.name in refused("explain", cat, "-o", "out", "--overwrite")
    assert snapshot(cat.parent) == before


def test_a_folder_or_a_link_in_the_place_of_a_file_is_not_replaced(cat):
    (cat.parent / "out" / "report.html").mkdir(parents=True)
    assert "report.html" in refused("explain", cat, "-o", "out", "--overwrite")
    (cat.parent / "out" / "report.html").rmdir()
    (cat.parent / "page.html").write_text("mine")
    (cat.parent / "out" / "report.html").symlink_to(cat.parent / "page.html")
    assert "report.html" in refused("explain", cat, "-o", "out", "--overwrite")
    assert (cat.parent / "page.html").read_text() == "mine"


def test_the_demo_does_not_replace_the_users_page(cat):
    (cat.parent / "report.html").write_text("my own")
    assert "report.html" in refused("demo", "--out", ".")
    assert (cat.parent / "report.html").read_text() == "my own"
    assert "can't be made" in refused("demo", "--out", "cat.png/x")


def test_a_panel_saved_again_leaves_no_map_that_the_report_lacks(tmp_path):
    Panel([explanation(), signed_explanation()]).save(tmp_path)
    paths = Panel([signed_explanation()]).save(tmp_path, overwrite=True)
    assert sorted(path.name for path in paths) == sorted(os.listdir(tmp_path))


# ---- what fails -------------------------------------------------------------------------------------------------


def test_a_failing_picture_costs_only_itself(cat):
    (cat.parent / "broken.png").write_bytes(cat.read_bytes()[:60])
    (cat.parent / "text.jpg").write_text("hello")
    result = pellucid("explain", "broken.png", cat, "nothing.png", "text.jpg", "--json", "-o", "out")
    assert result.exit_code == 1
    assert [one["picture"] for one in json.loads(result.stdout)] == ["cat.png"]
    assert len(os.listdir("out")) == 3
    errors = result.stderr.splitlines()
    assert [error.split('"')[1] for error in errors] == ["broken.png", "nothing.png", "text.jpg"]


def test_a_picture_the_network_can_not_take_costs_only_itself(cat):
    (cat.parent / "whole.json").write_text("{}")
    for name, size in {"good.png": (32, 32), "bad.png": (40, 32), "fine.png": (32, 32)}.items():
        drawn(cat.parent / name, *size)
    words = ("-m", "user_networks:fixed", "--preprocess", "whole.json")
    result = pellucid("explain", "good.png", "bad.png", "fine.png", *words, "--json")
    assert result.exit_code == 1
    assert [one["picture"] for one in json.loads(result.stdout)] == ["good.png", "fine.png"]
    assert result.stderr.startswith("error: bad.png: ")
    Image.fromarray(np.zeros((1, 60000, 3), np.uint8)).save(cat.parent / "line.png")
    (cat.parent / "prep.json").write_text(json.dumps({"resize_px": 2000}))
    result = pellucid("explain", "line.png", cat, *OWN, "--json")
    assert result.exit_code == 1
    assert [one["picture"] for one in json.loads(result.stdout)] == ["cat.png"]


def test_a_mistake_about_all_pictures_is_told_once(cat):
    drawn(cat.parent / "dog.png")
    assert refused("explain", cat, "dog.png", "-t", "wolf").count("error") == 1


def test_all_or_nothing_when_saving_fails(cat, monkeypatch):
    whole = files.write_bytes

    def full(path, data, **options):
        if Path(path).suffix == ".pel":
            raise FileError(f"can't write {path}: No space left on device; try another folder")
        return whole(path, data, **options)

    monkeypatch.setattr(files, "write_bytes", full)
    before = snapshot(cat.parent)
    told = refused("explain", cat, "-o", "deep/out")
    assert "No space left" in told
    assert ".tmp" not in told
    assert snapshot(cat.parent) == before


def _small_files():
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, 20_000))


@pytest.mark.parametrize("existing", [False, True])
def test_a_disk_that_is_full(cat, existing):
    drawn(cat.parent / "large.bmp", 300, 300)
    if existing:
        assert pellucid("explain", cat, "-o", "out").exit_code == 0
    before = snapshot(cat.parent)
    run = outside("explain", "large.bmp", "-o", "out", "--overwrite", preexec_fn=_small_files)
    assert run.returncode == 1
    assert run.stderr.startswith("error: can't write out")
    assert snapshot(cat.parent) == before


@pytest.mark.skipif(not Path("/proc/self").is_dir(), reason="needs a file system that nobody can write to")
def test_a_place_that_can_not_be_written(cat):
    told = refused("explain", cat, "-o", "/proc/pellucid/out")
    assert "/proc" in told


@pytest.mark.skipif(os.geteuid() != 0, reason="drops the rights of root to feel those of a user")
def test_a_read_only_folder_is_refused_before_any_work(cat):
    code = (
        "import os, sys; from pathlib import Path; from pellucid.render.earlier import check_place; os.setuid(65534)\n"
        "for place in ('locked', 'locked/new', 'locked/new/er'):\n"
        "    try: check_place(Path(sys.argv[1]) / place, True)\n"
        "    except Exception as error: print(type(error).__name__, str(error)[:26])"
    )
    open_to_all = Path(os.path.realpath("/tmp")) / f"pellucid-{os.getpid()}"
    (open_to_all / "locked").mkdir(parents=True, mode=0o755)
    try:
        command = [PROGRAM[0], "-c", code, str(open_to_all)]
        run = subprocess.run(command, capture_output=True, text=True, env=environment(), check=False)
        assert run.stdout == "FileError nothing can be written in \n" * 3, run.stderr
    finally:
        (open_to_all / "locked").rmdir()
        open_to_all.rmdir()


# ---- Ctrl-C -----------------------------------------------------------------------------------------------------


def _interrupted(seconds, *words):
    command = [*PROGRAM, *map(str, words)]
    run = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment())
    time.sleep(seconds)
    run.send_signal(signal.SIGINT)
    out, errors = run.communicate(timeout=60)
    return run.returncode, out, errors


@pytest.mark.parametrize("seconds", [0.4, 0.9, 4.0])
def test_ctrl_c_leaves_nothing_half_written(cat, seconds):
    before = snapshot(cat.parent)
    words = ("-m", "user_networks:slow", "--preprocess", "prep.json", "-e", "cam,smoothgrad,vargrad", "-o", "out")
    words += ("--set", "smoothgrad.samples=5000")  # far more than can be done by then, however fast the machine is
    code, out, errors = _interrupted(seconds, "explain", cat, *words)
    assert (code, out, errors) == (130, "", "stopped\n")
    assert snapshot(cat.parent) == before


@pytest.mark.parametrize("existing", [False, True])
def test_ctrl_c_while_saving_leaves_the_folder_as_it_was(cat, existing, monkeypatch):
    if existing:
        assert pellucid("explain", cat, "-o", "out").exit_code == 0
    before = snapshot(cat.parent)

    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pellucid.render.explanation.Explanation._write_png", interrupted)
    result = pellucid("explain", cat, "-e", "saliency", "-o", "out", "--overwrite")
    assert (result.exit_code, result.stderr) == (130, "stopped\n")
    assert snapshot(cat.parent) == before
