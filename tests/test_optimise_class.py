"""Class images, and made pictures held against real photographs."""

import numpy as np
import torch

import pellucid as pel
from method_cases import undrawn
from optimise_cases import PHOTOS, example, linear, photos
from pellucid.core.record import record
from pellucid.inside.opened import Unit
from pellucid.inside.optimise import objectives
from pellucid.inside.optimise.class_image import class_image
from pellucid.inside.optimise.making import optimise


def test_a_linear_score_less_a_square_is_climbed_to_its_weights():
    net, x = linear(), torch.zeros(1, 3, 6, 7, dtype=torch.float64)
    x[0, :, 0, 0] = 1
    asked = 0.002 * objectives.logit(0) - objectives.l2()
    found = optimise(
        net, asked, image=x, steps=400, learning_rate=0.02, transforms="none", parametrisation="fourier", colour="none"
    )  # fmt: skip
    away = torch.from_numpy(found.pictures[0]).flatten() - 0.5
    assert float(torch.cosine_similarity(away, net[1].weight[0].detach(), dim=0)) > 0.999


def test_a_class_image_of_a_linear_score_is_its_weights():
    net, w = linear(), None
    w = net[1].weight[1].detach().view(3, 6, 7)
    sizes = []
    for decay in (0.05, 0.5, 5.0):
        found = class_image(net, 1, weight_decay=decay, image=example(size=(6, 7)))
        wanted = w / (2 * decay)
        assert np.abs(found.input - wanted.numpy()).max() < 1e-4 * wanted.abs().max()
        assert np.isclose(found.score, float((w * wanted).sum() + net[1].bias[1]), rtol=1e-4)
        sizes.append(float(np.abs(found.input).sum()))
    assert sizes[0] > sizes[1] > sizes[2]


def test_a_class_image_scores_higher_than_any_picture(data, untouched):
    model, inputs = pel.load(PHOTOS), photos(data, 200)
    with torch.no_grad():
        best = model.module(inputs)[:, model.index("cat")].max()
    module = model.module
    with untouched(module), undrawn():
        found = class_image(model, "cat", steps=80)
    assert found.score > best and found.seen_score > best
    assert found.heights[-1] > found.heights[0] and found.picture.size == (32, 32)
    smaller = class_image(model, "cat", steps=80, weight_decay=10 * found.decay)
    assert np.square(smaller.input).sum() < np.square(found.input).sum()
    blurred = class_image(model, "cat", steps=40, blur_px=0.5)
    assert np.abs(np.diff(blurred.input)).mean() < np.abs(np.diff(found.input)).mean()


LAYERS = ("stage1.1", "stage2.0", "stage2.2")


def test_pictures_excite_their_units_more_than_nearly_all_data_do(data):
    model, inputs = pel.load(PHOTOS), photos(data, 1000)
    asked = [Unit(layer, k) for layer in LAYERS for k in (1, 17)] + [Unit("stage2.2", k) for k in range(2, 6)]
    found = optimise(model, asked, steps=48)
    kept = record(model.module, inputs)
    maps = [kept.at(u.layer).data[:, u.channel] for u in asked]
    limits = [np.quantile(m.mean((1, 2)).numpy(), 0.999) for m in maps]
    assert np.mean(np.array(found.values) > limits) >= 0.9
    x = model.preprocess.normalise(torch.from_numpy(found.eight_bit).permute(0, 3, 1, 2).float() / 255)
    others = record(model.module, x.roll(1, 0))
    wrong = [float(others.at(u.layer).data[i, u.channel].mean()) for i, u in enumerate(asked)]
    assert all(value > other for value, other in zip(found.values, wrong, strict=True))
    assert np.mean(np.array(wrong) > limits) < 0.5


def test_pictures_for_the_middle_reach_beyond_all_peaks_in_the_data(data):
    model, inputs = pel.load(PHOTOS), photos(data, 1000)
    found = optimise(model, [f"{layer}:{k}@centre" for layer in LAYERS[1:] for k in (1, 6)], steps=48)
    kept = record(model.module, inputs)
    tops = [kept.at(u.layer).data[:, u.channel].flatten(1).amax(1).numpy() for u in found.units]
    assert min(found.percentile(tops)) > 99.9
