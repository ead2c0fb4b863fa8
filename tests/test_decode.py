"""Every way a picture gets in: the same upright RGB, and whatever was done on the way is said."""

import io
import struct
import warnings
import zlib
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from PIL import Image

from pellucid.core.errors import ImageError
from pellucid.images import Limits, Picture, decode

RGB = np.random.default_rng(0).integers(0, 256, (13, 7, 3), dtype=np.uint8)
WIDE = np.array([[0, 257, 1000], [30000, 65000, 65535]], np.uint16)
WIDE_IN_8 = np.rint(WIDE / 257).astype(np.uint8)


def encoded(image: Image.Image | np.ndarray, format: str, **options: object) -> bytes:
    file = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(file, format, **options)
    return file.getvalue()


def png(width: int, height: int, depth: int, colour: int, rows: bytes, extra: bytes = b"") -> bytes:
    """A PNG written by hand, for what Pillow does not write."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + extra + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


LOSSLESS = {
    "PNG": {},
    "WEBP": {"lossless": True},
    "TIFF": {},
    "BMP": {},
}


@pytest.mark.parametrize("format", LOSSLESS)
def test_lossless_formats_return_the_pixels(format: str, tmp_path: Path) -> None:
    path = tmp_path / f"picture.{format.lower()}"
    path.write_bytes(encoded(RGB, format, **LOSSLESS[format]))
    for source in (path, str(path), path.read_bytes(), bytearray(path.read_bytes()), Image.open(path)):
        picture = decode(source)
        assert np.array_equal(picture.pixels, RGB)
        assert picture.notes == ()
        assert picture.size_px == (13, 7)
        assert picture.pixels.flags.writeable
    assert decode(path).name == decode(Image.open(path)).name == path.name
    assert decode(path.read_bytes()).name == "image"


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_adobe_deflate", "packbits"])
def test_compressed_tiff(compression: str) -> None:
    assert np.array_equal(decode(encoded(RGB, "TIFF", compression=compression)).pixels, RGB)


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"subsampling": 2}])
def test_jpeg_is_what_pillow_reads(options: dict[str, object]) -> None:
    smooth = Image.fromarray(RGB).resize((40, 30))
    data = encoded(smooth, "JPEG", quality=95, **options)
    assert np.array_equal(decode(data).pixels, np.asarray(Image.open(io.BytesIO(data))))


def test_gif_first_frame_is_taken_and_said() -> None:
    frames = [Image.new("P", (5, 4), k) for k in range(3)]
    for frame in frames:
        frame.putpalette([255, 0, 0, 0, 255, 0, 0, 0, 255])
    picture = decode(encoded(frames[0], "GIF", save_all=True, append_images=frames[1:]))
    assert picture.notes == ("first of 3 frames",)
    assert (picture.pixels == [255, 0, 0]).all()


def test_still_gif_says_nothing() -> None:
    assert decode(encoded(Image.new("L", (4, 4), 77), "GIF")).notes == ()


@pytest.mark.parametrize(
    ("format", "note"), [("TIFF", "first of 2 pages"), ("WEBP", "first of 2 frames"), ("PNG", "first of 2 frames")]
)
def test_first_of_several(format: str, note: str) -> None:
    second = Image.fromarray(255 - RGB)
    options = {"lossless": True} if format == "WEBP" else {}
    picture = decode(encoded(RGB, format, save_all=True, append_images=[second], **options))
    assert picture.notes == (note,)
    assert np.array_equal(picture.pixels, RGB)


def test_first_picture_of_a_phones_jpeg() -> None:
    data = encoded(RGB, "MPO", save_all=True, append_images=[Image.fromarray(255 - RGB)])
    picture = decode(data)
    assert picture.notes == ("first of 2 pictures in the file",)
    assert np.array_equal(picture.pixels, np.asarray(Image.open(io.BytesIO(data))))


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation(format: str, orientation: int) -> None:
    """The definition of the tag, pixel by pixel: which visual side the stored row 0 and column 0 are."""
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format == "WEBP" else {}
    picture = decode(encoded(RGB, format, exif=exif, **options))
    height, width = RGB.shape[:2]
    upright = np.zeros((height, width, 3) if orientation < 5 else (width, height, 3), np.uint8)
    for i in range(height):
        for j in range(width):
            place = {
                1: (i, j),
                2: (i, width - 1 - j),
                3: (height - 1 - i, width - 1 - j),
                4: (height - 1 - i, j),
                5: (j, i),
                6: (j, height - 1 - i),
                7: (width - 1 - j, height - 1 - i),
                8: (width - 1 - j, i),
            }[orientation]
            upright[place] = RGB[i, j]
    assert np.array_equal(picture.pixels, upright)
    assert picture.notes == (() if orientation == 1 else (f"turned upright (EXIF orientation {orientation})",))


def test_exif_orientation_of_a_pillow_image_leaves_the_image_alone() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    image = Image.open(io.BytesIO(encoded(RGB, "PNG", exif=exif)))
    assert decode(image).size_px == (7, 13)
    assert image.size == (7, 13)
    assert np.array_equal(np.asarray(image), RGB)


@pytest.mark.parametrize(
    "exif", [b"Exif\0\0rubbish", b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0MM\0*\0\0\0\x08\xff\xff"]
)
def test_damaged_exif_does_not_cost_the_picture(exif: bytes) -> None:
    data = encoded(Image.fromarray(RGB), "JPEG", exif=exif)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert decode(data).size_px == (13, 7)


def test_palette_grey_and_one_bit() -> None:
    palette = Image.fromarray(RGB).quantize(16)
    assert np.array_equal(decode(encoded(palette, "PNG")).pixels, np.asarray(palette.convert("RGB")))
    grey = Image.fromarray(RGB[:, :, 0])
    assert np.array_equal(decode(encoded(grey, "PNG")).pixels, RGB[:, :, :1].repeat(3, axis=2))
    bits = Image.fromarray(RGB[:, :, 0] > 127)
    for format in ("PNG", "TIFF", "BMP"):
        assert np.array_equal(decode(encoded(bits, format)).pixels[:, :, 1], (RGB[:, :, 0] > 127) * np.uint8(255))


@pytest.mark.parametrize("mode", ["RGBA", "LA"])
@pytest.mark.parametrize("format", ["PNG", "TIFF", "WEBP"])
def test_alpha_is_laid_on_white(mode: str, format: str) -> None:
    alpha = RGB[:, :, 1].copy()
    image = Image.fromarray(RGB).convert(mode)
    image.putalpha(Image.fromarray(alpha))
    options = {"lossless": True, "exact": True} if format == "WEBP" else {}
    picture = decode(encoded(image, format, **options))
    colour = np.asarray(image.convert("RGBA")).astype(float)[:, :, :3]
    a = alpha[:, :, None] / 255
    assert np.abs(picture.pixels - (a * colour + (1 - a) * 255)).max() <= 1
    assert picture.notes == ("transparency laid on white",)
    assert np.abs(decode(image).pixels.astype(int) - picture.pixels).max() == 0


def test_opaque_alpha_says_nothing() -> None:
    opaque = np.dstack([RGB, np.full(RGB.shape[:2], 255, np.uint8)])
    for source in (encoded(opaque, "PNG"), Image.fromarray(opaque), opaque, opaque / 255):
        picture = decode(source)
        assert picture.notes == ()
        assert np.array_equal(picture.pixels, RGB)


def test_transparent_colours_of_png_and_gif() -> None:
    image = Image.new("P", (2, 2))
    image.putdata([0, 1, 2, 1])
    image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
    expected = [[[10, 20, 30], [255, 255, 255]], [[70, 80, 90], [255, 255, 255]]]
    for format in ("PNG", "GIF"):
        picture = decode(encoded(image, format, transparency=1))
        assert picture.pixels.tolist() == expected
        assert picture.notes == ("transparency laid on white",)
    key = chunk(b"tRNS", struct.pack(">H", 1000))
    picture = decode(png(2, 1, 16, 0, b"\0" + np.array([1000, 257], ">u2").tobytes(), key))
    assert picture.pixels[:, :, 0].tolist() == [[255, 1]]
    assert picture.notes == ("16-bit grey scaled to 8 bits", "transparency laid on white")


def test_cmyk() -> None:
    cmyk = Image.new("CMYK", (4, 3), (255, 0, 0, 0))
    for data in (encoded(cmyk, "JPEG", quality=100), encoded(cmyk, "TIFF")):
        picture = decode(data)
        assert np.abs(picture.pixels.astype(int) - [0, 255, 255]).max() <= 2
        assert picture.notes == ("CMYK converted to RGB without its colour profile",)


@pytest.mark.parametrize("format", ["PNG", "TIFF"])
def test_16_bit_grey_files(format: str) -> None:
    picture = decode(encoded(Image.fromarray(WIDE), format))
    assert np.array_equal(picture.pixels, WIDE_IN_8[:, :, None].repeat(3, axis=2))
    assert picture.notes == ("16-bit grey scaled to 8 bits",)


@pytest.mark.parametrize("dark", [False, True])
def test_16_bit_grey_in_every_pillow_mode(dark: bool) -> None:
    values = WIDE // 300 if dark else WIDE
    wanted = np.rint(values / 257).astype(np.uint8)
    big_endian = Image.frombytes("I;16B", (3, 2), values.astype(">u2").tobytes())
    for image in (Image.fromarray(values), big_endian):
        assert np.array_equal(decode(image).pixels[:, :, 0], wanted)
        assert decode(image).notes == ("16-bit grey scaled to 8 bits",)


def test_32_bit_grey() -> None:
    assert np.array_equal(decode(Image.fromarray(WIDE.astype(np.int32))).pixels[:, :, 0], WIDE_IN_8)
    picture = decode(encoded(Image.fromarray(RGB[:, :, 0].astype(np.int32)), "TIFF"))
    assert np.array_equal(picture.pixels[:, :, 0], RGB[:, :, 0])
    assert picture.notes == ("32-bit grey with values up to 255 taken as 8 bits",)
    for values in ([[-1, 5]], [[0, 65536]]):
        with pytest.raises(ImageError, match="expected 0 to 65535"):
            decode(encoded(Image.fromarray(np.array(values, np.int32)), "TIFF"))


def test_16_bit_colour_is_said() -> None:
    rows = b"".join(b"\0" + row.astype(">u2").tobytes() for row in RGB.astype(np.uint16) * 257)
    picture = decode(png(7, 13, 16, 2, rows))
    assert np.array_equal(picture.pixels, RGB)
    assert picture.notes == ("16-bit colour reduced to 8 bits",)


def test_float_tiff() -> None:
    unit = RGB[:, :, 0].astype(np.float32) / 255
    for scale, word in ((1, "[0, 1]"), (255, "[0, 255]")):
        picture = decode(encoded(Image.fromarray(unit * np.float32(scale)), "TIFF"))
        assert np.array_equal(picture.pixels[:, :, 2], RGB[:, :, 0])
        assert len(picture.notes) == 1 and word in picture.notes[0]
    for bad in (-0.5, 256.0, np.nan, np.inf):
        with pytest.raises(ImageError, match="expected 0 to 1 or 0 to 255"):
            decode(encoded(Image.fromarray(np.array([[0.5, bad]], np.float32)), "TIFF"))


def test_arrays() -> None:
    assert np.array_equal(decode(RGB).pixels, RGB)
    assert decode(RGB).name == "array"
    assert np.array_equal(decode(RGB / 255).pixels, RGB)
    assert np.array_equal(
        decode((RGB / 255).astype(np.float16)).pixels, np.rint((RGB / 255).astype(np.float16) * 255.0)
    )
    for grey in (RGB[:, :, 0], RGB[:, :, :1], RGB[:, :, 0] / 255):
        assert np.array_equal(decode(grey).pixels, RGB[:, :, :1].repeat(3, axis=2))
    assert np.array_equal(decode(RGB[:, :, 0] > 99).pixels[:, :, 0], (RGB[:, :, 0] > 99) * 255)
    for wide in (WIDE, WIDE.astype(">u2")):
        assert np.array_equal(decode(wide).pixels[:, :, 1], WIDE_IN_8)
        assert decode(wide).notes == ("16-bit values scaled to 8 bits",)
    turned = RGB.transpose(1, 0, 2)[::-1]
    assert np.array_equal(decode(turned).pixels, turned)


@pytest.mark.parametrize("array", [RGB, RGB[:, :, :1], np.dstack([RGB, RGB[:, :, 0]])])
def test_the_picture_shares_nothing_with_the_array(array: np.ndarray) -> None:
    source = array.copy()
    picture = decode(source)
    before = picture.pixels.copy()
    source[:] = 0
    assert np.array_equal(picture.pixels, before)


def test_a_picture_is_returned_as_it_is() -> None:
    picture = decode(RGB)
    assert decode(picture) is picture
    assert np.array_equal(np.asarray(picture.image()), RGB)
    assert "13 x 7" in repr(picture)


@settings(max_examples=60, deadline=None)
@given(hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9).map(lambda s: (*s, 3))))
def test_round_trip_through_png(pixels: np.ndarray) -> None:
    assert np.array_equal(decode(encoded(pixels, "PNG")).pixels, pixels)


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 65535))
def test_16_bit_scaling_is_the_rounded_quotient(value: int) -> None:
    assert decode(np.array([[value]], np.uint16)).pixels[0, 0, 0] == round(value / 257)


def test_threads_decode_alike_and_leave_the_warning_filters_alone() -> None:
    files = [encoded(np.roll(RGB, k, axis=0), "PNG") for k in range(8)]
    before = list(warnings.filters)
    with ThreadPoolExecutor(8) as pool:
        pictures = list(pool.map(decode, files * 20))
    assert all(np.array_equal(p.pixels, np.roll(RGB, k % 8, axis=0)) for k, p in enumerate(pictures))
    assert list(warnings.filters) == before


@pytest.mark.parametrize(
    "folder", ["imagenet_sample/images", "coco_loc/images", "natural_adversarial", "coco_loc/masks"]
)
def test_real_pictures(folder: str, data: Path) -> None:
    paths = [p for p in sorted((data / folder).iterdir()) if p.suffix.lower() in (".jpeg", ".jpg", ".png")]
    for path in paths[:30]:
        image = Image.open(path)
        assert np.array_equal(decode(path).pixels, np.asarray(image.convert("RGB"))), path
        assert decode(path).notes == (), path
    assert paths


def test_a_large_fundus_photograph(data: Path) -> None:
    picture = decode(data / "fundus_idrid" / "IDRiD_17.jpg")
    assert isinstance(picture, Picture)
    assert picture.size_px == (2848, 4288)
    with pytest.raises(ImageError, match="beyond the limit"):
        decode(data / "fundus_idrid" / "IDRiD_17.jpg", Limits(max_pixels=12_000_000))
