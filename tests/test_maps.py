"""Maps of every channel: what the numbers, marks, orders and grids are, for any layout and number of axes."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from method_cases import undrawn
from oracles import maps as oracle
from oracles.fields import Axis
from pellucid.core.errors import ImageError, LayerError, SettingError, TargetError
from pellucid.core.record import record
from pellucid.images.transforms import Preprocess
from pellucid.inside.maps import maps
from pellucid.inside.maps.channels import SORTS
from pellucid.models.model import wrap


class Reused(nn.Module):
    """One in-place rectifier for two layers, a residual sum, and a head."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv2d(3, 6, 3, stride=2, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.relu, self.head = nn.ReLU(inplace=True), nn.Linear(6, 3)

    def forward(self, x):
        x = self.relu(self.first(x))
        return self.head(self.relu(self.second(x) + x).mean((2, 3)))


class LastChannels(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 2, 2), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.fixture
def net():
    return Reused().eval()


@pytest.fixture
def x():
    return torch.randn(1, 3, 12, 16)


def marked(activation, bias):
    """A 1×1 convolution of ones with these biases, and an activation behind it."""
    conv = nn.Conv2d(1, len(bias), 1)
    conv.weight.data.fill_(1.0)
    conv.bias.data = torch.tensor(bias)
    return nn.Sequential(conv, activation, nn.Flatten()).eval()


def test_energy_of_the_first_layer_is_the_norm_of_the_convolution(net, x):
    found = maps(net, x)
    expected = F.conv2d(x, net.first.weight, net.first.bias, 2, 1)[0].norm(dim=0)
    np.testing.assert_allclose(found.energy("first", "layer"), expected.detach(), rtol=1e-6)


def test_the_key_point_is_where_the_energy_is_largest(net, x):
    found = maps(net, x)
    regions = found.regions("second", count=4)
    energy = found.energy("second", "layer")
    assert regions[0].position == np.unravel_index(energy.argmax(), energy.shape)
    assert regions[0].position == oracle.key_point(found.of("second").values)
    taken = np.sum([r.mask for r in regions], axis=0)
    assert taken.max() == 1 and all(r.mask[r.position] for r in regions)
    for region in regions:
        np.testing.assert_allclose(
            region.vector, oracle.region_vector(found.of("second").values, region.mask), rtol=1e-5
        )


@pytest.mark.parametrize("by", SORTS)
def test_every_order_is_a_permutation_with_the_largest_first(net, x, by):
    one = maps(net, x).of("second")
    order = one.order(by)
    assert sorted(order) == list(range(6))
    if by != "number":
        assert (np.diff(getattr(one.channels, by)[order]) <= 0).all()


def test_equals_keep_their_numbers_and_what_is_no_number_comes_last():
    channels = maps(marked(nn.ReLU(), [-9.0, 1.0, 1.0, -9.0]), torch.rand(1, 1, 4, 4)).of("1").channels
    assert list(channels.order("mean")) == [1, 2, 0, 3]
    broken = maps(marked(nn.Identity(), [float("nan"), 1.0, 2.0]), torch.rand(1, 1, 4, 4)).of("0").channels
    assert list(broken.order("mean")) == [2, 1, 0]


def test_numbers_agree_with_their_definitions(net, x):
    one = maps(net, x, target=1).of("relu#0")
    np.testing.assert_allclose(one.channels.variance, oracle.variances(one.values), rtol=1e-6)
    np.testing.assert_allclose(one.channels.sparsity, oracle.sparsity(one.values))
    np.testing.assert_allclose(one.normalised(), oracle.min_max(one.values), atol=1e-6)
    a = torch.from_numpy(one.values)[None].requires_grad_()
    score = net.head(F.relu(net.second(a) + a).mean((2, 3)))[0, 1]
    support = (a * torch.autograd.grad(score, a)[0]).sum((0, 2, 3))
    np.testing.assert_allclose(one.channels.support, support.detach(), rtol=1e-4, atol=1e-6)


def test_a_picture_has_the_same_maps_alone_and_in_a_batch(net, x):
    batch = torch.cat([torch.randn(2, 3, 12, 16), x])
    found, recorded = maps(net, x), record(net, batch)
    for name in ("first", "relu#0", "relu#1"):
        np.testing.assert_allclose(found.of(name).values, recorded.at(name).data[2].detach(), atol=1e-6)


