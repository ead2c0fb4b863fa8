"""Dense maps: the network's own values on the old places, those of shifted pictures between them."""

import sys

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import nn
from torch.nn import functional as F

from method_cases import heat, undrawn
from oracles import atlas as oracle
from pellucid.core.errors import Cancelled, LayerError, MethodError, SettingError, TraceError
from pellucid.core.progress import Progress
from pellucid.inside import densify as module_under_test
from pellucid.inside.densify import densify, laid

NETS = (
    ("resnet18", (65,), 16),
    ("vgg11", (70,), 8),
    ("alexnet", (131,), 8),
    ("squeezenet1_1", (64, 71, 90, 97, 103), 8),
    ("squeezenet1_0", (75,), 8),
    ("mobilenet_v2", (65,), 16),
    ("densenet121", (65,), 4),
    ("googlenet", (66,), 8),
    ("mobilenet_v3_small", (67,), 8),
    ("efficientnet_b0", (66,), 4),
)
CASES = [(name, size, factor) for name, sizes, factor in NETS for size in sizes]


def torchvision_net(name, dtype=torch.float64):
    models = pytest.importorskip("torchvision").models
    torch.manual_seed(0)
    extra = {"init_weights": False} if name == "googlenet" else {}
    return getattr(models, name)(weights=None, **extra).eval().to(dtype)


def on_the_old_places(found):
    cutter = tuple(slice(0, (n - 1) * r + 1, r) for n, r in zip(found.original.shape[2:], found.rate, strict=True))
    return found.maps[(..., *cutter)]


def agree(found, bound=1e-12):
    assert max(found.rate) > 1
    close = (on_the_old_places(found) - found.original).abs().max() / found.original.abs().max()
    assert close <= bound and found.error <= bound


@pytest.mark.parametrize(("name", "size", "factor"), CASES, ids=[f"{n}-{s}" for n, s, _ in CASES])
def test_the_old_places_keep_the_networks_values(name, size, factor):
    net = torchvision_net(name)
    layer = "classifier.2" if "squeeze" in name else None
    for chosen in (4, factor):
        agree(densify(net, torch.rand(1, 3, size, size - 3, dtype=torch.float64), layer, factor=chosen))


def test_single_precision_agrees_to_rounding():
    agree(densify(torchvision_net("resnet18", torch.float32), torch.rand(2, 3, 75, 64), "layer4"), 1e-5)


POOLS = {
    "max ceil": nn.MaxPool2d(3, 2, ceil_mode=True),
    "max padded ceil": nn.MaxPool2d(3, 2, padding=1, ceil_mode=True),
    "max dilated": nn.MaxPool2d(3, 2, padding=1, dilation=2),
    "max of one": nn.MaxPool2d(1, 2),
    "mean padded": nn.AvgPool2d(3, 2, padding=1),
    "mean padded ceil": nn.AvgPool2d(3, 2, padding=1, ceil_mode=True),
    "mean without padding": nn.AvgPool2d(3, 2, padding=1, count_include_pad=False),
    "mean without padding ceil": nn.AvgPool2d(4, 3, padding=1, ceil_mode=True, count_include_pad=False),
    "mean divided": nn.AvgPool2d(3, 2, padding=1, divisor_override=5),
    "uneven": nn.MaxPool2d((2, 3), (1, 2), padding=(0, 1)),
    "strided convolution": nn.Conv2d(4, 4, 3, stride=3, padding=2, dilation=2),
    "wide padding": nn.Conv2d(4, 4, 1, stride=2, padding=1),
    "mirrored": nn.Sequential(nn.Conv2d(4, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, padding=2, padding_mode="reflect")),
    "repeated": nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 3, 2, padding=1, padding_mode="replicate")),
    "same": nn.Sequential(nn.MaxPool2d(2), nn.Conv2d(4, 4, 4, padding="same")),
    "normalised": nn.Sequential(nn.Conv2d(4, 4, 2, 2), nn.GroupNorm(2, 4), nn.InstanceNorm2d(4, affine=True)),
    "padded by hand": nn.Sequential(nn.MaxPool2d(2), nn.ConstantPad2d((1, -1, 2, 0), 0.5), nn.Conv2d(4, 4, 2, 2)),
}


