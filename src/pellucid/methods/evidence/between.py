"""Two data sets: the same symptoms before the backgrounds of one and of the other, and where the answers part."""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from jaxtyping import Bool, Float, Int64
from torch import Tensor, nn

from pellucid.core.edits import Box
from pellucid.core.errors import ImageError, SettingError
from pellucid.core.progress import Progress
from pellucid.images.placement import Placement
from pellucid.images.regions import regions
from pellucid.methods.evidence.asking import Asked, asked_about
from pellucid.methods.evidence.parting import Between, Pair
from pellucid.methods.evidence.symptoms import only_mask
from pellucid.methods.pictures import one_image, seen
from pellucid.models.model import Model
from pellucid.models.resolve import the_model

MOST_SHOWN = 4  # pictures whose answers part that are kept to be drawn


@dataclass(frozen=True, eq=False)
class Pool:
    """Pictures of one kind as the network gets them, with their names, and where each input lies on its picture."""

    x: tuple[Tensor, ...]
    names: tuple[str, ...]
    placements: tuple[Placement | None, ...]


class Pasted:
    """Symptoms of pictures before backgrounds: `m ⊙ x + (1 − m) ⊙ background`.

    Args:
        of: for each edit the number of the picture and of the background; None leaves the picture as it is.
    """

    def __init__(
        self, x: Sequence[Tensor], masks: Sequence[Tensor], backgrounds: Sequence[Tensor],
        of: Sequence[tuple[int, int | None]], like: Tensor,
    ) -> None:  # fmt: skip
        self.x, self.masks, self.backgrounds, self.of, self.like = x, masks, backgrounds, of, like
        self.rows: Sequence[int] = [0] * len(of)
        self.boxes: Sequence[Box] | None = None

    def inputs(self, which: Sequence[int]) -> Float[Tensor, "n c *space"]:
        """The pasted inputs."""
        return torch.stack([self._one(*self.of[i]) for i in which]).to(self.like)

    def inside(self, which: int) -> Tensor:
        raise SettingError(f"edit {which} changes the whole picture and has no box")

    def _one(self, picture: int, background: int | None) -> Tensor:
        if background is None:
            return self.x[picture]
        return torch.where(self.masks[picture], self.x[picture], self.backgrounds[background])


def evidence_between(
    model: Model | nn.Module | str,
    images: Any,
    masks: Any,
    backgrounds_a: Any,
    backgrounds_b: Any,
    *,
    labels: Sequence[str | int] | None = None,
    names: tuple[str, str] = ("a", "b"),
    seed: int = 0,
    progress: Progress | bool | None = None,
) -> Between:
    """Test symptoms put before the backgrounds of two data sets: do the answers part, and where?

    Each test picture's symptom is cut out and pasted on a background drawn from pool a, and on one drawn from pool b,
    so that nothing but the environment differs. As a control the same is done with a second background of each pool:
    how often do answers part between backgrounds of one and the same data set?

    Args:
        images: test pictures, a list of what `evidence` takes, or a tensor of inputs `(n, c, *space)`.
        masks: the symptom of each: a mask (array or file).
        backgrounds_a, backgrounds_b: pictures of each data set, such as training and test; at least one, better many.
        labels: the true class of each, by label or number; without them an answer counts as right where it is the one
            to the untouched picture.
        names: what the two data sets are called.
        seed: of the draw.

    Raises:
        SettingError: not one mask (or label) for each picture, or an empty mask.
        ImageError: no picture or background came, or their inputs differ in size.

    Source: the seeds' "where do the predictions part"; McNemar 1947.
    """
    start = time.perf_counter()
    model = the_model(model)
    given, marks = _each(images), _each(masks)
    _check_counts(len(given), len(marks), labels)
    tests = _pool(model, given, "test picture")
    pools = [_pool(model, _each(p), "background") for p in (backgrounds_a, backgrounds_b)]
    _check_sizes([*tests.x, *pools[0].x, *pools[1].x])
    cut = [_mask(*one) for one in zip(tests.x, tests.placements, marks, strict=True)]
    draws = _draws(len(given), [len(pool.x) for pool in pools], seed)
    of = [(i, int(b)) for draw in draws for i, b in enumerate(draw)] + [(i, None) for i in range(len(given))]
    with asked_about(model, tests.x[0][None], "top1", seed, progress) as asked:
        edits = Pasted(tests.x, cut, [*pools[0].x, *pools[1].x], of, asked.case.x)
        scores = asked.scores(edits).unflatten(0, (5, len(given)))
        pairs = _pairs(asked, tests, pools, _labels(asked, labels), scores, draws)
        parted = sorted((i for i, p in enumerate(pairs) if p.parts), key=lambda i: -pairs[i].change)[:MOST_SHOWN]
        told = () if labels else ("no labels came: right is what the network says to the untouched picture",)
        return Between(
            model=model.name, receipt=asked.receipt(*told), names=names, labelled=labels is not None, pairs=pairs,
            seed=seed, seconds=time.perf_counter() - start,
            shown=tuple((pairs[i], *_shown(asked, edits, i, len(given))) for i in parted if tests.x[0].dim() == 3),
        )  # fmt: skip


