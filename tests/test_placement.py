"""Heat maps land where the network looked: oracles, laws, and torch's interpolation as a second opinion."""

import json

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn import functional

from pellucid.core.errors import SettingError
from pellucid.images import Placement, Preprocess, decode

SIDES = st.integers(1, 24)
EDGES = st.tuples(st.floats(-8, 20), st.floats(0.3, 40)).map(lambda e: (e[0], e[0] + e[1]))


@st.composite
def placements(draw) -> Placement:
    (top, bottom), (left, right) = draw(EDGES), draw(EDGES)
    return Placement((draw(SIDES), draw(SIDES)), (draw(SIDES), draw(SIDES)), (top, left, bottom, right))


def slow_place(placement: Placement, heat: np.ndarray, smooth: bool) -> np.ndarray:
    """The definition, pixel by pixel: a triangle between cell centres (wider where cells are finer), or the cell."""
    height, width = placement.original_px
    top, left, bottom, right = placement.box
    a, b = heat.shape
    out = np.full((height, width), np.nan)
    for i in range(height):
        for j in range(width):
            y, x = i + 0.5, j + 0.5
            if not (top <= y < bottom and left <= x < right):
                continue
            u, v = (y - top) * a / (bottom - top), (x - left) * b / (right - left)
            if not smooth:
                out[i, j] = heat[min(int(u), a - 1), min(int(v), b - 1)]
                continue
            rows, columns = slow_weights(u, a, bottom - top), slow_weights(v, b, right - left)
            out[i, j] = sum(rows[k] * columns[m] * heat[k, m] for k in range(a) for m in range(b))
    return out


def slow_weights(u: float, cells: int, length: float) -> list[float]:
    reach = max(1.0, cells / length)
    u = min(max(u, 0.5), cells - 0.5)
    raw = [max(0.0, 1 - abs(k + 0.5 - u) / reach) for k in range(cells)]
    return [w / sum(raw) for w in raw]


