"""Recording: paths and calls, inputs of every kind, dtypes and layouts, and refusals that say what to do."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compare import class_seed, gradients, layer_copies, plain, relative
from networks import zoo
from networks.awkward import AWKWARD, example
from pellucid.core.errors import LayerError, TraceError
from pellucid.core.record import record

COPIED = ["resnet18", "densenet121", "googlenet", "mobilenet_v3_small", "squeezenet1_1", "convnext_tiny", "swin_t"]


@pytest.mark.parametrize("name", COPIED)
def test_every_layer_of_an_architecture_is_a_true_copy(name: str) -> None:
    model, x = zoo.build(name), zoo.picture(name)
    trace, copies = record(model, x), layer_copies(model, x)
    assert trace.layers.keys() == copies.keys()
    for path, calls in copies.items():
        for number, (copy, *_) in enumerate(calls):
            assert torch.equal(trace.at(path, number).data, copy), path


def test_the_layer_that_is_overwritten_in_place() -> None:
    """ResNet adds the identity into what `bn2` gave out; a hook without a copy would see the sum."""
    model, x = zoo.build("resnet18"), zoo.picture("resnet18")
    trace = record(model, x)
    block = "layer4.1"
    bn2, whole = trace.at(f"{block}.bn2").data, trace.at(block).data
    assert torch.equal(bn2, layer_copies(model, x)[f"{block}.bn2"][0][0])
    assert torch.equal(F.relu(bn2 + trace.at("layer4.0").data), whole)
    assert not torch.equal(bn2, whole)


def test_operations_know_their_layer_and_call() -> None:
    factory, shapes = AWKWARD["module_relu_reused"]
    trace = record(factory(), *example(shapes))
    told = [(node.base, node.path, node.call) for node in trace.nodes]
    assert [t for t in told if t[0] == "relu"] == [("relu", "relu", n) for n in range(3)]
    assert [t[1:] for t in told if t[0] == "conv2d"] == [("conv1", 0), ("conv2", 0), ("conv2", 1)]
    assert told[-1] == ("linear", "head", 0)
    assert trace.at("relu#0") is trace.at("relu", 0) is not trace.at("relu")
    assert trace.name_of(trace.at("relu#1")) == "relu#1"
    assert trace.name_of(trace.at("bn1")) == "bn1"
    assert trace.name_of(trace.inputs[0]) == "input"
    assert repr(trace) == f"Trace(ModuleReluReused: (2, 3, 12, 12) -> (2, 5), {len(trace.nodes)} operations)"


@pytest.mark.parametrize(
    ("layer", "words"),
    [
        ("conv3", 'no layer "conv3"; did you mean "conv2"'),
        ("relu#3", 'layer "relu" has calls 0 to 2 on this input; call 3 came'),
        ("unlike anything", 'no layer "unlike anything".*"head"'),
    ],
)
def test_a_layer_that_is_not_there(layer: str, words: str) -> None:
    factory, shapes = AWKWARD["module_relu_reused"]
    with pytest.raises(LayerError, match=words):
        record(factory(), *example(shapes)).at(layer)


def test_a_layer_that_did_not_run() -> None:
    class Skips(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(4, 4), nn.Linear(4, 4)

        def forward(self, x: Tensor) -> Tensor:
            return self.a(x)

    with pytest.raises(LayerError, match='"b" exists but did not run on this input; layers that ran: "a"'):
        record(Skips(), torch.ones(1, 4)).at("b")


class ManyInputs(nn.Module):
    """A list, a keyword and plain numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(4, 3)

    def forward(self, pair: list[Tensor], power: int, *, scale: Tensor | None = None) -> Tensor:
        y = self.mix(pair[0]) + torch.tanh(self.mix(pair[1])) ** power
        return y if scale is None else y * scale


def test_inputs_in_lists_and_keywords() -> None:
    model = ManyInputs().double()
    first, second = torch.randn(2, 2, 4, dtype=torch.float64)
    scale = torch.rand(2, 3, dtype=torch.float64)
    trace = record(model, [first, second], 2, scale=scale)
    assert len(trace.inputs) == 3
    assert torch.equal(trace.scores, model([first, second], 2, scale=scale))
    expected = gradients(_Spread(model), (first, second, scale), lambda y: y[:, 1].sum())
    walk = trace.pull(class_seed(trace))
    for which, gradient in enumerate(expected):
        assert relative(walk.input(which), gradient) <= 1e-12


class _Spread(nn.Module):
    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, a: Tensor, b: Tensor, scale: Tensor) -> Tensor:
        return self.model([a, b], 2, scale=scale)


STRIDED = ["inplace_residual", "shared_storage", "transpose_inplace", "convnext_block", "other_view"]


@pytest.mark.parametrize("name", STRIDED)
@pytest.mark.parametrize("layout", ["strided", "expanded", "flipped axes", "offset"])
def test_inputs_of_any_stride(name: str, layout: str) -> None:
    model = AWKWARD[name][0]()
    x = {
        "strided": torch.randn(2, 3, 24, 24)[..., ::2, 1::2],
        "expanded": torch.randn(1, 3, 12, 12).expand(2, 3, 12, 12),
        "flipped axes": torch.randn(2, 3, 12, 12).transpose(2, 3),
        "offset": torch.randn(5, 3, 12, 12)[2:4],
    }[layout]
    trace = record(model, x)
    assert torch.equal(trace.scores, plain(model, x.contiguous())) or relative(trace.scores, plain(model, x)) <= 1e-6
    contiguous = record(model, x.contiguous())
    heat, expected = (t.pull(class_seed(t)).input() for t in (trace, contiguous))
    assert relative(heat, expected) <= 1e-6


