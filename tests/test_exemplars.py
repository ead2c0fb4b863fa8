"""Exemplars: the best pictures of every unit, what it saw of them, and how its values are distributed."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from exemplar_nets import LAYERS, Branching, all_maps, signature
from method_cases import undrawn
from oracles import exemplars as oracle
from pellucid.inside.exemplars import Exemplars, exemplars
from pellucid.inside.exemplars.crops import GREY, OUTLINE


@pytest.fixture
def net() -> nn.Module:
    return Branching().eval()


@pytest.fixture
def inputs() -> torch.Tensor:
    return torch.randn(41, 3, 37, 29)


class Log(nn.Module):
    def forward(self, x):
        return x.log()


class TestAgainstSortingEverything:
    def test_top_bottom_and_strata(self, net, inputs, untouched):
        with untouched(net), undrawn():
            found = exemplars(net, inputs, layers=LAYERS, top=7, bottom=5, quantile_bins=6, batch=16, progress=False)
        for layer in LAYERS:
            maps = all_maps(net, inputs, layer)
            for unit in range(0, maps.shape[1], 3):
                one = found.of(f"{layer}:{unit}")
                for mine, theirs in ((one.top, oracle.top(maps, unit, 7)), (one.bottom, oracle.bottom(maps, unit, 5))):
                    assert [e.number for e in mine] == [f.image for f in theirs]
                    assert [e.value for e in mine] == [f.value for f in theirs]
                    places = [f.place if layer != "last" else () for f in theirs]
                    assert [e.position for e in mine] == places
                assert [oracle.stratum_of(maps, unit, 6, e.number) for e in one.stratified] == list(range(6))
                assert oracle.rank_error(maps[:, unit], one.quantile(0.37), 0.37) <= one.rank_error + 1 / 41
                share = 100 * oracle.share_below(maps[:, unit], 0.1)
                assert one.percentile(0.1) == pytest.approx(share, abs=100 * one.rank_error + 1e-9)
                if one.rank_error == 0:
                    assert one.quantile(0.37) == pytest.approx(oracle.quantile(maps[:, unit], 0.37))
            assert (found.rank_error(layer) == 0) == (layer != "first")

    def test_ties_go_to_the_lower_number(self):
        net = nn.Sequential(nn.Conv2d(1, 1, 1), nn.ReLU()).eval()
        nn.init.ones_(net[0].weight), nn.init.zeros_(net[0].bias)
        x = torch.zeros(30, 1, 4, 4)
        x[[4, 9, 20], 0, 2, 1:3] = 1.0
        for batch in (1, 7, 30):
            one = exemplars(net, x, units="1:0", top=5, bottom=3, batch=batch, progress=False).of("1:0")
            assert [(e.number, e.position) for e in one.top] == [
                (4, (2, 1)), (9, (2, 1)), (20, (2, 1)), (0, (0, 0)), (1, (0, 0)),
            ]  # fmt: skip
            assert [e.number for e in one.bottom] == [0, 1, 2]

    def test_more_asked_for_than_there_is(self, net, inputs):
        one = exemplars(net, inputs[:3], units="joined:2", top=9, random=5, quantile_bins=7, progress=False).of(
            "joined:2"
        )
        assert len(one.top) == len(one.random) == 3 and len(one.stratified) == 3


class TestWhateverTheBatch:
    def test_nothing_depends_on_it(self, net, inputs):
        net.double()
        x = inputs.double()
        kinds = {"top": 6, "bottom": 3, "random": 4, "quantile_bins": 3}
        found = [exemplars(net, x, layers=LAYERS, batch=b, progress=False, **kinds) for b in (1, 5, 41)]
        assert signature(found[0]) == signature(found[1]) == signature(found[2])
        for unit in ("first:3", "last:1"):
            values = [f.quantile(unit, 0.9) for f in found]
            assert np.ptp(values) < 1e-6

    def test_what_is_drawn_depends_on_the_seed_alone(self, net, inputs):
        def drawn(seed, batch):
            one = exemplars(net, inputs, layers="last", random=6, seed=seed, batch=batch, progress=False).of("last:0")
            return [e.number for e in one.random]

        assert drawn(1, 3) == drawn(1, 20) != drawn(2, 3)
        counts = np.bincount([n for seed in range(60) for n in drawn(seed, 41)], minlength=41)
        assert counts.sum() == 360 and counts.max() < 25  # each has 8.8 on average

    def test_pictures_of_several_sizes(self, net):
        x = [torch.randn(3, *size) for size in ((37, 29), (37, 29), (50, 41), (33, 64), (37, 29))]
        found = exemplars(net, x, layers="joined", top=5, batch=4, progress=False)
        for unit in range(3):
            for e in found.of(f"joined:{unit}").top:
                maps = all_maps(net, x[e.number][None], "joined")
                best = oracle.per_image(maps, unit)[0]
                assert e.value == pytest.approx(best.value, abs=1e-5) and e.position == best.place
                assert found.of(f"joined:{unit}").field(e).input_px == tuple(x[e.number].shape[1:])


class TestWhatTheUnitSaw:
    """Replacing every pixel outside the crop leaves the stored activation bit by bit as it was."""

    @staticmethod
    def hold(module: nn.Module, found: Exemplars, unit: str, batch: int, count: int = 3) -> int:
        """How many of the boxes leave something of the picture out."""
        one, smaller = found.of(unit), 0
        for e in one.top[:count]:
            x, box = found.data.input(e.number), one.box(e)
            inside = (slice(None), *(slice(max(0, a), b + 1) for a, b in box))
            other = torch.randn_like(x) * 7
            other[inside] = x[inside]
            smaller += not torch.equal(other, x)
            start = e.number // batch * batch
            numbers = range(start, min(start + batch, len(found.data)))
            same = torch.stack([other if n == e.number else found.data.input(n) for n in numbers])
            value = all_maps(module, same, one.unit.layer, batch)[e.number - start, one.unit.channel]
            assert value[e.position or (0, 0)] == np.float32(e.value)
        return smaller

    @pytest.mark.parametrize("layer", ["first", "again#0", "wide", "joined"])
    def test_on_a_branching_network(self, net, layer):
        x = torch.randn(12, 3, 77, 69)
        found = exemplars(net, x, layers=layer, batch=4, progress=False)
        assert sum(self.hold(net, found, f"{layer}:{unit}", 4) for unit in (0, 3, 7)) > 5

    def test_on_a_trained_network(self):
        model = pel.load("builtin:photos")
        x = torch.randn(16, 3, 32, 32)
        layers = [name for name, _ in model.module.named_modules() if name.endswith("conv1")][:2]
        found = exemplars(model, x, layers=layers, batch=8, progress=False)
        assert sum(self.hold(model.module, found, f"{layer}:{u}", 8) for layer in layers for u in (0, 5)) > 5

    def test_the_box_is_no_larger_than_it_must_be(self, net):
        x = torch.randn(6, 3, 77, 69)
        found = exemplars(net, x, layers="joined", progress=False)
        one = found.of("joined:1")
        e = one.top[0]
        (top, bottom), (left, right) = one.box(e)
        assert one.patch(e).shape == (3, bottom - top + 1, right - left + 1)
        changed = x[e.number].double().clone().requires_grad_()
        rows = []
        handle = net.double().joined.register_forward_hook(lambda m, a, out: rows.append(out))
        net(changed[None])
        handle.remove()
        (slope,) = torch.autograd.grad(rows[0][(0, 1, *e.position)], changed)
        reached = slope.abs().sum(0).nonzero()
        assert reached.min(0).values.tolist() >= [max(top, 0), max(left, 0)]
        assert (reached.max(0).values - reached.min(0).values).min() > 0.6 * min(bottom - top, right - left)

    def test_a_layer_without_positions_sees_everything(self, net, inputs):
        one = exemplars(net, inputs, layers="last", progress=False).of("last:2")
        assert one.top[0].position == () and one.box(one.top[0]) == ((0, 36), (0, 28))


class TestCropsOnThePicture:
    @pytest.fixture
    def model(self):
        conv = nn.Conv2d(3, 1, 5, padding=2, bias=False)
        nn.init.ones_(conv.weight)
        scale = pel.preprocess(resize_px=(16, 16), crop_px=(12, 12))
        return pel.wrap(nn.Sequential(conv, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval(), preprocess=scale)

    def test_pixels_of_the_picture_and_grey_beyond(self, model):
        picture = np.zeros((32, 64, 3), np.uint8)
        picture[4:8, 8:16] = 255  # a corner of what the network is fed: it sees rows 4 to 28, columns 8 to 56
        one = exemplars(model, [picture], layers="0", progress=False).of("0:0")
        e = one.top[0]
        (top, bottom), (left, right) = one.box(e)
        assert (bottom - top, right - left) == (4, 4) and top < 0 and left < 0
        crop = np.asarray(one.crop(e))
        assert crop.shape == (10, 20, 3)
        rows, columns = -top * 2, -left * 4
        assert (crop[:rows] == GREY).all() and (crop[:, :columns] == GREY).all()
        shown = picture[4 : 4 + 10 - rows, 8 : 8 + 20 - columns]
        assert (crop[rows:, columns:] == shown).all()
        assert max(one.crop(e, 100).size) == 100

    def test_the_mask(self):
        model = pel.load("builtin:photos")
        scenes = [pel.scenes.render(pel.scenes.compose(seed)).pixels for seed in range(12)]
        found = exemplars(model, scenes, progress=False)
        one = found.of(found.units[3])
        best = one.top[0]
        image = np.asarray(one.mask(best, 0.9))
        assert image.shape == (32, 32, 3) and (image == OUTLINE).all(2).any()
        from pellucid.inside.exemplars.crops import at_centres

        cells, field = one.maps(best), one.field(best)
        assert cells.max() == pytest.approx(best.value, rel=1e-4)
        line = [(w + h) / 2 for w, h in zip(field.low, field.high, strict=True)]

        class Axis:
            def __init__(self, centres):
                self.start, self.stride = centres[0], centres[1] - centres[0]

        theirs = oracle.at_centres(cells, [Axis(centres) for centres in line], (32, 32))
        assert np.allclose(at_centres(cells.astype(float), field, (32, 32)), theirs, atol=1e-5)

    def test_the_mask_is_drawn_like_the_definition(self):
        from pellucid.inside.exemplars.crops import masked

        pixels = np.random.default_rng(0).integers(0, 256, (9, 11, 3), dtype=np.uint8)
        mask = np.zeros((9, 11), bool)
        mask[2:5, 3:8] = mask[0, 0] = True
        theirs = oracle.show_mask(pixels.transpose(2, 0, 1) / 255, mask).transpose(1, 2, 0)
        assert np.abs(masked(pixels, mask) - theirs * 255).max() <= 0.5 + 1e-9


class TestOtherInputs:
    @pytest.mark.parametrize("axes", [1, 3])
    def test_lines_and_volumes(self, axes):
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[axes - 1](2, 4, 3, stride=2)
        pool = (nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d, nn.AdaptiveAvgPool3d)[axes - 1](1)
        net = nn.Sequential(conv, nn.ReLU(), pool, nn.Flatten(), nn.Linear(4, 2)).eval()
        x = torch.randn(10, 2, *(12,) * axes)
        one = exemplars(net, x, layers="1", progress=False).of("1:1")
        e = one.top[0]
        with torch.no_grad():
            maps = net[1](net[0](x))[:, 1]
        assert e.value == pytest.approx(float(maps.max()), abs=1e-6)
        assert float(maps[(e.number, *e.position)]) == pytest.approx(e.value, abs=1e-6)
        assert one.box(e) == tuple((2 * p, 2 * p + 2) for p in e.position)
        assert one.patch(e).shape == (2, *(3,) * axes) and one.image().width > 100

    def test_twelve_channels_and_one(self):
        for channels in (1, 12):
            net = Branching(channels).eval()
            found = exemplars(net, torch.randn(9, channels, 40, 40), layers="wide", progress=False)
            assert found.of("wide:0").image().height > 100

    def test_values_that_are_no_numbers_come_last(self):
        net = nn.Sequential(Log()).eval()
        x = torch.rand(6, 1, 4, 4)
        x[2] = -1
        x[3, 0, 1, 1] = -1
        one = exemplars(net, x, layers="0", progress=False).of("0:0")
        assert one.top[-1].number == 2 and one.top[-1].value == -np.inf
        assert {e.number for e in one.top[:5]} == {0, 1, 3, 4, 5}

    def test_dead_units(self):
        net = nn.Sequential(nn.Conv2d(1, 3, 1), nn.ReLU(), nn.Flatten()).eval()
        nn.init.zeros_(net[0].weight)
        net[0].bias.data = torch.tensor([-1.0, 1.0, 0.0])
        found = exemplars(net, torch.rand(5, 1, 3, 3), layers="1", progress=False)
        assert [str(unit) for unit in found.dead] == ["1:0", "1:2"]
        assert "dead unit" in found.of("1:0").sentence() and not found.of("1:1").dead
        assert "2 of them are never above zero" in found.sentence()


class TestRealNetworks:
    def test_squeezenet_on_photographs(self, data, untouched):
        import sys

        sys.path.insert(0, str(data))
        import torchvision
        from safetensors.torch import load_file

        module = torchvision.models.squeezenet1_1()
        weights = load_file(data / "imagenet" / "squeezenet1_1_fp16.safetensors")
        module.load_state_dict({k: v.float() for k, v in weights.items()})
        scale = pel.preprocess(resize_px=(227, 227), mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
        model = pel.wrap(module.eval(), preprocess=scale)
        with untouched(module), undrawn():
            found = exemplars(
                model, data / "imagenet_sample", layers=["features.3", "features.9"], limit=12, batch=4, progress=False
            )
        for layer in ("features.3", "features.9"):
            maps = []
            for _, x in found.data.batches(4):
                maps.append(all_maps(module, x, layer, 4))
            maps = np.concatenate(maps)
            for unit in (0, 50, 100):
                one = found.of(f"{layer}:{unit}")
                assert [e.number for e in one.top] == [f.image for f in oracle.top(maps, unit, 9)]
            assert TestWhatTheUnitSaw.hold(module, found, f"{layer}:50", 4) >= (3 if layer == "features.3" else 1)
        assert max(found.of("features.3:50").crop(found.of("features.3:50").top[0]).size) < 120

    def test_builtin_photos_knows_horses(self, data):
        found = exemplars("builtin:photos", data / "cifar10" / "test.zip", limit=300, progress=False)
        pure = max(max(one.labels.values(), default=0) for one in found)
        assert pure >= 8 and found.read == 300
