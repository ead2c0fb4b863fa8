"""Files of labels, masks and names: PNG, NumPy and NIfTI, read as if they came from a stranger."""

import csv
import gzip
import io
import os
import zlib
from math import prod
from pathlib import Path
from warnings import catch_warnings

import numpy as np
from PIL import Image

from pellucid.core.errors import ImageError, MissingExtraError
from pellucid.images.decode import Limits

SUFFIXES = (".png", ".npy", ".nii", ".nii.gz")
_LIMITS = Limits()
_MOST_NAMES_BYTES = 4 * 2**20
_LABEL_COLUMNS = ("index", "label", "id", "value", "number")
_NAME_COLUMNS = ("name", "region", "structure", "roi", "label_name")


def read_labels(path: str | os.PathLike[str], limits: Limits = _LIMITS) -> np.ndarray:
    """The array in a file: bool for a mask, whole numbers for labels.

    PNG: grey or palette, whose index is the label; with two values of which one is 0 it is a mask. NumPy: bool or whole
    numbers, never pickled. NIfTI (`.nii`, `.nii.gz`): whole numbers, also where the file keeps them as floats.

    Args:
        limits: bytes are counted as they lie and as they unpack, pixels from the header, before anything is decoded.

    Raises:
        ImageError: missing, damaged, too large, or not labels.
        MissingExtraError: NIfTI without nibabel.
    """
    name = Path(path).name
    data = _bytes(path, limits.max_bytes)
    try:
        if name.lower().endswith(".png"):
            return plane(_opened(data, name, limits), name)
        if name.lower().endswith(".npy"):
            return _numpy(data, name, limits)
        if name.lower().endswith((".nii", ".nii.gz")):
            return _nifti(data, name, limits)
    except (ImageError, MissingExtraError):
        raise
    except Exception as error:  # damaged files raise anything
        raise ImageError(f'"{name}" is damaged, truncated or not what its name says ({error})') from error
    raise ImageError(f'labels can\'t be read from "{name}"; give one of {", ".join(SUFFIXES)}')


def plane(image: Image.Image, name: str = "image") -> np.ndarray:
    """The labels or the mask in a picture for Pillow.

    Raises:
        ImageError: it has colours, or is transparent somewhere.
    """
    values = np.asarray(image)
    if values.ndim == 3:
        alpha = {"LA", "RGBA"} & {image.mode}
        colours = values[..., :-1] if alpha else values
        opaque = not alpha or bool((values[..., -1] == 255).all())
        if not opaque or bool((colours != colours[..., :1]).any()):
            raise ImageError(f'"{name}" has colours or is transparent; save labels and masks as grey or with a palette')
        values = colours[..., 0]
    if values.dtype.kind == "f":
        raise ImageError(f'"{name}" holds floats; labels are whole numbers')
    found = np.unique(values)
    return values != 0 if len(found) <= 2 and found[0] == 0 else values


def read_names(path: str | os.PathLike[str]) -> dict[int, str]:
    """Names by label from a CSV (or, with `.tsv`, tab-separated) file with a heading.

    The column of labels is called index, label, id, value or number (else it is the first), the column of names name,
    region, structure, roi or label_name (else it is the last). Rows whose label is no whole number are left out.

    Raises:
        ImageError: missing, too large, not text, or without any name.
    """
    text = _bytes(path, _MOST_NAMES_BYTES).decode("utf-8-sig", errors="replace")
    try:
        rows = list(csv.reader(io.StringIO(text), delimiter="\t" if str(path).lower().endswith(".tsv") else ","))
    except csv.Error as error:
        raise ImageError(f'"{Path(path).name}" is not a table of names ({error})') from error
    heading = [cell.strip().lower() for cell in rows[0]] if rows else []
    label = next((heading.index(word) for word in _LABEL_COLUMNS if word in heading), 0)
    name = next((heading.index(word) for word in _NAME_COLUMNS if word in heading), len(heading) - 1)
    wide = [row for row in rows[1:] if len(row) > max(label, name)]
    found = {int(row[label]): row[name].strip() for row in wide if row[label].strip().isdecimal()}
    if not found:
        raise ImageError(
            f'"{Path(path).name}" has no names of labels; give a CSV file with a heading such as Index,Name and a row '
            "for each label"
        )
    return found


def _bytes(path: str | os.PathLike[str], most: int) -> bytes:
    """The bytes of a file, unpacked where its name ends in `.gz`."""
    name = os.fspath(path)
    try:
        with open(name, "rb") as file:
            data = gzip.GzipFile(fileobj=file).read(most + 1) if name.lower().endswith(".gz") else file.read(most + 1)
    except FileNotFoundError as error:
        raise ImageError(f'there is no file "{name}" (looked from {os.getcwd()})') from error
    except (OSError, EOFError, ValueError, zlib.error) as error:
        raise ImageError(f'"{name}" can\'t be read: {getattr(error, "strerror", None) or error}') from error
    if len(data) > most:
        raise ImageError(f'"{name}" is larger than {most:,} bytes; make it smaller')
    return data


def _check_size(shape: tuple[int, ...], name: str, limits: Limits) -> None:
    if not shape or min(shape) < 1 or prod(shape) > limits.max_pixels:
        raise ImageError(
            f'"{name}" has the shape {shape}; labels have 1 to {limits.max_pixels:,} pixels along one to three axes'
        )


def _opened(data: bytes, name: str, limits: Limits) -> Image.Image:
    with catch_warnings(category=Image.DecompressionBombWarning, action="ignore"):  # our own limit follows
        image = Image.open(io.BytesIO(data), formats=("PNG",))
    _check_size((image.height, image.width), name, limits)
    return image


def _numpy(data: bytes, name: str, limits: Limits) -> np.ndarray:
    file = io.BytesIO(data)
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    _check_size(shape, name, limits)
    if dtype.kind not in "biu":
        raise ImageError(f'"{name}" holds {dtype}; labels are whole numbers, a mask is bool')
    return np.load(io.BytesIO(data), allow_pickle=False)


def _nifti(data: bytes, name: str, limits: Limits) -> np.ndarray:
    """Whole numbers of a volume; axes of one pixel at the end are dropped."""
    try:
        import nibabel
    except ImportError as error:
        raise MissingExtraError("nibabel", "volume", f'labels from "{name}"') from error
    second = data[:4] in (b"\x1c\x02\x00\x00", b"\x00\x00\x02\x1c")  # 540, the size of a NIfTI-2 header
    image = (nibabel.Nifti2Image if second else nibabel.Nifti1Image).from_bytes(data)
    shape = tuple(int(size) for size in image.shape)
    _check_size(shape, name, limits)
    if prod(shape) * np.dtype(image.get_data_dtype()).itemsize > len(data):
        raise ImageError(f'"{name}" is truncated: {shape} voxels are announced, and the file ends before')
    values = np.asanyarray(image.dataobj)
    while values.ndim > 3 and values.shape[-1] == 1:
        values = values[..., 0]
    if values.dtype.kind == "f":
        whole = np.isfinite(values).all() and (values == np.rint(values)).all() and np.abs(values).max() < 2**53
        if not whole:
            raise ImageError(f'"{name}" holds numbers that are not whole; labels are')
        return values.astype(np.int64)
    return values
