"""A5 to A7: SmoothGrad and its relatives, Integrated and Expected Gradients, against one-at-a-time loops."""

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

import pellucid as pel
from method_cases import COLOURS, D, case, check, close, error, heat, outcome, plain, pooled, random_input
from oracles import gradients, rectifiers

RULES = {
    "gauss_legendre": "gauss-legendre",
    "left": "left",
    "middle": "midpoint",
    "right": "right",
    "trapezoid": "trapezoid",
}
NAMED = ("black", "white", "grey", "mean", "blur", "uniform")


def one_class(model: nn.Module, index: int = 1) -> Callable[[Tensor], Tensor]:
    return lambda t: model(t)[:, index].sum()


BASES: dict[str, Callable[[nn.Module], Callable[[Tensor], Tensor]]] = {
    "saliency": lambda m: lambda x: gradients.saliency(one_class(m), x),
    "gradient_x_input": lambda m: lambda x: gradients.gradient_times_input(one_class(m), x),
    "guided_backprop": lambda m: lambda x: rectifiers.guided_backprop(m, x, one_class(nn.Identity())),
    "deconvnet": lambda m: lambda x: rectifiers.deconvnet(m, x, one_class(nn.Identity())),
}


def noises(x: Tensor, count: int, fraction: float, seed: int = 0) -> list[Tensor]:
    """The noise that the methods draw: one stream per copy, spread by the image's own range."""
    drawn = case(nn.ReLU(), x, pel.logit(1), seed=seed)
    return [fraction * (x.max() - x.min()) * drawn.noise(x.shape[1:], stream=k)[None] for k in range(count)]


# -------------------------------------------------------------------------------------------------------- SmoothGrad


@pytest.mark.parametrize("base", BASES)
def test_one_copy_without_noise_is_the_base_method(base: str):
    model, x = pooled(), random_input(2, 3, 8, 8)
    found = heat(model, x, "smoothgrad", samples=1, noise_fraction=0.0, base=base)
    close(found, heat(model, x, base), 1e-13)
    close(heat(model, x, "smoothgrad_squared", samples=1, noise_fraction=0.0, base=base), found**2, 1e-13)
    assert not heat(model, x, "vargrad", samples=1, noise_fraction=0.0, base=base).any()


@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("seed", [0, 7])
def test_smoothgrad_is_the_slow_loop_with_the_same_noise(base: str, seed: int):
    model, x = pooled(), random_input(3, 3, 8, 8)
    words = {"samples": 6, "noise_fraction": 0.2, "base": base, "seed": seed}
    found = {name: heat(model, x, name, **words) for name in ("smoothgrad", "smoothgrad_squared", "vargrad")}
    for i in range(3):
        one, drawn = x[i : i + 1], noises(x[i : i + 1], 6, 0.2, seed)
        slow = BASES[base](model)
        close(found["smoothgrad"][i : i + 1], gradients.smoothgrad(slow, one, drawn), 1e-12)
        close(found["smoothgrad_squared"][i : i + 1], gradients.smoothgrad_squared(slow, one, drawn), 1e-12)
        if base == "deconvnet":  # with the ReLUs of this network its map is the same for every picture
            assert float(found["vargrad"].max()) <= 1e-24 * float(found["smoothgrad_squared"].max())
        else:
            close(found["vargrad"][i : i + 1], gradients.vargrad(slow, one, drawn), 1e-11)


