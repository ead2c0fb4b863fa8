"""Dreams: nothing without steps, uphill with them, tiles and shifts that leave no mark, any size and any network."""

import json

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from method_cases import undrawn
from oracles import visualisation as oracle
from pellucid.core.errors import Cancelled, ImageError, LayerError, ModelError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.transforms import Preprocess
from pellucid.inside.dream import dream
from pellucid.inside.dream_steps import Aim, Climber, _cuts, _match, canvas_of, resized
from pellucid.inside.opened import opened
from pellucid.models.model import wrap


def network(channels=3, head=True):
    layers = [nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(inplace=True), nn.Conv2d(6, 8, 3, stride=2), nn.ReLU()]
    return nn.Sequential(*layers, nn.Flatten(), *([nn.Linear(8 * 49, 3)] if head else [])).eval()


@pytest.fixture
def model():
    return wrap(network(), preprocess=Preprocess(resize_px=16, crop_px=16, mean=(0.5,) * 3, std=(0.2,) * 3))


@pytest.fixture
def picture():
    return np.random.default_rng(0).integers(0, 256, (37, 50, 3), dtype=np.uint8)


def climber(model, image, layer, tile_px=512, jitter_px=0, channel=None, guide=None):
    inside = opened(model, image)
    settings = {"steps": 3, "step_size": 0.01, "jitter_px": jitter_px, "tile_px": tile_px}
    aim = Aim.of(inside, [layer], channel, guide)
    return Climber(canvas_of(inside, image), aim, settings, Progress(), torch.Generator().manual_seed(0))


@pytest.mark.parametrize("octaves", [1, 3])
def test_without_steps_the_picture_comes_back_exactly(model, picture, octaves):
    found = dream(model, picture, layer="3", steps=0, octaves=octaves)
    assert (found.pixels == picture).all() and (found.original == picture).all()
    assert (np.rint(found.values * 255) == picture.transpose(2, 0, 1)).all()


def test_an_input_comes_back_exactly_in_its_own_units():
    x = torch.randn(1, 12, 20, 24)
    found = dream(network(12, head=False), x, layer="3", steps=0)
    assert (found.values == x[0].numpy()).all()
    moved = dream(network(12, head=False), x, layer="3", steps=2, octaves=2)
    assert x.min() <= moved.values.min() and moved.values.max() <= x.max() and (moved.values != x[0].numpy()).any()
    assert "range of the input" in moved.notes[-1]


@pytest.mark.parametrize("settings", [{}, {"channel": 3}, {"layer": ["1", "3"]}, {"tile_px": 16}])
def test_the_objective_rises_in_every_octave(model, picture, settings):
    found = dream(model, picture, **{"layer": "3", "octaves": 3, "jitter_px": 4, **settings})
    assert [o.size_px for o in found.octaves] == [(19, 26), (26, 36), (37, 50)]
    assert all(o.after > o.before for o in found.octaves)
    assert found.pixels.shape == picture.shape and (found.pixels != picture).any()


def test_the_objective_rises_in_a_trained_network(picture):
    found = dream("builtin:photos", picture, layer="stage1", octaves=2, steps=3)
    assert all(o.after > o.before for o in found.octaves)


def test_a_shift_and_its_return_are_the_identity(model, picture):
    one = climber(model, picture, "3", jitter_px=9)
    x = one.canvas.values
    for _ in range(5):
        shift = one._shift(x)
        assert max(map(abs, shift)) <= 9
        assert torch.equal(x.roll(shift, (1, 2)).roll([-s for s in shift], (1, 2)), x)


def test_a_picture_of_one_tile_is_the_same_tiled_and_not(model, picture):
    tiled, whole = (dream(model, picture, layer="3", octaves=1, tile_px=n, steps=3) for n in (50, 4096))
    assert (tiled.values == whole.values).all()


def test_tiles_cover_everything_once_and_the_gradient_is_that_of_each_tile(model, picture):
    cuts = _cuts(50, 16)
    assert [c.start for c in cuts[1:]] == [c.stop for c in cuts[:-1]] and cuts[0].start == 0 and cuts[-1].stop == 50
    assert max(c.stop - c.start for c in cuts) <= 16 and min(c.stop - c.start for c in cuts) >= 12
    one = climber(model, picture, "3", tile_px=25)
    x = one.canvas.values
    slope = one._gradient(x)[1]
    part = x[:, 18:, 25:].clone().requires_grad_()
    maps = model.module[:4](model.preprocess.normalise(part)[None])
    expected = torch.autograd.grad(maps.square().sum() / 2, part)[0]
    torch.testing.assert_close(slope[:, 18:, 25:], expected)


def test_one_step_is_the_normalised_gradient(model, picture):
    found = dream(model, picture, layer="3", octaves=1, steps=1, step_size=0.01, jitter_px=0)
    x = torch.from_numpy(picture).permute(2, 0, 1).float().div(255).requires_grad_()
    maps = model.module[:4](model.preprocess.normalise(x)[None])
    g = torch.autograd.grad(maps.square().sum() / 2, x)[0]
    expected = (x + 0.01 * g / g.abs().mean()).clamp(0, 1)
    np.testing.assert_allclose(found.values, expected.detach(), atol=1e-6)
    assert found.octaves[0].before == pytest.approx(
        float(maps.detach().square().sum() / 2) / maps[0, 0].numel(), rel=1e-5
    )


