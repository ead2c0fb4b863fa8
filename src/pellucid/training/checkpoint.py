"""A training in progress, and the file it can go on from to the last bit."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Optimizer

from pellucid.core.errors import FileError
from pellucid.store import read_tensors, write_tensors
from pellucid.training.history import History

FORMAT = 1


@dataclass
class Run:
    """Everything that changes from step to step.

    Attributes:
        module: the network, in training.
        optimizer: over its parameters.
        random: draws the order of the pictures and their augmentation.
        history: the epochs that are finished.
        best: the weights to keep, as they stand so far.
    """

    module: nn.Module
    optimizer: Optimizer
    random: Generator
    history: History = field(default_factory=History)
    best: dict[str, Tensor] = field(default_factory=dict)

    def weights(self) -> dict[str, Tensor]:
        """A copy of the parameters and buffers as they are now."""
        return {key: value.detach().clone() for key, value in self._state().items()}

    def put(self, weights: Mapping[str, Tensor]) -> None:
        """Copy such weights into the module, all of them."""
        own = self._state()
        if own.keys() != weights.keys():
            raise KeyError(f"weights {sorted(own.keys() ^ weights.keys())[:3]} are on one side only")
        with torch.no_grad():
            for key, value in own.items():
                _copy(value, weights[key])

    def _state(self) -> dict[str, Tensor]:
        return {key: value for key, value in self.module.state_dict().items() if isinstance(value, Tensor)}


def begin(run: Run, place: Path | None, resume: bool, identity: Mapping[str, Any]) -> None:
    """Start afresh, or from the checkpoint.

    Args:
        run: in its first state; changed to the one in the file when resuming.
        place: the checkpoint; None writes none.
        resume: go on from the file.
        identity: what must be equal for the file to be of this training.

    Raises:
        FileError: the file exists and `resume` is False, or is absent, damaged or of another training.
    """
    run.best = run.weights()
    if resume and place is None:
        raise FileError("resume=True came without a checkpoint; give the path of the file to go on from")
    if place is None:
        return
    if resume:
        _restore(run, place, identity)
        return
    if place.exists():
        raise FileError(f"{place} exists already; pass resume=True to go on from it, or choose another name")
    save(run, place, identity)


def save(run: Run, place: Path, identity: Mapping[str, Any]) -> None:
    """Write the whole state in one step."""
    tensors = {
        "random": run.random.get_state(),
        "torch_random": torch.get_rng_state(),
        **{f"module.{key}": value for key, value in run.weights().items()},
        **{f"best.{key}": value for key, value in run.best.items()},
        **{f"optimizer.{i}.{key}": value for i, state in _memory(run).items() for key, value in state.items()},
    }
    if _device(run).type == "cuda":
        tensors["cuda_random"] = torch.cuda.get_rng_state(_device(run))
    write_tensors(place, tensors, {"checkpoint": FORMAT, **identity, "history": run.history.to_json()})


def checksum(*tensors: Tensor) -> str:
    """A short name of the bytes of some tensors."""
    digest = blake2b(digest_size=16)
    for tensor in tensors:
        digest.update(str((tensor.dtype, tuple(tensor.shape))).encode())
        digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _restore(run: Run, place: Path, identity: Mapping[str, Any]) -> None:
    if not place.is_file():
        raise FileError(f"there is no checkpoint {place} to resume; leave resume out to begin")
    tensors, facts = read_tensors(place)
    _refuse_other(place, facts, identity)
    try:
        run.put(_part(tensors, "best."))
        best = run.weights()
        run.put(_part(tensors, "module."))
        _recall(run, _part(tensors, "optimizer."))
        run.history = History.from_json(facts["history"])
        run.random.set_state(tensors["random"])
        torch.set_rng_state(tensors["torch_random"])
        if "cuda_random" in tensors:
            torch.cuda.set_rng_state(tensors["cuda_random"], _device(run))
        run.best = best
    except (KeyError, IndexError, TypeError, ValueError, RuntimeError) as error:
        raise FileError(f"checkpoint {place} does not fit its own network ({error}); begin again without it") from error


def _refuse_other(place: Path, facts: Mapping[str, Any], identity: Mapping[str, Any]) -> None:
    if facts.get("checkpoint") != FORMAT:
        raise FileError(f"{place} is no checkpoint of a training; give a file that fit(…, checkpoint=…) wrote")
    other = [f"{key} {_short(facts.get(key))} there, {_short(value)} here" for key, value in identity.items()
             if facts.get(key) != value]  # fmt: skip
    if other:
        raise FileError(
            f"{place} is of another training ({'; '.join(other[:3])}); "
            "resume with the same network, data and settings, or choose another checkpoint"
        )


def _short(value: Any) -> str:
    text = str(value)
    return text if len(text) <= 60 else f"{text[:57]}…"


def _memory(run: Run) -> dict[int, dict[str, Tensor]]:
    """What the optimizer remembers of each parameter, by the parameter's number."""
    memory = [run.optimizer.state.get(p, {}) for group in run.optimizer.param_groups for p in group["params"]]
    return {i: {k: v for k, v in kept.items() if isinstance(v, Tensor)} for i, kept in enumerate(memory)}


def _recall(run: Run, tensors: Mapping[str, Tensor]) -> None:
    """Give the optimizer its memory back, in the memory layout of the parameters, on which rounding depends."""
    parameters = [p for group in run.optimizer.param_groups for p in group["params"]]
    for key, value in tensors.items():
        number, _, name = key.partition(".")
        p = parameters[int(number)]
        run.optimizer.state[p][name] = _copy(torch.empty_like(p), value) if value.ndim else value


def _part(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}


def _copy(own: Tensor, other: Tensor) -> Tensor:
    if own.shape != other.shape:
        raise ValueError(f"a tensor of shape {tuple(other.shape)} came for one of {tuple(own.shape)}")
    return own.detach().copy_(other)


def _device(run: Run) -> torch.device:
    return next(run.module.parameters()).device
