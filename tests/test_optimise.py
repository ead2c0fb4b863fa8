"""Pictures made by ascent, part by part: spectra, colours, transforms, objectives, ranges, chance."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from oracles import visualisation as oracle
from pellucid.core.errors import ModelError, SettingError
from pellucid.images.datasets import pictures
from pellucid.images.decode import decode
from pellucid.inside.opened import opened
from pellucid.inside.optimise.canvases import Fourier, Pixels, frequencies
from pellucid.inside.optimise.chance import source
from pellucid.inside.optimise.colour import Colours, colours, of_pictures, root
from pellucid.inside.optimise.maco import Crops, Maco, Phases, amounts
from pellucid.inside.optimise.space import space_of
from pellucid.inside.optimise.transforms import ROBUST, Transforms, draws, looked_at, transforms_of

HOME = torch.empty(0, dtype=torch.float64)
NATURAL = Colours(torch.tensor(oracle.LUCID, dtype=torch.float32), "natural")
SIZES = [(8, 8), (7, 9), (8, 5), (5, 12)]


def random(count=1):
    return [source(0, f"picture {i}") for i in range(count)]


@pytest.mark.parametrize("size", [*SIZES, (1, 6), (64, 65)])
def test_frequencies_are_those_of_numpy(size):
    whole = np.sqrt(np.fft.fftfreq(size[0])[:, None] ** 2 + np.fft.rfftfreq(size[1])[None] ** 2)
    assert np.allclose(frequencies(*size).numpy(), whole, rtol=1e-15)
    assert np.allclose(frequencies(*size).numpy(), oracle.frequencies(*size), rtol=1e-15)


@pytest.mark.parametrize("size", SIZES)
def test_a_spectrum_becomes_the_picture_that_the_definition_says(size):
    canvas = Fourier(random(2), 3, size, NATURAL, HOME)
    assert canvas.spectrum.shape == (2, 3, size[0], size[1] // 2 + 1, 2)
    for z, u in zip(torch.view_as_complex(canvas.spectrum.detach()).numpy(), canvas.pixels().detach(), strict=True):
        plain = oracle.from_spectrum(z, *size)
        mixed = oracle.correlate(plain, oracle.normalised(oracle.LUCID))
        assert np.allclose(u.numpy(), oracle.sigmoid(mixed), rtol=1e-6)
        assert abs(u.mean() - 0.5) < 0.05


def test_pictures_start_almost_grey():
    u = Fourier(random(8), 3, (64, 64), NATURAL, HOME).pixels()
    assert u.min() > 0.4 and u.max() < 0.6
    assert torch.equal(u, Fourier(random(8), 3, (64, 64), NATURAL, HOME).pixels())


@pytest.mark.parametrize("kind", [Fourier, Pixels])
@pytest.mark.parametrize("size", SIZES)
def test_a_canvas_can_start_from_a_picture(kind, size):
    picture = 0.1 + 0.8 * torch.rand(1, 3, *size, dtype=torch.float64)
    canvas = kind(random(), 3, size, NATURAL, HOME, start=picture)
    assert torch.allclose(canvas.pixels(), picture, atol=1e-6)
    assert canvas.parameters[0].is_leaf and canvas.parameters[0].requires_grad


@pytest.mark.parametrize("channels", [1, 2, 3, 12])
def test_colours_are_a_root_of_the_covariance_of_the_data(channels):
    mixing = torch.randn(channels, channels, dtype=torch.float64)
    data = [(mixing @ torch.rand(channels, 40, dtype=torch.float64)).view(channels, 5, 8) for _ in range(6)]
    found = of_pictures(data)
    wanted = oracle.covariance(np.stack([d.numpy() for d in data]))
    assert np.allclose((found.matrix @ found.matrix.T).numpy(), wanted, rtol=1e-4, atol=1e-5)
    assert abs(float(found.scaled.norm(dim=0).max()) - 1) < 1e-6
    mine, theirs = np.abs(found.matrix.numpy()), np.abs(oracle.colour_root(wanted))
    assert np.allclose(mine, theirs, rtol=1e-3, atol=1e-3 * theirs.max())
    z = torch.rand(2, channels, 4, 4, dtype=torch.float64)
    assert torch.allclose(found.part(found.mix(z)), z, atol=1e-3)


def test_one_channel_has_the_colour_one_and_the_natural_matrix_is_scaled_as_published():
    assert float(of_pictures([torch.rand(1, 5, 5)]).scaled) == 1
    assert np.allclose(NATURAL.scaled.numpy(), oracle.normalised(oracle.LUCID), atol=1e-6)
    assert abs(float(NATURAL.matrix.norm(dim=0).max()) - 0.4619) < 1e-4


def test_a_flat_channel_does_not_break_the_colours():
    data = torch.rand(3, 3, 6, 6)
    data[:, 1] = 0.3
    assert torch.isfinite(torch.linalg.inv(of_pictures(list(data)).matrix)).all()
    assert torch.isfinite(root(torch.zeros(2, 2))).all()


def test_where_colours_come_from_is_told():
    photos = space_of(opened("builtin:photos"))
    assert "no data" in colours(None, photos, None).words
    own = colours(None, photos, pictures(torch.randn(5, 3, 32, 32), photos.preprocess))
    assert "5 pictures of the data" in own.words
    assert torch.equal(colours(torch.eye(3) * 2, photos, None).matrix, torch.eye(3) * 2)
    twelve = space_of(opened(nn.Conv2d(12, 2, 3), torch.rand(1, 12, 6, 6)))
    assert "independently" in colours(None, twelve, None).words
    with pytest.raises(SettingError, match="three channels"):
        colours("imagenet", twelve, None)
    with pytest.raises(SettingError, match="colour is None"):
        colours("blue", twelve, None)
    with pytest.raises(SettingError, match="invertible"):
        colours(torch.zeros(3, 3), photos, None)


def test_where_the_preprocessing_is_unknown_the_range_is_that_of_the_example_or_the_data():
    example = torch.linspace(-2, 5, 2 * 36).view(1, 2, 6, 6)
    space = space_of(opened(nn.Conv2d(2, 2, 3), example))
    edge = space.fed(torch.stack([torch.zeros(2, 6, 6), torch.ones(2, 6, 6)]))
    assert torch.allclose(edge[0, :, 0, 0], example[0].flatten(1).amin(1))
    assert torch.allclose(edge[1, :, 0, 0], example[0].flatten(1).amax(1))
    assert torch.allclose(space.pixels(space.units(edge * 0 + 0.3)), edge * 0 + 0.3)
    assert "input units" in space.notes[0] and "range of the example" in space.notes[0]
    data = pictures(torch.cat([example * 2, example * 0 + 1]), None)
    assert "range of the data" in space_of(opened(nn.Conv2d(2, 2, 3), example), data).notes[0]
    flat = space_of(opened(nn.Conv2d(2, 2, 3), example * 0))
    assert bool((flat.high > flat.low).all())


def test_the_8_bit_picture_is_what_the_pipeline_makes_of_a_file():
    space, u = space_of(opened("builtin:photos")), torch.rand(2, 3, 32, 32)
    eight = space.eight_bits(u)
    fed = pel.load("builtin:photos").preprocess
    for number, pixels in enumerate(eight):
        prepared = fed(decode(pixels))
        assert torch.allclose(space.of_bytes(eight)[number], fed.normalise(prepared.pixels), atol=1e-6)


def test_a_network_that_takes_no_pictures_is_refused():
    with pytest.raises(ModelError, match="pictures are made for networks"):
        space_of(opened(nn.Conv1d(2, 3, 3), torch.rand(1, 2, 9)))


def test_transforms_are_shift_scale_turn_shift():
    size, side = (12, 9), 9
    u = torch.rand(4, 2, *size, dtype=torch.float64)
    numbers = draws(random(4), 1)[0]
    chosen = Transforms(2, (0.8, 1.3), 30, 1)
    seen = looked_at(u, chosen.matrices(numbers, size), size)
    for k, (n, picture) in enumerate(zip(numbers.numpy(), u.numpy(), strict=True)):
        t1, t2, scale = (2 * n[0:2] - 1) * 2, (2 * n[2:4] - 1) * 1, 0.8 + 0.5 * n[4]
        turn = 2 * n[5] - 1
        a = np.deg2rad(30) * turn * (abs(turn) > 0.2)
        matrix = np.array([[np.cos(a), np.sin(a)], [-np.sin(a), np.cos(a)]]) / scale  # of (y, x)
        shift = -t1[::-1] - matrix @ t2[::-1]
        assert np.allclose(seen[k].numpy(), oracle.affine(picture, matrix, shift), atol=1e-9), (k, side)


def test_nothing_drawn_is_nothing_changed_and_grey_comes_in_at_the_border():
    u = torch.rand(1, 3, 8, 10)
    assert torch.allclose(
        looked_at(u, Transforms(0, (1, 1), 0, 0).matrices(draws(random(), 1)[0], (8, 10)), (8, 10)), u, atol=1e-6
    )
    shifted = looked_at(
        u, Transforms(100, (1, 1), 0, 0).matrices(torch.zeros(1, 6, dtype=torch.float64), (8, 10)), (8, 10)
    )
    assert torch.equal(shifted, torch.full_like(u, 0.5))


def test_shifts_are_in_proportion_to_the_picture():
    numbers = torch.tensor([[1.0, 0.5, 0.5, 0.5, 0.5, 0.5]])
    small, large = (ROBUST.matrices(numbers, (n, n))[0, 0, 2] * n / 2 for n in (32, 224))
    assert abs(float(large) + 4) < 1e-4 and abs(float(large / small) - 7) < 1e-4


def test_each_picture_draws_its_own_numbers():
    alone = draws([source(3, "b")], 5)[:, 0]
    together = draws([source(3, "a"), source(3, "b")], 5)
    assert torch.equal(alone, together[:, 1]) and not torch.equal(together[:, 0], together[:, 1])
    assert not torch.equal(alone, draws([source(4, "b")], 5)[:, 0])


@pytest.mark.parametrize("bad", [{"jitter_px": -1}, {"scale": (0, 1)}, {"scale": (1.2, 1.0)}, {"rotate_degrees": 400}])
def test_transforms_out_of_range_are_refused(bad):
    with pytest.raises(SettingError, match="at least 0"):
        Transforms(**bad)


def test_an_unknown_set_of_transforms_is_refused():
    with pytest.raises(SettingError, match="robust, strong, none"):
        transforms_of("heavy")


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("with_data", [False, True])
def test_maco_keeps_the_amount_of_every_frequency(size, with_data):
    space = space_of(opened(nn.Conv2d(3, 2, 3), torch.rand(1, 3, 12, 12)))
    data = pictures(torch.rand(9, 3, 12, 12), None) if with_data else None
    mixed = colours(None, space, data)
    amount, words = amounts(space, mixed, size, data)
    canvas = Phases(random(2), amount, size, mixed, HOME)
    canvas.phase.data += torch.randn(canvas.phase.shape, dtype=torch.float64)
    z = torch.fft.irfft2(canvas.spectrum(), s=size)
    found = torch.fft.rfft2(z).abs()
    assert torch.allclose(found, amount.to(found).expand_as(found), rtol=1e-9, atol=1e-9)
    assert torch.allclose(z.flatten(1).std(1, correction=0), torch.ones(2, dtype=torch.float64))
    assert ("9 pictures" if with_data else "1/f") in words


def test_maco_has_the_mean_amounts_of_the_data_in_independent_colours():
    data = torch.rand(7, 3, 8, 10, dtype=torch.float64)
    space = space_of(opened(nn.Conv2d(3, 2, 3).double(), data[:1]), pictures(data, None))
    mixed = colours(None, space, pictures(data, None))
    amount, _ = amounts(space, mixed, (8, 10), pictures(data, None))
    wanted = oracle.mean_magnitude(space.pixels(data).numpy(), mixed.matrix.double().numpy())
    columns = oracle.exact_columns(10)
    ratio = amount.numpy()[:, :, columns] / wanted[:, :, columns]
    assert np.allclose(ratio, ratio.mean(), rtol=1e-4)


def test_maco_takes_the_phases_that_the_definition_says():
    size, amount = (6, 9), torch.rand(3, 6, 5, dtype=torch.float64)
    canvas = Phases(random(), amount, size, NATURAL, HOME)
    z = oracle.standard(canvas.phase.detach().numpy()[0])
    mine = canvas.spectrum().detach()[0].angle().numpy()
    wanted = np.angle(np.exp(1j * z))
    assert np.allclose(mine[..., 1:], wanted[..., 1:], atol=2e-2)  # std of n − 1
    assert canvas.pixels().shape == (1, 3, 6, 9)


def test_crops_get_smaller_and_stay_inside():
    u = torch.rand(2, 3, 40, 40)
    early, late = (Crops(Maco(16, 0.5, 0.05, 0), random(2), 100, (20, 20)) for _ in range(2))
    assert early(u, 0).shape == (32, 3, 20, 20)
    ramp = torch.linspace(0, 1, 40).expand(2, 3, 40, 40).contiguous()
    spans = [float((seen.amax(3) - seen.amin(3)).mean()) for seen in (early(ramp, 0), late(ramp, 99))]
    assert 0.35 < spans[0] < 0.6 and spans[1] < 0.15
    alone = Crops(Maco(), random(2)[1:], 100, (20, 20))(u[1:], 5)
    assert torch.equal(alone, Crops(Maco(), random(2), 100, (20, 20))(u, 5)[1::2])


def test_settings_of_maco_out_of_range_are_refused():
    for bad in ({"crops": 0}, {"first_side": 0}, {"last_side": 2}, {"noise": -1}, {"learning_rate": 0}):
        with pytest.raises(SettingError, match="crops"):
            Maco(**bad)