def test_octaves_go_as_in_the_slow_definition(model, picture):
    small = picture[:17, :14]
    pixels = torch.from_numpy(small).permute(2, 0, 1).float() / 255

    def slope(x):
        x = torch.from_numpy(x).float().requires_grad_()
        maps = model.module[:4](model.preprocess.normalise(x)[None])
        return torch.autograd.grad(maps.square().sum() / 2, x)[0].double().numpy()

    sizes = oracle.octave_sizes(17, 14, 3)
    expected = oracle.deep_dream(
        pixels.double().numpy(), slope, sizes, steps=2, step=0.01,
        shrink=lambda base, h, w: resized(pixels, (h, w)).double().numpy(),
    )[-1]  # fmt: skip
    found = dream(model, small, layer="3", octaves=3, steps=2, step_size=0.01, jitter_px=0)
    assert [o.size_px for o in found.octaves] == sizes
    np.testing.assert_allclose(found.values, expected.clip(0, 1), atol=1e-4)


def test_an_input_and_its_picture_dream_alike(model, picture):
    same = picture[:16, :16]
    x = model.preprocess.normalise(torch.from_numpy(same).permute(2, 0, 1)[None].float() / 255)
    shown, fed = (dream(model, image, layer="3", octaves=1, steps=3) for image in (same, x))
    back = model.preprocess.denormalise(torch.from_numpy(fed.values)[None])[0]
    np.testing.assert_allclose(back, shown.values, atol=1e-5)


def test_a_guide_is_matched_position_by_position(model, picture):
    a, g = torch.randn(5, 7), torch.randn(5, 4)
    assert float(_match(a, g)) == pytest.approx(float((a.T @ g).max(1).values.sum()), rel=1e-6)
    guide = np.random.default_rng(1).integers(0, 256, (30, 30, 3), dtype=np.uint8)
    found = dream(model, picture, layer="3", guide=guide, octaves=2)
    assert all(o.after > o.before for o in found.octaves) and "guided" in found.title
    assert (found.pixels != dream(model, picture, layer="3", octaves=2).pixels).any()


def test_the_best_match_does_not_depend_on_how_many_are_looked_up_at_a_time(monkeypatch):
    a, g = torch.randn(5, 700), torch.randn(5, 40)
    whole = _match(a, g)
    monkeypatch.setattr("pellucid.inside.dream_steps.MATCHES", 100)
    assert torch.equal(_match(a, g), whole)


def test_the_same_seed_gives_the_same_dream(model, picture):
    first, again, other = (dream(model, picture, layer="3", octaves=2, seed=s) for s in (1, 1, 2))
    assert (first.values == again.values).all() and (first.values != other.values).any()


def test_a_head_of_fixed_size_does_not_matter_before_it(model, picture):
    assert dream(model, picture, layer="3", octaves=1, steps=1).pixels.shape == (37, 50, 3)
    with pytest.raises(ImageError, match=r'up to layer "5" on 37 x 50 px .*choose a layer before'):
        dream(model, picture, layer="5", octaves=2, steps=1)
    assert len(dream(model, picture[:16, :16], layer="5", octaves=1, steps=1, channel=2).octaves) == 1


def test_octaves_too_small_for_the_network_are_passed_over():
    net = nn.Sequential(nn.Conv2d(3, 4, 9, stride=2), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    found = dream(net, torch.rand(1, 3, 12, 30), layer="1", octaves=3, steps=2, jitter_px=2)
    assert [o.size_px for o in found.octaves] == [(9, 21), (12, 30)]
    assert any("6 x 15 px is too small" in note for note in found.notes)


def test_grey_networks_and_channels_last(picture):
    grey = wrap(network(1), preprocess=Preprocess(resize_px=16, crop_px=16, channels=1))
    found = dream(grey, picture, layer="3", octaves=1, steps=2)
    assert found.values.shape == (1, 37, 50) and (found.pixels[..., 0] == found.pixels[..., 1]).all()

    class LastChannels(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.norm = nn.Conv2d(3, 5, 2, 2), nn.LayerNorm(5)

        def forward(self, x):
            return self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2))

    x = torch.rand(1, 3, 16, 20)
    net = LastChannels().eval()
    found = dream(net, x, layer="norm", channel=4, octaves=1, steps=1)
    assert found.octaves[0].before == pytest.approx(float(net(x)[0, 4].detach()), rel=1e-4)


def test_a_silent_channel_changes_nothing_and_says_so(model, picture):
    model.module[2].bias.data[1] = -1e3
    found = dream(model, picture, layer="3", channel=1, octaves=2, steps=3)
    assert (found.pixels == picture).all() and any("6 steps changed nothing" in note for note in found.notes)


