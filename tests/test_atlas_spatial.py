"""The spatial atlas: regions of one picture that together see all of it, each with its own activation."""

import numpy as np
import pytest
import torch
from torch import nn

from atlas_cases import flat_icons
from method_cases import undrawn
from pellucid.core.errors import Cancelled, LayerError, SettingError
from pellucid.core.progress import Progress
from pellucid.images import scenes
from pellucid.inside.atlas import spatial_atlas
from pellucid.inside.atlas.spatial import covered, sampled


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    parts = [nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(6, 8, 3, padding=1), nn.ReLU()]
    return nn.Sequential(*parts, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 4)).eval()


@pytest.mark.parametrize("every", [None, 1, 3, 4])
@pytest.mark.parametrize("size", [(40, 40), (37, 52)])
def test_regions_cover_the_picture(net, every, size):
    found = spatial_atlas(net, torch.rand(1, 3, *size), "4", every=every, icons=False)
    coverage = found.coverage()
    assert coverage.shape == size and (coverage >= 1).all()
    assert set(found.tiles().flatten()) <= set(range(len(found.positions)))
    assert "100%" in found.sentence()


def test_each_region_has_the_dense_maps_activation_and_its_box(net):
    found = spatial_atlas(net, torch.rand(1, 3, 40, 48), "4", every=5, icons=False)
    for position, box, norm in zip(found.positions.tolist(), found.boxes, found.norms, strict=True):
        assert norm == pytest.approx(float(found.dense.maps[(0, slice(None), *position)].norm()), rel=1e-5)
        clipped = [(max(a, 0), min(b, n)) for (a, b), n in zip(box.tolist(), (40, 48), strict=True)]
        assert tuple(clipped) == found.dense.box(position)


def test_regions_outside_a_box_do_not_matter(net):
    x = torch.rand(1, 3, 40, 40)
    found = spatial_atlas(net, x, "4", every=6, icons=False)
    number = len(found.positions) // 2
    (top, bottom), (left, right) = found.dense.box(found.positions[number].tolist())
    other = torch.rand_like(x)
    other[..., top:bottom, left:right] = x[..., top:bottom, left:right]
    again = spatial_atlas(net, other, "4", every=6, icons=False)
    assert again.norms[number] == pytest.approx(found.norms[number], rel=1e-5)


def test_shares_are_those_of_class_maps(net):
    found = spatial_atlas(net, torch.rand(1, 3, 40, 40), "4", every=4, icons=False)
    maps = found.dense.class_maps(range(4))[0] / found.dense.original[0, 0].numel()
    at = tuple(found.positions.T)
    theirs = maps[(slice(None), *at)]
    np.testing.assert_allclose(found.shares, theirs.max(0).values, rtol=1e-4, atol=1e-6)
    np.testing.assert_array_equal(found.classes, theirs.argmax(0))


def test_places_that_are_too_far_apart_are_told(net):
    found = spatial_atlas(net, torch.rand(1, 3, 96, 96), "2", every=30, icons=False)
    share = float((found.coverage() > 0).mean())
    assert share < 1 and f"see {share:.0%} of the picture" in found.sentence()


def test_sampling_keeps_the_last_place_and_boxes_are_cut():
    assert sampled((7, 4), 3) == [(a, b) for a in (0, 3, 6) for b in (0, 3)]
    assert sampled((8,), 3) == [(0,), (3,), (6,), (7,)]
    assert covered([[(-3, 2), (1, 9)]], (4, 4)).tolist() == [[0, 1, 1, 1]] * 2 + [[0] * 4] * 2


def test_icons_stop_where_the_work_is_stopped(net):
    bar = Progress(None)
    calls = []

    def invert(*args, **settings):
        calls.append(len(args[2]))
        if len(calls) == 2:
            bar.cancel()
        return flat_icons(*args, **settings)

    found = spatial_atlas(net, torch.rand(1, 3, 40, 40), "4", every=8, invert=invert, progress=bar)
    assert len(found.icons) == 16 < len(found.positions) and "stopped after 16" in found.notes[-1]
    assert found.image().height > 300
    with pytest.raises(Cancelled):
        spatial_atlas(net, torch.rand(1, 3, 40, 40), "4", invert=invert, progress=bar)


def test_a_real_network_on_a_scene_finds_what_is_there(tmp_path):
    rendered = scenes.render(scenes.compose(7, px=64))
    found = spatial_atlas("builtin:scenes", rendered.pixels, icons=False)
    best = int(found.shares.argmax())
    assert found.labels[int(found.classes[best])] == rendered.scene.label
    for ending in ("png", "html", "json"):
        assert found.save(tmp_path / f"s.{ending}").stat().st_size > 500


def test_what_can_not_be_drawn_is_told(net):
    with pytest.raises(SettingError, match="every=0"):
        spatial_atlas(net, torch.rand(1, 3, 40, 40), "4", every=0)
    with pytest.raises(SettingError, match="2 inputs came"):
        spatial_atlas(net, torch.rand(2, 3, 40, 40), "4", icons=False)
    with pytest.raises(SettingError, match="icons would be made"):
        spatial_atlas(net, torch.rand(1, 3, 96, 96), "4", every=1)
    with pytest.raises(LayerError, match="has no maps"):
        spatial_atlas(net, torch.rand(1, 3, 40, 40), "7")
    signals = nn.Sequential(nn.Conv1d(2, 3, 3, 2), nn.ReLU()).eval()
    with pytest.raises(LayerError, match="takes none"):
        spatial_atlas(signals, torch.rand(1, 2, 40), "1")


class Unnamed(nn.Module):
    """What is averaged comes out of no module."""

    def __init__(self):
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 4, 3, 2), nn.Linear(4, 2)

    def forward(self, x):
        return self.head(torch.tanh(self.conv(x)).mean((2, 3)))


def test_averaged_maps_without_a_name():
    found = spatial_atlas(Unnamed().eval(), torch.rand(1, 3, 21, 21), steps=1, every=7)
    assert found.dense.layer == "conv" and len(found.icons) == len(found.positions)


def test_networks_without_strides_and_the_network_stays_as_it_was(untouched):
    plain, x = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(inplace=True)).eval(), torch.rand(1, 3, 20, 20)
    with untouched(plain), undrawn():
        found = spatial_atlas(plain, x, "1", steps=1, every=9)
    assert found.dense.rate == (1, 1) and len(found.icons) == len(found.positions)
