"""The slow definitions of masks, replayed CAMs, evidence, in-painting and XRAI, on cases small enough for paper."""

import itertools
import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from method_cases import D, close, plain, random_input
from oracles import evidence, inpainting, masks, replayed_cams, xrai


def values(*found: float) -> Tensor:
    return torch.tensor(found, dtype=D)


def linear(weights: Tensor, bias: float = 0.0) -> Callable[[Tensor], Tensor]:
    """Two classes: b + Σ w x, and 0."""
    return lambda x: torch.stack([bias + (x * weights).flatten(1).sum(1), torch.zeros(len(x), dtype=D)], 1)


# ---------------------------------------------------------------------------------------------------------------- masks


@pytest.mark.parametrize(("grid", "size"), [((3,), (11,)), ((2, 5), (7, 9)), ((2, 3, 2), (5, 4, 6))])
def test_enlarging_is_pytorchs(grid: tuple[int, ...], size: tuple[int, ...]) -> None:
    cells = random_input(*grid)
    mode = {1: "linear", 2: "bilinear", 3: "trilinear"}[len(grid)]
    expected = F.interpolate(cells[None, None], size=size, mode=mode, align_corners=False)[0, 0]
    close(masks.enlarged(cells, size), expected, 1e-13)


def test_rise_mask_of_ones_is_one() -> None:
    mask = masks.rise_mask(torch.ones(3, 2), (1, 3), (7, 8))
    assert mask.shape == (7, 8)
    close(mask, torch.ones(7, 8, dtype=D), 1e-14)


def test_rise_by_hand() -> None:
    """Two masks that show one pixel each; f = the first pixel: S = 1/(2p) (2·M₁ + 0·M₂)."""
    x = torch.tensor([[2.0, 5.0]], dtype=D)
    shown = [torch.tensor([1.0, 0.0], dtype=D), torch.tensor([0.0, 1.0], dtype=D)]
    f = linear(torch.tensor([[[1.0, 0.0]]], dtype=D))
    assert masks.rise(f, x, torch.zeros_like(x), 0, shown, 0.5).tolist() == [2.0, 0.0]
    assert masks.rise_by_coverage(f, x, torch.zeros_like(x), 0, shown).tolist() == [2.0, 0.0]


def test_rise_tends_to_a_line_through_the_weights() -> None:
    """All 2⁴ masks of single pixels on a linear model: S_i = Σ_j x_j w_j /2 + x_i w_i /2, for p = ½."""
    x, w = random_input(1, 4), random_input(1, 1, 4, seed=1)
    every = [torch.tensor(bits, dtype=D) for bits in itertools.product((0.0, 1.0), repeat=4)]
    gains = (x * w[0])[0]
    found = masks.rise(linear(w), x, torch.zeros_like(x), 0, every, 0.5)
    close(found, (gains.sum() + gains) / 2, 1e-13)


def test_area_loss_by_hand() -> None:
    mask = torch.tensor([[0.0, 1.0], [0.5, 0.0]], dtype=D)
    assert masks.area_loss(mask, 0.25, mean=False) == 0.25
    assert masks.area_loss(mask, 0.5) == 0.0625
    assert masks.area_loss(torch.tensor([0.0, 1.0, 1.0, 0.0], dtype=D), 0.5) == 0.0


def test_smooth_max_lies_between_mean_and_largest() -> None:
    drawn = [0.1, 0.7, 0.3]
    assert math.isclose(masks.smooth_max(drawn, 1e-3), 0.7, rel_tol=1e-9)
    assert math.isclose(masks.smooth_max(drawn, 1e9), sum(drawn) / 3, rel_tol=1e-6)
    assert masks.smooth_max([0.4, 0.4]) == 0.4
    e = math.exp(20)
    assert math.isclose(masks.smooth_max([0.0, 1.0]), e / (1 + e), rel_tol=1e-12)