def test_a_stop_keeps_the_finished_octaves(model, picture):
    progress = Progress()
    progress.on_event = lambda done, total, label: progress.cancel() if done == 7 else None
    found = dream(model, picture, layer="3", octaves=3, steps=5, progress=progress)
    assert len(found.octaves) == 1 and found.pixels.shape == picture.shape and (found.pixels != picture).any()
    assert any("after 1 of 3 octaves" in note for note in found.notes)
    progress = Progress()
    progress.on_event = lambda done, total, label: progress.cancel()
    with pytest.raises(Cancelled):
        dream(model, picture, layer="3", octaves=3, steps=5, progress=progress)


def test_gradients_come_through_in_place_rectifiers_and_inference_mode(model, picture):
    with torch.inference_mode():
        found = dream(model, picture, layer="1", octaves=1, steps=1)
    assert found.octaves[0].after > found.octaves[0].before


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"octaves": 0}, "octaves=0"),
        ({"steps": -1}, "steps=-1"),
        ({"octave_scale": 1.0}, "octave_scale"),
        ({"step_size": 0.0}, "step_size"),
        ({"tile_px": 8}, "tile_px"),
        ({"channel": -1}, "channel=-1"),
        ({"channel": 1, "guide": np.zeros((9, 9, 3), np.uint8)}, "a guide and a channel"),
        ({"seed": 2**50}, "seed"),
    ],
)
def test_settings_out_of_range_are_refused(model, picture, settings, words):
    with pytest.raises(SettingError, match=words):
        dream(model, picture, **{"layer": "3", **settings})


def test_what_can_not_be_dreamt_of_is_told(model, picture):
    with pytest.raises(LayerError, match='no layer "9"'):
        dream(model, picture, layer="9")
    with pytest.raises(LayerError, match="it has 8, from 0 to 7"):
        dream(model, picture, layer="3", channel=8)
    with pytest.raises(ImageError, match="one at a time"):
        dream(model, torch.rand(2, 3, 16, 16), layer="3")
    with pytest.raises(ModelError, match="not known"):
        dream(network(), picture, layer="3")
    with pytest.raises(ImageError, match="made of pictures"):
        dream(nn.Sequential(nn.Conv1d(2, 3, 3), nn.Flatten()).eval(), torch.rand(1, 2, 30), layer="0")


def test_dreams_are_saved(model, picture, tmp_path):
    found = dream(model, picture, layer="3", octaves=2, steps=2)
    for suffix in (".png", ".html", ".json"):
        assert found.save(tmp_path / f"dream{suffix}").stat().st_size > 100
    facts = json.loads((tmp_path / "dream.json").read_text())
    assert facts["settings"]["layer"] == ["3"] and len(facts["tables"][0]["rows"]) == 2
    assert found.image().size == (50, 37) and found.sheet().width > 100 and "2 octaves" in repr(found)


def test_the_network_comes_back_as_it_was(model, picture, untouched):
    with untouched(model.module), undrawn():
        dream(model, picture, layer="3", octaves=1, steps=1)
    with untouched(model.module), undrawn(), pytest.raises(ImageError):
        dream(model, picture, layer="5", octaves=1, steps=1)


def test_functional_layers_before_a_reused_module():
    class Twice(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3, padding=1), nn.ReLU(inplace=True)

        def forward(self, x):
            x = F.relu(self.conv(x)) + x
            return self.act(self.act(self.conv(x)) + x).mean((2, 3))

    for layer in ("conv#0", "act#0", "act#1"):
        found = dream(Twice().eval(), torch.rand(1, 3, 14, 14), layer=layer, octaves=1, steps=2, jitter_px=2)
        assert found.octaves[0].after > found.octaves[0].before


def test_a_real_network_dreams(data):
    pytest.importorskip("torchvision", reason="torchvision is not installed")
    from pellucid.models.resolve import load

    model = load("torchvision:squeezenet1_1", weights=str(data / "imagenet" / "squeezenet1_1_fp16.safetensors"))
    grey = np.full((90, 120, 3), 128, np.uint8)
    noisy = grey + np.random.default_rng(0).integers(-20, 20, grey.shape).astype(np.uint8)
    found = dream(model, noisy, layer="features.8", octaves=3, steps=4)
    assert all(o.after > 2 * o.before for o in found.octaves)


def test_a_network_of_one_size_only_says_so_whatever_it_raises():
    class OneSize(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv, self.act = nn.Conv2d(3, 3, 3), nn.ReLU()

        def forward(self, x):
            assert x.shape[-1] == 16, "only 16"
            return self.act(self.conv(x)).mean((2, 3))

    model = wrap(OneSize().eval(), preprocess=Preprocess(resize_px=16, crop_px=16))
    with pytest.raises(ImageError, match=r"only 16.*octaves=1"):
        dream(model, np.zeros((20, 30, 3), np.uint8), layer="act", octaves=2, steps=1)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float64])
def test_any_precision_will_do(model, picture, dtype):
    model.module.to(dtype)
    found = dream(model, picture, layer="3", octaves=2, steps=2)
    assert all(o.after > o.before for o in found.octaves)
    assert (dream(model, picture, layer="3", octaves=2, steps=0).pixels == picture).all()
