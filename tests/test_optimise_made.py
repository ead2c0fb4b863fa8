"""Pictures made from end to end: what they do to the network, what they don't do to it, and how work stops."""

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import pellucid as pel
from method_cases import undrawn
from optimise_cases import PHOTOS, example, small
from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress
from pellucid.core.record import record
from pellucid.inside.opened import Unit, opened
from pellucid.inside.optimise import objectives
from pellucid.inside.optimise.groups import alignment, diversity
from pellucid.inside.optimise.imitating import caricature, invert
from pellucid.inside.optimise.maco import Maco
from pellucid.inside.optimise.making import optimise
from pellucid.inside.optimise.vectors import invert_vectors
from pellucid.inside.optimise.wishes import Seen


@pytest.mark.parametrize("channels", [1, 3, 12])
@pytest.mark.parametrize("parametrisation", ["fourier", "pixels", Maco(crops=2)])
def test_any_number_of_channels_and_sides(channels, parametrisation):
    net = small(channels)
    found = optimise(net, ["2:1", "6:2", "2"], image=example(channels), steps=6, parametrisation=parametrisation)
    larger = 2 if isinstance(parametrisation, Maco) else 1
    assert found.pictures.shape == (3, channels, 12 * larger, 14 * larger)
    assert len(found.images()) == 3 and np.isfinite(found.values).all()
    assert "input units" in found.notes[0]


@pytest.mark.parametrize("parametrisation", ["fourier", "pixels", Maco(crops=3)])
def test_a_batch_is_as_many_single_runs(parametrisation):
    net, asked = small(), ["2:1", "6:2", objectives.layer("0"), "2:5@centre"]
    given = {"image": example(), "steps": 25, "parametrisation": parametrisation}
    together = optimise(net, asked, **given)
    for number, one in enumerate(asked):
        alone = optimise(net, one, **given)
        assert np.allclose(alone.pictures[0], together.pictures[number], atol=1e-9)
        assert np.isclose(alone.values[0], together.values[number])


def test_a_seed_says_it_all_and_another_one_says_something_else():
    net, given = small(), {"image": example(), "steps": 8}
    first, again, other = (optimise(net, ["2:1", "0:3"], seed=s, **given) for s in (3, 3, 4))
    assert np.array_equal(first.pictures, again.pictures) and first.values == again.values
    assert not np.allclose(first.pictures, other.pictures, atol=1e-3)


def test_the_value_is_that_of_the_8_bit_picture_without_transforms():
    found = optimise(PHOTOS, ["stage2.1:3", "logit:dog"], steps=10)
    model = pel.load(PHOTOS)
    x = model.preprocess.normalise(torch.from_numpy(found.eight_bit).permute(0, 3, 1, 2).float() / 255)
    trace = record(model.module, x)
    maps = trace.at("stage2.1").data[0, 3]
    assert np.isclose(found.values[0], float(maps.mean()), rtol=1e-4)
    assert np.isclose(found.peaks[0], float(maps.max()), rtol=1e-4)
    assert np.isclose(found.values[1], float(trace.scores[1, model.index("dog")]), rtol=1e-4)
    assert np.isnan(found.peaks[1]) and found.units == (Unit("stage2.1", 3), None)


def test_the_field_of_a_first_layer_unit_shows_its_kernel():
    model = pel.load(PHOTOS)
    asked = [objectives.unit(f"stem.0:{k}") - 6000 * objectives.l2() for k in range(8)]
    found = optimise(
        PHOTOS, asked, steps=100, learning_rate=0.02, transforms="none", colour="none", parametrisation="pixels"
    )
    kernels = model.module.get_submodule("stem.0").weight.detach() / torch.tensor(model.preprocess.std).view(3, 1, 1)
    (top, bottom), (left, right) = opened(PHOTOS).field("stem.0").box((16, 16))
    for kernel, picture in zip(kernels, found.pictures, strict=False):
        crop = picture[:, top:bottom, left:right] - 0.5
        assert np.corrcoef(crop.flatten(), kernel.flatten())[0, 1] > 0.9


@pytest.mark.parametrize("layer", ["stem.0", "stem"])
def test_the_network_is_left_as_it_was(layer, untouched):
    module = pel.load(PHOTOS).module
    model = pel.wrap(module, preprocess=pel.load(PHOTOS).preprocess)
    with untouched(module), undrawn():
        optimise(model, [f"{layer}:1", "logit:3"], steps=3)
    with untouched(module), undrawn(), pytest.raises(SettingError):
        optimise(model, objectives.l2(), steps=3)