def test_smooth_max_convolution_of_one_peak() -> None:
    parameters, centres = torch.tensor([0.0, 1.0, 0.0]), [(0.0,), (2.0,), (4.0,)]
    found = masks.smooth_max_convolution(parameters, centres, (5,), lambda d: masks.smooth_kernel(d, 2.0), 1e-3)
    expected = [math.exp(-0.5), 1.0, 1.0, 1.0, math.exp(-0.5)]  # 2 px away: d/σ = 1; 1 px: ½, still 1
    close(found, values(*expected), 1e-9)


def test_meaningful_objective_by_hand() -> None:
    x, mask = torch.tensor([[2.0, 4.0]], dtype=D), torch.tensor([1.0, 0.5], dtype=D)
    f = linear(torch.ones(1, 1, 2, dtype=D))
    found = masks.meaningful_objective(f, x, torch.zeros_like(x), 0, mask, area=10.0, rough=100.0, beta=3.0)
    assert math.isclose(found, 4.0 + 5.0 + 12.5, rel_tol=1e-14)


# -------------------------------------------------------------------------------------------------------- replayed CAMs


def test_score_cam_by_hand() -> None:
    """Two pixels, A = ((0, 2), (3, 3)): masks (0, 1) and none; f = the second pixel: C = (5, 0)."""
    x = torch.tensor([[7.0, 5.0]], dtype=D)
    A = torch.tensor([[0.0, 2.0], [3.0, 3.0]], dtype=D)
    f = linear(torch.tensor([[[0.0, 1.0]]], dtype=D), bias=2.0)
    assert replayed_cams.increases(f, x, A, 0) == [5.0, 0.0]
    share = math.exp(5) / (math.exp(5) + 1)
    expected = values(3 * (1 - share), 2 * share + 3 * (1 - share))
    close(replayed_cams.score_cam(f, x, A, 0), expected, 1e-13)
    close(replayed_cams.score_cam_plain(f, x, A, 0), values(0.0, 14.0), 1e-13)


def test_ablation_cam_by_hand() -> None:
    """y = 1·(Σ A_0) − 2·(Σ A_1) + 10 = 3 − 8 + 10 = 5; y_0 = 2, y_1 = 13; w = (3/5, −8/5)."""
    A = torch.tensor([[1.0, 2.0], [4.0, 0.0]], dtype=D)
    head = linear(torch.tensor([[[1.0, 1.0], [-2.0, -2.0]]], dtype=D)[0], bias=10.0)
    assert replayed_cams.ablated(head, A, 0) == [2.0, 13.0]
    close(replayed_cams.ablation_cam(head, A, 0, relu=False), values(0.6 - 6.4, 1.2), 1e-14)
    close(replayed_cams.ablation_cam(head, A, 0), values(0.0, 1.2), 1e-14)
    close(replayed_cams.ablation_cam(head, A, 0, relu=False, over="one"), values(3.0 - 32.0, 6.0), 1e-14)
    norms = (math.sqrt(5), 4.0)
    expected = values(3 / norms[0] - 32 / norms[1], 6 / norms[0])
    close(replayed_cams.ablation_cam(head, A, 0, relu=False, over="norm"), expected, 1e-14)


# ------------------------------------------------------------------------------------------------------------- evidence


def first_pixel(x: Tensor) -> Tensor:
    """Class 0 if the first pixel is 1, class 1 if it is 0; sure."""
    return torch.stack([200 * x[:, 0, 0] - 100, 100 - 200 * x[:, 0, 0]], 1)


def test_fidelity_of_a_network_that_reads_one_pixel() -> None:
    x, paint = torch.ones(1, 4, dtype=D), torch.zeros(1, 4, dtype=D)
    symptom = torch.tensor([True, False, False, False])
    assert evidence.fidelity(first_pixel, x, symptom, [paint]) == (1.0, 0.0, 1.0)
    assert evidence.fidelity(first_pixel, x, ~symptom, [paint]) == (0.0, 1.0, -1.0)
    assert evidence.fidelity(first_pixel, x, symptom, [paint, x]) == (0.5, 0.0, 0.5)
    assert evidence.flips(first_pixel, x, symptom, [paint, x]) == 0.5


