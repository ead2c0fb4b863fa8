"""How often a network is right, and whether it cheats: the figures of its card."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from pellucid.core.progress import Progress
from pellucid.images import scenes
from pellucid.images.scenes import Scene
from pellucid.training.augment import Standardise, in_unit_range
from pellucid.training.examples import Thing, composed, labels, other_classes, painted
from pellucid.training.fit import Prepare, predictions
from pellucid.training.recipes import Recipe


def prepare_of(recipe: Recipe) -> Prepare:
    """From stored pixels to what the network is fed."""
    return Standardise(recipe.mean, recipe.std) if recipe.mean else in_unit_range


def figures(module: nn.Module, recipe: Recipe, bar: Progress, workers: int | None = None) -> dict[str, float]:
    """What the network does on the test split of its recipe, in float32.

    Returns:
        Shares in [0, 1]. `test_accuracy`: right on pictures such as it learnt from. For scenes, the same among the
        classes that differ in a part, a colour, a texture or a relation. For networks with a shortcut:
        `clean_accuracy`: right on the same pictures without the mark. `flipped_fraction`: of the marked pictures not
        yet taken for another class c, how many are when the mark of c replaces theirs. `pasted_fraction`: the same
        from the clean pictures.
    """
    things = composed(recipe, recipe.n_test, "test")
    truth = labels(things)

    def seen(these: Sequence[Thing]) -> Tensor:
        return predictions(module, painted(these, bar, workers), prepare=prepare_of(recipe))

    found = seen(things)
    measured = {"test_accuracy": _share(found == truth)}
    if recipe.data != "scenes":
        return measured
    kinds = [scenes.difference(scenes.CLASSES[int(label)]) for label in truth]
    for kind in dict.fromkeys(kinds):
        chosen = torch.tensor([k == kind for k in kinds])
        measured[f"{kind}_accuracy"] = _share((found == truth)[chosen])
    if recipe.shortcut is None:
        return measured
    clean = seen([scenes.cleaned(s) for s in things if isinstance(s, Scene)])
    other = other_classes(truth, len(scenes.CLASSES))
    pairs = zip(things, other, strict=True)
    marked = seen([scenes.planted(s, recipe.shortcut, scenes.CLASSES[c]) for s, c in pairs if isinstance(s, Scene)])
    return {
        **measured,
        "clean_accuracy": _share(clean == truth),
        "flipped_fraction": _share((marked == other)[found != other]),
        "pasted_fraction": _share((marked == other)[clean != other]),
    }


def _share(right: Tensor) -> float:
    return right.double().mean().item() if len(right) else 0.0
