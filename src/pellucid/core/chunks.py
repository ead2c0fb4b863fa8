"""Work on many items a few at a time: how many is tried out on the way, and halved when memory runs out."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

SIZES = {"cpu": (4, 8, 16, 32), "cuda": (16, 64, 128)}
CHUNK_BYTES, DEVICE_BYTES = 160 * 2**20, 2**30
TRIES = 2
BETTER = 0.75  # another size must take less than this part of the usual one's time

Result = TypeVar("Result")


def in_chunks(
    items: Sequence[int],
    work: Callable[[Sequence[int]], Result],
    *,
    device: torch.device,
    bytes_each: int,
    usual: int,
    told: Callable[[str], None] = lambda words: None,
) -> Iterator[tuple[Sequence[int], Result]]:
    """Each chunk with what came out of it.

    Where there is plenty to do, the first chunks have several sizes, and one that is clearly quicker than the usual
    one is kept (results of different sizes differ by rounding; `torch.use_deterministic_algorithms` keeps the usual
    one). Nothing is done twice, but for a chunk during which memory ran out.

    Args:
        bytes_each: what one item takes, about; chunks stay below 160 MiB (1 GiB on an accelerator).
        usual: the size that suits most networks.
        told: is told when memory ran out.
    """
    sizes = fitting(device, bytes_each)
    size, done = min(usual, max(sizes)), 0
    trials, seconds = list(sizes) * TRIES if _plenty(len(items), sizes, size) else [], dict[int, float]()
    while done < len(items):
        which = items[done : done + (trials[0] if trials else size)]
        began = time.perf_counter()
        try:
            result = work(which)
            _wait(device)
        except (RuntimeError, MemoryError) as error:
            if not out_of_memory(error) or len(which) == 1:
                raise
            size, trials = len(which) // 2, []
            told(f"memory ran out at {len(which)} images a pass; went on with {size}")
            continue
        done += len(which)
        if trials:
            each = (time.perf_counter() - began) / len(which)
            seconds[len(which)] = min(each, seconds.get(len(which), each))
            trials.pop(0)
            size = size if trials else _quickest(seconds, size)
        yield which, result


def _plenty(count: int, sizes: Sequence[int], usual: int) -> bool:
    fixed = torch.are_deterministic_algorithms_enabled()
    return not fixed and len(sizes) > 1 and usual in sizes and count >= 4 * TRIES * sum(sizes)


def _quickest(seconds: dict[int, float], usual: int) -> int:
    """The size that takes least time per item, if that is clearly less than the usual one takes."""
    best = min(seconds, key=lambda size: seconds[size])
    return best if seconds[best] < BETTER * seconds[usual] else usual


def fitting(device: torch.device, bytes_each: int) -> tuple[int, ...]:
    """The sizes worth trying that fit the memory a method may take."""
    room = CHUNK_BYTES if device.type == "cpu" else DEVICE_BYTES
    most = max(1, room // max(bytes_each, 1))
    sizes = SIZES.get(device.type, SIZES["cuda"])
    return tuple(s for s in sizes if s <= most) or (most,)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
