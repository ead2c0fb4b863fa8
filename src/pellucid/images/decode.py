"""Pictures from files, bytes, Pillow and numpy, always as upright 8-bit RGB; what was done on the way is said."""

import io
import os
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from PIL import Image, ImageFile

from pellucid.core.errors import ImageError
from pellucid.images.colour import on_white, to_bytes, to_rgb

FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "TIFF", "BMP")
_READABLE = "JPEG, PNG, WebP, GIF, TIFF and BMP are read"
_ORIENTATION_TAG = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_OURS = {
    b"\xff\xd8": "JPEG",
    b"\x89PNG": "PNG",
    b"RIFF": "WebP",
    b"GIF8": "GIF",
    b"II*\0": "TIFF",
    b"MM\0*": "TIFF",
    b"BM": "BMP",
}
_FOREIGN = {
    (0, b"%PDF"): "a PDF document",
    (0, b"PK\x03\x04"): "a zip archive",
    (0, b"\x1f\x8b"): "a gzip archive",
    (4, b"ftyp"): "a HEIC, AVIF or video file",
    (128, b"DICM"): "a DICOM file",
}


@dataclass(frozen=True)
class Limits:
    """What a picture may weigh before it is refused: pixels (read from the header, before decoding) and bytes."""

    max_pixels: int = 100_000_000
    max_bytes: int = 256 * 1024 * 1024


@dataclass(frozen=True, eq=False)
class Picture:
    """One picture as people see it.

    Attributes:
        pixels: upright RGB, 0 to 255.
        name: file name, or "image" / "array" where there is none.
        notes: what was done on the way, one phrase each, such as "first of 12 frames".
    """

    pixels: UInt8[np.ndarray, "h w 3"]
    name: str
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        shape, dtype = self.pixels.shape, self.pixels.dtype
        if dtype != np.uint8 or len(shape) != 3 or shape[2] != 3 or 0 in shape:
            raise ImageError(
                f"a picture holds uint8 pixels of shape (h, w, 3), not {dtype} {shape}; try decode, which converts"
            )

    @property
    def size_px(self) -> tuple[int, int]:
        """Height and width in pixels."""
        return self.pixels.shape[0], self.pixels.shape[1]

    def image(self) -> Image.Image:
        """The picture for Pillow."""
        return Image.fromarray(self.pixels)

    def __repr__(self) -> str:
        height, width = self.size_px
        return f"Picture({self.name!r}, {height} x {width} px{''.join(f', {note}' for note in self.notes)})"


Source = str | os.PathLike[str] | bytes | bytearray | memoryview | Image.Image | np.ndarray | Picture


def decode(source: Source, limits: Limits = Limits()) -> Picture:
    """Read one picture, whatever it comes in, as upright 8-bit RGB.

    EXIF orientation is applied, transparency is laid on white, 16-bit values are divided by 257, of several frames or
    pages the first is taken; each is said in `notes`. Colour profiles are not applied (networks are trained without).

    Args:
        source: a path, the bytes of a file, a Pillow image, or an array (h, w), (h, w, 1), (h, w, 3) or (h, w, 4) of
            uint8, bool, uint16 or floats in [0, 1]. A `Picture` is returned as it is.
        limits: refuse what is larger; pixels are counted from the header, before anything is decoded.

    Returns:
        The picture, with pixels of its own: the source is neither changed nor shared.

    Raises:
        ImageError: missing, empty, truncated, too large, not a picture, or an array that can't be one.
    """
    if isinstance(source, Picture):
        return source
    if isinstance(source, np.ndarray):
        return _from_array(source, limits)
    with _silence:
        if isinstance(source, Image.Image):
            return _from_pillow(source, limits)
        if isinstance(source, bytes | bytearray | memoryview):
            return _from_bytes(bytes(source), "image", limits)
        if isinstance(source, str | os.PathLike):
            return _from_bytes(_read(source, limits), Path(source).name, limits)
    raise ImageError(
        f"a picture can't be made from {type(source).__module__}.{type(source).__name__}; "
        "give a path, the bytes of a file, a PIL image or a numpy array (h, w, 3)"
    )


