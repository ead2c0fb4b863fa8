"""From what a user asks for to regions."""

import os
import re
from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
from jaxtyping import Float
from PIL import Image
from torch import Tensor

from pellucid.core.errors import SettingError, nearest
from pellucid.images.placement import Placement
from pellucid.images.regions import segments
from pellucid.images.regions.files import SUFFIXES, plane, read_labels, read_names
from pellucid.images.regions.given import given
from pellucid.images.regions.regions import Regions, numbered

Names = Mapping[Any, Any] | Sequence[str] | os.PathLike[str] | str | None


def regions(
    asked: Any,
    pixels: Float[Tensor, "c *space"],
    *,
    count: int = 50,
    seed: int = 0,
    placement: Placement | None = None,
    names: Names = None,
    outside: int | Literal["auto"] | None = "auto",
) -> Regions:
    """A picture cut into regions.

    Args:
        asked: `"grid"`, `"slic"`, `"felzenszwalb"` or `"quickshift"`, each also with a number, as in `"slic:80"` or
            `"grid:6x8"`; an array or tensor of labels (whole numbers from 0, -1 for none) or a mask (bool, one region
            where True); a Pillow image of either; the path of a `.png`, `.npy`, `.nii` or `.nii.gz` file, and after a
            colon of a CSV file of names, as in `"atlas.nii.gz:names.csv"`; or `Regions`, which are only checked.
        pixels: the picture in [0, 1], as large as the network's input.
        count: about how many, where the form can choose and `asked` doesn't say; the grid and SLIC come near,
            quickshift exactly where its tree allows, Felzenszwalb as near as a scale does.
        seed: for ties in quickshift; all else is without chance.
        placement: where the input lies on the original picture: labels of the original's size are cut and sampled.
        names: of the regions, by label: a mapping, a list, or a CSV file.
        outside: the label of what is in no region; by default 0 in volumes, as in atlases, and none otherwise.

    Raises:
        SettingError: what is asked for does not exist or does not fit the picture.
        ImageError: a file that can't be read.
        MissingExtraError: scikit-image or nibabel is needed and not there.
    """
    space = tuple(pixels.shape[1:])
    if isinstance(asked, Regions):
        if tuple(asked.labels.shape) != space:
            raise SettingError(f"{asked!r} came for an input of {space}; make them on the input's grid")
        return asked
    if isinstance(asked, str) and (word := re.fullmatch(r"\s*([A-Za-z_]+)\s*(?::\s*(\S+)\s*)?", asked)):
        return _found(word[1].lower(), _number(word[2], count, asked), pixels, seed)
    if isinstance(asked, (str, os.PathLike)):
        path, table = _parted(os.fspath(asked))
        asked, names = read_labels(path), table or names
    if isinstance(asked, Image.Image):
        asked = plane(asked)
    if not isinstance(asked, (np.ndarray, Tensor)):
        raise SettingError(
            f"regions from {type(asked).__name__} can't be made; give {', '.join(segments.KINDS)}, an array of "
            "labels, a mask or a file"
        )
    named = read_names(names) if isinstance(names, (str, os.PathLike)) else names
    label = (0 if len(space) == 3 else None) if outside == "auto" else outside
    return given(asked, space, names=named, outside=label, placement=placement)


def _found(kind: str, count: int | tuple[int, ...], pixels: Tensor, seed: int) -> Regions:
    space = tuple(pixels.shape[1:])
    if kind not in segments.KINDS:
        raise SettingError(
            f'no regions "{kind}"{nearest(kind, segments.KINDS) or "."} Known: {", ".join(segments.KINDS)}, or the '
            f"path of a file ({', '.join(SUFFIXES)})"
        )
    number = count if isinstance(count, int) else prod(count)
    if number > prod(space):
        raise SettingError(f"{number} regions came for {prod(space)} pixels; ask for fewer")
    if kind == "grid":
        return numbered(segments.grid(space, count), kind)
    if not isinstance(count, int):
        raise SettingError(f"{kind} takes one number, not {' x '.join(map(str, count))}; only a grid has axes")
    axes = (2, 3) if kind == "slic" else (2,)
    if len(space) not in axes:
        raise SettingError(
            f"{kind} works on {' and '.join(f'{n}-D' for n in axes)} pictures, and this is {len(space)}-D; use grid"
        )
    if kind == "quickshift":
        most = segments.QUICKSHIFT_PIXELS
        notes = (f"quickshift saw the picture reduced to {most:,} pixels",) if prod(space) > most else ()
        return numbered(segments.quickshift(pixels, number, seed), kind, notes=notes)
    return numbered((segments.slic if kind == "slic" else segments.felzenszwalb)(pixels, number), kind)


def _number(text: str | None, count: int, asked: str) -> int | tuple[int, ...]:
    """How many: one whole number, or for a grid one for each axis joined by x."""
    if text is not None and not re.fullmatch(r"\d{1,9}(x\d{1,9})*", text):
        raise SettingError(f'regions "{asked}" came; after the colon stands a whole number, as in slic:80 or grid:6x8')
    found = tuple(map(int, text.split("x"))) if text is not None else (count,)
    if any(not isinstance(number, int) or isinstance(number, bool) or number < 1 for number in found):
        raise SettingError(f"{' x '.join(map(str, found))} regions came; ask for a whole number, at least 1")
    return found if found[1:] else found[0]


def _parted(path: str) -> tuple[str, str]:
    """A file of labels and, after a colon, a file of names."""
    found = re.fullmatch(r"(.+?\.(?:png|npy|nii|nii\.gz)):(.+)", path, re.IGNORECASE)
    return (found[1], found[2]) if found else (path, "")
