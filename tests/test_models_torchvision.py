"""torchvision's networks: the metadata, local files of weights, torch.hub's folder, and what is said without them."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pellucid.core.errors import MissingExtraError, ModelError
from pellucid.images.decode import decode
from pellucid.images.transforms import Preprocess
from pellucid.models import from_torchvision as source
from pellucid.models import load
from pellucid.models.from_torchvision import preprocess_of_transforms

models = pytest.importorskip("torchvision.models")

SMALL = "squeezenet1_1"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty folder in the place of torch.hub's."""
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture
def offline(monkeypatch) -> None:
    monkeypatch.setattr(source, "reachable", lambda url: False)


def test_squeezenet_from_a_local_file_sees_what_it_is_known_to_see(data):
    """The published predictions cut the central 87.5 % with rounded margins: compare where cut-down ones are equal."""
    central = Preprocess((224, 224), mean=MEAN, std=STD, crop_fraction=0.875)
    weights = data / "imagenet" / "squeezenet1_1_fp16.safetensors"
    model = load(f"torchvision:{SMALL}", weights=weights, preprocess=central)
    assert model.labels is not None
    assert any("float16" in note for note in model.notes)
    known = json.loads((data / "imagenet_sample" / "labels.json").read_text())
    alike = [e for e in known if all(round(e[side] / 16) == e[side] // 16 for side in ("width", "height"))]
    assert len(alike) > 10
    for entry in alike:
        prepared = central(decode(data / "imagenet_sample" / "images" / entry["file"]))
        with torch.no_grad():
            scores = model(central.normalise(prepared.pixels)[None]).softmax(1)[0]
        assert scores.argmax().item() == entry["squeezenet1_1_top1"]
        assert scores.max().item() == pytest.approx(entry["squeezenet1_1_p"], abs=1e-4)
    for entry in known:
        assert model.label(entry["index"]).lower() in entry["name"].lower()


@pytest.mark.parametrize("name", [SMALL, "efficientnet_b0", "regnet_y_400mf", "vit_b_16"])
def test_preprocessing_is_torchvisions_own(name):
    transforms = models.get_model_weights(name).DEFAULT.transforms()
    picture = decode(Image.fromarray(np.random.default_rng(0).integers(0, 256, (311, 401, 3), np.uint8)))
    ours = preprocess_of_transforms(transforms)
    assert ours is not None
    assert torch.allclose(ours.normalise(ours(picture).pixels), transforms(picture.image()), atol=1e-6)


def test_random_weights_are_said_aloud_and_repeatable():
    torch.manual_seed(3)
    before = torch.get_rng_state()
    first, second = load(f"torchvision:{SMALL}", weights="random"), load(f"torchvision:{SMALL}", weights="none")
    assert torch.equal(torch.get_rng_state(), before)
    assert "RANDOM WEIGHTS" in first.notes[0]
    assert not first.module.training
    for one, other in zip(first.module.parameters(), second.module.parameters(), strict=True):
        assert torch.equal(one, other)


def test_without_weights_or_network_one_sentence_says_what_to_do(hub, offline):
    with pytest.raises(ModelError) as told:
        load(f"torchvision:{SMALL}")
    text = str(told.value)
    for part in ("squeezenet1_1-b8a52dc0.pth", str(hub), "weights=FILE", 'weights="random"', "can't be reached"):
        assert part in text
    assert "\n" not in text
    assert not hub.exists()


def test_a_failed_download_is_told(hub, monkeypatch):
    def refuse(*_: object, **__: object) -> None:
        raise OSError("HTTP Error 403: Forbidden")

    monkeypatch.setattr(source, "reachable", lambda url: True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", refuse)
    with pytest.raises(ModelError, match=r"403.*weights=FILE"):
        load(f"torchvision:{SMALL}")


def test_a_download_goes_to_the_folder_of_torch_hub_and_is_checked(hub, monkeypatch):
    state = models.squeezenet1_1(weights=None).state_dict()
    asked = []

    def download(url: str, file: str, hash_prefix: str | None, progress: bool) -> None:
        asked.append((url, file, hash_prefix, progress))
        torch.save(state, file)

    monkeypatch.setattr(source, "reachable", lambda url: True)
    monkeypatch.setattr(torch.hub, "download_url_to_file", download)
    load(f"torchvision:{SMALL}")
    url = "https://download.pytorch.org/models/squeezenet1_1-b8a52dc0.pth"
    assert asked == [(url, str(hub / "squeezenet1_1-b8a52dc0.pth"), "b8a52dc0", False)]


def test_what_lies_in_the_folder_of_torch_hub_is_loaded(hub, offline):
    state = {key: value + 1 for key, value in models.squeezenet1_1(weights=None).state_dict().items()}
    hub.mkdir(parents=True)
    torch.save(state, hub / "squeezenet1_1-b8a52dc0.pth")
    model = load(f"torchvision:{SMALL}")
    assert all(torch.equal(value, state[key]) for key, value in model.module.state_dict().items())
    assert model.preprocess == Preprocess(256, 224, MEAN, STD)
    assert model.labels is not None
    assert len(model.labels) == 1000
    assert model.notes == ()


@pytest.mark.parametrize("name", [SMALL, "resnet18", "mobilenet_v3_small"])
def test_another_number_of_classes_is_read_from_the_file(tmp_path, name):
    save_file(models.get_model(name, weights=None, num_classes=7).state_dict(), tmp_path / "w.safetensors")
    model = load(f"torchvision:{name}", weights=tmp_path / "w.safetensors")
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    assert model.labels is None
    assert any("7 classes" in note for note in model.notes)
    assert load(f"torchvision:{name}", weights=tmp_path / "w.safetensors", labels=list("abcdefg")).label(6) == "g"


@pytest.mark.parametrize("auxiliary", [True, False])
def test_googlenet_is_built_as_its_weights_were_trained(tmp_path, auxiliary):
    trained = models.googlenet(weights=None, init_weights=False, aux_logits=auxiliary, transform_input=True).eval()
    torch.save(trained.state_dict(), tmp_path / "w.pt")
    model = load("torchvision:googlenet", weights=tmp_path / "w.pt")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), trained(x))


def test_old_names_in_densenet_files_are_understood(tmp_path):
    trained = models.densenet121(weights=None)
    old = {key.replace("norm1.", "norm.1.").replace("conv2.", "conv.2."): v for key, v in trained.state_dict().items()}
    assert old.keys() != trained.state_dict().keys()
    torch.save(old, tmp_path / "w.pth")
    model = load("torchvision:densenet121", weights=tmp_path / "w.pth")
    assert torch.equal(
        model.module.features.denseblock1.denselayer1.conv2.weight,
        old["features.denseblock1.denselayer1.conv.2.weight"],
    )


def test_weights_of_another_network_are_told(tmp_path):
    torch.save(models.resnet18(weights=None).state_dict(), tmp_path / "w.pt")
    with pytest.raises(ModelError, match=r"w\.pt does not fit torchvision:squeezenet1_1: 52 missing"):
        load(f"torchvision:{SMALL}", weights=tmp_path / "w.pt")


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("resnet51", 'did you mean "resnet50"'),
        ("qqqq", "e.g. resnet50"),
        ("fasterrcnn_resnet50_fpn", "no image classifier"),
        ("r3d_18", "no image classifier"),
    ],
)
def test_an_unknown_name_is_told(name, said):
    with pytest.raises(ModelError, match=said):
        load(f"torchvision:{name}")


