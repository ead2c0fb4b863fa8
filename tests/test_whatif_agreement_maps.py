"""Replayed CAMs and evidence as the methods give them, against the slow definitions, on small float64 networks."""

from collections.abc import Sequence

import pytest
import torch
from torch import Tensor, nn

from method_cases import COLOURS, D, close, outcome, plain, pooled, random_input
from oracles import evidence, replayed_cams
from pellucid.images.fills import Fill
from pellucid.methods.evidence import controls, evidence_between, minimal_sets, what_must_change
from pellucid.methods.evidence import evidence as asked
from pellucid.methods.evidence.parting import mcnemar
from pellucid.models.model import wrap
from whatif_cases import EXACT, as_given, blocks, images, painted, photos

# ------------------------------------------------------------------------------------------------------- replayed CAMs


@pytest.mark.parametrize("layer", ["4", "5"])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_score_cam(axes: int, layer: str) -> None:
    """With its own softmax of the increases, and with the increases themselves; behind a ReLU and before one."""
    model, x = plain(axes), images(2, axes)
    A = model[: int(layer) + 1](x).detach()
    by_softmax = outcome(model, x, "score_cam", targets=2, layers=layer).attribution
    by_increase = outcome(model, x, "score_cam", targets=2, layers=layer, weights="increase").attribution
    for image in range(2):
        close(by_softmax[image], replayed_cams.score_cam(model, x[image], A[image], 2), EXACT)
        weights = torch.tensor(replayed_cams.increases(model, x[image], A[image], 2), dtype=D)
        close(by_increase[image], replayed_cams.rectify(replayed_cams.weighted(weights, A[image]), True), EXACT)


def test_score_cam_of_constant_channels() -> None:
    """A channel that is the same everywhere hides the whole picture; a negative one counts too."""
    model, x = plain(), images(2, 2)
    with torch.no_grad():
        model[4].weight[:3] = 0
        model[4].bias[:3] = torch.tensor([0.7, 0.0, -0.4], dtype=D)
    A = model[:5](x).detach()
    assert [float(channel.std()) for channel in A[0, :3]] == [0.0, 0.0, 0.0]
    found = outcome(model, x, "score_cam", layers="4").attribution
    for image in range(2):
        close(found[image], replayed_cams.score_cam(model, x[image], A[image], 1), EXACT)


@pytest.mark.parametrize("target", [0, 1, 2, 3, 4])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_ablation_cam(axes: int, target: int) -> None:
    model, x = plain(axes), images(2, axes)
    for layer in ("2", "5"):
        body, head = model[: int(layer) + 1], model[int(layer) + 1 :]
        A = body(x).detach()
        found = outcome(model, x, "ablation_cam", targets=target, layers=layer).attribution
        for image in range(2):
            close(found[image], replayed_cams.ablation_cam(head, A[image], target, over="size"), EXACT)


def test_ablation_cam_keeps_its_side_for_a_negative_score() -> None:
    """Scores of both signs occur above, else |y| and y could not be told apart."""
    model, x = plain(), images(2, 2)
    scores = model(x).detach()
    assert bool((scores > 0).any())
    assert bool((scores < 0).any())


def test_cams_of_one_target_for_each_image() -> None:
    model, x = pooled().eval(), images(2, 2)
    body, head = model[:6], model[6:]
    A = body(x).detach()
    by_score = outcome(model, x, "score_cam", targets=[4, 0], layers="5").attribution
    by_ablation = outcome(model, x, "ablation_cam", targets=[4, 0], layers="5").attribution
    for image, target in enumerate((4, 0)):
        close(by_score[image], replayed_cams.score_cam(model, x[image], A[image], target), EXACT)
        close(by_ablation[image], replayed_cams.ablation_cam(head, A[image], target, over="size"), EXACT)


# ------------------------------------------------------------------------------------------------------------ evidence

DIGITS = 2e-6  # total variation is told to six decimals


def sharp(axes: int) -> nn.Module:
    """Scores far enough apart that covering changes the answer."""
    model = plain(axes)
    with torch.no_grad():
        model[-1].weight *= 40
    return model


def symptoms(axes: int) -> Tensor:
    mask = torch.zeros([8] * axes, dtype=torch.bool)
    mask[(slice(1, 5), *[slice(2, 8)] * (axes - 1))] = True
    return mask


