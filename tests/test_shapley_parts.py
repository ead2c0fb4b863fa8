"""Units and layers that share a score: networks whose answer is known, plain forwards, refusals."""

import inspect

import numpy as np
import pytest
import torch
from torch import nn

import pellucid as pel
from method_cases import CONV, D, check, close, outcome, plain, pooled, random_input, undrawn
from pellucid.core.errors import LayerError, MethodError, SettingError, TargetError
from pellucid.core.target import probability
from pellucid.images import scenes
from pellucid.methods.shapley import layer_shapley, unit_shapley
from pellucid.methods.shapley.exact import exact
from pellucid.methods.shapley.game import Game
from pellucid.methods.shapley.units import Switched, spread

# ---- units ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kind", ["auto", "permutation", "kernel"])
def test_units_before_a_linear_head_get_their_own_terms(axes, kind):
    """Behind global average pooling a unit's share is `w_k mean A_k`, and its map is CAM's term."""
    model, x = pooled(axes), random_input(2, 3, *[8] * axes)
    found = outcome(model, x, "unit_shapley", layers="5", kind=kind)
    with torch.no_grad():
        A = model[:6](x)
    w = model[-1].weight[1].detach().view(1, -1, *[1] * axes)
    close(found.attribution, (w * A).sum(1) / A[0, 0].numel(), 1e-9)
    for image in range(2):
        assert check(found, "efficiency residual", image) < 1e-12
        (table,) = found.tables[image]
        assert table.columns == ("unit", "share (score)", "± standard error", "mean activation")
        phi = (model[-1].weight[1].detach() * A[image].flatten(1).mean(1)).tolist()
        assert table.column("share (score)") == pytest.approx([phi[k] for k in table.column("unit")], abs=1e-9)


@pytest.mark.parametrize("off", ["zero", "mean"])
def test_units_of_a_layer_in_the_middle_are_those_of_plain_forwards(off):
    """A head that is not linear, exactly, for both states of being off."""
    model, x = plain(), random_input(2, 3, 8, 8)
    found = outcome(model, x, "unit_shapley", layers="1", off=off)  # six units
    with torch.no_grad():
        A = model[:2](x)
        away = torch.zeros_like(A) if off == "zero" else A.mean((2, 3), keepdim=True).expand_as(A)
        for image in range(2):
            ask = lambda keep, i=image: model[2:](torch.where(keep[:, :, None, None], A[i], away[i]))[:, 1]  # noqa: E731
            phi = torch.from_numpy(exact(Game(6, ask)).values)
            lost = (A - away)[image].abs()
            expected = (phi[:, None, None] * lost / lost.sum((1, 2), keepdim=True).clamp(min=1e-300)).sum(0)
            close(found.attribution[image], expected, 1e-9)
            change = found.scores[image] - model[2:](away[image : image + 1])[0, 1]
            assert float(found.attribution[image].sum()) == pytest.approx(float(change), rel=1e-9)


def test_a_dead_unit_gets_nothing_and_twin_units_the_same():
    model = pooled()
    with torch.no_grad():
        model[3].weight[2], model[4].bias[2], model[4].running_mean[2], model[3].bias[2] = 0, -5, 0, 0
        for part, names in (
            (model[3], ("weight", "bias")),
            (model[4], ("weight", "bias", "running_mean", "running_var")),
        ):
            for name in names:
                getattr(part, name)[1] = getattr(part, name)[0]
        model[-1].weight[:, 1] = model[-1].weight[:, 0]
    found = outcome(model, random_input(1, 3, 8, 8), "unit_shapley", probability(1), layers="5")
    table = found.tables[0][0]
    phi = dict(zip(table.column("unit"), table.column("share (score)"), strict=True))
    assert phi[2] == 0
    assert phi[0] == pytest.approx(phi[1], rel=1e-12)
    assert phi[0] != 0


def test_what_is_lost_nowhere_is_spread_evenly():
    lost = torch.tensor([[1.0, 3.0], [0.0, 0.0], [-2.0, 2.0]], dtype=D)
    found = spread(torch.tensor([4.0, 2.0, 1.0], dtype=D), lost)
    assert found.tolist() == [1 + 1 + 0.5, 3 + 1 + 0.5]


def test_many_units_are_drawn_and_the_largest_listed():
    model = nn.Sequential(nn.Conv2d(3, 40, 3), nn.ReLU(), nn.Flatten(), nn.Linear(40 * 36, 4)).to(D).eval()
    found = outcome(model, random_input(1, 3, 8, 8), "unit_shapley", layers="1", samples=400)
    (table,) = found.tables[0]
    assert len(table.rows) == 20
    assert "the 20 largest of 40 units" in table.note
    assert check(found, "standard error") < 1e-9  # the head is linear
    with pytest.raises(SettingError, match="40 players need 158 or more"):
        outcome(model, random_input(1, 3, 8, 8), "unit_shapley", layers="1", samples=157)


def test_switched_units_are_whole_layers_of_one_image():
    on, off = random_input(4, 3, 5), torch.zeros(4, 3, 5, dtype=D)
    edits = Switched(on, off, torch.eye(4, dtype=torch.bool), 0, 7)
    assert list(edits.rows) == [7] * 4 and edits.boxes is None
    found = edits.inputs([2, 0])
    assert torch.equal(found[0, 2], on[2]) and torch.equal(found[1, 0], on[0])
    assert found[0, [0, 1, 3]].abs().sum() == 0
    last = Switched(on, off, torch.tensor([[True, False, True, False, False]]), 2, 0).inputs([0])[0]
    assert torch.equal(last[..., [0, 2]], on[..., [0, 2]]) and last[..., [1, 3, 4]].abs().sum() == 0
    with pytest.raises(NotImplementedError, match="no box"):
        edits.inside(0)