class _Silence:
    """Mutes warnings raised inside Pillow while any thread decodes; shared, because warning filters are global."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._inside = 0
        self._filters = warnings.catch_warnings()

    def __enter__(self) -> None:
        with self._lock:
            if self._inside == 0:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.filterwarnings("ignore", module=r"PIL(\.|$)")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if self._inside == 0:
                self._filters.__exit__(None, None, None)


_silence = _Silence()


class _Whole(io.BytesIO):
    """Bytes that refuse to be read past their end: truncation stays an error where Pillow is set to bear it."""

    def read(self, size: int | None = -1, /) -> bytes:
        data = super().read(size)
        if size and not data:
            raise OSError("image file is truncated")
        return data


@contextmanager
def _plainly(complaint: str) -> Iterator[None]:
    """Turn whatever Pillow raises on a bad file into one sentence."""
    try:
        yield
    except ImageError:
        raise
    except Exception as error:
        reason = f" ({error})" if str(error) else ""
        raise ImageError(f"{complaint}{reason}") from error


def _read(source: str | os.PathLike[str], limits: Limits) -> bytes:
    path = os.fspath(source)
    if path.startswith(("http://", "https://")):
        raise ImageError(f'"{path}" is an address, not a file; download the picture first')
    try:
        if os.path.isdir(path):
            raise ImageError(f'"{path}" is a folder; give one picture in it')
        with open(path, "rb") as file:
            return file.read(limits.max_bytes + 1)
    except FileNotFoundError as error:
        raise ImageError(f'there is no file "{path}" (looked from {os.getcwd()})') from error
    except (OSError, ValueError) as error:
        raise ImageError(f'"{path}" can\'t be read: {getattr(error, "strerror", None) or error}') from error


def _from_bytes(data: bytes, name: str, limits: Limits) -> Picture:
    if not data:
        raise ImageError(f'"{name}" is empty (0 bytes); {_READABLE}')
    if len(data) > limits.max_bytes:
        raise ImageError(
            f'"{name}" is larger than {limits.max_bytes:,} bytes; make it smaller or raise Limits(max_bytes=…)'
        )
    _check_pixels(_webp_size(data[:30]), name, limits)
    loaded = _open(data, name, limits)
    _check_pixels(loaded.size, name, limits)
    with _plainly(f'"{name}" is a damaged or truncated {loaded.format}; get the file again'):
        return _picture(loaded, name, _notes_before_loading(loaded))


def _open(data: bytes, name: str, limits: Limits) -> ImageFile.ImageFile:
    file = _Whole(data) if ImageFile.LOAD_TRUNCATED_IMAGES else io.BytesIO(data)
    try:
        return Image.open(file, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise ImageError(
            f'"{name}" is beyond the limit of {limits.max_pixels:,} pixels or of Pillow itself ({error}); '
            "make it smaller, or raise both Limits(max_pixels=…) and PIL.Image.MAX_IMAGE_PIXELS"
        ) from error
    except Exception as error:
        raise ImageError(f'"{name}" {_guess(data)}; {_READABLE}') from error


def _guess(data: bytes) -> str:
    """What an unreadable file seems to be, told by its first bytes."""
    for (offset, magic), kind in _FOREIGN.items():
        if data[offset:].startswith(magic):
            return f"is {kind}, not a picture that can be read here"
    for magic, kind in _OURS.items():
        if data.startswith(magic):
            return f"begins like a {kind} but is damaged, truncated or of a kind that is not supported"
    text = data[:512].lstrip().lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html")):
        return "is a text document (SVG, XML or HTML), not a picture of pixels"
    return "is not a picture"


def _webp_size(head: bytes) -> tuple[int, int]:
    """Width and height from a WebP header, as Pillow allocates the canvas on opening; (1, 1) for anything else."""
    if head[:4] != b"RIFF" or head[8:12] != b"WEBP" or len(head) < 30:
        return 1, 1
    if head[12:16] == b"VP8X":
        return 1 + int.from_bytes(head[24:27], "little"), 1 + int.from_bytes(head[27:30], "little")
    if head[12:16] == b"VP8L":
        bits = int.from_bytes(head[21:25], "little")
        return 1 + (bits & 0x3FFF), 1 + (bits >> 14 & 0x3FFF)
    return int.from_bytes(head[26:28], "little") & 0x3FFF, int.from_bytes(head[28:30], "little") & 0x3FFF


def _check_pixels(size: tuple[int, int], name: str, limits: Limits) -> None:
    width, height = size
    if width < 1 or height < 1:
        raise ImageError(f'"{name}" has no pixels ({height} x {width})')
    if width * height > limits.max_pixels:
        raise ImageError(
            f'"{name}" has {height:,} x {width:,} = {width * height:,} pixels, beyond the limit of '
            f"{limits.max_pixels:,}; make it smaller or raise Limits(max_pixels=…)"
        )


def _notes_before_loading(image: ImageFile.ImageFile) -> list[str]:
    """What only the header tells: several frames, and 16-bit colour, which Pillow reduces without a word."""
    frames = getattr(image, "n_frames", 1)
    kind = {"TIFF": "pages", "MPO": "pictures in the file"}.get(image.format or "", "frames")
    notes = [f"first of {frames} {kind}"] if frames > 1 else []
    if _sixteen_bits(image) and not image.mode.startswith("I"):
        notes.append("16-bit colour reduced to 8 bits")
    return notes


def _sixteen_bits(image: Image.Image) -> bool:
    """Whether the file stores 16 bits a channel, told before loading."""
    return any(";16" in str(tile[3]) for tile in getattr(image, "tile", ()))


def _from_pillow(image: Image.Image, limits: Limits) -> Picture:
    name = Path(str(getattr(image, "filename", "") or "image")).name
    _check_pixels(image.size, name, limits)
    with _plainly(f'the PIL image "{name}" of mode {image.mode} can\'t be used'):
        return _picture(image, name, [])


def _picture(image: Image.Image, name: str, notes: list[str]) -> Picture:
    stored, sixteen = _orientation(image), _sixteen_bits(image)
    image.load()
    remaining = _orientation(image)  # 1 where Pillow has turned a TIFF itself
    rgb, colour_notes = to_rgb(image, name, sixteen)
    if stored is None:
        notes = [*notes, "EXIF data unreadable, orientation unknown"]
    elif stored in _UPRIGHT:
        notes = [*notes, f"turned upright (EXIF orientation {stored})"]
    if remaining in _UPRIGHT:
        rgb = rgb.transpose(_UPRIGHT[remaining])
    return Picture(np.array(rgb), name, (*notes, *colour_notes))


def _orientation(image: Image.Image) -> int | None:
    try:
        value = image.getexif().get(_ORIENTATION_TAG, 1)
    except Exception:  # damaged EXIF raises anything, and must not cost the picture
        return None
    return value if isinstance(value, int) else 1


def _from_array(array: np.ndarray, limits: Limits) -> Picture:
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; channels seem to come first: try array.transpose(1, 2, 0)" if first else ""
        raise ImageError(
            f"an array of shape {array.shape} is no picture; expected (h, w), (h, w, 1), (h, w, 3) or (h, w, 4){hint}"
        )
    _check_pixels((array.shape[1], array.shape[0]), "array", limits)
    values, notes = to_bytes(array)
    if values.ndim == 3 and values.shape[2] == 4:
        rgb, more = on_white(Image.fromarray(values))
        return Picture(np.array(rgb), "array", (*notes, *more))
    plane = values if values.ndim == 3 else values[:, :, None]
    return Picture(np.array(np.broadcast_to(plane, (*plane.shape[:2], 3))), "array", notes)
