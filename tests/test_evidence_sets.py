"""Smallest sets of regions against every set there is, and where answers part between two data sets."""

import json
from itertools import combinations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from evidence_cases import PIXELS, SIDE, Reader, model, net, scene, symptom
from method_cases import undrawn
from oracles import evidence as slow
from pellucid.core.errors import ImageError, SettingError, TargetError
from pellucid.images.fills import Fill
from pellucid.methods.evidence import evidence_between, minimal_sets, what_must_change
from pellucid.methods.evidence.parting import mcnemar
from pellucid.methods.evidence.search import Book, prune, smallest
from pellucid.models.model import wrap

# ---- the search alone -----------------------------------------------------------------------------------------------


class World:
    """Any function of sets, with how many were asked about."""

    def __init__(self, count, seed, easy=0.2, towards=0.0):
        random = np.random.default_rng(seed)
        self.count, self.asked = count, []
        self.leads = {
            members: float(random.normal() - 2 + 2 * easy + towards * len(members) / count)
            for size in range(count + 1)
            for members in combinations(range(count), size)
        }
        self.leads[()] = -1.0

    def __call__(self, chosen):
        sets = [tuple(np.flatnonzero(row).tolist()) for row in chosen.numpy()]
        self.asked += sets
        return torch.tensor([self.leads[s] for s in sets], dtype=torch.float64)

    def decides(self, members):
        return self.leads[tuple(sorted(members))] > 0


@settings(max_examples=60, deadline=None)
@given(st.integers(1, 7), st.integers(0, 10_000), st.sampled_from([0.1, 0.5, 0.9]), st.booleans())
def test_with_budget_enough_both_searches_find_the_smallest(count, seed, easy, exhaustive):
    world = World(count, seed, easy)
    found = smallest(world, count, budget=10**6, exhaustive=exhaustive)
    wanted = slow.smallest(world.decides, count)
    assert found.proven and found.none_exists == (not wanted)
    assert len(set(world.asked)) == len(world.asked) == found.asked
    if wanted:
        assert frozenset(found.members) in wanted
        assert found.lead == world.leads[found.members] > 0
        assert slow.irreducible(world.decides, frozenset(found.members))


@settings(max_examples=60, deadline=None)
@given(st.integers(4, 8), st.integers(0, 10_000), st.integers(1, 60))
def test_with_any_budget_what_is_found_is_irreducible(count, seed, budget):
    world = World(count, seed, 0.2, towards=3.0)
    found = smallest(world, count, budget=budget, exhaustive=False)
    if found.members is None:
        assert found.asked <= budget
        return
    members = frozenset(found.members)
    assert slow.irreducible_by_one(world.decides, members)
    if found.irreducible == "every part of it":
        assert slow.irreducible(world.decides, members)
    if found.proven:
        assert members in slow.smallest(world.decides, count)


def test_the_best_first_search_is_greedy_where_that_is_right():
    """Regions that add up: the strongest are taken, and only one chain of sets is walked down before a set is found."""
    worth = torch.tensor([1.0, 5.0, 2.0, 4.0, 3.0, 0.5])
    book = Book(lambda chosen: (chosen * worth).sum(1).double() - 11.5, 6, 1 + 6 + 5 + 4)
    book.ask([()])
    assert smallest(book.question, 6, budget=16, exhaustive=False).members == (1, 3, 4)
    assert smallest(book.question, 6, budget=10**4, exhaustive=True).members == (1, 3, 4)


def test_what_only_looked_promising_is_pruned_away():
    """Region 0 draws the search first and helps nothing; the budget ends with the first set that decides."""

    def lead(row):
        members = set(np.flatnonzero(row.numpy()).tolist())
        return 1.0 if members >= {1, 2, 3, 4} else -6.0 + len(members & {1, 2, 3, 4}) + 1.5 * (0 in members)

    def question(chosen):
        return torch.tensor([lead(row) for row in chosen], dtype=torch.float64)

    found = smallest(question, 6, budget=1 + 6 + 5 + 4 + 3 + 2, exhaustive=False)
    assert found.members == (1, 2, 3, 4) and found.irreducible == "every region of it" and not found.proven
    assert smallest(question, 6, budget=19, exhaustive=False).members is None


def test_a_set_is_pruned_of_all_that_it_does_not_need():
    def question(chosen):
        return torch.tensor([1.0 if row[2] else -1.0 for row in chosen], dtype=torch.float64)

    book = Book(question, 12, 10_000)
    book.ask([tuple(range(12))])
    assert prune(book, tuple(range(12))) == ((2,), "every part of it")


