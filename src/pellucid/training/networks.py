"""Train the networks that ship, and measure them again: weights, facts and a card out of a recipe."""

import json
from collections.abc import Mapping
from dataclasses import asdict, replace
from importlib.resources import as_file
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from pellucid.core.errors import FileError, SettingError
from pellucid.core.progress import Progress, watching
from pellucid.models.builtin import shipped
from pellucid.models.checkpoints import fit as fit_weights
from pellucid.models.checkpoints import read_state
from pellucid.models.networks import build
from pellucid.models.untrained import seeded
from pellucid.store import whole_folder, write_tensors, write_text
from pellucid.training.cards import card_text
from pellucid.training.examples import classes, painted, to_learn
from pellucid.training.figures import figures, prepare_of
from pellucid.training.fit import fit
from pellucid.training.history import History
from pellucid.training.norms import with_norms, without_norms
from pellucid.training.recipes import RECIPES, Recipe, recipe_of

__all__ = ["RECIPES", "Recipe", "check_place", "measure", "train"]

SUFFIXES = (".safetensors", ".json", ".md")
CHECKPOINT = ".checkpoint"


def train(
    name: str | Recipe,
    *,
    out: str | PathLike[str],
    seed: int | None = None,
    n: int | None = None,
    epochs: int | None = None,
    resume: bool = False,
    overwrite: bool = False,
    workers: int | None = None,
    progress: Progress | bool | None = None,
) -> Path:
    """Train one of the networks that ship: paint the data, fit, measure on the test split, write weights and card.

    While it runs, `OUT/NAME.checkpoint` holds the last whole epoch. The same settings on the same machine, torch and
    number of threads give the same bits.

    Args:
        name: `"scenes"`, `"volumes"`, … or a recipe.
        out: folder for NAME.safetensors, NAME.json (facts and figures) and NAME.md (the card); made if missing.
        seed: of the data, the first weights and the training; the recipe's by default.
        n: pictures to learn from; the recipe's by default. At most so many are used to validate and to test.
        epochs: passes over them; the recipe's by default.
        resume: go on from the checkpoint, where there is one.
        overwrite: replace the files of an earlier training.
        workers: processes that paint; all processors by default.
        progress: where to report; True or None for the screen, False for nowhere.

    Returns:
        The path of the weights.

    Raises:
        SettingError: no such network, or numbers that make no sense.
        FileError: files of an earlier training, or a checkpoint, lie there already; or can't be written.
        Cancelled: stopped through `progress`; the checkpoint is kept.
    """
    recipe = _varied(recipe_of(name), seed, n, epochs)
    folder = Path(out)
    check_place(folder, recipe.name, resume=resume, overwrite=overwrite)
    checkpoint = _made(folder) / f"{recipe.name}{CHECKPOINT}"
    if not resume:
        checkpoint.unlink(missing_ok=True)
    with watching(progress) as bar:
        module, history = _fitted(recipe, checkpoint, resume and checkpoint.exists(), workers, bar)
        facts = _facts(recipe, module, history, figures(module, recipe, bar, workers))
    _write(folder, recipe, module, facts)
    checkpoint.unlink(missing_ok=True)
    return folder / f"{recipe.name}.safetensors"


