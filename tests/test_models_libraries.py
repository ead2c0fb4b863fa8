"""timm and transformers: their preprocessing and labels, local weights, and life without a network."""

import json

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from pellucid.core.errors import ModelError
from pellucid.images.decode import decode
from pellucid.models import from_hf, from_timm, libraries, load
from pellucid.models.from_hf import preprocess_of_processor
from pellucid.models.from_timm import preprocess_of_config

TIMM = "mobilenetv3_small_050"


@pytest.fixture(scope="module")
def picture():
    pixels = np.random.default_rng(0).integers(0, 256, (61, 83, 3), np.uint8)
    return decode(Image.fromarray(pixels).resize((403, 301), Image.Resampling.BICUBIC))


@pytest.fixture
def timm():
    return pytest.importorskip("timm")


@pytest.fixture
def transformers():
    return pytest.importorskip("transformers")


@pytest.fixture
def offline(monkeypatch, tmp_path):
    """No network, and an empty cache of the hub."""
    constants = pytest.importorskip("huggingface_hub").constants
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for module in (from_timm, from_hf):
        monkeypatch.setattr(module, "hub_is_offline", lambda: True)


def test_a_timm_network_from_a_local_file(timm, tmp_path):
    trained = timm.create_model(TIMM, pretrained=False).eval()
    save_file(trained.state_dict(), tmp_path / "w.safetensors")
    model = load(f"timm:{TIMM}", weights=tmp_path / "w.safetensors")
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x), trained(x))
    assert model.labels is not None
    assert len(model.labels) == 1000
    assert model.index("tabby") == 281
    assert model.notes == ()


def test_a_timm_network_of_other_classes(timm, tmp_path):
    save_file(timm.create_model(TIMM, pretrained=False, num_classes=7).state_dict(), tmp_path / "w.safetensors")
    model = load(f"timm:{TIMM}", weights=tmp_path / "w.safetensors")
    assert model(torch.randn(1, 3, 64, 64)).shape == (1, 7)
    assert model.labels is None
    assert any("7 classes" in note for note in model.notes)


@pytest.mark.parametrize(
    "config",
    [
        {},
        {"crop_pct": 1.0, "interpolation": "bilinear"},
        {"crop_mode": "squash", "crop_pct": 0.9},
        {"input_size": (3, 128, 128), "mean": (0.5, 0.5, 0.5), "std": (0.25, 0.5, 1.0)},
    ],
)
def test_timms_preprocessing_is_its_own(timm, picture, config):
    base = timm.data.resolve_model_data_config(timm.create_model(TIMM, pretrained=False))
    full = {**base, **config}
    ours, notes = preprocess_of_config(full)
    assert ours is not None
    assert notes == ()
    theirs = timm.data.create_transform(**full, is_training=False)
    assert torch.allclose(ours.normalise(ours(picture).pixels), theirs(picture.image()), atol=1e-6)


@pytest.mark.parametrize("config", [{"crop_mode": "border"}, {"input_size": (3, 100, 200)}])
def test_what_timm_does_beyond_our_means_is_noted(config):
    base = {
        "input_size": (3, 224, 224),
        "crop_pct": 0.9,
        "interpolation": "bicubic",
        "mean": (0.0,) * 3,
        "std": (1.0,) * 3,
    }
    preprocess, notes = preprocess_of_config({**base, **config})
    assert preprocess is None
    assert "no equal here" in notes[0]


