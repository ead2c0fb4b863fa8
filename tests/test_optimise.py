"""Pictures made by ascent, part by part: spectra, colours, transforms, objectives, ranges, chance."""

import numpy as np
import pytest
import torch
from oracles import visualisation as oracle
from torch import nn

import pellucid as pel
from pellucid.core.errors import LayerError, ModelError, SettingError, TargetError
from pellucid.core.target import logit as logit_target
from pellucid.core.target import unit as unit_target
from pellucid.images.datasets import pictures
from pellucid.images.decode import decode
from pellucid.inside.opened import Unit, opened
from pellucid.inside.optimise import groups, objectives, wishes
from pellucid.inside.optimise.canvases import Fourier, Pixels, frequencies
from pellucid.inside.optimise.chance import source
from pellucid.inside.optimise.colour import Colours, colours, of_pictures, root
from pellucid.inside.optimise.maco import Crops, Maco, Phases, amounts
from pellucid.inside.optimise.wishes import Seen
from pellucid.inside.optimise.space import space_of
from pellucid.inside.optimise.transforms import ROBUST, Transforms, draws, looked_at, transforms_of

HOME = torch.empty(0, dtype=torch.float64)
NATURAL = Colours(torch.tensor(oracle.LUCID, dtype=torch.float32), "natural")
SIZES = [(8, 8), (7, 9), (8, 5), (5, 12)]


def random(count=1):
    return [source(0, f"picture {i}") for i in range(count)]


