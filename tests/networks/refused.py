"""Networks that must be refused with a clear error: any map of them would be wrong or chance."""

import threading

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .common import IMAGE, Factory, Shapes, Trunk, seeded


class NumpyRoundTrip(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        return torch.from_numpy(x.detach().numpy().clip(0, None))


class NumpyBranch(Trunk):
    """One of two ways leaves torch: the output still hangs on the input, but a part of it is missing."""

    def middle(self, x: Tensor) -> Tensor:
        return x + torch.from_numpy(x.detach().numpy().clip(0, None))


class ListRoundTrip(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        return torch.tensor(x.tolist(), dtype=x.dtype)


class OtherThread(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        found: list[Tensor] = []
        thread = threading.Thread(target=lambda: found.append(F.relu(self.conv2(x))))
        thread.start()
        thread.join()
        return found[0]


class OtherThreadBranch(OtherThread):
    """As `NumpyBranch`: the rest of the network is seen."""

    def middle(self, x: Tensor) -> Tensor:
        return x + super().middle(x)


class DropoutNet(Trunk):
    def __init__(self) -> None:
        super().__init__()
        self.drop = nn.Dropout(0.5)

    def middle(self, x: Tensor) -> Tensor:
        return self.drop(F.relu(x))


class FunctionalDropout(Trunk):
    """`F.dropout` without `training=`: always on, also in evaluation. A common slip."""

    def middle(self, x: Tensor) -> Tensor:
        return F.dropout(F.relu(x), 0.5)


class Noise(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        return F.relu(x + 0.1 * torch.randn_like(x))


class NoRunningStats(Trunk):
    """BatchNorm that uses the batch's statistics even in evaluation."""

    def __init__(self) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(8, track_running_stats=False)


class Fourier(Trunk):
    def middle(self, x: Tensor) -> Tensor:
        spectrum = torch.fft.rfft2(x)
        return torch.fft.irfft2(spectrum * 0.5, s=x.shape[2:])


class Constant(Trunk):
    """The output has the batch's size and nothing else of the input."""

    def forward(self, x: Tensor) -> Tensor:
        return self.head.bias.expand(x.shape[0], -1) * 2


class Decision(Trunk):
    """Gives the class, not its score: integers."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).argmax(1, keepdim=True)


class NoTensor(Trunk):
    """Gives Python numbers."""

    def forward(self, x: Tensor) -> list[float]:  # type: ignore[override]
        return super().forward(x)[:, 0].tolist()


def _training(make: Factory) -> Factory:
    return lambda: make().train()


def _one_part_in_training() -> nn.Module:
    """The model says `eval`, one BatchNorm inside it does not."""
    model = seeded(Trunk)()
    model.bn1.train()  # type: ignore[union-attr]
    return model


REFUSED: dict[str, tuple[Factory, Shapes, str]] = {
    "numpy_round_trip": (seeded(NumpyRoundTrip), IMAGE, "leaves torch in the middle"),
    "numpy_branch": (seeded(NumpyBranch), IMAGE, "one branch leaves torch: its part of the map would be missing"),
    "list_round_trip": (seeded(ListRoundTrip), IMAGE, "leaves torch in the middle"),
    "other_thread": (seeded(OtherThread), IMAGE, "operations in another thread are not recorded"),
    "other_thread_branch": (seeded(OtherThreadBranch), IMAGE, "one branch runs in another thread"),
    "train_dropout": (_training(seeded(DropoutNet)), IMAGE, "dropout in training mode"),
    "functional_dropout": (seeded(FunctionalDropout), IMAGE, "dropout that is always on"),
    "noise": (seeded(Noise), IMAGE, "random numbers in the forward"),
    "train_batch_norm": (_training(seeded(Trunk)), IMAGE, "BatchNorm in training mode"),
    "train_one_part": (_one_part_in_training, IMAGE, "one BatchNorm in training mode"),
    "batch_statistics": (seeded(NoRunningStats), IMAGE, "BatchNorm without running statistics"),
    "complex": (seeded(Fourier), IMAGE, "complex numbers"),
    "constant": (seeded(Constant), IMAGE, "the output does not depend on the input"),
    "decision": (seeded(Decision), IMAGE, "the output is an integer"),
    "no_tensor": (seeded(NoTensor), IMAGE, "the output is no tensor"),
}
