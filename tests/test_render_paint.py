"""Laws of the colours: zero is neutral, lightness tells the size, colour blindness does not hide the sign."""

import inspect

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from PIL import Image

from pellucid.core.errors import SettingError
from pellucid.render import paint
from pellucid.render.colours import DIVERGING, NAN_COLOURS, NEUTRAL, SEQUENTIAL, STEPS

# Vienot, Brettel & Mollon 1999 (protan, deutan): linear RGB as seen without long or middle cones
PROTAN = np.array([[0.11238, 0.88762, 0.0], [0.11238, 0.88762, 0.0], [0.00401, -0.00401, 1.0]])
DEUTAN = np.array([[0.29275, 0.70725, 0.0], [0.29275, 0.70725, 0.0], [-0.02234, 0.02234, 1.0]])
# Machado, Oliveira & Fernandes 2009, severity 1
TRITAN = np.array([[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]])
XYZ = np.array(
    [[0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]]
)
HEATS = arrays.arrays(np.float32, (5, 4), elements=st.floats(-1e6, 1e6, width=32))


def linear(rgb):
    part = np.asarray(rgb, float)[..., :3] / 255
    return np.where(part <= 0.04045, part / 12.92, ((part + 0.055) / 1.055) ** 2.4)


def lab(rgb_linear):
    """CIELAB (D65): an independent yardstick, as the maps are made in OKLab."""
    xyz = np.clip(rgb_linear, 0, 1) @ XYZ.T / np.array([0.95047, 1.0, 1.08883])
    f = np.where(xyz > (6 / 29) ** 3, np.cbrt(xyz), xyz / (3 * (6 / 29) ** 2) + 4 / 29)
    return np.stack([116 * f[..., 1] - 16, 500 * (f[..., 0] - f[..., 1]), 200 * (f[..., 1] - f[..., 2])], axis=-1)


def test_zero_is_the_neutral_colour_and_transparent():
    zero = np.zeros((2, 3), np.float32)
    for diverging in (True, False):
        colours = paint.rgba(zero, 1.0, diverging)
        assert (colours == (*NEUTRAL, 0)).all()
    assert max(NEUTRAL) - min(NEUTRAL) <= 6


def test_diverging_map_is_equally_light_on_both_sides():
    lightness = lab(linear(DIVERGING))[:, 0]
    assert np.abs(lightness - lightness[::-1]).max() < 5
    assert (np.diff(lightness[: STEPS + 1]) > -0.5).all()
    assert (DIVERGING[:, 3] == DIVERGING[::-1, 3]).all()


def test_sequential_map_darkens_steadily():
    lightness = lab(linear(SEQUENTIAL))[:, 0]
    assert (np.diff(lightness[::8]) < 0).all()
    assert lightness[0] - lightness[-1] > 60


def test_no_two_neighbours_jump():
    for table in (DIVERGING, SEQUENTIAL):
        steps = np.linalg.norm(np.diff(lab(linear(table)), axis=0), axis=1)
        assert steps.max() < 3


@pytest.mark.parametrize("seen", [np.eye(3), PROTAN, DEUTAN, TRITAN], ids=["all", "protan", "deutan", "tritan"])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_the_sign_is_seen_with_every_kind_of_colour_blindness(seen, share):
    k = round(share * STEPS)
    negative, positive = (lab(linear(DIVERGING[STEPS + side * k]) @ seen.T) for side in (-1, 1))
    assert np.linalg.norm(negative - positive) > 25


@given(HEATS)
def test_turning_the_sign_mirrors_the_colours(heat):
    end = paint.limit(heat)
    table = {tuple(colour): i for i, colour in enumerate(DIVERGING[:, :3].tolist())}
    there = np.vectorize(lambda *c: table[c])(*np.moveaxis(paint.rgba(heat, end, True)[..., :3], -1, 0))
    back = np.vectorize(lambda *c: table[c])(*np.moveaxis(paint.rgba(-heat, end, True)[..., :3], -1, 0))
    assert (np.abs(there + back - 2 * STEPS) <= 2).all()


@given(HEATS)
def test_the_parts_add_up(heat):
    positive, negative = paint.signed_part(heat, "positive"), paint.signed_part(heat, "negative")
    np.testing.assert_array_equal(positive + negative, paint.signed_part(heat, "all"))
    np.testing.assert_array_equal(positive - negative, paint.signed_part(heat, "absolute"))


