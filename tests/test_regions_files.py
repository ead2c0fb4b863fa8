"""Files of labels, masks, atlases and names: what is read from them, and what is refused of strangers."""

import gzip
import io
import pickle
import struct
import sys
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from pellucid.core.errors import ImageError, MissingExtraError, SettingError
from pellucid.images import Limits
from pellucid.images.regions import Regions, regions
from pellucid.images.regions.files import read_labels, read_names

LABELS = np.array([[0, 0, 3], [3, 9, 9]], np.uint8)
PIXELS = torch.zeros(3, 2, 3)
TINY = Limits(max_pixels=5)


def found(path: Path, **words: object) -> Regions:
    return regions(path, PIXELS, **words)


# ---------------------------------------------------------------------------------------------------------------- PNG


@pytest.mark.parametrize("mode", ["L", "P", "I;16", "RGB", "RGBA", "LA"])
def test_labels_are_read_from_every_kind_of_grey_png(tmp_path: Path, mode: str):
    if mode == "I;16":
        image = Image.fromarray(LABELS.astype(np.uint16) * 7000)
    else:
        image = Image.fromarray(LABELS, "L")
        if mode == "P":
            image = Image.frombytes("P", (3, 2), LABELS.tobytes())
            image.putpalette([(7 * i) % 256 for i in range(768)])
        else:
            image = image.convert(mode)
    image.save(tmp_path / "labels.png")
    one = found(tmp_path / "labels.png")
    assert one.labels.tolist() == [[0, 0, 1], [1, 2, 2]] and one.kind == "labels"
    assert one.names == (("0", "21000", "63000") if mode == "I;16" else ("0", "3", "9"))
    assert torch.equal(regions(str(tmp_path / "labels.png"), PIXELS).labels, one.labels)
    assert torch.equal(regions(Image.open(tmp_path / "labels.png"), PIXELS).labels, one.labels)


@pytest.mark.parametrize("mode", ["1", "L", "RGB"])
@pytest.mark.parametrize("value", [1, 200, 255])
def test_two_values_of_which_one_is_nought_are_a_mask(tmp_path: Path, mode: str, value: int):
    mask = LABELS == 3
    Image.fromarray(np.where(mask, 255 if mode == "1" else value, 0).astype(np.uint8)).convert(mode).save(
        tmp_path / "mask.png"
    )
    one = found(tmp_path / "mask.png")
    assert one.kind == "mask" and torch.equal(one.labels == 0, torch.from_numpy(mask)) and one.count == 1


def test_two_values_above_nought_are_labels_and_nothing_but_nought_is_no_mask(tmp_path: Path):
    Image.fromarray(np.where(LABELS == 3, 1, 2).astype(np.uint8)).save(tmp_path / "a.png")
    assert found(tmp_path / "a.png").count == 2
    Image.fromarray(np.zeros_like(LABELS)).save(tmp_path / "b.png")
    with pytest.raises(SettingError, match="nowhere True"):
        found(tmp_path / "b.png")


def test_colours_and_transparency_are_refused(tmp_path: Path):
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (2, 3, 3)).astype(np.uint8)).save(tmp_path / "rgb.png")
    clear = Image.fromarray(LABELS, "L").convert("LA")
    clear.putalpha(7)
    clear.save(tmp_path / "clear.png")
    for name in ("rgb.png", "clear.png"):
        with pytest.raises(ImageError, match="colours or is transparent"):
            found(tmp_path / name)


# -------------------------------------------------------------------------------------------------------------- NumPy


def test_labels_and_masks_are_read_from_numpy_files(tmp_path: Path):
    np.save(tmp_path / "labels.npy", LABELS.astype(np.int32) - 1)
    one = found(tmp_path / "labels.npy", names={2: "sky"})
    assert one.labels.tolist() == [[-1, -1, 0], [0, 1, 1]] and one.names == ("sky", "8")
    np.save(tmp_path / "mask.npy", np.asfortranarray(LABELS == 9))
    assert found(tmp_path / "mask.npy").labels.tolist() == [[-1, -1, -1], [-1, 0, 0]]


class _Harmful:
    """Unpickled, it would leave a file."""

    def __init__(self, place: Path = Path("was-here")) -> None:
        self.place = place

    def __reduce__(self) -> tuple:
        return Path.touch, (self.place,)