def test_renumbered_units_have_renumbered_maps_and_the_same_energy(net, x):
    before = maps(net, x)
    order = torch.tensor([4, 2, 0, 5, 1, 3])
    with torch.no_grad():
        net.second.weight.copy_(net.second.weight[order])
        net.second.bias.copy_(net.second.bias[order])
    after = maps(net, x)
    np.testing.assert_allclose(after.of("second").values, before.of("second").values[order], atol=1e-6)
    np.testing.assert_allclose(after.of("second").channels.variance, before.of("second").channels.variance[order])
    np.testing.assert_allclose(after.energy("second"), before.energy("second"), rtol=1e-5)
    np.testing.assert_allclose(after.hypercolumn(3, 4)["second"], before.hypercolumn(3, 4)["second"][order], atol=1e-6)
    assert after.reconstruction("second").explained == pytest.approx(before.reconstruction("second").explained)


def test_channels_may_come_last():
    net, x = LastChannels().eval(), torch.rand(1, 3, 8, 12)
    found = maps(net, x)
    expected = net.norm(net.conv(x).permute(0, 2, 3, 1))[0].permute(2, 0, 1)
    np.testing.assert_allclose(found.of("norm").values, expected.detach(), atol=1e-6)
    assert found.energy("norm", "input").shape == (8, 12)
    assert found.hypercolumn(2, 3)["norm"].shape == (5,)


@pytest.mark.parametrize(
    ("activation", "bias", "marks"),
    [
        (nn.ReLU(), [-5.0, 0.5], ["dead", ""]),
        (nn.ReLU6(), [-5.0, 0.5, 8.0], ["dead", "", "saturated"]),
        (nn.Sigmoid(), [0.0, 20.0, -20.0], ["", "saturated", "saturated"]),
        (nn.Tanh(), [0.1, 20.0, -20.0], ["", "saturated", "saturated"]),
        (nn.Hardtanh(), [-0.5, 3.0, -3.0], ["", "saturated", "saturated"]),
    ],
)
def test_dead_and_saturated_units_are_marked(activation, bias, marks):
    one = maps(marked(activation, bias), torch.rand(1, 1, 5, 5)).of("1")
    assert [one.channels.mark(c) for c in range(one.count)] == marks


def test_a_unit_that_says_the_same_everywhere_is_saturated():
    net = marked(nn.ReLU(), [0.5, 0.5])
    net[0].weight.data[1] = 0
    assert [maps(net, torch.rand(1, 1, 5, 5)).of("1").channels.mark(c) for c in (0, 1)] == ["", "saturated"]


def test_one_zero_alone_is_not_dead(net, x):
    flat = nn.Sequential(nn.Flatten(), nn.Linear(4, 3), nn.ReLU()).eval()
    flat[1].bias.data.fill_(-9)
    picture = torch.rand(1, 1, 2, 2)
    assert [maps(flat, picture).of("2").channels.mark(c) for c in range(3)] == ["silent here"] * 3
    assert maps(flat, picture, data=picture).of("2").channels.dead.all()


@pytest.mark.filterwarnings("error")
def test_what_is_no_number_spoils_nothing_else(net, x):
    x[0, 0, 3, 3] = float("nan")
    found = maps(net, x)
    assert np.isnan(found.reconstruction("first").explained)
    assert all(r.mask[r.position] and np.isfinite(r.energy) for r in found.regions("first"))
    assert found.image() and found.of("first").image() and found.of("head").image()
    low, high = found.of("first").limits(0)
    assert low < high


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_will_do(net, x, dtype):
    whole, half = maps(net, x), maps(net.to(dtype), x.to(dtype), data=x.to(dtype))
    np.testing.assert_allclose(half.of("first").values, whole.of("first").values, atol=0.1)
    assert half.reconstruction("first").explained == pytest.approx(whole.reconstruction("first").explained, abs=0.1)
    assert half.contributions.rows and half.image()


def test_a_unit_that_is_zero_here_only_is_not_dead():
    net = marked(nn.ReLU(), [-5.0, -1.5, 0.5])
    pictures = torch.stack([torch.rand(1, 6, 6), 2 * torch.ones(1, 6, 6)])
    one = maps(net, pictures[:1], data=pictures).of("1")
    assert [one.channels.mark(c) for c in range(3)] == ["dead", "silent here", ""]
    assert list(one.channels.dead) == oracle.dead(np.stack([F.relu(net[0](p)).detach().numpy() for p in pictures]))
    assert "1 dead, 1 silent here" in one.sentence()


