"""A plain training loop for classifiers: seeded, resumable to the last bit, careful with the user's files and state."""

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from hashlib import blake2b
from math import isfinite
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from jaxtyping import Int
from torch import Generator, Tensor, nn
from torch.nn import functional as F

from pellucid.core.errors import ModelError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.training.augment import in_unit_range
from pellucid.training.checkpoint import Run, begin, checksum, save
from pellucid.training.history import Epoch, History
from pellucid.training.settings import Settings, check_data, described

Prepare = Callable[[Tensor], Tensor]
Augment = Callable[[Tensor, Generator], Tensor]

LAYOUTS = {4: torch.channels_last, 5: torch.channels_last_3d}  # by number of axes; twice as fast on a CPU


@dataclass(frozen=True)
class _Data:
    """Inputs and labels, and how a batch of them is made ready."""

    x: Tensor
    y: Tensor
    prepare: Prepare
    augment: Augment | None
    validation: tuple[Tensor, Tensor] | None


def fit(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    epochs: int,
    peak_learning_rate: float,
    batch: int = 128,
    seed: int = 0,
    optimizer: str = "adamw",
    weight_decay: float = 0.01,
    label_smoothing: float = 0.0,
    clip_norm: float | None = None,
    precision: str = "float32",
    prepare: Prepare = in_unit_range,
    augment: Augment | None = None,
    validation: tuple[Tensor, Tensor] | None = None,
    patience: int | None = None,
    checkpoint: str | PathLike[str] | None = None,
    resume: bool = False,
    progress: Progress | bool | None = None,
) -> History:
    """Train a classifier by stochastic gradient descent on cross-entropy; the best weights are left in it.

    The learning rate runs through one cycle. Each epoch shuffles the data and leaves out the last, incomplete batch.
    The same arguments on the same machine and threads give the same bits, interrupted and resumed or not. The module
    comes back in evaluation mode; after an error or a stop it holds the best weights so far. torch's own random state
    is left as it was.

    Args:
        module: takes a prepared batch, gives logits `(b, classes)`; parameters with `requires_grad` are trained.
        x: pictures or volumes `(n, c, …)`, uint8 in [0, 255] or floats.
        y: class numbers `(n,)`.
        epochs: passes over the data.
        peak_learning_rate: highest learning rate of the cycle, reached after a quarter of the steps.
        batch: pictures a step.
        seed: of the order, the augmentation and dropout; the first weights are the module's own.
        optimizer: `"sgd"` (Nesterov momentum 0.9) or `"adamw"`.
        weight_decay: in the sense of that optimizer.
        label_smoothing: share of the target spread over all classes.
        clip_norm: gradients with a larger norm are scaled down to it; None lets them be.
        precision: of the forward pass; `"bfloat16"` runs it under autocast, up to twice as fast.
        prepare: from a batch of x, or of what `augment` gives, to the network's input.
        augment: changes a batch of x, with random numbers of the generator it is given.
        validation: pictures and labels that are predicted after each epoch; the weights of the epoch that was most
            often right are kept (of equals the latest), those of the last epoch without.
        patience: stop when the validation accuracy has not risen for so many epochs.
        checkpoint: file that is written at the start and after each epoch (safetensors and JSON, no code).
        resume: go on from the checkpoint; an epoch that was broken off begins again.
        progress: where to report; True or None for the screen, False for nowhere.

    Returns:
        Loss, accuracy and seconds of each epoch, and which one was kept.

    Raises:
        SettingError: data or settings that can't be used, or a loss or weights that are no longer finite.
        ModelError: the module does not take the data, or gives no logits.
        FileError: the checkpoint exists already, can't be written, or is of another training.
        Cancelled: stopped through `progress`; the checkpoint of the last whole epoch is kept.

    Source: one cycle, Smith and Topin 2018, arXiv:1708.07120; AdamW, Loshchilov and Hutter 2019, arXiv:1711.05101.
    """
    settings = Settings(
        epochs,
        batch,
        peak_learning_rate,
        seed,
        optimizer,
        weight_decay,
        label_smoothing,
        clip_norm,
        precision,
        patience,
    )
    data = _Data(x, y, prepare, augment, validation)
    _check(module, data, settings)
    place = Path(checkpoint) if checkpoint is not None else None
    with torch.random.fork_rng(), _laid_out(module, x.ndim), watching(progress) as bar:
        torch.manual_seed(seed)
        run = Run(module, settings.made_optimizer(module), Generator().manual_seed(seed))
        identity = _identity(module, data, settings) if place else {}
        try:
            begin(run, place, resume, identity)
            _train(run, data, settings, place, identity, bar)
        finally:
            run.put(run.best)
            run.optimizer.zero_grad()
            module.eval()
    return run.history