def test_limit_is_the_stated_percentile_without_missing_values():
    heat = np.arange(-50, 51, dtype=np.float32)
    assert paint.limit(heat, 98) == np.percentile(np.abs(heat), 98)
    assert paint.limit(np.append(heat, [np.nan, np.inf]), 98) == paint.limit(heat, 98)
    assert paint.limit(heat, 100) == 50


def test_a_single_spike_still_has_a_limit():
    heat = np.zeros((30, 30), np.float32)
    heat[3, 4] = -7
    assert paint.limit(heat, 98) == 7
    assert (paint.rgba(heat, 7.0, True)[3, 4, :3] == DIVERGING[0, :3]).all()


@pytest.mark.parametrize("heat", [np.zeros((3, 3), np.float32), np.full((3, 3), np.nan, np.float32)])
def test_nothing_to_show_is_no_error(heat):
    assert paint.limit(heat) == 0.0
    assert paint.rgba(heat, 0.0, True).shape == (3, 3, 4)


@pytest.mark.parametrize("value", [1e-44, 3e38])
def test_very_small_and_very_large_values(value):
    heat = np.array([[value, -value, 0]], np.float32)
    colours = paint.rgba(heat, paint.limit(heat, 100), True)[0, :, :3]
    np.testing.assert_array_equal(colours, DIVERGING[[-1, 0, STEPS], :3])


def test_missing_values_are_hatched_in_greys_that_no_heat_has():
    heat = np.full((96, 96), np.nan, np.float32)
    heat[0, 0] = np.inf
    colours = {tuple(map(int, c)) for c in paint.rgba(heat, 1.0, True)[..., :3].reshape(-1, 3)}
    assert colours == set(NAN_COLOURS)
    for table in (DIVERGING, SEQUENTIAL):
        assert not colours & set(map(tuple, table[:, :3].tolist()))


def test_blend_leaves_the_picture_where_the_heat_is_zero():
    picture = Image.effect_noise((7, 5), 80).convert("RGB")
    heat = np.zeros((5, 7), np.float32)
    heat[2, 3] = 1
    mixed = np.asarray(paint.blend(picture, heat, 1.0, True, 0.5)).astype(int)
    before = np.asarray(picture).astype(int)
    assert (np.delete(mixed.reshape(-1, 3), 17, 0) == np.delete(before.reshape(-1, 3), 17, 0)).all()
    assert np.abs(mixed[2, 3] - (before[2, 3] + DIVERGING[-1, :3]) / 2).max() <= 1.5
    assert (np.asarray(paint.blend(picture, heat, 1.0, True, 0.0)) == before).all()


@pytest.mark.parametrize(
    ("sign", "diverging", "expected"),
    [
        ("all", True, (-2, 2)),
        ("positive", True, (0, 2)),
        ("negative", True, (-2, 0)),
        ("absolute", True, (0, 2)),
        ("all", False, (0, 2)),
    ],
)
def test_colour_bar_ends_where_its_numbers_say(sign, diverging, expected):
    assert paint.ends(2.0, diverging, sign) == expected
    row = paint.strip(diverging, sign)[0]
    zero = row[0] if expected[0] == 0 else row[-1] if expected[1] == 0 else row[STEPS]
    assert tuple(zero) == NEUTRAL
    bar = np.asarray(paint.colour_bar(2.0, diverging, sign, width_px=200))
    assert bar.shape[1] == 200
    assert (bar[16:] < 128).any(axis=-1).sum() > 10


NOTHING = np.zeros((1, 1), np.float32)


@pytest.mark.parametrize(("call", "word"), [
    (lambda: inspect.unwrap(paint.signed_part)(NOTHING, "both"), "positive"),  # unwrapped: beartype sees it first
    (lambda: paint.limit(NOTHING, 0), "percentile"),
    (lambda: paint.limit(NOTHING, 101), "98"),
    (lambda: paint.blend(Image.new("RGB", (1, 1)), NOTHING, 1.0, True, 1.5), "opacity"),
])  # fmt: skip
def test_settings_out_of_range_are_refused_in_words(call, word):
    with pytest.raises(SettingError, match=word):
        call()
