"""DeepLIFT adds up to the change of the score on every network, or says where it is not exact; errors are clear."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from compare import but_pythons_numbers
from method_cases import D, check, close, heat, outcome, outcomes, plain, pooled, random_input
from networks import zoo
from networks.awkward import AWKWARD, BATCH_DEPENDENT, WRITES_STATE, class_one, example
from networks.common import seeded
from networks.variants import VARIANT_SHAPES, VARIANTS
from pellucid.core.derivatives import gradient_at
from pellucid.core.errors import Cancelled, LayerError, SettingError, TargetError, TraceError
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.methods.deeplift import deep_lift_walk
from pellucid.rules import differences
from pellucid.rules.deeplift import Nonlinearity
from pellucid.rules.differences import Reference
from test_gradient_methods import class_per_image

NONLINEARITIES: tuple[Nonlinearity, ...] = ("rescale", "reveal_cancel")
SELECTS = {"masked_zero", "routing", "pools", "reductions"}  # which elements are taken differs at the reference
SIZES_DIFFER = {"masked_scale", "indexing"}
ROUGH = {"norms": 1e-4, "spatial_transformer": 1e-3}  # averaged along the path, and curved
SINGLE_PRECISION = {"scripted_frozen", "casts"}
AVERAGED = {"probabilities", "einsum", "attention", "encoder", *ROUGH, *SELECTS}
ARCHITECTURES = ("resnet18", "squeezenet1_1", "mobilenet_v3_small")
BEHIND_A_VIEW = {"into_views", "into_buffer"}  # activations of slices: no linear operation right before
ATTENTION = ("vit", "swin", "maxvit")


def residual(trace: Trace, start: Tensor, nonlinearity: Nonlinearity = "rescale") -> tuple[float, Reference]:
    """|Σ contributions − Δ| over |Δ| for class 1, the batch summed."""
    scores = trace.output
    seed = gradient_at(scores.data, class_one)
    walk, reference = deep_lift_walk(trace, {scores: seed}, start, nonlinearity)
    found = float((walk.input() * (trace.inputs[0].data - start)).sum())
    change = float((seed * (scores.data - reference.before(scores))).sum())
    return abs(found - change) / abs(change), reference


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SIZES_DIFFER])
def test_on_every_awkward_network(name: str):
    make, shapes = AWKWARD[name]
    dtype = torch.float32 if name == "scripted_frozen" else D
    trace = record(make().to(dtype), *example(shapes, dtype=dtype))
    for nonlinearity in NONLINEARITIES:
        size, reference = residual(trace, example(shapes, seed=7, dtype=dtype)[0], nonlinearity)
        assert bool(reference.approximate) == (name in AVERAGED), reference.approximate
        if name in SELECTS:
            assert any("chooses differently" in words for words in reference.approximate)
        else:
            assert size <= ROUGH.get(name, 1e-5 if name in SINGLE_PRECISION else 1e-10)


@pytest.mark.parametrize("name", sorted(SELECTS))
def test_a_sum_that_fails_is_told(name: str):
    """Where the network chooses by the picture, that part of the change can't be shared out: the check says so."""
    make, shapes = AWKWARD[name]
    words = {"baseline": example(shapes, seed=7, dtype=D)[0]}
    found = outcome(make().to(D), example(shapes, dtype=D), "deep_lift", pel.custom(class_per_image), **words)
    verdicts = [c.verdict for r in found.receipts for c in r.checks if c.name == "summation-to-delta error"]
    assert "fail" in verdicts
    assert any("chooses differently" in line for line in found.receipts[0].approximate)


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_on_architectures(name: str):
    hold_architecture(name, *NONLINEARITIES)


@pytest.mark.zoo
@pytest.mark.parametrize("name", [n for n in zoo.torchvision_names() if n not in ARCHITECTURES])
def test_on_all_torchvision_architectures(name: str):
    hold_architecture(name, "rescale")


def hold_architecture(name: str, *nonlinearities: str) -> None:
    """1e-6 in float64 where every operation has its rule, 1e-4 where attention is averaged along the path."""
    trace = record(zoo.build(name).to(D), zoo.picture(name, dtype=D))
    averaged = name.startswith(ATTENTION)
    for nonlinearity in nonlinearities:
        size, reference = residual(trace, torch.zeros_like(trace.inputs[0].data), nonlinearity)
        assert bool(reference.approximate) == averaged, reference.approximate
        assert size <= (1e-4 if averaged else 1e-6)


@pytest.mark.parametrize("name", ["norms", "spatial_transformer"])
def test_the_averaged_derivative_gets_better_with_more_points(name: str, monkeypatch: pytest.MonkeyPatch):
    make, shapes = AWKWARD[name]
    trace, start = record(make().to(D), *example(shapes, dtype=D)), example(shapes, seed=7, dtype=D)[0]
    sizes = []
    for points in (2, 8, 64):
        monkeypatch.setattr(differences, "POINTS", points)
        sizes.append(residual(trace, start)[0])
    assert sizes[2] < sizes[0] / 10
    assert sizes[2] < sizes[1]


