"""Targets: the number that is explained, its gradient, its name, and what no output has."""

import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from compare import gradients, relative
from networks.awkward import AWKWARD, class_one, example, logits
from pellucid.core import target
from pellucid.core.errors import LayerError, TargetError
from pellucid.core.record import record
from pellucid.core.target import Target, class_scores
from pellucid.core.trace import Trace

SHAPE = ((2, 3, 12, 12),)


def traced(name: str = "nested", dtype: torch.dtype = torch.float64) -> tuple[nn.Module, tuple[Tensor, ...], Trace]:
    factory, shapes = AWKWARD[name]
    model, inputs = factory().to(dtype), example(shapes, dtype=dtype)
    return model, inputs, record(model, *inputs)


def check(name: str, asked: Target, by_hand: Callable[[Any], Tensor]) -> None:
    """The target's number and its gradient at the input, against autograd through the whole network."""
    model, inputs, trace = traced(name)
    with torch.no_grad():
        expected = by_hand(model(*[x.clone() for x in inputs]))
    assert relative(asked.score(trace), expected) <= 1e-12
    gradient = gradients(model, inputs, lambda y: by_hand(y).sum())[0]
    assert relative(trace.pull(asked.seeds(trace)).input(), gradient) <= 1e-10


@pytest.mark.parametrize(
    ("asked", "by_hand"),
    [
        (target.logit(2), lambda y: y[:, 2]),
        (target.logit([4, 0]), lambda y: torch.stack([y[0, 4], y[1, 0]])),
        (target.logit(torch.tensor([1, 3])), lambda y: torch.stack([y[0, 1], y[1, 3]])),
        (target.probability(2), lambda y: y.softmax(1)[:, 2]),
        (target.log_probability([0, 1]), lambda y: y.log_softmax(1)[[0, 1], [0, 1]]),
        (target.contrast(3, 1), lambda y: y[:, 3] - y[:, 1]),
        (target.contrast([3, 2], [0, 4]), lambda y: torch.stack([y[0, 3] - y[0, 0], y[1, 2] - y[1, 4]])),
        (target.custom(lambda y: y.square().sum(1)), lambda y: y.square().sum(1)),
        (target.custom(lambda y: y.logsumexp(1, keepdim=True)), lambda y: y.logsumexp(1)),
    ],
    ids=lambda value: value.name() if isinstance(value, Target) else "",
)
def test_numbers_of_a_classifier(asked: Target, by_hand: Callable[[Any], Tensor]) -> None:
    check("nested", asked, by_hand)


@pytest.mark.parametrize("name", ["one_column", "one_value"])
def test_a_single_logit(name: str) -> None:
    check(name, target.logit(0), lambda y: y.reshape(2))
    check(name, target.probability(0), lambda y: y.reshape(2).sigmoid())
    check(name, target.log_probability(0), lambda y: F.logsigmoid(y.reshape(2)))
    with pytest.raises(TargetError, match=r"class 1 came; the network has 1 classes \(0 to 0\)"):
        target.logit(1).score(traced(name)[2])


def test_a_dense_output() -> None:
    mask = torch.zeros(12, 12, dtype=torch.bool)
    mask[3:7, 2:9] = True
    check("segmentation", target.logit(1), lambda y: y[:, 1].mean((1, 2)))
    check("segmentation", target.probability(1), lambda y: y.mean((2, 3)).softmax(1)[:, 1])
    check("segmentation", target.region(1, mask), lambda y: y[:, 1, 3:7, 2:9].mean((1, 2)))
    check("segmentation", target.region([0, 4], mask), lambda y: y[:, :, 3:7, 2:9].mean((2, 3))[[0, 1], [0, 4]])


def test_scores_before_a_final_softmax() -> None:
    _, _, trace = traced("probabilities")
    before = class_scores(trace)
    assert before is trace.at("head")
    assert torch.equal(before.data.softmax(1), trace.scores)
    assert torch.equal(target.logit(3).score(trace), before.data[:, 3])
    assert relative(target.probability(3).score(trace), trace.scores[:, 3]) <= 1e-12
    check("probabilities", target.probability(1), lambda y: y[:, 1])
    check("probabilities", target.log_probability(1), lambda y: y[:, 1].log())
    check("probabilities", target.custom(lambda y: y[:, 1], "as it is"), lambda y: y[:, 1])


