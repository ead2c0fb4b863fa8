"""The walk backwards: exact derivatives equal autograd's, at inputs and layers, from any start, and memory goes."""

import pytest
import torch
from torch import Tensor, nn

from compare import EXACT, class_seed, gradients, layer_gradients, relative
from networks import zoo
from networks.awkward import AWKWARD, NO_AUTOGRAD, class_one, example, logits, twin
from oracles.gradients import finite_differences, some_places
from pellucid.core.errors import TraceError
from pellucid.core.pull import EXACT as EXACT_RULES
from pellucid.core.pull import Rules, Walk
from pellucid.core.record import record
from pellucid.core.trace import Trace, bytes_held

CASES = [(n, d) for n in AWKWARD for d in EXACT if n != "scripted_frozen" or d == torch.float32]


def traced(name: str, dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[Tensor, ...], Trace]:
    factory, shapes = AWKWARD[name]
    model, inputs = factory().to(dtype), example(shapes, dtype=dtype)
    return model, inputs, record(model, *inputs)


@pytest.fixture(scope="module")
def resnet() -> tuple[nn.Module, Tensor]:
    return zoo.build("resnet18").double(), zoo.picture("resnet18", 2, dtype=torch.float64)


@pytest.mark.parametrize(("name", "dtype"), CASES)
def test_gradient_is_autograds(name: str, dtype: torch.dtype) -> None:
    _, inputs, trace = traced(name, dtype)
    expected = gradients(AWKWARD[twin(name)][0]().to(dtype), inputs)
    walk = trace.pull(class_seed(trace))
    for which, gradient in enumerate(expected):
        assert relative(walk.input(which), gradient) <= EXACT[dtype]
        assert float(gradient.abs().max()) > 0


@pytest.mark.parametrize("name", [n for n in AWKWARD if n != "scripted_frozen"])
def test_a_random_seed_and_freeing_change_nothing(name: str) -> None:
    _, inputs, trace = traced(name)
    seed = torch.randn(trace.scores.shape, dtype=torch.float64)
    other = AWKWARD[twin(name)][0]().double()
    expected = gradients(other, inputs, lambda y: (logits(y) * seed).sum())
    kept = trace.pull(seed)
    freed = trace.pull(seed, free=True)
    for which, gradient in enumerate(expected):
        assert relative(kept.input(which), gradient) <= 1e-10
        assert torch.equal(freed.input(which), kept.input(which))


def single_calls(model: nn.Module, trace: Trace) -> list[str]:
    """Layers that ran once, gave one recorded tensor and take a hook."""
    named = dict(model.named_modules())
    once = [path for path, calls in trace.layers.items() if len(calls) == 1 and len(calls[0]) == 1]
    return [p for p in once if not isinstance(named[p], torch.jit.ScriptModule | nn.MultiheadAttention)]


WHOLE_SCRIPTS = {"scripted_whole", "scripted_frozen", "traced_whole"}


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - set(NO_AUTOGRAD) - WHOLE_SCRIPTS - {"user_hooks"}))
def test_gradient_at_every_layer(name: str) -> None:
    model, inputs, trace = traced(name)
    layers = single_calls(model, trace)
    expected = layer_gradients(model, inputs, layers)
    walk = trace.pull(class_seed(trace), keep=layers)
    assert layers
    for path in layers:
        assert relative(walk.at(path), expected[path]) <= 1e-10, path


RESNET_LAYERS = "conv1 bn1 layer1.0.bn2 layer2.0.downsample.1 layer3.1.bn1 layer4.1.bn2 layer4 fc".split()


def test_gradient_at_layers_that_are_overwritten(resnet: tuple[nn.Module, Tensor]) -> None:
    model, x = resnet
    trace = record(model, x)
    expected = layer_gradients(model, (x,), RESNET_LAYERS)
    walk = trace.pull(class_seed(trace))
    for path in reversed(RESNET_LAYERS):  # in the order of the walk
        assert relative(walk.at(path), expected[path]) <= 1e-10, path
    for path in RESNET_LAYERS:  # kept by now
        assert walk.at(path) is walk.at(path)
    late = trace.pull(class_seed(trace))
    late.input()
    for path in RESNET_LAYERS:  # passed: the walk starts afresh
        assert relative(late.at(path), expected[path]) <= 1e-10, path


