"""From a picture in any form to an explanation that knows what it shows."""

import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pel
from method_cases import close, pooled, random_input, undrawn
from pellucid.core.errors import (
    ImageError,
    LayerError,
    MethodError,
    ModelError,
    SettingError,
    TargetError,
    TraceError,
)
from pellucid.methods.explain import BATCH, explain
from render_examples import picture

LABELS = ["ash", "beech", "cedar", "topiary", "elm, common elm"]


def model(preprocess: pel.preprocess | None = None, labels: list[str] | None = LABELS) -> pel.Model:
    known = preprocess or pel.preprocess(resize_px=20, crop_px=16, mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.25))
    return pel.wrap(pooled(), labels=labels, preprocess=known, name="trees")


def photo(height: int = 60, width: int = 90) -> np.ndarray:
    return picture(height, width).pixels.copy()


def forms(folder: Path) -> dict[str, object]:
    array = photo()
    image = Image.fromarray(array)
    image.save(folder / "tree.png")
    data = io.BytesIO()
    image.save(data, "PNG")
    return {
        "path": folder / "tree.png",
        "text": str(folder / "tree.png"),
        "PIL": image,
        "array": array,
        "bytes": data.getvalue(),
        "Picture": pel.decode(array),
    }


def test_every_form_of_a_picture_gives_the_same_explanation(tmp_path: Path):
    found = {name: explain(model(), form) for name, form in forms(tmp_path).items()}
    first = found.pop("path")
    assert isinstance(first, pel.Explanation) and first.picture.name == "tree.png"
    for name, other in found.items():
        assert torch.equal(other.attribution, first.attribution), name
        assert np.array_equal(other.heat, first.heat, equal_nan=True)
    together = explain(model(), list(forms(tmp_path).values()))
    assert isinstance(together, pel.Panel) and len(together) == 6
    for other in together:
        close(other.attribution, first.attribution, 1e-6)


def test_a_tensor_of_inputs_is_the_picture_it_came_from():
    known = model()
    prepared = known.preprocess(pel.decode(photo()))
    x = known.preprocess.normalise(prepared.pixels[None])
    panel = explain(known, torch.cat([x, x.flip(3)]))
    assert isinstance(panel, pel.Panel) and len(panel) == 2
    close(panel[0].attribution, explain(known, photo()).attribution, 1e-6)
    shown = panel[0].picture.pixels.astype(float) / 255
    assert np.abs(shown - prepared.pixels.permute(1, 2, 0).numpy()).max() <= 0.5 / 255 + 1e-6
    assert panel[0].heat.shape == (16, 16) and not np.isnan(panel[0].heat).any()


def test_a_tensor_needs_no_preprocessing():
    bare = pel.wrap(pooled())
    panel = explain(bare, random_input(1, 3, 8, 8))
    assert len(panel) == 1 and "rescaled to its own range" in " ".join(panel[0].receipt.notes)


def test_the_fields_of_an_explanation():
    known = model()
    one = explain(known, photo(), methods="integrated_gradients", targets="beech", steps=4, seed=3)
    assert (one.method, one.title) == ("integrated_gradients", "Integrated Gradients")
    assert one.target == "logit of 1 beech"
    x = known.preprocess.normalise(known.preprocess(pel.decode(photo())).pixels[None]).double()
    assert one.score == pytest.approx(float(known(x)[0, 1]), rel=1e-6)
    assert (one.site, one.layer, one.signed, one.reduce) == ("input", None, True, "sum")
    assert one.attribution.shape == (3, 16, 16) and one.attribution.dtype == torch.float32
    assert one.settings == {"baseline": "auto", "steps": 4, "rule": "gauss_legendre"}
    assert one.receipt.checks[0].name == "completeness residual"
    assert any("black" in note and "chosen" in note for note in one.receipt.notes)
    assert one.model == "trees" and one.versions["torch"] == torch.__version__
    assert one.misleads and one.source and one.units and one.seconds > 0
    json.dumps(one.settings)
    shares = known(x).softmax(1)[0]
    assert [p.index for p in one.predictions] == shares.topk(5).indices.tolist()
    assert one.predictions[0].probability == pytest.approx(float(shares.max()), rel=1e-6)
    assert {p.label for p in one.predictions} == set(LABELS)


