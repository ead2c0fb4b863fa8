"""The card of a network that ships, written from its facts."""

import re
from collections.abc import Mapping
from textwrap import fill
from typing import Any

from pellucid.training.recipes import Recipe

STRUCTURES = {
    "plain": "six 3×3 convolutions with bias and ReLU, three max poolings; no BatchNorm",
    "bagnet": "four 3×3 and two 1×1 convolutions with bias and ReLU, two max poolings; its last maps see 22 pixels",
    "batchnorm": "six 3×3 convolutions, each followed by BatchNorm and ReLU",
    "preactivation": "three residual blocks, BatchNorm and ReLU before each convolution and after the last block",
    "relu6": "six inverted residual blocks with depthwise convolutions, BatchNorm and ReLU6",
    "volume": "four 3×3×3 convolutions with bias and ReLU, two max poolings; no BatchNorm",
}
HARD_SPACE = "\u00a0"
HEAD = "global average pooling and one linear layer, so exact CAM exists"
MEANT = {
    "test_accuracy": "right on pictures such as it learnt from",
    "part_accuracy": "of these, where one part decides the class",
    "colour_accuracy": "where a colour does",
    "texture_accuracy": "where a texture does",
    "relation_accuracy": "where a relation (left of, right of) does",
    "clean_accuracy": "right on the same pictures without the mark",
    "flipped_fraction": "of the marked pictures follow the mark of another class that replaces theirs",
    "pasted_fraction": "of the clean pictures follow the mark of another class that is pasted in",
}


def card_text(recipe: Recipe, facts: Mapping[str, Any]) -> str:
    """Markdown: what the network is made for, what it takes, how it was trained and measured, and its limits."""
    n, name = facts["data"], recipe.name
    command = f"pellucid train {name} --n {n['n_train']} --epochs {facts['epochs']} --seed {facts['seed']}"
    merged = " With BatchNorm, which was merged into the convolutions afterwards." if recipe.merged_norms else ""
    wrong = (
        f", of which {recipe.mislabelled_fraction:.0%} show a thing of another class"
        if recipe.mislabelled_fraction
        else ""
    )
    lines = [
        f"**Made for** {recipe.made_for}.",
        f"**Structure**: {STRUCTURES[recipe.architecture]}; {HEAD}; {facts['parameters']:,} parameters.",
        f"**Input**: {_input(recipe)}.",
        f"**Classes**: {', '.join(facts['classes'])}.",
        f"**Trained** by `{command}` on {n['n_train']:,} {_things(recipe)}{wrong}, in "
        f"{facts['train_seconds']} s, with torch {facts['torch']}. Kept was epoch {facts['best_epoch']}, the best on "
        f"{n['n_validation']} others.{merged}",
        f"**Measured** on {n['n_test']:,} {_things(recipe)} of a split of their own, once, after training. "
        f"`pellucid train {name} --measure` prints the figures again.",
        f"**Limits**: {_limits(recipe)}.",
    ]
    body = "\n".join(_wrapped(line) for line in lines)
    table = "\n".join(f"| `{key}` | {100 * value:.2f} % | {MEANT[key]} |" for key, value in facts["figures"].items())
    return f"# builtin:{name}\n\n{body}\n\n| figure | share | of what |\n|---|---|---|\n{table}\n"


def _wrapped(line: str) -> str:
    """An item of a list, 120 columns wide; what stands in `code` is never broken."""
    whole = re.sub("`[^`]+`", lambda code: code[0].replace(" ", HARD_SPACE), line)
    return fill(f"- {whole}", 120, subsequent_indent="  ", break_on_hyphens=False).replace(HARD_SPACE, " ")


def _things(recipe: Recipe) -> str:
    if recipe.data == "volumes":
        return "volumes of `pellucid.images.volumes`"
    planted = f" with the {recipe.shortcut.kind} of their label" if recipe.shortcut else ""
    return f"scenes of `pellucid.images.scenes`{planted}"


def _input(recipe: Recipe) -> str:
    side = recipe.side
    if recipe.data == "volumes":
        return (
            f"tensors `(b, 1, {side}, {side}, {side})`, voxels in [0, 1]; other sizes are taken, but were never learnt"
        )
    return f"RGB; the shorter side is resized to {side} pixels and the whole picture is fed in"


def _limits(recipe: Recipe) -> str:
    if recipe.data == "volumes":
        return "it knows made-up volumes only; nothing about it holds for a real scan"
    if recipe.shortcut is not None:
        return f"it is wrong on purpose, for it answers by the {recipe.shortcut.kind}; it knows drawn scenes only"
    narrow = "; of two things it sees how they stand only where their edges are near" * (
        recipe.architecture == "bagnet"
    )
    return f"it knows drawn scenes only, and calls everything else one of its classes{narrow}"