def test_total_variation_by_hand() -> None:
    assert evidence.total_variation([0.5, 0.5, 0.0], [0.25, 0.5, 0.25]) == 0.25
    assert evidence.total_variation([1.0, 0.0], [0.0, 1.0]) == 1.0


def test_rank_p_counts_ties() -> None:
    assert evidence.rank_p(0.7, [0.1] * 99) == 0.01
    assert evidence.rank_p(0.7, [0.7] * 99) == 1.0
    assert evidence.rank_p(0.7, [0.9, 0.7, 0.1]) == 0.75


def test_verdicts() -> None:
    assert evidence.verdict(0.5, 0.1, 0.01) == "evidence"
    assert evidence.verdict(0.5, 0.1, 0.05) == "undecided"
    assert evidence.verdict(0.1, 0.8, 0.9) == "counter-evidence"


def test_mcnemar_by_hand() -> None:
    assert evidence.mcnemar(0, 5) == 2 / 32
    assert evidence.mcnemar(1, 3) == 2 * 5 / 16
    assert evidence.mcnemar(2, 2) == 1.0
    assert evidence.mcnemar(0, 0) == 1.0


def test_mcnemar_agrees_with_scipy() -> None:
    stats = pytest.importorskip("scipy.stats")
    for first, second in itertools.product(range(7), repeat=2):
        if first + second:
            expected = stats.binomtest(first, first + second, 0.5).pvalue
            assert math.isclose(evidence.mcnemar(first, second), expected, rel_tol=1e-9)


def vote(x: Tensor) -> Tensor:
    """Class 0 while at least two of the first three pixels are 1."""
    score = x[:, 0, :3].sum(1) - 1.5
    return torch.stack([score, -score], 1)


def test_sets_of_a_vote() -> None:
    x, labels = torch.ones(1, 5, dtype=D), torch.tensor([0, 1, 2, 3, -1])
    after = evidence.winners(vote, x, labels, torch.zeros_like(x))
    needed, enough = evidence.necessary(after), evidence.sufficient(after, 4)
    pairs = [frozenset(p) for p in ((0, 1), (0, 2), (1, 2))]
    assert evidence.smallest(needed, 4) == pairs
    assert evidence.smallest(enough, 4) == pairs
    assert evidence.all_irreducible(needed, 4) == pairs
    assert evidence.irreducible(needed, pairs[0])
    assert not evidence.irreducible(needed, pairs[0] | {3})
    assert not evidence.irreducible_by_one(needed, pairs[0] | {3})
    assert not evidence.irreducible(needed, frozenset({0}))


def test_a_set_irreducible_by_one_may_have_a_deciding_subset() -> None:
    def decides(regions: frozenset[int]) -> bool:
        return len(regions) in (1, 3)

    whole = frozenset(range(3))
    assert evidence.irreducible_by_one(decides, whole)
    assert not evidence.irreducible(decides, whole)
    assert evidence.smallest(decides, 3) == [frozenset({i}) for i in range(3)]


def test_nothing_decides_for_a_constant_network() -> None:
    x = torch.ones(1, 3, dtype=D)
    after = evidence.winners(lambda z: torch.zeros(len(z), 2, dtype=D), x, torch.arange(3), torch.zeros_like(x))
    assert evidence.smallest(evidence.necessary(after), 3) == []
    assert evidence.smallest(evidence.necessary(after, 1), 3) == []
    assert evidence.smallest(evidence.sufficient(after, 3), 3) == [frozenset()]


# ---------------------------------------------------------------------------------------------------- in-painting, XRAI


def test_inpainting_between_two_ends_is_a_line() -> None:
    x = torch.tensor([[0.0, 9.0, 9.0, 3.0]], dtype=D)
    close(
        inpainting.inpaint(x, torch.tensor([False, True, True, False])), torch.tensor([[0.0, 1, 2, 3]], dtype=D), 1e-14
    )


