"""From a heat map to the largest part, on shapes drawn by hand."""

from itertools import pairwise

import numpy as np
import pytest

import pellucid as pel
from pellucid.core.errors import SettingError
from pellucid.images.placement import Placement
from pellucid.methods.localise import largest_part
from render_examples import bump, explanation, picture


def drawn(rows: str) -> np.ndarray:
    return np.array([[cell == "#" for cell in row] for row in rows.split()])


def slow_largest(mask: np.ndarray) -> np.ndarray:
    """Flood fill from every cell, in reading order; the first largest part."""
    seen, best = np.zeros_like(mask), np.zeros_like(mask)
    for start in zip(*np.nonzero(mask), strict=True):
        part, edge = np.zeros_like(mask), [] if seen[start] else [start]
        while edge:
            y, x = edge.pop()
            if not (0 <= y < mask.shape[0] and 0 <= x < mask.shape[1]) or seen[y, x] or not mask[y, x]:
                continue
            seen[y, x] = part[y, x] = True
            edge += [(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)]
        best = part if part.sum() > best.sum() else best
    return best


@pytest.mark.parametrize(
    ("rows", "kept"),
    [
        ("#..## ..... ..#..", "...## ..... ....."),
        ("#.#.# #.#.# ####.", "#.#.. #.#.. ####."),  # the sides of a U join at its bottom
        ("#.#.# #.#.# #####", "#.#.# #.#.# #####"),
        (".#... #.... .....", ".#... ..... ....."),  # a diagonal does not join; the first of equals
        ("##### #...# #.#.# #...# #####", "##### #...# #...# #...# #####"),
        ("..... .....", "..... ....."),
        ("#", "#"),
    ],
)
def test_the_largest_part(rows: str, kept: str):
    assert np.array_equal(largest_part(drawn(rows)), drawn(kept))


@pytest.mark.parametrize("seed", range(40))
def test_the_largest_part_is_the_flood_fill(seed: int):
    random = np.random.default_rng(seed)
    mask = random.random((random.integers(1, 24), random.integers(1, 24))) < random.uniform(0.2, 0.8)
    found, slow = largest_part(mask), slow_largest(mask)
    assert found.sum() == slow.sum()
    assert np.array_equal(found, slow_largest(found)), "one part"
    assert np.array_equal(found, slow)


def identity(heat: np.ndarray, **facts) -> pel.Explanation:
    shown = picture(*heat.shape)
    return explanation(heat, picture=shown, placement=Placement.identity(*heat.shape), **facts)


def test_the_box_is_around_the_part_and_the_threshold_is_a_fraction_of_the_top():
    heat = np.zeros((20, 30), np.float32)
    heat[4:9, 10:17] = 2.0
    heat[12:14, 3:6] = 1.9
    heat[6, 12] = 4.0
    found = pel.localise(identity(heat), fraction=0.4)
    assert found.box == (4, 10, 9, 17)
    assert found.threshold == pytest.approx(1.6)
    assert found.mask.sum() == 35
    assert pel.localise(identity(heat), fraction=0.9).box == (6, 12, 7, 13)


def test_negative_heat_does_not_count():
    heat = np.full((20, 30), -5.0, np.float32)
    heat[2:5, 2:5] = 1.0
    assert pel.localise(identity(heat, signed=True)).box == (2, 2, 5, 5)


def test_places_that_the_network_did_not_see_are_left_out():
    one = explanation(np.ones((8, 8)), crop=True)
    found = pel.localise(one)
    assert np.array_equal(found.mask, ~np.isnan(one.heat))


def test_a_lower_threshold_gives_a_larger_mask():
    one = explanation(bump(8, 0.5, 0.5, spread=0.2))
    sizes = [pel.localise(one, fraction=f).mask.sum() for f in (0.1, 0.3, 0.5, 0.9)]
    assert all(a > b for a, b in pairwise(sizes))


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_wrong_fraction_is_our_error(fraction: float):
    with pytest.raises(SettingError, match="between 0 and 1"):
        pel.localise(explanation(), fraction=fraction)


@pytest.mark.parametrize("heat", [np.zeros((8, 8)), -np.ones((8, 8))])
def test_a_map_without_positive_heat_is_our_error(heat: np.ndarray):
    with pytest.raises(SettingError, match="no positive heat"):
        pel.localise(explanation(heat, signed=True))