@pytest.mark.parametrize("name", ["dict_output", "tuple_output", "dataclass_output", "namedtuple_output"])
def test_outputs_that_hold_the_scores(name: str) -> None:
    check(name, target.logit(1), lambda y: logits(y)[:, 1])
    note = traced(name)[2].notes[0]
    assert "scores are read from" in note


UNITS: dict[str, tuple[Target, Callable[[Tensor], Tensor]]] = {
    "mean": (target.unit("conv2", 3), lambda a: a[:, 3].mean((1, 2))),
    "max": (target.unit("conv2", 5, "max"), lambda a: a[:, 5].amax((1, 2))),
    "position": (target.unit("conv2", 5, (2, 7)), lambda a: a[:, 5, 2, 7]),
    "first call": (target.unit("conv2#0", 1, (0, 0)), lambda a: a[:, 1, 0, 0]),
}


@pytest.mark.parametrize("kind", UNITS)
def test_units_of_a_layer(kind: str) -> None:
    asked, read = UNITS[kind]
    model, inputs, trace = traced()
    calls: list[Tensor] = []
    handle = model.conv2.register_forward_hook(lambda m, a, out: calls.append(out))  # type: ignore[operator, union-attr]
    expected = gradients(model, inputs, lambda y: read(calls[-1]).sum() + 0 * class_one(y))[0]
    handle.remove()
    assert relative(asked.score(trace), read(calls[-1].detach())) <= 1e-12
    assert relative(trace.pull(asked.seeds(trace)).input(), expected) <= 1e-10


def test_units_of_a_flat_layer_and_a_reused_one() -> None:
    _, _, trace = traced()
    assert torch.equal(target.unit("head", 2).score(trace), trace.scores[:, 2])
    assert torch.equal(target.unit("head", 2, ()).score(trace), trace.scores[:, 2])
    _, _, reused = traced("functional_relu_reused")
    first, last = target.unit("conv2#0", 1), target.unit("conv2", 1)
    assert torch.equal(first.score(reused), reused.at("conv2", 0).data[:, 1].mean((1, 2)))
    assert torch.equal(last.score(reused), reused.at("conv2#2").data[:, 1].mean((1, 2)))


def test_classes_of_repeated_images() -> None:
    model, (x,), _ = traced()
    repeated = record(model, x.repeat_interleave(3, 0))
    rows = [0, 0, 0, 1, 1, 1]
    expected = torch.cat([repeated.scores[:3, 4], repeated.scores[3:, 2]])
    assert torch.equal(target.logit([4, 2]).score(repeated, rows), expected)
    (seed,) = target.logit([4, 2]).seeds(repeated, rows).values()
    assert torch.equal(seed.nonzero(), torch.tensor([[0, 4], [1, 4], [2, 4], [3, 2], [4, 2], [5, 2]]))


@pytest.mark.parametrize("index", [3, np.int64(3), np.array([3]), torch.tensor(3), [3], (3,), range(3, 4)], ids=repr)
def test_class_numbers_as_people_have_them(index: Any) -> None:
    _, _, trace = traced()
    assert torch.equal(target.logit(index).score(trace), trace.scores[:, 3])


def test_names_for_people() -> None:
    label = ["tench", "cock", "eagle", "cat", "dog"].__getitem__
    assert target.logit(2).name(label=label) == "logit of eagle"
    assert [target.logit([4, 0]).name(i, label) for i in range(2)] == ["logit of dog", "logit of tench"]
    assert target.contrast(3, 4).name(label=label) == "logit of cat minus logit of dog"
    assert target.probability(1).name() == "probability of 1"
    assert target.log_probability(1).name(label=label) == "log-probability of cock"
    assert target.unit("layer4.1", 7, (2, 3)).name() == "unit 7 of layer4.1 (at (2, 3))"
    assert target.region(1, torch.ones(2, 2)).name(label=label) == "logit of cock inside a region"
    assert target.custom(lambda y: y[:, 0], "my {score}").name() == "my score"
    assert repr(target.logit(2)) == "Target(logit of 2)"


def test_a_users_function_may_write_into_what_it_gets() -> None:
    def written(y: Tensor) -> Tensor:
        y[:, 0] = 0
        return y.relu_().sum(1)

    _, _, trace = traced()
    before = trace.scores.clone()
    check("nested", target.custom(written), lambda y: F.relu(y[:, 1:]).sum(1))
    target.custom(written).score(trace)
    assert torch.equal(trace.scores, before)


def test_a_target_that_hangs_on_nothing_has_no_gradient() -> None:
    _, _, trace = traced()
    for constant in (lambda y: torch.ones(2), lambda y: y.argmax(1)):
        assert not trace.pull(target.custom(constant).seeds(trace)).input().any()