def test_timm_random_weights_unknown_names_and_no_network(timm, offline):
    model = load(f"timm:{TIMM}", weights="random")
    assert "RANDOM WEIGHTS" in model.notes[0]
    assert not model.module.training
    with pytest.raises(ModelError, match='did you mean "resnet50"'):
        load("timm:resnet5O")
    with pytest.raises(
        ModelError, match=r"the weights of timm:\S+ \(timm/\S+\) are not on this machine.*weights=FILE"
    ) as told:
        load(f"timm:{TIMM}")
    assert "\n" not in str(told.value)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A small classifier saved as transformers saves them."""
    transformers = pytest.importorskip("transformers")
    path = tmp_path_factory.mktemp("hf")
    torch.manual_seed(0)
    names = {0: "cat", 1: "dog", 2: "frog"}
    config = transformers.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic",
        id2label=names, label2id={name: index for index, name in names.items()},
    )  # fmt: skip
    transformers.ResNetForImageClassification(config).save_pretrained(path)
    (path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS["convnext"]))
    return path


IMAGENET = {"image_mean": [0.485, 0.456, 0.406], "image_std": [0.229, 0.224, 0.225]}
PROCESSORS = {
    "convnext": {**IMAGENET, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 0.875, "resample": 3,
                 "size": {"shortest_edge": 224}},
    "convnext 384": {**IMAGENET, "image_processor_type": "ConvNextImageProcessor", "crop_pct": 1.0, "resample": 3,
                     "size": {"shortest_edge": 384}},
    "vit": {"image_processor_type": "ViTImageProcessor", "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "resample": 2,
            "size": {"height": 224, "width": 224}},
    "bit": {**IMAGENET, "image_processor_type": "BitImageProcessor", "resample": 3, "size": {"shortest_edge": 256},
            "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
    "levit": {**IMAGENET, "image_processor_type": "LevitImageProcessor", "resample": 3, "size": {"shortest_edge": 224},
              "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
    "poolformer": {**IMAGENET, "image_processor_type": "PoolFormerImageProcessor", "crop_pct": 0.9, "resample": 3,
                   "size": {"shortest_edge": 224}, "do_center_crop": True, "crop_size": {"height": 224, "width": 224}},
    "mobilenet_v2": {"image_processor_type": "MobileNetV2ImageProcessor", "image_mean": [0.5] * 3, "resample": 2,
                     "image_std": [0.5] * 3, "size": {"shortest_edge": 256}, "do_center_crop": True,
                     "crop_size": {"height": 224, "width": 224}},
    "efficientnet": {"image_processor_type": "EfficientNetImageProcessor", "image_mean": [0.485, 0.456, 0.406],
                     "image_std": [0.47853944, 0.4732864, 0.47434163], "resample": 3, "rescale_offset": False,
                     "size": {"height": 240, "width": 240}},
    "offset": {"image_processor_type": "EfficientNetImageProcessor", "do_normalize": False, "resample": 2,
               "rescale_factor": 1 / 127.5, "rescale_offset": True, "size": {"height": 96, "width": 96}},
}  # fmt: skip


def test_a_classifier_from_a_folder(transformers, folder, capfd):
    model = load(f"hf:{folder}")
    assert capfd.readouterr() == ("", "")
    assert model.labels == ("cat", "dog", "frog")
    assert model.preprocess is not None
    assert model.preprocess.resize_px == 256
    assert model.notes == ()
    assert not model.module.training
    reference = transformers.AutoModelForImageClassification.from_pretrained(folder).eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(x).logits, reference(x).logits)


def test_own_weights_and_random_ones(folder, tmp_path):
    state = {key: value + 1 for key, value in load(f"hf:{folder}").module.state_dict().items()}
    save_file(state, tmp_path / "w.safetensors")
    filled = load(f"hf:{folder}", weights=tmp_path / "w.safetensors").module.state_dict()
    assert all(torch.equal(filled[key], state[key]) for key in state)
    assert "RANDOM WEIGHTS" in load(f"hf:{folder}", weights="random").notes[0]
    with pytest.raises(ModelError, match="does not fit hf:"):
        save_file({"a": torch.ones(1)}, tmp_path / "w.safetensors")
        load(f"hf:{folder}", weights=tmp_path / "w.safetensors")


@pytest.mark.parametrize("name", PROCESSORS)
def test_a_processors_settings_are_its_own(transformers, tmp_path, picture, name):
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(PROCESSORS[name]))
    processor = transformers.AutoImageProcessor.from_pretrained(tmp_path, backend="pil")
    ours, notes = preprocess_of_processor(processor.to_dict())
    assert ours is not None, notes
    theirs = processor(picture.image(), return_tensors="pt")["pixel_values"][0]
    x = ours.normalise(ours(picture).pixels)
    assert x.shape == theirs.shape
    assert torch.allclose(x, theirs.float(), atol=2e-5)


@pytest.mark.parametrize(
    ("facts", "said"),
    [
        (None, "no preprocessor_config"),
        ({"do_flip_channel_order": True}, "red and blue"),
        ({"size": {"longest_edge": 300}}, "no equal here"),
        ({"size": {"height": 30, "width": 40}, "crop_pct": 0.9}, "no equal here"),
        ({"size": {"height": 30, "width": 30}, "resample": 5}, "no equal here"),
    ],
)
def test_settings_beyond_our_means_are_noted(facts, said):
    preprocess, notes = preprocess_of_processor(facts)
    assert preprocess is None
    assert said in notes[0]


def test_a_folder_without_a_processor_is_noted(folder, tmp_path):
    for name in ("config.json", "model.safetensors"):
        (tmp_path / name).write_bytes((folder / name).read_bytes())
    model = load(f"hf:{tmp_path}")
    assert model.preprocess is None
    assert any("preprocessor_config.json" in note for note in model.notes)


def test_what_is_no_classifier_is_told(transformers, tmp_path, offline):
    with pytest.raises(ModelError, match=r"can't be reached.*hf:FOLDER"):
        load("hf:microsoft/resnet-18")
    with pytest.raises(ModelError, match=r"can't load hf:.*config\.json"):
        load(f"hf:{tmp_path}")
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "bert"}))
    with pytest.raises(ModelError, match="as an image classifier"):
        load(f"hf:{tmp_path}")


def test_code_of_a_repository_is_not_run(transformers, tmp_path):
    (tmp_path / "config.json").write_text(
        json.dumps(
            {"model_type": "mine", "auto_map": {"AutoConfig": "evil.C", "AutoModelForImageClassification": "evil.M"}}
        )
    )
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'canary')!r}, 'w').close()")
    with pytest.raises(ModelError, match="can't load hf:"):
        load(f"hf:{tmp_path}")
    assert not (tmp_path / "canary").exists()


def test_an_unreachable_host_is_known_quickly(monkeypatch):
    monkeypatch.setattr(libraries, "getproxies", dict)
    assert not libraries.reachable("http://127.0.0.1:9")
    monkeypatch.setattr(libraries, "getproxies", lambda: {"https": "http://proxy"})
    assert libraries.reachable("https://127.0.0.1:9")


def test_a_library_that_fails_to_import_is_told():
    cause = RuntimeError("operator torchvision::nms does not exist")
    late = ModuleNotFoundError("Could not import module 'AutoImageProcessor'")
    late.__cause__ = cause
    assert str(libraries.broken("transformers", late)).startswith(
        "transformers needs torchvision to work or to be absent"
    )
    assert "no CUDA" in str(libraries.broken("timm", OSError("no CUDA\nmore")))