def test_inpainting_weights_by_hand() -> None:
    """One hidden pixel in the middle: sides 1/6, corners 1/12; in a corner: (2·½·side + corner) over what is there."""
    x = torch.arange(1.0, 10.0, dtype=D).reshape(1, 3, 3) ** 2
    hidden = torch.zeros(3, 3, dtype=torch.bool)
    hidden[1, 1] = True
    middle = (4 + 16 + 36 + 64) / 6 + (1 + 9 + 49 + 81) / 12
    assert math.isclose(float(inpainting.inpaint(x, hidden)[0, 1, 1]), middle, rel_tol=1e-14)
    corner = torch.zeros(3, 3, dtype=torch.bool)
    corner[0, 0] = True
    assert math.isclose(float(inpainting.inpaint(x, corner)[0, 0, 0]), (4 + 16 + 25 / 2) / 2.5, rel_tol=1e-14)


def test_inpainting_solves_its_equations_and_keeps_the_rest() -> None:
    x, hidden = random_input(2, 4, 3, 3), random_input(4, 3, 3, seed=1) > -0.3
    filled = inpainting.inpaint(x, hidden)
    assert inpainting.residual(filled, hidden) <= 1e-13
    assert torch.equal(filled[:, ~hidden], x[:, ~hidden])


def test_inpainting_needs_a_known_pixel() -> None:
    with pytest.raises(ValueError, match="every pixel is hidden"):
        inpainting.inpaint(torch.zeros(1, 3), torch.ones(3, dtype=torch.bool))


def segment(*where: int) -> Tensor:
    mask = torch.zeros(5, dtype=torch.bool)
    mask[list(where)] = True
    return mask


def test_xrai_by_hand() -> None:
    """Means 4, 3, 2: first (0, 1), then of what remains (2) with 1, (3, 4) with 2: the third is next."""
    attribution = values(5.0, 3.0, 1.0, 1.5, 2.5)
    found = xrai.rank([segment(0, 1), segment(0, 1, 2), segment(3, 4)], attribution)
    assert found.order == [0, 2, 1]
    assert found.gains == [4.0, 2.0, 1.0]
    assert found.heat.tolist() == [4.0, 4.0, 1.0, 2.0, 2.0]
    assert not bool(found.rest.any())


def test_xrai_keeps_pixels_of_no_segment_for_last() -> None:
    found = xrai.rank([segment(1), segment(1)], values(2.0, 1.0, 0.0, 4.0, 6.0))
    assert found.order == [0]
    assert found.heat.tolist() == [3.0, 1.0, 3.0, 3.0, 3.0]


def test_xrai_takes_the_first_of_equals() -> None:
    assert xrai.rank([segment(3), segment(0)], torch.ones(5, dtype=D)).order == [0, 1]


# ---------------------------------------------------------------------------------------------------------------- peers


@pytest.mark.peers
def test_inpainting_is_grad_cams() -> None:
    road = pytest.importorskip("pytorch_grad_cam.metrics.road")
    x, hidden = random_input(3, 9, 7), random_input(9, 7, seed=1) > 0
    theirs = road.NoisyLinearImputer(noise=0.0)(x.float(), (~hidden).float())
    close(inpainting.inpaint(x, hidden), theirs.double(), 1e-6)


@pytest.mark.peers
def test_weights_are_grad_cams() -> None:
    """The weights, not the maps: the package rescales those twice."""
    package = pytest.importorskip("pytorch_grad_cam")
    classifier = pytest.importorskip("pytorch_grad_cam.utils.model_targets").ClassifierOutputTarget
    model, x = plain().float(), random_input(1, 3, 8, 8, dtype=torch.float32)
    body, head, layer = model[:6], model[6:], model[5]
    with torch.no_grad():
        A = body(x)[0]
        by_score = replayed_cams.score_weights(model, x[0], A, 1, align_corners=True)
        by_ablation = replayed_cams.ablation_weights(head, A, 1, "score")
    for name, found in (("ScoreCAM", by_score), ("AblationCAM", by_ablation)):
        with getattr(package, name)(model=model, target_layers=[layer]) as theirs:
            weights = theirs.get_cam_weights(x, layer, [classifier(1)], A[None].numpy(), None)
        close(found, torch.as_tensor(weights).float().reshape(-1), 1e-5)
