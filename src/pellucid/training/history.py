"""What a training did, epoch by epoch."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Epoch:
    """One pass over the training data.

    Attributes:
        loss: mean over the pass, in nats, label smoothing included.
        train_accuracy: share right during the pass, on augmented data, while the weights still changed.
        accuracy: share right on the validation data after the pass; None where there are none.
        seconds: how long it took, validation included.
    """

    loss: float
    train_accuracy: float
    accuracy: float | None
    seconds: float


@dataclass(frozen=True)
class History:
    """A finished training.

    Attributes:
        epochs: one record a pass, in order.
        best_epoch: number, from 1, of the pass whose weights were kept; 0 where none improved on the start.
        stopped_early: whether the validation accuracy had not risen for `patience` epochs.
    """

    epochs: tuple[Epoch, ...] = ()
    best_epoch: int = 0
    stopped_early: bool = False

    @property
    def best(self) -> Epoch | None:
        """The pass whose weights were kept."""
        return self.epochs[self.best_epoch - 1] if self.best_epoch else None

    @property
    def seconds(self) -> float:
        """How long all passes took, pauses between resumed runs left out."""
        return sum(epoch.seconds for epoch in self.epochs)

    def with_epoch(self, epoch: Epoch, patience: int | None) -> "History":
        """This history and one more pass; of equally good passes the later one is kept.

        Args:
            epoch: the pass.
            patience: epochs without a rise of the best validation accuracy after which training stops.
        """
        before = self.best.accuracy if self.best else None
        epochs = (*self.epochs, epoch)
        kept = before is None or epoch.accuracy is None or epoch.accuracy >= before
        return History(epochs, len(epochs) if kept else self.best_epoch, _stale(epochs, patience))

    def to_json(self) -> dict[str, Any]:
        """Plain values for a file."""
        return asdict(self)

    @classmethod
    def from_json(cls, facts: Mapping[str, Any]) -> "History":
        """What `to_json` wrote.

        Raises:
            KeyError, TypeError: other facts came.
        """
        epochs = tuple(Epoch(**epoch) for epoch in facts["epochs"])
        return cls(epochs, facts["best_epoch"], facts["stopped_early"])


def _stale(epochs: tuple[Epoch, ...], patience: int | None) -> bool:
    """Whether the highest validation accuracy was first reached `patience` or more epochs ago."""
    reached = [epoch.accuracy for epoch in epochs if epoch.accuracy is not None]
    return patience is not None and bool(reached) and len(reached) - 1 - reached.index(max(reached)) >= patience
