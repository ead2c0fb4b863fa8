"""Explanation and Panel: raw values kept, placed where the network looked, saved whole."""

import dataclasses
import os

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.core.errors import FileError, SettingError
from pellucid.images.decode import Picture
from pellucid.images.transforms import Placement
from pellucid.render import Explanation, Panel
from pellucid.render.colours import DIVERGING, NAN_COLOURS, NEUTRAL
from pellucid.store.files import write_tensors
from render_examples import bump, explanation, picture, signed_explanation


def test_attribution_is_never_rescaled_and_the_value_is_frozen():
    values = torch.randn(3, 7, 5)
    one = explanation(values.numpy(), reduce="sum", site="input", signed=True)
    assert torch.equal(one.attribution, values)
    np.testing.assert_array_equal(one.native, values.sum(0).numpy())
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.attribution = values
    with pytest.raises(ValueError, match="read-only"):
        one.heat[0, 0] = 1
    with pytest.raises(ValueError, match="read-only"):
        one.native[0, 0] = 1


@pytest.mark.parametrize(
    ("reduce", "expected"),
    [
        ("sum", lambda a: a.sum(0)),
        ("max_abs", lambda a: np.abs(a).max(0)),
        ("sum_abs", lambda a: np.abs(a).sum(0)),
    ],
)
def test_channels_become_heat_as_stated(reduce, expected):
    values = np.random.randn(3, 6, 6).astype(np.float32)
    one = explanation(values, reduce=reduce, site="input", signed=reduce == "sum")
    np.testing.assert_allclose(one.native, expected(values), rtol=1e-6)


@pytest.mark.parametrize("reduce", ["none", "max_abs"])
def test_one_channel(reduce):
    values = np.random.rand(1, 4, 4).astype(np.float32)
    np.testing.assert_array_equal(explanation(values, reduce=reduce, site="input").native, values[0])


def test_heat_lies_where_the_crop_was():
    heat = np.arange(16, dtype=np.float32).reshape(4, 4)
    one = explanation(heat, crop=True)
    assert one.heat.shape == (60, 90)
    assert np.isnan(one.heat[:, :15]).all()
    assert np.isnan(one.heat[:, 75:]).all()
    assert np.isfinite(one.heat[:, 15:75]).all()
    native = one.placed(native=True)
    np.testing.assert_array_equal(native[7::15, 22:75:15], heat)


def test_a_smaller_drawing_shows_the_same_heat():
    one = signed_explanation(picture=picture(400, 600))
    small = one.placed(150)
    assert small.shape == (100, 150)
    np.testing.assert_allclose(small[50, 75], one.heat[202, 302], atol=0.02)
    assert np.isnan(small).mean() == pytest.approx(1 / 3, abs=0.01)


def test_limits_are_symmetric_for_signed_heat_only():
    low, high = signed_explanation().limits()
    assert -low == high == np.percentile(np.abs(signed_explanation().native), 98)
    assert explanation().limits(100) == (0.0, explanation().native.max())


def test_negative_values_of_an_unsigned_method_are_not_hidden():
    one = explanation(-bump(8, 0.5, 0.5), signed=False)
    assert one.diverging
    assert (np.asarray(one.picture_heat())[30, 45] == DIVERGING[0, :3]).all()


def test_overlay_keeps_the_size_and_the_picture_where_heat_is_zero():
    heat = np.zeros((6, 6), np.float32)
    heat[0, 0] = 5
    one = explanation(heat)
    mixed, before = np.asarray(one.overlay(native=True)), one.picture.pixels
    changed = (mixed != before).any(-1)
    assert changed[:10, :15].all()
    assert not changed[10:].any()
    assert not changed[:, 15:].any()
    assert one.overlay(longest_px=45).size == (45, 30)


def test_heat_alone_is_neutral_at_zero_and_hatched_outside():
    alone = np.asarray(signed_explanation().picture_heat())
    assert np.abs(alone[2, 70].astype(int) - NEUTRAL).max() <= 2
    assert {tuple(map(int, c)) for c in alone[:, :15].reshape(-1, 3)} == set(NAN_COLOURS)


