"""What can't be a picture is refused in one sentence of ours, before any harm, whatever Pillow's switches say."""

import importlib.util
import io
import os
import struct
import sys
import threading
import warnings
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageFile

from pellucid.core.errors import ImageError
from pellucid.images import Limits, Picture, decode
from test_decode import RGB, encoded, png

SMOOTH = np.asarray(Image.fromarray(RGB).resize((160, 120)))
FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
FILES = {format: encoded(SMOOTH, format) for format in FORMATS}
FILES["TIFF-LZW"] = encoded(SMOOTH, "TIFF", compression="tiff_lzw")


@pytest.fixture
def unchecked() -> ModuleType:
    """decode without the type checks of the test run, as users have it."""
    origin = sys.modules["pellucid.images.decode"].__file__
    spec = importlib.util.spec_from_file_location("decode_as_users_have_it", origin)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    yield module
    del sys.modules[spec.name]


def test_missing_file_and_folder(tmp_path) -> None:
    with pytest.raises(ImageError, match="there is no file"):
        decode(tmp_path / "none.png")
    with pytest.raises(ImageError, match="is a folder"):
        decode(tmp_path)
    with pytest.raises(ImageError, match="is a folder"):
        decode(".")
    with pytest.raises(ImageError, match="no file"):
        decode("")
    with pytest.raises(ImageError, match="can't be read"):
        decode("a\0b.png")
    with pytest.raises(ImageError, match="can't be read"):
        decode("x" * 5000)
    with pytest.raises(ImageError, match="download"):
        decode("https://example.org/cat.jpg")


@pytest.mark.skipif(os.name != "posix" or os.geteuid() == 0, reason="root may read everything")
def test_unreadable_file(tmp_path) -> None:
    path = tmp_path / "secret.png"
    path.write_bytes(FILES["PNG"])
    path.chmod(0)
    with pytest.raises(ImageError, match="can't be read: Permission denied"):
        decode(path)


def test_empty_file(tmp_path) -> None:
    (tmp_path / "empty.jpg").touch()
    with pytest.raises(ImageError, match=r'"empty.jpg" is empty \(0 bytes\)'):
        decode(tmp_path / "empty.jpg")
    with pytest.raises(ImageError, match="empty"):
        decode(b"")


@pytest.mark.parametrize(
    ("data", "word"),
    [
        (b"hello, I am text", "is not a picture"),
        (b"%PDF-1.7 ...", "PDF"),
        (b"PK\x03\x04....", "zip"),
        (b"\x1f\x8b\x08....", "gzip"),
        (b"\0\0\0\x18ftypheic....", "HEIC"),
        (b"\0" * 128 + b"DICM....", "DICOM"),
        (b"<!DOCTYPE html><html>", "HTML"),
        (b"\n <svg xmlns=", "SVG"),
        (b"\x89PNG\r\n\x1a\n", "begins like a PNG"),
        (b"\xff\xd8\xff", "begins like a JPEG"),
        (b"P6 1 1 255 abc", "is not a picture"),  # a PPM: Pillow could, the allow-list does not
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "is not a picture"),
    ],
)
def test_not_a_picture(data: bytes, word: str) -> None:
    with pytest.raises(ImageError, match=word):
        decode(data)