def test_absolute_maps_product_with_the_image_and_capping():
    model, x = pooled(), random_input(2, 3, 8, 8)
    words = {"samples": 4, "noise_fraction": 0.2}
    signed = heat(model, x, "smoothgrad", **words)
    close(heat(model, x, "smoothgrad", times_input=True, **words), signed * x, 1e-13)
    absolute = heat(model, x, "smoothgrad", absolute=True, **words)
    for i in range(2):
        one = x[i : i + 1]
        slow = gradients.smoothgrad(lambda t: BASES["saliency"](model)(t).abs(), one, noises(one, 4, 0.2))
        close(absolute[i : i + 1], slow, 1e-12)
    capped = heat(model, x, "smoothgrad", cap_percentile=90.0, **words)
    for found, full in zip(capped, signed, strict=True):
        bound = full.abs().flatten().quantile(0.9)
        close(found, full.clamp(-bound, bound), 1e-12)
        assert (found != full).double().mean() == pytest.approx(0.1, abs=1 / full.numel())


class Quadratic(nn.Module):
    """Two classes, the second ½ Σ a x²: the gradient a x is linear in the noise, every pixel independent."""

    def __init__(self) -> None:
        super().__init__()
        self.a = nn.Parameter(torch.linspace(0.5, 2, 768, dtype=D).view(3, 16, 16))

    def forward(self, x: Tensor) -> Tensor:
        half = 0.5 * (self.a * x**2).flatten(1).sum(1)
        return torch.stack([-half, half], 1)


@pytest.mark.parametrize("samples", [1, 4, 16, 64])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_variance_of_the_mean_falls_as_one_over_n(samples: int, seed: int):
    """Σ_pixels n (ĝ − a x)² / (a σ)² is chi-square with 768 degrees: mean 768, deviation √1536; allowed: four."""
    model, x = Quadratic(), random_input(1, 3, 16, 16)
    sigma = 0.15 * (x.max() - x.min())
    found = heat(model, x, "smoothgrad", samples=samples, noise_fraction=0.15, seed=seed)
    statistic = float((samples * ((found - model.a * x) / (model.a * sigma)) ** 2).sum())
    assert abs(statistic - 768) <= 4 * (2 * 768) ** 0.5


def test_the_variance_falls_on_a_network_too():
    """32 seeds give a variance with a relative deviation of at most √(2/31) = 0.25 however correlated the pixels are,
    so the logarithm of the ratio of two has 0.36; four of these around log 16 exclude no fall and a fall as 1/n²."""
    model, x = plain(), random_input(1, 3, 8, 8)

    def variance(samples: int) -> Tensor:
        maps = [heat(model, x, "smoothgrad", samples=samples, seed=s) for s in range(32)]
        return torch.cat(maps).var(0).sum()

    ratio = torch.log(variance(2) / variance(32))
    assert abs(float(ratio) - torch.log(torch.tensor(16.0))) <= 4 * 0.36


def test_vargrad_estimates_the_variance_of_the_gradient():
    """With 400 copies its mean over 768 pixels is (1 − 1/400) (a σ)² up to √(2/399/768), four deviations allowed."""
    model, x = Quadratic(), random_input(1, 3, 16, 16)
    sigma = 0.1 * (x.max() - x.min())
    found = heat(model, x, "vargrad", samples=400, noise_fraction=0.1) / (model.a * sigma) ** 2
    assert abs(float(found.mean()) - (1 - 1 / 400)) <= 4 * (2 / 399 / 768) ** 0.5


def test_a_small_variance_is_not_lost_to_rounding():
    model, x = pooled(act=nn.Tanh), random_input(1, 3, 8, 8)
    words = {"samples": 8, "noise_fraction": 1e-3}
    single = heat(pooled(act=nn.Tanh).float(), x.float(), "vargrad", **words).double()
    close(single, heat(model, x, "vargrad", **words), 1e-3)


# ----------------------------------------------------------------------------------------------- Integrated Gradients