def test_hypercolumns_are_drawn_at_the_centres_of_the_fields(net, x):
    found = maps(net, x)
    first, second = found.of("first").values, found.of("second").values
    layers = [(first, [Axis(3, 2, 0), Axis(3, 2, 0)]), (second, [Axis(7, 2, 0), Axis(7, 2, 0)])]
    for pixel in ((0, 0), (5, 6), (11, 15)):
        column = found.hypercolumn(*pixel)
        expected = oracle.column_at(layers, pixel)
        np.testing.assert_allclose(np.concatenate([column["first"], column["second"]]), expected, atol=1e-6)
    np.testing.assert_allclose(found.energy("first", "input")[::2, ::2], found.energy("first", "layer"), rtol=1e-6)


def test_a_nearest_enlargement_spreads_its_positions():
    net = nn.Sequential(nn.AvgPool2d(4), nn.Upsample(scale_factor=2), nn.Flatten()).eval()
    x = torch.rand(1, 2, 16, 16)
    laid = maps(net, x).energy("1", "input")
    pooled = F.avg_pool2d(x, 4)[0].norm(dim=0).numpy()
    np.testing.assert_allclose(laid[1:3, 1:3], pooled[0, 0], rtol=1e-5)
    np.testing.assert_allclose(laid[5:7, 9:11], pooled[1, 2], rtol=1e-5)


def test_reconstruction_is_the_least_squares_picture(net, x):
    found = maps(net, x)
    rebuilt = found.reconstruction("first")
    columns = oracle.hypercolumn([(found.of("first").values, [Axis(3, 2, 0), Axis(3, 2, 0)])], (12, 16))
    expected, explained = oracle.reconstruction(columns, x[0].numpy())
    np.testing.assert_allclose(rebuilt.values, expected, atol=1e-5)
    assert rebuilt.explained == pytest.approx(explained, abs=1e-6)


def test_a_layer_that_keeps_everything_gives_the_picture_back():
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.Flatten()).eval()
    assert maps(net, torch.rand(1, 3, 9, 20)).reconstruction("0").explained == pytest.approx(1, abs=1e-6)


def test_shares_of_the_layers_sum_to_the_score_and_blank_maps_lose_what_they_lose(net, x):
    x = x.double()
    found = maps(net.double(), x, target=2)
    rows = {row[0]: row for row in found.contributions.rows}
    shares = [row[2] for row in rows.values() if row[2] is not None]
    assert sum(shares) == pytest.approx(float(net(x)[0, 2].detach()), rel=1e-8)
    for name in ("first", "second"):
        lost = oracle.layer_effect(net, name, x)[0, 2]
        assert rows[name][4] == pytest.approx(-float(lost), rel=1e-8)
    assert rows["head"][3] is None


