"""Projections: the walk down from one activation against definitions and laws."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import undrawn
from oracles import projection as oracle
from pellucid.core.errors import LayerError, SettingError
from pellucid.inside.exemplars import exemplars
from pellucid.inside.projection import project, project_top


def strided() -> nn.Sequential:
    """Stride 2 that does not divide the size, 5×5, groups, overlapping pools, BatchNorm with shifts and signs."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 5, stride=2, padding=1), nn.ReLU(inplace=True), nn.MaxPool2d(3, 2),
        nn.Conv2d(8, 8, 3, padding=1, groups=2), nn.BatchNorm2d(8), nn.ReLU(), nn.MaxPool2d(2, ceil_mode=True),
        nn.Conv2d(8, 6, 5, padding=2), nn.ReLU(),
    ).double().eval()  # fmt: skip
    for part in net.modules():
        if isinstance(part, nn.BatchNorm2d):
            part.weight.data.normal_(), part.running_mean.normal_(std=0.1), part.running_var.uniform_(0.5, 2)
    return net


@pytest.fixture
def net() -> nn.Sequential:
    return strided()


@pytest.fixture
def x() -> torch.Tensor:
    return torch.randn(1, 3, 44, 37).double()


class TestAgainstTheDefinition:
    """Explicit unpooling, rectifying and transposed filters, by hand."""

    @pytest.mark.parametrize("place", [None, (1, 2)])
    def test_stride_groups_and_pools(self, net, x, place, untouched):
        with untouched(net), undrawn():
            found = project(net, x, "8:3", position=place)
        theirs, value, where = oracle.project(list(net), x[0].numpy(), 3, place)
        assert found.position == where and found.value == pytest.approx(value)
        assert np.abs(found.map - theirs).max() < 1e-6 * max(1, np.abs(theirs).max()) and np.abs(theirs).max() > 0

    def test_with_torch_s_own_unpooling(self):
        conv1, conv2 = nn.Conv2d(1, 4, 5, stride=2).double(), nn.Conv2d(4, 3, 3, groups=1).double()
        x = torch.randn(1, 1, 29, 29).double()
        with torch.no_grad():
            up = F.relu(conv1(x))
            pooled, switches = F.max_pool2d(up, 2, return_indices=True)
            last = F.relu(conv2(pooled))
            seed = torch.zeros_like(last)
            best = int(last[0, 1].argmax())
            seed[0, 1].view(-1)[best] = last[0, 1].flatten()[best]
            down = F.conv_transpose2d(seed.clamp(min=0), conv2.weight)
            down = F.max_unpool2d(down, switches, 2, output_size=up.shape).clamp(min=0)
            down = F.conv_transpose2d(down, conv1.weight, stride=2)
        net = nn.Sequential(conv1, nn.ReLU(), nn.MaxPool2d(2), conv2, nn.ReLU()).eval()
        assert np.abs(project(net, x, "4:1").map - down[0].numpy()).max() < 1e-7

    def test_branches_and_averages(self, x):
        net = [
            nn.Conv2d(3, 4, 3), nn.ReLU(),
            oracle.Sum(([], [nn.Conv2d(4, 4, 3, padding=1), nn.ReLU()])),
            nn.MaxPool2d(2),
            oracle.Concat(([nn.Conv2d(4, 2, 1)], [nn.AvgPool2d(3, 1, 1)])),
            nn.ReLU(),
        ]  # fmt: skip

        class Net(nn.Module):
            def __init__(self):
                super().__init__()
                self.a, self.b, self.c = net[0], net[2].branches[1][0], net[4].branches[0][0]

            def forward(self, x):
                x = F.relu(self.a(x))
                x = F.max_pool2d(x + F.relu_(self.b(x)), 2)
                return torch.cat([self.c(x), F.avg_pool2d(x, 3, 1, 1)], 1).relu_()

        class Named(nn.Module):
            def __init__(self):
                super().__init__()
                self.body = Net()

            def forward(self, x):
                return self.body(x).mean((2, 3))

        module = Named().double().eval()
        for channel in (0, 4):
            theirs, _, where = oracle.project(net, x[0].numpy(), channel)
            found = project(module, x, f"body:{channel}")
            assert found.position == where and np.abs(found.map - theirs).max() < 1e-6


