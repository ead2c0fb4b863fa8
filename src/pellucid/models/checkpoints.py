"""Files of weights: read without running what is in them, fitted to a network, or refused in plain words."""

import re
from collections.abc import Mapping
from difflib import get_close_matches
from pathlib import Path
from pickle import UnpicklingError
from zipfile import ZipFile, is_zipfile

import torch
from torch import Tensor, nn
from torch.nn.parameter import is_lazy

from pellucid.core.errors import ModelError
from pellucid.models.archive_safety import refuse_inflated

PICKLED = (".pt", ".pth", ".bin", ".ckpt", ".tar")
NESTS = ("state_dict", "model_state_dict", "model", "net", "network", "module", "params", "weights", "state_dict_ema")
PREFIXES = ("module.", "_orig_mod.", "model.")
FREE = ("num_batches_tracked",)

State = dict[str, Tensor]


def read_state(path: Path) -> tuple[State, tuple[str, ...]]:
    """The tensors of a file of weights, and what was noticed about it.

    Read are `.safetensors`, and `.pt .pth .bin .ckpt .tar` through `torch.load(weights_only=True)`, which builds
    tensors and plain containers and nothing else. A dictionary of dictionaries is opened at its usual names.

    Raises:
        ModelError: absent, broken, of another format, or holding pickled Python objects (never executed).
    """
    if not path.is_file():
        raise ModelError(f"no file {path}; give the path of a .safetensors, .pt or .pth file of weights")
    suffix = path.suffix.lower()
    if suffix == ".safetensors":
        return _read_safetensors(path), ()
    if suffix not in PICKLED:
        raise ModelError(f"{path} is no file of weights; expected .safetensors, {', '.join(PICKLED)}")
    return _unnest(_read_pickled(path), path)


def fit(module: nn.Module, state: Mapping[str, Tensor], file: Path, name: str) -> tuple[str, ...]:
    """Copy the tensors into the module, all of them or none.

    Returns:
        What was done on the way (prefixes taken off, numbers widened).

    Raises:
        ModelError: up to three of the missing, unexpected and differently shaped weights, with shapes and near names.
    """
    own = dict(module.state_dict())
    state, prefix = strip(state, own)
    missing = [key for key in own if key not in state and not key.endswith(FREE)]
    extra = [key for key in state if key not in own and not key.endswith(FREE)]
    other = [key for key in own if key in state and not is_lazy(own[key]) and own[key].shape != state[key].shape]
    if missing or extra or other:
        raise ModelError(_misfit(own, state, (missing, extra, other), file, name))
    module.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)
    notes = (f'"{prefix}" was taken off the names in {file.name}',) if prefix else ()
    kinds = sorted(
        {str(value.dtype).removeprefix("torch.") for key, value in state.items() if _cast(own.get(key), value)}
    )
    return notes + (
        (f"{file.name} holds {', '.join(kinds)} weights, converted to the network's own type",) if kinds else ()
    )


def strip(state: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[State, str]:
    """Take off the prefixes that wrappers add (DataParallel, torch.compile, Lightning) while more names fit without."""
    state, taken = dict(state), ""
    while True:
        fitting = len(state.keys() & own.keys())
        tries = {p: {key.removeprefix(p): value for key, value in state.items()} for p in PREFIXES}
        best = max(PREFIXES, key=lambda p: len(tries[p].keys() & own.keys()))
        if len(tries[best].keys() & own.keys()) <= fitting:
            common = next(
                (p for p in PREFIXES if state and not fitting and all(key.startswith(p) for key in state)), None
            )
            if common is None:
                return state, taken
            best = common
        state, taken = tries[best], taken + best


def class_count(own: Mapping[str, Tensor], state: Mapping[str, Tensor], classes: int) -> int:
    """How many classes the weights are for: the size by which only the last layers differ from `classes`."""
    state, _ = strip(state, own)
    found = {
        state[key].shape[0]
        for key, value in own.items()
        if key in state and value.ndim and state[key].ndim == value.ndim
        if value.shape[0] == classes and state[key].shape[0] != classes and state[key].shape[1:] == value.shape[1:]
    }
    return found.pop() if len(found) == 1 else classes


def _read_safetensors(path: Path) -> State:
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise ModelError(
            f"{path} can't be read as safetensors ({error}); the file may be cut short, copy it again"
        ) from error


def _read_pickled(path: Path) -> object:
    if is_zipfile(path):
        _refuse_archive(path)
    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]+)", str(error))
        if found is None:
            raise ModelError(f"{path} is no file that torch.save wrote, or is damaged; copy it again") from error
        raise ModelError(
            f"{path} holds pickled Python objects ({found[1]}), which are code and are never executed here; "
            f"where you trust the file, save its weights alone: torch.save(net.state_dict(), …)"
        ) from error
    except Exception as error:  # torch.load raises many kinds on a damaged file
        raise ModelError(f"{path} can't be read ({_first_line(error)}); it may be cut short, copy it again") from error


def _refuse_archive(path: Path) -> None:
    refuse_inflated(path)
    with ZipFile(path) as archive:
        if any(name.endswith("/constants.pkl") or "/code/" in name for name in archive.namelist()):
            raise ModelError(
                f"{path} is TorchScript, which is code; save the weights alone: torch.save(net.state_dict(), …)"
            )


def _unnest(found: object, path: Path) -> tuple[State, tuple[str, ...]]:
    notes: tuple[str, ...] = ()
    while isinstance(found, Mapping) and not any(isinstance(value, Tensor) for value in found.values()):
        nest = next((key for key in NESTS if isinstance(found.get(key), Mapping)), None)
        if nest is None:
            break
        found, notes = found[nest], (*notes, f'the weights were taken from "{nest}" in {path.name}')
    tensors = (
        {str(key): value for key, value in found.items() if isinstance(value, Tensor)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise ModelError(f"{path} holds no weights; save them with torch.save(net.state_dict(), …)")
    return tensors, notes


def _cast(own: Tensor | None, value: Tensor) -> bool:
    return own is not None and not is_lazy(own) and own.dtype != value.dtype


def _misfit(
    own: Mapping[str, Tensor], state: State, wrong: tuple[list[str], list[str], list[str]], file: Path, name: str
) -> str:
    missing, extra, other = wrong
    parts = []
    if missing:
        parts.append(f"{len(missing)} missing ({_some(missing, own, extra)})")
    if extra:
        parts.append(f"{len(extra)} unexpected ({_some(extra, state, missing)})")
    if other:
        shown = [f'"{key}" is {_shape(state[key])} in the file, {_shape(own[key])} in the network' for key in other[:3]]
        parts.append(f"{len(other)} of another shape ({', '.join(shown)}{', …' if len(other) > 3 else ''})")
    return (
        f"{file.name} does not fit {name}: {'; '.join(parts)}; "
        "check that the file was saved from this very architecture, with the same number of classes"
    )


def _some(keys: list[str], tensors: Mapping[str, Tensor], others: list[str]) -> str:
    """Up to three names with shapes, and the nearest name on the other side."""
    shown = []
    for key in keys[:3]:
        near = get_close_matches(key, others, 1, cutoff=0.6)
        shown.append(f'"{key}" {_shape(tensors[key])}' + (f', near "{near[0]}"' if near else ""))
    return ", ".join(shown) + (", …" if len(keys) > 3 else "")


def _shape(tensor: Tensor) -> str:
    return "of any size" if is_lazy(tensor) else "×".join(map(str, tensor.shape)) or "a single number"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
