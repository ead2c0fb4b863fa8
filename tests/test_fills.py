"""Fills: in-painting against a dense solve, every fill by its definition, and what covers an image of a case."""

from itertools import product

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

import pellucid as pel
from method_cases import COLOURS, D, case, close, plain, random_input
from pellucid.core.baselines import blur
from pellucid.core.edits import Masked
from pellucid.core.errors import ImageError, SettingError
from pellucid.images import decode, inpaint
from pellucid.images.fills import FILLS, Fill, fills
from pellucid.images.inpaint import NOTHING_SEEN
from pellucid.images.inpaint import inpaint as filled
from pellucid.methods.covering import paint_of

SPACES = [(7,), (40,), (6, 7), (1, 9), (9, 1), (19, 14), (3, 4, 5), (8, 7, 9), (1, 5, 1)]
PIXEL_FILLS = [name for name in FILLS if name != "zero"]


def pixels(*shape: int, seed: int = 1, dtype: torch.dtype = D) -> Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed), dtype=dtype)


def masks(number: int, space: tuple[int, ...], seen: float, seed: int = 2) -> Tensor:
    """Random masks; of the first four one sees all, one only a corner, one only the border, one only the inside."""
    keep = torch.rand(number, *space, generator=torch.Generator().manual_seed(seed)) < seen
    inside = torch.zeros(space, dtype=torch.bool)
    inside[tuple(slice(1, -1) if size > 2 else slice(None) for size in space)] = True
    keep[0], keep[1], keep[2], keep[3] = True, False, ~inside, inside
    keep[1].flatten()[-1] = keep[2].flatten()[0] = True
    keep.flatten(1)[4:, 0] = True
    return keep


def weights(space: tuple[int, ...], p: tuple[int, ...]) -> dict[tuple[int, ...], float]:
    """The neighbours of a pixel inside the picture, and their weights: each axis that differs halves it."""
    found = {}
    for step in product((-1, 0, 1), repeat=len(space)):
        q = tuple(a + b for a, b in zip(p, step, strict=True))
        if any(step) and all(0 <= a < size for a, size in zip(q, space, strict=True)):
            found[q] = 0.5 ** sum(map(abs, step))
    return found


def dense(picture: np.ndarray, keep: np.ndarray) -> np.ndarray:
    """The definition as one matrix over all pixels."""
    space = keep.shape
    number = {p: i for i, p in enumerate(np.ndindex(*space))}
    a, b = np.eye(len(number)), picture.reshape(len(picture), -1).T.copy()
    for p, i in number.items():
        if not keep[p]:
            near = weights(space, p)
            for q, weight in near.items():
                a[i, number[q]] = -weight / sum(near.values())
            b[i] = 0
    return np.linalg.solve(a, b).T.reshape(picture.shape)


# --------------------------------------------------------------------------------------------------------- in-painting


@pytest.mark.parametrize("space", SPACES, ids=str)
@pytest.mark.parametrize("seen", [0.1, 0.5, 0.9])
def test_inpainting_is_the_dense_solution(space: tuple[int, ...], seen: float):
    x, keep = pixels(2, *space), masks(7, space, seen)
    found = filled(x, keep, residual=1e-13)
    for one, mask in zip(found, keep, strict=True):
        assert np.abs(one.numpy() - dense(x.numpy(), mask.numpy())).max() <= 1e-11


def test_alone_in_the_middle_a_pixel_has_the_weights_of_road():
    x, keep = pixels(1, 3, 3), torch.ones(1, 3, 3, dtype=torch.bool)
    keep[0, 1, 1] = False
    road = torch.tensor([[1 / 12, 1 / 6, 1 / 12], [1 / 6, 0, 1 / 6], [1 / 12, 1 / 6, 1 / 12]], dtype=D)
    assert abs(float(filled(x, keep, residual=1e-14)[0, 0, 1, 1] - (road * x[0]).sum())) <= 1e-14


@pytest.mark.parametrize("space", [(9,), (6, 7), (1, 1), (3, 4, 5)], ids=str)
def test_nothing_hidden_changes_nothing_and_everything_hidden_is_grey(space: tuple[int, ...]):
    x, keep = pixels(3, *space), torch.ones(2, *space, dtype=torch.bool)
    keep[1] = False
    found = filled(x, keep)
    assert torch.equal(found[0], x)
    assert torch.equal(found[1], torch.full_like(x, NOTHING_SEEN))