def moved(mask: Tensor, move: controls.Move) -> Tensor:
    """The axes exchanged, then mirrored, then rolled."""
    turned = mask.permute(move.order)
    turned = turned.flip([axis for axis, mirrored in enumerate(move.mirrored) if mirrored])
    return evidence.rolled(turned, move.shift)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_evidence(axes: int) -> None:
    model, x, mask = sharp(axes), images(1, axes), symptoms(axes)
    paints = [torch.zeros_like(x[0]), random_input(3, *[8] * axes, seed=9)]
    found = asked(model, x, mask, fills=[Fill.given(p, str(i)) for i, p in enumerate(paints)], controls=19, seed=4)
    sym, env, fe = evidence.fidelity(model, x[0], mask, paints)
    assert abs(found.sym - sym) <= DIGITS
    assert abs(found.env - env) <= DIGITS
    assert abs(found.fe - fe) <= DIGITS
    assert found.flip_rates == (
        evidence.flips(model, x[0], mask, paints),
        evidence.flips(model, x[0], ~mask, paints),
    )
    masks = [moved(mask, move) for move in controls.moves(tuple(mask.shape), 19, 4)]
    others = [evidence.fidelity(model, x[0], other, paints) for other in masks]
    assert close_lists(found.control_sym, [o[0] for o in others])
    assert close_lists(found.control_env, [o[1] for o in others])
    rank_agrees(found.p, fe, [o[2] for o in others])


def close_lists(found: Sequence[float], expected: Sequence[float]) -> bool:
    return len(found) == len(expected) and all(abs(a - b) <= DIGITS for a, b in zip(found, expected, strict=True))


def rank_agrees(p: float, fe: float, others: Sequence[float]) -> None:
    """Ties, as far as six decimals tell, may fall to either side."""
    highest = evidence.rank_p(fe - 2 * DIGITS, others)
    lowest = (1 + sum(o > fe + 2 * DIGITS for o in others)) / (len(others) + 1)
    assert lowest - 1e-12 <= p <= highest + 1e-12


def test_evidence_under_named_fills() -> None:
    model, x, mask = sharp(2), photos(1), symptoms(2)
    found = asked(wrap(model, preprocess=COLOURS), x, mask, fills="grey+white+mean", controls=19)
    paints = [painted(name, x[0]) for name in ("grey", "white", "mean")]
    sym, env, _ = evidence.fidelity(model, x[0], mask, paints)
    assert abs(found.sym - sym) <= DIGITS
    assert abs(found.env - env) <= DIGITS
    single = [evidence.fidelity(model, x[0], mask, [paint])[:2] for paint in paints]
    assert close_lists([row.sym for row in found.rows], [s for s, _ in single])
    assert close_lists([row.env for row in found.rows], [e for _, e in single])


