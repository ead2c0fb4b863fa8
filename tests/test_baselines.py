"""Named baselines in pixel space, each by its definition."""

import numpy as np
import pytest
import torch
from scipy.ndimage import gaussian_filter1d

import pellucid as pel
from method_cases import COLOURS, D, case, close, plain, random_input
from pellucid.core.baselines import NAMES, blur
from pellucid.core.errors import SettingError


def pixels(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(1), dtype=D)


@pytest.mark.parametrize(("name", "value"), [("black", 0.0), ("white", 1.0), ("grey", 0.5)])
def test_constants(name: str, value: float):
    assert torch.equal(pel.baseline(name, pixels(2, 3, 5, 6)), torch.full((2, 3, 5, 6), value, dtype=D))


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_mean_is_each_pictures_own_colour(axes: int):
    x = pixels(2, 3, *[5] * axes)
    found = pel.baseline("mean", x)
    for image in range(2):
        for channel in range(3):
            assert torch.allclose(found[image, channel], x[image, channel].mean(), atol=1e-14)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("sigma", [0.5, 1.3, 2.0])
def test_blur_is_a_gaussian_along_every_axis(axes: int, sigma: float):
    x = pixels(2, 3, *[14] * axes)
    expected = x.numpy()
    for axis in range(2, 2 + axes):
        expected = gaussian_filter1d(expected, sigma, axis=axis, mode="nearest", radius=max(1, round(3 * sigma)))
    close(blur(x, sigma), torch.from_numpy(np.ascontiguousarray(expected)), 1e-12)


def test_blur_keeps_constants_and_takes_a_tenth_of_the_shorter_side():
    flat = torch.full((1, 3, 20, 40), 0.3, dtype=D)
    close(pel.baseline("blur", flat), flat, 1e-12)
    x = pixels(1, 3, 20, 40)
    close(pel.baseline("blur", x), blur(x, 2.0), 1e-14)


def test_uniform_is_seeded_noise_in_the_unit_interval():
    x = pixels(1, 3, 40, 40)
    first = pel.baseline("uniform", x, seed=3)
    assert torch.equal(first, pel.baseline("uniform", x, seed=3))
    assert not torch.equal(first, pel.baseline("uniform", x, seed=4))
    assert 0 <= float(first.min()) < 0.01 and 0.99 < float(first.max()) <= 1
    assert abs(float(first.mean()) - 0.5) <= 4 * (1 / 12 / first.numel()) ** 0.5


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_shape_dtype_and_the_users_own_tensors(name: str, dtype: torch.dtype):
    x = pixels(2, 3, 9, 7).to(dtype)
    given, state = x.clone(), torch.get_rng_state()
    found = pel.baseline(name, x)
    assert (found.shape, found.dtype) == (x.shape, dtype)
    found.fill_(-1)
    assert torch.equal(x, given) and torch.equal(torch.get_rng_state(), state)


def test_an_unknown_name_offers_the_nearest():
    with pytest.raises(SettingError, match='did you mean "black"'):
        pel.baseline("blck", pixels(1, 3, 4, 4))
    with pytest.raises(SettingError, match="Known: black, white"):
        pel.baseline("quite something else", pixels(1, 3, 4, 4))


@pytest.mark.parametrize("name", NAMES)
def test_in_the_networks_input_space_it_is_the_normalised_pixels(name: str):
    x = random_input(3, 3, 8, 8)
    found = case(plain(), x, pel.logit(1), preprocess=COLOURS).baseline(name)
    for image in range(3):
        one = COLOURS.denormalise(x[image : image + 1])
        close(found[image : image + 1], COLOURS.normalise(pel.baseline(name, one)), 1e-12)


def test_zero_and_tensors_are_inputs_already():
    x = random_input(2, 3, 8, 8)
    made = case(plain(), x, pel.logit(1))
    assert not made.baseline("zero").any()
    own = random_input(1, 3, 8, 8, seed=4, dtype=torch.float32)
    assert torch.equal(made.baseline(own), own.double().expand(2, -1, -1, -1))
    assert torch.equal(made.baseline(own[0]), made.baseline(own))