@pytest.mark.parametrize(("sign", "at_centre", "at_corner"), [
    ("positive", True, False), ("negative", False, True), ("absolute", True, True), ("all", True, True),
])  # fmt: skip
def test_sign_chooses_the_part(sign, at_centre, at_corner):
    one = signed_explanation()
    changed = (np.asarray(one.overlay(sign=sign)) != one.picture.pixels).any(-1)
    assert changed[30, 45] == at_centre
    assert changed[54, 21] == at_corner


@pytest.mark.parametrize("heat", [np.zeros((8, 8)), np.full((8, 8), np.nan), np.full((1, 1), 3.0)])
def test_degenerate_heat_is_drawn(heat):
    one = explanation(heat, signed=True)
    assert one.overlay().size == one.picture_heat().size == (90, 60)
    assert one.limits()[1] in (0.0, 3.0)
    assert "<img" in one._repr_html_()


def test_a_large_picture():
    one = signed_explanation(picture=Picture(np.zeros((2848, 4288, 3), np.uint8), "large.jpg"))
    assert one.overlay().size == (4288, 2848)
    assert one.overlay(longest_px=256).size == (256, 170)


def test_a_tiny_picture_with_a_finer_grid():
    one = explanation(bump(32, 0.5, 0.5), picture=picture(8, 8))
    assert one.heat.shape == (8, 8)
    assert one.overlay().size == (8, 8)


def same(a, b):
    assert a.attribution.dtype == b.attribution.dtype
    assert a.attribution.numpy().tobytes() == b.attribution.numpy().tobytes()
    np.testing.assert_array_equal(a.picture.pixels, b.picture.pixels)
    for field in dataclasses.fields(Explanation):
        if field.name not in ("attribution", "picture"):
            assert getattr(a, field.name) == getattr(b, field.name), field.name
    assert (a.picture.name, a.picture.notes) == (b.picture.name, b.picture.notes)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_a_saved_explanation_comes_back_bit_for_bit(tmp_path, dtype):
    values = torch.randn(3, 9, 11, dtype=dtype)
    values[0, 0, 0], values[1, 1, 1] = float("nan"), -0.0
    shown = Picture(picture().pixels, "süß </script>.png", ("first of 2 frames",))
    one = explanation(crop=True, reduce="sum", site="input", signed=True, picture=shown)
    one = dataclasses.replace(one, attribution=values)
    path = one.save(tmp_path / "one.pel")
    same(one, Explanation.open(path))
    np.testing.assert_array_equal(Explanation.open(path).heat, one.heat)


def test_png_and_npy(tmp_path):
    one = signed_explanation()
    with Image.open(one.save(tmp_path / "one.png")) as shown:
        np.testing.assert_array_equal(np.asarray(shown), np.asarray(one.overlay()))
        assert shown.text["Description"] == one.sentence()
    np.testing.assert_array_equal(np.load(one.save(tmp_path / "one.npy")), one.heat)
    with pytest.raises(FileError, match=r"\.pel, \.png, \.npy or \.csv"):
        one.save(tmp_path / "one.jpg")
    with pytest.raises(FileError, match="overwrite=True"):
        one.save(tmp_path / "one.npy", overwrite=False)


def test_a_failing_save_leaves_nothing(tmp_path, monkeypatch):
    one = explanation()
    one.save(tmp_path / "one.png")
    before = (tmp_path / "one.png").read_bytes()

    def broken(self, file, *_, **__):
        file.write(b"half")
        raise OSError("disk gone")

    monkeypatch.setattr(Image.Image, "save", broken)
    with pytest.raises(FileError, match="disk gone"):
        one.save(tmp_path / "one.png")
    assert (tmp_path / "one.png").read_bytes() == before
    assert os.listdir(tmp_path) == ["one.png"]


def facts_of(path):
    from pellucid.store.files import read_tensors

    return read_tensors(path)


@pytest.mark.parametrize(("name", "change"), [
    ("kind", "study"), ("format", 99), ("format", "1"), ("site", "moon"), ("reduce", "none "), ("placement", {}),
    ("placement", {"original_px": [10**6, 10**6], "input_px": [1, 1], "box": [0, 0, 1, 1]}),
    ("placement", {"original_px": [60, 90], "input_px": [1, 1], "box": [0, 0, "nan", 1]}),
    ("predictions", [{"label": "x"}]), ("receipt", None), ("picture", 3), ("score", "high"), ("settings", 5),
])  # fmt: skip
def test_damaged_records_are_refused(tmp_path, name, change):
    tensors, facts = facts_of(explanation().save(tmp_path / "one.pel"))
    path = write_tensors(tmp_path / "bad.pel", tensors, facts | {name: change})
    with pytest.raises(FileError, match=r"bad\.pel"):
        Explanation.open(path)


