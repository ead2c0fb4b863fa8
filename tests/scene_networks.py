"""Networks that know some scenes by heart: random features, and a head solved for by least squares."""

from functools import lru_cache

import torch
from torch import nn

from pellucid.evaluate.questions import Question
from pellucid.images import scenes
from pellucid.images.scenes import Shortcut
from pellucid.images.transforms import Preprocess
from pellucid.models.model import Model, wrap
from pellucid.models.networks import PlainNet

PREPROCESS = Preprocess(resize_px=64, mean=(0.5,) * 3, std=(0.25,) * 3)
WATERMARK = Shortcut("watermark")


def fed(pictures):
    pixels = torch.stack([torch.from_numpy(one.pixels).permute(2, 0, 1) for one in pictures]) / 255
    return PREPROCESS.normalise(pixels)


@lru_cache(maxsize=4)
def by_heart(count: int = 30, truth: str = "decisive") -> Model:
    """Right on the first `count` test scenes; with truth="mark", right about the mark that is pasted in."""
    question = Question(truth, "logit", WATERMARK if truth == "mark" else None)
    posed = [one for scene in scenes.stream(count, split="test") if (one := question.pose(scene))]
    classes = torch.tensor([scenes.CLASSES.index(one.label) for one in posed])
    torch.manual_seed(0)
    net = PlainNet(10, widths=(8, 8, 16, 16, 32, 128)).eval()
    with torch.no_grad():
        features = net.pool(net.features(fed([one.picture for one in posed]))).flatten(1).double()
        wanted = nn.functional.one_hot(classes, 10).double() * 10
        net.head.weight.copy_(torch.linalg.lstsq(features, wanted, driver="gelsd").solution.T)
        net.head.bias.zero_()
    return wrap(net, labels=scenes.CLASSES, preprocess=PREPROCESS, name="by heart")


def net() -> nn.Module:
    """For the command line: package.module:factory."""
    return by_heart().module


def marked() -> nn.Module:
    """Likewise, and it follows the watermark."""
    return by_heart(30, "mark").module
