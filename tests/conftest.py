"""What every test gets: a seed, a sane number of threads, real data where it lies, the guard of the model."""

import os
import random
import shutil
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from guard import guarded
from shim import define_missing_torchvision_operators

ROOT = Path(__file__).resolve().parent.parent
BROWSER_FLAGS = (
    "--no-sandbox",  # root, in CI
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
_started = time.monotonic()


define_missing_torchvision_operators()
torch.set_num_threads(min(2, int(os.environ.get("OMP_NUM_THREADS", os.cpu_count() or 1))))


def pytest_runtest_setup(item: pytest.Item) -> None:
    """Skip what has not begun when the time given by PELLUCID_ZOO_SECONDS is spent."""
    seconds = os.environ.get("PELLUCID_ZOO_SECONDS")
    if seconds and time.monotonic() - _started > float(seconds):
        pytest.skip(f"the {seconds} seconds of PELLUCID_ZOO_SECONDS are spent")


@pytest.fixture(autouse=True)
def seeded() -> None:
    """The same random numbers in every test, whatever ran before it."""
    torch.manual_seed(0)
    np.random.seed(0)
    random.seed(0)


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real networks and pictures: PELLUCID_TEST_DATA, or ../shared/data beside the project."""
    named = os.environ.get("PELLUCID_TEST_DATA")
    folder = Path(named) if named else ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no test data at {folder}; PELLUCID_TEST_DATA can name the folder")
    return folder


@pytest.fixture(scope="session")
def chromium() -> str:
    """Path of the browser, for playwright's `executable_path`."""
    found = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
    if found is None:
        pytest.skip("no chromium on this machine; on Debian: apt-get install chromium")
    return found


@pytest.fixture
def page(chromium: str) -> Iterator[Any]:
    """An empty page of a headless browser that can reach no network; mark the test `browser`."""
    playwright = pytest.importorskip("playwright.sync_api", reason="playwright is not installed; make test installs it")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=list(BROWSER_FLAGS))
        yield browser.new_context(offline=True).new_page()
        browser.close()


@pytest.fixture
def untouched() -> Callable[..., AbstractContextManager[None]]:
    """`with untouched(module): …` fails if the block leaves a trace on module or torch, also after an exception."""
    return guarded