def predictions(
    module: nn.Module,
    x: Tensor,
    *,
    prepare: Prepare = in_unit_range,
    batch: int = 500,
    precision: str = "float32",
) -> Int[Tensor, " n"]:
    """The class with the highest score for each input, in evaluation mode; the module's own modes come back.

    Args:
        module: gives scores `(b, classes)`.
        x: `(n, c, …)`.
        prepare: as in `fit`.
        batch: inputs at a time.
        precision: of the forward pass.
    """
    with _evaluating(module):
        return torch.cat([_scores(module, prepare(part), precision).argmax(1).cpu() for part in x.split(batch)])


def accuracy(
    module: nn.Module,
    x: Tensor,
    y: Tensor,
    *,
    prepare: Prepare = in_unit_range,
    batch: int = 500,
    precision: str = "float32",
) -> float:
    """Share of inputs whose highest score is that of their label, in [0, 1]; arguments as in `predictions`.

    Raises:
        SettingError: no inputs, or not one label for each.
    """
    check_data("accuracy", x, y)
    found = predictions(module, x, prepare=prepare, batch=batch, precision=precision)
    return (found == y.cpu()).double().mean().item()


def _train(
    run: Run, data: _Data, settings: Settings, place: Path | None, identity: Mapping[str, Any], bar: Progress
) -> None:
    """The epochs that are still to come."""
    steps, done = max(1, len(data.x) // settings.batch), len(run.history.epochs)
    bar.expect((settings.epochs - done) * steps)
    for number in range(done, settings.epochs):
        if run.history.stopped_early:
            break
        epoch = _epoch(run, data, settings, number, bar)
        run.history = run.history.with_epoch(epoch, settings.patience)
        if run.history.best_epoch == number + 1:
            run.best = run.weights()
        if place is not None:
            save(run, place, identity)


def _epoch(run: Run, data: _Data, settings: Settings, number: int, bar: Progress) -> Epoch:
    """One pass: shuffle, step through the batches, look at the validation data."""
    began, batch = time.perf_counter(), min(settings.batch, len(data.x))
    order = torch.randperm(len(data.x), generator=run.random)[: len(data.x) // batch * batch].split(batch)
    losses, right = [], 0
    run.module.train()
    for step, rows in enumerate(order):
        for group in run.optimizer.param_groups:
            group["lr"] = settings.learning_rate(number * len(order) + step, settings.epochs * len(order))
        loss, hits = _step(run, data, settings, rows)
        if not isfinite(loss):
            raise SettingError(_diverged(f"the loss is {loss} at step {step + 1} of epoch {number + 1}"))
        losses.append(loss)
        right += hits
        bar.advance(1, f"epoch {number + 1}/{settings.epochs}, loss {loss:.3f}")
    if not all(bool(torch.isfinite(p).all()) for p in run.module.parameters()):
        raise SettingError(_diverged(f"some weights are not finite after epoch {number + 1}"))
    seen = _seen(run.module, data, settings)
    return Epoch(sum(losses) / len(losses), right / (len(order) * batch), seen, time.perf_counter() - began)


def _seen(module: nn.Module, data: _Data, settings: Settings) -> float | None:
    """Accuracy on the validation data, where there are any."""
    if data.validation is None:
        return None
    return accuracy(module, *data.validation, prepare=data.prepare, precision=settings.precision)


def _step(run: Run, data: _Data, settings: Settings, rows: Tensor) -> tuple[float, int]:
    """One step down the gradient; the loss before it, and how many pictures of the batch were right."""
    x = data.x[rows.to(data.x.device)]
    x = data.prepare(x if data.augment is None else data.augment(x, run.random))
    scores = _scores(run.module, x, settings.precision).float()
    y = data.y[rows.to(data.y.device)].to(scores.device)
    loss = F.cross_entropy(scores, y, label_smoothing=settings.label_smoothing)
    run.optimizer.zero_grad()
    loss.backward()
    if settings.clip_norm is not None:
        nn.utils.clip_grad_norm_(run.module.parameters(), settings.clip_norm)
    run.optimizer.step()
    return loss.item(), int((scores.argmax(1) == y).sum())


def _scores(module: nn.Module, x: Tensor, precision: str) -> Tensor:
    """The network's output for a prepared batch, on its own device and in the layout that is fastest."""
    like = next(module.parameters(), x)
    x = x.to(like.device, like.dtype).contiguous(memory_format=LAYOUTS.get(x.ndim, torch.contiguous_format))
    with torch.autocast(like.device.type, torch.bfloat16, enabled=precision == "bfloat16"):
        return module(x)


def _check(module: nn.Module, data: _Data, settings: Settings) -> None:
    """Refuse data that the network can't learn from, by trying two inputs."""
    check_data("training data", data.x, data.y)
    if settings.patience is not None and data.validation is None:
        raise SettingError("patience came without validation data; give validation=(x, y), or leave patience out")
    classes = _classes(module, data)
    check_data("training data", data.x, data.y, classes)
    if data.validation is not None:
        check_data("validation data", *data.validation, classes)


def _classes(module: nn.Module, data: _Data) -> int:
    """How many logits the network gives."""
    x = data.prepare(data.x[:2])
    try:
        with _evaluating(module):
            scores = _scores(module, x, "float32")
    except (RuntimeError, ValueError) as error:
        why = str(error).partition("\n")[0]
        raise ModelError(
            f"{type(module).__name__} does not take a batch of shape {tuple(x.shape)} ({why}); "
            "check the number of channels and the size"
        ) from error
    if not isinstance(scores, Tensor) or scores.ndim != 2 or len(scores) != len(x):
        came = f"shape {tuple(scores.shape)}" if isinstance(scores, Tensor) else f"type {type(scores).__name__}"
        raise ModelError(f"{type(module).__name__} gives {came} for {len(x)} inputs; expected logits (batch, classes)")
    return scores.shape[1]


def _identity(module: nn.Module, data: _Data, settings: Settings) -> dict[str, Any]:
    """What must be equal for a checkpoint to be of this training, as JSON gives it back."""
    shapes = str([(key, tuple(value.shape)) for key, value in module.state_dict().items() if isinstance(value, Tensor)])
    return {
        **asdict(settings),
        "network": type(module).__name__,
        "weights": blake2b(shapes.encode(), digest_size=8).hexdigest(),
        "prepare": described(data.prepare),
        "augment": described(data.augment),
        "inputs": list(data.x.shape),
        "data": checksum(data.x, data.y, *(data.validation or ())),
    }


@contextmanager
def _evaluating(module: nn.Module) -> Iterator[None]:
    """Evaluation mode, no gradients; every mode as it was afterwards."""
    modes = [(m, m.training) for m in module.modules()]
    module.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        for m, training in modes:
            m.training = training


@contextmanager
def _laid_out(module: nn.Module, axes: int) -> Iterator[None]:
    """The kernels of convolutions in the layout that is fastest for inputs of so many axes, and back."""
    layout = LAYOUTS.get(axes)
    tensors = [p for p in module.parameters() if layout and p.ndim == axes and p.is_contiguous()]
    for p in tensors:
        p.data = p.data.contiguous(memory_format=layout or torch.contiguous_format)
    try:
        yield
    finally:
        for p in tensors:
            p.data = p.data.contiguous()


def _diverged(what: str) -> str:
    return f"training diverged: {what}; the weights of the last whole epoch are kept, try a lower peak_learning_rate"
