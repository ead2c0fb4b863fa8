"""Thirty real photographs with two real networks from the command line, as a user with their own code does it."""

import json
import re
from collections import Counter
from pathlib import Path

import pytest

import pellucid as pel
from cli_runs import pellucid

FACTORIES = '''
"""The user's own code: torchvision's classes with weights from a folder."""
import sys
from pathlib import Path

import torchvision

DATA = Path({data!r})
sys.path.insert(0, str(DATA))
import models as ours


def squeezenet():
    return torchvision.models.squeezenet1_1(weights=None)


def mobilenet():
    net = torchvision.models.mobilenet_v2(weights=None)
    found = ours.load_q8(DATA / "imagenet" / "mobilenet_v2_1.0_224_q8.safetensors")
    net.load_state_dict(found, strict=True)
    return ours.tf_same_(net.eval())
'''
PREPROCESS = {
    "squeezenet": {
        "resize_px": [224, 224], "crop_fraction": 0.875, "mean": [0.485, 0.456, 0.406], "std": [0.229, 0.224, 0.225],
    },
    "mobilenet": {
        "resize_px": [224, 224], "crop_fraction": 0.875, "mean": [128 / 255] * 3, "std": [128 / 255] * 3,
    },
}  # fmt: skip
COUNT = 30
BYTES_PER_MAP = 220_000
PUBLISHED = {"squeezenet": "squeezenet1_1_top1", "mobilenet": "mobilenet_v2_top1"}

pytest.importorskip("torchvision.models")
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(scope="module")
def desk(data, tmp_path_factory):
    """A user's working directory: code, preprocessing, labels, and thirty photographs in the data folder."""
    folder = tmp_path_factory.mktemp("desk")
    (folder / "my_real_networks.py").write_text(FACTORIES.format(data=str(data)))
    for name, settings in PREPROCESS.items():
        (folder / f"{name}.json").write_text(json.dumps(settings))
    (folder / "labels.json").write_text((data / "imagenet" / "imagenet_labels.json").read_text())
    return folder


@pytest.fixture(scope="module")
def known(data):
    """What is published about each photograph."""
    return json.loads((data / "imagenet_sample" / "labels.json").read_text())[:COUNT]


def _explained(desk, data, known, name, out, *words):
    photographs = [data / "imagenet_sample" / "images" / one["file"] for one in known]
    weights = ("--weights", data / "imagenet" / "squeezenet1_1_fp16.safetensors") if name == "squeezenet" else ()
    result = pellucid(
        "explain", *photographs, "--model", f"my_real_networks:{name}", "--preprocess", desk / f"{name}.json",
        "--labels", desk / "labels.json", *weights, "--out", out, "--json", *words,
    )  # fmt: skip
    assert (result.exit_code, result.stderr) == (0, "")
    return json.loads(result.stdout)


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_thirty_photographs(desk, data, known, name, tmp_path, monkeypatch):
    monkeypatch.chdir(desk)
    found = _explained(desk, data, known, name, tmp_path / "out", "-e", "grad_cam,saliency")
    assert len(found) == 2 * COUNT
    assert Counter(one["picture"] for one in found) == {one["file"]: 2 for one in known}
    top = {one["picture"]: one["predictions"][0]["index"] for one in found}
    agreed = sum(top[one["file"]] == one[PUBLISHED[name]] for one in known)
    assert agreed >= COUNT - 2, "the published cuts round their margins otherwise, which may turn a close call"
    for one in found:
        low, high = one["limits"]
        assert low <= 0 < high, one["picture"]
        assert one["receipt"]["verdict"] != "fail"
        assert one["predictions"][0]["label"] in one["target"]
        assert (one["layer"] is not None) == (one["method"] == "grad_cam")
        assert one["predictions"][0]["label"] in one["sentence"]
    _self_contained(tmp_path / "out" / "report.html", len(found))
    for path in sorted((tmp_path / "out").glob("*.pel"))[:4]:
        one = pel.open(path)
        assert one.heat.shape == one.picture.size_px


def _self_contained(path, maps):
    html = path.read_text(encoding="utf-8")
    assert not re.search(r"https?://|@import|url\(|<link[^>]+href=\"(?!data:)", html.replace("arXiv", ""))
    assert all(address.startswith("data:") for address in re.findall(r"\s(?:src|href)=\"?([^\"\s>]+)", html))
    assert html.count("<article") == maps
    assert maps * 10_000 < len(html) < maps * BYTES_PER_MAP


def test_the_layer_chosen_for_known_networks(desk, data, monkeypatch):
    monkeypatch.chdir(desk)
    for name, layer in (("squeezenet", "features"), ("mobilenet", "features")):
        result = pellucid("layers", f"my_real_networks:{name}", "--preprocess", desk / f"{name}.json", "--json")
        (chosen,) = [row for row in json.loads(result.stdout) if row["chosen"]]
        assert chosen["layer"].split(".")[0] in (layer, "classifier")
        doctor = pellucid("doctor", f"my_real_networks:{name}", "--preprocess", desk / f"{name}.json", "--json")
        verdicts = json.loads(doctor.stdout)["verdicts"]
        assert {verdicts[method]["fit"] for method in ("grad_cam", "saliency", "guided_backprop")} == {"exact"}


@pytest.mark.parametrize("name", ["squeezenet", "mobilenet"])
def test_a_panel_of_twelve_methods(desk, data, known, name, tmp_path, monkeypatch):
    monkeypatch.chdir(desk)
    methods = (
        "saliency,gradient_x_input,guided_backprop,deconvnet,grad_cam,grad_cam_plus_plus,xgrad_cam,hires_cam,"
        "layer_cam,eigen_cam,eigen_grad_cam,guided_grad_cam"
    )
    found = _explained(desk, data, known[:2], name, tmp_path / "out", "-e", methods, "-t", "top2")
    assert len(found) == 2 * 12 * 2
    assert not [one for one in found if one["receipt"]["verdict"] == "fail"]
    assert len({tuple(one["limits"]) for one in found}) > 30
    _self_contained(Path(tmp_path) / "out" / "report.html", len(found))
