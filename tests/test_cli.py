"""The command line: every command and option, exit codes, what is printed where."""

import json
import re
import subprocess
import sys
import time

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

import user_networks
from cli_runs import drawn, environment, outside, pellucid, printed, refused
from pellucid import __version__
from pellucid.core import progress
from pellucid.core.progress import _RichBar
from pellucid.methods import METHODS
from test_panel import ASKING

PLAIN = ("--model", "user_networks:plain")
COMMANDS = ("explain", "demo", "methods", "models", "layers", "doctor")


@pytest.fixture
def cat(tmp_path, monkeypatch):
    """A picture in a working directory of its own, with a preprocessing beside it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "prep.json").write_text(json.dumps({"resize_px": [32, 32]}))
    return drawn(tmp_path / "cat.png")


def own(name="plain"):
    return ("--model", f"user_networks:{name}", "--preprocess", "prep.json")


def test_help_is_there_for_every_command_and_names_every_option():
    result = pellucid("--help")
    assert result.exit_code == 0
    assert all(command in result.stdout for command in COMMANDS)
    told = outside("explain", "--help", env={"COLUMNS": "200"}).stdout
    for (
        option
    ) in "model method target layer set out overwrite weights labels preprocess seed localise json quiet".split():
        assert f"--{option}" in told
    for command in COMMANDS:
        assert pellucid(command, "--help").exit_code == 0


def test_help_and_version_do_not_wait_for_torch():
    code = "import sys; from pellucid.cli.main import app; print('torch' in sys.modules)"
    start = time.perf_counter()
    run = outside("--help")
    assert (run.returncode, run.stderr) == (0, "")
    assert time.perf_counter() - start < 5
    assert pellucid("--version").stdout == f"pellucid {__version__}\n"
    light = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=True)
    assert light.stdout == "False\n"


@pytest.mark.parametrize(
    "words",
    [
        (),
        ("bogus",),
        ("explain",),
        ("explain", "cat.png", "--bogus"),
        ("explain", "cat.png", "--seed", "x"),
        ("explain", "cat.png", "--seed", "-1"),
        ("explain", "cat.png", "--seed", "99999999999999999999"),
        ("explain", "cat.png", "--localise", "half"),
        ("layers",),
        ("doctor",),
        ("methods", "cam", "saliency"),
    ],
)
def test_wrong_usage_ends_with_2(words):
    assert pellucid(*words).exit_code == 2


def test_exit_codes_outside(cat):
    assert outside("explain", "cat.png", "-q").returncode == 0
    wrong = outside("explain", "nothing.png")
    assert (wrong.returncode, wrong.stdout) == (1, "")
    assert wrong.stderr == (
        f'error: there is no file "nothing.png" (looked from {cat.parent})\nerror: no picture could be read\n'
    )
    assert outside("explain").returncode == 2


# ---- explain ----------------------------------------------------------------------------------------------------


def test_one_picture_is_told_in_a_table_and_a_sentence(cat):
    result = pellucid("explain", cat)
    assert (result.exit_code, result.stderr) == (0, "")
    for word in ("cat.png", "grad_cam", "stage2", "(chosen)", "receipt", "The network says"):
        assert word in result.stdout


def test_json_holds_what_the_text_shows(cat):
    (found,) = printed("explain", cat, "-e", "cam", "-o", "out", "--localise", "0.2")
    text = pellucid("explain", cat, "-e", "cam", "-o", "out", "--overwrite", "--localise", "0.2").stdout
    joined = re.sub(r"\s+", "", text)
    best = found["predictions"][0]
    for word in (found["picture"], f"{best['label']} {best['probability']:.0%}", "pass"):
        assert re.sub(r"\s+", "", word) in joined
    assert re.sub(r"\s+", "", f"{found['score']:.3g}") in joined
    assert found["report"] == str((cat.parent / "out" / "report.html").resolve())
    assert f"report:{found['report']}" in joined
    top, left, bottom, right = found["box"]
    assert f"rows {top} to {bottom}, columns {left} to {right}" in text
    assert set(found) >= {"settings", "units", "limits", "seconds", "sentence", "layer", "layer_chosen", "model"}
    assert len(found["predictions"]) == 5
    assert found["receipt"]["checks"]


def test_notes_of_the_model_are_in_the_text_and_in_json(cat):
    note = "no labels are known"
    assert note in pellucid("explain", cat, *own()).stdout
    assert any(note in told for told in printed("explain", cat, *own())[0]["receipt"]["notes"])


def test_json_is_json_also_where_numbers_are_none(cat, monkeypatch):
    broken = user_networks.Plain()
    nn.init.constant_(broken.head.bias, float("nan"))
    monkeypatch.setattr(user_networks, "plain", lambda: broken)
    (found,) = printed("explain", cat, *own(), "-t", "1")
    assert found["score"] is None


def test_quiet_prints_nothing_and_errors_all_the_same(cat):
    result = pellucid("explain", cat, "--quiet", "--out", "out")
    assert (result.exit_code, result.stdout, result.stderr) == (0, "", "")
    assert (cat.parent / "out" / "report.html").is_file()
    result = pellucid("explain", cat, "nothing.png", "--quiet")
    assert (result.exit_code, result.stdout) == (1, "")
    assert "nothing.png" in result.stderr


def test_progress_goes_to_stderr(cat, monkeypatch):
    monkeypatch.setattr(progress, "PATIENCE_SECONDS", -1.0)
    seen = []
    monkeypatch.setattr(_RichBar, "update", lambda self, done, total, label: seen.append((self, done, total)))
    monkeypatch.setattr(progress, "screen", lambda: _RichBar)
    words = ("explain", cat, "-e", "smoothgrad", "-s", "smoothgrad.samples=40")
    assert pellucid(*words, "--quiet").exit_code == pellucid(*words, "--json").exit_code == 0
    assert seen == []
    assert pellucid(*words).exit_code == 0
    assert seen
    assert all(bar._rich.console.stderr for bar, _, _ in seen)
    assert all(0 < done <= total for _, done, total in seen)
    json.loads(pellucid(*words, "--json").stdout)


def test_several_methods_in_every_spelling(cat):
    wanted = ["saliency", "grad_cam", "guided_backprop"]
    for words in (
        ("-e", "saliency,grad_cam", "-e", "guided_backprop"),
        ("-e", " Saliency , Grad-CAM,", "-e", "GUIDED-BACKPROP"),
        ("-e", "saliency,grad_cam,saliency,guided_backprop"),
    ):
        assert [one["method"] for one in printed("explain", cat, *words)] == wanted


@pytest.mark.parametrize("name", sorted(METHODS))
def test_every_method_runs(cat, name):
    settings = METHODS[name].settings
    quick = ASKING.get(name, {key: 4 for key in ("samples", "steps") if key in settings})
    few = [f"--set={name}.{key}={value}" for key, value in quick.items()]
    (found,) = printed("explain", cat, "-e", name, *few)
    assert found["method"] == name
    assert found["receipt"]["verdict"] in ("pass", "warn", "told")
    assert (found["layer"] is not None) <= METHODS[name].layered


def test_an_unknown_method_offers_the_nearest(cat):
    assert '"grad_cam"' in refused("explain", cat, "-e", "gradcam2")


@pytest.mark.parametrize(
    ("asked", "told"),
    [
        (("top2",), ["logit of ", "logit of "]),
        (("cat",), ["logit of 3 cat"]),
        (("3",), ["logit of 3 cat"]),
        (("CAT", "dog"), ["logit of 3 cat", "logit of 5 dog"]),
        (("cat+dog",), ["logit of 3 cat", "logit of 5 dog"]),
        (("cat vs dog",), ["logit of 3 cat minus logit of 5 dog"]),
        (("3 vs 5",), ["logit of 3 cat minus logit of 5 dog"]),
        (("probability:cat",), ["probability of 3 cat"]),
        (("log_probability:3",), ["log-probability of 3 cat"]),
        (("unit:stage1:5",), ["unit 5 of stage1 (mean)"]),
    ],
)
def test_targets_in_every_form(cat, asked, told):
    words = [word for target in asked for word in ("-t", target)]
    found = [one["target"] for one in printed("explain", cat, "-e", "saliency", *words)]
    assert len(found) == len(told)
    assert all(name.startswith(start) for name, start in zip(found, told, strict=True))


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        ("top0", "top10"),
        ("top11", "top10"),
        ("topmost", "top10"),
        ("ct", '"cat"'),
        ("10", "0 to 9"),
        ("-1", "airplane, automobile"),
        ("cat vs", 'called "cat vs"'),
        ("unit:stag1:5", '"stage1"'),
        ("unit:stage1:999", "0 to 63"),
        ("unit:stage1", "unit:LAYER:CHANNEL"),
        ("", "class number"),
    ],
)
def test_wrong_targets_are_told(cat, asked, said):
    assert said in refused("explain", cat, "-t", asked)


def test_layers_are_named_by_the_user_or_chosen(cat):
    for words in (("-l", "stage1,stage2.1"), ("-l", "stage1", "--layer", "stage2.1")):
        found = printed("explain", cat, *words)
        assert [(one["layer"], one["layer_chosen"]) for one in found] == [("stage1", False), ("stage2.1", False)]
    (found,) = printed("explain", cat)
    assert (found["layer"], found["layer_chosen"]) == ("stage2", True)
    assert printed("explain", cat, "-l", "stage1#0")[0]["layer"].startswith("stage1")


@pytest.mark.parametrize(("asked", "said"), [("stgae1", '"stage1"'), ("head", "no maps"), ("stage1#7", "stage1")])
def test_wrong_layers_are_told(cat, asked, said):
    assert said in refused("explain", cat, "-l", asked)


def test_settings_reach_the_method(cat):
    (found,) = printed("explain", cat, "-e", "integrated_gradients", "-s", "integrated_gradients.steps = 7")
    assert found["settings"]["steps"] == 7
    words = ("-e", "smoothgrad", "--set", "smoothgrad.samples=2", "--set", "Smoothgrad.absolute=yes")
    (found,) = printed("explain", cat, *words)
    assert (found["settings"]["samples"], found["settings"]["absolute"]) == (2, True)


@pytest.mark.parametrize(
    ("setting", "said"),
    [
        ("steps=4", "METHOD.SETTING=VALUE"),
        ("integrated_gradients.steps", "METHOD.SETTING=VALUE"),
        ("smoothgrad.samples=4", "add it to --method"),
        ("integrated_grads.steps=4", '"integrated_gradients"'),
        ("integrated_gradients.step=4", '"steps"'),
        ("integrated_gradients.steps=four", "expected"),
        ("integrated_gradients.steps=0", "use 1 to"),
        ("integrated_gradients.steps=nan", "expected"),
        ("integrated_gradients.rule=best", "gauss_legendre"),
        ("integrated_gradients.baseline=pink", "black"),
    ],
)
def test_wrong_settings_are_told(cat, setting, said):
    assert said in refused("explain", cat, "-e", "integrated_gradients", "-s", setting)


def test_the_seed_decides_what_is_random(cat):
    words = ("explain", cat, "-e", "smoothgrad", "-s", "smoothgrad.samples=2")
    same, again, other = (printed(*words, "--seed", seed)[0]["limits"] for seed in (1, 1, 4294967295))
    assert same == again != other


@pytest.mark.parametrize("fraction", ["0", "1", "-0.2", "nan", "7"])
def test_a_wrong_fraction_is_told_before_any_work(cat, fraction, monkeypatch):
    monkeypatch.setattr("pellucid.cli.explaining.load", None)
    assert "between 0 and 1" in refused("explain", cat, "--localise", fraction)


def test_a_map_without_positive_heat_has_no_box(cat, monkeypatch):
    dead = user_networks.Plain()
    nn.init.zeros_(dead.head.weight)
    monkeypatch.setattr(user_networks, "plain", lambda: dead)
    words = ("explain", cat, *own(), "--localise", "0.5")
    assert printed(*words)[0]["box"] is None
    assert "no box" in pellucid(*words).stdout


# ---- the user's own networks ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["plain", "two_heads", "one", "softmax", "tokens", "segmentation", "half"])
def test_a_factory_is_explained(cat, name):
    (found,) = printed("explain", cat, *own(name), "-t", "0" if name == "segmentation" else "top1")
    assert found["model"] == f"user_networks:{name}"
    assert found["receipt"]["verdict"] in ("pass", "warn", "told")
    assert len(found["predictions"]) == {"one": 1, "two_heads": 4, "segmentation": 0}.get(name, 5)
    assert "the network says" not in found["sentence"].lower() or found["predictions"]


def test_a_factory_needs_its_preprocessing(cat):
    assert "preprocess" in refused("explain", cat, *PLAIN)


def test_weights_fill_a_factory_from_either_kind_of_file(cat):
    taught = user_networks.Plain()
    nn.init.constant_(taught.head.bias, 7.0)
    torch.save(taught.state_dict(), "w.pt")
    torch.save({"state_dict": {f"module.{k}": v for k, v in taught.state_dict().items()}, "epoch": 3}, "nested.pth")
    save_file(taught.state_dict(), "w.safetensors")
    scores = {
        printed("explain", cat, *own(), "-t", "2", "--weights", name)[0]["score"]
        for name in ("w.pt", "nested.pth", "w.safetensors")
    }
    assert len(scores) == 1
    assert scores != {printed("explain", cat, *own(), "-t", "2")[0]["score"]}


def test_weights_that_do_not_fit_are_told(cat):
    state = user_networks.Plain().state_dict()
    save_file({("haed.bias" if k == "head.bias" else k): v for k, v in state.items()}, "keys.safetensors")
    told = refused("explain", cat, *own(), "--weights", "keys.safetensors")
    assert '"head.bias"' in told
    assert '"haed.bias"' in told
    save_file(user_networks.Plain(9).state_dict(), "shapes.safetensors")
    assert "9×8 in the file, 5×8 in the network" in refused("explain", cat, *own(), "-w", "shapes.safetensors")
    assert "no file" in refused("explain", cat, *own(), "-w", "absent.pt")


def test_an_exported_network_with_its_facts_beside(cat):
    net = user_networks.plain().eval()
    torch.export.save(torch.export.export(net, (torch.zeros(1, 3, 32, 32),)), "net.pt2")
    facts = {"labels": ["a", "b", "c", "d", "e"], "preprocess": {"resize_px": [32, 32]}}
    (cat.parent / "net.json").write_text(json.dumps(facts))
    (found,) = printed("explain", cat, "-m", "net.pt2")
    (cat.parent / "labels.json").write_text(json.dumps(facts["labels"]))
    (same,) = printed("explain", cat, *own(), "--labels", "labels.json")
    assert found["score"] == pytest.approx(same["score"], rel=1e-5)
    assert found["target"] == same["target"]
    assert "body" in [row["layer"] for row in printed("layers", "net.pt2")]


def test_labels_and_preprocessing_from_files(cat):
    (cat.parent / "names.txt").write_text("ant\nbee\ncow\ndog\neel\n", encoding="utf-8")
    (found,) = printed("explain", cat, *own(), "--labels", "names.txt", "-t", "bee")
    assert found["target"] == "logit of 1 bee"
    (cat.parent / "few.txt").write_text("ant\nbee\n", encoding="utf-8")
    assert "2 labels" in refused("explain", cat, "--labels", "few.txt")
    for name, content in {"bad.json": "{", "other.json": '{"size": 3}', "list.json": "[1]"}.items():
        (cat.parent / name).write_text(content)
        assert name in refused("explain", cat, *PLAIN, "--preprocess", name)
    for option in ("--labels", "--preprocess"):
        assert "absent.json" in refused("explain", cat, *PLAIN, option, "absent.json")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("builtin:photo", '"photos"'),
        ("builtn:photos", "builtin:photos"),
        ("user_networks:plian", '"plain"'),
        ("no_such_module:build", "no_such_module"),
        ("user_networks.py", "user_networks:build"),
        ("net.pt2", "no file"),
        ("w.safetensors", 'weights="w.safetensors"'),
        ("", "no network"),
        ("resnet50", "torchvision:resnet50"),
    ],
)
def test_unknown_networks_are_told(cat, spec, said):
    assert said in refused("explain", cat, "--model", spec)
    assert said in refused("layers", spec)
    assert said in refused("doctor", spec)
