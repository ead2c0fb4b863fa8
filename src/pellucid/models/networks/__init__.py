"""Which architectures do the networks that ship have?"""

from collections.abc import Callable

from torch import nn

from pellucid.core.errors import ModelError, nearest
from pellucid.models.networks.photos import PhotoNet
from pellucid.models.networks.plain import BagNet, PlainNet
from pellucid.models.networks.structures import BatchNormNet, PreactivationNet, Relu6Net
from pellucid.models.networks.volumes import VolumeNet

__all__ = [
    "ARCHITECTURES", "BagNet", "BatchNormNet", "PhotoNet", "PlainNet", "PreactivationNet", "Relu6Net", "VolumeNet",
    "build",
]  # fmt: skip

ARCHITECTURES: dict[str, Callable[[int], nn.Module]] = {
    "photo": PhotoNet,
    "plain": PlainNet,
    "bagnet": BagNet,
    "batchnorm": BatchNormNet,
    "preactivation": PreactivationNet,
    "relu6": Relu6Net,
    "volume": VolumeNet,
}


def build(architecture: str, classes: int) -> nn.Module:
    """A network of this architecture with fresh weights.

    Args:
        architecture: a key of `ARCHITECTURES`.
        classes: number of logits.

    Raises:
        ModelError: no such architecture.
    """
    if architecture not in ARCHITECTURES:
        known = nearest(architecture, ARCHITECTURES) or f"; there are {', '.join(ARCHITECTURES)}"
        raise ModelError(f'no architecture "{architecture}"{known}')
    return ARCHITECTURES[architecture](classes)