def check_place(folder: Path, name: str, *, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds files of an earlier training, unless they may be used or replaced.

    Raises:
        FileError: says which file, and what to do.
    """
    if folder.exists() and not folder.is_dir():
        raise FileError(f"{folder} is a file; give the name of a folder")
    found = [place for suffix in SUFFIXES if (place := folder / f"{name}{suffix}").exists()]
    if found and not overwrite:
        raise FileError(f"{found[0]} exists already; choose another folder, or overwrite=True (--overwrite)")
    checkpoint = folder / f"{name}{CHECKPOINT}"
    if checkpoint.exists() and not (resume or overwrite):
        raise FileError(
            f"{checkpoint} was left by a training that was broken off; go on with resume=True (--resume), "
            "or begin again with overwrite=True (--overwrite)"
        )


def measure(
    name: str | Recipe,
    *,
    weights: str | PathLike[str] | None = None,
    workers: int | None = None,
    progress: Progress | bool | None = None,
) -> dict[str, float]:
    """The figures of a network's card, measured again on its test split.

    Args:
        name: as for `train`.
        weights: a NAME.safetensors that `train` wrote, with its NAME.json beside it; those that ship by default.
        workers: processes that paint.
        progress: where to report.

    Raises:
        SettingError: no such network.
        FileError, ModelError: weights or facts are missing, damaged or of another network.
    """
    recipe = recipe_of(name)
    with watching(progress) as bar:
        if weights is not None:
            return _measured(recipe, Path(weights), bar, workers)
        with as_file(shipped() / f"{recipe.name}.safetensors") as path:
            return _measured(recipe, path, bar, workers)


def _measured(recipe: Recipe, weights: Path, bar: Progress, workers: int | None) -> dict[str, float]:
    state, _ = read_state(weights)
    data = _data_facts(weights.with_suffix(".json"))
    recipe = replace(recipe, n_test=data["n_test"], seed=data["seed"])
    module = build(recipe.architecture, len(classes(recipe)))
    fit_weights(module, state, weights, f"builtin:{recipe.name}")
    return figures(module.eval(), recipe, bar, workers)


def _data_facts(path: Path) -> Mapping[str, Any]:
    """Which test pictures belong to some weights."""
    try:
        data = json.loads(path.read_text(encoding="utf-8"))["data"]
        return {"n_test": int(data["n_test"]), "seed": int(data["seed"])}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise FileError(f"{path} does not tell which test pictures to use ({error}); it lies beside weights") from error


def _varied(recipe: Recipe, seed: int | None, n: int | None, epochs: int | None) -> Recipe:
    """The recipe with other numbers, where they were given."""
    for word, value, least in (("seed", seed, 0), ("n", n, 1), ("epochs", epochs, 1)):
        if value is not None and (type(value) is not int or value < least):
            raise SettingError(f"{word} is a whole number of at least {least}, not {value!r}")
    n = recipe.n if n is None else n
    return replace(
        recipe,
        seed=recipe.seed if seed is None else seed,
        n=n,
        n_validation=min(recipe.n_validation, n),
        n_test=min(recipe.n_test, n),
        epochs=recipe.epochs if epochs is None else epochs,
    )


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise FileError(f"can't make the folder {folder}: {error.strerror or error}; try another") from error
    return folder


def _fitted(
    recipe: Recipe, checkpoint: Path, resume: bool, workers: int | None, bar: Progress
) -> tuple[nn.Module, History]:
    """The trained network as it ships."""
    with seeded(recipe.seed):
        module = build(recipe.architecture, len(classes(recipe)))
        module = with_norms(module) if recipe.merged_norms else module

    def examples(n: int, split: str) -> tuple[Tensor, Tensor]:
        things, labels = to_learn(recipe, n, split)
        return painted(things, bar, workers), labels

    history = fit(
        module, *examples(recipe.n, "train"), epochs=recipe.epochs, peak_learning_rate=recipe.peak_learning_rate,
        batch=recipe.batch, seed=recipe.seed, weight_decay=recipe.weight_decay, precision=recipe.precision,
        prepare=prepare_of(recipe), augment=recipe.augment, validation=examples(recipe.n_validation, "validation"),
        checkpoint=checkpoint, resume=resume, progress=bar,
    )  # fmt: skip
    return without_norms(module) if recipe.merged_norms else module, history


def _facts(recipe: Recipe, module: nn.Module, history: History, measured: dict[str, float]) -> dict[str, Any]:
    """What stands in NAME.json."""
    side, pictures = recipe.side, recipe.data == "scenes"
    size = (
        {"input_px": side, "mean": recipe.mean, "std": recipe.std} if pictures else {"input_shape": (1, *(side,) * 3)}
    )
    return {
        "architecture": recipe.architecture,
        "classes": classes(recipe),
        **size,
        "data": {
            "kind": recipe.data, "side": recipe.side, "seed": recipe.seed, "n_train": recipe.n,
            "n_validation": recipe.n_validation, "n_test": recipe.n_test,
        },
        "mislabelled_fraction": recipe.mislabelled_fraction,
        "shortcut": None if recipe.shortcut is None else asdict(recipe.shortcut),
        "parameters": sum(p.numel() for p in module.parameters()),
        "epochs": recipe.epochs,
        "best_epoch": history.best_epoch,
        "batch": recipe.batch,
        "optimizer": "adamw",
        "peak_learning_rate": recipe.peak_learning_rate,
        "weight_decay": recipe.weight_decay,
        "precision": recipe.precision,
        "merged_norms": recipe.merged_norms,
        "augment": asdict(recipe.augment),
        "seed": recipe.seed,
        "torch": torch.__version__,
        "train_seconds": round(history.seconds),
        "test_accuracy": measured["test_accuracy"],
        "figures": measured,
    }  # fmt: skip


def _write(folder: Path, recipe: Recipe, module: nn.Module, facts: dict[str, Any]) -> None:
    """The three files, each whole."""
    name = recipe.name
    with whole_folder(folder, overwrite=True) as place:
        write_tensors(place / f"{name}.safetensors", module.state_dict(), {"network": name})
        write_text(place / f"{name}.json", json.dumps(facts, indent=1) + "\n")
        write_text(place / f"{name}.md", card_text(recipe, facts))
