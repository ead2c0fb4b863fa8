"""Pictures and volumes to train and to measure with: painted by all processors, kept as 8-bit tensors."""

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from functools import partial

import numpy as np
import torch
from jaxtyping import Int64, UInt8
from torch import Generator, Tensor

from pellucid.core.errors import SettingError
from pellucid.core.progress import Progress
from pellucid.images import scenes, volumes
from pellucid.images.scenes import Scene
from pellucid.images.volumes import Volume
from pellucid.training.recipes import Recipe

Thing = Scene | Volume

CHUNK = 100  # things a process paints at a time
ALONE = 400  # up to so many are painted in this process: starting others takes longer


def classes(recipe: Recipe) -> tuple[str, ...]:
    """The names of the classes, in the order of their numbers."""
    return scenes.CLASSES if recipe.data == "scenes" else volumes.CLASSES


def composed(recipe: Recipe, n: int, split: str) -> list[Thing]:
    """n scenes or volumes of a split, with the recipe's shortcut planted."""
    if recipe.data == "volumes":
        return list(volumes.stream(n, seed=recipe.seed, voxels=recipe.side, split=split))
    shortcuts = () if recipe.shortcut is None else (recipe.shortcut,)
    return list(scenes.stream(n, seed=recipe.seed, px=recipe.side, split=split, shortcuts=shortcuts))


def labels(things: Sequence[Thing]) -> Int64[Tensor, " n"]:
    """The class number of each."""
    known = scenes.CLASSES if isinstance(things[0], Scene) else volumes.CLASSES
    return torch.tensor([known.index(thing.label) for thing in things])


def other_classes(these: Int64[Tensor, " n"], count: int) -> Int64[Tensor, " n"]:
    """Another class for each thing, every other one in turn."""
    return (these + 1 + torch.arange(len(these)) // count % (count - 1)) % count


def to_learn(recipe: Recipe, n: int, split: str) -> tuple[list[Thing], Int64[Tensor, " n"]]:
    """Things and their labels, among them those that the recipe mislabels: their mark says the label, not the thing."""
    things = composed(recipe, n, split)
    right = labels(things)
    if recipe.shortcut is None or not recipe.mislabelled_fraction:
        return things, right
    chosen = torch.rand(n, generator=Generator().manual_seed(recipe.seed)) < recipe.mislabelled_fraction
    given = torch.where(chosen, other_classes(right, len(scenes.CLASSES)), right)
    wrong = [
        scenes.planted(thing, recipe.shortcut, scenes.CLASSES[label]) if isinstance(thing, Scene) and off else thing
        for thing, label, off in zip(things, given, chosen, strict=True)
    ]
    return wrong, given


def painted(things: Sequence[Thing], bar: Progress, workers: int | None = None) -> UInt8[Tensor, "n c ..."]:
    """Their pixels `(n, 3, h, w)` or voxels `(n, 1, d, h, w)`, in [0, 255].

    Args:
        things: scenes, or volumes.
        bar: advances by one a thing.
        workers: processes; all processors by default, 1 for this process alone.

    Raises:
        SettingError: the processes could not be started.
    """
    bar.expect(len(things))
    chunks = [things[start : start + CHUNK] for start in range(0, len(things), CHUNK)]
    count = workers or os.cpu_count() or 1
    done = map(paint, chunks) if count == 1 or len(things) <= ALONE else _in_processes(chunks, count)
    parts = []
    for chunk, part in zip(chunks, done, strict=True):
        parts.append(torch.from_numpy(part))
        bar.advance(len(chunk), "painting")
    return torch.cat(parts)


def paint(things: Sequence[Thing]) -> UInt8[np.ndarray, "n c ..."]:
    """The same, in this process."""
    return np.stack([_pixels(thing) for thing in things])


def _pixels(thing: Thing) -> UInt8[np.ndarray, "c ..."]:
    if isinstance(thing, Scene):
        return scenes.render(thing).pixels.transpose(2, 0, 1)
    return np.rint(volumes.render(thing).voxels * 255).astype(np.uint8)


def _in_processes(chunks: Sequence[Sequence[Thing]], count: int) -> Iterator[np.ndarray]:
    """The painted chunks in order; new processes, because forking one that runs torch's threads may lock up."""
    start = partial(signal.signal, signal.SIGINT, signal.SIG_IGN)  # Ctrl-C is for the parent, which ends them
    pool = ProcessPoolExecutor(min(count, len(chunks)), multiprocessing.get_context("spawn"), start)
    try:
        yield from pool.map(paint, chunks)
    except BrokenProcessPool as error:
        raise SettingError(
            "the processes that paint ended at once; call train under `if __name__ == '__main__':`, or with workers=1"
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)
