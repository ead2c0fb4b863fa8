"""A recording run forwards again: other inputs, edited layers, any layout."""

import pytest
import torch
from torch import Tensor, nn

from compare import plain, relative
from networks import zoo
from networks.awkward import AWKWARD, VARIANT_SHAPES, VARIANTS, example
from pellucid.core.errors import TraceError
from pellucid.core.record import record

FOLLOWS_DATA = {"data_control", "routing", "indexing"}  # which operations run, or their sizes, depends on the values


@pytest.mark.parametrize("name", sorted(set(AWKWARD) - FOLLOWS_DATA))
def test_new_inputs_give_the_models_answer(name: str) -> None:
    factory, shapes = AWKWARD[name]
    model = factory()
    trace = record(model, *example(shapes))
    before = trace.scores.clone()
    for seed in (1, 2):
        inputs = example(shapes, seed)
        copies = [x.clone() for x in inputs]
        assert torch.equal(trace.replay(*inputs), plain(model, *inputs))
        assert all(torch.equal(x, c) for x, c in zip(inputs, copies, strict=True))
    assert torch.equal(trace.scores, before)
    assert torch.equal(trace.replay(), before)


@pytest.mark.parametrize("name", VARIANTS)
def test_every_spelling_replays(name: str) -> None:
    model, x = VARIANTS[name](), example(VARIANT_SHAPES, 3)[0]
    assert torch.equal(record(model, *example(VARIANT_SHAPES)).replay(x), plain(model, x))


@pytest.mark.parametrize("name", ["resnet18", "densenet121", "mobilenet_v2", "googlenet", "convnext_tiny", "swin_t"])
def test_architectures_replay(name: str) -> None:
    model, x = zoo.build(name), zoo.picture(name, seed=4)
    assert torch.equal(record(model, zoo.picture(name)).replay(x), plain(model, x))


ALIASED = "inplace_residual other_view transpose_inplace view_add channel_loop copy_into_slices diagonal_unfold".split()


@pytest.mark.parametrize("name", [*ALIASED, "conv2d_only"])
@pytest.mark.parametrize("layout", ["channels_last", "strided", "expanded"])
def test_inputs_of_another_layout(name: str, layout: str) -> None:
    """Views and writes keep their meaning, whatever strides the new input has."""
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(True)).eval() if name == "conv2d_only" else AWKWARD[name][0]()
    trace = record(model, *example(((2, 3, 12, 12),)))
    x = {
        "channels_last": torch.randn(2, 3, 12, 12).to(memory_format=torch.channels_last),
        "strided": torch.randn(2, 3, 24, 24)[..., ::2, ::2],
        "expanded": torch.randn(2, 3, 1, 12).expand(2, 3, 12, 12),
    }[layout]
    assert relative(trace.replay(x), plain(model, x.contiguous())) <= 1e-6


def test_edits_at_a_layer_are_the_head_run_by_hand() -> None:
    model, x = zoo.build("resnet18"), zoo.picture("resnet18", 2)
    trace = record(model, x)
    value = trace.at("layer3")
    before = value.data.clone()
    edited = before * torch.linspace(0, 2, before.shape[1])[:, None, None]
    given = edited.clone()
    with torch.no_grad():
        expected = model.fc(model.avgpool(model.layer4(edited)).flatten(1))  # type: ignore[operator]
    assert torch.equal(trace.replay(edits={value: edited}), expected)
    assert torch.equal(edited, given)  # an in-place operation behind it worked on a copy
    assert torch.equal(value.data, before)
    assert torch.equal(trace.replay(edits={value: before}), trace.scores)


def test_edits_and_inputs_together() -> None:
    model, x, other = zoo.build("resnet18"), zoo.picture("resnet18"), zoo.picture("resnet18", seed=8)
    trace = record(model, x)
    bn2 = trace.at("layer4.1.bn2")
    whole = trace.replay(other, edits={bn2: torch.zeros_like(bn2.data)})
    with torch.no_grad():
        stem = model.maxpool(model.relu(model.bn1(model.conv1(other))))  # type: ignore[operator]
        a = model.layer4[0](model.layer3(model.layer2(model.layer1(stem))))  # type: ignore[operator, index]
        expected = model.fc(model.avgpool(torch.relu(a)).flatten(1))  # type: ignore[operator]
    assert torch.equal(whole, expected)


def test_an_edited_output_and_an_edit_of_the_input() -> None:
    factory, shapes = AWKWARD["inplace_on_input"]
    model, inputs = factory(), example(shapes)
    trace = record(model, *inputs)
    assert torch.equal(trace.replay(edits={trace.output: trace.scores * 2}), trace.scores * 2)
    assert torch.equal(trace.replay(edits={trace.inputs[0]: inputs[0] * 2}), plain(model, inputs[0] * 2))


def test_several_inputs() -> None:
    factory, shapes = AWKWARD["two_inputs"]
    model, inputs, others = factory(), example(shapes), example(shapes, 1)
    trace = record(model, *inputs)
    assert torch.equal(trace.replay(others[0], inputs[1]), plain(model, others[0], inputs[1]))
    edited = trace.replay(edits={trace.inputs[1]: others[1]})
    assert torch.equal(edited, plain(model, inputs[0], others[1]))
    with pytest.raises(TraceError, match="1 inputs came, the recording has 2"):
        trace.replay(others[0])


def test_inputs_of_another_shape_are_refused() -> None:
    trace = record(AWKWARD["nested"][0](), *example(((2, 3, 12, 12),)))
    with pytest.raises(TraceError, match=r"\(1, 3, 12, 12\) came, the recording was made with \(2, 3, 12, 12\)"):
        trace.replay(torch.zeros(1, 3, 12, 12))


def test_sizes_that_hang_on_the_values_are_told() -> None:
    factory, shapes = AWKWARD["routing"]
    trace = record(factory(), *example(shapes))
    assert torch.equal(trace.replay(*example(shapes)), trace.scores)
    with pytest.raises(TraceError, match=r"can't be replayed with these values.*record the new input instead"):
        trace.replay(*example(shapes, 1))


def test_nothing_hangs_on_a_graph() -> None:
    trace = record(AWKWARD["nested"][0](), *example(((2, 3, 12, 12),)))
    asked: Tensor = torch.randn(2, 3, 12, 12, requires_grad=True)
    assert not trace.replay(asked).requires_grad
