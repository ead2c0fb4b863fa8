"""Small networks, inputs and photographs for the tests of pictures made by ascent."""

import zipfile
from pathlib import Path

import torch
from torch import Tensor, nn

import pellucid as pel

PHOTOS = "builtin:photos"


def small(channels: int = 3) -> nn.Sequential:
    torch.manual_seed(1)
    layers = [nn.Conv2d(channels, 6, 3, padding=1), nn.ReLU(), nn.Conv2d(6, 8, 3, stride=2, padding=1), nn.ReLU()]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(8, 3)).double().eval()


def example(channels: int = 3, size: tuple[int, int] = (12, 14)) -> Tensor:
    return torch.rand(1, channels, *size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def linear(sides: tuple[int, int] = (6, 7), channels: int = 3) -> nn.Sequential:
    net = nn.Sequential(nn.Flatten(), nn.Linear(channels * sides[0] * sides[1], 2)).double().eval()
    with torch.no_grad():
        net[1].weight.copy_(torch.randn(net[1].weight.shape, generator=torch.Generator().manual_seed(4)))
    return net


def photos(data: Path, count: int) -> Tensor:
    """Inputs of real photographs, one after another of every class."""
    model = pel.load(PHOTOS)
    with zipfile.ZipFile(data / "cifar10" / "test.zip") as archive:
        names = [n for n in archive.namelist() if n.endswith(".jpg")]
        chosen = [archive.read(n) for n in names[:: max(1, len(names) // count)][:count]]
    found = [model.preprocess.normalise(model.preprocess(pel.decode(c)).pixels) for c in chosen]
    return torch.stack(found)
