"""Evidence: laws on networks whose answer is known, the p-value, and what is watched."""

import math

import numpy as np
import pytest
import torch
from torch import nn

from evidence_cases import PIXELS, SIDE, Constant, Reader, ask, net, scene, symptom
from oracles import evidence as slow
from pellucid.core.errors import Cancelled, TargetError
from pellucid.core.progress import Progress
from pellucid.images.fills import Fill
from pellucid.methods.evidence import evidence
from pellucid.methods.evidence.controls import Move, as_much, moves, rank_p
from pellucid.methods.evidence.verdict import verdict
from pellucid.models.model import wrap

# ---- laws -----------------------------------------------------------------------------------------------------------


def test_a_network_that_reads_only_the_symptom():
    found = ask(Reader(symptom()), scene(), symptom(), controls=99)
    assert found.env == 0
    assert found.sym > 0.99 and found.fe > 0.5
    assert found.p < 0.05 and found.verdict == "evidence"
    assert found.flip_rates == (1, 0)
    assert found.worst == (min(r.sym for r in found.rows), 0, min(r.sym for r in found.rows))


def test_a_network_that_reads_only_the_background():
    elsewhere = symptom().roll((6, -4), (0, 1))
    x = torch.where(elsewhere, 0.95, scene())
    found = ask(Reader(elsewhere), x, symptom())
    assert found.sym == 0
    assert found.fe < -0.5 and found.env > 0.5
    assert found.verdict == "counter-evidence"


