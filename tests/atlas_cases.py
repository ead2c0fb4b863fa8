"""What the tests of the atlas share: a network with planted clusters, icons that cost nothing."""

import numpy as np
import torch
from torch import nn

CENTRES = torch.tensor([[4.0, 0, 0], [0, 4, 0], [0, 0, 4], [3, 3, 0]])


class Planted(nn.Module):
    """Its layer repeats the input at half the size; three scores read two of the channels each."""

    def __init__(self):
        super().__init__()
        self.layer = nn.MaxPool2d(2)
        self.head = nn.Linear(3, 3, bias=False)
        with torch.no_grad():
            self.head.weight.copy_(torch.tensor([[1.0, -1, 0], [0, 1, -1], [-1, 0, 1]]))

    def forward(self, x):
        return self.head(self.layer(x).mean((2, 3)))


def clusters(count=200, noise=0.25):
    """Inputs that are one colour each, drawn around four centres; and the centre of each."""
    random = torch.Generator().manual_seed(1)
    labels = torch.arange(count) % len(CENTRES)
    colours = CENTRES[labels] + noise * torch.randn(count, 3, generator=random)
    return colours[:, :, None, None].expand(-1, -1, 8, 8).contiguous(), labels.numpy()


def flat_icons(opened, layer, vectors, *, progress=None, icon_px=None, **settings):
    """Icons of one colour: the vector itself, squeezed into [0, 1]."""
    values = torch.sigmoid(vectors[:, :3]).numpy()
    side = icon_px or 8
    return np.broadcast_to(values[:, :, None, None], (*values.shape, side, side))
