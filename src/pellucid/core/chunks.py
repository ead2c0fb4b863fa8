"""Work on many items a few at a time: how many is tried out on the way, and halved when memory runs out."""

import time
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar

import torch

CHUNKS = {"cpu": (4, 8, 16), "cuda": (16, 64, 128)}
CHUNK_BYTES, DEVICE_BYTES = 160 * 2**20, 2**30
TRIES = 2
AS_GOOD = 1.03

Result = TypeVar("Result")


def in_chunks(
    items: Sequence[int],
    work: Callable[[Sequence[int]], Result],
    *,
    device: torch.device,
    bytes_each: int,
    known: int | None = None,
    told: Callable[[str], None] = lambda words: None,
) -> Iterator[tuple[Sequence[int], Result, int]]:
    """Each chunk with what came out of it, and the size that is best as far as is known.

    Different sizes are tried while there is plenty to do, and the quickest per item is kept. Nothing is done twice,
    but for a chunk during which memory ran out.

    Args:
        bytes_each: what one item takes, about; chunks stay below 160 MiB (1 GiB on an accelerator).
        known: a size that was found to be good before.
        told: is told when memory ran out.
    """
    sizes = fitting(device, bytes_each)
    plenty = known is None and len(sizes) > 1 and len(items) >= 4 * TRIES * sum(sizes)
    trials, seconds = list(sizes) * TRIES if plenty else [], dict[int, float]()
    size, done = min(known or sizes[len(sizes) // 2], max(sizes)), 0
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
            told(f"memory ran out at {len(which)} edits a pass; went on with {size}")
            continue
        done += len(which)
        if trials:
            each = (time.perf_counter() - began) / len(which)
            seconds[len(which)] = min(each, seconds.get(len(which), each))
            trials.pop(0)
            size = min(s for s, t in seconds.items() if t <= AS_GOOD * min(seconds.values()))
        yield which, result, size


def fitting(device: torch.device, bytes_each: int) -> tuple[int, ...]:
    """The sizes worth trying that fit the memory a method may take."""
    room = CHUNK_BYTES if device.type == "cpu" else DEVICE_BYTES
    most = max(1, room // max(bytes_each, 1))
    sizes = CHUNKS.get(device.type, CHUNKS["cuda"])
    return tuple(s for s in sizes if s <= most) or (most,)


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out."""
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or "can't allocate memory" in str(error)


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
