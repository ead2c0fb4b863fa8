"""The layer that is looked at when none is named, and the ways through a recording."""

import pytest
import torch
from torch import Tensor, nn

from networks import zoo
from networks.awkward import AWKWARD, example
from pellucid.core.errors import LayerError
from pellucid.core.layers import ancestors, between, is_spatial, last_spatial
from pellucid.core.record import record

LAST = {
    "alexnet": "features.11",
    "convnext_tiny": "features",
    "densenet121": "features",
    "efficientnet_b0": "features",
    "googlenet": "inception5b",
    "mnasnet0_5": "layers",
    "mobilenet_v2": "features",
    "mobilenet_v3_small": "features",
    "regnet_x_400mf": "trunk_output",
    "resnet18": "layer4",
    "shufflenet_v2_x0_5": "conv5",
    "squeezenet1_1": "classifier.2",
    "swin_t": "permute",
    "vgg11": "features.19",
    "vgg11_bn": "features.27",
}


@pytest.mark.parametrize("name", LAST)
def test_last_spatial_layer_of_an_architecture(name: str) -> None:
    trace = record(zoo.build(name), zoo.picture(name))
    path, value = last_spatial(trace)
    assert path == LAST[name]
    assert value is trace.at(path)
    assert value.data.shape[-1] > 1


@pytest.mark.parametrize(("name", "side", "expected"), [("vgg11", 96, "features"), ("alexnet", 224, "features")])
def test_pooled_maps_count_where_they_have_positions(name: str, side: int, expected: str) -> None:
    assert last_spatial(record(zoo.build(name), torch.randn(1, 3, side, side)))[0] == expected


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("inplace_residual", "relu#2"),
        ("functional_relu_reused", "conv2#2"),
        ("segmentation", "conv2"),  # the coarsest of a dense output, not the mask itself
        ("conv1d", "conv2"),
        ("conv3d", "up"),
        ("dropouts_off", "conv2"),
    ],
)
def test_last_spatial_layer_of_a_users_network(name: str, expected: str) -> None:
    factory, shapes = AWKWARD[name]
    trace = record(factory(), *example(shapes))
    path, value = last_spatial(trace)
    assert (path, value) == (expected, trace.at(path))


class DeadEnd(nn.Module):
    """The last convolution leads nowhere; the one before it is averaged to 2 × 2 and dropped out."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.unused, self.head = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3), nn.Linear(16, 3)
        self.average, self.drop = nn.AdaptiveAvgPool2d(2), nn.Dropout2d()

    def forward(self, x: Tensor) -> Tensor:
        x = self.a(x)
        self.unused(x)
        return self.head(self.drop(self.average(x)).flatten(1))


def test_only_layers_that_lead_to_the_output_count() -> None:
    trace = record(DeadEnd().eval(), torch.randn(1, 3, 9, 9))
    assert last_spatial(trace)[0] == "a"
    assert trace.at("unused") not in ancestors(trace, trace.output)
    assert not is_spatial(trace.at("average"), 4)


def test_an_outer_module_names_the_value_it_passes_on() -> None:
    body = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    model = nn.Sequential(body, nn.AdaptiveAvgPool2d(1), nn.Flatten())
    assert last_spatial(record(model.eval(), torch.randn(1, 3, 6, 6)))[0] == "0"


@pytest.mark.parametrize("shape", [(2, 12), (2, 3, 4, 4)])
def test_a_fully_connected_network_has_none(shape: tuple[int, ...]) -> None:
    size = torch.Size(shape)[1:].numel()
    model = nn.Sequential(nn.Flatten(), nn.Linear(size, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    with pytest.raises(LayerError, match=r"no layer of this network keeps spatial axes.*saliency"):
        last_spatial(record(model, torch.randn(shape)))


def test_ways_between_two_values() -> None:
    factory, shapes = AWKWARD["inplace_residual"]
    trace = record(factory(), *example(shapes))
    start, end = trace.at("relu", 0), trace.at("relu", 2)
    on_way = between(trace, start, end)
    told = [trace.nodes[i].base for i in on_way]
    assert told == ["conv2d", "batch_norm", "relu", "conv2d", "batch_norm", "add", "relu"]
    assert between(trace, end, start) == []
    assert trace.inputs[0] in ancestors(trace, end)
    assert trace.output not in ancestors(trace, end)
