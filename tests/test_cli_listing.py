"""`pellucid methods`, `models`, `layers` and `doctor`; bugs, interrupts, encodings and pipes."""

import re
import subprocess

import pytest

from cli_runs import PROGRAM, environment, outside, pellucid, printed, refused
from pellucid.cli.manners import STOPPED
from pellucid.methods import METHODS
from test_cli import cat, own

__all__ = ["cat"]

# ---- methods, models, layers, doctor ----------------------------------------------------------------------------


def test_methods_are_listed_whole():
    text = pellucid("methods").stdout
    found = {one["name"]: one for one in printed("methods")}
    assert set(found) == set(METHODS)
    for name, facts in found.items():
        assert name in text
        assert facts["source"]
        assert facts["text"]
        assert facts == printed("methods", name)


def test_one_method_with_its_settings():
    text = pellucid("methods", "Integrated-Gradients").stdout
    facts = printed("methods", "integrated_gradients")
    for name, setting in facts["settings"].items():
        assert f"--set integrated_gradients.{name}={setting['default']}" in text
    for key in ("title", "units", "source", "misleads", "text"):
        assert re.sub(r"\s+", "", facts[key]) in re.sub(r"\s+", "", text)
    assert '"grad_cam"' in refused("methods", "gradcam")


def test_models_are_listed_and_nothing_is_cut():
    text = re.sub(r"\s+", "", pellucid("models").stdout)
    assert "…" not in text.replace("==…", "")
    found = printed("models")
    assert found[0]["spec"] == "builtin:photos"
    for source in found:
        assert source["spec"] in text
        assert source["ready"] or source["remedy"]


SHAPES = {
    "signal": "2x64", "volume": "1x8x8x8", "segmentation": "3x32x32", "plain": "3x32x32", "two_heads": "3x32x32",
    "one": "3x32x32", "softmax": "3x32x32", "tokens": "3x32x32", "fixed": "3x32x32", "half": "3X32×32",
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_layers_and_doctor_on_the_users_networks(name):
    words = (f"user_networks:{name}", "--input", SHAPES[name])
    rows = printed("layers", *words)
    assert sum(row["chosen"] for row in rows) == 1
    text = pellucid("layers", *words).stdout
    assert all(row["layer"] in text and row["kind"] in text for row in rows)
    found = printed("doctor", *words)
    assert set(found["verdicts"]) == set(METHODS)
    assert {verdict["fit"] for verdict in found["verdicts"].values()} <= {"exact", "approximate", "impossible"}
    assert found["gradient_error"] < 1e-4
    assert all(verdict["why"] for verdict in found["verdicts"].values())
    told = re.sub(r"\s+", "", pellucid("doctor", *words).stdout)
    assert all(f"{method}{verdict['fit']}" in told for method, verdict in found["verdicts"].items())


def test_the_doctors_word_on_known_networks():
    def fit(name, method):
        return printed("doctor", f"user_networks:{name}", "--input", SHAPES[name])["verdicts"][method]["fit"]

    assert fit("plain", "cam") == "exact"
    assert fit("fixed", "cam") == fit("segmentation", "cam") == "impossible"
    assert fit("tokens", "grad_cam") == "approximate"
    assert fit("plain", "grad_cam") == "exact"


def test_what_the_doctor_calls_impossible_is_refused_by_explain(cat):
    for name in ("plain", "fixed", "softmax", "tokens", "one", "two_heads", "segmentation"):
        words = (*own(name), "-t", "0")
        found = printed("doctor", f"user_networks:{name}", "--input", SHAPES[name])["verdicts"]
        for method in ("cam", "grad_cam", "saliency", "fullgrad"):
            result = pellucid("explain", cat, *words, "-e", method)
            assert (result.exit_code == 1) == (found[method]["fit"] == "impossible"), (name, method, result.output)


def test_layers_and_doctor_know_the_input_of_the_built_in_network(cat):
    rows = {row["layer"]: row for row in printed("layers", "builtin:photos")}
    assert rows["stage2"]["chosen"]
    assert rows["head"]["output"] == [[10]]
    assert printed("doctor", "builtin:photos")["warnings"] == []
    by_file = printed("layers", "user_networks:plain", "--preprocess", "prep.json")
    assert by_file == printed("layers", "user_networks:plain", "--input", "3x32x32")


@pytest.mark.parametrize("shape", ["3", "axbxc", "3x0x4", "3x-1x4", "", "3x³x4", f"3x{'9' * 5000}", "3x32x32x"])
def test_a_shape_that_is_none_is_told(shape):
    assert "3x224x224" in refused("layers", "user_networks:plain", "--input", shape)


def test_wrong_inputs_are_told():
    assert "at most" in refused("doctor", "user_networks:plain", "--input", "3x100000x100000")
    assert "--input" in refused("doctor", "user_networks:plain")
    assert "--input" in refused("layers", "user_networks:plain")
    assert "(1, 3, 64, 64)" in refused("layers", "user_networks:fixed", "--input", "3x64x64")
    assert "channels" in refused("doctor", "user_networks:plain", "--input", "4x8x8")


def test_a_bug_keeps_its_stack(monkeypatch):
    def broken(*_, **__):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr("pellucid.cli.listing.show_models", broken)
    with pytest.raises(ZeroDivisionError):
        pellucid("models")


def test_an_interrupt_ends_with_130(monkeypatch):
    def interrupted(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("pellucid.cli.listing.show_models", interrupted)
    result = pellucid("models")
    assert (result.exit_code, result.stdout, result.stderr) == (STOPPED, "", "stopped\n")


@pytest.mark.parametrize("encoding", ["ascii", "cp1252", "utf-8"])
def test_any_terminal_encoding_will_do(cat, encoding):
    run = outside("layers", "builtin:photos", env={"PYTHONIOENCODING": encoding}, encoding=encoding)
    assert (run.returncode, run.stderr) == (0, "")
    assert ("128×8×8" if encoding != "ascii" else "128?8?8") in run.stdout


def test_a_reader_that_goes_away_is_no_crash():
    command = f"{' '.join(PROGRAM)} methods --json | head -c 1"
    run = subprocess.run(command, shell=True, capture_output=True, text=True, env=environment(), check=False)
    assert run.stdout == "["
    assert "Traceback" not in run.stderr
