"""Progress of long work, on whatever screen there is, and a way to stop it."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

from pellucid.core.errors import Cancelled

PATIENCE_SECONDS = 2.0


@runtime_checkable
class Bar(Protocol):
    """Where progress is drawn."""

    def update(self, done: int, total: int, label: str) -> None: ...
    def close(self) -> None: ...


@dataclass
class Progress:
    """Counts finished steps; draws itself only once the work has lasted two seconds; can be cancelled.

    Args:
        screen: makes the bar that is drawn to; None draws nothing.
        on_event: called with `(done, total, label)` after every step, at once (for a browser).
    """

    screen: Callable[[], Bar] | None = None
    on_event: Callable[[int, int, str], None] | None = None
    total: int = 0
    done: int = 0
    label: str = ""
    _bar: Bar | None = field(default=None, repr=False)
    _started: float | None = field(default=None, repr=False)
    _cancelled: bool = field(default=False, repr=False)

    def expect(self, steps: int) -> None:
        """More steps are to come."""
        self.total += steps
        self._started = self._started or time.monotonic()

    def advance(self, steps: int = 1, label: str = "") -> None:
        """Some steps are done.

        Raises:
            Cancelled: `cancel` was called since the last step.
        """
        if self._cancelled:
            raise Cancelled("stopped on request; what was finished before is kept")
        self.done, self.label = self.done + steps, label or self.label
        if self.on_event is not None:
            self.on_event(self.done, self.total, self.label)
        waited = time.monotonic() - self._started if self._started else 0.0
        if self._bar is None and self.screen is not None and waited > PATIENCE_SECONDS and self.done < self.total:
            self._bar = self.screen()
        if self._bar is not None:
            self._bar.update(self.done, self.total, self.label)

    def cancel(self) -> None:
        """Stop the work at its next step (may be called from another thread)."""
        self._cancelled = True

    def close(self) -> None:
        if self._bar is not None:
            self._bar.close()
            self._bar = None


@contextmanager
def watching(progress: "Progress | bool | None") -> Iterator[Progress]:
    """The progress to report to: one that was given, or one that suits the screen; closed at the end."""
    chosen = progress if isinstance(progress, Progress) else Progress(None if progress is False else screen())
    try:
        yield chosen
    finally:
        chosen.close()


def screen() -> Callable[[], Bar] | None:
    """A tqdm bar in a notebook, a rich bar on a terminal, nothing elsewhere."""
    if "ipykernel" in sys.modules:
        return _TqdmBar
    return _RichBar if sys.stderr is not None and sys.stderr.isatty() else None


class _RichBar:
    def __init__(self) -> None:
        from rich.console import Console
        from rich.progress import Progress as Rich

        self._rich = Rich(console=Console(stderr=True), transient=True)
        self._task = self._rich.add_task("", total=None)
        self._rich.start()

    def update(self, done: int, total: int, label: str) -> None:
        self._rich.update(self._task, completed=done, total=total, description=label)

    def close(self) -> None:
        self._rich.stop()


class _TqdmBar:
    def __init__(self) -> None:
        from pellucid.core.errors import MissingExtraError

        try:
            from tqdm.auto import tqdm
        except ImportError as error:
            raise MissingExtraError("tqdm", "notebook", "a progress bar in a notebook") from error
        self._tqdm: Any = tqdm()

    def update(self, done: int, total: int, label: str) -> None:
        self._tqdm.total, self._tqdm.desc = total, label
        self._tqdm.update(done - self._tqdm.n)

    def close(self) -> None:
        self._tqdm.close()