def test_the_default_is_grad_cam_at_the_last_maps_for_the_first_class():
    one = explain(model(), photo())
    assert (one.method, one.layer, one.layer_chosen, one.site) == ("grad_cam", "5", True, "layer")
    assert one.target == f"logit of {one.predictions[0].index} {one.predictions[0].label}"
    assert not explain(model(), photo(), layers="2").layer_chosen


def test_heat_lies_where_the_crop_was():
    """A network that adds up the input: the gradient of each pixel of the crop is 1, nothing outside is known."""
    adds = nn.Sequential(nn.Flatten(), nn.Linear(3 * 16 * 16, 2, bias=False)).eval()
    with torch.no_grad():
        adds[1].weight.fill_(1.0)
    known = pel.wrap(adds, preprocess=pel.preprocess(resize_px=16, crop_px=16))
    one = explain(known, photo(60, 90), methods="saliency", targets=0)
    assert one.heat.shape == (60, 90)
    inside = ~np.isnan(one.heat)
    assert inside[:, 16:74].all() and not inside[:, :14].any() and not inside[:, 76:].any()
    assert np.allclose(one.heat[inside], 1.0)


def test_a_spot_is_found_where_it_is():
    """The heat of gradient × input peaks at the white spot, wherever the crop put it."""
    adds = nn.Sequential(nn.Flatten(), nn.Linear(3 * 30 * 30, 2, bias=False)).eval()
    with torch.no_grad():
        adds[1].weight.fill_(1.0)
    known = pel.wrap(adds, preprocess=pel.preprocess(resize_px=30, crop_px=30))
    pixels = np.zeros((60, 100, 3), np.uint8)
    pixels[20:24, 60:64] = 255
    heat = np.nan_to_num(explain(known, pixels, methods="gradient_x_input", targets=0).heat)
    y, x = np.unravel_index(heat.argmax(), heat.shape)
    assert 19 <= y <= 24 and 59 <= x <= 64


@pytest.mark.parametrize(
    ("asked", "names"),
    [
        (2, ["logit of 2 cedar"]),
        ("cedar", ["logit of 2 cedar"]),
        ("2", ["logit of 2 cedar"]),
        ("common elm", ["logit of 4 elm, common elm"]),
        ("ash vs elm", ["logit of 0 ash minus logit of 4 elm, common elm"]),
        ("probability:beech", ["probability of 1 beech"]),
        ("log_probability:1", ["log-probability of 1 beech"]),
        ("unit:2:4", ["unit 4 of 2 (mean)"]),
        ("ash+beech", ["logit of 0 ash", "logit of 1 beech"]),
        (["ash", 3], ["logit of 0 ash", "logit of 3 topiary"]),
        ("topiary", ["logit of 3 topiary"]),
        (np.int64(2), ["logit of 2 cedar"]),
        (torch.tensor(2), ["logit of 2 cedar"]),
        ([0, 1, 2], ["logit of 0 ash", "logit of 1 beech", "logit of 2 cedar"]),
    ],
)
def test_targets_in_words(asked, names: list[str]):
    found = explain(model(), photo(), targets=asked, layers="2")
    listed = [found] if isinstance(found, pel.Explanation) else list(found)
    assert [one.target for one in listed] == names


def test_the_top_three_are_three():
    panel = explain(model(), photo(), targets="top3")
    assert [one.target for one in panel] == [f"logit of {p.index} {p.label}" for p in panel[0].predictions[:3]]
    scores = [one.score for one in panel]
    assert scores == sorted(scores, reverse=True)


COUNT = BATCH + 2  # more than one batch


def many() -> list[np.ndarray]:
    return [photo(40 + 3 * k, 70) for k in range(COUNT)]


def alone(targets: list) -> list[pel.Explanation]:
    return [explain(model(), image, targets=t) for image, t in zip(many(), targets, strict=True)]


@pytest.mark.parametrize(
    "asked",
    [
        [3, 1, 4, 1, 0, 2],
        torch.tensor([3, 1, 4, 1, 0, 2]),
        np.array([3, 1, 4, 1, 0, 2]),
        pel.logit([3, 1, 4, 1, 0, 2]),
    ],
    ids=["list", "tensor", "array", "target"],
)
def test_one_class_per_image_across_batches(asked):
    panel = explain(model(), many(), targets=asked)
    for found, expected in zip(panel, alone([3, 1, 4, 1, 0, 2]), strict=True):
        assert found.target == expected.target
        assert found.score == pytest.approx(expected.score, rel=1e-6)
        close(found.attribution, expected.attribution, 1e-6)