def pixel_baseline(name: str, x: Tensor, seed: int = 0) -> Tensor:
    return COLOURS.normalise(pel.baseline(name, COLOURS.denormalise(x), seed=seed))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_integrated_gradients_is_the_slow_loop(rule: str, axes: int):
    model, x = plain(axes), random_input(2, 3, *[8] * axes)
    start = random_input(2, 3, *[8] * axes, seed=5)
    found = outcome(model, x, "integrated_gradients", baseline=start, steps=7, rule=rule)
    for i in range(2):
        one, below = x[i : i + 1], start[i : i + 1]
        slow = gradients.integrated_gradients(one_class(model), one, below, *gradients.quadrature(RULES[rule], 7))
        close(found.attribution[i : i + 1], slow, 1e-11)
        difference = one_class(model)(one) - one_class(model)(below)
        residual = gradients.completeness_residual(one_class(model), one, below, slow) / difference
        assert check(found, "completeness residual", i) == pytest.approx(abs(float(residual)), rel=1e-6, abs=1e-12)


@pytest.mark.parametrize("name", [*NAMED, "zero", "auto"])
def test_every_named_baseline(name: str):
    model, x = pooled(), random_input(2, 3, 8, 8)
    found = heat(model, x, "integrated_gradients", baseline=name, steps=5, preprocess=COLOURS)
    for i in range(2):
        one = x[i : i + 1]
        below = torch.zeros_like(one) if name == "zero" else pixel_baseline("black" if name == "auto" else name, one)
        slow = gradients.integrated_gradients(one_class(model), one, below, *gradients.quadrature("gauss-legendre", 5))
        close(found[i : i + 1], slow, 1e-11)


@pytest.mark.parametrize("act", [nn.Tanh, nn.SiLU, nn.ReLU])
def test_the_residual_falls_with_the_steps(act: type[nn.Module]):
    model, x = pooled(act=act), random_input(2, 3, 8, 8)
    steps = {"middle": (1, 8, 256), "gauss_legendre": (1, 4, 32), "trapezoid": (2, 16, 512)}
    for rule, counts in steps.items():
        found = [outcome(model, x, "integrated_gradients", baseline="zero", steps=n, rule=rule) for n in counts]
        for image in range(2):
            first, middle, last = (check(o, "completeness residual", image) for o in found)
            assert last < middle < first
            assert last < 2e-2
        if act is nn.Tanh and rule == "gauss_legendre":
            assert last < 1e-9
        assert found[-1].receipts[0].checks[0].verdict == "pass"


def test_a_bad_residual_is_a_warning():
    model, x = pooled(), random_input(1, 3, 8, 8)
    (receipt,) = outcome(model, x, "integrated_gradients", steps=1, rule="left", baseline="zero").receipts
    assert receipt.checks[0].value > receipt.checks[0].bound and receipt.verdict == "warn"


def test_several_baselines_are_averaged():
    model, x = pooled(), random_input(2, 3, 8, 8)
    own = random_input(2, 3, 8, 8, seed=3)
    words = {"steps": 6, "preprocess": COLOURS}
    parts = [heat(model, x, "integrated_gradients", baseline=b, **words) for b in ("black", "blur", own)]
    found = outcome(model, x, "integrated_gradients", baseline=["black", "blur", own], **words)
    close(found.attribution, sum(parts) / 3, 1e-13)
    both = heat(model, x, "integrated_gradients", baseline="black+blur", **words)
    close(both, (parts[0] + parts[1]) / 2, 1e-13)
    below = [pixel_baseline("black", x[:1]), pixel_baseline("blur", x[:1]), own[:1]]
    left = gradients.completeness_residual(one_class(model), x[:1], below, found.attribution[:1])
    change = found.attribution[:1].sum() - left
    assert check(found, "completeness residual") == pytest.approx(abs(float(left / change)), rel=1e-6)


# ------------------------------------------------------------------------------------ Expected Gradients, GradientSHAP


