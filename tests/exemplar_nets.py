"""A network with everything that makes receptive fields hard, and its maps by hooks."""

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F

from pellucid.inside.exemplars import Exemplars


class Branching(nn.Module):
    """Functional calls, in-place ReLU, a module used twice, a sum, a concatenation, stride, dilation and padding."""

    def __init__(self, channels: int = 3) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, 8, 5, stride=2, padding=2)
        self.again = nn.Conv2d(8, 8, 3, padding=1, groups=2)
        self.wide = nn.Conv2d(8, 8, 3, padding=2, dilation=2)
        self.relu = nn.ReLU(inplace=True)
        self.joined = nn.Conv2d(16, 12, 1)
        self.last = nn.Linear(12, 5)

    def forward(self, x):
        x = F.max_pool2d(self.relu(self.first(x)), 3, 2)
        x = x + self.relu(self.again(self.relu(self.again(x))))
        x = self.joined(torch.cat([x, self.wide(x)], 1))
        return self.last(F.relu(x).mean((2, 3)))


LAYERS = ["first", "again#0", "wide", "joined", "last"]


def all_maps(net: nn.Module, x: torch.Tensor, layer: str, batch: int = 16) -> np.ndarray:
    path, _, call = layer.partition("#")
    kept = []
    handle = dict(net.named_modules())[path].register_forward_hook(lambda m, a, out: kept.append(out.clone()))
    with torch.no_grad():
        for part in x.split(batch):
            net(part)
    handle.remove()
    calls = 2 if path == "again" else 1
    maps = torch.cat(kept[int(call or calls - 1) :: calls])
    return (maps if maps.dim() == 4 else maps[:, :, None, None]).numpy()


def signature(found: Exemplars) -> list:
    return [[(e.number, e.position) for e in (*one.top, *one.bottom, *one.random, *one.stratified)] for one in found]