def reads(mask: Tensor) -> nn.Module:
    """Class 0 while the mean of the first channel inside the mask is above a half; sure."""

    class Reads(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            score = 60 * ((x[:, 0] * mask).flatten(1).sum(1) / mask.sum() - 0.5)
            return torch.stack([score, -score], 1)

    return Reads()


def test_verdicts_of_networks_that_read_one_side() -> None:
    """Two by two of sixteen by sixteen pixels: few of the masks elsewhere meet it."""
    mask, x = torch.zeros(16, 16, dtype=torch.bool), torch.ones(1, 3, 16, 16, dtype=D)
    mask[5:7, 8:10] = True
    inside = asked(reads(mask), x, mask, fills="zero", controls=99)
    assert (round(inside.sym, 6), round(inside.env, 6), inside.verdict) == (1.0, 0.0, "evidence")
    outside = asked(reads(~mask), x, mask, fills="zero", controls=99)
    assert (round(outside.sym, 6), round(outside.env, 6), outside.verdict) == (0.0, 1.0, "counter-evidence")
    for found in (inside, outside):
        assert evidence.verdict(found.sym, found.env, found.p) == found.verdict


# --------------------------------------------------------------------------------------------------- sets that decide


def cells(axes: int) -> Tensor:
    """Nine regions in 2-D, eight in 3-D and on a line."""
    if axes == 1:
        return torch.arange(8)
    parts = torch.arange(8) * (3 if axes == 2 else 2) // 8
    labels = torch.zeros([8] * axes, dtype=torch.long)
    for axis in range(axes):
        labels = labels * int(parts.max() + 1) + parts.reshape([-1 if a == axis else 1 for a in range(axes)])
    return labels


def leads(model: nn.Module, x: Tensor, labels: Tensor, paint: Tensor, covered: frozenset[int]) -> float:
    """By how much the best other class lies above the untouched picture's when these are covered."""
    before = evidence.winner(model, x)
    with torch.no_grad():
        scores = model(evidence.cover(x, evidence.hiding(labels, covered), paint)[None])[0]
    return float(torch.cat([scores[:before], scores[before + 1 :]]).max() - scores[before])


@pytest.mark.parametrize("exhaustive", [None, False])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_minimal_sets(axes: int, exhaustive: bool | None) -> None:
    """By default every set in order of size; best first must find one as small where it says that it is proven."""
    model, labels, sizes = sharp(axes), cells(axes), set()
    everyone = frozenset(range(int(labels.max()) + 1))
    for seed in range(3):
        x, paint = images(1, axes, seed=seed), random_input(3, *[8] * axes, seed=20 + seed)
        found = minimal_sets(model, x, regions=as_given(labels), fill=paint, exhaustive=exhaustive, budget=600)
        after = evidence.winners(model, x[0], labels, paint)
        needed, enough = evidence.necessary(after), evidence.sufficient(after, len(everyone))
        for decides, which, complement in ((needed, found.necessary, False), (enough, found.sufficient, True)):
            best = evidence.smallest(decides, len(everyone))
            if which is None:
                assert best == []
                continue
            regions = frozenset(which.regions)
            assert evidence.irreducible_by_one(decides, regions)
            assert regions in best if exhaustive is None else len(regions) >= len(best[0])
            assert len(regions) == len(best[0]) or not which.search.proven
            if exhaustive is None and not complement:
                by = [leads(model, x[0], labels, paint, one) for one in best]
                assert abs(leads(model, x[0], labels, paint, regions) - max(by)) <= 1e-9
            sizes.add(len(regions))
    assert len(sizes) > 1  # not all of them are single regions


@pytest.mark.parametrize("axes", [1, 2])
def test_what_must_change(axes: int) -> None:
    model, labels, decided = sharp(axes), cells(axes), 0
    for seed in range(3 - axes):
        x, paints = images(1, axes, seed=seed), [random_input(3, *[8] * axes, seed=s) * 3 for s in (31, 32)]
        before = evidence.winner(model, x[0])
        after = [evidence.winners(model, x[0], labels, paint) for paint in paints]
        for target in {0, 1, 2, 3, 4} - {before}:
            named = [Fill.given(p, f"paint {i}") for i, p in enumerate(paints)]
            found = what_must_change(model, x, target, regions=labels, fills=named, exhaustive=True, budget=600)
            for wins, (_, which) in zip(after, found.tried.items(), strict=True):
                best = evidence.smallest(evidence.necessary(wins, target), int(labels.max()) + 1)
                assert (which is None) == (best == [])
                if which is not None:
                    assert frozenset(which.regions) in best
                    decided += 1
    assert decided > 1


def test_minimal_sets_of_regions_that_leave_something_out() -> None:
    model, labels = sharp(2), blocks(2, outside=True)
    for seed in range(4):
        x, paint = images(1, 2, seed=seed), random_input(3, 8, 8, seed=20 + seed)
        found = minimal_sets(model, x, regions=labels, fill=paint)
        after = evidence.winners(model, x[0], labels, paint)
        for decides, which in (
            (evidence.necessary(after), found.necessary),
            (evidence.sufficient(after, 4), found.sufficient),
        ):
            best = evidence.smallest(decides, 4)
            assert (which is None) == (best == [])
            assert which is None or frozenset(which.regions) in best


# -------------------------------------------------------------------------------------------------------- two data sets


def test_mcnemar() -> None:
    for first in range(12):
        for second in range(12):
            assert abs(mcnemar(first, second) - evidence.mcnemar(first, second)) <= 1e-12


def test_between_two_data_sets() -> None:
    """Answers, accuracies and p, from which background each symptom was put before."""
    model, x, mask = sharp(2), images(6, 2), symptoms(2)
    pools = [random_input(4, 3, 8, 8, seed=41), random_input(4, 3, 8, 8, seed=42) * 2]
    found = evidence_between(model, x, [mask] * 6, *pools, labels=[0, 1, 2, 3, 4, 0], seed=2)
    right = []
    for image, (pair, label) in enumerate(zip(found.pairs, [0, 1, 2, 3, 4, 0], strict=True)):
        answers: list[set[int]] = []
        for pool in pools:
            answers.append({evidence.winner(model, evidence.cover(x[image], ~mask, one)) for one in pool})
        assert any(str(number) in pair.answer_a for number in answers[0])
        assert any(str(number) in pair.answer_b for number in answers[1])
        right.append((str(label) in pair.answer_a, str(label) in pair.answer_b))
        assert (pair.right_a, pair.right_b) == right[-1]
    only = sum(a and not b for a, b in right), sum(b and not a for a, b in right)
    assert found.only == only
    assert found.p == evidence.mcnemar(*only)
    assert found.accuracies == (sum(a for a, _ in right) / 6, sum(b for _, b in right) / 6)
