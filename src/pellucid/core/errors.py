"""Errors that say what came, what was expected and what to try."""

from collections.abc import Iterable
from difflib import get_close_matches


class PellucidError(Exception):
    """Anything pellucid refuses, told in one sentence with a remedy."""


class ImageError(PellucidError):
    """A picture that can't be read, or is beyond the limits."""


class ModelError(PellucidError):
    """A network that can't be found, loaded or called."""


class TraceError(PellucidError):
    """A forward pass that can't be recorded faithfully."""


class LayerError(PellucidError):
    """A layer that does not exist or has no such unit."""


class TargetError(PellucidError):
    """A target that the network's output does not have."""


class SettingError(PellucidError):
    """A setting outside its range or of the wrong kind."""


class MethodError(PellucidError):
    """A method that does not exist or is impossible on this network."""


class FileError(PellucidError):
    """A file that can't be written or is not ours."""


class MissingExtraError(PellucidError):
    """An optional library is absent; the message names the extra to install."""

    def __init__(self, library: str, extra: str, purpose: str) -> None:
        super().__init__(f'{purpose} needs {library}, which is not installed; try: pip install "pellucid[{extra}]"')


class Cancelled(PellucidError):
    """The user stopped the work; nothing half-written is left."""


def nearest(word: str, known: Iterable[str], count: int = 3) -> str:
    """The names closest to a mistyped one, ready for the end of an error message.

    Example:
        >>> nearest("gradcam", ["grad_cam", "saliency"])
        '; did you mean "grad_cam"?'
    """
    found = get_close_matches(word, list(known), count, cutoff=0.4)
    return "; did you mean " + " or ".join(f'"{name}"' for name in found) + "?" if found else ""


def check_known(what: str, word: object, words: Iterable[str]) -> None:
    """
    Raises:
        SettingError: the word is not one of these; the nearest are offered, or all of them.
    """
    known = list(words)
    if word not in known:
        raise SettingError(f'no {what} "{word}"{nearest(str(word), known) or "; there are " + ", ".join(known)}')
