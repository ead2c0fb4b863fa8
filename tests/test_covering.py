"""Fills of a case: in the network's input space, ready for edits."""

import pytest
import torch

import pellucid as pel
from method_cases import COLOURS, D, case, close, plain, random_input
from pellucid.core.edits import Masked, covered
from pellucid.core.errors import SettingError
from pellucid.images import Preprocess
from pellucid.images.fills import Fill, fills
from pellucid.images.inpaint import inpaint as filled
from pellucid.methods.covering import OF_ITSELF, paint_of
from test_fills import PIXEL_FILLS, masks, quarters


@pytest.mark.parametrize("name", PIXEL_FILLS)
def test_on_a_case_the_paint_lies_in_input_space(name: str):
    x = random_input(2, 3, 8, 8)
    made, keep = case(plain(), x, pel.logit(1), preprocess=COLOURS, seed=5), masks(4, (8, 8), 0.5)
    (fill,) = fills(name)
    found = Masked(x[1:], paint_of(made, fill, 1), lambda which: keep[list(which)], [0] * 4).inputs(range(4))
    own = COLOURS.denormalise(x[1])
    expected = COLOURS.normalise(fill.under(own, keep, seed=5))
    close(found, torch.where(keep[:, None], x[1], expected), 1e-12)
    assert torch.equal(found[0], x[1])


def test_regions_are_covered_with_a_paint_that_hangs_on_the_mask():
    x, labels = random_input(1, 3, 8, 8), torch.arange(4).repeat_interleave(2)[:, None].expand(8, 8)
    made, keep = case(plain(), x, pel.logit(1), preprocess=COLOURS), torch.tensor([[1, 0, 1, 1], [0, 1, 0, 1]]).bool()
    found = covered(x, paint_of(made, fills("inpaint")[0], 0), labels, keep).inputs([0, 1])
    expected = COLOURS.normalise(filled(COLOURS.denormalise(x[0]), keep[:, labels]))
    close(found, torch.where(keep[:, labels][:, None], x, expected), 1e-12)


def test_zero_and_tensors_need_no_preprocessing_and_constants_say_so():
    x = random_input(2, 3, 8, 8)
    made = case(plain(), x, pel.logit(1))
    assert torch.equal(paint_of(made, fills("zero")[0], 1), torch.zeros(1, 3, 8, 8, dtype=D))
    own = random_input(1, 3, 8, 8, seed=4)
    for tensor in (own, own[0]):
        assert torch.equal(paint_of(made, fills(tensor)[0], 1), own)
    assert torch.equal(paint_of(made, fills(torch.tensor(0.25))[0], 0), torch.full((1, 3, 8, 8), 0.25, dtype=D))
    for name in set(PIXEL_FILLS) - {*OF_ITSELF, "inpaint"}:
        with pytest.raises(SettingError, match="preprocessing is not known; give preprocess="):
            paint_of(made, fills(name)[0], 0)


@pytest.mark.parametrize("name", OF_ITSELF)
def test_fills_of_the_picture_itself_need_no_preprocessing(name: str):
    """They are the same before and after each channel was scaled and shifted."""
    x, keep = random_input(1, 3, 8, 8), torch.rand(4, 8, 8, generator=torch.Generator().manual_seed(1)) > 0.4
    known, unknown = (case(plain(), x, pel.logit(1), preprocess=p) for p in (COLOURS, None))
    edits = [
        Masked(x, paint_of(made, fills(name)[0], 0), lambda which: keep[list(which)], [0] * 4)
        for made in (known, unknown)
    ]
    close(edits[0].inputs(range(4)), edits[1].inputs(range(4)), 1e-3 if name == "inpaint" else 1e-12)


def test_masks_that_fade_are_refused_where_the_paint_hangs_on_them():
    made = case(plain(), random_input(1, 3, 8, 8), pel.logit(1), preprocess=COLOURS)
    edits = Masked(made.x, paint_of(made, fills("inpaint")[0], 0), lambda which: torch.rand(len(which), 8, 8), [0])
    with pytest.raises(SettingError, match="these fade"):
        edits.inputs([0])


@pytest.mark.parametrize("name", [*PIXEL_FILLS, "donor"])
def test_a_grey_network_is_covered_in_grey(name: str):
    network = torch.nn.Sequential(torch.nn.Conv2d(1, 2, 3), torch.nn.Flatten(), torch.nn.Linear(72, 3)).double().eval()
    x, keep = random_input(1, 1, 8, 8), torch.zeros(1, 8, 8, dtype=torch.bool)
    made = case(network, x, pel.logit(1), preprocess=Preprocess(channels=1, mean=(0.5,), std=(0.2,)))
    (fill,) = fills(Fill.donor(quarters(8, 8)) if name == "donor" else name)
    found = Masked(x, paint_of(made, fill, 0), lambda which: keep, [0]).inputs([0])
    assert found.shape == x.shape and not torch.equal(found, x)