class Late(nn.Module):
    """Its second channel is far below zero for any grey picture."""

    def __init__(self, relu):
        super().__init__()
        self.conv, self.relu = nn.Conv2d(3, 2, 3), relu
        with torch.no_grad():
            self.conv.weight.copy_(torch.randn(self.conv.weight.shape))
            self.conv.bias.copy_(torch.tensor([0.0, -self.conv.weight[1].abs().sum() * 0.15]))
            self.conv.bias[1] -= self.conv.weight[1].sum() * 0.5

    def forward(self, x):
        return self.relu(self.conv(x))


@pytest.mark.parametrize("relu", [nn.ReLU(), nn.ReLU(inplace=True), nn.ReLU6(), torch.relu, lambda x: x.clamp(min=0)])
def test_a_unit_that_is_dead_at_the_start_gets_going(relu, untouched):
    net, x = Late(relu).eval(), torch.zeros(1, 3, 12, 12)
    x[0, 0, 0, 0] = 1
    assert not (Late.forward(net, torch.full((1, 3, 12, 12), 0.5))[0, 1] > 0).any()
    layer = "relu" if isinstance(relu, nn.Module) else ""
    asked = "relu:1" if layer else objectives.target(pel.custom(lambda y: y[:, 1].mean((1, 2)), "second"))
    with untouched(net), undrawn():
        found = optimise(net, asked, image=x, steps=40, learning_rate=0.1)
    assert found.heights[0, 0] == 0 and found.values[0] > 0
    assert not any("never excited" in note for note in found.notes)


def test_a_unit_that_nothing_can_wake_is_told():
    net = nn.Sequential(nn.Conv2d(3, 2, 3), nn.ReLU()).eval()
    with torch.no_grad():
        net[0].bias.fill_(-1e6)
    found = optimise(net, ["1:0"], image=example().float(), steps=20)
    assert found.values == (0.0,) and "never excited" in found.notes[-1]


def test_pictures_for_one_objective_differ_more_when_they_must():
    net = small()
    given = {"image": example(), "steps": 40, "count": 3, "transforms": "none"}
    alike = optimise(net, objectives.channel("2:1"), **given)
    apart = optimise(net, objectives.channel("2:1") - 10 * diversity("0"), **given)
    assert alike.names == ("channel 2:1 #0", "channel 2:1 #1", "channel 2:1 #2")
    assert _likeness(net, apart) < _likeness(net, alike)


def _likeness(net, found):
    known = opened(net, example())
    x = torch.from_numpy(found.pictures).double()
    maps = record(net, x).at("0").data
    return float(diversity("0").on(known).read(Seen(known, {"0": maps}, x)).mean())


def test_pictures_between_two_objectives():
    asked = objectives.interpolation(objectives.channel("2:1"), objectives.channel("2:5")) + 0.1 * alignment("2")
    found = optimise(small(), asked, image=example(), steps=20, count=3)
    maps = record(small(), torch.from_numpy(found.pictures).double()).at("2").data.mean((2, 3))
    assert maps[0, 1] > maps[2, 1] and maps[2, 5] > maps[0, 5]


def test_cancelled_work_keeps_what_there_is():
    progress = Progress()
    progress.on_event = lambda done, total, label: progress.cancel() if done >= 12 else None
    found = optimise(small(), ["2:1", "2:2"], image=example(), steps=50, progress=progress)
    assert found.heights.shape == (2, 7) and found.pictures.shape[0] == 2
    assert any("stopped after 7 of 50 steps" in note for note in found.notes)


def test_progress_counts_every_step():
    counts = []
    optimise(
        small(),
        ["2:1", "2:2"],
        image=example(),
        steps=5,
        progress=Progress(on_event=lambda d, t, _: counts.append((d, t))),
    )
    assert counts[-1] == (10, 10) and len(counts) == 5


def test_memory_that_runs_out_halves_the_batch(monkeypatch):
    from pellucid.core.watch import Watch

    whole, sizes = Watch.__call__, []

    def scarce(self, x):
        if len(x) > 2:
            raise torch.OutOfMemoryError("CUDA out of memory")
        sizes.append(len(x))
        return whole(self, x)

    expected = optimise(small(), [f"2:{k}" for k in range(5)], image=example(), steps=4)
    monkeypatch.setattr(Watch, "__call__", scarce)
    found = optimise(small(), [f"2:{k}" for k in range(5)], image=example(), steps=4)
    assert np.allclose(found.pictures, expected.pictures, atol=1e-9) and max(sizes) == 2
    assert any("memory ran out" in note for note in found.notes)