def test_pairs_that_only_work_together_are_seen_through():
    """The way to {0, 1, 2} looks best and can spare no region, yet {4, 5} does it too: the search goes on."""

    def lead(row):
        members = set(np.flatnonzero(row.numpy()).tolist())
        decides = {frozenset({0, 1, 2}): 1.0, frozenset({4, 5}): 0.5}
        return decides.get(frozenset(members), -3 + 0.5 * len({0, 1, 2} & members))

    def question(chosen):
        return torch.tensor([lead(row) for row in chosen], dtype=torch.float64)

    found = smallest(question, 6, budget=10**4, exhaustive=False)
    assert found.members == (4, 5) and found.proven


# ---- sets of a picture ----------------------------------------------------------------------------------------------


CUT = torch.arange(6).div(2, rounding_mode="floor")[:, None] * 3 + torch.arange(6).div(2, rounding_mode="floor")
ALL = torch.arange(SIDE).div(6, rounding_mode="floor")[:, None] * 3 + torch.arange(SIDE).div(6, rounding_mode="floor")


def tangled(seed):
    """A network in which regions act together, and a picture for it."""
    torch.manual_seed(seed)
    module = nn.Sequential(nn.Flatten(), nn.Linear(108, 12), nn.Tanh(), nn.Linear(12, 4)).double().eval()
    with torch.no_grad():
        module[1].weight *= 3
        module[1].bias.copy_(-module[1].weight.sum(1) / 2)
        module[3].bias *= 0.1
    return module, torch.rand(1, 3, 6, 6, dtype=torch.float64)


TANGLED = (2, 3, 5, 6, 8, 9)


@pytest.mark.parametrize("seed", TANGLED)
@pytest.mark.parametrize("exhaustive", [True, False])
def test_minimal_sets_are_those_of_brute_force(seed, exhaustive):
    module, x = tangled(seed)
    found = minimal_sets(model(module), x, regions=CUT, fill="black", exhaustive=exhaustive, progress=False)
    after = slow.winners(module, x[0], CUT, Fill("black").paint(x[0]))
    for one, decides in (
        (found.necessary, slow.necessary(after)),
        (found.sufficient, slow.sufficient(after, 9)),
    ):
        wanted = slow.smallest(decides, 9)
        assert (one is None) == (not wanted)
        if one is not None:
            assert frozenset(one.regions) in wanted and one.search.proven
            assert (one.mask == slow.hiding(CUT, frozenset(one.regions)).numpy()).all()
    assert found.necessary is None or found.necessary.answer != found.answer
    assert found.sufficient is None or found.sufficient.answer == found.answer


def test_some_of_these_pictures_need_more_than_one_region():
    sizes = set()
    for seed in TANGLED:
        module, x = tangled(seed)
        found = minimal_sets(model(module), x, regions=CUT, fill="black", progress=False)
        sizes |= {len(one.regions) for one in (found.necessary, found.sufficient) if one is not None}
    assert sizes >= {1, 2, 3}


@pytest.mark.parametrize("seed", range(3))
def test_what_must_change_is_that_of_brute_force(seed):
    module, x = tangled(seed)
    before = int(module(x).argmax())
    donor = torch.rand(3, 6, 6, generator=torch.Generator().manual_seed(seed))
    fills = [Fill("black"), Fill.donor(donor)]
    for to in {0, 1, 2, 3} - {before}:
        found = what_must_change(model(module), x, to, regions=CUT, fills=fills, progress=False)
        best = []
        for fill in fills:
            after = slow.winners(module, x[0], CUT, fill.paint(x[0]))
            wanted = slow.smallest(slow.necessary(after, target=to), 9)
            one = found.tried[fill.name]
            assert (one is None) == (not wanted) == found.searches[fill.name].none_exists
            assert one is None or (frozenset(one.regions) in wanted and one.answer == f"class {to}")
            best += [len(wanted[0])] if wanted else []
        assert (found.best is None) == (not best)
        assert found.best is None or len(found.best.regions) == min(best)


def test_the_region_that_is_read_is_necessary_and_sufficient():
    labels = torch.where(symptom(), 1, 0)
    found = minimal_sets(model(Reader(symptom())), scene(), regions=labels, fill="mean", progress=False)
    assert found.necessary is not None and found.necessary.regions == (1,)
    assert found.sufficient is not None and found.sufficient.regions == (1,)
    assert found.necessary.fraction == 16 / 256
    assert "No smaller set does it" in found.sentence()