def test_a_walk_goes_only_as_far_as_asked(resnet: tuple[nn.Module, Tensor]) -> None:
    trace = record(*resnet)
    walk = trace.pull(class_seed(trace))
    walk.at("layer4")
    short = walk.met.total()
    assert short < 8
    walk.input()
    assert walk.met.total() > 60
    assert {rule for rule, _ in walk.met} == {"exact"}


def test_starting_in_the_middle(resnet: tuple[nn.Module, Tensor]) -> None:
    model, x = resnet
    trace = record(model, x)
    whole = trace.pull(class_seed(trace), keep=["layer3"])
    arrived = whole.at("layer3")
    tail = trace.pull({trace.at("layer3"): arrived})
    assert relative(tail.input(), whole.input()) <= 1e-12
    unit = torch.zeros_like(arrived)
    unit[:, 7, 1, 2] = 1
    head = nn.Sequential(*list(model.children())[:7])
    expected = gradients(head, (x,), lambda a: a[:, 7, 1, 2].sum())[0]
    assert relative(trace.pull({trace.at("layer3"): unit}).input(), expected) <= 1e-10


def test_several_starts_add_up(resnet: tuple[nn.Module, Tensor]) -> None:
    trace = record(*resnet)
    a, b = class_seed(trace), torch.randn_like(trace.at("layer2").data)
    before = b.clone()
    both = trace.pull({trace.output: a, trace.at("layer2"): b})
    apart = trace.pull(a).input() + trace.pull({trace.at("layer2"): b}).input()
    assert relative(both.input(), apart) <= 1e-12
    assert torch.equal(b, before)  # a seed is never written into


def test_several_targets_from_one_recording(resnet: tuple[nn.Module, Tensor]) -> None:
    model, x = resnet
    trace = record(model, x)
    for index in (0, 7, 19):
        expected = gradients(model, (x,), lambda y, i=index: y[:, i].sum())[0]
        assert relative(trace.pull(class_seed(trace, index)).input(), expected) <= 1e-10
    assert torch.equal(trace.pull(class_seed(trace)).input(), trace.pull(class_seed(trace)).input())


def test_what_the_seed_does_not_reach_is_zero() -> None:
    _, _, trace = traced("tuple_output")
    features = trace.outputs[1]
    walk = trace.pull({features: torch.ones_like(features.data)})
    assert not walk.at("head").any()
    assert float(walk.input().abs().max()) > 0
    assert not trace.pull({trace.at("bn1"): torch.ones_like(trace.at("bn1").data)}).at("conv2").any()


def test_every_output_can_be_a_start() -> None:
    factory, shapes = AWKWARD["namedtuple_output"]
    inputs = example(shapes, dtype=torch.float64)
    trace = record(factory().double(), *inputs)
    for number, value in enumerate(trace.outputs):
        expected = gradients(factory().double(), inputs, lambda y, n=number: y[n][:, 2].sum())[0]
        seed = torch.zeros_like(value.data)
        seed[:, 2] = 1
        assert relative(trace.pull({value: seed}).input(), expected) <= 1e-10


def test_finite_differences_agree() -> None:
    model, (x,), trace = traced("act_gelu")
    heat = trace.pull(class_seed(trace)).input()
    places = some_places(x, 12)
    expected = finite_differences(lambda t: class_one(model(t)), x, places, 1e-5)
    assert relative(torch.stack([heat[p] for p in places]), expected) <= 1e-7


def test_a_freeing_walk_lets_go(resnet: tuple[nn.Module, Tensor]) -> None:
    model, x = resnet
    trace, other = record(model, x), record(model, x)
    before, layer = bytes_held(trace), trace.at("layer4.1.bn2").data.clone()
    walk = trace.pull(class_seed(trace), keep=["layer3"], free=True)
    heat = walk.input()
    kept = trace.at("layer3").data.nbytes + x.nbytes + trace.scores.nbytes
    assert bytes_held(trace) <= kept < before / 20
    with pytest.raises(TraceError, match="passed that layer and freed it; name it in keep"):
        walk.at("layer2")
    assert torch.equal(walk.at("layer3"), other.pull(class_seed(other)).at("layer3"))
    assert torch.equal(trace.at("layer4.1.bn2").data, layer)  # computed again on demand
    assert torch.equal(trace.pull(class_seed(trace)).input(), heat)


def test_a_deep_network_is_computed_again_after_freeing() -> None:
    trace = record(zoo.build("resnet152"), zoo.picture("resnet152"))
    layer = trace.at("layer4").data.clone()
    trace.pull(class_seed(trace), free=True).input()
    assert trace.at("layer4").held is None
    assert torch.equal(trace.at("layer4").data, layer)


