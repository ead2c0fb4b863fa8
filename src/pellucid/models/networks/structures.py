"""Structures that are awkward to explain: BatchNorm, residual sums before the activation, ReLU6 on depthwise blocks."""

from torch import Tensor, nn


def _normed(inputs: int, outputs: int, kernel: int = 3, stride: int = 1, groups: int = 1) -> list[nn.Module]:
    """A convolution without bias, and BatchNorm."""
    conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, groups=groups, bias=False)
    return [conv, nn.BatchNorm2d(outputs)]


class BatchNormNet(nn.Module):
    """Six times convolution, BatchNorm, ReLU; three of them halve the side by their stride.

    Input `(b, 3, h, w)` of any size; the last maps have an eighth of the side; output `(b, classes)` logits, linear in
    the averaged maps, so exact CAM exists.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = (16, 32, 64, 64, 96, 128)) -> None:
        super().__init__()
        strides = (1, 2, 2, 1, 2, 1)
        blocks = [
            nn.Sequential(*_normed(inputs, outputs, stride=stride), nn.ReLU())
            for inputs, outputs, stride in zip((3, *widths), widths, strides, strict=False)
        ]
        self.features = nn.Sequential(*blocks)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(widths[-1], classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class PreactivationBlock(nn.Module):
    """`s(a) + conv2(relu(bn2(conv1(a))))` with `a = relu(bn1(x))`; s is x itself where the size stays, else 1×1 on a.

    Source: He et al. 2016, "Identity mappings in deep residual networks", arXiv:1603.05027, fig. 4(e).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(inputs)
        self.relu1 = nn.ReLU()
        self.conv1 = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(outputs)
        self.relu2 = nn.ReLU()
        self.conv2 = nn.Conv2d(outputs, outputs, 3, padding=1, bias=False)
        same = stride == 1 and inputs == outputs
        self.shortcut = None if same else nn.Conv2d(inputs, outputs, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        a = self.relu1(self.bn1(x))
        kept = x if self.shortcut is None else self.shortcut(a)
        return kept + self.conv2(self.relu2(self.bn2(self.conv1(a))))


class PreactivationNet(nn.Module):
    """A residual network whose BatchNorm and ReLU stand before the convolutions, and once more before the pooling.

    Input `(b, 3, h, w)` of any size; the last maps have an eighth of the side; output `(b, classes)` logits, linear in
    the averaged maps, so exact CAM exists.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, int, int] = (24, 48, 96)) -> None:
        super().__init__()
        low, middle, high = widths
        self.stem = nn.Conv2d(3, low, 3, stride=2, padding=1, bias=False)
        self.blocks = nn.Sequential(
            PreactivationBlock(low, low),
            PreactivationBlock(low, middle, stride=2),
            PreactivationBlock(middle, high, stride=2),
        )
        self.norm = nn.BatchNorm2d(high)
        self.relu = nn.ReLU()
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(high, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.relu(self.norm(self.blocks(self.stem(x))))).flatten(1))


class InvertedResidual(nn.Module):
    """1×1 up, 3×3 on each channel, 1×1 down, BatchNorm after each and ReLU6 after the first two; plus x where it fits.

    Source: Sandler et al. 2018, "MobileNetV2", arXiv:1801.04381, fig. 4(d).
    """

    def __init__(self, inputs: int, outputs: int, stride: int = 1, expansion: int = 4) -> None:
        super().__init__()
        wide = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.body = nn.Sequential(
            *_normed(inputs, wide, kernel=1), nn.ReLU6(),
            *_normed(wide, wide, stride=stride, groups=wide), nn.ReLU6(),
            *_normed(wide, outputs, kernel=1),
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        return x + self.body(x) if self.residual else self.body(x)


class Relu6Net(nn.Module):
    """Inverted residuals with depthwise convolutions and ReLU6, as in MobileNetV2.

    Input `(b, 3, h, w)` of any size; the last maps have an eighth of the side; output `(b, classes)` logits, linear in
    the averaged maps, so exact CAM exists.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, int, int, int] = (16, 32, 64, 192)) -> None:
        super().__init__()
        low, middle, high, last = widths
        self.stem = nn.Sequential(*_normed(3, low, stride=2), nn.ReLU6())
        self.blocks = nn.Sequential(
            InvertedResidual(low, middle, stride=2, expansion=2),
            InvertedResidual(middle, middle),
            InvertedResidual(middle, middle),
            InvertedResidual(middle, high, stride=2),
            InvertedResidual(high, high),
            InvertedResidual(high, high),
        )
        self.last = nn.Sequential(*_normed(high, last, kernel=1), nn.ReLU6())
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(last, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.last(self.blocks(self.stem(x)))).flatten(1))