def test_a_segmentation_network_can_be_had():
    model = load("torchvision:lraspp_mobilenet_v3_large", weights="random")
    assert model(torch.randn(1, 3, 64, 64))["out"].shape == (1, 21, 64, 64)
    assert model.label(0) == "__background__"


def test_wrong_number_of_labels_is_told():
    with pytest.raises(ModelError, match=r"2 labels came, but .* has 1000 classes"):
        load(f"torchvision:{SMALL}", weights="random", labels=["a", "b"])


def test_a_missing_library_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtraError, match=r"pellucid\[vision\]"):
        load(f"torchvision:{SMALL}", weights="random")


BROKEN = """
import sys, types
sys.path.insert(0, {folder!r})
from pellucid.models import load, sources
from pellucid.core.errors import ModelError
for spec in ("torchvision:resnet18", "torchvision:resnet18"):
    try:
        load(spec, weights="random")
    except ModelError as error:
        print(error)
print([source.ready for source in sources() if source.spec == "torchvision:NAME"])
"""


def test_a_torchvision_of_another_build_is_told(tmp_path):
    (tmp_path / "torchvision").mkdir()
    (tmp_path / "torchvision" / "__init__.py").write_text(
        "raise RuntimeError('operator torchvision::nms does not exist')"
    )
    done = subprocess.run([sys.executable, "-c", BROKEN.format(folder=str(tmp_path))], capture_output=True, text=True)
    lines = done.stdout.splitlines()
    assert lines[0] == lines[1]
    assert "does not fit this torch" in lines[0]
    assert "--index-url" in lines[0]
    assert lines[2] == "[False]"
