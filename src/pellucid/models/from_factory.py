"""`package.module:factory`: the user's own code, imported because the user named it."""

import importlib
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any

from torch import nn

from pellucid.core.errors import ModelError, PellucidError, nearest
from pellucid.models.checkpoints import fit, read_state
from pellucid.models.model import Model
from pellucid.models.untrained import is_random


def load_factory(spec: str, weights: str | Path | None) -> Model:
    """What `factory()` of the named module returns, or the module object of that name.

    The working directory is on `sys.path` while the code is imported and called.

    Args:
        spec: `package.module:factory`; the part after the colon may be dotted (`Nets.build`).
        weights: a file of weights to fill it with; None or `"random"` leaves the network as it was built.

    Raises:
        ModelError: nothing of that name, the import or the call fails, no module comes out, or the weights don't fit.
    """
    place, _, attribute = spec.partition(":")
    with _working_directory_importable():
        found = _built(_attribute(_imported(place), place, attribute), spec)
    model = found if isinstance(found, Model) else Model(found, spec)
    notes = model.notes
    if weights is not None and not is_random(weights):
        state, seen = read_state(Path(weights))
        notes += seen + fit(model.module, state, Path(weights), spec)
    else:
        notes += ("no file of weights was given: these are the weights that the factory left",)
    if any(layer.training for layer in model.module.modules()):
        model.module.eval()
        notes += ("eval() was called on the network",)
    return Model(model.module, spec, model.preprocess, model.labels, notes)


def _imported(place: str) -> ModuleType:
    try:
        return importlib.import_module(place)
    except ModuleNotFoundError as error:
        if error.name and (place == error.name or place.startswith(error.name + ".")):
            raise ModelError(
                f'no module "{place}" can be imported from {Path.cwd()}; for a file net.py here write net:build, '
                "elsewhere set PYTHONPATH to its folder; libraries are torchvision:NAME, timm:NAME and hf:NAME"
            ) from error
        raise ModelError(f'importing "{place}" needs "{error.name}", which is not installed') from error
    except Exception as error:
        raise ModelError(
            f'importing "{place}" failed ({_told(error)}); it must import on its own: python -m {place}'
        ) from error


def _attribute(module: ModuleType, place: str, dotted: str) -> Any:
    found: Any = module
    for name in dotted.split("."):
        try:
            found = getattr(found, name)
        except AttributeError as error:
            public = [known for known in dir(found) if not known.startswith("_")]
            hint = nearest(name, public) or f"; name a function that returns the network: {place}:build"
            raise ModelError(f'"{place}" has no "{dotted}"{hint}') from error
    return found


def _built(found: Any, spec: str) -> nn.Module | Model:
    if isinstance(found, nn.Module | Model):
        return found
    if not callable(found):
        raise ModelError(
            f"{spec} is of type {type(found).__name__}; name a function or class that gives a torch.nn.Module"
        )
    try:
        made = found()
    except PellucidError:
        raise
    except Exception as error:
        raise ModelError(f"{spec}() failed ({_told(error)}); name a function that needs no arguments") from error
    if not isinstance(made, nn.Module | Model):
        raise ModelError(f"{spec}() returned an object of type {type(made).__name__}; it must return a torch.nn.Module")
    return made


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {(str(error).strip().splitlines() or ['no message'])[0]}"


@contextmanager
def _working_directory_importable() -> Iterator[None]:
    folder = str(Path.cwd())
    sys.path.insert(0, folder)
    try:
        yield
    finally:
        if folder in sys.path:
            sys.path.remove(folder)