def test_inside_inference_mode() -> None:
    _, _, trace = traced()
    with torch.inference_mode():
        (seed,) = target.probability(1).seeds(trace).values()
    assert torch.equal(seed, next(iter(target.probability(1).seeds(trace).values())))
    assert seed.any()


@pytest.mark.parametrize("index", [True, [], torch.tensor([0.5]), np.array(2.0), [True]], ids=repr)
def test_what_is_no_class(index: Any) -> None:
    for make in (target.logit, target.probability, target.log_probability):
        with pytest.raises(TargetError, match="came; give a class number, or one number per image"):
            make(index)
    with pytest.raises(TargetError, match="give a class number"):
        target.contrast(1, index)


@pytest.mark.parametrize("index", [1.0, None, [1, "2"], {}, {1}], ids=repr)
def test_what_is_not_even_typed_as_a_class(index: Any) -> None:
    with pytest.raises(TargetError, match="came; give a class number, or one number per image"):
        target._indices(index)  # behind the annotations, which the tests enforce and users may not


LABELLED = [
    (target.logit("eagle"), target.logit(2)),
    (target.probability("cat"), target.probability(3)),
    (target.log_probability("dog"), target.log_probability(4)),
    (target.contrast("cat", 4), target.contrast(3, 4)),
    (target.contrast(0, "dog"), target.contrast(0, 4)),
]


@pytest.mark.parametrize(("asked", "meant"), LABELLED, ids=lambda t: t.name())
def test_classes_by_label(asked: Target, meant: Target) -> None:
    labels = ["tench", "cock", "eagle", "cat", "dog"]
    _, _, trace = traced()
    with pytest.raises(TargetError, match=r"the label '?\w+'? needs a network with labels; give class numbers"):
        asked.score(trace)
    known = asked.resolved(labels.index)
    assert known.name(label=labels.__getitem__) == meant.name(label=labels.__getitem__)
    assert torch.equal(known.score(trace), meant.score(trace))
    assert meant.resolved(labels.index) is meant


ALL = torch.ones(12, 12)
FLAT: list[tuple[Target, str]] = [
    (target.logit(5), "class 5 came; the network has 5 classes (0 to 4)"),
    (target.logit(-1), "class -1 came; the network has 5 classes (0 to 4)"),
    (target.contrast(0, 7), "class 7 came"),
    (target.logit([1, 2, 3]), "3 classes came for 2 images; give one class for all or one per image"),
    (target.unit("conv2", 8), 'unit 8 came, layer "conv2" has 8 units (0 to 7)'),
    (target.unit("conv2", -1), "unit -1 came"),
    (target.unit("conv2", 1, "median"), 'position "median" came; use "mean", "max" or coordinates'),
    (target.unit("conv2", 1, (3, 12)), 'position (3, 12) is not inside the maps of layer "conv2", (12, 12)'),
    (target.unit("conv2", 1, (3,)), "position (3,) is not inside"),
    (target.region(1, ALL), "a mask of (12, 12) came; the network's dense output has ()"),
    (target.custom(lambda y: y, "all"), "target 'all' gave (2, 5) for 2 images; give one number per image"),
    (target.custom(lambda y: y.sum()), "gave () for 2 images"),
    (target.custom(lambda y: 3), "gave int for 2 images"),  # type: ignore[arg-type, return-value]
]
DENSE: list[tuple[Target, str]] = [
    (target.region(1, ALL[:5]), "a mask of (5, 12) came; the network's dense output has (12, 12)"),
    (target.region(1, 0 * ALL), "the mask is empty; mark at least one position"),
    (target.region(9, ALL), "class 9 came"),
]
WRONG = [("nested", *one) for one in FLAT] + [("segmentation", *one) for one in DENSE]


@pytest.mark.parametrize(("name", "asked", "words"), WRONG, ids=[words[:40] for _, _, words in WRONG])
def test_what_no_output_has(name: str, asked: Target, words: str) -> None:
    _, _, trace = traced(name)
    with pytest.raises(TargetError, match=re.escape(words)):
        asked.score(trace)
    with pytest.raises(TargetError, match=re.escape(words)):
        asked.seeds(trace)


def test_a_unit_of_a_layer_that_is_not_there() -> None:
    with pytest.raises(LayerError, match='no layer "conv3"; did you mean "conv2"'):
        target.unit("conv3", 1).seeds(traced()[2])
