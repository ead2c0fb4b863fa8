"""Relevance on trained networks and real pictures: the books close, and the maps hang on the weights."""

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import nn

from method_cases import outcome
from networks import zoo

METHODS = ("lrp", "sglrp", "deep_taylor", "excitation_backprop", "deep_lift")
NETWORKS = ("squeezenet1_1", "mobilenet_v2", "cifar_resnet20", "simplenet_mnist")


def shuffled(model: nn.Module) -> nn.Module:
    """The same network with the numbers of each parameter in random order."""
    other = copy.deepcopy(model)
    with torch.no_grad():
        for p in other.parameters():
            p.copy_(p.flatten()[torch.randperm(p.numel())].view_as(p))
    return other


@pytest.fixture(scope="module")
def real(data: Path) -> dict[str, zoo.Real]:
    return {one.name: one for one in zoo.real(data)}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("name", NETWORKS)
def test_the_books_close_and_the_map_hangs_on_the_weights(real: dict[str, zoo.Real], name: str, method: str) -> None:
    one = real[name]
    settings = {"baseline": "zero"} if method == "deep_lift" else {}
    found = outcome(one.model, one.x, method, targets=one.label, **settings)
    assert found.receipts[0].verdict in ("pass", "warn")
    assert all(abs(c.value) < 1e-3 for c in found.receipts[0].checks if c.name.endswith("error"))
    mine = found.attribution.sum(1).flatten().double()
    assert mine.norm() > 0
    theirs = outcome(shuffled(one.model), one.x, method, targets=one.label, **settings).attribution.sum(1).flatten()
    likeness = float(mine @ theirs.double() / (mine.norm() * theirs.double().norm() + 1e-30))
    assert math.isfinite(likeness) and abs(likeness) < 0.9
