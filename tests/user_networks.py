"""Networks as users bring them to the command line: `user_networks:NAME`; seeded, left in training mode as built."""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

CHANNELS = 8


class Signal(nn.Module):
    """A 1-D signal of two channels, three classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv1d(2, CHANNELS, 5, padding=2), nn.Conv1d(CHANNELS, CHANNELS, 5, stride=2)
        self.head = nn.Linear(CHANNELS, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))).mean(2))


class Volume(nn.Module):
    """A 3-D volume, two classes."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Conv3d(1, 4, 3, padding=1), nn.Conv3d(4, CHANNELS, 3, stride=2, padding=1)
        self.head = nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.second(F.relu(self.first(x)))).mean((2, 3, 4)))


class Segmentation(nn.Module):
    """A score for each of four classes at every pixel."""

    def __init__(self) -> None:
        super().__init__()
        self.down, self.middle = (
            nn.Conv2d(3, CHANNELS, 3, stride=2, padding=1),
            nn.Conv2d(CHANNELS, CHANNELS, 3, padding=1),
        )
        self.up = nn.ConvTranspose2d(CHANNELS, 4, 2, stride=2)

    def forward(self, x: Tensor) -> Tensor:
        return self.up(F.relu(self.middle(F.relu(self.down(x)))))


class Plain(nn.Module):
    """One convolution, average, linear head; the others below change its end."""

    def __init__(self, classes: int = 5) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, CHANNELS, 3, padding=1), nn.Linear(CHANNELS, classes)
        self.dropout = nn.Dropout()

    def features(self, x: Tensor) -> Tensor:
        return F.relu(self.body(x)).mean((2, 3))

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dropout(self.features(x)))


class TwoHeads(Plain):
    def __init__(self) -> None:
        super().__init__(4)
        self.grade = nn.Linear(CHANNELS, 2)

    def forward(self, x: Tensor) -> dict[str, Tensor]:
        found = self.features(x)
        return {"kind": self.head(found), "grade": self.grade(found)}


class EndsInSoftmax(Plain):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).softmax(1)


class FixedSize(nn.Module):
    """Takes 32x32 pixels only."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.head = nn.Conv2d(3, 4, 3, padding=1), nn.Linear(4 * 32 * 32, 5)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(F.relu(self.body(x)).flatten(1))


class Tokens(nn.Module):
    """Patches, a class token and one transformer block."""

    def __init__(self) -> None:
        super().__init__()
        self.patch, self.token = nn.Conv2d(3, 16, 8, stride=8), nn.Parameter(torch.zeros(1, 1, 16))
        self.block = nn.TransformerEncoderLayer(16, 2, 32, batch_first=True, norm_first=True)
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patch(x).flatten(2).transpose(1, 2)
        return self.head(self.block(torch.cat([self.token.expand(len(tokens), -1, -1), tokens], 1))[:, 0])


class Slow(Plain):
    """Long enough to be interrupted."""

    def forward(self, x: Tensor) -> Tensor:
        import time

        time.sleep(0.2)
        return super().forward(x)


def _made(make: Callable[[], nn.Module]) -> Callable[[], nn.Module]:
    def build() -> nn.Module:
        state = torch.get_rng_state()
        torch.manual_seed(0)
        network = make()
        torch.set_rng_state(state)
        return network

    return build


signal, volume, segmentation, plain = _made(Signal), _made(Volume), _made(Segmentation), _made(Plain)
two_heads, softmax, fixed, tokens, slow = map(_made, (TwoHeads, EndsInSoftmax, FixedSize, Tokens, Slow))
one = _made(lambda: Plain(1))
half = _made(lambda: Plain().double())