def test_none_is_said_where_there_is_none():
    sure = Reader(symptom(), level=-1.0)
    found = minimal_sets(model(sure), scene(), regions="grid:9", fill="mean", progress=False)
    assert found.necessary is None and found.searches["necessary"].none_exists
    assert "There is no set of regions" in found.sentence()
    assert found.sufficient is not None and found.sufficient.regions == ()
    assert "the fill alone gives it" in found.sentence()
    hasty = minimal_sets(model(sure), scene(), regions="grid:30", fill="mean", budget=20, progress=False)
    assert hasty.necessary is None and not hasty.searches["necessary"].none_exists
    assert hasty.searches["necessary"].asked == 20 and "In 20 tries no set was found" in hasty.sentence()
    changed = what_must_change(model(sure), scene(), 1, regions="grid:9", fills="mean", progress=False)
    assert changed.best is None and not changed.table.rows and "no set" in changed.sentence()


def test_pixels_of_no_region_stay():
    labels = torch.where(symptom(), -1, ALL)
    found = minimal_sets(model(Reader(symptom())), scene(), regions=labels, fill="mean", progress=False)
    assert found.necessary is None and found.sufficient is not None and found.sufficient.regions == ()


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda m, x: minimal_sets(m, x, regions=torch.zeros(SIDE, SIDE, dtype=torch.long)), SettingError, "1 region"),
        (lambda m, x: minimal_sets(m, x, regions="grid:9", fill="mean+blur"), SettingError, "2 fills"),
        (lambda m, x: minimal_sets(m, x, regions="grid:9", budget=0), SettingError, "budget"),
        (lambda m, x: minimal_sets(m, x, regions="grid:9", target=1), TargetError, "says class 0, not class 1"),
        (lambda m, x: what_must_change(m, x, 0, regions="grid:9"), TargetError, "says class 0 already"),
        (lambda m, x: what_must_change(m, x, "0 vs 1", regions="grid:9"), TargetError, "one class"),
        (lambda m, x: what_must_change(m, x, "top1", regions="grid:9"), TargetError, "one class"),
        (lambda m, x: what_must_change(m, x, 7, regions="grid:9"), TargetError, "7"),
    ],
)
def test_what_makes_no_sense_is_refused(call, error, words):
    with pytest.raises(error, match=words):
        call(model(Reader(symptom())), scene())


def test_sets_show_and_save_themselves(tmp_path):
    found = minimal_sets(model(net(1)), scene(seed=1), regions="grid:9", fill="grey", progress=False)
    facts = json.loads(found.save(tmp_path / "s.json").read_text())
    assert facts["kind"] == "minimal sets" and facts["regions"] == 9
    assert facts["necessary"].keys() >= {"found", "asked"}
    assert found.save(tmp_path / "s.csv").read_text().startswith("set,fill,regions,")
    assert found.picture().width > 300 and "MinimalSets(" in repr(found)
    to = "class 1" if found.answer != "class 1" else "class 2"
    changed = what_must_change(model(net(1)), scene(seed=1), int(to[-1]), regions="grid:9", progress=False)
    assert json.loads(changed.save(tmp_path / "c.json").read_text())["to"] == to
    assert changed.save(tmp_path / "c.png").stat().st_size > 500 and to in repr(changed)


# ---- two data sets --------------------------------------------------------------------------------------------------


def pool(level, count=6, seed=0):
    random = torch.Generator().manual_seed(seed)
    return level + 0.1 * torch.rand(count, 3, SIDE, SIDE, generator=random, dtype=torch.float64)


def between(module, **more):
    images, masks = torch.cat([scene(seed=s) for s in range(8)]), [symptom()] * 8
    pools = more.pop("pools", (pool(0.1), pool(0.7, seed=1)))
    return evidence_between(model(module), images, masks, *pools, names=("train", "test"), progress=False, **more)


def test_who_reads_only_the_symptom_never_parts():
    found = between(Reader(symptom()))
    assert (found.disagreement, found.accuracies, found.only, found.p) == (0, (1, 1), (0, 0), 1)
    assert found.within == (0, 0) and not found.table.rows
    assert "hardly matters" in found.sentence() and "unchanged" in found.sentence()


