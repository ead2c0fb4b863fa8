"""Incremental reruns of torchvision's architectures and the real networks: what the network says itself."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from networks import zoo
from pellucid.core.ahead import answers
from pellucid.core.edits import Boxed
from pellucid.core.record import record
from pellucid.core.target import logit
from test_rerun import boxes_in, off
from test_zoo_gradient import HEAVY, LIGHT

ATTENDS = {"maxvit_t", "swin_t", "swin_s", "swin_v2_t", "swin_v2_s", "vit_b_16", "vit_b_32"}
EXACT = 1e-5  # of the largest change; float64 leaves far less, but for networks that amplify


def check_reruns(net: nn.Module, x: Tensor, rerun: bool = True) -> None:
    """Four random boxes of the turned negative: incremental and whole reruns against the module, in float64."""
    net, x = net.double(), x.double()
    trace = record(net, x)
    edits = Boxed(x, 0.5 - x.flip(-1, -2), boxes_in(tuple(x.shape[2:]), 4, seed=x.shape[-1], largest=16))
    with torch.no_grad():
        expected = torch.stack([zoo.class_score(net(edits.inputs([i]))) for i in range(4)])
    found = answers(trace, edits, logit(1), plan="incremental")
    before = trace.scores[[0] * 4, 1]
    assert off(found.values, expected, before) < EXACT
    assert found.plan == ("incremental" if rerun else "full")
    assert off(answers(trace, edits, logit(1), plan="full").values, expected, before) < EXACT


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "shufflenet_v2_x0_5", "squeezenet1_1"])
def test_reruns_of_an_architecture(name: str) -> None:
    check_reruns(zoo.build(name), zoo.picture(name))


@pytest.mark.zoo
@pytest.mark.parametrize("name", sorted({*LIGHT, *HEAVY}))
def test_reruns_of_the_zoo(name: str) -> None:
    check_reruns(zoo.build(name), zoo.picture(name), rerun=name not in ATTENDS)


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.REAL)
def test_reruns_of_real_networks(name: str, data: Path) -> None:
    real = zoo.REAL[name](data, zoo.shared_models(data))
    check_reruns(real.model, real.x)