def test_one_pair_of_classes_per_image_across_batches():
    panel = explain(model(), many(), targets=pel.contrast([3, 1, 4, 1, 0, 2], 3))
    expected = alone([pel.contrast(c, 3) for c in (3, 1, 4, 1, 0, 2)])
    for found, one in zip(panel, expected, strict=True):
        assert found.target == one.target
        assert found.score == pytest.approx(one.score, rel=1e-6, abs=1e-6)


def test_as_many_classes_as_a_batch_has_images_are_classes_all_the_same():
    """Four classes and six pictures: every picture gets all four, also in the first batch of four."""
    panel = explain(model(), many(), targets=list(range(BATCH)))
    assert len(panel) == COUNT * BATCH
    assert [one.target for one in panel] == [f"logit of {c} {LABELS[c]}" for c in range(BATCH)] * COUNT


@pytest.mark.parametrize("asked", [torch.tensor([1, 2, 3]), pel.logit([1, 2, 3, 4]), [pel.logit([1, 2])]])
def test_a_wrong_number_of_classes_is_our_error(asked):
    with pytest.raises(TargetError, match="classes came for 6 images"):
        explain(model(), many(), targets=asked)


def test_pictures_of_all_sizes_in_one_call():
    free = model(pel.preprocess())
    sizes = [(40, 30), (40, 30), (24, 50), (40, 30)]
    panel = explain(free, [photo(*s) for s in sizes], methods=["saliency", "grad_cam"])
    assert [one.heat.shape for one in panel[::2]] == sizes
    for k, size in enumerate(sizes):
        close(panel[2 * k].attribution, explain(free, photo(*size), methods="saliency").attribution, 1e-6)


@pytest.mark.parametrize(
    ("words", "kind", "says"),
    [
        ({"methods": "gradcam"}, MethodError, 'did you mean "grad_cam"'),
        ({"methods": []}, MethodError, "no method"),
        ({"layers": "55"}, LayerError, "55"),
        ({"targets": "oak"}, TargetError, "oak"),
        ({"targets": 5}, TargetError, "0 to 4"),
        ({"targets": -1}, TargetError, "0 to 4"),
        ({"targets": "top9"}, TargetError, "top5"),
        ({"targets": []}, TargetError, "no target"),
        ({"targets": 1.5}, TargetError, "float"),
        ({"targets": "unit:2:99"}, TargetError, "8 units|6 units"),
        ({"targets": "unit:2"}, TargetError, "unit:LAYER:CHANNEL"),
        ({"methods": ["saliency", "smoothgrad"], "samples": 3}, SettingError, "2 methods"),
        ({"methods": "saliency", "samples": 3}, SettingError, "no setting"),
    ],
)
def test_a_mistake_is_our_error(words: dict, kind: type[Exception], says: str):
    with pytest.raises(kind, match=says):
        explain(model(), photo(), **words)


def test_pictures_need_preprocessing_and_the_error_says_how():
    with pytest.raises(ModelError, match=r"pel\.preprocess\("):
        explain(pel.wrap(pooled().float()), photo())


@pytest.mark.parametrize("images", [[], torch.zeros(3, 8, 8), torch.zeros(1, 3, 8, 8, dtype=torch.uint8)])
def test_images_that_are_none(images):
    with pytest.raises(ImageError):
        explain(model(), images)


def test_a_network_in_training_mode_is_refused(untouched):
    network = pooled().float().train()
    with untouched(network), undrawn(), pytest.raises(TraceError, match="eval"):
        explain(network, torch.zeros(1, 3, 8, 8))


def test_saved_and_opened_again(tmp_path: Path):
    panel = explain(model(), photo(), methods=["grad_cam", "smoothgrad"], targets="top2")
    for number, one in enumerate(panel):
        again = pel.open(one.save(tmp_path / f"{number}.pel"))
        assert torch.equal(again.attribution, one.attribution)
        assert np.array_equal(again.heat, one.heat, equal_nan=True)
        for name in ("method", "title", "target", "score", "layer", "settings", "receipt", "predictions", "versions"):
            assert getattr(again, name) == getattr(one, name), name
    page = panel.report(tmp_path / "report.html").read_text(encoding="utf-8")
    assert "Grad-CAM" in page and "SmoothGrad" in page and "cedar" in page
