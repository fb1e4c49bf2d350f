"""From the bytes of an image file to RGB pixels, or one short reason why not."""

from __future__ import annotations

import functools
import io
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

import numpy as np
from PIL import ExifTags, Image, UnidentifiedImageError

from featkit.errors import DecodeError, one_line

FORMATS = ("JPEG", "PNG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "QOI")
"""What is decoded. Left out on purpose: EPS (starts an interpreter), TGA and PCX (no signature, so
that noise passes for an image), JPEG 2000 (its decoder fills what a truncated file lacks)."""

_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def decode(data: bytes | BinaryIO) -> Image.Image:
    """Decode one whole image file to upright 8-bit RGB.

    The first frame of an animation is taken, the EXIF orientation applied, transparency dropped and
    16-bit greyscale scaled to 8 bits. An unreadable EXIF block counts as upright.

    Args:
        data: The file's bytes, or a binary file that is read to its end.

    Returns:
        The decoded image, mode ``RGB``.

    Raises:
        DecodeError: The bytes are no image, are truncated or corrupt, or hold pixels of no known
            range. The message is one line and the same wherever the file lies.

    Cost:
        One pass over the file; 3 bytes a pixel, twice that where the mode is converted.

    Example:
        >>> decode(b"P6 2 1 255 " + bytes([255, 0, 0, 0, 0, 255])).getpixel((1, 0))
        (0, 0, 255)
        >>> decode(b"hello")
        Traceback (most recent call last):
        featkit.errors.DecodeError: not an image
    """
    with decode_errors():
        content = data if isinstance(data, bytes) else data.read()
        if not content:
            raise DecodeError("empty file")
        image = open_image(io.BytesIO(content))
        image.load()
        method = _UPRIGHT.get(_orientation(image))
        return to_rgb(image if method is None else image.transpose(method))


def open_image(file: Path | BinaryIO) -> Image.Image:
    """Open an image of a kind that is decoded here; its pixels are not read yet.

    Pillow alone would ask programs of this machine to read what they know, such as Ghostscript.

    Raises:
        Exception: Whatever Pillow raises; see :func:`decode_errors`.
    """
    return Image.open(file, formats=_available_formats())


def to_rgb(image: Image.Image) -> Image.Image:
    """Convert an image of any mode to 8-bit RGB; alpha is dropped, not blended.

    Args:
        image: Any mode. ``I;16`` and ``I`` hold greyscale in 0..65535 and are divided by 257.

    Returns:
        Mode ``RGB``, the same size; ``image`` itself where it is RGB already.

    Raises:
        DecodeError: Floating-point pixels, or integers outside 0..65535.

    Example:
        >>> to_rgb(Image.new("I", (1, 1), 65535)).getpixel((0, 0))
        (255, 255, 255)
    """
    if image.mode == "RGB":
        return image
    if image.mode == "F":
        raise DecodeError("floating-point pixels have no known range; save the image as 8 bit")
    if image.mode.startswith("I"):
        grey = np.asarray(image)
        if grey.size and (grey.min() < 0 or grey.max() > 65535):
            raise DecodeError("32-bit greyscale outside 0..65535; save the image as 8 or 16 bit")
        scaled = np.empty(grey.shape, np.uint8)
        for row, values in zip(scaled, grey, strict=True):  # a picture may be 10^8 pixels
            row[:] = (values.astype(np.int64) + 128) // 257
        return Image.fromarray(scaled).convert("RGB")
    if image.mode in {"La", "RGBa"}:
        image = image.convert(image.mode.upper())
    elif image.mode == "P" and "transparency" in image.info:
        image = image.convert("RGBA")
    return image.convert("RGB")


@contextmanager
def decode_errors() -> Iterator[None]:
    """Turn whatever Pillow raises into `DecodeError`, and keep its warnings to itself.

    Raises:
        DecodeError: In the place of any exception of the body.
    """
    try:
        with warnings.catch_warnings():
            # Restricted to Pillow: threads that decode at once may leave this filter behind.
            warnings.filterwarnings("ignore", module=r"PIL\.")
            yield
    except DecodeError:
        raise
    # Corrupt files make Pillow's plugins raise nearly anything (SyntaxError, struct.error,
    # zlib.error, KeyError, RecursionError, ...), and one bad file may not end an extraction.
    except Exception as error:
        raise DecodeError(_reason(error)) from error


def _reason(error: Exception) -> str:
    """Say why decoding failed, in one line without addresses or paths."""
    if isinstance(error, UnidentifiedImageError):
        return "not an image"
    if isinstance(error, MemoryError):
        return "too large for the memory"
    if isinstance(error, OSError) and error.strerror:
        return f"cannot be read: {error.strerror}"
    text = re.sub(r"<[^<>]* at 0x[0-9a-fA-F]+>|/\S*/\S+", "", str(error))
    text = one_line(text, most=160) if text.strip() else type(error).__name__
    if isinstance(error, Image.DecompressionBombError):
        return f"decompression bomb: {text}"
    return f"truncated: {text}" if "truncated" in text.lower() else f"corrupt: {text}"


def _orientation(image: Image.Image) -> int:
    try:
        value = image.getexif().get(ExifTags.Base.Orientation)
    except Exception:  # noqa: BLE001 - as in decode_errors; metadata never costs good pixels
        return 1
    return value if isinstance(value, int) else 1


@functools.cache
def _available_formats() -> tuple[str, ...]:
    Image.init()
    return tuple(name for name in FORMATS if name in Image.OPEN)
