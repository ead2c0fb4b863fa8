"""Preprocessing: torchvision's sizes and values where it is at home, laws everywhere, nonsense refused."""

import importlib.util
import json
import sys
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from pellucid.core.errors import ImageError, SettingError
from pellucid.images import Picture, Placement, Preprocess, decode, transforms

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SIZES = [(375, 500), (500, 375), (224, 224), (256, 341), (341, 256), (100, 80), (255, 257), (5, 900), (1, 1), (333, 97)]


def picture(height: int, width: int, seed: int = 0) -> Picture:
    coarse = np.random.default_rng(seed).integers(0, 256, (max(1, height // 7), max(1, width // 7), 3), dtype=np.uint8)
    return decode(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def torchvision() -> ModuleType:
    try:
        pytest.importorskip("torchvision")
        from torchvision import transforms
    except RuntimeError as error:
        pytest.skip(f"torchvision does not fit this torch: {error}")
    return transforms


@pytest.fixture
def unchecked() -> ModuleType:
    """transforms without the type checks of the test run, as users have it."""
    spec = importlib.util.spec_from_file_location(
        "transforms_as_users_have_it", sys.modules[Preprocess.__module__].__file__
    )
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


@pytest.mark.parametrize("size", SIZES, ids=str)
@pytest.mark.parametrize(
    ("resize", "crop"),
    [(256, 224), (224, 224), (232, 225), (None, 96), ((64, 99), None), ((64, 99), (70, 30)), (33, None)],
)
@pytest.mark.parametrize("interpolation", ["bilinear", "bicubic", "nearest"])
def test_equals_torchvision_bit_for_bit(torchvision, size, resize, crop, interpolation) -> None:
    mode = torchvision.InterpolationMode(interpolation)
    steps = [torchvision.Resize(resize, mode)] if resize else []
    steps += [torchvision.CenterCrop(crop)] if crop else []
    steps += [torchvision.ToTensor(), torchvision.Normalize(MEAN, STD)]
    ours = Preprocess(resize, crop, MEAN, STD, interpolation=interpolation)
    source = picture(*size)
    prepared = ours(source)
    assert torch.equal(ours.normalise(prepared.pixels), torchvision.Compose(steps)(source.image()))
    assert prepared.pixels.shape[1:] == prepared.placement.input_px
    assert ours.input_size_px in (None, prepared.placement.input_px)


def test_equals_torchvision_on_real_photographs(torchvision, data: Path) -> None:
    theirs = torchvision.Compose(
        [torchvision.Resize(256), torchvision.CenterCrop(224), torchvision.ToTensor(), torchvision.Normalize(MEAN, STD)]
    )
    ours = Preprocess(256, 224, MEAN, STD)
    for path in sorted((data / "imagenet_sample" / "images").iterdir())[:20]:
        pixels = ours(decode(path)).pixels
        assert torch.equal(ours.normalise(pixels), theirs(Image.open(path).convert("RGB"))), path


def test_grey_equals_torchvision(torchvision) -> None:
    steps = [torchvision.Grayscale(), torchvision.Resize(30), torchvision.CenterCrop(28), torchvision.ToTensor()]
    source = picture(40, 55)
    assert torch.equal(Preprocess(30, 28, channels=1)(source).pixels, torchvision.Compose(steps)(source.image()))


def test_defaults_change_nothing() -> None:
    source = picture(11, 17)
    preprocess = Preprocess()
    prepared = preprocess(source)
    assert np.array_equal(prepared.pixels.permute(1, 2, 0).numpy() * np.float32(255), source.pixels)
    assert prepared.placement == Placement.identity(11, 17)
    assert prepared.notes == ()
    assert (preprocess.mean, preprocess.std) == ((0.0,) * 3, (1.0,) * 3)
    assert torch.equal(preprocess.normalise(prepared.pixels), prepared.pixels)
    assert prepared.pixels.is_contiguous()


def test_the_picture_is_not_shared() -> None:
    source = picture(8, 8)
    before = source.pixels.copy()
    for preprocess in (Preprocess(), Preprocess(crop_px=4), Preprocess(channels=1)):
        preprocess(source).pixels.zero_()
    assert np.array_equal(source.pixels, before)


@pytest.mark.parametrize(
    ("size", "fraction", "box"),
    [
        ((375, 500), 0.875, (23, 31, 352, 469)),  # tf.image.central_crop: int((375 - 328.125) / 2) = 23
        ((100, 100), 0.5, (25, 25, 75, 75)),
        ((7, 3), 0.1, (3, 1, 4, 2)),
        ((1, 2), 0.01, (0, 0, 1, 2)),
        ((9, 9), 1.0, (0, 0, 9, 9)),
    ],
)
def test_crop_fraction_is_tensorflows(size, fraction, box) -> None:
    source = picture(*size)
    top, left, bottom, right = box
    prepared = Preprocess((224, 200), crop_fraction=fraction)(source)
    assert prepared.placement == Placement(size, (224, 200), tuple(map(float, box)))
    cut = Image.fromarray(source.pixels[top:bottom, left:right]).resize((200, 224), Image.Resampling.BILINEAR)
    assert np.array_equal((prepared.pixels * 255).round().byte().permute(1, 2, 0).numpy(), np.asarray(cut))


def test_padding_is_black_and_said() -> None:
    source = decode(np.full((10, 30, 3), 255, np.uint8))
    prepared = Preprocess(crop_px=(15, 20))(source)
    assert prepared.notes == ("picture of 10 x 30 px padded with black to the crop of 15 x 20 px",)
    assert prepared.placement.box == (-2.0, 5.0, 13.0, 25.0)
    white = (prepared.pixels[0] == 1).numpy()
    assert white[2:12].all() and not white[:2].any() and not white[12:].any()
    assert np.isfinite(prepared.placement.place(np.ones((3, 4)))[:, 5:25]).all()


def test_very_elongated_picture_is_cropped_without_making_it_whole(monkeypatch: pytest.MonkeyPatch) -> None:
    """The part kept equals the part of the whole, where the whole can still be made."""
    source = picture(4, 1200)
    assert Preprocess(120)(source).pixels.shape == (3, 120, 36000)
    normal = Preprocess(120, (60, 70))(source)
    monkeypatch.setattr(transforms, "_MOST_PX", 120 * 36000 - 1)
    sparing = Preprocess(120, (60, 70))(source)
    assert sparing.placement == normal.placement
    assert (sparing.pixels - normal.pixels).abs().max() <= 1.01 / 255
    with pytest.raises(ImageError, match=r"would make 120 x 36,000 px"):
        Preprocess(120)(source)


@pytest.mark.parametrize("method", [Image.Resampling.BILINEAR, Image.Resampling.LANCZOS], ids=str)
def test_the_part_equals_the_whole_before_rounding_to_8_bits(monkeypatch: pytest.MonkeyPatch, method) -> None:
    image = Image.fromarray(np.random.default_rng(0).random((4, 1200), dtype=np.float32))
    whole = np.asarray(image.resize((36000, 120), method))
    monkeypatch.setattr(transforms, "_MOST_PX", 1_000_000)
    part, window = transforms._resized_window(image, (120, 36000), (-7, 17965, 127, 18035), method)
    assert window == (-7, 0, 127, 70)
    np.testing.assert_allclose(np.asarray(part), whole[:, 17965:18035], rtol=0, atol=1e-5)


def test_elongated_beyond_any_memory() -> None:
    source = decode(np.full((1, 60000, 3), 200, np.uint8))
    prepared = Preprocess(256, 224)(source)
    assert prepared.pixels.shape == (3, 224, 224)
    assert torch.equal(prepared.pixels, torch.full((3, 224, 224), 200 / 255))
    assert np.isfinite(prepared.placement.place(np.ones((7, 7)))).sum() == 1
    with pytest.raises(ImageError, match=r"would make 256 x 15,360,000 px"):
        Preprocess(256)(source)


@settings(max_examples=80, deadline=None)
@given(
    st.integers(1, 60),
    st.integers(1, 60),
    st.none() | st.integers(1, 50) | st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.none() | st.integers(1, 50) | st.tuples(st.integers(1, 50), st.integers(1, 50)),
    st.none() | st.floats(0.05, 1),
    st.sampled_from([1, 3]),
)
def test_any_settings_give_a_placed_input(height, width, resize, crop, fraction, channels) -> None:
    preprocess = Preprocess(resize, crop, channels=channels, crop_fraction=fraction)
    prepared = preprocess(picture(height, width))
    placement = prepared.placement
    assert prepared.pixels.shape == (channels, *placement.input_px)
    assert prepared.pixels.min() >= 0 and prepared.pixels.max() <= 1
    assert preprocess.input_size_px in (None, placement.input_px)
    assert placement.place(np.ones(placement.input_px)).shape == (height, width)
    top, left, bottom, right = placement.box
    assert abs((top + bottom) - height) <= 2 + 2 * (bottom - top) / placement.input_px[0]  # central but for rounding
    assert abs((left + right) - width) <= 2 + 2 * (right - left) / placement.input_px[1]


@settings(max_examples=50, deadline=None)
@given(
    st.lists(st.floats(-2, 2), min_size=3, max_size=3),
    st.lists(st.floats(0.01, 10), min_size=3, max_size=3),
    st.sampled_from([(3, 4, 5), (2, 3, 4, 5), (2, 2, 3, 1, 1)]),
)
def test_denormalise_undoes_normalise(mean, std, shape) -> None:
    preprocess = Preprocess(mean=tuple(mean), std=tuple(std))
    pixels = torch.rand(shape, dtype=torch.float64)
    there = preprocess.normalise(pixels)
    assert there.dtype == torch.float64
    torch.testing.assert_close(preprocess.denormalise(there), pixels, rtol=0, atol=1e-14)
    torch.testing.assert_close(preprocess.normalise(preprocess.denormalise(pixels)), pixels, rtol=0, atol=1e-12)
    for channel in range(3):
        wanted = (pixels.select(-3, channel) - mean[channel]) / std[channel]
        torch.testing.assert_close(there.select(-3, channel), wanted, rtol=1e-15, atol=0)


def test_normalise_carries_gradients_and_half_precision() -> None:
    preprocess = Preprocess(mean=MEAN, std=STD)
    pixels = torch.rand(1, 3, 2, 2, requires_grad=True)
    preprocess.normalise(pixels).sum().backward()
    torch.testing.assert_close(pixels.grad[0, :, 0, 0], 1 / torch.tensor(STD))
    for dtype in (torch.float16, torch.bfloat16):
        assert preprocess.normalise(torch.rand(3, 2, 2, dtype=dtype)).dtype == dtype


@pytest.mark.parametrize("shape", [(4, 5), (1, 5, 5), (2, 4, 5, 5)])
def test_normalise_wants_its_channels(shape, unchecked) -> None:
    for call in (unchecked.Preprocess().normalise, unchecked.Preprocess().denormalise):
        with pytest.raises(SettingError, match=r"expected floats of shape \(…, 3, h, w\)"):
            call(torch.zeros(shape))
    with pytest.raises(SettingError, match=r"torch\.uint8"):
        unchecked.Preprocess().normalise(torch.zeros(3, 4, 4, dtype=torch.uint8))


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({"resize_px": 0}, "resize_px"),
        ({"resize_px": -256}, "resize_px"),
        ({"resize_px": (3, -1)}, "resize_px"),
        ({"resize_px": (1, 2, 3)}, "resize_px"),
        ({"resize_px": ()}, "resize_px"),
        ({"resize_px": 224.0}, "resize_px"),
        ({"resize_px": "224"}, "resize_px"),
        ({"resize_px": True}, "resize_px"),
        ({"crop_px": 0}, "crop_px"),
        ({"crop_px": 10**6}, "crop_px"),
        ({"crop_px": (10**5, 10**4)}, "crop_px"),
        ({"mean": (0.5,)}, "mean has one number a channel"),
        ({"mean": 0.5}, "mean"),
        ({"mean": "abc"}, "mean"),
        ({"mean": ("a", "b", "c")}, "mean"),
        ({"mean": (0, float("nan"), 0)}, "finite"),
        ({"std": (1.0,) * 4}, "std"),
        ({"std": (1.0, 0.0, 1.0)}, "std must be above 0"),
        ({"std": (1.0, -1.0, 1.0)}, "std must be above 0"),
        ({"std": (float("inf"),) * 3}, "finite"),
        ({"channels": 2}, "channels"),
        ({"channels": 3.0}, "channels"),
        ({"channels": 1, "mean": MEAN}, "mean"),
        ({"interpolation": "linear"}, "no interpolation"),
        ({"interpolation": None}, "no interpolation"),
        ({"crop_fraction": 0.0}, "crop_fraction"),
        ({"crop_fraction": 1.01}, "crop_fraction"),
        ({"crop_fraction": -0.5}, "crop_fraction"),
        ({"crop_fraction": float("nan")}, "crop_fraction"),
        ({"crop_fraction": "half"}, "crop_fraction"),
    ],
    ids=str,
)
def test_nonsense_settings(settings, word, unchecked) -> None:
    with pytest.raises(SettingError, match=word):
        unchecked.Preprocess(**settings)


def test_lists_are_taken_as_libraries_give_them(unchecked) -> None:
    given = unchecked.Preprocess([256], [224, 200], list(MEAN), np.array(STD))
    assert (given.resize_px, given.crop_px, given.mean, given.std) == (256, (224, 200), MEAN, STD)
    assert hash(given) == hash(unchecked.Preprocess(256, (224, 200), MEAN, STD))


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(),
        Preprocess(256, 224, MEAN, STD, interpolation="bicubic"),
        Preprocess((64, 48), None, channels=1, crop_fraction=0.875),
    ],
    ids=str,
)
def test_json_round_trip(preprocess: Preprocess) -> None:
    assert Preprocess.from_json(json.loads(json.dumps(preprocess.to_json()))) == preprocess


def test_json_of_something_else() -> None:
    with pytest.raises(SettingError, match="unknown preprocessing setting size; there are resize_px"):
        Preprocess.from_json({"size": 3})