@pytest.mark.parametrize(("name", "tensor"), [
    ("pixels", torch.zeros(60, 90, 3)), ("pixels", torch.zeros(60, 90, 4, dtype=torch.uint8)),
    ("pixels", torch.zeros(0, 90, 3, dtype=torch.uint8)), ("attribution", torch.zeros(2, 2, dtype=torch.int64)),
    ("attribution", torch.zeros(2, 2, 2, 2)), ("attribution", torch.zeros(0, 2)), ("attribution", torch.zeros(5, 2, 2)),
])  # fmt: skip
def test_damaged_tensors_are_refused(tmp_path, name, tensor):
    tensors, facts = facts_of(explanation().save(tmp_path / "one.pel"))
    path = write_tensors(tmp_path / "bad.pel", tensors | {name: tensor}, facts)
    with pytest.raises(FileError, match=r"bad\.pel"):
        Explanation.open(path)


@pytest.mark.parametrize(("facts", "word"), [
    ({"heat": np.zeros((2, 3, 4, 5))}, "expected"), ({"heat": np.zeros((3, 4, 4))}, "max_abs"),
    ({"placement": Placement.identity(5, 5)}, "preprocessing"),
])  # fmt: skip
def test_values_that_do_not_fit_together_are_refused(facts, word):
    with pytest.raises(SettingError, match=word):
        explanation(**facts)


def test_plot_draws_into_given_axes():
    matplotlib = pytest.importorskip("matplotlib")
    matplotlib.use("Agg")
    from matplotlib.figure import Figure

    axes = Figure().subplots()
    one = signed_explanation()
    assert one.plot(axes) is axes
    assert axes.get_images()[0].get_extent() == [0, 90, 60, 0]
    bar = axes.figure.axes[1]
    assert bar.get_ylabel() == "logit"
    assert bar.get_ylim() == pytest.approx(one.limits())


def test_repr_and_notebook_are_short_and_safe():
    one = explanation(target="<b>x</b>")
    assert repr(one).startswith("Explanation('grad_cam'")
    assert len(repr(one)) < 250
    html = one._repr_html_()
    assert "<b>" not in html
    assert "<script" not in html
    assert len(html) < 200_000


def test_panel_is_a_sequence_that_stacks():
    panel = Panel([explanation(), explanation(target="logit of 282 tiger cat"), signed_explanation()])
    assert len(panel) == 3
    assert isinstance(panel[:2], Panel)
    assert panel[:2].attribution.shape == (2, 8, 8)
    assert panel[-1].method == "lrp"
    with pytest.raises(SettingError, match="one by one"):
        panel.attribution  # noqa: B018
    assert repr(panel) == "Panel(3 explanations: grad_cam, lrp; targets: 2, images: 1)"
    assert panel._repr_html_().count("<img") == 3


def test_grid_has_a_row_for_each_target_and_a_column_for_each_method():
    one, other = explanation(), signed_explanation()
    row = Panel([one, other]).grid(100)
    both = Panel([one, other, dataclasses.replace(one, target="x\ny" * 90)]).grid(100)
    assert row.width == both.width > 200
    assert both.height == pytest.approx(2 * row.height, abs=20)


def test_panel_saves_all_or_nothing(tmp_path):
    panel = Panel([explanation(picture=picture(name="../../a b.png")), signed_explanation(target="x/../y")])
    files = panel.save(tmp_path / "out")
    assert sorted(path.name for path in files) == sorted(os.listdir(tmp_path / "out"))
    assert len(files) == 5
    same(panel[0], Explanation.open(files[1]))
    with pytest.raises(FileError, match="overwrite=True"):
        panel.save(tmp_path / "out")
    assert panel.save(tmp_path / "out", overwrite=True) == files
    broken = Panel([explanation(), explanation(settings={"model": object()})])
    with pytest.raises(FileError):
        broken.save(tmp_path / "other")
    with pytest.raises(SettingError, match="nothing to report"):
        Panel([]).save(tmp_path / "none")
    assert os.listdir(tmp_path) == ["out"]