@pytest.mark.parametrize("space", [(30,), (21, 18), (7, 8, 9)], ids=str)
def test_constants_stay_constant_and_ramps_straight(space: tuple[int, ...]):
    keep = masks(6, space, 0.3)
    flat = torch.full((2, *space), 0.3, dtype=D)
    assert (filled(flat, keep, residual=1e-13) - 0.3).abs().max() <= 1e-11
    for axis, size in enumerate(space):
        rise = torch.linspace(0, 1, size, dtype=D).view([-1 if a == axis else 1 for a in range(len(space))])
        ramp, ends = rise.expand(1, *space).contiguous(), keep.clone().movedim(1 + axis, 1)
        ends[:, 0] = ends[:, -1] = True  # at an end of the axis there are neighbours on one side only
        found = filled(ramp, ends.movedim(1, 1 + axis), residual=1e-13)
        assert (found - ramp).abs().max() <= 1e-11


def test_seen_pixels_stay_to_the_bit_and_hidden_ones_between_the_seen():
    x, keep = pixels(3, 40, 50, dtype=torch.float32), masks(6, (40, 50), 0.2)
    found = filled(x, keep)
    assert torch.equal(torch.where(keep[:, None], found, 0), torch.where(keep[:, None], x, 0))
    for one, mask in zip(found, keep, strict=True):
        for channel in range(3):
            seen = x[channel][mask]
            assert seen.min() - 1e-3 <= one[channel].min() and one[channel].max() <= seen.max() + 1e-3


def chessboard(number: int, size: int, side: int) -> Tensor:
    coarse = masks(number, (size // side, size // side), 0.5)
    return coarse.repeat_interleave(side, 1).repeat_interleave(side, 2)


def test_the_residual_is_kept_and_the_solution_near():
    """By default to 3e-5 between a pixel and its neighbours, in float32, on holes of hundreds of pixels."""
    x, keep = pixels(3, 192, 192, dtype=torch.float32), chessboard(6, 192, 32)
    found, exact = filled(x, keep).double(), filled(x.double(), keep, residual=1e-13)
    kernel = torch.tensor([[0.25, 0.5, 0.25], [0.5, 0, 0.5], [0.25, 0.5, 0.25]], dtype=D).expand(3, 1, 3, 3)
    near = torch.conv2d(found, kernel, padding=1, groups=3)
    near = near / torch.conv2d(torch.ones_like(found), kernel, padding=1, groups=3)
    assert torch.where(keep[:, None], 0, near - found).abs().max() <= 4e-5
    assert (found - exact).abs().max() <= 2e-3
    assert (exact - x).abs().max() >= 0.5


@pytest.mark.parametrize("space", [(4000,), (160, 160), (40, 40, 40)], ids=str)
def test_few_steps_are_enough_for_large_holes(space: tuple[int, ...], monkeypatch):
    """Without the coarse grids it takes as many steps as the hole is wide; on a wrong scale about twice these."""
    x, keep = pixels(1, *space), torch.zeros(1, *space, dtype=torch.bool)
    keep[(0, *(slice(0, 2) for _ in space))] = True
    exact = filled(x, keep, residual=1e-12)
    monkeypatch.setattr(inpaint, "STEPS", 12)
    assert (filled(x, keep, residual=1e-5) - exact).abs().max() <= 1e-3


def test_a_mask_is_filled_the_same_whatever_comes_with_it(monkeypatch):
    x, keep = pixels(3, 60, 44), torch.cat([masks(7, (60, 44), 0.3), chessboard(4, 64, 8)[:, :60, :44]])
    keep[9:] = True
    keep[9, 20:30, 30:44], keep[10, 0:3, 0:3] = False, False
    together = filled(x, keep)
    for one, mask in zip(together, keep, strict=True):
        assert torch.equal(one, filled(x, mask[None])[0])
    monkeypatch.setattr(inpaint, "_CPU_BYTES", 1)
    assert torch.equal(together, filled(x, keep))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32, D])
def test_the_dtype_of_the_pixels_is_kept_and_they_are_left_alone(dtype: torch.dtype):
    x, keep = pixels(3, 20, 20, dtype=torch.float32).to(dtype), masks(4, (20, 20), 0.5)
    given = x.clone()
    found = filled(x, keep)
    assert found.dtype is dtype and torch.equal(x, given)
    assert (found.double() - filled(x.double(), keep)).abs().max() <= max(2e-3, torch.finfo(dtype).eps)
    found.fill_(-1)
    assert torch.equal(x, given)


def test_no_mask_at_all_gives_nothing():
    assert filled(pixels(3, 5, 5), torch.ones(0, 5, 5, dtype=torch.bool)).shape == (0, 3, 5, 5)


# --------------------------------------------------------------------------------------------------------------- fills