@pytest.fixture
def net():
    layers = [nn.Conv2d(3, 5, 3), nn.ReLU(), nn.Conv2d(5, 6, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten()]
    return nn.Sequential(*layers, nn.Linear(6, 4), nn.Softmax(1)).double().eval()


@pytest.fixture
def seen(net):
    """An opened network and what it shows of three pictures."""
    x = torch.rand(3, 3, 10, 11, dtype=torch.float64)
    found = opened(net, torch.rand(1, 3, 10, 11, dtype=torch.float64))
    outputs = {"0": net[0](x), "2": net[:3](x), "3": net[:4](x), "6": net[:7](x), "": net(x)}
    return found, Seen(found, outputs, x)


def read(objective, seen):
    found, looked = seen
    return objective.on(found).read(looked)


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
    assert 0.4 < u.min() and u.max() < 0.6
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


def test_where_colours_come_from_is_told(net):
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
    assert torch.allclose(looked_at(u, Transforms(0, (1, 1), 0, 0).matrices(draws(random(), 1)[0], (8, 10)), (8, 10)), u, atol=1e-6)
    shifted = looked_at(u, Transforms(100, (1, 1), 0, 0).matrices(torch.zeros(1, 6, dtype=torch.float64), (8, 10)), (8, 10))
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


def test_objectives_are_those_of_the_definitions(seen):
    outputs = {name: a.detach().numpy() for name, a in seen[1].outputs.items()}
    v = np.random.default_rng(0).normal(size=6)
    for power in (0, 2, 0.5):
        mean, centre = (
            read(objectives.direction("3", v, cosine_power=power, position=where), seen) for where in ("mean", "centre")
        )
        v32 = v.astype(np.float32).astype(float)
        for i, A in enumerate(outputs["3"]):
            assert abs(float(mean[i]) - oracle.direction(A, v32, power)) < 1e-9
            assert abs(float(centre[i]) - oracle.direction(A, v32, power, (3, 3))) < 1e-9
    for i, A in enumerate(outputs["3"]):
        assert abs(float(read(objectives.channel("3:4"), seen)[i]) - oracle.channel_mean(A, 4)) < 1e-12
        assert abs(float(read(objectives.unit("3:4"), seen)[i]) - oracle.neuron(A, 4)) < 1e-12
        assert abs(float(read(objectives.unit("3:4", (0, 2)), seen)[i]) - oracle.neuron(A, 4, (0, 2))) < 1e-12
        assert abs(float(read(objectives.layer("3"), seen)[i]) - oracle.layer_mean(A)) < 1e-12
    diverse = read(groups.diversity("3"), seen)
    assert abs(float(diverse.mean()) - oracle.diversity(outputs["3"])) < 1e-9
    pixels = seen[1].pixels.numpy()
    n = pixels[0].size
    assert np.allclose(read(groups.l1(), seen), [oracle.l1(p) / n for p in pixels])
    assert np.allclose(read(groups.l2(), seen), [oracle.l2(p) ** 2 / n for p in pixels])


def test_total_variation_is_the_mean_of_differences(seen):
    for picture, found in zip(seen[1].pixels.numpy(), read(groups.total_variation(), seen), strict=True):
        expected = sum(np.abs(np.diff(picture, axis=a)).mean() for a in (1, 2))
        assert abs(float(found) - expected) < 1e-12


def test_the_margin_alone_counts_for_its_penalty(seen):
    found, _ = seen
    u = torch.full((1, 3, 20, 20), 0.5)
    u[..., 5:15, 5:15] = 1
    assert float(groups.boundary(0.2).on(found).read(Seen(found, {}, u))) == 0
    assert abs(float(groups.boundary(0.2).on(found).read(Seen(found, {}, torch.ones_like(u)))) - 0.25) < 1e-6


def test_the_middle_of_an_even_map_is_at_its_lower_right():
    found = opened(nn.Conv2d(1, 1, 1), torch.rand(1, 1, 2, 2))
    maps = torch.arange(4.0).view(1, 1, 2, 2)
    net = nn.Sequential(nn.Conv2d(1, 1, 1))
    found = opened(net, torch.rand(1, 1, 2, 2))
    assert float(objectives.unit("0:0").on(found).read(Seen(found, {"0": maps}, maps))) == 3


def test_scores_are_read_before_the_softmax(seen):
    _, looked = seen
    assert torch.allclose(read(objectives.logit(2), seen), looked.outputs["6"][:, 2])
    assert objectives.logit(2).on(seen[0]).layers == ("6",)
    shares = read(objectives.target(pel.probability(1)), seen)
    assert torch.allclose(shares, looked.outputs["6"].softmax(1)[:, 1])
    one = objectives.target(unit_target("3", 2))
    assert torch.allclose(read(one, seen), looked.outputs["3"][:, 2].mean((1, 2)))


def test_scores_before_a_functional_softmax_of_a_reshaped_map_are_found():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.score = nn.Conv2d(1, 4, 6)

        def forward(self, x):
            return torch.softmax(self.score(x).flatten(1), 1)

    net = Net().eval()
    found, x = opened(net, torch.rand(1, 1, 6, 6)), torch.rand(2, 1, 6, 6)
    reading = objectives.logit(3).on(found)
    assert reading.layers == ("score",)
    assert torch.allclose(reading.read(Seen(found, {"score": net.score(x)}, x)), net.score(x)[:, 3, 0, 0])


def test_scores_that_no_layer_gives_are_refused():
    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.maps = nn.Conv2d(1, 4, 3)

        def forward(self, x):
            return torch.softmax(self.maps(x).mean((2, 3)), 1)

    with pytest.raises(TargetError, match="before the softmax"):
        objectives.logit(0).on(opened(Net().eval(), torch.rand(1, 1, 6, 6)))


def test_objectives_add_subtract_and_scale(seen):
    a, b = objectives.channel("3:1"), groups.l2()
    mixed = 2 * a - 0.5 * (b + a)
    assert torch.allclose(read(mixed, seen), 1.5 * read(a, seen) - 0.5 * read(b, seen))
    assert mixed.words == "2 × channel 3:1 − 0.5 × (L2 + channel 3:1)"
    assert torch.allclose(read(-a, seen), -read(a, seen))
    assert torch.allclose(read(objectives.pair(a, b, 0.25), seen), 0.75 * read(a, seen) + 0.25 * read(b, seen))
    w = torch.tensor([0, 0.5, 1.0])
    between = read(objectives.interpolation(a, b), seen)
    assert torch.allclose(between, (1 - w) * read(a, seen) + w * read(b, seen))
    with pytest.raises(SettingError, match="finite number"):
        a * float("nan")
    with pytest.raises(SettingError, match="added to an objective"):
        a + 3


def test_alignment_compares_neighbours(seen):
    a = seen[1].outputs["3"].flatten(1)
    first, second = (a[1] - a[0]).square().mean(), (a[2] - a[1]).square().mean()
    assert torch.allclose(read(groups.alignment("3"), seen), -torch.stack([first, first + second, second]))


def test_an_objective_can_be_said_in_many_ways(seen):
    found, _ = seen
    said = {
        "3:2": "channel 3:2", "3:2@centre": "unit 3:2 at the centre", "3": "layer 3", "logit:1": "logit of 1",
        Unit("2", 5): "channel 2:5", logit_target(2): "logit of 2",
    }  # fmt: skip
    for given, words in said.items():
        assert wishes.objective_of(given, found).words == words
    assert wishes.objective_of("logit:cat", opened("builtin:photos")).words == "logit of cat"


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ("3:6", LayerError, "no unit 6"),
        ("nowhere:1", LayerError, "no layer"),
        ("nowhere", LayerError, "no layer"),
        ("3:x", LayerError, "LAYER:CHANNEL"),
        ("logit:9", TargetError, "4 classes"),
        ("logit:cat", TargetError, "no labels"),
        (7, SettingError, "LAYER:CHANNEL"),
        (objectives.unit("3:0", (9, 9)), LayerError, "not inside"),
        (objectives.direction("3", [1.0, 2.0]), LayerError, "6 units"),
        (groups.diversity("nope"), LayerError, "no layer"),
    ],
)
def test_what_can_not_be_asked_for_is_refused(seen, given, error, words):
    with pytest.raises(error, match=words):
        wishes.objective_of(given, seen[0]).on(seen[0])


def test_directions_without_length_are_refused():
    with pytest.raises(SettingError, match="not all zero"):
        objectives.direction("3", [0.0, 0.0])
    with pytest.raises(SettingError, match="not all zero"):
        objectives.direction("3", [1.0, float("nan")])


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
    early, late = (Crops(Maco(crops=16, noise=0), random(2), 100, (20, 20)) for _ in range(2))
    assert early(u, 0).shape == (32, 3, 20, 20)
    ramp = torch.linspace(0, 1, 40).expand(2, 3, 40, 40).contiguous()
    spans = [
        float((seen.amax(3) - seen.amin(3)).mean()) for seen in (early(ramp, 0), late(ramp, 99))
    ]
    assert 0.35 < spans[0] < 0.6 and spans[1] < 0.15
    alone = Crops(Maco(), random(2)[1:], 100, (20, 20))(u[1:], 5)
    assert torch.equal(alone, Crops(Maco(), random(2), 100, (20, 20))(u, 5)[1::2])


def test_settings_of_maco_out_of_range_are_refused():
    for bad in ({"crops": 0}, {"first_side": 0}, {"last_side": 2}, {"noise": -1}, {"learning_rate": 0}):
        with pytest.raises(SettingError, match="crops"):
            Maco(**bad)
