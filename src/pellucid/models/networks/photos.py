"""The network for photographs: a small residual network for 32 pixels."""

from torch import Tensor, nn


class Block(nn.Module):
    """Two 3×3 convolutions with a residual sum: `relu(x + bn2(conv2(relu(bn1(conv1(x))))))`."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.relu1 = nn.ReLU()
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(channels)
        self.relu2 = nn.ReLU()

    def forward(self, x: Tensor) -> Tensor:
        return self.relu2(x + self.bn2(self.conv2(self.relu1(self.bn1(self.conv1(x))))))


def _conv(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class PhotoNet(nn.Module):
    """Residual network with a global-average-pooling head, so that exact CAM exists.

    Input `(b, 3, h, w)`, h and w ≥ 32 and any size (fully convolutional); the last maps have a
    quarter of the input's side (8×8 for 32×32); output `(b, classes)` logits.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = (32, 64, 128)) -> None:
        super().__init__()
        low, middle, high = widths
        self.stem = _conv(3, low, stride=1)
        self.stage1 = nn.Sequential(_conv(low, middle, stride=2), Block(middle))
        self.stage2 = nn.Sequential(_conv(middle, high, stride=2), Block(high), _conv(high, high, stride=1))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(high, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.stage2(self.stage1(self.stem(x)))).flatten(1))