def _announced(shape: tuple[int, ...], dtype: str = "<i8") -> bytes:
    """The head of a NumPy file with nothing behind it."""
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(file, {"descr": dtype, "fortran_order": False, "shape": shape})
    return file.getvalue()


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (pickle.dumps(_Harmful()), "not what its name says"),
        (b"", "not what its name says"),
        (b"\x93NUMPY\x01\x00\x10\x00", "not what its name says"),
        (_announced((10**6, 10**6)), "1 to 100,000,000 pixels"),
        (_announced((0, 5)), "1 to 100,000,000 pixels"),
        (_announced(()), "1 to 100,000,000 pixels"),
        (_announced((20, 20)), "not what its name says"),
        (_announced((2, 3), "|O"), "holds object"),
        (_announced((2, 3), "<f8"), "holds float64"),
        (_announced((2, 3), "<c8"), "holds complex64"),
    ],
)
def test_numpy_files_of_strangers(tmp_path: Path, data: bytes, says: str):
    (tmp_path / "a.npy").write_bytes(data)
    with pytest.raises(ImageError, match=says):
        found(tmp_path / "a.npy")


def test_pickles_in_numpy_files_are_not_opened(tmp_path: Path):
    harmful = _Harmful(tmp_path / "was-here")
    np.save(tmp_path / "a.npy", np.array([harmful, harmful], dtype=object), allow_pickle=True)
    with pytest.raises(ImageError, match="holds object"):
        found(tmp_path / "a.npy")
    assert not harmful.place.exists()


# -------------------------------------------------------------------------------------------------------------- NIfTI


def _nifti(path: Path, array: np.ndarray) -> Path:
    nibabel = pytest.importorskip("nibabel", reason='nibabel is not installed; pip install "pellucid[volume]"')
    nibabel.save(nibabel.Nifti1Image(array, np.eye(4)), path)
    return path


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32])
def test_atlases_are_read_with_their_names(tmp_path: Path, suffix: str, dtype: type):
    atlas = np.array([[[0, 4], [4, 0]], [[47, 47], [0, 60]]]).astype(dtype)
    path = _nifti(tmp_path / f"atlas{suffix}", atlas[..., None])
    (tmp_path / "names.csv").write_text("Index,Code,Name\n4,X_4,ventricle\n47,X_47,hippocampus\n")
    one = regions(f"{path}:{tmp_path / 'names.csv'}", torch.zeros(1, 2, 2, 2))
    assert one.labels.tolist() == [[[-1, 0], [0, -1]], [[1, 1], [-1, 2]]]
    assert one.names == ("ventricle", "hippocampus", "60")
    assert regions(path, torch.zeros(1, 2, 2, 2), names=tmp_path / "names.csv").names == one.names
    with pytest.raises(SettingError, match=r"expected the size of the network's input, \(2, 2, 3\)"):
        regions(path, torch.zeros(1, 2, 2, 3))


def test_a_real_atlas(data: Path):
    pytest.importorskip("nibabel", reason='nibabel is not installed; pip install "pellucid[volume]"')
    folder = data / "brain_mri"
    asked = f"{folder / 'nichart_Subj1_DLMUSE.nii.gz'}:{folder / 'MUSE_listROIs.csv'}"
    one = regions(asked, torch.zeros(1, 106, 127, 135))
    assert one.count == 148 and sum(one.sizes) < one.labels.numel()
    assert one.names.count("Hippocampus_L") == one.names.count("Hippocampus_R") == 1
    left, right = (one.boxes()[one.names.index(f"Hippocampus_{side}")] for side in "LR")
    assert left[0][1] <= right[0][0] or right[0][1] <= left[0][0]  # one on each side of the middle


def test_nifti_files_of_strangers(tmp_path: Path):
    good = _nifti(tmp_path / "good.nii", np.ones((4, 4, 4), np.int16)).read_bytes()
    huge = bytearray(good)
    struct.pack_into("<8h", huge, 40, 3, 32767, 32767, 32767, 1, 1, 1, 1)
    long = bytearray(good)
    struct.pack_into("<8h", long, 40, 3, 200, 200, 200, 1, 1, 1, 1)
    cases = {
        "huge.nii": (bytes(huge), "1 to 100,000,000 pixels"),
        "long.nii": (bytes(long), "is truncated"),
        "cut.nii": (good[:400], "not what its name says"),
        "head.nii": (good[:100], "not what its name says"),
        "noise.nii": (b"\x07" * 500, "not what its name says"),
        "plain.nii.gz": (good, "can't be read"),
        "cut.nii.gz": (gzip.compress(good)[:-20], "can't be read"),
        "bent.nii.gz": (gzip.compress(good)[:12] + b"\xff" * 80, "can't be read"),
    }
    for name, (content, says) in cases.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ImageError, match=says):
            read_labels(tmp_path / name)
    halves = _nifti(tmp_path / "halves.nii", np.full((2, 2, 2), 0.5, np.float32))
    with pytest.raises(ImageError, match="not whole"):
        read_labels(halves)


