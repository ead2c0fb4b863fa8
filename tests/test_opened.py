"""A network opened on an example: layers, units and what is said about those that do not exist."""

import numpy as np
import pytest
import torch
from torch import nn

from pellucid.core.errors import ImageError, LayerError, ModelError
from pellucid.images.transforms import Preprocess
from pellucid.inside.opened import Unit, opened
from pellucid.models.model import wrap


class LastChannels(nn.Module):
    """Maps with the channels last, as in Swin and ConvNeXt."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.norm, self.head = nn.Conv2d(3, 5, 2, 2), nn.LayerNorm(5), nn.Linear(5, 2)

    def forward(self, x):
        return self.head(self.norm(self.conv(x).permute(0, 2, 3, 1)).mean((1, 2)))


@pytest.fixture
def net():
    return nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(4, 2)).eval()


def test_units_are_named_by_layer_and_number(net):
    inside = opened(net, torch.rand(1, 3, 8, 9))
    assert inside.unit("0:3") == Unit("0", 3) == inside.unit(Unit("0", 3))
    assert str(Unit("layer3.0", 17)) == "layer3.0:17"
    assert inside.units("0") == 4 and inside.positions("0") == (6, 7)
    assert inside.positions("4") == () and inside.units("4") == 2


def test_the_last_layer_with_maps_is_chosen(net):
    assert opened(net, torch.rand(1, 3, 8, 9)).layer(None) == "1"


def test_channels_may_come_last():
    inside = opened(LastChannels().eval(), torch.rand(1, 3, 8, 12))
    assert inside.units("norm") == 5 and inside.positions("norm") == (4, 6)
    assert inside.maps("norm", inside.value("norm").data).shape == (1, 5, 4, 6)


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("0:4", "it has 4, from 0 to 3"),
        ("0", "write LAYER:CHANNEL"),
        ("0:x", "write LAYER:CHANNEL"),
        ("0:-1", "write LAYER:CHANNEL"),
        ("conv9:1", 'no layer "conv9"'),
    ],
)
def test_units_that_do_not_exist_are_refused(net, name, words):
    with pytest.raises(LayerError, match=words):
        opened(net, torch.rand(1, 3, 8, 9)).unit(name)


def test_a_layer_without_maps_is_refused_where_maps_are_wanted(net):
    inside = opened(net, torch.rand(1, 3, 8, 9))
    assert inside.spatial("0") == "0"
    with pytest.raises(LayerError, match=r'layer "4" has no maps.*the last layer with maps is "1"'):
        inside.spatial("4")


def test_pictures_tensors_and_nothing_open_a_network(net):
    model = wrap(net, preprocess=Preprocess(resize_px=20, crop_px=16))
    shown = opened(model, np.zeros((30, 40, 3), np.uint8))
    assert shown.picture is not None and shown.placement is not None and shown.trace.batch == 1
    assert opened(model).trace.inputs[0].shape == (1, 3, 16, 16)
    assert opened(model, torch.rand(5, 3, 10, 10)).trace.batch == 5
    assert opened("builtin:scenes").units("features") > 0


def test_what_can_not_be_opened_is_told(net):
    with pytest.raises(ModelError, match="input size"):
        opened(net)
    with pytest.raises(ModelError, match="takes 3 channels"):
        opened(net, torch.rand(1, 7, 8, 8))
    with pytest.raises(ImageError, match="no file"):
        opened("builtin:photos", "nothing.png")


class Shuffled(nn.Module):
    """Channels that are dealt out anew, so that reshapes lose sight of them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.deal = nn.Conv2d(3, 6, 3), nn.ChannelShuffle(2)

    def forward(self, x):
        x = self.conv(x)
        b, c, h, w = x.shape
        self_made = nn.Identity()(x.view(b, 2, c // 2, h, w).transpose(1, 2).reshape(b, c, h, w))
        return self.deal(self_made).mean((2, 3))


def test_shuffled_channels_are_still_counted():
    inside = opened(Shuffled().eval(), torch.rand(1, 3, 8, 9))
    assert inside.units("deal") == 6 and inside.positions("deal") == (6, 7)


def test_units_are_not_guessed_behind_attention():
    class Attends(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.attention = nn.Conv2d(3, 4, 3), nn.MultiheadAttention(4, 2, batch_first=True)

        def forward(self, x):
            tokens = self.conv(x).flatten(2).transpose(1, 2)
            return self.attention(tokens, tokens, tokens)[0].mean(1)

    inside = opened(Attends().eval(), torch.rand(1, 3, 6, 6))
    with pytest.raises(LayerError, match="nothing shows which axis counts its units"):
        inside.units("attention")
