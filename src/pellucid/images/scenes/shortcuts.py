"""Planted shortcuts: marks that give the class away, and have nothing to do with the thing that is shown."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

from pellucid.core.errors import SettingError, check_known
from pellucid.images.scenes.blueprints import CLASSES

ShortcutKind = Literal["watermark", "frame", "background", "ruler", "sticker"]
SHORTCUTS: tuple[str, ...] = get_args(ShortcutKind)
PRESENCE = ("ruler", "sticker")  # these say a class by being there; the others have a form for every class


@dataclass(frozen=True)
class Shortcut:
    """A mark to plant.

    Attributes:
        kind: "watermark" (a glyph in the lower right corner, one for each class), "frame" (its colour says the
            class), "background" (each class before its own backdrop), "ruler" and "sticker" (there or not).
        strength: opacity of the mark, above 0 to 1.
        share: of the pictures of `classes`, how many carry it, in [0, 1]; the others carry none.
        classes: which classes it betrays; None for all. A ruler or a sticker needs them named.
    """

    kind: str
    strength: float = 1.0
    share: float = 1.0
    classes: tuple[str, ...] | None = None


@dataclass(frozen=True)
class Mark:
    """A shortcut as it stands in one scene: the class it stands for, its opacity, a random place in [0, 1)²."""

    kind: str
    stands_for: str
    strength: float
    place: tuple[float, float]


def checked(shortcuts: Sequence[Shortcut]) -> Sequence[Shortcut]:
    """The same shortcuts, if each can be planted.

    Raises:
        SettingError: no shortcut, unknown kind or class, a strength or share out of range, one kind twice.
    """
    if not isinstance(shortcuts, list | tuple) or not all(isinstance(s, Shortcut) for s in shortcuts):
        raise SettingError(f'shortcuts={shortcuts!r} came; use a list such as [Shortcut("frame")]')
    for shortcut in shortcuts:
        _check(shortcut)
    kinds = [s.kind for s in shortcuts]
    twice = next((k for k in kinds if kinds.count(k) > 1), None)
    if twice is not None:
        raise SettingError(f"two shortcuts of kind {twice}; a scene carries one of a kind")
    return shortcuts


def _check(shortcut: Shortcut) -> None:
    kind, classes = shortcut.kind, shortcut.classes
    check_known("shortcut", kind, SHORTCUTS)
    if not _number(shortcut.strength) or not 0 < shortcut.strength <= 1:
        raise SettingError(f"{kind}: strength={shortcut.strength!r}; use a number above 0, up to 1")
    if not _number(shortcut.share) or not 0 <= shortcut.share <= 1:
        raise SettingError(f"{kind}: share={shortcut.share!r}; use a number from 0 to 1")
    if classes is not None and not isinstance(classes, list | tuple):
        raise SettingError(f'{kind}: classes={classes!r}; use several in brackets, such as ("{CLASSES[0]}",)')
    for label in classes or ():
        check_known("class", label, CLASSES)
    if classes is not None and not classes:
        raise SettingError(f"{kind}: classes is empty; name at least one class, or leave it out for all")
    if kind in PRESENCE and (classes is None or set(classes) == set(CLASSES)):
        raise SettingError(
            f'a {kind} is there or not, so it can\'t betray every class; name some, such as classes=("{CLASSES[0]}",)'
        )


def _number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def mark_of(shortcut: Shortcut, label: str, place: tuple[float, float]) -> Mark | None:
    """The mark that a picture of a class carries; None where the shortcut does not concern that class."""
    if shortcut.classes is not None and label not in shortcut.classes:
        return None
    return Mark(shortcut.kind, label, shortcut.strength, place)