def test_rules_are_picked_by_kind() -> None:
    _, _, trace = traced("inplace_residual")
    silent = Rules("silent", {"rectifier": lambda node, grads: [None] * len(node.inputs)})
    walk = trace.pull(class_seed(trace), silent)
    assert float(walk.at("relu#2").abs().max()) > 0
    assert not walk.at("bn2").any()
    assert not walk.input().any()
    assert EXACT_RULES.name == "gradient"


def test_a_wrong_start_is_refused(resnet: tuple[nn.Module, Tensor]) -> None:
    trace = record(*resnet)
    with pytest.raises(TraceError, match=r"seed of shape \(2, 3\) can't start at a value of shape \(2, 20\)"):
        Walk(trace, {trace.output: torch.zeros(2, 3)})


def test_no_map_of_zeros_where_torch_has_no_derivative() -> None:
    layers = nn.Sequential(nn.Linear(4, 4), nn.ReLU(), nn.Linear(4, 3)).eval()
    trace = record(torch.ao.quantization.quantize_dynamic(layers, {nn.Linear}), torch.randn(2, 4))
    with pytest.raises(TraceError, match=r"torch has no derivative of linear_dynamic in 2.*plain floating point"):
        trace.pull(class_seed(trace)).input()


def test_whole_numbers_receive_nothing() -> None:
    class FromBytes(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            return (x.float() / 255).mean((2, 3))

    trace = record(FromBytes(), torch.randint(0, 255, (1, 3, 4, 4), dtype=torch.uint8))
    with pytest.raises(TraceError, match=r"nothing can arrive at .*it holds torch.uint8; give .*floating point"):
        trace.pull(class_seed(trace)).input()


ROUNDABOUT = {
    "compiled": lambda model, x: torch.compile(model, backend="eager"),
    "exported": lambda model, x: torch.export.export(model, (x,)).module(),
    "symbolically traced": lambda model, x: torch.fx.symbolic_trace(model),
    "data parallel": lambda model, x: nn.DataParallel(model),
}


@pytest.mark.parametrize("way", ROUNDABOUT)
def test_models_that_went_through_a_tool(way: str) -> None:
    factory, shapes = AWKWARD["inplace_residual"]
    (x,) = example(shapes, dtype=torch.float64)
    trace = record(ROUNDABOUT[way](factory().double(), x), x)
    expected = gradients(factory().double(), (x,))[0]
    assert relative(trace.pull(class_seed(trace)).input(), expected) <= 1e-10


def test_autograd_is_never_needed(resnet: tuple[nn.Module, Tensor]) -> None:
    """Inference mode, no_grad and autocast around the walk change nothing; nothing that comes out hangs on a graph."""
    model, x = resnet
    expected = record(model, x).pull(class_seed(record(model, x))).input()
    for around in (torch.inference_mode(), torch.no_grad(), torch.autocast("cpu", torch.bfloat16)):
        trace = record(model, x)
        with around:
            heat = trace.pull(class_seed(trace)).input()
        assert torch.equal(heat, expected)
        assert not heat.requires_grad


@pytest.mark.parametrize("name", ["norms", "attention", "hand_swish", "inplace_activations", "reductions", "indexing"])
def test_all_inside_inference_mode(name: str) -> None:
    _, inputs, trace = traced(name)
    expected = trace.pull(class_seed(trace)).input()
    with torch.inference_mode():
        again = record(AWKWARD[name][0]().double(), *[x + 0 for x in inputs])
        heat = again.pull(class_seed(again)).input()
    assert torch.equal(heat, expected)
    assert not heat.is_inference()


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
@pytest.mark.parametrize("name", sorted(set(AWKWARD) - {"scripted_frozen"}))
def test_gradient_on_cuda(name: str) -> None:
    try:
        factory, shapes = AWKWARD[name]
        model, inputs = factory().double().cuda(), tuple(x.cuda() for x in example(shapes, dtype=torch.float64))
        expected = gradients(AWKWARD[twin(name)][0]().double().cuda(), inputs)
    except (RuntimeError, TypeError) as error:
        if "same device" not in str(error) and "cpu" not in str(error):
            raise
        pytest.skip(f"the network itself is written for the cpu: {error}")
    trace = record(model, *inputs)
    walk = trace.pull(class_seed(trace))
    for which, gradient in enumerate(expected):
        assert walk.input(which).is_cuda
        assert relative(walk.input(which), gradient) <= 1e-10