def test_without_nibabel_the_extra_is_named(tmp_path: Path, monkeypatch):
    (tmp_path / "a.nii").write_bytes(b"\0" * 400)
    monkeypatch.setitem(sys.modules, "nibabel", None)
    with pytest.raises(MissingExtraError, match=r"pellucid\[volume\]"):
        found(tmp_path / "a.nii")


# ------------------------------------------------------------------------------------------------------------- limits


def test_what_unpacks_beyond_the_limit_is_refused(tmp_path: Path):
    with gzip.open(tmp_path / "bomb.nii.gz", "wb") as file:
        file.write(bytes(3 * 10**6))
    assert (tmp_path / "bomb.nii.gz").stat().st_size < 10**4
    with pytest.raises(ImageError, match="larger than 1,000,000 bytes"):
        read_labels(tmp_path / "bomb.nii.gz", Limits(max_bytes=10**6))


def test_what_has_more_pixels_than_the_limit_is_refused(tmp_path: Path):
    Image.fromarray(LABELS).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", LABELS)
    for name in ("a.png", "a.npy"):
        with pytest.raises(ImageError, match=r"shape \(2, 3\); labels have 1 to 5 pixels"):
            read_labels(tmp_path / name, TINY)


def test_a_png_that_announces_too_much_is_refused_unread(tmp_path: Path):
    def chunk(kind: bytes, content: bytes) -> bytes:
        return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))

    head = chunk(b"IHDR", struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0))
    content = b"\x89PNG\r\n\x1a\n" + head + chunk(b"IDAT", zlib.compress(b"\0")) + chunk(b"IEND", b"")
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ImageError, match="1 to 100,000,000 pixels"):
        read_labels(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        ("a.png", b"\x89PNG\r\n\x1a\n rest", "not what its name says"),
        ("a.png", b"GIF89a", "not what its name says"),
        ("a.png", b"", "not what its name says"),
        ("a.tif", b"II*\0", "give one of .png, .npy"),
        ("a.gz", b"1234", "can't be read"),
    ],
)
def test_broken_files_are_told(tmp_path: Path, name: str, content: bytes, says: str):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(ImageError, match=says):
        found(tmp_path / name)


def test_missing_files_and_folders_are_told(tmp_path: Path):
    with pytest.raises(ImageError, match="there is no file"):
        found(tmp_path / "nowhere.png")
    with pytest.raises(ImageError, match="can't be read"):
        found(tmp_path)
    with pytest.raises(ImageError, match="can't be read"):
        regions("a\0b.png", PIXELS)


# -------------------------------------------------------------------------------------------------------------- names


@pytest.mark.parametrize(
    "text",
    [
        "Index,Code,Name\n1,x,sky\n2,x,sun\n",
        "\ufeffname,LABEL\nsky,1\nsun,2\n",
        'a,b\n1,sky\n\n2,"sun"\nhead,none\n-3,no\n',
        "value,colour,structure,more\r\n1,red,sky,0\r\n2,red,sun,0\r\n",
    ],
)
def test_names_are_read_from_tables(tmp_path: Path, text: str):
    (tmp_path / "names.csv").write_text(text, encoding="utf-8")
    (tmp_path / "names.tsv").write_text(text.replace(",", "\t"), encoding="utf-8")
    assert read_names(tmp_path / "names.csv") == read_names(tmp_path / "names.tsv") == {1: "sky", 2: "sun"}


@pytest.mark.parametrize("content", [b"", b"Index,Name\n", b"\xff\xfe\0\0", b"a,b\n" + b"x" * 200_000 + b",c\n"])
def test_tables_without_names_are_told(tmp_path: Path, content: bytes):
    (tmp_path / "names.csv").write_bytes(content)
    with pytest.raises(ImageError, match=r"(table of names|names of labels)"):
        regions(np.array([[0, 1, 1]]), torch.zeros(3, 1, 3), names=str(tmp_path / "names.csv"))
