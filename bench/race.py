"""Interleaved repeats in one process: who takes how long, with the ideal passes measured beside them."""

import gc
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch

FEWEST = 3
Call = Callable[[], Any]


@dataclass
class Times:
    """Milliseconds of every repeat, processor and wall; the message of a contender that could not.

    Attributes:
        beside: ideal pass -> its times right after each of these repeats, where a row is long.
    """

    cpu: list[float] = field(default_factory=list)
    wall: list[float] = field(default_factory=list)
    error: str | None = None
    result: Any = None
    device_mb: float | None = None
    beside: dict[str, "Times"] = field(default_factory=dict)

    def on(self, clock: str) -> list[float]:
        return self.cpu if clock == "cpu" else self.wall

    def add(self, took: tuple[float, float]) -> None:
        self.cpu.append(took[0])
        self.wall.append(took[1])


@dataclass(frozen=True)
class Effort:
    """How long a race may take.

    Attributes:
        repeats: at most so many rounds, besides the first; none where only the results are wanted.
        seconds: a race that would take longer gets fewer rounds, never fewer than three.
        patience: seconds; a contender whose first call takes longer is not called again, and that call counts.
    """

    repeats: int
    seconds: float
    patience: float = float("inf")


def clock_of(device: str, threads: int) -> str:
    """Processor time where one thread does all the work, else wall time."""
    return "cpu" if device == "cpu" and threads == 1 else "wall"


def compete(
    calls: Mapping[str, Call],
    effort: Effort,
    tidy: Callable[[], None],
    device: str = "cpu",
    beside: Mapping[str, Call] | None = None,
) -> dict[str, Times]:
    """Every call once per repeat, the order rotated by one each time.

    The first round warms up, gives the results that are compared, and drops what raises; it counts for those only
    whose call is too long to be repeated.

    Args:
        tidy: runs after each call, untimed.
        beside: ideal passes, measured right after every call that counts.
    """
    race = _Race(calls, beside or {}, tidy, device)
    running, seconds = [], 0.0
    for name in race.beside:
        race.beside[name]()
    for name in calls:
        took = race.first(name)
        if took is None:
            continue
        if took[1] > 1e3 * effort.patience:
            race.count(name, took)
        else:
            running.append(name)
            seconds += took[1] / 1e3
    affordable = int(effort.seconds / max(seconds, 1e-9))
    for turn in range(min(effort.repeats, max(affordable, FEWEST))):
        shift = turn % max(len(running), 1)
        for name in running[shift:] + running[:shift]:
            race.count(name, race.once(calls[name]))
    return race.found


class _Race:
    """Who runs, and what was found."""

    def __init__(
        self, calls: Mapping[str, Call], beside: Mapping[str, Call], tidy: Callable[[], None], device: str
    ) -> None:
        self.calls, self.beside, self.tidy, self.device = calls, beside, tidy, device
        self.found = {name: Times(beside={one: Times() for one in beside}) for name in calls}

    def first(self, name: str) -> tuple[float, float] | None:
        """The first call: its result is kept; None where it raised."""
        times, before = self.found[name], 0
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            before = torch.cuda.memory_allocated()

        def keep() -> None:
            times.result = self.calls[name]()

        try:
            return self.once(keep)
        except Exception as error:  # a contender may refuse in any way; the table tells its words
            times.error = told(error)
            return None
        finally:
            if self.device == "cuda":
                times.device_mb = (torch.cuda.max_memory_allocated() - before) / 2**20

    def count(self, name: str, took: tuple[float, float]) -> None:
        """A repeat, and the ideal passes right after it."""
        self.found[name].add(took)
        for one, call in self.beside.items():
            self.found[name].beside[one].add(self.once(call))

    def once(self, call: Call) -> tuple[float, float]:
        """Milliseconds of a call, processor and wall."""
        gc.collect()
        self._wait()
        cpu, wall = time.process_time(), time.perf_counter()
        try:
            call()
            self._wait()
            return 1e3 * (time.process_time() - cpu), 1e3 * (time.perf_counter() - wall)
        finally:
            self.tidy()

    def _wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()


def told(error: BaseException) -> str:
    """A contender's own words, on one short line."""
    if isinstance(error, ImportError):
        return f"not installed ({error.name})" if error.name else f"can't be imported: {error}"
    words = " ".join(str(error).split())
    return f"{type(error).__name__}: {words}"[:160]