@pytest.mark.parametrize(("conv", "size"), [(nn.Conv1d, (20,)), (nn.Conv3d, (6, 8, 10))])
def test_series_and_volumes_have_maps_too(conv, size):
    net = nn.Sequential(conv(2, 3, 3, padding=1), nn.ReLU(), nn.Flatten()).eval()
    found = maps(net, torch.randn(1, 2, *size))
    assert found.of("1").values.shape == (3, *size) and found.energy("1").shape == size
    assert found.hypercolumn(*(n // 2 for n in size))["1"].shape == (3,)
    assert found.of("1").image().width > 100 and found.image().width > 100
    assert found.reconstruction("0").explained <= 1


def test_a_layer_without_maps_is_shown_as_bars_and_refused_where_positions_are_wanted(net, x):
    found = maps(net, x)
    assert found.of("head").values.shape == (3,) and found.of("head").image().width > 300
    for asked in (found.energy, found.regions, found.reconstruction):
        with pytest.raises(LayerError, match=r'layer "head" has no maps.*the last layer with maps is'):
            asked("head")
    assert "head" not in found.hypercolumn(0, 0)


def test_many_channels_take_many_pages():
    net = nn.Sequential(nn.Conv2d(1, 512, 1), nn.Flatten()).eval()
    one = maps(net, torch.rand(1, 1, 6, 6)).of("0")
    pages = list(one.pages(by="max"))
    assert len(pages) == 8 and all(p.width <= 1280 and p.height <= 1600 for p in pages)
    assert one.page("max", top=5).height < 400
    with pytest.raises(SettingError, match="has 8, from 0 to 7"):
        one.page(page=8)


def test_what_can_not_be_shown_is_told(net, x):
    found = maps(net, x, layers="first")
    with pytest.raises(LayerError, match='"second" was not asked for; there are first'):
        found.of("second")
    with pytest.raises(LayerError, match='did you mean "second"'):
        maps(net, x, layers=["secnd"])
    with pytest.raises(ImageError, match="give one"):
        maps(net, torch.cat([x, x]))
    with pytest.raises(SettingError, match="counted from 0"):
        found.hypercolumn(12, 0)
    with pytest.raises(SettingError, match="without a data set"):
        found.of("first").page(scale="data")
    with pytest.raises(SettingError, match='no order "varience"; did you mean "variance"'):
        found.of("first").order("varience")
    with pytest.raises(TargetError, match="2 targets"):
        maps(net, x, target="top2")
    with pytest.raises(ImageError, match="empty"):
        maps(net, x, data=[])


def test_a_picture_is_asked_by_its_own_pixels():
    model = wrap(Reused().eval(), preprocess=Preprocess(resize_px=20, crop_px=16))
    picture = np.random.default_rng(0).integers(0, 255, (40, 60, 3), dtype=np.uint8)
    found = maps(model, picture)
    assert found.energy("first").shape == (40, 60) and np.isnan(found.energy("first")[:, 0]).all()
    y, x = found.inside.placement.to_original(6.5, 8.5)
    inside = maps(model, found.inside.trace.inputs[0].data).hypercolumn(6, 8)["first"]
    np.testing.assert_allclose(found.hypercolumn(y - 0.5, x - 0.5)["first"], inside, atol=1e-6)
    with pytest.raises(SettingError, match="outside of what the network was fed"):
        found.hypercolumn(20, 0)


def test_findings_are_saved(net, x, tmp_path):
    found = maps(net, x, data=torch.randn(3, 3, 12, 16))
    for one in (found, found.of("first"), found.reconstruction("first")):
        for suffix in (".png", ".html", ".json"):
            assert one.save(tmp_path / f"one{suffix}").stat().st_size > 100
        assert one.sentence() and len(repr(one)) < 200
    found.of("first").save(tmp_path / "layer.json")
    facts = json.loads((tmp_path / "layer.json").read_text())
    assert facts["tables"][0]["columns"][-1] == "percentile of the max"


def test_the_network_comes_back_as_it_was(net, x, untouched):
    data = torch.randn(3, 3, 12, 16)
    with untouched(net), undrawn():
        found = maps(net, x, data=data)
        found.contributions, found.image(), found.reconstruction("first")
    with untouched(net), undrawn(), pytest.raises(LayerError):
        maps(net, x, layers="nothing")


def test_a_trained_network_is_shown():
    from pellucid.images import scenes

    scene = scenes.render(next(scenes.stream(1, split="test")))
    found = maps("builtin:scenes", scene.pixels)
    assert found.image().width > 500 and "dead" in found.sentence()
    shares = [s for s in found.contributions.column("share of the score") if s is not None]
    assert sum(shares) == pytest.approx(float(found.target.score(found.inside.trace)[0]), rel=1e-3)


class Attends(nn.Module):
    """Tokens that attend to one another: behind that, no axis is known to count units."""

    def __init__(self):
        super().__init__()
        self.conv, self.attention, self.head = nn.Conv2d(3, 8, 4, 4), nn.MultiheadAttention(8, 2), nn.Linear(8, 2)

    def forward(self, x):
        tokens = self.conv(x).flatten(2).transpose(1, 2)
        return self.head(self.attention(tokens, tokens, tokens, need_weights=False)[0].mean(1))


def test_what_has_no_known_units_is_left_out_and_refused():
    net, x = Attends().eval(), torch.rand(1, 3, 16, 16)
    found = maps(net, x)
    assert "conv" in found.found and "attention" not in found.found
    with pytest.raises(LayerError, match="no axis is known"):
        maps(net, x, "attention")
    rows = {row[0]: row for row in found.contributions.rows}
    assert rows["attention"][3] is None and rows["conv"][3] is not None


def test_real_networks_are_shown(data):
    torchvision = pytest.importorskip("torchvision", reason="torchvision is not installed")
    sklearn = pytest.importorskip("sklearn.datasets", reason="scikit-learn is not installed")
    from pellucid.models.resolve import load

    assert torchvision
    model = load("torchvision:squeezenet1_1", weights=str(data / "imagenet" / "squeezenet1_1_fp16.safetensors"))
    pixels = torch.from_numpy(sklearn.load_sample_image("flower.jpg")[100:292:2, 200:392:2].copy())
    found = maps(model, model.preprocess.normalise(pixels.permute(2, 0, 1)[None].float() / 255))
    explained = [found.reconstruction(name).explained for name in ("features.1", "features.5")]
    assert 1 > explained[0] > explained[1] > 0.3
    shares = [s for s in found.contributions.column("share of the score") if s is not None]
    assert sum(shares) == pytest.approx(float(found.target.score(found.inside.trace)[0]), rel=1e-3)
