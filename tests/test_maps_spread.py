"""Percentiles over a data set: near the exact ones, whatever the batches and however the range grows."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from oracles import maps as oracle
from pellucid.core.errors import LayerError
from pellucid.inside.exemplars import exemplars
from pellucid.inside.maps import maps, spread
from pellucid.inside.maps.spread import Histograms


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(2, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(5 * 36, 2)).eval()


@pytest.fixture
def pictures():
    return torch.randn(23, 2, 8, 8) * torch.linspace(0.1, 4, 23)[:, None, None, None]


def test_percentiles_are_right_to_a_bin(net, pictures):
    one = maps(net, pictures[:1], data=pictures).of("0")
    every = net[0](pictures).detach().movedim(1, 0).flatten(1).double().numpy()
    width = (every.max(1) - every.min(1)) / 512
    for got, q in ((one.spread.low, 0.001), (one.spread.high, 0.999)):
        lower, upper = (np.quantile(every, q, axis=1, method=m) for m in ("lower", "higher"))
        assert (got >= lower - width).all() and (got <= upper + width).all()
    for c in range(5):
        value = float(every[c].max()) / 2
        assert one.spread.rank(c, value) == pytest.approx((every[c] < value).mean(), abs=0.01)


def test_maps_scaled_by_the_data_agree_with_the_definition(net, pictures):
    one = maps(net, pictures[:1], data=pictures).of("1")
    every = F.relu(net[0](pictures)).detach().numpy()
    assert (one.spread.low == 0).all() and one.spread.rank(0, 0.0) == 0
    np.testing.assert_allclose(one.normalised("data"), oracle.against_data(one.values, every, 0.1, 99.9), atol=0.02)


def test_batches_do_not_matter(net, pictures, monkeypatch):
    found = []
    for size in (1, 7, 23):
        monkeypatch.setattr(spread, "BATCH", size)
        found.append(maps(net, pictures[:1], data=pictures).of("1").spread)
    for other in found[1:]:
        np.testing.assert_allclose(other.high, found[0].high, rtol=0.02)
        assert other.pictures == 23 and (other.alive == found[0].alive).all()


def test_ranges_grow_to_both_sides_and_lose_nothing():
    one, values = Histograms(2), torch.tensor([[0.0, 1e-3], [5.0, 5.0]])
    one.add(values)
    for bigger in (10.0, -1e4, 1e6):
        one.add(torch.tensor([[bigger], [5.0]]))
    assert (one.counts.sum(1) + one.zeros).tolist() == [5, 5]
    assert one.low[0] <= -1e4 and one.high[0] >= 1e6
    found = one.spread(1)
    assert found.low[1] == found.high[1] == 5 and found.alive.all()


def test_what_is_no_number_is_left_out():
    one = Histograms(1)
    one.add(torch.tensor([[1.0, float("nan"), 2.0, float("inf")]]))
    one.add(torch.tensor([[float("nan")]]))
    assert one.counts.sum() == 2 and one.spread(2).high[0] == pytest.approx(2, abs=1e-2)
    one.add(torch.tensor([[3.0]]))
    assert one.counts.sum() == 3


def test_a_channel_that_begins_without_numbers_counts_what_comes_later():
    one = Histograms(1)
    one.add(torch.full((1, 4), float("nan")))
    one.add(torch.tensor([[-3.0, 7.0]]))
    found = one.spread(2)
    assert one.counts.sum() == 2 and found.low[0] <= -2.9 and found.high[0] == pytest.approx(7, abs=0.1)


def test_exemplars_say_what_the_data_set_says(net, pictures):
    often = pictures.repeat(40, 1, 1, 1)  # so that no percentile lies between two values far apart
    gathered = exemplars(net, often, layers=["0", "1"], progress=False)
    by_data, by_exemplars = (maps(net, pictures[:1], ["0", "1"], data=d) for d in (often, gathered))
    for name in ("0", "1"):
        one, other = by_data.of(name), by_exemplars.of(name)
        np.testing.assert_allclose(one.normalised("data"), other.normalised("data"), atol=0.02)
        assert (one.channels.dead == other.channels.dead).all() and one.spread.pictures == other.spread.pictures
        value = float(one.channels.max[2]) / 2
        assert one.spread.rank(2, value) == pytest.approx(other.spread.rank(2, value), abs=0.01)
    with pytest.raises(LayerError, match="the exemplars are of 0, 1"):
        maps(net, pictures[:1], "3", data=gathered)
