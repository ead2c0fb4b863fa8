"""A1 to A4: saliency, gradient × input, guided backpropagation, deconvnet, against differences and slow definitions."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import D, close, error, heat, outcome, plain, pooled, random_input, score
from networks import zoo
from networks.awkward import AWKWARD, BATCH_DEPENDENT, VARIANT_SHAPES, VARIANTS, class_one, example, twin
from networks.common import logits, seeded
from oracles import gradients, rectifiers

GRADIENT = ("saliency", "gradient_x_input", "guided_backprop", "deconvnet")
SMOOTH = {"tanh": nn.Tanh, "gelu": nn.GELU, "silu": nn.SiLU, "softplus": nn.Softplus}
SINGLE = {"casts", "traced_whole", "scripted_frozen"}  # their dtype is part of them
RULES = {"guided_backprop": rectifiers.guided_backprop, "deconvnet": rectifiers.deconvnet}


@pytest.mark.parametrize("act", SMOOTH)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_saliency_is_the_limit_of_differences(act: str, axes: int):
    model, x = plain(axes, act=SMOOTH[act]), random_input(1, 3, *[8] * axes)
    places = gradients.some_places(x, 20)
    expected = gradients.finite_differences(lambda t: model(t)[0, 1], x, places, step=1e-5)
    found = heat(model, x, "saliency")
    close(torch.stack([found[p] for p in places]), expected, 1e-7)


def same_score(name: str, x: tuple[Tensor, ...]) -> tuple[nn.Module, nn.Module, pel.Target]:
    """A network, the twin that torch can differentiate, and class 1 of its main output as they both have it."""
    factory, _ = AWKWARD[name]
    model, other = factory().to(D), AWKWARD[twin(name)][0]().to(D)
    return model, other, pel.custom(lambda y: class_per_image(y), "class 1")


def class_per_image(y: Tensor) -> Tensor:
    """`networks.class_one` before its sum over the images."""
    flat = y.reshape(len(y), -1) if y.ndim == 1 or y.shape[1] == 1 else y[:, 1].reshape(len(y), -1)
    return flat.sum(1)


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_saliency_is_autograd_on_every_awkward_network(name: str):
    x = example(AWKWARD[name][1], dtype=D)
    model, other, target = same_score(name, x)
    leaves = [t.clone().requires_grad_() for t in x]
    (expected, *_) = torch.autograd.grad(class_one(other(*[t.clone() for t in leaves])), leaves, allow_unused=True)
    assert expected is not None
    close(heat(model, x, "saliency", target), expected, 1e-10)


# `x * sigmoid(x)` written out and the ReLU inside `F.lp_pool2d` are rectifiers to pellucid; the slow definition, which
# sees what Python calls, can't see them.
UNSEEN = {"hand_swish", "custom_function", "pools"}


@pytest.mark.parametrize("method", RULES)
@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in UNSEEN | SINGLE])
def test_modified_walks_are_the_slow_definition(name: str, method: str):
    x = example(AWKWARD[name][1], dtype=D)
    model, other, target = same_score(name, x)
    found = RULES[method](other, x, class_one)
    close(heat(model, x, method, target), found[0], 1e-10)


@pytest.mark.parametrize("name", ["casts", "traced_whole"])
def test_in_single_precision(name: str):
    (x,) = example(AWKWARD[name][1])
    model, other = AWKWARD[name][0](), AWKWARD[twin(name)][0]()
    close(heat(model, x, "saliency"), gradients.saliency(lambda t: class_one(other(t)), x), 1e-5)


ARCHITECTURES = ("mobilenet_v2", "efficientnet_b0", "googlenet", "convnext_tiny")


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_modified_walks_on_architectures_whose_rectifiers_hide_from_hooks(name: str):
    model, x = zoo.build(name).to(D), zoo.picture(name, dtype=D)
    plain_gradient = heat(model, x, "saliency")
    for method, slow in RULES.items():
        found = heat(model, x, method)
        close(found, slow(model, x, score()), 1e-9)
        assert error(found, plain_gradient) > 0.1, "guided and deconvnet must not be the gradient"


@pytest.mark.parametrize("method", GRADIENT)
def test_spelling_does_not_change_a_map(method: str):
    (x,) = example(VARIANT_SHAPES, dtype=D)
    maps = {name: heat(make().to(D), x, method) for name, make in VARIANTS.items() if name != "traced"}
    first = next(iter(maps.values()))
    for found in maps.values():
        close(found, first, 1e-12)


@pytest.mark.parametrize("axes", [1, 2, 3])
def test_gradient_x_input_sums_to_the_score_without_biases(axes: int):
    model, x = plain(axes, bias=False), random_input(2, 3, *[8] * axes)
    found = outcome(model, x, "gradient_x_input")
    close(found.attribution.flatten(1).sum(1), model(x)[:, 1], 1e-12)
    close(found.attribution, gradients.gradient_times_input(lambda t: model(t)[:, 1].sum(), x), 1e-12)


@pytest.mark.parametrize("method", GRADIENT)
@pytest.mark.parametrize("name", ["plain", "inplace_residual", "squeeze_excite", "attention", "norms", "pools"])
def test_a_batch_is_its_images(method: str, name: str):
    model = plain() if name == "plain" else AWKWARD[name][0]().to(D)
    assert name not in BATCH_DEPENDENT
    x = random_input(3, 3, 8, 8) if name == "plain" else random_input(3, *AWKWARD[name][1][0][1:])
    together = heat(model, x, method, [1, 0, 2])
    alone = [heat(model, x[i : i + 1], method, c) for i, c in enumerate([1, 0, 2])]
    close(together, torch.cat(alone), 1e-12)


def test_the_targets_differentiate_what_they_say():
    model, x = plain(), random_input(2, 3, 8, 8)

    def by_hand(read) -> Tensor:
        return gradients.saliency(lambda t: read(model(t)).sum(), x)

    close(heat(model, x, "saliency", pel.contrast(1, 3)), by_hand(lambda y: y[:, 1] - y[:, 3]), 1e-12)
    close(heat(model, x, "saliency", "1 vs 3"), by_hand(lambda y: y[:, 1] - y[:, 3]), 1e-12)
    close(heat(model, x, "saliency", "probability:2"), by_hand(lambda y: y.softmax(1)[:, 2]), 1e-12)
    close(heat(model, x, "saliency", "log_probability:2"), by_hand(lambda y: y.log_softmax(1)[:, 2]), 1e-12)
    close(heat(model, x, "saliency", pel.custom(lambda y: y.norm(dim=1))), by_hand(lambda y: y.norm(dim=1)), 1e-12)
    close(heat(model, x, "saliency", [4, 0]), by_hand(lambda y: y[torch.arange(2), [4, 0]]), 1e-12)


@pytest.mark.parametrize("position", ["mean", "max", (1, 2)])
def test_a_unit_is_projected_to_the_pixels(position):
    model, x = plain(), random_input(1, 3, 8, 8)
    part = nn.Sequential(*list(model)[:4])

    def read(maps: Tensor) -> Tensor:
        found = {"mean": maps[:, 5].mean((1, 2)), "max": maps[:, 5].amax((1, 2))}
        return (found[position] if isinstance(position, str) else maps[:, 5, 1, 2]).sum()

    close(heat(model, x, "deconvnet", pel.unit("3", 5, position)), rectifiers.deconvnet(part, x, read), 1e-12)
    close(heat(model, x, "saliency", pel.unit("3", 5, position)), rectifiers.plain(part, x, read), 1e-12)


def test_a_unit_in_words_is_the_unit():
    model, x = plain(), random_input(1, 3, 8, 8)
    assert torch.equal(heat(model, x, "saliency", "unit:3:5"), heat(model, x, "saliency", pel.unit("3", 5)))


class Dense(nn.Module):
    """A score at each position."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.head = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 4, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.conv(x)))


