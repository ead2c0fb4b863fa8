"""The same volume with one thing changed: true counterfactuals, with the same random numbers otherwise."""

from dataclasses import replace

from pellucid.core.errors import SettingError
from pellucid.images.volumes.anatomy import CHANGING, DECIDING, FULL, TABLE, Region
from pellucid.images.volumes.compose import Part, Volume, check_region, share_in


def healed(volume: Volume, region: str = DECIDING) -> Volume:
    """The volume as it were with this region healthy: 90 to 105 % of its extent; a ventricle narrow.

    Raises:
        SettingError: no such region, or one that keeps its extent.

    Example:
        >>> from pellucid.images import volumes
        >>> volumes.truth(healed(volumes.compose(3, label="atrophy")))
        'healthy'
    """
    return _in_state(volume, region, atrophied=False)


def atrophied(volume: Volume, region: str = DECIDING) -> Volume:
    """The volume as it were with this region atrophied: 45 to 65 % of its extent; a ventricle wide.

    Raises:
        SettingError: no such region, or one that keeps its extent.
    """
    return _in_state(volume, region, atrophied=True)


def resized(volume: Volume, region: str, share: float) -> Volume:
    """The volume with a region that fills this share of its mean extent, and present if it was taken away.

    Raises:
        SettingError: no such region, one that keeps its extent, or a share outside 0 to 1.05.
    """
    check_region(region, CHANGING)
    if not isinstance(share, int | float) or not 0 <= share <= FULL[1]:
        raise SettingError(f"a region fills a share of 0 to {FULL[1]} of its extent, not {share!r}")
    return _with(volume, replace(volume.part(region), share=float(share), present=True))


def without(volume: Volume, region: str) -> Volume:
    """The volume with a region taken away; what surrounds it, or lies below it, fills its whole room.

    Raises:
        SettingError: there is no such region.
    """
    return _with(volume, replace(volume.part(region), present=False))


def without_lesions(volume: Volume) -> Volume:
    """The volume without its lesions."""
    return replace(volume, lesions=())


def _in_state(volume: Volume, name: str, atrophied: bool) -> Volume:
    check_region(name, CHANGING)
    return resized(volume, name, share_in(_region(name), volume.part(name).luck, atrophied))


def _region(name: str) -> Region:
    return next(region for region in TABLE if region.name == name)


def _with(volume: Volume, changed: Part) -> Volume:
    """The volume with one part in place of the part of that name."""
    return replace(volume, parts=tuple(changed if part.name == changed.name else part for part in volume.parts))