@pytest.mark.parametrize("lenient", [False, True], ids=["as Pillow comes", "LOAD_TRUNCATED_IMAGES"])
@pytest.mark.parametrize("kept", [0.02, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("format", FILES)
def test_truncated(format: str, kept: float, lenient: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", lenient)
    data = FILES[format]
    with pytest.raises(ImageError, match=r"damaged|not a picture|truncated"):
        decode(data[: int(len(data) * kept)])
    assert ImageFile.LOAD_TRUNCATED_IMAGES is lenient


@pytest.mark.parametrize("format", FILES)
def test_whole_files_pass_also_where_pillow_bears_truncation(format: str, monkeypatch: pytest.MonkeyPatch) -> None:
    before = decode(FILES[format]).pixels
    monkeypatch.setattr(ImageFile, "LOAD_TRUNCATED_IMAGES", True)
    assert np.array_equal(decode(FILES[format]).pixels, before)


@settings(max_examples=150, deadline=None)
@given(st.sampled_from(sorted(FILES)), st.lists(st.tuples(st.integers(0, 400), st.integers(0, 255)), max_size=6))
def test_damage_gives_a_picture_or_our_error(format: str, hits: list[tuple[int, int]]) -> None:
    data = bytearray(FILES[format])
    for place, value in hits:
        data[place % len(data)] = value
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        try:
            assert isinstance(decode(bytes(data), Limits(max_pixels=1_000_000)), Picture)
        except ImageError as error:
            assert "\n" not in str(error)


def bombs() -> dict[str, bytes]:
    """Small files that declare 60,000 x 60,000 pixels or more, or as many as the format allows."""
    gif, bmp, tiff = (bytearray(FILES[name]) for name in ("GIF", "BMP", "TIFF"))
    gif[6:10] = struct.pack("<HH", 60000, 60000)
    bmp[18:26] = struct.pack("<ii", 60000, 60000)
    tiff = bytearray(encoded(np.zeros((1, 1), np.uint8), "TIFF", tiffinfo={}))
    for tag in (256, 257):
        place = tiff.index(struct.pack("<H", tag), struct.unpack("<I", tiff[4:8])[0])
        tiff[place + 2 : place + 12] = struct.pack("<HII", 4, 1, 60000)
    vp8x = b"VP8X" + struct.pack("<I", 10) + b"\0" * 4 + (59999).to_bytes(3, "little") * 2
    lossless = b"VP8L" + struct.pack("<I", 30) + b"\x2f" + struct.pack("<I", 16382 | 16382 << 14) + b"\0" * 25
    lossy = b"VP8 " + struct.pack("<I", 30) + b"\0\0\0\x9d\x01\x2a" + struct.pack("<HH", 16383, 16383) + b"\0" * 20
    webp = {
        f"WEBP {body[:4].decode()}": b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body
        for body in (vp8x, lossless, lossy)
    }
    return {"PNG": png(60000, 60000, 8, 2, b"\0"), "GIF": bytes(gif), "BMP": bytes(bmp), "TIFF": bytes(tiff), **webp}


@pytest.mark.parametrize("pillows_limit", ["default", None, 10], ids=str)
@pytest.mark.parametrize("name", bombs())
def test_bombs_are_refused_from_the_header(name: str, pillows_limit, monkeypatch: pytest.MonkeyPatch) -> None:
    if pillows_limit != "default":
        monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", pillows_limit)
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda *_: pytest.fail("decoded before the limit was checked"))
    with pytest.raises(ImageError, match=r"limit of 100,000,000"):
        decode(bombs()[name])


def test_limits_are_the_callers() -> None:
    assert decode(FILES["PNG"], Limits(max_pixels=160 * 120)).size_px == (120, 160)
    for source in (FILES["PNG"], SMOOTH, Image.fromarray(SMOOTH)):
        with pytest.raises(ImageError, match=r"120 x 160 = 19,200 pixels, beyond the limit of 19,199"):
            decode(source, Limits(max_pixels=160 * 120 - 1))


def test_byte_limit(tmp_path) -> None:
    path = tmp_path / "heavy.png"
    path.write_bytes(FILES["PNG"])
    exact = len(FILES["PNG"])
    assert decode(path, Limits(max_bytes=exact)).size_px == (120, 160)
    for source in (path, FILES["PNG"]):
        with pytest.raises(ImageError, match=r"larger than"):
            decode(source, Limits(max_bytes=exact - 1))


def test_pillows_warnings_stay_inside(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 120 * 160 - 1)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for data in FILES.values():
            assert decode(data).size_px == (120, 160)


def test_warnings_of_others_come_through() -> None:
    with pytest.warns(UserWarning, match="mine"):
        decode(FILES["PNG"])
        warnings.warn("mine", stacklevel=1)


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0, 3), (4, 0, 3)])
def test_zero_size(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="no pixels"):
        decode(np.zeros(shape, np.uint8))
    with pytest.raises(ImageError, match="no pixels"):
        decode(Image.new("RGB", (shape[0], shape[1])))


@pytest.mark.parametrize("shape", [(), (5,), (2, 5, 2), (5, 5, 5), (1, 5, 5, 3), (3, 7, 9)])
def test_wrong_array_shapes(shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="is no picture; expected") as caught:
        decode(np.zeros(shape, np.uint8))
    assert ("transpose(1, 2, 0)" in str(caught.value)) == (shape == (3, 7, 9))


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, -0.01, 1.01, 255.0])
def test_floats_outside(bad: float) -> None:
    array = np.full((4, 4, 3), 0.5)
    array[2, 1, 0] = bad
    with pytest.raises(ImageError, match=r"must lie in \[0, 1\]") as caught:
        decode(array)
    assert ("array / 255" in str(caught.value)) == (bad in (1.01, 255.0))


@pytest.mark.parametrize("dtype", [np.int64, np.int8, np.uint32, np.complex64, object, "U1", "datetime64[s]"])
def test_wrong_array_types(dtype) -> None:
    with pytest.raises(ImageError, match="expected uint8"):
        decode(np.zeros((4, 4, 3), dtype))


def test_unusable_pillow_images() -> None:
    closed = Image.open(io.BytesIO(FILES["PNG"]))
    closed.close()
    truncated = Image.open(io.BytesIO(FILES["JPEG"][:900]))
    for image in (closed, truncated):
        with pytest.raises(ImageError, match="can't be used"):
            decode(image)


def test_things_that_are_no_picture_at_all(unchecked: ModuleType) -> None:
    for thing in (None, 5, [[1, 2]], SimpleNamespace(size=3), object):
        with pytest.raises(ImageError, match="can't be made from"):
            unchecked.decode(thing)


def test_a_picture_checks_itself(unchecked: ModuleType) -> None:
    for pixels in (RGB[:, :, :1], RGB[:0], RGB[0], RGB / 255):
        with pytest.raises(ImageError, match="holds uint8"):
            unchecked.Picture(pixels, "x")


def test_refusals_in_many_threads() -> None:
    found: list[str] = []

    def attempt() -> None:
        for _ in range(20):
            try:
                decode(FILES["PNG"][:300])
            except ImageError as error:
                found.append(str(error))

    threads = [threading.Thread(target=attempt) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 120
    assert len(set(found)) == 1
