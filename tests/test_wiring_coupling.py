"""Coupling of layers: four ways of asking against slow definitions, groups, layers, and the graph of influence."""

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import undrawn
from oracles import wiring as oracle
from pellucid.core.errors import LayerError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.scenes import compose, render
from pellucid.inside.opened import opened
from pellucid.inside.wiring.clusters import grouped, inside
from pellucid.inside.wiring.graph import influence_graph, spearman
from pellucid.inside.wiring.matrix import coupling_matrix
from pellucid.inside.wiring.places import chain
from pellucid.inside.wiring.stages import layer_coupling
from test_wiring import Odd


@pytest.fixture(scope="module")
def x() -> torch.Tensor:
    """Twelve scenes as the network takes them."""
    normalise = pel.load("builtin:scenes").preprocess.normalise
    pixels = [torch.from_numpy(render(compose(number)).pixels.copy()).permute(2, 0, 1) / 255 for number in range(12)]
    return normalise(torch.stack(pixels))


def small(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    parts = [nn.Conv2d(2, 4, 3, padding=1), nn.ReLU(), nn.Conv2d(4, 5, 3, stride=2), nn.ReLU(),
             nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(5, 3)]  # fmt: skip
    return nn.Sequential(*parts).double().eval()


def some(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64)


def test_ablation_is_the_hooks_answer():
    net, x = small(), some(4, 2, 7, 7)
    found = coupling_matrix(net, "1", "3", x)
    assert np.allclose(found.matrix, oracle.ablation_matrix(net, "3", "1", x), atol=1e-12)
    ends = coupling_matrix(net, "1", "classes", x)
    assert np.allclose(ends.matrix, oracle.ablation_matrix(net, "", "1", x), atol=1e-12)
    one = coupling_matrix(net, "1", "3", x[:1], fill="mean")
    assert np.allclose(one.matrix, oracle.ablation_matrix(net, "3", "1", x[:1], fill="mean"), atol=1e-12)
    assert np.isnan(one.errors).all() and found.pictures == 4
    with torch.no_grad():
        assert np.allclose(found.level, net[:4](x).mean((0, 2, 3)).numpy())


def test_deep_lift_is_the_matrix_of_influence_and_sums_to_the_change():
    net, x, start = small(), some(3, 2, 7, 7), some(2, 7, 7)
    found = coupling_matrix(net, "1", "3", x, how="deep_lift", baseline=start)
    rows = [oracle.influence(net, 1, 3, one[None], start[None]) for one in x]
    positions = 3 * 3
    assert np.allclose(found.matrix, np.mean([C for C, _ in rows], 0) / positions, atol=1e-12)
    assert np.allclose(found.matrix.sum(0), np.mean([d for _, d in rows], 0) / positions, atol=1e-12)
    ends = coupling_matrix(net, "3", "classes", x, how="deep_lift", baseline=start)
    with torch.no_grad():
        change = (net(x) - net(start[None])).mean(0).numpy()
    assert np.allclose(ends.matrix.sum(0), change, atol=1e-12)


def test_a_zero_weight_is_a_zero_edge_whoever_asks():
    net, x = small(), some(3, 2, 7, 7)
    with torch.no_grad():
        net[2].weight[3, 1] = 0
        net[2].weight[:, 2] = 0
    for how in ("ablation", "gradient", "deep_lift", "relevance"):
        found = coupling_matrix(net, "1", "3", x, how=how).matrix
        assert found[1, 3] == 0 and (found[2] == 0).all() and np.abs(found).max() > 1e-3


def test_multipliers_follow_the_chain_rule():
    net = nn.Sequential(*(nn.Linear(a, b) for a, b in ((3, 4), (4, 5), (5, 2)))).double().eval()
    net = nn.Sequential(net[0], nn.ReLU(), net[1], nn.ReLU(), net[2]).double()
    x, start = some(1, 3), some(3)
    with torch.no_grad():
        delta = {n: (net[:n](x) - net[:n](start[None]))[0].numpy() for n in (2, 4, 5)}
    C = {
        pair: coupling_matrix(net, *pair, x, how="deep_lift", baseline=start).matrix
        for pair in (("1", "3"), ("3", "4"), ("1", "4"))
    }
    m_ab = np.divide(C["1", "3"], delta[2][:, None], out=np.zeros_like(C["1", "3"]), where=delta[2][:, None] != 0)
    m_bc = np.divide(C["3", "4"], delta[4][:, None], out=np.zeros_like(C["3", "4"]), where=delta[4][:, None] != 0)
    live = delta[2] != 0
    assert np.allclose((m_ab @ m_bc)[live], C["1", "4"][live] / delta[2][live, None], atol=1e-10)
    assert np.abs(C["1", "4"]).max() > 1e-3


def test_gradient_and_relevance_are_what_they_say():
    net, x = small(), some(3, 2, 7, 7)
    leaf = net[:2](x).detach().requires_grad_()
    later = net[2:4](leaf).mean((2, 3))
    found = coupling_matrix(net, "1", "3", x, how="gradient")
    for j in range(5):
        (g,) = torch.autograd.grad(later[:, j].sum(), leaf, retain_graph=True)
        assert np.allclose(found.matrix[:, j], (g * leaf).sum((2, 3)).mean(0).detach().numpy(), atol=1e-12)
    net[2].bias.data.zero_()  # without biases LRP-0 of a rectified layer is gradient times input
    same = coupling_matrix(net, "1", "3", x, how="relevance", composite="zero").matrix
    assert np.allclose(same, coupling_matrix(net, "1", "3", x, how="gradient").matrix, atol=1e-10)
    plus = coupling_matrix(net, "1", "3", x, how="relevance", composite="excitation")
    assert (plus.matrix >= 0).all() and np.allclose(plus.matrix.sum(0), plus.level, atol=1e-8)


def test_any_module_and_both_ends():
    module, x = Odd().double().eval(), some(3, 4, 7, 5)
    with torch.no_grad():
        a = F.relu(module.first(x))
        rest = lambda a: F.relu(module.second(a) + a)  # noqa: E731
        whole = rest(a).mean((2, 3))
        lost = []
        for i in range(6):
            off = a.clone()
            off[:, i] = 0
            lost.append((whole - rest(off).mean((2, 3))).mean(0).numpy())
    assert np.allclose(coupling_matrix(module, "relu#0", "relu#1", x).matrix, np.stack(lost), atol=1e-12)
    assert coupling_matrix(module, "input", "mixed", x).matrix.shape == (4, 5)
    assert coupling_matrix(module, "mixed", "classes", x, how="gradient").target_names == (
        "class 0",
        "class 1",
        "class 2",
    )


def test_planted_groups_are_found_and_are_tighter_than_chance():
    random = np.random.default_rng(0)
    of_rows, of_columns = np.repeat([0, 1, 2], (8, 5, 7)), np.repeat([0, 1, 2], (6, 9, 6))
    matrix = random.normal(0, 0.1, (20, 21)) + 1.0 * (of_rows[:, None] == of_columns) * random.choice([-1, 1], (20, 21))
    mixed = random.permutation(20), random.permutation(21)
    found = grouped(matrix[np.ix_(*mixed)])
    assert found.count == 3
    for of, planted in ((found.rows, of_rows[mixed[0]]), (found.columns, of_columns[mixed[1]])):
        assert len(set(zip(of.tolist(), planted.tolist(), strict=True))) == 3
    assert found.tightness > 0.4 and found.chance < 0.25
    assert (np.diff(found.rows[found.row_order]) >= 0).all()
    even = grouped(np.ones((6, 7)) + random.normal(0, 0.01, (6, 7)), 2)
    assert even.tightness < 0.01


def test_groups_that_stand_apart_wholly_silent_rows_and_given_ones():
    matrix = np.zeros((6, 6))
    matrix[:2, :2], matrix[2:5, 2:5] = 1.0, 2.0
    found = grouped(matrix)
    assert found.rows[5] == found.columns[5] == -1 and found.row_order[-1] == 5
    assert found.inside_fraction == 1 and len(set(found.rows[:2])) == len(set(found.rows[2:5])) == 1
    given = np.array([0, 0, 0, 1, 1, 1]), np.array([0, 0, 0, 1, 1, 1])
    assert grouped(matrix, given=given).inside_fraction == inside(matrix, *given) == pytest.approx((6 + 8) / 22)
    assert grouped(matrix, seed=3).rows.tolist() == grouped(matrix, seed=3).rows.tolist()
    assert grouped(np.zeros((3, 4))).rows.tolist() == [-1] * 3 and grouped(np.ones((1, 4))).count >= 0


def test_given_groups_are_marks_of_both_layers():
    net, x = small(), some(2, 2, 7, 7)
    marks = (["a", "a", "b", "b"], ["a", "b", "b", "b", "a"])
    found = coupling_matrix(net, "1", "3", x, groups=marks)
    size = np.abs(found.matrix)
    same = np.array(marks[0])[:, None] == np.array(marks[1])
    assert found.groups.inside_fraction == pytest.approx(size[same].sum() / size.sum())
    assert found.blocks.sum() == pytest.approx(1) and np.trace(found.blocks) == pytest.approx(
        found.groups.inside_fraction
    )
    with pytest.raises(SettingError, match="marks came"):
        coupling_matrix(net, "1", "3", x, groups=(marks[0], marks[1][:2]))


def test_layers_by_what_is_left_without_positions_and_by_relevance(x):
    model = pel.load("builtin:scenes")
    found = layer_coupling(model, ["features", "features.12", "pool", "classes"], x[:3])
    assert found.layers == ("features.12", "features", "pool", "classes")
    assert found.changed[2, 1] < 1e-6 and found.changed[3, 1] < 1e-6  # an average sees nothing but the mean
    with torch.no_grad():
        a = model.module.features[:13](x[:3])
        b = model.module.features[13:](a)
        flat = model.module.features[13:](a.mean((2, 3), keepdim=True).expand_as(a))
        expected = ((b - flat).flatten(1).norm(dim=1) / b.flatten(1).norm(dim=1)).mean()
    assert found.changed[1, 0] == pytest.approx(float(expected), abs=1e-5)
    below = np.tril_indices(4, -1)
    assert np.isnan(found.changed[np.triu_indices(4)]).all() and np.allclose(found.relevance[below], 1, atol=1e-3)


def test_relevance_of_a_branch_is_less_than_the_whole():
    found = layer_coupling("builtin:photos", ["stage1.0", "stage1.1.relu1", "stage1"], torch.randn(2, 3, 32, 32))
    assert found.relevance[2, 0] == pytest.approx(1, abs=1e-3) and 0.2 < found.relevance[2, 1] < 0.95
    apart = layer_coupling(Odd().eval(), ["first", "relu#0", "second"], torch.randn(2, 4, 6, 6))
    assert not np.isnan(apart.changed[np.tril_indices(3, -1)]).any()
    with pytest.raises(LayerError, match="two or more"):
        layer_coupling("builtin:photos", ["stem"], torch.randn(1, 3, 32, 32))


def test_the_graph_agrees_with_ablation_on_a_trained_network(x):
    found = influence_graph("builtin:scenes", None, x, top=20, units=8)
    assert found.layers == ("features.10", "features.12", "pool", "classes")
    assert all(rho >= 0.7 for rho in found.agreement) and found.drawn_agreement >= 0.7
    assert all(len(pair) <= 20 for pair in found.edges) and all(len(names) <= 8 for names in found.nodes[:-1])
    whole = coupling_matrix("builtin:scenes", "pool", "classes", x, how="deep_lift")
    best = found.edges[-1][0]
    i, label = int(best.source.split(":")[1]), best.target.split(":")[1]
    j = whole.target_names.index(label)
    kept = [int(name.split(":")[1]) for name in found.nodes[-2]]
    columns = [whole.target_names.index(name.split(":")[1]) for name in found.nodes[-1]]
    assert best.strength == pytest.approx(whole.matrix[i, j], rel=1e-5)
    assert abs(best.strength) == pytest.approx(np.abs(whole.matrix[np.ix_(kept, columns)]).max(), rel=1e-5)


def test_edges_are_ablated_to_the_reference():
    net, x, start = small(), some(3, 2, 7, 7), some(2, 7, 7)
    found = influence_graph(net, ["1"], x, baseline=start)
    edge = found.edges[0][0]
    i, k = int(edge.source.split(":")[1]), int(edge.target.split("class ")[1])
    with torch.no_grad():
        a, reference = net[:2](x), net[:2](start[None])
        off = a.clone()
        off[:, i] = reference[:, i]
        assert edge.ablated == pytest.approx(float((net[2:](a) - net[2:](off)).mean(0)[k]), abs=1e-12)


def test_spearman_shares_ranks():
    assert spearman(np.array([1.0, 2, 3, 4]), np.array([1.0, 3, 2, 4])) == pytest.approx(0.8)
    assert spearman(np.array([1.0, 1, 2]), np.array([5.0, 5, 9])) == pytest.approx(1)
    assert np.isnan(spearman(np.array([1.0, 1, 1]), np.array([1.0, 2, 3])))


def test_the_chain_of_layers():
    assert chain(opened("builtin:photos").trace) == [
        "stem", "stage1.0", "stage1", "stage2.0", "stage2.1", "pool", "classes"
    ]  # fmt: skip


def test_mistakes_are_told_and_nothing_is_touched(untouched):
    net, x = small(), some(2, 2, 7, 7)
    for call, error, words in [
        (lambda: coupling_matrix(net, "3", "1", x), LayerError, "does not depend"),
        (lambda: coupling_matrix(net, "1", "3", x, clusters=0), SettingError, "at least one"),
        (lambda: coupling_matrix(net, "1", "3", x, fill="grey"), SettingError, "no fill"),
        (lambda: coupling_matrix(net, "1", "3", x, how="relevance", composite="lrp"), SettingError, "no composite"),
        (lambda: coupling_matrix(net, "1", "3", x, how="deep_lift", baseline="blur"), SettingError, "not known"),
        (lambda: coupling_matrix(net, "1", "3", x, how="deep_lift", baseline=x[0, :1]), SettingError, "baseline of"),
        (lambda: influence_graph(net, ["1"], x, top=0), SettingError, "at least one"),
        (lambda: influence_graph(net, [], x), LayerError, "name one"),
    ]:
        with untouched(net), undrawn(), pytest.raises(error, match=words):
            call()
    for how in ("ablation", "gradient", "deep_lift", "relevance"):
        progress = Progress()
        with untouched(net), undrawn():
            coupling_matrix(net, "1", "3", x, how=how, progress=progress)
        assert progress.done == progress.total > 0


def test_where_nothing_counts_nothing_is_claimed():
    net, x = small(), some(2, 2, 7, 7)
    with torch.no_grad():
        net[0].bias.fill_(-100)
        net[2].bias.zero_()
    for how in ("ablation", "gradient", "deep_lift", "relevance"):
        found = coupling_matrix(net, "1", "3", x, how=how)
        assert not found.matrix.any() and "Nothing of 1 counts" in found.sentence()
        assert (
            found.groups.rows.tolist() == [-1] * 4 and found.image().width > 100 and found.facts()["tightness"] is None
        )
    graph = influence_graph(net, ["1", "3"], x)
    assert "Nothing" in graph.sentence() and graph.image().width > 100 and not any(graph.edges)
    lost = pel.ablation(net, "1", x)
    assert "None of 4 units" in lost.sentence() and lost.image().width > 100
    assert "Nothing of 1 counts" in pel.feeders(net, "3:0", x).sentence()
    assert pel.feeders(net, "3:0", x).image().width > 100


def test_one_score_a_picture_and_no_positions_at_all():
    net = nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 1), nn.Flatten(0)).double().eval()
    x = some(4, 6)
    with torch.no_grad():
        a = net[:2](x)
    expected = (a * net[2].weight[0]).mean(0).detach().numpy()
    for how in ("ablation", "gradient"):
        assert np.allclose(coupling_matrix(net, "1", "classes", x, how=how).matrix[:, 0], expected, atol=1e-12)
    whole = coupling_matrix(net, "1", "classes", x, how="deep_lift").matrix.sum()
    with torch.no_grad():
        assert whole == pytest.approx(float((net(x) - net(torch.zeros(1, 6).double())).mean()), abs=1e-12)
    assert layer_coupling(net, ["1", "classes"], x).changed[1, 0] > 0 and pel.feeders(net, "1:0", x).layer == "input"


def test_they_show_themselves(tmp_path):
    net, x = small(), some(2, 2, 7, 7)
    shown = [
        coupling_matrix(net, "1", "3", x), layer_coupling(net, None, x), influence_graph(net, ["1", "3"], x),
    ]  # fmt: skip
    for number, found in enumerate(shown):
        for kind in ("png", "html", "json"):
            assert found.save(tmp_path / f"{number}.{kind}").stat().st_size > 500
        assert len(found.sentence()) > 40 and found.tables[0].rows and "2 pictures" in repr(found)
