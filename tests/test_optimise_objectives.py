"""What pictures are made for: every objective against its definition, and how they are said."""

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from oracles import visualisation as oracle
from pellucid.core.errors import LayerError, SettingError, TargetError
from pellucid.core.target import logit as logit_target
from pellucid.core.target import unit as unit_target
from pellucid.inside.opened import Unit, opened
from pellucid.inside.optimise import groups, objectives, wishes
from pellucid.inside.optimise.wishes import Seen


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