def draws(count: int, starts: int, seed: int) -> tuple[list[float], list[int]]:
    """Points and numbers of baselines as documented: baselines in turn, the points of each stratified over [0, 1]."""
    random = torch.rand(count, generator=torch.Generator().manual_seed(seed)).tolist()
    of_each = [len(range(j, count, starts)) for j in range(starts)]
    return [(k // starts + random[k]) / of_each[k % starts] for k in range(count)], [k % starts for k in range(count)]


@pytest.mark.parametrize("samples", [3, 8, 12])
@pytest.mark.parametrize("seed", [0, 4])
def test_expected_gradients_is_the_slow_loop(samples: int, seed: int):
    model, x = pooled(), random_input(2, 3, 8, 8)
    starts = [random_input(2, 3, 8, 8, seed=s) for s in (7, 8, 9)]
    found = outcome(model, x, "expected_gradients", baseline=starts, samples=samples, seed=seed)
    alphas, which = draws(samples, 3, seed)
    for i in range(2):
        one = x[i : i + 1]
        parts = [
            gradients.expected_gradients(
                one_class(model),
                one,
                [start[i : i + 1]] * which.count(j),
                [a for a, w in zip(alphas, which, strict=True) if w == j],
            )
            for j, start in enumerate(starts)
        ]
        close(found.attribution[i : i + 1], sum(parts) / 3, 1e-11)


def test_gradient_shap_without_noise_is_expected_gradients():
    model, x = pooled(), random_input(2, 3, 8, 8)
    words = {"samples": 9, "preprocess": COLOURS, "seed": 2}
    assert torch.equal(
        heat(model, x, "gradient_shap", noise_fraction=0.0, **words), heat(model, x, "expected_gradients", **words)
    )
    assert error(heat(model, x, "gradient_shap", **words), heat(model, x, "expected_gradients", **words)) > 1e-3


def test_gradient_shap_is_the_slow_loop():
    model, x = pooled(), random_input(1, 3, 8, 8)
    start = random_input(1, 3, 8, 8, seed=9)
    found = heat(model, x, "gradient_shap", baseline=start, samples=5, noise_fraction=0.1)
    alphas, _ = draws(5, 1, 0)
    maps = [
        gradients.expected_gradients(one_class(model), x + noise, [start], [alpha])
        for noise, alpha in zip(noises(x, 5, 0.1), alphas, strict=True)
    ]
    close(found, sum(maps) / 5, 1e-11)


def test_expected_gradients_are_complete_in_expectation():
    """The mean of Σ R over 80 seeds, four draws each, lies within four of its standard errors."""
    model, x = pooled(), random_input(1, 3, 8, 8)
    starts = [random_input(1, 3, 8, 8, seed=s) for s in (7, 8)]
    found = [outcome(model, x, "expected_gradients", baseline=starts, samples=4, seed=s) for s in range(80)]
    sums = torch.stack([o.attribution.sum() for o in found])
    expected = one_class(model)(x) - (one_class(model)(starts[0]) + one_class(model)(starts[1])) / 2
    assert abs(float(sums.mean() - expected)) <= 4 * float(sums.std()) / 80**0.5
    many = outcome(model, x, "expected_gradients", baseline=starts, samples=256)
    assert check(many, "completeness in standard errors") <= 3
    assert many.receipts[0].verdict == "pass"


# ------------------------------------------------------------------------------------------------------------ both


RANDOM = ("smoothgrad", "smoothgrad_squared", "vargrad", "integrated_gradients", "expected_gradients", "gradient_shap")
FEW = {"integrated_gradients": {"steps": 5, "baseline": "uniform"}}


@pytest.mark.parametrize("method", RANDOM)
def test_seeds_reproduce_and_a_batch_is_its_images(method: str):
    model, x = pooled(), random_input(3, 3, 8, 8)
    words = {"preprocess": COLOURS, **FEW.get(method, {"samples": 5})}
    first = heat(model, x, method, seed=3, **words)
    torch.manual_seed(99)
    assert torch.equal(first, heat(model, x, method, seed=3, **words))
    assert error(heat(model, x, method, seed=4, **words), first) > 1e-3
    alone = torch.cat([heat(model, x[i : i + 1], method, seed=3, **words) for i in range(3)])
    close(first, alone, 1e-12)
