"""torchvision's architectures and the trained networks: scores, exact gradients, rectifier rules."""

from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from compare import EXACT, class_seed, gradients, plain, relative
from networks import zoo
from oracles import rectifiers
from pellucid.core.record import record
from pellucid.rules.rectifiers import DECONVNET, GUIDED

HEAVY = set(
    "convnext_small densenet161 densenet201 efficientnet_b4 efficientnet_v2_m maxvit_t resnet152 resnext101_32x8d "
    "swin_s vgg11_bn vgg13_bn vgg16 vgg16_bn vgg19 vit_b_32 wide_resnet50_2".split()
)
LIGHT = [name for name in zoo.torchvision_names() if name not in HEAVY]
RULES = [(GUIDED, rectifiers.guided_backprop), (DECONVNET, rectifiers.deconvnet)]


def check_gradient(model: nn.Module, x: Tensor, index: int = 1) -> None:
    """Scores bit for bit, the gradient as near to autograd's as the dtype allows."""
    trace = record(model, x)
    assert torch.equal(trace.scores, plain(model, x))
    assert not trace.strangers
    expected = gradients(model, (x,), lambda y: zoo.class_score(y, index))[0]
    assert float(expected.abs().max()) > 0
    assert relative(trace.pull(class_seed(trace, index)).input(), expected) <= EXACT[x.dtype]


def check_rules(model: nn.Module, x: Tensor, index: int = 1) -> None:
    trace = record(model, x)
    for rules, oracle in RULES:
        expected = oracle(model, x, lambda y: zoo.class_score(y, index))
        assert relative(trace.pull(class_seed(trace, index), rules).input(), expected) <= EXACT[x.dtype]


def test_there_are_enough_architectures() -> None:
    assert len(LIGHT) >= 40
    assert set(zoo.torchvision_names()) >= HEAVY


@pytest.mark.parametrize("name", LIGHT)
def test_gradient_of_an_architecture(name: str) -> None:
    model = zoo.build(name)
    check_gradient(model, zoo.picture(name))
    check_gradient(model.double(), zoo.picture(name, dtype=torch.float64))


@pytest.mark.zoo
@pytest.mark.parametrize("name", sorted(HEAVY))
def test_gradient_of_a_heavy_architecture(name: str) -> None:
    model = zoo.build(name)
    check_gradient(model, zoo.picture(name))
    check_gradient(model.double(), zoo.picture(name, dtype=torch.float64))


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.torchvision_names())
def test_two_pictures_and_another_class(name: str) -> None:
    check_gradient(zoo.build(name, seed=3).double(), zoo.picture(name, 2, 5, torch.float64), 4)


@pytest.mark.zoo
@pytest.mark.parametrize("name", zoo.torchvision_names())
def test_rectifier_rules_on_an_architecture(name: str) -> None:
    check_rules(zoo.build(name).double(), zoo.picture(name, dtype=torch.float64))


@pytest.mark.parametrize("name", zoo.REAL)
def test_trained_networks(name: str, data: Path) -> None:
    real = zoo.REAL[name](data, zoo.shared_models(data))
    assert int(record(real.model, real.x).scores.argmax()) == real.label
    check_gradient(real.model, real.x, real.label)
    check_gradient(real.model.double(), real.x.double(), real.label)
    check_rules(real.model, real.x.double(), real.label)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no cuda device")
@pytest.mark.parametrize("name", LIGHT)
def test_gradient_of_an_architecture_on_cuda(name: str) -> None:
    check_gradient(zoo.build(name).double().cuda(), zoo.picture(name, dtype=torch.float64).cuda())
