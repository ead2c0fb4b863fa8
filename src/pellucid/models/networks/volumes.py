"""The network for volumes: 3-D convolutions, averaged over the volume, one linear layer."""

from torch import Tensor, nn

from pellucid.models.networks.plain import start_evenly


class VolumeNet(nn.Module):
    """Four 3×3×3 convolutions with bias and ReLU, two max poolings; no normalisation.

    Input `(b, 1, d, h, w)`, voxels in [0, 1], sides ≥ 4 and any size; the last maps have a quarter of the side (8×8×8
    for 32×32×32); output `(b, classes)` logits, linear in the averaged maps, so exact CAM exists.
    """

    def __init__(self, classes: int = 2, widths: tuple[int, int, int, int] = (8, 16, 32, 48)) -> None:
        super().__init__()
        a, b, c, d = widths
        self.features = nn.Sequential(
            nn.Conv3d(1, a, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(a, b, 3, padding=1), nn.ReLU(), nn.MaxPool3d(2),
            nn.Conv3d(b, c, 3, padding=1), nn.ReLU(),
            nn.Conv3d(c, d, 3, padding=1), nn.ReLU(),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool3d(1)
        self.head = nn.Linear(d, classes)
        start_evenly(self.modules())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))