def test_a_layer_without_maps_and_an_overflowing_unit_are_told():
    model, x = pooled(), random_input(1, 3, 8, 8)
    with pytest.raises(MethodError, match="no maps"):
        outcome(model, x, "unit_shapley", layers="8")

    class Divides(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            sums = self.first(x).abs().sum((2, 3))
            return torch.stack([sums[:, 0] / sums[:, 2] - sums[:, 1] / sums[:, 2], sums[:, 3]], 1)

    with pytest.raises(MethodError, match=r"score was nan with units 0, 1, 2(, 3)? off"):
        outcome(Divides().to(D).eval(), x, "unit_shapley", 0, layers="first")


def test_units_on_a_real_network():
    scene = scenes.render(next(iter(scenes.stream(1, split="test"))))
    found = pel.explain("builtin:scenes", scene.pixels, methods=unit_shapley(samples=600))
    table = found.tables[0]
    assert found.attribution.sum() == pytest.approx(
        found.score - float(table.note.split("off ")[1].split(";")[0]), rel=0.01
    )
    assert found.receipt.verdict in ("pass", "warn")


@pytest.mark.parametrize("method", ["shap", "unit_shapley"])
def test_the_network_and_the_random_state_are_left_alone(method, untouched):
    model, x = pooled(), random_input(2, 3, 8, 8)
    words = {"regions": "grid:6", "fill": "zero", "kind": "permutation"} if method == "shap" else {}
    before = torch.random.get_rng_state(), np.random.get_state()[1].copy()
    with untouched(model), undrawn():
        outcome(model, x, method, **words)
    assert torch.equal(torch.random.get_rng_state(), before[0])
    assert np.array_equal(np.random.get_state()[1], before[1])


# ---- layers ---------------------------------------------------------------------------------------------------------


class Branches(nn.Module):
    """Three branches that are added, so that each layer's share with zero off is its own term."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.b, self.c = (CONV[2](3, 4, 3, padding=1) for _ in range(3))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (self.a(x) + self.b(x) - 2 * self.c(x)).mean((2, 3))


def test_branches_that_add_get_their_own_terms():
    model, x = Branches().to(D).eval(), random_input(2, 3, 8, 8)
    found = layer_shapley(model, x, layers=["a", "b", "c"], target=2)
    with torch.no_grad():
        terms = [layer(x).mean((2, 3))[:, 2] * sign for layer, sign in ((model.a, 1), (model.b, 1), (model.c, -2))]
    close(found.shares, torch.stack(terms, 1), 1e-12)
    assert found.empty.abs().max() == 0
    assert torch.allclose(found.shares.sum(1), found.scores - found.empty, rtol=1e-12)
    assert found.tables[1].column("layer") == ["a", "b", "c"]
    assert found.tables[1].column("share (score)") == pytest.approx(found.shares[1].tolist())
    assert repr(found).startswith("LayerShares(logit of 2: a ")


@pytest.mark.parametrize("off", ["zero", "mean"])
def test_layers_in_a_row_are_those_of_plain_forwards(off):
    model, x = plain(), random_input(2, 3, 8, 8)
    found = layer_shapley(model, x, layers=["0", "3", "4"], target=[1, 2], off=off)
    with torch.no_grad():
        away = {}
        for number in (0, 3, 4):
            A = model[: number + 1](x)
            away[number] = torch.zeros_like(A) if off == "zero" else A.mean((2, 3), keepdim=True).expand_as(A)

        def ask(keep: torch.Tensor, image: int) -> torch.Tensor:
            scores = []
            for row in keep:
                h = x
                for number, part in enumerate(model):
                    h = part(h)
                    if number in away and not row[(0, 3, 4).index(number)]:
                        h = away[number]
                scores.append(h[image, (1, 2)[image]])
            return torch.stack(scores)

        for image in range(2):
            expected = exact(Game(3, lambda keep, i=image: ask(keep, i))).values
            np.testing.assert_allclose(found.shares[image].numpy(), expected, rtol=1e-9, atol=1e-12)
    assert found.off == off and found.target == ("logit of 1", "logit of 2")


@pytest.mark.parametrize(
    ("layers", "words", "kind", "message"),
    [
        (["0"], {}, LayerError, "1 layers came; give 2 to 12"),
        (["0"] * 13, {}, LayerError, "13 layers came"),
        (["0", "nowhere"], {}, LayerError, 'no layer "nowhere"'),
        (["0", "2", "0"], {}, LayerError, '"0" and "0" give out the same value'),
        (["0", "6"], {"off": "mean"}, LayerError, 'no cells to average; use off="zero"'),
        (["0", "2"], {"off": "grey"}, SettingError, 'use "zero" or "mean"'),
        (["0", "2"], {"target": "top2"}, TargetError, "2 targets came; give one"),
    ],
)  # fmt: skip
def test_layers_that_can_not_share_are_refused(layers, words, kind, message):
    with pytest.raises(kind, match=message):
        inspect.unwrap(layer_shapley)(plain(), random_input(1, 3, 8, 8), layers=layers, **words)