def test_of_two_halves_each_is_the_environment_of_the_other():
    half = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    half[: SIDE // 2] = True
    one, other = (ask(net(3), scene(), mask) for mask in (half, ~half))
    assert one.sym == pytest.approx(other.env, abs=1e-12) and one.env == pytest.approx(other.sym, abs=1e-12)
    assert one.fe == pytest.approx(-other.fe, abs=1e-12) and one.fe != 0


def test_a_constant_network_moves_nowhere():
    found = ask(Constant(), scene(), symptom())
    assert (found.sym, found.env, found.fe) == (0, 0, 0)
    assert set(found.control_fe) == {0}
    assert found.verdict == "no evidence"
    assert "no evidence" in found.sentence()


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("controls", [19, 24])
def test_the_numbers_are_the_slow_ones(seed, controls):
    x, mask, module = scene(seed=seed), symptom(), net(seed)
    fills = [Fill(name) for name in ("mean", "noise", "grey")]
    paints = [fill.paint(x[0], seed=4) for fill in fills]
    found = ask(module, x, mask, fills=fills, controls=controls, seed=4)
    np.testing.assert_allclose((found.sym, found.env, found.fe), slow.fidelity(module, x[0], mask, paints), atol=1e-9)
    assert found.flip_rates == (slow.flips(module, x[0], mask, paints), slow.flips(module, x[0], ~mask, paints))
    laid = [move(mask) for move in moves(mask.shape, controls, 4)]
    wanted = [slow.fidelity(module, x[0], one, paints) for one in laid[:5]]
    np.testing.assert_allclose([w[2] for w in wanted], found.control_fe[:5], atol=1e-9)
    np.testing.assert_allclose([w[0] for w in wanted], found.control_sym[:5], atol=1e-9)
    assert len(found.control_fe) == controls
    bound = slow.rank_p(round(found.fe, 5), [round(fe, 5) for fe in found.control_fe])
    assert found.p <= bound and found.p * (controls + 1) == pytest.approx(round(found.p * (controls + 1)))


def test_under_each_fill_the_row_is_that_of_the_fill_alone():
    together = ask(net(1), scene(), symptom(), fills=("mean", "blur", "noise"))
    for row in together.rows:
        alone = ask(net(1), scene(), symptom(), fills=row.fill)
        assert (alone.sym, alone.env) == pytest.approx((row.sym, row.env), abs=1e-12)
        assert alone.rows[0].without.answer == row.without.answer
        assert alone.control_sym == pytest.approx(alone.control_sym)
        assert row.control_sym == pytest.approx(np.mean(alone.control_sym))
    assert together.sym == pytest.approx(np.mean([row.sym for row in together.rows]))


def test_a_given_environment_leaves_the_rest_alone():
    near = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    near[9:12, 5:9] = True
    found = ask(Reader(near, level=0.5, sign=-1), scene(), symptom(), environment=near)
    assert found.sym == 0 and found.env > 0
    far = near.roll(-9, 0)
    assert ask(Reader(near, level=0.5, sign=-1), scene(), symptom(), environment=far).env == 0
    assert found.environment != ask(net(), scene(), symptom()).environment


# ---- the p-value ----------------------------------------------------------------------------------------------------


def chi_square(ps, bins):
    counts = np.bincount([min(int((p - 1e-9) * bins), bins - 1) for p in ps], minlength=bins)
    expected = len(ps) / bins
    return float(((counts - expected) ** 2 / expected).sum())


BEYOND = {9: 27.9}  # one in a thousand, by degrees of freedom


@pytest.mark.parametrize("kind", ["all tied", "some tied", "none tied"])
def test_ranks_of_what_is_exchangeable_are_uniform(kind):
    ps = []
    for seed in range(3000):
        random = np.random.default_rng([seed, 7])
        draws = {
            "all tied": np.zeros(100),
            "some tied": random.integers(0, 4, 100) / 4,
            "none tied": random.random(100),
        }
        ps.append(rank_p(float(draws[kind][0]), draws[kind][1:].tolist(), np.random.default_rng([seed, 3])))
    assert {round(p * 100) for p in ps} == set(range(1, 101))
    assert chi_square(ps, 10) < BEYOND[9]


def test_without_random_ties_a_constant_would_not_be_uniform():
    """The test above can fail: counting ties as above always gives one, as below always a hundredth."""
    assert chi_square([1.0] * 300, 10) > BEYOND[9] and chi_square([0.01] * 300, 10) > BEYOND[9]


def test_a_constant_network_gives_uniform_p_values():
    x, mask = torch.rand(1, 1, 6, 6), torch.zeros(6, 6, dtype=torch.bool)
    mask[1:3, 2] = True
    constant = wrap(Constant())
    ps = [evidence(constant, x, mask, fills="zero", controls=19, seed=s, progress=False).p for s in range(120)]
    assert len({round(p * 20) for p in ps}) > 15
    assert chi_square(ps, 10) < BEYOND[9]


def test_a_symptom_laid_at_random_has_uniform_p_values():
    """Any network and picture: then the symptom is one of its own controls."""
    shape, ps = torch.zeros(7, 7, dtype=torch.bool), []
    shape[0, :3] = shape[1, 0] = True
    module = nn.Sequential(nn.Conv2d(1, 5, 3), nn.ReLU(), nn.Flatten(), nn.Linear(125, 3)).double().eval()
    x = torch.rand(1, 1, 7, 7, dtype=torch.float64)
    for seed in range(80):
        (laid,) = moves(shape.shape, 1, 10_000 + seed)
        ps.append(evidence(wrap(module), x, laid(shape), fills="zero", controls=19, seed=seed, progress=False).p)
    assert chi_square(ps, 10) < BEYOND[9]


def test_rank_counts_from_one_and_takes_hairs_for_ties():
    random = np.random.default_rng(0)
    assert rank_p(0.7, [0.1] * 99, random) == 0.01
    assert rank_p(0.1, [0.7] * 99, random) == 1
    assert as_much(0.5, [0.5 + 1e-9, 0.5 - 1e-9, 0.4]) == 2
    assert len({rank_p(0.5, [0.5 + 1e-9, 0.5 - 1e-9] * 20, random) for _ in range(50)}) > 10


@pytest.mark.parametrize("shape", [(9,), (8, 8), (5, 11), (4, 4, 4), (3, 5, 3)])
def test_controls_keep_the_area_and_move(shape):
    mask = torch.rand(shape) < 0.3
    mask.view(-1)[0] = True
    found = moves(shape, 60, 5)
    assert len(found) == 60
    assert all(move(mask).sum() == mask.sum() and move(mask).shape == mask.shape for move in found)
    assert not any(move.still for move in found)
    assert found == moves(shape, 60, 5) and found != moves(shape, 60, 6)
    assert len({move.shift for move in found}) > len(shape) * 3
    assert {m for move in found for m in move.mirrored} == {True, False}
    orders = {move.order for move in found}
    assert all([shape[a] for a in order] == list(shape) for order in orders)
    assert len(orders) == math.prod(math.factorial(shape.count(n)) for n in set(shape))


def test_a_move_is_what_it_says():
    mask = torch.zeros(3, 3, dtype=torch.bool)
    mask[0, 1] = True
    assert Move((1, 0), (False, False), (0, 0))(mask)[1, 0]
    assert Move((0, 1), (True, False), (0, 0))(mask)[2, 1]
    assert Move((0, 1), (False, False), (2, 2))(mask)[2, 0]


def test_the_seed_decides_everything_random():
    first, again, other = (ask(net(2), scene(), symptom(), seed=seed) for seed in (5, 5, 6))
    assert first.table == again.table and first.control_fe == again.control_fe and first.p == again.p
    assert first.control_fe != other.control_fe


# ---- what is watched ------------------------------------------------------------------------------------------------


def test_the_target_says_what_counts_as_a_change():
    module, x, mask = net(4, classes=4), scene(), symptom()
    watched = {name: ask(module, x, mask, target=name, fills="grey") for name in ("top1", 2, "1 vs 3")}
    covered = torch.where(mask, 0.5, x)
    before, after = (module(y)[0].detach().softmax(0) for y in (x, covered))
    assert watched["top1"].sym == pytest.approx(float((before - after).abs().sum() / 2))
    assert watched[2].sym == pytest.approx(float((before[2] - after[2]).abs()))
    pair = [p[1] / (p[1] + p[3]) for p in (before, after)]
    assert watched["1 vs 3"].sym == pytest.approx(abs(float(pair[0] - pair[1])))
    assert watched[2].followed == "class 2" and watched["1 vs 3"].followed == "class 1"
    assert watched["top1"].followed == watched["top1"].answer


def test_a_single_score_is_a_yes_or_no():
    class One(nn.Module):
        def forward(self, x):
            return Reader(symptom())(x)[:, :1]

    found = evidence(wrap(One(), labels=["sick"], preprocess=PIXELS), scene(), symptom(), controls=99, progress=False)
    assert (found.answer, found.verdict, found.env) == ("sick", "evidence", 0)
    assert found.rows[0].without.answer == "not sick"
    assert ask(One(), scene(), symptom(), target=0).followed == "class 0"
    with pytest.raises(TargetError, match="has 1 classes"):
        ask(One(), scene(), symptom(), target=1)


def test_a_network_that_ends_in_a_softmax_is_read_before_it():
    module = nn.Sequential(net(1), nn.Softmax(1))
    assert ask(module, scene(), symptom()).sym == pytest.approx(ask(net(1), scene(), symptom()).sym)


@pytest.mark.parametrize(
    ("sym", "env", "fe", "p", "word"),
    [
        (0.5, 0.1, 0.4, 0.049, "evidence"), (0.5, 0.1, 0.4, 0.05, "inconclusive"),
        (0.49, 0.1, 0.39, 0.01, "inconclusive"), (0.9, 0.11, 0.79, 0.01, "inconclusive"),
        (0.1, 0.05, 0.05, 0.01, "no evidence"), (0.0, 0.0, 0.0, 0.5, "no evidence"),
        (0.3, 0.31, -0.01, 0.9, "counter-evidence"), (0.9, 1.0, -0.1, 0.01, "counter-evidence"),
    ],
)  # fmt: skip
def test_the_words_have_bounds(sym, env, fe, p, word):
    assert verdict(sym, env, fe, p) == word
    assert (slow.verdict(sym, env, p) == word) or (
        slow.verdict(sym, env, p) == "undecided" and word in ("inconclusive", "no evidence")
    )


def test_a_run_can_be_stopped_and_is_counted():
    seen = []
    bar = Progress(on_event=lambda done, total, label: seen.append((done, total)))
    ask(net(), scene(), symptom(), fills=("mean", "grey"), controls=19, progress=bar)
    assert seen[-1] == (80, 80)  # two fills, twenty places, covered and alone
    stopping = Progress(on_event=lambda *_: stopping.cancel())
    with pytest.raises(Cancelled):
        ask(net(), scene(), symptom(), progress=stopping)