MIXED = ["resnet18", "mobilenet_v2", "convnext_tiny"]


@pytest.mark.parametrize("name", MIXED)
def test_autocast_around_the_call_is_honoured(name: str) -> None:
    model, x = zoo.build(name), zoo.picture(name)
    with torch.autocast("cpu", torch.bfloat16):
        trace = record(model, x)
        assert torch.equal(trace.scores, plain(model, x))
        seed = class_seed(trace)
        expected = gradients(model, (x,), zoo.class_score)[0]
    assert trace.scores.dtype == torch.bfloat16
    heat = trace.pull(seed).input()
    exact = record(model, x)
    assert heat.dtype == expected.dtype == torch.float32
    assert F.cosine_similarity(heat.flatten(), expected.flatten(), dim=0) > 0.999
    with torch.autocast("cpu", torch.bfloat16):  # once recorded, it is what it is
        assert torch.equal(trace.pull(seed).input(), heat)
        assert torch.equal(exact.replay(x), exact.scores)


def test_training_goes_on_within_the_same_autocast() -> None:
    factory, shapes = AWKWARD["functional_relu_reused"]
    model, (x,) = factory(), example(shapes)
    with torch.autocast("cpu", torch.bfloat16):
        record(model, x)
        model(x).sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in model.parameters())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
@pytest.mark.parametrize("name", MIXED)
def test_half_precision_modules(name: str, dtype: torch.dtype) -> None:
    model, x = zoo.build(name).to(dtype), zoo.picture(name, dtype=dtype)
    trace = record(model, x)
    assert torch.equal(trace.scores, plain(model, x))
    heat = trace.pull(class_seed(trace)).input()
    expected = gradients(model, (x,), zoo.class_score)[0]
    assert heat.dtype == dtype
    assert F.cosine_similarity(heat.float().flatten(), expected.float().flatten(), dim=0) > 0.999


def test_without_torchs_private_guard(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("norms", "inplace_residual", "view_add", "hand_swish", "mutates_buffers", "attention"):
        factory, shapes = AWKWARD[name]
        model, inputs = factory(), example(shapes)
        expected = record(model, *inputs)
        with monkeypatch.context() as patch:
            patch.delattr(torch._C, "_AutoDispatchBelowAutograd")
            trace = record(model, *inputs)
        assert torch.equal(trace.scores, expected.scores)
        heat = trace.pull(class_seed(trace)).input()
        assert torch.equal(heat, expected.pull(class_seed(expected)).input())
        assert model(*inputs).requires_grad


def test_frozen_weights_are_no_strangers_and_outside_tensors_are() -> None:
    outside = torch.randn(2, 8, 12, 12)
    factory, shapes = AWKWARD["nested"]
    model: Any = factory()
    model.function = lambda t: t + outside
    (told,) = record(model, *example(shapes)).strangers
    assert "shape (2, 8, 12, 12) from outside" in told
    model.kept = {"bias": [outside]}  # now it is the model's own
    assert not record(model, *example(shapes)).strangers


class Noisy(nn.Module):
    def __init__(self, make: Any) -> None:
        super().__init__()
        self.part = nn.ReLU()
        self.make = make

    def forward(self, x: Tensor) -> Tensor:
        return self.part(x) * self.make(x)


def test_chance_is_refused_or_told() -> None:
    x = torch.ones(2, 2, 4, 4)
    for make in (torch.rand_like, torch.bernoulli, lambda t: torch.empty_like(t).add_(t).uniform_()):
        with pytest.raises(TraceError, match=r"network's forward draws random numbers"):
            record(Noisy(make), x)
    with pytest.raises(TraceError, match="dropout is active in the network's forward"):
        record(Noisy(lambda t: F.scaled_dot_product_attention(t, t, t, dropout_p=0.1)), x)
    (note,) = record(Noisy(lambda t: torch.rand(t.shape) + torch.rand(t.shape)), x).notes
    assert "draws random numbers" in note
    assert not record(Noisy(lambda t: F.scaled_dot_product_attention(t, t, t)), x).notes


@pytest.mark.parametrize(
    ("inputs", "words"),
    [
        ((), "no tensor among the inputs .none.; give one"),
        ((3, "x"), "no tensor among the inputs .int, str.; give one"),
        ((torch.zeros(0, 3, 12, 12),), r"no elements: shape \(0, 3, 12, 12\); give at least one image"),
        ((torch.zeros(2, 1, 12, 12),), r'"conv1" could not take an input of shape \(2, 1, 12, 12\).*channels'),
        ((torch.zeros(2, 3, 12, 12, dtype=torch.float64),), r'"conv1" could not take .*dtype'),
        ((torch.zeros(2, 3, 12, 12, dtype=torch.uint8),), r'"conv1" could not take .*dtype'),
    ],
)
def test_inputs_that_cannot_be(inputs: tuple[Any, ...], words: str) -> None:
    with pytest.raises(TraceError, match=words):
        record(AWKWARD["inplace_on_input"][0]() if not inputs else AWKWARD["one_column"][0](), *inputs)


def test_a_layer_that_fails_and_is_caught_does_not_spoil_the_paths() -> None:
    class Catches(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.outer = nn.Sequential(_Tries(), nn.Linear(4, 2))

        def forward(self, x: Tensor) -> Tensor:
            return self.outer(x) * 2

    trace = record(Catches(), torch.ones(1, 4))
    assert [(n.base, n.path) for n in trace.nodes] == [("linear", "outer.0.small"), ("linear", "outer.1"), ("mul", "")]


class _Tries(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.large, self.small = nn.Linear(9, 4), nn.Linear(4, 4)

    def forward(self, x: Tensor) -> Tensor:
        try:
            return self.large(x)
        except RuntimeError:
            return self.small(x)
