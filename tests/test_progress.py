"""Progress: silent for two seconds, events at once, cancelled on request, closed whatever happens."""

import io
import sys
from typing import Any

import pytest

from pellucid.core import progress as module
from pellucid.core.errors import Cancelled, PellucidError
from pellucid.core.progress import PATIENCE_SECONDS, Bar, Progress, screen, watching


class Paper:
    """A bar that remembers."""

    def __init__(self) -> None:
        self.drawn: list[tuple[int, int, str]] = []
        self.closed = 0

    def update(self, done: int, total: int, label: str) -> None:
        self.drawn.append((done, total, label))

    def close(self) -> None:
        self.closed += 1


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """The time in seconds, to be set by the test."""
    now = [100.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


@pytest.fixture
def papers() -> list[Paper]:
    return []


def watched(papers: list[Paper], **words: Any) -> Progress:
    def make() -> Bar:
        papers.append(Paper())
        return papers[-1]

    return Progress(make, **words)


def test_silence_before_two_seconds(clock: list[float], papers: list[Paper]) -> None:
    progress = watched(papers)
    progress.expect(4)
    clock[0] += PATIENCE_SECONDS
    progress.advance()
    assert papers == []
    clock[0] += 0.01
    progress.advance(label="grad_cam")
    progress.advance()
    assert [p.drawn for p in papers] == [[(2, 4, "grad_cam"), (3, 4, "grad_cam")]]
    progress.close()
    progress.close()
    assert papers[0].closed == 1


def test_nothing_is_drawn_for_the_last_step(clock: list[float], papers: list[Paper]) -> None:
    progress = watched(papers)
    progress.expect(1)
    clock[0] += 60
    progress.advance()
    assert papers == []


def test_the_clock_starts_with_the_first_expectation(clock: list[float], papers: list[Paper]) -> None:
    progress = watched(papers)
    clock[0] += 60
    progress.expect(2)
    progress.expect(3)
    progress.advance()
    assert papers == []
    assert (progress.done, progress.total) == (1, 5)
    clock[0] += 3
    progress.advance(2)
    assert papers[0].drawn == [(3, 5, "")]


def test_events_come_at_once() -> None:
    events: list[tuple[int, int, str]] = []
    progress = Progress(on_event=lambda *event: events.append(event))
    progress.expect(3)
    progress.advance(label="a")
    progress.advance(2, "b")
    assert events == [(1, 3, "a"), (3, 3, "b")]


def test_cancelling_stops_the_next_step() -> None:
    events: list[int] = []
    progress = Progress(on_event=lambda done, total, label: events.append(done))
    progress.expect(3)
    progress.advance()
    progress.cancel()
    with pytest.raises(Cancelled, match="stopped on request") as caught:
        progress.advance()
    assert isinstance(caught.value, PellucidError)
    assert events == [1]
    assert progress.done == 1


def test_watching_closes_after_an_exception(clock: list[float], papers: list[Paper]) -> None:
    progress = watched(papers)
    with pytest.raises(ZeroDivisionError), watching(progress) as same:
        assert same is progress
        same.expect(5)
        clock[0] += 3
        same.advance()
        raise ZeroDivisionError
    assert papers[0].closed == 1


def test_false_draws_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "screen", lambda: Paper)
    with watching(False) as silent:
        assert silent.screen is None
    with watching(None) as chosen:
        assert chosen.screen is Paper


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_the_screen_that_suits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    assert screen() is None
    monkeypatch.setattr(sys, "stderr", None)
    assert screen() is None
    monkeypatch.setattr(sys, "stderr", Terminal())
    assert screen() is module._RichBar
    monkeypatch.setitem(sys.modules, "ipykernel", module)
    assert screen() is module._TqdmBar


def test_a_rich_bar_draws_to_the_error_stream(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    bar = module._RichBar()
    bar.update(3, 4, "saliency")
    bar.close()
    assert capsys.readouterr().out == ""
    assert "saliency" in terminal.getvalue()


def test_a_notebook_bar(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("tqdm", reason="tqdm is not installed; pip install pellucid[notebook]")
    bar = module._TqdmBar()
    bar.update(3, 4, "saliency")
    assert (bar._tqdm.n, bar._tqdm.total) == (3, 4)
    bar.close()
    assert capsys.readouterr().out == ""
