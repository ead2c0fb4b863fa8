"""Networks as users write them, recorded: the numbers of a plain call, every layer's output, refusals."""

import pytest
import torch
from torch import Tensor

from compare import layer_copies, plain, relative
from networks.awkward import (
    AWKWARD,
    BATCH_DEPENDENT,
    REFUSED,
    SMOOTH_VARIANTS,
    VARIANT_SHAPES,
    VARIANTS,
    example,
    logits,
)
from pellucid.core.errors import TraceError
from pellucid.core.record import record

FIXED_DTYPE = {"scripted_frozen"}  # its weights are constants of its graph
OTHER_KERNELS = {"attention", "encoder"}  # with weights that want gradients, torch multiplies matrices another way
TAKEN_APART = {"einsum"}  # its parts may lie otherwise in memory, and on some processors the last bit hangs on that
TOLD_ONLY = {"numpy_branch", "other_thread_branch"}
LAYOUT_MATTERS = {"other_view": "view size", "reshape_alias": None}  # refused or computed otherwise by torch itself
LAST_BITS = {torch.float32: 1e-6, torch.float64: 1e-14}
CASES = [(n, torch.float32, 0) for n in AWKWARD] + [(n, torch.float64, 5) for n in AWKWARD if n not in FIXED_DTYPE]


def alike(name: str, found: Tensor, expected: Tensor) -> bool:
    """Bit for bit, but for the last bits of what is taken apart."""
    if name in TAKEN_APART:
        return found.shape == expected.shape and relative(found, expected) <= LAST_BITS[expected.dtype]
    return torch.equal(found, expected)


@pytest.mark.parametrize(("name", "dtype", "seed"), CASES)
def test_scores_are_the_models_bit_for_bit(name: str, dtype: torch.dtype, seed: int) -> None:
    factory, shapes = AWKWARD[name]
    model, inputs = factory().to(dtype), example(shapes, seed, dtype)
    trace = record(model, *inputs)
    assert alike(name, trace.scores, plain(model, *inputs))
    assert trace.scores.dtype == dtype
    with torch.no_grad():
        ordinary = logits(model(*[x.clone() for x in inputs]))
    if name in OTHER_KERNELS:
        assert relative(trace.scores, ordinary) <= 1e-6
    else:
        assert alike(name, trace.scores, ordinary)
    assert not trace.strangers


@pytest.mark.parametrize("name", AWKWARD)
def test_every_layer_and_call_is_a_true_copy(name: str) -> None:
    factory, shapes = AWKWARD[name]
    model, inputs = factory(), example(shapes)
    trace, copies = record(model, *inputs), layer_copies(model, *inputs)
    assert trace.layers.keys() == copies.keys()
    for path, calls in copies.items():
        assert len(trace.layers[path]) == len(calls)
        for number, tensors in enumerate(calls):
            values = trace.layers[path][number]
            if path.startswith(("a.parametrizations", "b.parametrizations")):  # weights come from no input
                assert values == ()
                continue
            assert [alike(name, v.data, t) for v, t in zip(values, tensors, strict=True)] == [True] * len(tensors)
            assert trace.at(path, number) is values[0]
            assert trace.at(f"{path}#{number}") is values[0]


@pytest.mark.parametrize("name", AWKWARD)
def test_inputs_stay_as_they_were(name: str) -> None:
    factory, shapes = AWKWARD[name]
    inputs = example(shapes)
    before = [x.clone() for x in inputs]
    trace = record(factory(), *inputs)
    trace.pull(torch.ones_like(trace.scores)).input()
    assert all(torch.equal(x, b) and x._version == 0 for x, b in zip(inputs, before, strict=True))
    assert all(torch.equal(v.data, b) for v, b in zip(trace.inputs, before, strict=True))


@pytest.mark.parametrize("name", [n for n in AWKWARD if n not in BATCH_DEPENDENT])
def test_a_batch_is_its_images(name: str) -> None:
    factory, shapes = AWKWARD[name]
    model, inputs = factory(), example(shapes)
    whole = record(model, *inputs)
    heat = whole.pull(torch.ones_like(whole.scores)).input()
    for image in range(2):
        alone = record(model, *[x[image : image + 1] for x in inputs])
        assert relative(whole.scores[image : image + 1], alone.scores) <= 1e-5
        one = alone.pull(torch.ones_like(alone.scores)).input()
        assert relative(heat[image : image + 1], one) <= 1e-5


@pytest.mark.parametrize("name", [n for n, (_, shapes) in AWKWARD.items() if len(shapes[0]) == 4])
def test_channels_last_is_contiguous(name: str) -> None:
    factory, shapes = AWKWARD[name]
    model, inputs = factory(), example(shapes)
    other = [x.to(memory_format=torch.channels_last) if x.ndim == 4 else x for x in inputs]
    if LAYOUT_MATTERS.get(name):
        with pytest.raises(TraceError, match=LAYOUT_MATTERS[name]):
            record(model, *other)
        return
    last = record(model, *other)
    assert alike(name, last.scores, plain(model, *other))
    if name not in LAYOUT_MATTERS:
        flat = record(model, *inputs)
        assert relative(last.scores, flat.scores) <= 1e-5
        heats = [t.pull(torch.ones_like(t.scores)).input() for t in (flat, last)]
        assert relative(heats[1], heats[0]) <= 1e-5


@pytest.mark.parametrize("name", VARIANTS)
def test_one_network_in_many_spellings(name: str) -> None:
    x = example(VARIANT_SHAPES)[0]
    assert relative(record(VARIANTS[name](), x).scores, record(VARIANTS["functional"](), x).scores) <= 1e-6


@pytest.mark.parametrize("name", SMOOTH_VARIANTS)
def test_one_smooth_network_in_many_spellings(name: str) -> None:
    x = example(VARIANT_SHAPES)[0]
    found = record(SMOOTH_VARIANTS[name](), x).scores
    assert relative(found, record(SMOOTH_VARIANTS["functional"](), x).scores) <= 1e-6


WORDS = {
    "numpy_round_trip": 'does not come from the input.*last layer seen was "head".*numpy.*keep',
    "list_round_trip": 'does not come from the input.*last layer seen was "head".*keep',
    "other_thread": 'does not come from the input.*last layer seen was "head".*thread.*keep',
    "train_dropout": 'layer "bn1".*model.eval',
    "functional_dropout": r"dropout is active in the network's forward.*model.eval",
    "noise": r"the network's forward draws random numbers.*randn_like.*give",
    "train_batch_norm": 'batch statistics.*layer "bn1".*model.eval',
    "train_one_part": 'batch statistics.*layer "bn1".*model.eval',
    "batch_statistics": 'batch statistics.*layer "bn1".*BatchNorm',
    "complex": r"the network's forward makes complex numbers.*_fft_r2c.*use a real-valued form",
    "constant": "does not come from the input.*no layer was seen",
    "decision": "whole numbers.*int64.*argmax.*explain",
    "no_tensor": 'holds no tensor; the last layer seen was "head"',
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_would_be_wrong_is_refused_or_told(name: str) -> None:
    factory, shapes, _ = REFUSED[name]
    if name in TOLD_ONLY:
        (told,) = record(factory(), *example(shapes)).strangers
        assert "(2, 8, 12, 12) from outside" in told
        assert "counts as a constant" in told
        return
    with pytest.raises(TraceError, match=WORDS[name]):
        record(factory(), *example(shapes))
