"""The shares of the input and of every layer's biases: they are the oracle's terms and sum to the score."""

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import pellucid as pel
from method_cases import D, close, plain, pooled, random_input, score, undrawn
from networks.awkward import AWKWARD, example, twin
from networks.common import seeded
from oracles import cams, wiring
from pellucid.core.record import record
from pellucid.core.trace import Trace
from pellucid.methods import fullgrad
from pellucid.methods.fullgrad import layer_shares
from test_fullgrad import Rectified
from test_gradient_methods import SINGLE, class_per_image


def total(shares: dict[str, Tensor]) -> Tensor:
    return torch.stack(list(shares.values())).sum(0)


def residual(trace: Trace, target: pel.Target) -> float:
    there = target.score(trace).double()
    return float(((total(layer_shares(trace, target)) - there) / there.abs().clamp(min=1e-12)).abs().max())


class Residual(nn.Module):
    """Convolutions with BatchNorm, a max-pool, a residual sum and a concatenation, all rectified."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 6, 3, padding=1), nn.BatchNorm2d(6)
        self.again, self.again_norm = nn.Conv2d(6, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6)
        self.up = nn.ConvTranspose2d(12, 5, 2, stride=2)
        self.input = nn.Linear(5, 4)

    def forward(self, x: Tensor) -> Tensor:
        x = F.max_pool2d(F.relu(self.norm(self.conv(x))), 3, 2, 1)
        y = F.relu(x + self.again_norm(self.again(x)))
        return self.input(F.relu(self.up(torch.cat([x, y], 1))).mean((2, 3)))


def residual_net() -> nn.Module:
    net = seeded(Residual)().to(D)
    assert all(b.abs().min() > 0 for name, b in net.named_buffers() if name.endswith("running_mean"))
    return net


@pytest.mark.parametrize("make", [plain, pooled])
@pytest.mark.parametrize("axes", [1, 2, 3])
def test_each_share_is_the_slow_term_of_its_layer(make, axes: int):
    model, x = make(axes), random_input(2, 3, *[8] * axes)
    parts = cams.full_gradient(model, x, score())
    biased = [name for name, m in model.named_children() if any(True for _ in m.parameters())]
    shares = layer_shares(record(model, x), pel.logit(1))
    assert list(shares) == ["input", *biased]
    close(shares["input"], parts.input_term.flatten(1).sum(1), 1e-12)
    for name, term in zip(biased, parts.bias_terms, strict=True):
        close(shares[name], term.flatten(1).sum(1), 1e-11)
    close(total(shares), model(x)[:, 1].detach(), 1e-10)


def test_the_shares_by_another_hand():
    model, x = pooled(), random_input(1, 3, 8, 8)
    expected, _ = wiring.full_gradient(model, x, 1)
    found = layer_shares(record(model, x), pel.logit(1))
    assert list(found) == list(expected)
    for name, share in found.items():
        assert float(share) == pytest.approx(expected[name], rel=1e-10, abs=1e-12)


def test_residual_sums_concatenation_pooling_and_a_module_called_input():
    model, x = residual_net(), random_input(2, 3, 8, 8)
    trace = record(model, x)
    shares = layer_shares(trace, pel.logit([1, 3]))
    assert list(shares) == ["input", "conv", "norm", "again_norm", "up", "input (layer)"]
    close(total(shares), trace.scores[[0, 1], [1, 3]], 1e-10)
    close(shares["input (layer)"], model.get_parameter("input.bias")[[1, 3]].detach(), 1e-12)
    parts = cams.full_gradient(model, x, lambda y: y[0, 1] + y[1, 3])
    slow = {
        name: t.flatten(1).sum(1) for name, t in zip(("conv", "norm", "again_norm"), parts.bias_terms, strict=False)
    }
    for name, term in slow.items():
        close(shares[name], term, 1e-11)


def test_without_the_shift_of_batch_norm_the_sum_is_wrong(monkeypatch: pytest.MonkeyPatch):
    trace = record(residual_net(), random_input(2, 3, 8, 8))
    assert residual(trace, pel.logit(1)) < 1e-10
    true = fullgrad._bias

    def forgetful(node):
        bias = true(node)
        return bias * 0 if node.base == "batch_norm" and bias is not None else bias

    monkeypatch.setattr(fullgrad, "_bias", forgetful)
    assert residual(trace, pel.logit(1)) > 1e-3


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in SINGLE])
def test_the_shares_sum_to_the_score_of_every_awkward_network(name: str):
    trace = record(AWKWARD[name][0]().to(D), *example(AWKWARD[name][1], dtype=D))
    assert residual(trace, pel.custom(class_per_image)) <= 1e-8


@pytest.mark.parametrize("name", ["inplace_residual", "dense_concat", "functional_relu_reused", "padding"])
def test_relu_networks_of_every_kind(name: str):
    (x,) = example(AWKWARD[name][1], dtype=D)
    model = Rectified(AWKWARD[twin(name)][0]().to(D))
    trace = record(model, x)
    assert residual(trace, pel.custom(class_per_image)) <= 1e-10


def test_what_a_bent_target_adds_is_told_apart():
    model, x = pooled(), random_input(2, 3, 8, 8)
    trace = record(model, x)
    shares = layer_shares(trace, pel.probability(1))
    assert list(shares)[-1] == "target"
    close(total(shares), model(x).softmax(1)[:, 1].detach(), 1e-10)
    assert "target" not in layer_shares(trace, pel.logit(1))


def test_a_unit_has_shares_too():
    model, x = pooled(), random_input(2, 3, 8, 8)
    trace = record(model, x)
    shares = layer_shares(trace, pel.unit("3", 2))
    assert list(shares) == ["input", "0", "1", "3"]
    close(total(shares), trace.at("3").data[:, 2].mean((1, 2)), 1e-10)


def test_a_second_input_has_its_own_share():
    class Two(nn.Module):
        def forward(self, x: Tensor, y: Tensor) -> Tensor:
            return torch.cat([x.flatten(1).sum(1, keepdim=True), 2 * y.flatten(1).sum(1, keepdim=True) + 1], 1)

    x, y = random_input(2, 1, 4, 4), random_input(2, 1, 3, 3, seed=1)
    shares = layer_shares(record(Two().eval(), x, y), pel.logit(1))
    assert list(shares) == ["input", "input#1", ""]
    close(shares["input#1"], 2 * y.flatten(1).sum(1), 1e-12)
    close(shares[""], torch.ones(2, dtype=D), 1e-12)


def test_real_networks_and_nothing_is_touched(untouched):
    model = pel.load("builtin:photos")
    x = random_input(2, 3, 32, 32, dtype=torch.float32)
    with untouched(model.module), undrawn():
        trace = record(model.module, x)
        shares = layer_shares(trace, pel.logit(3))
    assert float((total(shares) - trace.scores[:, 3]).abs().max()) < 1e-4
    assert all(share.shape == (2,) for share in shares.values())