def test_snapshots_are_kept():
    found = optimise(small(), "2:1", image=example(), steps=10, snapshots=(0, 4, 10))
    assert sorted(found.snapshots) == [0, 4, 10]
    assert np.array_equal(found.snapshots[10], found.eight_bit)
    assert np.abs(found.snapshots[0].astype(int) - 128).max() < 20


def test_a_result_tells_and_saves_itself(tmp_path):
    found = optimise(PHOTOS, ["stage2.1:3", "stage2.1:4"], steps=4)
    values, traces = found.tables
    assert values.column("value of the 8-bit picture") == list(found.values)
    assert len(traces.rows) == 4 and traces.columns == ("step", "channel stage2.1:3", "channel stage2.1:4")
    for suffix in (".png", ".html", ".json"):
        assert found.save(tmp_path / f"made{suffix}").stat().st_size > 500
    assert "stage2.1:3" in repr(found) and "4 steps" in found.sentence()
    assert "natural pictures" in found.settings["colours"]


def test_percentiles_are_shares_of_the_data():
    found = optimise(PHOTOS, ["stage2.1:3", "stage2.1:4"], steps=2)
    values = [np.array([0, 1, 2, 1e9]), np.array([1e9])]
    assert found.percentile(values) == [100 * np.mean(values[0] < found.peaks[0]), 0.0]
    with pytest.raises(SettingError, match="not one unit"):
        optimise(PHOTOS, "logit:3", steps=1).percentile([values[0]])


def test_maco_shows_through_what_was_never_pulled_at():
    found = optimise(PHOTOS, "stage1.1:3", steps=4, parametrisation=Maco(crops=2))
    assert found.opacity.shape == (1, 64, 64) and found.opacity.min() >= 0 and found.opacity.max() == 1
    assert found.images(transparent=True)[0].mode == "RGBA" and found.images()[0].mode == "RGB"


def test_a_picture_can_be_the_start():
    picture = np.tile(np.linspace(30, 220, 32, dtype=np.uint8)[:, None, None], (1, 32, 3))
    kept = optimise(PHOTOS, "stage2.1:3", steps=1, learning_rate=1e-6, start=picture)
    assert np.abs(kept.eight_bit[0].astype(int) - picture).max() <= 2
    moved = optimise(PHOTOS, "stage2.1:3", steps=20, start=picture)
    assert moved.values[0] > kept.values[0]


def test_a_first_layer_gives_a_picture_back():
    picture = np.asarray(Image.effect_noise((32, 32), 60).resize((32, 32)).convert("RGB"))
    found = invert(PHOTOS, picture, ["stem", "stage2.2"], steps=60, smoothness=0)
    error = np.abs(found.eight_bit.astype(float) - picture).mean((1, 2, 3))
    assert error[0] < 20 < error[1]
    assert found.values[0] > -0.1


def test_a_caricature_exaggerates():
    picture = np.asarray(Image.effect_mandelbrot((32, 32), (-2, -1, 1, 1), 40).convert("RGB"))
    found = caricature(PHOTOS, picture, "stem", steps=100, cosine_power=1)
    assert found.values[0] > 1.1
    with pytest.raises(SettingError, match="imitated"):
        caricature(PHOTOS, picture, parametrisation="maco")


def test_icons_point_where_their_vectors_point():
    known = opened(PHOTOS)
    vectors = torch.eye(known.units("stage2.1"))[[3, 9, 20]] + 0.1
    icons = torch.from_numpy(invert_vectors(known, "stage2.1", vectors, steps=48))
    assert icons.shape == (3, 3, 32, 32) and icons.min() >= 0 and icons.max() <= 1
    maps = record(known.model.module, known.model.preprocess.normalise(icons)).at("stage2.1").data
    centre = maps[:, :, maps.shape[2] // 2, maps.shape[3] // 2]
    cosines = nn.functional.normalize(centre, dim=1) @ nn.functional.normalize(vectors, dim=1).T
    assert (cosines.diagonal() > cosines.roll(1, 1).diagonal() + 0.05).all()
    whitened = invert_vectors(known, "stage2.1", vectors[:1], whiten=torch.eye(vectors.shape[1]), steps=2, icon_px=24)
    assert whitened.shape == (1, 3, 24, 24)
    alone = invert_vectors(known, "stage2.1", vectors[:1], steps=2, icon_px=24)
    assert np.array_equal(alone, whitened)
