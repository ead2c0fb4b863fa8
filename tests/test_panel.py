"""Many methods at once: one recording, the same bits as alone, bounded memory, and a network left as it was."""

import pytest
import torch
from torch import nn

import pellucid as pel
from method_cases import COLOURS, Counted, D, close, heat, outcomes, pooled, random_input, undrawn
from networks.awkward import AWKWARD, NO_AUTOGRAD, WRITES_STATE, example, twin
from oracles import cams
from pellucid.core.errors import Cancelled, LayerError, MethodError, PellucidError, TargetError, TraceError
from pellucid.core.progress import Progress
from pellucid.core.pull import Walk
from pellucid.methods import METHODS
from pellucid.methods import case as case_module
from pellucid.methods.registry import Method
from test_gradient_methods import SINGLE, class_per_image

FEW = {"samples": 4, "steps": 3}
ASKING = {  # methods that ask about edits, with settings that make them quick
    "occlusion": {"window_px": 4, "fill": "black"},
    "region_occlusion": {"regions": "grid:4", "fill": "black"},
    "score_cam": {},
    "ablation_cam": {},
    "lime": {"regions": "grid:4", "samples": 8},
    "shap": {"regions": "grid:4"},
    "unit_shapley": {"samples": 600},
    "rise": {"samples": 6, "cells": 2},
    "extremal_perturbation": {"steps": 2, "cells": 4, "areas": "0.2"},
    "meaningful_perturbation": {"steps": 2, "cells": 4},
    "xrai": {"regions": "grid:4", "steps": 2},
}
MANY_PASSES = [name for name, m in METHODS.items() if FEW.keys() & m.settings.keys() and name not in ASKING]
ONE_PASS = [name for name in METHODS if name not in (*MANY_PASSES, *ASKING)]


def quick(name: str) -> Method:
    return METHODS[name](**ASKING.get(name, {k: v for k, v in FEW.items() if k in METHODS[name].settings}))


def all_on(model: nn.Module, x: torch.Tensor, names: list[str], **words) -> list:
    wrapped = pel.wrap(model, preprocess=COLOURS)
    return pel.attribute(wrapped, x, methods=[quick(n) for n in names], **words)


def fixture_network(name: str) -> tuple[nn.Module, torch.Tensor]:
    if name == "pooled":
        return pooled().float(), random_input(2, 3, 8, 8, dtype=torch.float32)
    return AWKWARD[name][0](), example(AWKWARD[name][1])[0]