@pytest.mark.parametrize("eps", [1e-5, 1.0])
@pytest.mark.parametrize(
    "norm",
    [
        lambda e: nn.LayerNorm([4, 5], e),
        lambda e: nn.GroupNorm(2, 6, e),
        lambda e: nn.InstanceNorm2d(6, e, affine=True),
        lambda e: nn.RMSNorm(5, e),
    ],
    ids=["layer", "group", "instance", "rms"],
)
def test_a_normalisation_is_its_steps(norm, eps: float):
    """As module and written out by hand; a constant reference has no variance at all."""
    module = nn.Sequential(norm(eps), nn.Flatten(), nn.Linear(120, 3)).to(D).eval()
    module[0].weight.data.uniform_(-1, 1)
    x, axes = random_input(2, 6, 4, 5), {"LayerNorm": (2, 3), "InstanceNorm2d": (2, 3), "RMSNorm": (3,)}

    class ByHand(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            kind, inner = type(module[0]).__name__, module[0]
            t = x.view(2, 2, -1) if kind == "GroupNorm" else x
            over = axes.get(kind, (2,))
            c = t if kind == "RMSNorm" else t - t.mean(over, keepdim=True)
            y = (c * torch.rsqrt((c**2).mean(over, keepdim=True) + eps)).view_as(x)
            shape = (-1, 1, 1) if kind in ("GroupNorm", "InstanceNorm2d") else ()
            weight, bias = inner.weight, getattr(inner, "bias", None)
            y = y * (weight.view(shape) if shape else weight)
            return module[2](module[1](y if bias is None else y + (bias.view(shape) if shape else bias)))

    by_hand = ByHand().eval()
    close(by_hand(x).detach(), module(x).detach(), 1e-12)
    for start in (random_input(2, 6, 4, 5, seed=1), torch.zeros(2, 6, 4, 5, dtype=D)):
        found = outcome(module, x, "deep_lift", baseline=start)
        assert check(found, "summation-to-delta error") < 1e-11
        assert not found.receipts[0].approximate
        close(found.attribution, heat(by_hand, x, "deep_lift", baseline=start), 1e-10)


class Masked(nn.Module):
    """Attention written out, what lies ahead masked by minus infinity, in a quotient of exponentials or a softmax."""

    def __init__(self, by_hand: bool) -> None:
        super().__init__()
        self.qkv, self.head, self.by_hand = nn.Linear(4, 12), nn.Linear(4, 2), by_hand

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = self.qkv(x).chunk(3, -1)
        ahead = torch.ones(x.shape[1], x.shape[1], dtype=torch.bool).triu(1)
        scores = (q @ k.mT).masked_fill(ahead, -torch.inf)
        weights = scores.exp() / scores.exp().sum(-1, keepdim=True) if self.by_hand else scores.softmax(-1)
        return self.head((weights @ v).mean(1))


@pytest.mark.parametrize("by_hand", [True, False])
def test_minus_infinity_in_a_mask(by_hand: bool):
    model = seeded(lambda: Masked(by_hand))().to(D)
    found = outcome(model, random_input(2, 3, 4), "deep_lift", baseline=random_input(2, 3, 4, seed=1))
    assert bool(found.attribution.isfinite().all())
    assert check(found, "summation-to-delta error") < 1e-9
    assert bool(found.receipts[0].approximate) != by_hand


# ------------------------------------------------------------------------------------------------- invariance


@pytest.mark.parametrize("name", sorted(set(VARIANTS) - {"scripted_frozen"}))
def test_one_network_many_spellings(name: str):
    x, start = (example(VARIANT_SHAPES, seed=s)[0] for s in (0, 7))
    for nonlinearity in NONLINEARITIES:
        expected = heat(VARIANTS["functional"](), x, "deep_lift", baseline=start, nonlinearity=nonlinearity)
        found = outcome(VARIANTS[name](), x, "deep_lift", baseline=start, nonlinearity=nonlinearity)
        if nonlinearity == "reveal_cancel" and name in BEHIND_A_VIEW:
            assert any("rescaled" in note for note in found.receipts[0].notes)
        else:
            close(found.attribution, expected, 1e-4)


@pytest.mark.parametrize("name", ["inplace_residual", "pools", "dense_concat", "squeeze_excite", "norms", "attention"])
def test_a_batch_is_its_images(name: str):
    assert name not in BATCH_DEPENDENT
    model, x, start = AWKWARD[name][0]().to(D), random_input(3, 3, 12, 12), random_input(3, 3, 12, 12, seed=1)
    for nonlinearity in NONLINEARITIES:
        words = {"nonlinearity": nonlinearity}
        together = heat(model, x, "deep_lift", [1, 0, 2], baseline=start, **words)
        rows = [slice(i, i + 1) for i in range(3)]
        alone = [
            heat(model, x[r], "deep_lift", c, baseline=start[r], **words) for r, c in zip(rows, (1, 0, 2), strict=True)
        ]
        close(together, torch.cat(alone), 1e-9)


def test_memory_layout_makes_no_difference():
    model, x = pooled(), random_input(2, 3, 8, 8)
    last = pooled().to(memory_format=torch.channels_last)
    for nonlinearity in NONLINEARITIES:
        words = {"baseline": "zero", "nonlinearity": nonlinearity}
        expected = heat(model, x, "deep_lift", **words)
        close(heat(last, x.to(memory_format=torch.channels_last), "deep_lift", **words), expected, 1e-11)


@pytest.mark.parametrize(
    "target", [pel.probability(1), pel.log_probability(1), pel.contrast(1, 2), pel.unit("5", 3, "max")]
)
def test_every_target_is_summed_to(target: pel.Target):
    """A target that is no linear function of the scores too, where its derivative at the picture would not do."""
    found = outcome(pooled(), 4 * random_input(2, 3, 8, 8), "deep_lift", target, baseline="zero")
    curved = "robability" in target.words
    assert check(found, "summation-to-delta error") < (1e-4 if target.layer else 1e-10)
    assert bool(found.receipts[0].approximate) == (curved or target.layer is not None)


# ----------------------------------------------------------------------------------------- the model, and mistakes


@pytest.mark.parametrize("name", ["inplace_residual", "inplace_on_input", "pools", "attention", "scripted_whole"])
def test_the_model_comes_back_as_it_was(name: str, untouched):
    assert name not in WRITES_STATE
    make, shapes = AWKWARD[name]
    model, inputs, start = make(), example(shapes), example(shapes, seed=7)[0]
    before = [x.clone() for x in (*inputs, start)]
    with but_pythons_numbers(untouched)(model):
        outcomes(model, inputs, "deep_lift", pel.custom(class_per_image), baseline=start, nonlinearity="reveal_cancel")
        outcomes(model, inputs, "deep_shap", pel.custom(class_per_image), baseline=["zero", start])
    assert all(torch.equal(a, b) for a, b in zip(before, (*inputs, start), strict=True))


@pytest.mark.parametrize("name", sorted(SIZES_DIFFER))
def test_a_selection_of_another_size_is_refused(name: str, untouched):
    make, shapes = AWKWARD[name]
    model, start = make().to(D), example(shapes, seed=7, dtype=D)[0]
    with but_pythons_numbers(untouched)(model), pytest.raises(TraceError, match="depends on the picture"):
        heat(model, example(shapes, dtype=D), "deep_lift", baseline=start)


@pytest.mark.parametrize(
    ("words", "error", "message"),
    [
        ({"baseline": torch.zeros(1, 3, 5, 5)}, SettingError, r"\(1, 3, 5, 5\).*\(2, 3, 8, 8\)"),
        ({"baseline": "sepia"}, SettingError, "sepia"),
        ({"baseline": "black"}, SettingError, "preprocessing is not known"),
        ({"baseline": []}, SettingError, "no baseline"),
        ({"nonlinearity": "reveal"}, SettingError, "reveal_cancel"),
        ({"targets": 99}, TargetError, "99"),
        ({"targets": pel.unit("nowhere", 0)}, LayerError, "nowhere"),
    ],
)
def test_mistakes_are_told(words: dict, error: type[Exception], message: str, untouched):
    model, x = plain(), random_input(2, 3, 8, 8)
    words = {"targets": 1, "baseline": "zero", **words}
    with but_pythons_numbers(untouched)(model), pytest.raises(error, match=message):
        heat(model, x, "deep_lift", **words)


def test_a_reference_of_another_shape_is_told():
    trace = record(plain(), random_input(2, 3, 8, 8))
    with pytest.raises(TraceError, match=r"\(2, 3, 4, 4\).*\(2, 3, 8, 8\)"):
        deep_lift_walk(trace, {trace.output: torch.ones(2, 5, dtype=D)}, random_input(2, 3, 4, 4))


def test_it_can_be_stopped(untouched):
    model, progress = plain(), pel.Progress()
    progress.cancel()
    with but_pythons_numbers(untouched)(model), pytest.raises(Cancelled):
        heat(model, random_input(1, 3, 8, 8), "deep_shap", baseline=["zero", "zero"], progress=progress)


class Unknown(nn.Module):
    """A product of everything before, which has no rule, and a step, which has no derivative."""

    def __init__(self, step: bool) -> None:
        super().__init__()
        self.step = step

    def forward(self, x: Tensor) -> Tensor:
        y = torch.cumprod(1 + 0.1 * F.relu(x), 1)[:, -2:]
        return y + torch.heaviside(x[:, :2], torch.zeros(1, dtype=x.dtype)) if self.step else y


def test_an_operation_without_a_rule_is_named():
    model, x = Unknown(False).eval(), random_input(1, 4)
    found = outcome(model, x, "deep_lift", 0, baseline=-x)
    assert "cumprod in the network" in found.receipts[0].approximate[0]
    assert check(found, "summation-to-delta error") < 1e-12
    verdict = pel.doctor(model, x).verdicts["deep_lift"]
    assert (verdict.fit, "cumprod" in verdict.why) == ("approximate", True)


def test_an_operation_without_a_derivative_is_refused():
    with pytest.raises(TraceError, match="no derivative of heaviside in the network"):
        heat(Unknown(True).eval(), random_input(1, 4), "deep_lift", 0, baseline="zero")