def heat_of(a: int, b: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(size=(a, b))


@settings(max_examples=150, deadline=None)
@given(placements(), SIDES, SIDES, st.booleans())
def test_equals_the_slow_definition(placement: Placement, a: int, b: int, smooth: bool) -> None:
    heat = heat_of(a, b)
    wanted, found = slow_place(placement, heat, smooth), placement.place(heat, smooth)
    if np.isnan(wanted).all():  # no pixel centre inside: the nearest pixel shows it
        assert np.isfinite(found).sum() >= 1
        return
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, wanted, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("smooth", [True, False])
@pytest.mark.parametrize("size", [(1, 1), (7, 5), (224, 225), (3, 1000), (1021, 997)], ids=str)
def test_identity_returns_the_heat_itself(size: tuple[int, int], smooth: bool) -> None:
    heat = heat_of(*size).astype(np.float32)
    heat[0, 0] = 1e30
    assert np.array_equal(Placement.identity(*size).place(heat, smooth), heat)


@settings(max_examples=100, deadline=None)
@given(placements(), SIDES, SIDES, st.booleans(), st.floats(-1e6, 1e6, width=32))
def test_constants_stay_constant(placement: Placement, a: int, b: int, smooth: bool, value: float) -> None:
    placed = placement.place(np.full((a, b), value), smooth)
    assert (placed[np.isfinite(placed)] == np.float32(value)).all()


@settings(max_examples=100, deadline=None)
@given(placements(), SIDES, SIDES, st.booleans(), st.floats(-3, 3), st.floats(-3, 3))
def test_linear(placement: Placement, a: int, b: int, smooth: bool, p: float, q: float) -> None:
    one, other = heat_of(a, b, 1), heat_of(a, b, 2)
    together = placement.place(p * one + q * other, smooth)
    np.testing.assert_allclose(
        together, p * placement.place(one, smooth) + q * placement.place(other, smooth), rtol=1e-5, atol=1e-5
    )


@settings(max_examples=100, deadline=None)
@given(placements(), SIDES, SIDES, st.booleans())
def test_stays_within_the_range_of_the_heat(placement: Placement, a: int, b: int, smooth: bool) -> None:
    heat = heat_of(a, b)
    placed = placement.place(heat, smooth)
    assert np.nanmin(placed) >= heat.min() - 1e-6 and np.nanmax(placed) <= heat.max() + 1e-6


@pytest.mark.parametrize("scale", [1, 2, 3, 7, 32])
def test_agrees_with_torch_for_integer_scales(scale: int) -> None:
    heat = heat_of(7, 5)
    tensor = torch.from_numpy(heat)[None, None]
    placement = Placement((7 * scale, 5 * scale), (224, 224), (0.0, 0.0, 7.0 * scale, 5.0 * scale))
    smooth = functional.interpolate(tensor, scale_factor=scale, mode="bilinear", align_corners=False)[0, 0]
    np.testing.assert_allclose(placement.place(heat), smooth.numpy(), rtol=1e-6, atol=1e-6)
    blocks = functional.interpolate(tensor, scale_factor=scale, mode="nearest")[0, 0]
    assert np.array_equal(placement.place(heat, smooth=False), blocks.numpy().astype(np.float32))


@pytest.mark.parametrize("size", [(375, 500), (100, 31), (8, 8)], ids=str)
def test_agrees_with_torch_for_any_scale(size: tuple[int, int]) -> None:
    """Larger: plain bilinear; smaller: averaged, as torch's antialias."""
    heat = heat_of(56, 28)
    placement = Placement(size, (224, 224), (0.0, 0.0, float(size[0]), float(size[1])))
    wanted = functional.interpolate(torch.from_numpy(heat)[None, None], size=size, mode="bilinear", antialias=True)
    np.testing.assert_allclose(placement.place(heat), wanted[0, 0].numpy(), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("size", [(300, 400), (401, 299), (225, 224)], ids=str)
def test_a_crop_lands_exactly_where_it_was(size: tuple[int, int]) -> None:
    """Without resizing, heat on the input's own grid is the crop's own pixels: the picture comes back."""
    source = decode(np.random.default_rng(1).integers(0, 256, (*size, 3), dtype=np.uint8))
    prepared = Preprocess(crop_px=224)(source)
    red = prepared.pixels[0].numpy()
    for smooth in (True, False):
        placed = prepared.placement.place(red, smooth)
        inside = np.isfinite(placed)
        assert inside.sum() == 224 * 224
        assert np.array_equal(np.rint(placed[inside] * 255), source.pixels[:, :, 0][inside])


@pytest.mark.parametrize("size", [(375, 500), (500, 333), (900, 240), (64, 64), (50, 400)], ids=str)
@pytest.mark.parametrize("preprocess", [Preprocess(256, 224), Preprocess((128, 128), crop_fraction=0.875)], ids=str)
def test_a_spot_lands_where_it_was(size: tuple[int, int], preprocess: Preprocess) -> None:
    """A bright spot in the picture, seen by the network, is laid back within a pixel of itself."""
    height, width = size
    step = min(size) // 10
    for y, x in ((height // 2, width // 2), (height // 2 - step, width // 2 + step)):
        rows, columns = np.mgrid[:height, :width] + 0.5
        spot = np.exp(-((rows - y) ** 2 + (columns - x) ** 2) / (2 * 3.0**2))
        prepared = preprocess(decode(spot))
        placed = np.nan_to_num(prepared.placement.place(prepared.pixels[0].numpy()))
        found = np.array([(placed * rows).sum(), (placed * columns).sum()]) / placed.sum()
        assert np.abs(found - (y, x)).max() < 0.25


def test_nan_exactly_outside_the_box() -> None:
    placement = Preprocess(256, 224)(decode(np.zeros((375, 500, 3), np.uint8))).placement
    placed = placement.place(np.ones((7, 7)))
    top, left, bottom, right = placement.box
    rows, columns = np.mgrid[:375, :500] + 0.5
    inside = (rows >= top) & (rows < bottom) & (columns >= left) & (columns < right)
    assert np.array_equal(np.isfinite(placed), inside)
    assert placement.box == pytest.approx((16 * 375 / 256, 58 * 500 / 341, 240 * 375 / 256, 282 * 500 / 341))


def test_infinite_and_missing_cells_stay_local() -> None:
    heat = np.ones((4, 4))
    heat[0, 0], heat[3, 3] = np.inf, np.nan
    placed = Placement.identity(4, 4).place(heat)
    assert np.array_equal(placed, heat.astype(np.float32), equal_nan=True)
    larger = Placement((40, 40), (4, 4), (0.0, 0.0, 40.0, 40.0)).place(heat)
    assert np.isfinite(larger[15:25, :]).all()


@settings(max_examples=150, deadline=None)
@given(placements(), st.floats(-50, 50), st.floats(-50, 50))
def test_coordinates_go_there_and_back(placement: Placement, y: float, x: float) -> None:
    assert placement.to_input(*placement.to_original(y, x)) == pytest.approx((y, x), abs=1e-9 + 1e-9 * 200)
    assert placement.to_original(*placement.to_input(y, x)) == pytest.approx((y, x), abs=1e-9 + 1e-9 * 200)


def test_coordinates_of_corners_and_arrays() -> None:
    placement = Placement((100, 200), (10, 20), (10.0, 20.0, 60.0, 120.0))
    assert placement.to_original(0.0, 0.0) == (10.0, 20.0)
    assert placement.to_original(10.0, 20.0) == (60.0, 120.0)
    y, x = placement.to_input(np.array([10.0, 35.0]), np.array([20.0, 70.0]))
    assert np.array_equal(y, [0, 5]) and np.array_equal(x, [0, 10])


def test_a_shift_of_one_cell_is_a_shift_of_the_placed_map() -> None:
    placement = Placement((64, 64), (224, 224), (0.0, 0.0, 64.0, 64.0))
    heat = np.zeros((8, 8))
    heat[3, 3] = 1
    shifted = placement.place(np.roll(heat, 1, axis=1))
    assert np.array_equal(shifted, np.roll(placement.place(heat), 8, axis=1))


@pytest.mark.parametrize("shape", [(0, 3), (3, 0)])
def test_an_empty_heat(shape: tuple[int, int]) -> None:
    with pytest.raises(SettingError, match="rows and columns"):
        Placement.identity(3, 3).place(np.zeros(shape))


@pytest.mark.parametrize(
    ("original", "size", "box"),
    [
        ((0, 3), (3, 3), (0.0, 0.0, 3.0, 3.0)),
        ((3, 3), (3, -1), (0.0, 0.0, 3.0, 3.0)),
        ((3, 3), (3, 3), (3.0, 0.0, 3.0, 3.0)),
        ((3, 3), (3, 3), (0.0, 4.0, 3.0, 3.0)),
        ((3, 3), (3, 3), (0.0, 0.0, float("nan"), 3.0)),
        ((3, 3), (3, 3), (0.0, 0.0, float("inf"), 3.0)),
    ],
)
def test_nonsense(original, size, box) -> None:
    with pytest.raises(SettingError, match="a placement needs"):
        Placement(original, size, box)


@settings(max_examples=30, deadline=None)
@given(placements())
def test_json_round_trip(placement: Placement) -> None:
    assert Placement.from_json(json.loads(json.dumps(placement.to_json()))) == placement


@pytest.mark.parametrize("data", [{}, {"original_px": 3, "input_px": [1, 1], "box": [0, 0, 1, 1]}])
def test_json_of_something_else(data) -> None:
    with pytest.raises(SettingError, match="not the record of a placement"):
        Placement.from_json(data)