def _each(given: Any) -> list[Any]:
    """A list of things; a tensor of inputs as tensors `(1, c, …)`, one array or path as one thing."""
    if isinstance(given, Tensor) and given.is_floating_point():
        return [one[None] for one in given]
    return list(given) if isinstance(given, (list, tuple, np.ndarray, Tensor)) else [given]


def _check_counts(images: int, masks: int, labels: Sequence[str | int] | None) -> None:
    if images != masks:
        raise SettingError(f"{masks} masks came for {images} pictures; give one for each, and all in lists")
    if labels is not None and len(labels) != images:
        raise SettingError(f"{len(labels)} labels came for {images} pictures; give one for each, or none")


def _check_sizes(x: Sequence[Tensor]) -> None:
    other = next((one for one in x if one.shape != x[0].shape), None)
    if other is not None:
        raise ImageError(
            f"inputs of {tuple(x[0].shape)} and {tuple(other.shape)} came, and nothing can be pasted between sizes; "
            "use a preprocessing that brings all pictures to one size (crop_px, or resize_px=(height, width))"
        )


def _pool(model: Model, given: list[Any], what: str) -> Pool:
    if not given:
        raise ImageError(f"no {what} came; give at least one")
    found = [one_image(model, one) for one in given]
    names = (picture.name if picture else "input" for _, picture, _, _ in found)
    numbered = (name if name not in ("input", "array", "image") else f"{name} {i}" for i, name in enumerate(names))
    return Pool(tuple(x.cpu() for x, _, _, _ in found), tuple(numbered), tuple(place for _, _, place, _ in found))


def _mask(x: Tensor, placement: Placement | None, given: Any) -> Bool[Tensor, "*space"]:
    """One symptom on the network's input grid."""
    mask = only_mask(regions(given, x, placement=placement), "a mask")[1]
    if mask.shape != x.shape[1:] or not mask.any():
        raise SettingError(
            f"a mask of {int(mask.sum())} pixels and shape {tuple(mask.shape)} came for an input of "
            f"{tuple(x.shape[1:])}; mark at least one pixel that the network sees"
        )
    return mask


def _draws(n: int, sizes: Sequence[int], seed: int) -> Int64[np.ndarray, "4 n"]:
    """For each picture a background of a, of b, and another one of each, as numbers in both pools joined."""
    random = np.random.default_rng([seed, 4])
    first, second = [], []
    for size, offset in zip(sizes, (0, sizes[0]), strict=True):
        order = np.concatenate([random.permutation(size) for _ in range(-(-n // size))])[:n]
        other = (order + random.integers(1, max(size, 2), n)) % size
        first.append(order + offset)
        second.append(other + offset)
    return np.stack([*first, *second]).astype(np.int64)


def _labels(asked: Asked, labels: Sequence[str | int] | None) -> list[str] | None:
    if labels is None:
        return None
    names, shift = asked.decision.names, int(asked.decision.yes_no)
    numbers = [asked.model.index(one) + shift if isinstance(one, str) else int(one) for one in labels]
    wrong = next((n for n in numbers if not 0 <= n < len(names)), None)
    if wrong is not None:
        raise SettingError(f"label {wrong} came; the network has {len(names)} answers (0 to {len(names) - 1})")
    return [names[n] for n in numbers]


def _pairs(
    asked: Asked, tests: Pool, pools: Sequence[Pool], labels: list[str] | None, scores: Float[Tensor, "5 n answers"],
    draws: Int64[np.ndarray, "4 n"],
) -> tuple[Pair, ...]:  # fmt: skip
    names = [*pools[0].names, *pools[1].names]
    answers = [[asked.decision.names[w] for w in asked.decision.winners(s).tolist()] for s in scores]
    several = [len(pool.x) > 1 for pool in pools]
    found = []
    for i, name in enumerate(tests.names):
        a, b, label = answers[0][i], answers[1][i], answers[4][i] if labels is None else labels[i]
        change = float(asked.decision.change(scores[0, i], scores[1, i : i + 1])[0])
        before = names[draws[0, i]], names[draws[1, i]]
        within = [answers[k][i] != answers[k + 2][i] if several[k] else None for k in (0, 1)]
        found.append(Pair(name, label, *before, a, b, change, a == label, b == label, *within))
    return tuple(found)


def _shown(asked: Asked, edits: Pasted, image: int, n: int) -> tuple[np.ndarray, np.ndarray]:
    a, b = (seen(x, asked.case.preprocess) for x in edits.inputs([image, n + image]))
    return a, b
