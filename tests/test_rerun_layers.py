"""Reruns from a layer: only what follows is run, boxes stay boxes, single channels stay single channels."""

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from method_cases import CONV, D, random_input
from networks.common import seeded
from pellucid.core import rerun
from pellucid.core.ahead import answers
from pellucid.core.record import record
from pellucid.core.rerun import Rerun
from pellucid.core.target import logit
from test_rerun import EXACT, GLOBAL, MAXPOOL, Odd, boxes_in, off, painted


def test_edits_of_a_layer_run_only_what_follows() -> None:
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(3, 3, 21, 21)
    trace = record(net, x)
    place = trace.at("max")
    again = Rerun(trace, place, trace.output)
    assert {step.node.path for step in again.steps}.isdisjoint({"first", "norm", "grouped", "wide", "max"})
    keep = torch.rand(place.data.shape[1], generator=torch.Generator().manual_seed(0)) > 0.3
    mixed = place.data * keep.to(D).view(1, -1, 1, 1)

    class Off:
        rows, boxes = [2, 0], None

        def inputs(self, which: Any) -> Tensor:
            return mixed[[self.rows[i] for i in which]]

        def inside(self, which: int) -> Tensor:
            raise AssertionError

    found = answers(trace, Off(), logit(1), place=place)
    expected = trace.replay(edits={place: mixed})[[2, 0], 1]
    assert found.plan == "head only"
    assert off(found.values, expected, trace.scores[[2, 0], 1]) < EXACT


class Heavy(nn.Module):
    """As VGG ends: pooled maps, flattened, read by linear layers."""

    def __init__(self, axes: int, kept: int) -> None:
        super().__init__()
        self.maps = nn.Sequential(CONV[axes](3, 6, 3), nn.ReLU())
        self.pool = nn.Sequential(MAXPOOL[axes](2), nn.Hardtanh(0.1, 2.0), GLOBAL[axes](kept))
        self.read = nn.Sequential(nn.Linear(6 * kept**axes, 9), nn.ReLU(), nn.Linear(9, 5))

    def forward(self, x: Tensor) -> Tensor:
        return self.read(self.pool(self.maps(x)).flatten(1))


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("kept", [1, 2])
@pytest.mark.parametrize("layer", ["maps", "maps.0", "pool.0"])
def test_channels_that_change_alone_are_carried_alone(
    axes: int, kept: int, layer: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ablated channels against the whole replay; `maps` goes through pooling, clamping, flattening, a linear layer."""
    from pellucid.core import thin

    net = seeded(lambda: Heavy(axes, kept))().to(D).eval()
    x = random_input(2, 3, *[10] * axes)
    trace = record(net, x)
    place = trace.at(layer)
    new = random_input(12, *place.data.shape[2:], seed=8)

    class Channels:
        rows, boxes, channels = [i % 2 for i in range(12)], None, [i // 2 for i in range(12)]

        def inputs(self, which: Any) -> Tensor:
            found = place.data[[self.rows[i] for i in which]]
            for number, i in enumerate(which):
                found[number, self.channels[i]] = new[i]
            return found

        def inside(self, which: int) -> Tensor:
            raise AssertionError

        def channel(self, which: Any) -> Tensor:
            return new[list(which)]

    went: list[str] = []
    right = thin.thinly
    monkeypatch.setattr(rerun, "thinly", lambda node, *rest: (went.append(node.base), right(node, *rest))[1])
    edits = Channels()
    found = answers(trace, edits, logit(1), place=place)
    expected = []
    for i, row in enumerate(edits.rows):
        data = place.data.clone()
        data[row] = edits.inputs([i])[0]
        expected.append(trace.replay(edits={place: data})[row, 1])
    assert off(found.values, torch.stack(expected), trace.scores[edits.rows, 1]) < EXACT
    assert found.plan == "head only" and "flatten" in went and "linear" in went


def test_boxes_of_a_layer_stay_boxes() -> None:
    net = seeded(lambda: Odd(2, 1, 1, 1, 1))().to(D).eval()
    x = random_input(1, 3, 33, 33)
    trace = record(net, x)
    place = trace.at("first")
    edits = painted(place.data, boxes_in(tuple(place.data.shape[2:]), 8, seed=2))
    found = answers(trace, edits, logit(1), place=place, plan="incremental")
    expected = torch.stack([trace.replay(edits={place: edits.inputs([i])})[0, 1] for i in range(8)])
    assert found.plan == "incremental"
    assert off(found.values, expected, trace.scores[[0] * 8, 1]) < EXACT
