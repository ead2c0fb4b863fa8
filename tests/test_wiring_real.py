"""Units switched off and influence on trained networks and a real picture."""

from pathlib import Path

import numpy as np
import pytest
import torch

from networks import zoo
from pellucid.core.progress import Progress
from pellucid.inside.opened import opened
from pellucid.inside.wiring.ablate import ablation
from pellucid.inside.wiring.feeds import feeders
from pellucid.inside.wiring.graph import influence_graph
from pellucid.inside.wiring.matrix import coupling_matrix
from pellucid.inside.wiring.places import chain


@pytest.fixture(scope="module")
def real(data: Path) -> dict[str, zoo.Real]:
    return {one.name: one for one in zoo.real(data)}


@pytest.mark.parametrize(
    ("name", "layer"),
    [("squeezenet1_1", "features.9"), ("mobilenet_v2", "features.15.conv.0"), ("cifar_resnet20", "layer3.1.bn1"),
     ("simplenet_mnist", None)],
)  # fmt: skip
def test_units_off_are_the_modules_own_channels_at_zero(real, name, layer):
    one = real[name]
    layer = layer or chain(opened(one.model, one.x).trace)[-4]
    units = [0, 3, 7]
    found = ablation(one.model, [f"{layer}:{u}" for u in units], one.x, progress=Progress())
    with torch.no_grad():
        before = one.model(one.x)
        for row, unit in enumerate(units):
            handle = one.model.get_submodule(layer).register_forward_hook(
                lambda _, __, output, unit=unit: output.index_fill(1, torch.tensor([unit]), 0.0)
            )
            lost = (before - one.model(one.x)).double()[0].numpy()
            handle.remove()
            assert np.abs(found.scores[row] - lost).max() <= 1e-4 * max(1.0, float(before.abs().max()))
    assert np.abs(found.scores).max() > 0


@pytest.mark.parametrize(
    ("name", "source", "target"),
    [("squeezenet1_1", "features.11", "features.12.squeeze_activation"), ("cifar_resnet20", "layer3.1", "layer3.2")],
)
def test_influence_orders_links_as_ablation_to_the_same_reference_does(real, name, source, target):
    one = real[name]
    found = influence_graph(one.model, [source, target], one.x, units=8, progress=False)
    assert all(rho >= 0.7 for rho in found.agreement) and found.drawn_agreement >= 0.7


@pytest.mark.parametrize("name", ["squeezenet1_1", "cifar_resnet20"])
def test_the_first_feeder_is_the_largest_of_its_column(real, name):
    one = real[name]
    source, target = chain(opened(one.model, one.x).trace)[-5:-3]
    ablated = coupling_matrix(one.model, source, target, one.x, progress=False)
    unit = int(np.argmax(np.abs(ablated.matrix).max(0)))
    found = feeders(one.model, f"{target}:{unit}", one.x)
    column = ablated.matrix[:, unit]
    assert found.layer == source and found.channels[0] == np.argmax(np.abs(column))
    assert found.values[0] == pytest.approx(column[found.channels[0]], rel=1e-4)
