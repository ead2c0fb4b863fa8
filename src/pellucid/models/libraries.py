"""Optional model libraries: imported when asked for, silent, and plainly told where they or the network are missing."""

import importlib
import logging
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.util import find_spec
from types import ModuleType
from urllib.parse import urlsplit
from urllib.request import getproxies

from pellucid.core.errors import MissingExtraError, ModelError

EXTRAS = {"torchvision": "vision", "timm": "timm", "transformers": "hf"}
MISMATCH = (
    "torchvision does not fit this torch (operator torchvision::nms does not exist): their builds differ, often CPU "
    'against CUDA; install both from one index, e.g. pip install --force-reinstall "torch==…" "torchvision==…" '
    "--index-url https://download.pytorch.org/whl/cpu"
)


def library(name: str) -> ModuleType:
    """Import an optional library.

    Raises:
        MissingExtraError: it is not installed; names the extra.
        ModelError: it is installed but fails to import; tells a torchvision built for another torch apart.
    """
    if not installed(name):
        raise MissingExtraError(name, EXTRAS[name], f"a network from {name}")
    try:
        return importlib.import_module(name)
    except Exception as error:
        raise broken(name, error) from error


def installed(name: str) -> bool:
    """Whether an import would find the library; imports nothing."""
    try:
        return find_spec(name) is not None
    except (ImportError, ValueError):
        return False


def broken(name: str, error: BaseException) -> ModelError:
    """What to say about a library that is there but can't be imported."""
    if "torchvision::nms" in _causes(error):
        also = "" if name == "torchvision" else f"{name} needs torchvision to work or to be absent; "
        return ModelError(also + MISMATCH)
    return ModelError(f"{name} is installed but can't be imported ({_first_line(error)}); reinstall it")


def reachable(url: str, timeout_seconds: float = 4.0) -> bool:
    """Whether the host answers at all, so that a library need not retry for a minute; a proxy counts as an answer."""
    if getproxies().get(urlsplit(url).scheme or "https"):
        return True
    parts = urlsplit(url)
    try:
        port = parts.port or {"http": 80}.get(parts.scheme, 443)
        socket.create_connection((parts.hostname or "", port), timeout=timeout_seconds).close()
    except OSError:
        return False
    return True


@contextmanager
def quiet(*names: str) -> Iterator[None]:
    """Loggers of these names say nothing below `CRITICAL` inside the block."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)


@contextmanager
def hub(offline: bool) -> Iterator[None]:
    """Hugging Face's hub without progress bars and retry messages, and from its cache alone where `offline`."""
    from huggingface_hub import constants
    from huggingface_hub.utils import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars

    was_offline, was_silent = constants.HF_HUB_OFFLINE, are_progress_bars_disabled()
    constants.HF_HUB_OFFLINE = was_offline or offline
    disable_progress_bars()
    try:
        with quiet("huggingface_hub", "timm", "httpx"):
            yield
    finally:
        constants.HF_HUB_OFFLINE = was_offline
        if not was_silent:
            enable_progress_bars()


def hub_is_offline() -> bool:
    """Whether Hugging Face's hub is switched off or can't be reached."""
    from huggingface_hub import constants

    return constants.HF_HUB_OFFLINE or not reachable(constants.ENDPOINT)


def _causes(error: BaseException | None) -> str:
    found = []
    while error is not None:
        found.append(str(error))
        error = error.__cause__ or error.__context__
    return "\n".join(found)


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