@pytest.mark.parametrize("space", [(16,), (9, 13), (5, 6, 7)], ids=str)
def test_paint_is_what_its_name_says(space: tuple[int, ...]):
    x = pixels(3, *space)
    for name, value in (("grey", 0.5), ("black", 0.0), ("white", 1.0), ("zero", 0.0)):
        assert torch.equal(fills(name)[0].paint(x), torch.full_like(x, value))
    mean = x.flatten(1).mean(1).view(3, *[1] * len(space))
    close(fills("mean")[0].paint(x), mean.expand_as(x), 1e-14)
    close(fills("blur")[0].paint(x), blur(x[None], max(min(space) / 10, 0.5))[0], 1e-14)
    noise = fills("noise")[0].paint(x)
    assert noise.min() >= 0 and noise.max() <= 1 and noise.unique().numel() == noise.numel()


@pytest.mark.parametrize("name", FILLS)
def test_what_is_seen_stays_and_the_rest_is_paint(name: str):
    x, keep = pixels(3, 12, 15), masks(5, (12, 15), 0.5)
    (fill,) = fills(name)
    found = fill.under(x, keep, seed=4)
    expected = filled(x, keep) if fill.needs_mask else fill.paint(x, seed=4).expand(5, -1, -1, -1)
    assert torch.equal(found, torch.where(keep[:, None], x, expected))
    assert not torch.equal(found[4], x)


@pytest.mark.parametrize("name", ["noise", "inpaint:0.1"])
def test_chance_comes_from_the_seed_only(name: str):
    x, keep = pixels(3, 12, 15), masks(5, (12, 15), 0.5)
    (fill,) = fills(name)
    state = torch.get_rng_state()
    found = fill.under(x, keep, seed=3)
    torch.rand(5)
    assert torch.equal(found, fill.under(x, keep, seed=3))
    assert torch.equal(found[2:3], fill.under(x, keep[2:3], seed=3))
    assert not torch.equal(found, fill.under(x, keep, seed=4))
    torch.set_rng_state(state)
    assert torch.equal(fill.under(x, keep, seed=3), found) and torch.equal(torch.get_rng_state(), state)


def test_noise_does_not_repeat_the_numbers_that_a_method_draws_from_the_same_seed():
    x = pixels(1, 8, 8)
    drawn = torch.rand(1, 8, 8, generator=torch.Generator().manual_seed(0), dtype=D)
    assert not torch.equal(fills("noise")[0].paint(x, seed=0), drawn)


def test_noise_on_inpainting_has_the_spread_that_was_asked_for():
    x, keep = pixels(3, 64, 64), torch.zeros(1, 64, 64, dtype=torch.bool)
    keep[0, 0] = True
    added = (fills("inpaint:0.02")[0].under(x, keep) - filled(x, keep))[0][:, 1:]
    assert abs(float(added.std()) - 0.02) <= 4 * 0.02 / (2 * added.numel()) ** 0.5
    assert abs(float(added.mean())) <= 4 * 0.02 / added.numel() ** 0.5


@pytest.mark.parametrize("name", PIXEL_FILLS)
def test_a_fill_of_one_picture_does_not_hang_on_the_others(name: str):
    x = random_input(3, 3, 8, 8)
    (fill,), keep = fills(name), masks(4, (8, 8), 0.5)
    together, alone = (
        case(plain(), x, pel.logit(1), preprocess=COLOURS),
        case(plain(), x[1:2], pel.logit(1), preprocess=COLOURS),
    )
    edits = [
        Masked(c.x[i : i + 1], paint_of(c, fill, i), lambda which: keep[list(which)], [0] * 4)
        for c, i in ((together, 1), (alone, 0))
    ]
    assert torch.equal(edits[0].inputs([0, 2, 3]), edits[1].inputs([0, 2, 3]))
    assert torch.equal(edits[0].inputs([3]), edits[0].inputs([0, 1, 2, 3])[3:])


# --------------------------------------------------------------------------------------------------------------- donor


