"""Networks without normalisation: convolution, bias, ReLU, max pooling; averaged over the picture, one linear layer."""

from collections.abc import Iterable

from torch import Tensor, nn


def convolution(inputs: int, outputs: int, kernel: int = 3) -> list[nn.Module]:
    """A convolution that keeps the size, with bias, and ReLU."""
    return [nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2), nn.ReLU()]


def start_evenly(modules: Iterable[nn.Module]) -> None:
    """First weights under which signals keep their size from layer to layer without normalisation; biases zero.

    Weights are normal with variance 2 / fan_in before a ReLU, and small in the linear head.

    Source: He et al. 2015, arXiv:1502.01852, eq. 10.
    """
    for module in modules:
        if isinstance(module, nn.Conv2d | nn.Conv3d):
            nn.init.kaiming_normal_(module.weight, nonlinearity="relu")
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
        else:
            continue
        if module.bias is not None:
            nn.init.zeros_(module.bias)


class PlainNet(nn.Module):
    """Six 3×3 convolutions with bias and ReLU, three max poolings; no normalisation anywhere.

    Input `(b, 3, h, w)`, h and w ≥ 8 and any size; the last maps have an eighth of the side (8×8 for 64×64) and see
    62 pixels of it; output `(b, classes)` logits, linear in the averaged maps, so exact CAM exists.
    """

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = (16, 32, 64, 64, 96, 128)) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.features = nn.Sequential(
            *convolution(3, a), nn.MaxPool2d(2),
            *convolution(a, b), nn.MaxPool2d(2),
            *convolution(b, c), *convolution(c, d), nn.MaxPool2d(2),
            *convolution(d, e), *convolution(e, f),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(f, classes)
        start_evenly(self.modules())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))


class BagNet(nn.Module):
    """A bag of local features: each place of the last maps sees 22×22 pixels, and the logits are their average.

    What is decided is a sum of votes of small windows, so the true heat map is known: the logits of each window.
    Input `(b, 3, h, w)`, h and w ≥ 4 and any size; the last maps have a quarter of the side (16×16 for 64×64);
    output `(b, classes)` logits, linear in the averaged maps.

    Source: Brendel and Bethge 2019, "Approximating CNNs with bag-of-local-features", arXiv:1904.00760 (the idea).
    """

    RECEPTIVE_FIELD_PX = 22

    def __init__(self, classes: int = 10, widths: tuple[int, ...] = (24, 48, 48, 96, 128, 128)) -> None:
        super().__init__()
        a, b, c, d, e, f = widths
        self.features = nn.Sequential(
            *convolution(3, a), nn.MaxPool2d(2),
            *convolution(a, b), *convolution(b, c), nn.MaxPool2d(2),
            *convolution(c, d), *convolution(d, e, kernel=1), *convolution(e, f, kernel=1),
        )  # fmt: skip
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.head = nn.Linear(f, classes)
        start_evenly(self.modules())

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.pool(self.features(x)).flatten(1))