def test_who_reads_only_the_background_parts_always():
    corner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    corner[:3, :3] = True
    found = between(Reader(corner, level=0.5), labels=[1] * 8)
    assert (found.disagreement, found.accuracies, found.only) == (1, (1, 0), (8, 0))
    assert found.p == found.p_apart == pytest.approx(2 / 256) and found.within == (0, 0)
    assert "backgrounds of test lead it astray" in found.sentence()
    assert len(found.table.rows) == 8 and found.picture().width > 300
    assert all(row[4:6] == ("class 1", "class 0") for row in found.table.rows)
    assert {p.background_a for p in found.pairs} <= {f"input {i}" for i in range(6)}


def test_what_is_pasted_is_the_symptom_before_the_background():
    """The two pictures that are kept hold the symptom's pixels where the mask is, the background's elsewhere."""
    corner = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    corner[:3, :3] = True
    pools = (pool(0.1, count=1), pool(0.7, count=1, seed=1))
    found = between(Reader(corner, level=0.5), pools=pools)
    pair, a, b = found.shown[0]
    mask, number = symptom().numpy(), int(pair.picture.split()[1])
    picture = (scene(seed=number)[0].permute(1, 2, 0) * 255).round().numpy()
    for shown, background in ((a, pools[0]), (b, pools[1])):
        np.testing.assert_array_equal(shown[mask], picture[mask])
        np.testing.assert_array_equal(shown[~mask], (background[0].permute(1, 2, 0) * 255).round().numpy()[~mask])
    assert all(np.isnan(within) for within in found.within) and found.p_apart == 1
    assert found.to_json()["within"] == [None, None]


def test_labels_may_be_words_and_the_draw_is_seeded():
    labelled = wrap(Reader(symptom()), labels=["well", "sick"], preprocess=PIXELS)
    images = torch.cat([scene(seed=s) for s in range(4)])
    calls = [
        evidence_between(
            labelled, images, [symptom()] * 4, pool(0.1), pool(0.7), labels=["sick", "well"] * 2, seed=seed,
            progress=False,
        )
        for seed in (0, 0, 1)
    ]  # fmt: skip
    assert calls[0].accuracies == (0.5, 0.5) and calls[0].labelled
    assert calls[0].pairs == calls[1].pairs != calls[2].pairs


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (5, 0), (3, 9), (40, 22), (200, 200)])
def test_mcnemar_is_the_slow_one(b, c):
    assert mcnemar(b, c) == pytest.approx(slow.mcnemar(b, c)) == mcnemar(c, b)


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"masks": [symptom()]}, SettingError, "1 masks came for 2"),
        ({"masks": [torch.zeros(SIDE, SIDE, dtype=torch.bool)] * 2}, SettingError, "at least one pixel"),
        ({"labels": [0]}, SettingError, "1 labels came for 2"),
        ({"labels": [0, 5]}, SettingError, "label 5"),
        ({"images": []}, (ImageError, SettingError), "0 pictures|no test picture"),
        ({"backgrounds_a": []}, ImageError, "no background"),
        ({"backgrounds_b": torch.rand(1, 3, 8, 8)}, ImageError, "between sizes"),
    ],
)
def test_what_does_not_fit_is_refused(change, error, words):
    given = {"images": torch.cat([scene(), scene()]), "masks": [symptom()] * 2, "backgrounds_a": pool(0.1)}
    with pytest.raises(error, match=words):
        evidence_between(model(Reader(symptom())), **{**given, "backgrounds_b": pool(0.2), **change}, progress=False)


def test_networks_are_left_as_they_were(untouched):
    module = nn.Sequential(net(), nn.Softmax(1))
    with untouched(module), undrawn():
        between(module)
        minimal_sets(wrap(module, preprocess=PIXELS), scene(), regions="grid:9", progress=False)
        to = (int(module(scene()).argmax()) + 1) % 3
        what_must_change(wrap(module, preprocess=PIXELS), scene(), to, regions="grid:4", progress=False)


def test_noise_before_any_background_is_told_from_the_data_set():
    """A network that goes by the brightness of one background pixel parts within a data set as often as between."""
    pixel = torch.zeros(SIDE, SIDE, dtype=torch.bool)
    pixel[0, 0] = True
    pools = (pool(0.45, count=40, seed=3), pool(0.45, count=40, seed=4))
    images = torch.cat([scene(seed=s) for s in range(40)])
    found = evidence_between(model(Reader(pixel, level=0.5)), images, [symptom()] * 40, *pools, progress=False)
    assert 0.2 < found.disagreement < 0.8 and all(0.2 < within < 0.8 for within in found.within)
    assert found.p_apart > 0.05 and "is not shown" in found.sentence()
