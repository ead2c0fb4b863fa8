"""Every layer with maps of torchvision's architectures and of the real networks, watched: the recorded numbers."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from networks import zoo
from pellucid.core.layers import is_spatial
from pellucid.core.record import main_output, record
from pellucid.core.watch import Watch
from test_zoo_gradient import HEAVY, LIGHT


def check_watching(net: nn.Module, x: Tensor) -> None:
    """All layers at once for another picture, against a recording of that picture; and a gradient."""
    trace, other = record(net, x), x.flip(-1)
    layers = [name for name, calls in trace.layers.items() if calls[-1] and is_spatial(calls[-1][0], 4)]
    assert layers
    again = record(net, other)
    leaf = other.clone().requires_grad_()
    given = Watch(trace, [*layers, ""])(leaf)
    for name, tensor in zip(layers, given, strict=False):
        recorded = again.at(name).data
        assert torch.allclose(tensor, recorded, rtol=1e-4, atol=1e-5 * float(recorded.abs().max())), name
    (mine,) = torch.autograd.grad(given[-1].square().sum(), leaf)
    (theirs,) = torch.autograd.grad(main_output(net(leaf))[0].square().sum(), leaf)
    assert torch.allclose(mine, theirs, rtol=1e-4, atol=1e-5 * float(theirs.abs().max())) and theirs.any()


@pytest.mark.parametrize("name", ["resnet18", "mobilenet_v3_small", "squeezenet1_1"])
def test_watching_an_architecture(name: str) -> None:
    check_watching(zoo.build(name), zoo.picture(name))


@pytest.mark.zoo
@pytest.mark.parametrize("name", sorted({*LIGHT, *HEAVY}))
def test_watching_the_zoo(name: str) -> None:
    check_watching(zoo.build(name), zoo.picture(name))


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.REAL)
def test_watching_real_networks(name: str, data: Path) -> None:
    real = zoo.REAL[name](data, zoo.shared_models(data))
    check_watching(real.model, real.x)