def test_a_region_of_a_dense_output():
    model, x = seeded(Dense)().to(D), random_input(2, 3, 6, 7)
    mask = torch.zeros(6, 7, dtype=torch.bool)
    mask[1:3, 2:5] = True
    expected = gradients.saliency(lambda t: model(t)[:, 2][:, mask].mean(1).sum(), x)
    close(heat(model, x, "saliency", pel.region(2, mask)), expected, 1e-12)
    close(heat(model, x, "saliency", 2), gradients.saliency(lambda t: model(t)[:, 2].mean((1, 2)).sum(), x), 1e-12)


@pytest.mark.parametrize("method", ["guided_backprop", "deconvnet"])
def test_the_receipt_tells_what_the_rule_met(method: str):
    x = random_input(1, 3, 8, 8)
    rule = method.removesuffix("_backprop")
    (sharp,) = outcome(plain(), x, method).receipts
    assert sharp.approximate == ()
    assert sharp.operations[f"{rule}: relu"] == 3
    (smooth,) = outcome(plain(act=nn.SiLU), x, method).receipts
    assert "silu ×3" in smooth.approximate[0] and smooth.verdict == "warn"
    (none,) = outcome(plain(act=nn.Tanh), x, method).receipts
    assert "no rectifier" in none.approximate[0]


def test_without_a_rectifier_guided_is_the_gradient():
    model, x = plain(act=nn.Tanh), random_input(1, 3, 8, 8)
    assert torch.equal(heat(model, x, "guided_backprop"), heat(model, x, "saliency"))


def test_a_map_that_is_zero_everywhere_is_told():
    model, x = pooled(), random_input(1, 3, 8, 8)
    with torch.no_grad():
        model[-1].weight.zero_()
    found = outcome(model, x, "saliency")
    assert not found.attribution.any()
    assert found.receipts[0].verdict == "warn"
    assert "zero everywhere" in found.receipts[0].checks[-1].text


def test_the_main_output_of_several_is_read():
    x = example(AWKWARD["dict_output"][1], dtype=D)
    model = AWKWARD["dict_output"][0]().to(D)
    expected = gradients.saliency(lambda t: logits(model(t))[:, 1].sum(), x[0])
    close(heat(model, x, "saliency"), expected, 1e-12)