@pytest.mark.parametrize("name", ["pooled", "inplace_residual", "squeeze_excite", "depthwise_relu6"])
@pytest.mark.parametrize("budget", [case_module.PASS_BYTES, 400_000])
def test_a_panel_gives_every_method_its_own_bits(name: str, budget: int, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(case_module, "PASS_BYTES", budget)
    model, x = fixture_network(name)
    names = list(METHODS)
    alone = {n: all_on(model, x, [n], targets="top2") for n in names}
    for order in (names, names[::-1]):
        together = all_on(model, x, order, targets="top2")
        for n in names:
            mine = [o for o in together if o.method.name == n]
            for found, expected in zip(mine, alone[n], strict=True):
                assert torch.equal(found.attribution, expected.attribution), n
                assert [r.checks for r in found.receipts] == [r.checks for r in expected.receipts], n
                rules = [{key.split(":")[0] for key in o.receipts[0].operations} for o in (found, expected)]
                assert rules[0] == rules[1], n


def test_one_forward_for_many_methods_targets_and_layers():
    model, x = Counted(pooled()), random_input(2, 3, 8, 8)
    assert len(ONE_PASS) >= 12
    found = pel.attribute(model, x, methods=ONE_PASS, targets="top3", layers=["inside.5", "inside.2"])
    layered = sum(2 if METHODS[n].layered else 1 for n in ONE_PASS)
    assert len(found) == 3 * layered
    assert model.sizes == [2]


@pytest.mark.parametrize("method", ["saliency", "grad_cam", "guided_backprop"])
def test_one_forward_for_the_top_five(method: str):
    model, x = Counted(pooled()), random_input(2, 3, 8, 8)
    found = outcomes(model, x, method, "top5")
    assert model.sizes == [2]
    best = pooled()(x).topk(5, 1).indices
    for k, one in enumerate(found):
        close(one.attribution, heat(pooled(), x, method, best[:, k].tolist(), layers=None), 1e-12)


@pytest.mark.parametrize("method", MANY_PASSES)
def test_passes_are_small_and_no_image_is_pushed_twice(method: str):
    model, x = Counted(pooled()), random_input(2, 3, 8, 8)
    (setting,) = FEW.keys() & METHODS[method].settings.keys()
    baselines = {"baseline": "black"} if "baseline" in METHODS[method].settings else {}
    outcomes(model, x, METHODS[method](**{setting: 20}, **baselines), preprocess=COLOURS)
    assert max(model.sizes) <= case_module.LARGEST_PASS
    spent = 2 + 2 * 20 + (2 if baselines else 0)  # the recording, the copies, the baselines
    assert spent <= sum(model.sizes) <= spent + 2, "one image more, twice, tries whether autograd agrees"


def test_memory_bounds_the_pass(monkeypatch: pytest.MonkeyPatch):
    x = random_input(1, 3, 8, 8)
    expected = heat(pooled(), x, "integrated_gradients", steps=16, baseline="zero")
    for budget, largest in ((1, 1), (10**12, case_module.LARGEST_PASS)):
        monkeypatch.setattr(case_module, "PASS_BYTES", budget)
        model = Counted(pooled())
        close(heat(model, x, "integrated_gradients", steps=16, baseline="zero"), expected, 1e-12)
        assert max(model.sizes) == largest


@pytest.mark.parametrize("limit", [1, 2, 3])
@pytest.mark.parametrize("method", MANY_PASSES)
def test_out_of_memory_goes_on_with_smaller_passes(method: str, limit: int, untouched):
    (setting,) = FEW.keys() & METHODS[method].settings.keys()
    x = random_input(1, 3, 8, 8)
    words = {setting: 21, "preprocess": COLOURS}
    model = Counted(pooled(), limit)
    with untouched(model.inside), undrawn():
        (found,) = outcomes(model, x, method, **words)
    close(found.attribution, heat(pooled(), x, method, **words), 1e-12)
    assert any("memory ran out at 8 images" in note for note in found.receipts[0].notes)
    assert sum(size > limit for size in model.sizes) <= 3, "a size that failed is not tried again"


def test_out_of_memory_on_one_image_is_raised(untouched):
    model = Counted(pooled(), 0)
    with untouched(model.inside), undrawn(), pytest.raises(torch.OutOfMemoryError):
        heat(model, random_input(1, 3, 8, 8), "integrated_gradients")


# ------------------------------------------------------------------------------------------------ nothing is left over


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_untouched(method: str, untouched):
    model, x = pooled(), random_input(2, 3, 8, 8)
    model[0].weight.grad = torch.ones_like(model[0].weight)
    model[1].bias.requires_grad_(False)
    with untouched(model), undrawn():
        all_on(model, x, [method], targets="top2")


@pytest.mark.parametrize("name", ["inplace_on_input", "user_hooks", "inplace_residual", *NO_AUTOGRAD])
def test_networks_with_a_will_of_their_own_are_untouched(name: str, untouched):
    model, x = AWKWARD[name][0](), example(AWKWARD[name][1])[0]
    given = x.clone()
    found = 0
    with untouched(model), undrawn():
        for method in METHODS:
            try:
                found += len(all_on(model, x, [method]))
            except MethodError:
                assert method in ("cam", "visual_backprop")
    assert found >= len(METHODS) - 2
    assert torch.equal(x, given)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", sorted(WRITES_STATE))
def test_what_a_forward_writes_is_put_back(name: str, method: str):
    """Every bit; torch's counter of writes goes on (the guard would tell it)."""
    model, x = AWKWARD[name][0](), example(AWKWARD[name][1])[0]
    before = {key: tensor.clone() for key, tensor in model.state_dict().items()}
    all_on(model, x, [method])
    for key, tensor in model.state_dict().items():
        assert torch.equal(tensor, before[key]), key
    model(x)
    assert any(not torch.equal(tensor, before[key]) for key, tensor in model.state_dict().items())


@pytest.mark.parametrize("method", METHODS)
def test_the_network_is_untouched_after_an_error_in_its_forward(method: str, untouched):
    model, x = Breaks(pooled()), random_input(2, 3, 8, 8)
    for last in (0, 1, 2) if method in MANY_PASSES else (0, 1) if method in ("occlusion", "lime", "rise") else (0,):
        model.left = last
        with untouched(model.inside), undrawn(), pytest.raises((TraceError, ValueError)):
            all_on(model, x, [method])


class Breaks(nn.Module):
    """Writes into its own parameters' neighbours and fails after some forwards."""

    def __init__(self, inside: nn.Module) -> None:
        super().__init__()
        self.inside, self.left = inside, 0
        self.eval()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.left -= 1
        out = self.inside(x)
        if self.left < 0:
            raise ValueError("the user's own error")
        return out


WALKLESS = {"eigen_cam", "visual_backprop", *ASKING} - {"extremal_perturbation", "meaningful_perturbation", "xrai"}


@pytest.mark.parametrize("method", [n for n in METHODS if n not in WALKLESS])
def test_the_network_is_untouched_after_an_error_in_a_walk(method: str, untouched, monkeypatch: pytest.MonkeyPatch):
    model, x = pooled(), random_input(2, 3, 8, 8)
    step = Walk._step

    def failing(walk: Walk, node) -> None:
        if node.kind == "linear":
            raise KeyError("in the middle")
        step(walk, node)

    monkeypatch.setattr(Walk, "_step", failing)
    with untouched(model), undrawn(), pytest.raises(KeyError):
        all_on(model, x, [method])


@pytest.mark.parametrize("method", MANY_PASSES)
def test_a_cancelled_method_leaves_nothing(method: str, untouched):
    model, x = pooled(), random_input(2, 3, 8, 8)
    bar = Progress(on_event=lambda done, total, label: bar.cancel())
    with untouched(model), undrawn(), pytest.raises(Cancelled):
        (setting,) = FEW.keys() & METHODS[method].settings.keys()
        outcomes(model, x, method, preprocess=COLOURS, progress=bar, **{setting: 20})
    assert 0 < bar.done < bar.total


# ------------------------------------------------------------------------------ networks that torch can't differentiate


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_path_methods_run_on_every_awkward_network(name: str):
    x = example(AWKWARD[name][1], dtype=D)
    target = pel.custom(class_per_image)
    words = {"samples": 2, "noise_fraction": 0.01, "base": "guided_backprop"}
    try:
        heat(AWKWARD[name][0]().to(D), x, "smoothgrad", target, **words)
        found = heat(AWKWARD[name][0]().to(D), x, "integrated_gradients", target, steps=2, baseline="zero")
    except PellucidError as error:
        assert name == "data_control", error  # its path depends on the numbers: not on every point the same
        return
    close(
        found, heat(AWKWARD[twin(name)][0]().to(D), x, "integrated_gradients", target, steps=2, baseline="zero"), 1e-9
    )


@pytest.mark.parametrize("count", [1, 3, 5])
def test_a_wrong_number_of_classes_is_our_error(count: int):
    for targets in (pel.logit(list(range(count))), torch.arange(count), pel.contrast(list(range(count)), 4)):
        if count == 1:
            heat(pooled(), random_input(2, 3, 8, 8), "saliency", targets)
        else:
            with pytest.raises(TargetError, match=f"{count} classes came for 2 images"):
                heat(pooled(), random_input(2, 3, 8, 8), "saliency", targets)


def test_unknown_names_are_our_errors():
    x = random_input(1, 3, 8, 8)
    with pytest.raises(MethodError, match='did you mean "grad_cam"'):
        pel.attribute(pooled(), x, methods="gradcam")
    with pytest.raises(LayerError, match="did you mean"):
        pel.attribute(pooled(), x, methods=["saliency", "grad_cam"], layers=["4", "44"])
    with pytest.raises(TargetError, match="0 to 4"):
        pel.attribute(pooled(), x, methods="saliency", targets=5)


def test_the_average_over_layers_is_left_to_the_user():
    """Several layers give several maps, each on its own grid; pytorch-grad-cam averages them after rescaling."""
    model, x = pooled(), random_input(1, 3, 8, 8)
    found = pel.attribute(model, x, methods="grad_cam", targets=1, layers=["2", "5"])
    assert [tuple(o.attribution.shape) for o in found] == [(1, 8, 8), (1, 4, 4)]
    A, G = cams.activation_and_gradient(model, "2", x, lambda y: y[:, 1].sum())
    close(found[0].attribution, cams.each(cams.grad_cam, A, G), 1e-12)