class TestLaws:
    def test_positive_homogeneity(self, net, x):
        """`D(αa) = αD(a)`: the last filter made α times as strong makes the projection α times as strong."""
        plain = project(net, x, "7:2", position=(1, 1))
        scaled = nn.Sequential(*net[:8], _Times(3.0)).eval()
        more = project(scaled, x, "8:2", position=(1, 1))
        assert more.value == pytest.approx(3 * plain.value)
        assert np.allclose(more.map, 9 * plain.map, rtol=1e-5)  # the factor itself lies on the way down as well
        value, trace = _recorded(net, x)
        seed = torch.zeros_like(value.data)
        seed[0, 2, 1, 1] = 1.5
        one = trace.pull({value: seed}, pel.DECONVNET).input()
        assert torch.allclose(trace.pull({value: 7 * seed}, pel.DECONVNET).input(), 7 * one)

    def test_it_stays_within_the_field(self, net):
        x = torch.randn(1, 3, 90, 80).double()
        for place in ((0, 0), (3, 4), None):
            found = project(net, x, "5:2", position=place)
            (top, bottom), (left, right) = found.box
            outside = found.map.copy()
            outside[:, max(top, 0) : bottom + 1, max(left, 0) : right + 1] = 0
            assert not outside.any() and (found.map.any() or found.value <= 0)

    def test_without_rectifiers_it_is_the_gradient(self, x):
        net = nn.Sequential(
            nn.Conv2d(3, 5, 3, stride=2), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3), nn.AvgPool2d(2)
        ).double().eval()  # fmt: skip
        found = project(net, x, "3:1", position=(1, 0))
        leaf = x.clone().requires_grad_()
        (slope,) = torch.autograd.grad(net(leaf)[0, 1, 1, 0], leaf)
        assert np.allclose(found.map, found.value * slope[0].numpy(), atol=1e-6)
        assert any("no rectifier" in note for note in found.notes)

    def test_with_rectifiers_it_is_not(self, net, x):
        deconv, slope = (project(net, x, "8:3", rules=rules).map.ravel() for rules in ("deconvnet", "gradient"))
        assert np.corrcoef(deconv, slope)[0, 1] < 0.98

    def test_one_filter_is_drawn_at_its_field(self):
        conv = nn.Conv2d(3, 4, 5, stride=2)
        x = torch.randn(1, 3, 21, 25)
        found = project(nn.Sequential(conv, nn.ReLU()).eval(), x, "0:2", position=(3, 4))
        expected = np.zeros((3, 21, 25), np.float32)
        expected[:, 6:11, 8:13] = found.value * conv.weight[2].detach().numpy()
        assert np.allclose(found.map, expected, atol=1e-6) and found.box == ((6, 10), (8, 12))
        assert np.allclose(found.map[:, 6:11, 8:13], found._part().numpy())

    def test_the_whole_map_is_the_sum_where_nothing_is_rectified(self, x):
        net = nn.Sequential(nn.Conv2d(3, 5, 3, stride=2), nn.MaxPool2d(2), nn.Conv2d(5, 4, 3)).double().eval()
        whole = project(net, x, "2:0", position="all")
        with torch.no_grad():
            rows, columns = net(x).shape[2:]
        parts = sum(project(net, x, "2:0", position=(r, c)).map for r in range(rows) for c in range(columns))
        assert np.allclose(whole.map, parts, atol=1e-5) and whole.position is None

    def test_guided_and_gradient(self, net, x):
        value, trace = _recorded(net, x)
        seed = torch.zeros_like(value.data)
        found = project(net, x, "7:2", rules="guided")
        seed[(0, 2, *found.position)] = found.value
        assert np.allclose(found.map, trace.pull({value: seed}, pel.GUIDED).input()[0].numpy(), atol=1e-6)
        slope = project(net, x, "7:2", rules="gradient")
        leaf = x.clone().requires_grad_()
        out = net[:8](leaf)[(0, 2, *slope.position)]
        assert np.allclose(slope.map, slope.value * torch.autograd.grad(out, leaf)[0][0].numpy(), atol=1e-6)


