"""The networks that the benchmark runs: torchvision's architectures with random weights in evaluation mode."""

import copy
import sys
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests"))
from shim import define_missing_torchvision_operators

SIDE_PX = 224
TARGET = 281
CLASSES = 1000


@dataclass(eq=False)
class Network:
    """A network, one image and one class.

    Attributes:
        module: as a user would have it: evaluation mode, parameters that require gradients.
        frozen: the same weights in parameters that require none; the ideal passes run on it.
        x: one normalised image `(1, 3, 224, 224)`.
        layer: the layer that every CAM reads: the one pellucid chooses when none is given.
        starts: four baselines in input space, `(4, 3, 224, 224)`.
        memo: what a row prepares before the clock starts.
    """

    name: str
    module: nn.Module
    frozen: nn.Module
    x: Tensor
    target: int
    layer: str
    starts: Tensor
    memo: dict[str, Any] = field(default_factory=dict)

    @property
    def site(self) -> nn.Module:
        return self.module.get_submodule(self.layer)

    @cached_property
    def spare(self) -> nn.Module:
        """A second module on the same weights, for a contender that rebuilds the module it is given."""
        return sharing(self.module, requires_grad=True)

    @cached_property
    def ablated(self) -> nn.Module:
        """One more, for a contender that exchanges the layer while it works."""
        return sharing(self.module, requires_grad=True)

    @cached_property
    def folded(self) -> nn.Module:
        """For the fastest bare forward: BatchNorm merged into the convolutions, channels last."""
        from torch.fx.experimental.optimization import fuse

        made = fuse(sharing(self.module, requires_grad=False), inplace=True)
        return made.to(memory_format=torch.channels_last).requires_grad_(False)

    @cached_property
    def idle(self) -> nn.Module:
        """A network on the same images and classes that costs next to nothing: it looks at one pixel in 32×32."""
        return _Glance().to(self.x.device).eval()

    def tidy(self) -> None:
        """Drop the weight gradients that a contender left behind."""
        self.module.zero_grad(set_to_none=True)


class _Glance(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.look = nn.Conv2d(3, CLASSES, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.look(x[:, :, ::32, ::32]).mean((2, 3))


def sharing(module: nn.Module, *, requires_grad: bool) -> nn.Module:
    """A copy of the module tree around the same memory of weights and buffers."""
    memo: dict[int, Any] = {id(p): nn.Parameter(p.detach(), requires_grad) for p in module.parameters()}
    memo |= {id(b): b for b in module.buffers()}
    return copy.deepcopy(module, memo)


def build(name: str, device: str = "cpu") -> Network:
    """The architecture with seeded random weights; BatchNorm has seen noise once, so its statistics are not idle."""
    from pellucid.core.layers import last_spatial
    from pellucid.core.record import record

    define_missing_torchvision_operators()
    import torchvision

    if not hasattr(torchvision.models, name):
        raise SystemExit(f'no network "{name}" in torchvision.models; try resnet18, mobilenet_v2, vgg16, squeezenet1_1')
    torch.manual_seed(0)
    module = getattr(torchvision.models, name)(weights=None).to(device)
    _settle(module, torch.randn(4, 3, SIDE_PX, SIDE_PX, device=device))
    x = _smooth(1).to(device)
    blurred = nn.functional.avg_pool2d(x, 31, 1, 15)
    starts = torch.cat([torch.zeros_like(x), x.mean((2, 3), keepdim=True).expand_as(x), blurred, torch.rand_like(x)])
    layer, _ = last_spatial(record(module, x))
    return Network(name, module, sharing(module, requires_grad=False), x, TARGET, layer, starts)


def _settle(module: nn.Module, noise: Tensor) -> None:
    norms = [m for m in module.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = 1.0
    module.eval()
    for norm in norms:
        norm.train()
    with torch.no_grad():
        module(noise)
    module.eval()


def _smooth(count: int) -> Tensor:
    coarse = torch.randn(count, 3, 14, 14)
    size = (SIDE_PX, SIDE_PX)
    return nn.functional.interpolate(coarse, size, mode="bilinear") + 0.3 * torch.randn(count, 3, *size)