@pytest.mark.parametrize("name", POOLS)
@pytest.mark.parametrize("size", [24, 25])
def test_every_border_case(name, size):
    parts = [nn.Conv2d(3, 4, 3, 2, 1), nn.ReLU(), POOLS[name], nn.MaxPool2d(2, 2, ceil_mode=True), nn.Conv2d(4, 5, 2)]
    net = nn.Sequential(*parts).eval().double()
    agree(densify(net, torch.randn(2, 3, size, size + 5, dtype=torch.float64), "4", start="0"))


class Branches(nn.Module):
    """Branches of different strides, a gate, a residual sum, a crop and a shuffle of channels."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, 2, 1)
        self.one, self.two = nn.Conv2d(4, 4, 3, 2, 1), nn.AvgPool2d(2, ceil_mode=True)
        self.gate, self.join = nn.Linear(4, 4), nn.Conv2d(8, 4, 1)
        self.last = nn.Conv2d(4, 6, 3, 2, 1)

    def forward(self, x):
        x = self.stem(x)
        both = torch.cat([self.one(x).relu_(), self.two(x)], 1)
        b, _, h, w = both.shape
        both = both.view(b, 2, 4, h, w).transpose(1, 2).reshape(b, 8, h, w)
        y = self.join(both)
        y = y * self.gate(y.mean((2, 3))).sigmoid()[:, :, None, None] + self.two(x)
        return self.last(y[:, :, 1:, :-1]).mean((2, 3))


@pytest.mark.parametrize("choice", [{"factor": 8}, {"factor": 2}, {"start": "one"}, {"start": "two"}])
def test_branches_gates_and_crops(choice):
    found = densify(Branches().eval().double(), torch.rand(2, 3, 33, 38, dtype=torch.float64), "last", **choice)
    agree(found)
    assert any("keep what the network gave" in note for note in found.notes)


class Thinned(nn.Module):
    """A shortcut that takes every second place and pads channels, as in the ResNets for CIFAR-10."""

    def __init__(self, enlarged):
        super().__init__()
        self.enlarged = enlarged
        self.one, self.two, self.last = nn.Conv2d(3, 5, 3, 2, 1), nn.Conv2d(5, 5, 3, padding=1), nn.Conv2d(5, 4, 3, 2)

    def forward(self, x):
        y = self.two(self.one(x).relu()) + F.pad(x[:, :, ::2, ::2], (0, 0, 0, 0, 1, 1), "constant", 0)
        y = y * torch.sigmoid(F.adaptive_avg_pool2d(y, 1))
        return self.last(F.interpolate(y, y.shape[2:]) if self.enlarged else y)


def test_shortcuts_that_take_every_second_place():
    x = torch.rand(1, 3, 30, 27, dtype=torch.float64)
    agree(densify(Thinned(False).eval().double(), x, "last", factor=4))
    with pytest.raises(LayerError, match="upsample_nearest2d"):
        densify(Thinned(True).eval().double(), x, "last", factor=4)


def test_real_networks(data):
    sys.path.insert(0, str(data))
    try:
        from models import CifarResNet
    finally:
        sys.path.remove(str(data))
    net = CifarResNet(3)
    net.load_state_dict(load_file(data / "cifar10" / "resnet20.safetensors"))
    found = densify(net.eval(), torch.randn(2, 3, 33, 30))
    agree(found, 1e-5)
    assert found.class_maps([0, 9]).shape[:2] == (2, 2)


@pytest.mark.parametrize("axes", [1, 3])
def test_signals_and_volumes(axes):
    conv, pool = (nn.Conv1d, nn.Conv3d)[axes // 2], (nn.MaxPool1d, nn.MaxPool3d)[axes // 2]
    mean = (nn.AvgPool1d, nn.AvgPool3d)[axes // 2]
    net = nn.Sequential(conv(2, 3, 3, 2, 1), pool(3, 2, 1, ceil_mode=True), mean(3, 2, 1), conv(3, 2, 3, padding=1))
    x = torch.rand(1, 2, *(21, 18, 23)[:axes], dtype=torch.float64)
    found = densify(net.eval().double(), x, "3", factor=8)
    agree(found)
    assert found.rate == (8,) * axes and found.field.positions == tuple(found.maps.shape[2:])


def shifted_and_stitched(net, x, rate, px):
    """The maps of every shifted picture, each put on the places that it stands for."""
    outputs = {}
    for i in range(rate):
        for j in range(rate):
            moved = F.pad(x, (0, rate * px, 0, rate * px))[..., i * px :, j * px :]
            outputs[i, j] = net(moved[..., : x.shape[2], : x.shape[3]])
    h, w = outputs[0, 0].shape[2:]
    stitched = x.new_zeros(*outputs[0, 0].shape[:2], h * rate, w * rate)
    for (i, j), maps in outputs.items():
        stitched[..., i::rate, j::rate] = maps
    return stitched


@pytest.mark.parametrize(("factor", "px"), [(2, 4), (4, 2), (8, 1)])
def test_places_between_are_those_of_shifted_pictures(factor, px):
    parts = [nn.Conv2d(2, 3, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(3, 4, 3, padding=1), nn.AvgPool2d(2)]
    net = nn.Sequential(*parts).eval().double()
    x = torch.rand(1, 2, 80, 72, dtype=torch.float64)
    found = densify(net, x, "4", factor=factor)
    theirs = shifted_and_stitched(net, x, factor, px)
    edge = 3 * factor
    inner = (..., slice(edge, -edge), slice(edge, -edge))
    torch.testing.assert_close(found.maps[inner], theirs[inner], rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [n for n in POOLS if n not in ("mirrored", "repeated", "same", "normalised")])
@pytest.mark.parametrize("size", [(21, 26), (24, 19)])
def test_dense_maps_are_those_of_the_slow_definition(name, size):
    if name in ("mean padded ceil", "padded by hand"):
        pytest.skip("the definition has no such operation")
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), POOLS[name], nn.Conv2d(4, 3, 2)).eval().double()
    x = torch.rand(1, 3, *size, dtype=torch.float64)
    found = densify(net, x, "2", start="0")
    theirs, rates = oracle.dense_layers(list(net), x, 0)
    assert found.rate == rates
    ends = [int((high < n).sum()) for high, n in zip(found.field.high, size, strict=True)]  # the far border apart
    assert min(ends) >= 6
    inner = (..., slice(0, ends[0]), slice(0, ends[1]))
    torch.testing.assert_close(found.maps[inner], theirs[inner], rtol=1e-12, atol=1e-12)


def test_each_place_depends_on_its_box_alone():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2, 1), nn.ReLU(), nn.MaxPool2d(3, 2, 1), nn.Conv2d(2, 2, 3)).eval().double()
    x = torch.rand(1, 1, 40, 44, dtype=torch.float64)
    found = densify(net, x, "3", factor=4)
    for place in [(0, 0), (5, 9), (13, 3)]:
        (top, bottom), (left, right) = found.box(place)
        other = torch.rand_like(x)
        other[..., top:bottom, left:right] = x[..., top:bottom, left:right]
        torch.testing.assert_close(densify(net, other, "3", factor=4).maps[(..., *place)], found.maps[(..., *place)])
    assert found.stride_px == (1.0, 1.0)


def test_class_maps_are_cam_on_a_finer_grid():
    found = densify("builtin:photos", torch.rand(2, 3, 32, 32))
    fine = found.class_maps([3, 0])
    theirs = heat(found.opened.model, found.opened.trace.inputs[0].data, "cam", targets=3)
    mine = fine[:, 0, :: found.rate[0], :: found.rate[1]][..., : theirs.shape[-2], : theirs.shape[-1]]
    assert fine.shape[2] >= 2 * found.original.shape[2]
    torch.testing.assert_close(mine, theirs.reshape(mine.shape).to(mine), rtol=1e-4, atol=1e-4)


def test_class_maps_need_an_averaging_head():
    net = nn.Sequential(nn.Conv2d(3, 4, 3, 2), nn.Flatten(), nn.Linear(4 * 49, 2)).eval()
    with pytest.raises(MethodError, match="average pooling"):
        densify(net, torch.rand(1, 3, 16, 16), "0").class_maps([0])


def test_what_can_not_be_made_denser_is_named():
    up = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.Upsample(scale_factor=2), nn.Conv2d(2, 2, 3)).eval()
    with pytest.raises(LayerError, match='"upsample_nearest2d" in "1" mixes positions'):
        densify(up, torch.rand(1, 1, 16, 16), "2")
    back = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.ConvTranspose2d(2, 2, 3)).eval()
    with pytest.raises(LayerError, match='in "1" mixes positions'):
        densify(back, torch.rand(1, 1, 16, 16), "1")
    odd = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.AdaptiveAvgPool2d(3)).eval()
    with pytest.raises(LayerError, match="adaptive_avg_pool2d"):
        densify(odd, torch.rand(1, 1, 17, 17), "1")


def test_factors_and_starts_that_do_not_exist():
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 4), nn.ReLU(), nn.Conv2d(2, 2, 3, 2), nn.Conv2d(2, 2, 1)).eval()
    x = torch.rand(1, 1, 32, 32)
    with pytest.raises(SettingError, match="factor=3 came; the strides of this layer make 2, 8 or 1"):
        densify(net, x, "2", factor=3)
    with pytest.raises(SettingError, match='nothing has a stride from "3" on; the layers with one are "0", "2"'):
        densify(net, x, "3", start="3")
    with pytest.raises(SettingError, match="give one of them"):
        densify(net, x, "2", factor=2, start="0")
    with pytest.raises(SettingError, match="dense already"):
        densify(nn.Sequential(nn.Conv2d(1, 1, 3)).eval(), x, "0")
    with pytest.raises(LayerError, match='no layer "9"'):
        densify(net, x, "9")
    assert densify(net, x, "2", factor=1).rate == (1, 1)


def test_a_difference_is_never_handed_out(monkeypatch):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.ReLU()).eval()
    whole = module_under_test.atrous

    def wrong(*given):
        grid = whole(*given)
        grid.data[0, 0, 0, 0] += 1
        return grid

    monkeypatch.setattr(module_under_test, "atrous", wrong)
    with pytest.raises(TraceError, match="not handed out"):
        densify(net, torch.rand(1, 1, 16, 16), "1")


def test_the_network_stays_as_it_was_also_when_stopped(untouched):
    net = nn.Sequential(nn.Conv2d(1, 2, 3, 2), nn.BatchNorm2d(2), nn.ReLU(inplace=True)).eval()
    x, stopped = torch.rand(1, 1, 16, 16), Progress(None)
    stopped.cancel()
    with untouched(net), undrawn():
        densify(net, x, "2")
        with pytest.raises(Cancelled):
            densify(net, x, "2", progress=stopped)


def test_maps_lie_where_they_look():
    net = nn.Sequential(nn.Conv2d(1, 1, 3, 4, bias=False), nn.Conv2d(1, 1, 1)).eval()
    found = densify(net, torch.rand(1, 1, 11, 15), "0", factor=4)
    rows = np.arange(found.maps.shape[2], dtype=float)[:, None].repeat(found.maps.shape[3], 1)
    drawn = laid(rows, found.field)
    assert drawn.shape == (11, 15) and drawn[1, 0] == 0 and drawn[5, 3] == 4 and drawn[9, 14] == 8
    assert found.box((4, 0)) == ((4, 7), (0, 3))


def test_it_shows_itself(tmp_path):
    found = densify("builtin:photos", torch.rand(1, 3, 32, 32))
    assert "network's own" in found.sentence() and "error" in repr(found)
    for ending in ("png", "html", "json"):
        assert found.save(tmp_path / f"dense.{ending}").stat().st_size > 500