class TestWhatIsSaid:
    def test_without_max_pooling(self, x):
        net = nn.Sequential(nn.Conv2d(3, 4, 3, stride=2), nn.GELU(), nn.Conv2d(4, 4, 3)).eval()
        found = project(net, x.float(), "2:1")
        assert any("no switches" in note for note in found.notes) and any("gelu" in note for note in found.notes)
        assert "Nie et al. 2018" in found.sentence()
        assert not any("switches" in note for note in project(net, x.float(), "2:1", rules="gradient").notes)
        pooled = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.MaxPool2d(2)).eval()
        assert project(pooled, x.float(), "2:1").notes == project(pooled, x.float(), "1:1").notes[1:] == ()

    def test_mistakes_are_told(self, net, x):
        for call, error, words in [
            (lambda: project(net, x, "8:9"), LayerError, "from 0 to 5"),
            (lambda: project(net, x, "8:1", position=(99, 0)), SettingError, "not on the map"),
            (lambda: project(net, x, "8:1", position=(1,)), SettingError, "not on the map"),
            (lambda: project(net, x, "8:1", position="some"), SettingError, "highest"),
            (lambda: project(net, x, "8:1", rules="lrp"), SettingError, "deconvnet"),
            (lambda: project_top(net, _found(net, x), "8:1", 0), SettingError, "at least one"),
            (lambda: project_top(net, _found(net, x), "7:1"), LayerError, "not watched"),
        ]:
            with pytest.raises(error, match=words):
                call()

    @pytest.mark.parametrize("axes", [1, 3])
    def test_lines_and_volumes(self, axes, tmp_path):
        conv, pool = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1], (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[axes - 1]
        net = nn.Sequential(conv(2, 3, 3), nn.ReLU(), pool(2), conv(3, 4, 2), nn.ReLU()).eval()
        x = torch.randn(5, 2, *(14,) * axes)
        found = exemplars(net, x, layers="4", progress=False)
        one = project_top(net, found, "4:1", 3)[0]
        assert one.map.shape == x.shape[1:] and one.save(tmp_path / "one.png").exists()
        assert np.isfinite(one.map).all()

    def test_a_unit_without_a_map(self):
        net = nn.Sequential(nn.Conv2d(1, 2, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(18, 4)).eval()
        found = project(net, torch.randn(1, 1, 8, 8), "4:2")
        assert found.position == () and found.box == ((0, 7), (0, 7)) and "its output" in repr(found)


class TestTop:
    def test_batched_as_one_by_one(self, net, tmp_path):
        x = torch.randn(14, 3, 44, 37).double()
        found = exemplars(net, x, layers="8", progress=False)
        many = project_top(net, found, "8:3", 5)
        assert len(many) == 5
        for one, best in zip(many, found.of("8:3").top, strict=False):
            alone = project(net, x[best.number][None], "8:3")
            assert one.position == best.position == alone.position and one.value == pytest.approx(best.value, rel=1e-6)
            assert np.allclose(one.map, alone.map, atol=1e-6)
        for suffix in (".png", ".html", ".json"):
            assert many.save(tmp_path / f"top{suffix}").stat().st_size > 500
            assert many[0].save(tmp_path / f"one{suffix}").stat().st_size > 500
        assert "8:3" in repr(many) and "excite" in many.sentence()

    def test_pictures_of_several_sizes(self, net):
        x = [torch.randn(3, *size).double() for size in ((44, 37), (50, 60), (44, 37), (33, 64))]
        found = exemplars(net, x, layers="8", progress=False)
        for one, best in zip(project_top(net, found, "8:1"), found.of("8:1").top, strict=True):
            assert one.map.shape == x[best.number].shape and one.position == best.position

    def test_a_trained_network(self, data):
        found = exemplars("builtin:photos", data / "cifar10" / "test.zip", limit=80, progress=False)
        many = project_top("builtin:photos", found, found.units[5], 4)
        for one, best in zip(many, found.of(found.units[5]).top, strict=False):
            assert one.value == pytest.approx(best.value, rel=1e-4) and one.box == found.of(found.units[5]).box(best)
        assert many.image().width > 300

    def test_on_a_picture(self):
        picture = pel.scenes.render(pel.scenes.compose(3)).pixels
        found = project("builtin:scenes", picture, _some_unit())
        size = found.crop(200).size
        assert max(size) == 200 and found.colours(200).size == found.signed(200).size == size


class _Times(nn.Module):
    def __init__(self, factor: float) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x):
        return x * self.factor


def _recorded(net, x):
    from pellucid.core.record import record

    trace = record(net, x)
    return trace.at("7"), trace


def _found(net, x):
    return exemplars(net, x, layers="8", progress=False)


def _some_unit() -> str:
    from pellucid.inside.opened import opened

    inside = opened("builtin:scenes")
    return f"{inside.layer(None)}:2"
