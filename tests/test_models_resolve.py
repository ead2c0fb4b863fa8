"""The one string: which source it names, the built-in network, and every way to get it wrong."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from pellucid.core.errors import ModelError
from pellucid.images.transforms import Preprocess
from pellucid.models import builtin, load, sources
from pellucid.models.networks import PhotoNet

CLASSES = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]
FACTS = {
    "classes": CLASSES,
    "mean": [0.49, 0.48, 0.45],
    "std": [0.25, 0.24, 0.26],
    "input_px": 32,
    "test_accuracy": 0.8812,
}


@pytest.fixture
def shipped(tmp_path, monkeypatch) -> Path:
    """A folder in the place of the package's weights."""
    save_file(PhotoNet().state_dict(), tmp_path / "photos.safetensors")
    (tmp_path / "photos.json").write_text(json.dumps(FACTS))
    monkeypatch.setattr(builtin, "shipped", lambda: tmp_path)
    return tmp_path


def test_the_built_in_network_comes_with_its_facts(shipped):
    model = load("builtin:photos")
    assert model.name == "builtin:photos"
    assert model.labels == tuple(CLASSES)
    assert model.preprocess == Preprocess(32, None, tuple(FACTS["mean"]), tuple(FACTS["std"]))
    assert not any(layer.training for layer in model.module.modules())
    assert model.notes == ()
    assert model(torch.randn(2, 3, 48, 32)).shape == (2, 10)
    assert torch.equal(model.module.head.bias, load("builtin:photos").module.head.bias)


def test_the_built_in_network_with_other_weights(shipped, tmp_path):
    save_file(PhotoNet(7).state_dict(), tmp_path / "seven.safetensors")
    model = load("builtin:photos", weights=tmp_path / "seven.safetensors")
    assert model(torch.randn(1, 3, 32, 32)).shape == (1, 7)
    assert model.labels is None
    assert "RANDOM WEIGHTS" in load("builtin:photos", weights="random").notes[0]


def test_given_facts_go_before_the_sources_own(shipped):
    mine = Preprocess(resize_px=64, crop_px=64)
    model = load("builtin:photos", labels=list("abcdefghij"), preprocess=mine)
    assert model.label(9) == "j"
    assert model.preprocess is mine
    with pytest.raises(ModelError, match=r"3 labels came, but builtin:photos has 10 classes"):
        load("builtin:photos", labels=["a", "b", "c"])


@pytest.mark.skipif(not (builtin.shipped() / "photos.safetensors").is_file(), reason="the weights are not trained yet")
def test_the_weights_in_the_package_fit():
    model = load("builtin:photos")
    assert model.labels == tuple(CLASSES)
    assert model.notes == ()


def test_a_package_without_its_weights_is_told(shipped):
    (shipped / "photos.safetensors").unlink()
    with pytest.raises(ModelError, match="install pellucid again"):
        load("builtin:photos")
    assert not sources()[0].ready
    (shipped / "photos.json").unlink()
    with pytest.raises(ModelError, match="install pellucid again"):
        load("builtin:photos")


@pytest.mark.parametrize(
    ("spec", "said"),
    [
        ("", "no network was named"),
        ("   ", "no network was named"),
        ("photos", "write builtin:photos"),
        ("resnet50", "write torchvision:resnet50"),
        ("some where", "the forms are builtin:photos"),
        ("a:b:c", "names no network; write builtin:photos"),
        (":build", "names no network"),
        ("torchvison:resnet50", 'did you mean "torchvision:resnet50"'),
        ("torchvision:", "write torchvision:resnet50"),
        ("hf:", "write hf:microsoft/resnet-50"),
        ("builtin:photo", 'did you mean "photos"'),
        ("builtin:qqq", "there are photos"),
        ("net.py", "write the module and the function, net:build"),
        ("folder/net.py:build", "net:build"),
        ("net.onnx", "not a format of torch"),
        ("w.safetensors", 'weights="w.safetensors"'),
        ("folder/w.pth", "a file of weights"),
        ("net.pt2", "no file net.pt2"),
        ("wrong_module:build", "no module"),
    ],
)
def test_a_wrong_string_is_told_with_a_remedy(spec, said):
    with pytest.raises(ModelError, match=said) as told:
        load(spec)
    assert "\n" not in str(told.value)


def test_a_users_module_goes_before_a_guess(tmp_path, monkeypatch):
    (tmp_path / "torchvison.py").write_text("from torch import nn\ndef build(): return nn.Conv2d(3, 4, 3)\n")
    monkeypatch.chdir(tmp_path)
    assert isinstance(load("torchvison:build").module, torch.nn.Conv2d)
    sys.modules.pop("torchvison")


def test_the_sources_are_listed(shipped):
    listed = {source.spec: source for source in sources()}
    assert list(listed) == [
        *(f"builtin:{name}" for name in builtin.CARDS),
        "torchvision:NAME", "timm:NAME", "hf:NAME", "FILE.pt2", "package.module:factory",
    ]  # fmt: skip
    assert next(iter(listed)) == "builtin:photos"
    assert listed["builtin:photos"].ready
    assert "88.1 % right" in listed["builtin:photos"].text
    assert all(source.ready != bool(source.remedy) for source in listed.values())


def test_a_library_that_is_absent_is_listed_with_its_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "timm", None)
    listed = {source.spec: source for source in sources()}
    assert listed["timm:NAME"].remedy == 'pip install "pellucid[timm]"'


def test_importing_imports_no_optional_library():
    code = "import sys, pellucid.models; print({'torchvision', 'timm', 'transformers'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"