def quarters(height: int, width: int) -> np.ndarray:
    """Four flat colours, one in each quarter."""
    array = np.zeros((height, width, 3), np.uint8)
    array[: height // 2, : width // 2], array[: height // 2, width // 2 :] = (200, 0, 0), (0, 200, 0)
    array[height // 2 :, : width // 2], array[height // 2 :, width // 2 :] = (0, 0, 200), (200, 200, 200)
    return array


def test_a_donor_of_the_same_size_is_taken_as_it_is(tmp_path):
    array = np.random.default_rng(0).integers(0, 256, (12, 16, 3)).astype(np.uint8)
    Image.fromarray(array).save(tmp_path / "a+blue donor.png")
    expected = torch.from_numpy(array).permute(2, 0, 1) / 255
    x = pixels(3, 12, 16, dtype=torch.float32)
    asked = [array, decode(array), expected, Image.fromarray(array), tmp_path / "a+blue donor.png"]
    for one in asked:
        assert torch.equal(Fill.donor(one).paint(x), expected)
    by_name = fills(f"grey+donor:{tmp_path / 'a+blue donor.png'}+blur")
    assert [fill.name for fill in by_name] == ["grey", "donor a+blue donor.png", "blur"]
    assert torch.equal(by_name[1].paint(x), expected)


@pytest.mark.parametrize("size", [(24, 60), (60, 24), (200, 120), (8, 8)])
def test_a_donor_is_cut_in_the_middle_and_scaled(size: tuple[int, int]):
    found = Fill.donor(quarters(*size)).paint(pixels(3, 20, 20))
    expected = torch.from_numpy(quarters(20, 20)).permute(2, 0, 1).double() / 255
    inner = [3, 4, 5, 14, 15, 16]  # away from the edges between the colours
    assert (found - expected)[:, inner][:, :, inner].abs().max() <= 1e-6


def test_a_donor_for_a_grey_picture_is_its_luma():
    array = quarters(10, 10)
    found = Fill.donor(array).paint(pixels(1, 10, 10))
    luma = np.asarray(Image.fromarray(array).convert("L")) / 255
    assert np.abs(found[0].numpy() - luma).max() <= 1 / 255


def test_a_donor_of_a_volume_is_cut_and_scaled_too():
    ramp = torch.linspace(0, 1, 12, dtype=D).view(1, 12, 1, 1).expand(1, 12, 10, 10)
    found = Fill.donor(ramp).paint(pixels(1, 5, 5, 5))
    assert found.shape == (1, 5, 5, 5)
    close(found[0, :, 2, 2], torch.tensor([2, 4, 6, 8, 10], dtype=D) / 11 - 0.5 / 11, 1e-12)


# ----------------------------------------------------------------------------------------------- what users ask for


def test_fills_are_read_from_words_lists_and_tensors():
    own = torch.zeros(3, 4, 4)
    donor = Fill.donor(pixels(3, 4, 4))
    assert [fill.name for fill in fills("grey + blur")] == ["grey", "blur"]
    assert [fill.name for fill in fills(["mean", donor, own, "zero", "inpaint:0.01"])] == [
        "mean", "donor", "given tensor 3", "zero", "inpaint:0.01",
    ]  # fmt: skip
    assert fills(donor) == (donor,)
    assert [fill.space for fill in fills(["grey", "zero", own])] == ["pixels", "inputs", "inputs"]
    assert [fill.name for fill in fills("+".join(FILLS)) if fill.needs_mask] == ["inpaint"]


@pytest.mark.parametrize(
    ("asked", "says"),
    [
        ("gray", 'did you mean "grey"'),
        ("grey+blr", 'did you mean "blur"'),
        ("quite something", "Known: grey, black"),
        ("", 'no fill ""'),
        ("grey++blur", 'no fill ""'),
        ([], "no fill came"),
        ("grey+blur+grey", 'fill "grey" came twice'),
        (3, "a fill of int came"),
        (torch.zeros(3, dtype=torch.int64), "floating inputs"),
        ("inpaint:much", "inpaint:0.01"),
        ("inpaint:-1", "0 or more"),
        ("inpaint:nan", "0 or more"),
    ],
)
def test_what_is_no_fill_is_told(asked, says: str):
    with pytest.raises(SettingError, match=says.replace("(", r"\(")):
        fills(asked)


def test_a_missing_or_broken_donor_is_told(tmp_path):
    with pytest.raises(ImageError, match="there is no file"):
        fills("donor:nowhere.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG....")
    with pytest.raises(ImageError, match="damaged"):
        fills(f"donor:{tmp_path / 'broken.png'}")
    with pytest.raises(SettingError, match="expected floats"):
        Fill.donor(torch.zeros(3, 4, 4, dtype=torch.uint8))


def test_what_does_not_fit_the_picture_is_told():
    x = pixels(3, 6, 6)
    with pytest.raises(SettingError, match="under"):
        Fill("inpaint").paint(x)
    with pytest.raises(SettingError, match="bool"):
        Fill("grey").under(x, torch.ones(1, 6, 6))
    with pytest.raises(SettingError, match="6, 6"):
        Fill("grey").under(x, torch.ones(1, 5, 6, dtype=torch.bool))
    with pytest.raises(SettingError, match="same channels and axes"):
        Fill.donor(pixels(2, 6, 6)).paint(x)
    with pytest.raises(SettingError, match="same channels and axes"):
        Fill.donor(pixels(3, 6)).paint(x)
    with pytest.raises(SettingError, match="the network's input is"):
        Fill.given(torch.zeros(3, 5, 5)).paint(x)


# ------------------------------------------------------------------------------------------------------------- a case
