"""Networks whose answer is known, and a picture for them, for the tests of evidence."""

import torch
from torch import nn

from pellucid.images.transforms import Preprocess
from pellucid.methods.evidence import evidence
from pellucid.models.model import wrap

PIXELS = Preprocess()
SIDE = 16


def symptom(shape=(SIDE, SIDE)):
    mask = torch.zeros(shape, dtype=torch.bool)
    mask[tuple(slice(5, 9) for _ in shape)] = True
    return mask


def scene(shape=(SIDE, SIDE), channels=3, seed=0):
    """Bright where the symptom is, dark elsewhere."""
    noise = torch.rand(1, channels, *shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return torch.where(symptom(shape), 0.9, 0.15) + 0.05 * noise


class Reader(nn.Module):
    """Says yes where the mean of the pixels under its mask is beyond a level, and reads nothing else."""

    def __init__(self, mask, level=0.7, sign=1.0):
        super().__init__()
        self.register_buffer("mask", mask.double())
        self.level, self.sign = level, sign

    def forward(self, x):
        seen = (x * self.mask).flatten(1).sum(1) / (self.mask.sum() * x.shape[1])
        score = self.sign * 60 * (seen - self.level)
        return torch.stack([score, -score], 1)


class Constant(nn.Module):
    def forward(self, x):
        return torch.zeros(len(x), 4, dtype=x.dtype) + torch.arange(4) + 0 * x.flatten(1).sum(1, keepdim=True)


def net(seed=0, classes=3, width=6):
    torch.manual_seed(seed)
    layers = [nn.Conv2d(3, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 3, stride=2), nn.ReLU()]
    made = nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(width, classes)).double().eval()
    with torch.no_grad():
        made[-1].weight *= 40
    return made


def model(module, **more):
    return wrap(module, preprocess=PIXELS, name="small", **more)


def ask(module, x, mask, **settings):
    return evidence(model(module), x, mask, **{"progress": False, "controls": 39, **settings})
