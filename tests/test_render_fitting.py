"""Pictures at a size to look at, panels in rows, bars with names."""

import numpy as np
import pytest
from PIL import Image

from pellucid.render.bar_chart import bar_chart
from pellucid.render.bars import COLD, WARM
from pellucid.render.fitting import fitted
from pellucid.render.paint import number, plain
from pellucid.render.sheet import in_rows


def noise(width, height):
    return Image.fromarray(np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8))


def colours(image):
    return {colour for _, colour in image.getcolors(1 << 24)}


@pytest.mark.parametrize("size", [(5, 3), (1, 40), (32, 32), (50, 20)])
def test_a_small_picture_is_repeated_by_a_whole_number(size):
    image = noise(*size)
    large = fitted(image, 100)
    times = 100 // max(size)
    assert large.size == (size[0] * times, size[1] * times)
    assert np.array_equal(np.asarray(large), np.asarray(image).repeat(times, 0).repeat(times, 1))


@pytest.mark.parametrize("size", [(7, 3), (60, 45), (99, 100), (300, 170)])
def test_an_exact_size_is_kept_to(size):
    large = fitted(noise(*size), 100, exact=True)
    assert max(large.size) == 100
    assert abs(large.width * size[1] / (large.height * size[0]) - 1) < 0.02


def test_large_pictures_are_shrunk_and_thin_ones_keep_a_pixel():
    assert fitted(noise(1000, 3), 50).size == (50, 1)
    assert fitted(noise(1000, 3), 50, least_px=6).size == (50, 6)
    assert fitted(Image.new("RGB", (90, 60), "red"), 30).getpixel((29, 19)) == (255, 0, 0)


@pytest.mark.parametrize("size", [(10, 10), (60, 45), (100, 1)])
def test_colours_of_a_map_are_never_mixed_where_it_is_enlarged(size):
    image = noise(*size)
    assert colours(fitted(image, 100, cells=True)) == colours(image)
    assert colours(fitted(image, 100, cells=True, exact=True)) <= colours(image)


def test_colours_of_a_map_do_not_ring_where_it_shrinks():
    half = Image.fromarray(np.repeat([[[200], [100]]], 100, 1).repeat(200, 0).repeat(3, 2).astype(np.uint8))
    small = np.asarray(fitted(half.resize((201, 201), Image.Resampling.NEAREST), 67, cells=True))
    assert small.min() >= 100 and small.max() <= 200


def test_other_modes_become_colours():
    assert fitted(Image.new("P", (4, 4)), 8).mode == fitted(Image.new("RGBA", (9, 9)), 4).mode == "RGB"


def test_panels_in_rows():
    panels = [(noise(2, 2), [str(i)]) for i in range(7)]
    assert [len(row) for row in in_rows(panels, 3)] == [3, 3, 1]
    assert [panel for row in in_rows(panels, 3) for panel in row] == panels
    assert in_rows([], 3) == []


def test_numbers_in_letters_that_can_be_drawn():
    assert plain(-0.028456) == "-0.0285" and number(-0.028456) == "−0.0285"
    assert plain(float("nan")) == "nan" and plain(12345.0) == "1.23e+04"


def lengths(image, colour):
    return (np.asarray(image) == colour).all(2).sum(1)


def test_bars_are_as_long_as_their_values():
    drawn = bar_chart(["a", "b", "c"], [4.0, -2.0, 1.0])
    warm, cold = lengths(drawn, WARM), lengths(drawn, COLD)
    tall = sorted(set(warm[warm > 0].tolist()))
    assert len(tall) == 2 and tall[1] / tall[0] == pytest.approx(4, rel=0.05)
    assert cold.max() / tall[1] == pytest.approx(0.5, rel=0.05)


@pytest.mark.parametrize("values", [[], [0.0, 0.0], [float("nan"), 1.0], [-1.0, float("inf")], [1e-30, 1e30]])
def test_bars_of_anything(values):
    plainly = bar_chart([str(v) for v in values], values)
    full = bar_chart([str(v) for v in values], values, title="title " * 40, errors=[v / 3 for v in values], units="s")
    assert full.height > plainly.height


def test_whiskers_are_within_the_picture():
    drawn = bar_chart(["x" * 80, "y"], [1.0, -1.0], errors=[3.0, float("nan")])
    assert (np.asarray(drawn)[:, -1] == 255).all()
    titled = bar_chart(["x" * 80, "y"], [1.0, -1.0], title="t", errors=[3.0, float("nan")])
    assert (np.asarray(titled)[:, [0, -1]] == 255).all()


def test_the_side_of_a_number_does_not_hang_on_what_is_missing():
    nan = float("nan")
    assert bar_chart(["a", "b"], [nan, -1.0]).width == bar_chart(["a", "b"], [-1.0, nan]).width
