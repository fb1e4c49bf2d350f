"""Images in every codec that Pillow writes here."""

from __future__ import annotations

import contextlib
import io
import struct
import warnings
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from PIL import Image

from featkit.data import decoding
from tests.fuzzing.mutate import INTERESTING, mutated, mutated_png, png, png_chunks
from tests.fuzzing.target import Case, Target

FILE = "image.bin"


def _picture(mode: str) -> Image.Image:
    rng = np.random.default_rng(0)
    rgb = Image.fromarray(rng.integers(0, 256, (9, 11, 3), dtype=np.uint8))
    if mode == "I;16":
        return Image.fromarray(rng.integers(0, 65536, (9, 11), dtype=np.uint16))
    if mode in ("RGBA", "LA"):
        rgb.putalpha(Image.fromarray(rng.integers(0, 256, (9, 11), dtype=np.uint8)))
    return rgb.convert(mode)


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    exif[0x010E] = "a picture"
    exif.get_ifd(0x8769)[0x9286] = b"a comment"
    return exif.tobytes()


_SAVED = [
    *(("JPEG", mode, {}) for mode in ("RGB", "L", "CMYK")),
    *(("JPEG", "RGB", {"exif": _exif(i)}) for i in (3, 6)),
    ("JPEG", "RGB", {"progressive": True, "quality": 40, "icc_profile": b"icc" * 50}),
    *(("PNG", mode, {}) for mode in ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")),
    ("PNG", "P", {"transparency": 3}),
    ("PNG", "RGB", {"exif": _exif(5), "save_all": True, "append_images": [_picture("RGB")]}),
    ("GIF", "P", {}),
    ("GIF", "P", {"save_all": True, "append_images": [_picture("P")], "transparency": 1}),
    ("BMP", "1", {}), ("BMP", "P", {}), ("BMP", "RGB", {}), ("BMP", "RGBA", {}),
    *(("TIFF", "RGB", {"compression": c})
      for c in (None, "tiff_lzw", "tiff_adobe_deflate", "packbits", "jpeg", "zstd", "lzma")),
    *(("TIFF", mode, {}) for mode in ("1", "L", "P", "RGBA", "CMYK", "I;16", "I", "F", "LAB")),
    ("TIFF", "RGB", {"big_tiff": True, "exif": _exif(8)}),
    ("TIFF", "1", {"compression": "group4"}),
    ("WEBP", "RGB", {}), ("WEBP", "RGBA", {"lossless": True, "exif": _exif(7)}),
    ("WEBP", "RGB", {"save_all": True, "append_images": [_picture("RGB")]}),
    ("PPM", "RGB", {}), ("PPM", "L", {}), ("PPM", "1", {}), ("PPM", "I;16", {}),
    ("AVIF", "RGB", {}), ("AVIF", "RGBA", {}), ("QOI", "RGB", {}), ("QOI", "RGBA", {}),
]  # fmt: skip
_FOREIGN = ("BLP", "DDS", "EPS", "ICNS", "ICO", "IM", "JPEG2000", "MSP", "PCX", "SGI", "SPIDER",
            "TGA", "XBM")  # fmt: skip


@cache
def seeds() -> list[bytes]:
    """Return small images of all kinds that are decoded."""
    Image.init()
    found = []
    for kind, mode, options in _SAVED:
        if kind in Image.SAVE:
            buffer = io.BytesIO()
            _picture(mode).save(buffer, kind, **options)
            found.append(buffer.getvalue())
    found += [b"P3\n2 2\n255\n" + b"1 2 3 " * 4, b"P1\n2 2\n0 1 1 0\n", b"P2 2 1 9 4 7"]
    return found


@cache
def foreign() -> list[bytes]:
    """Return images of kinds that Pillow reads and featkit does not."""
    found = []
    for kind in _FOREIGN:
        mode = {"MSP": "1", "XBM": "1", "SPIDER": "F", "BLP": "P"}.get(kind, "RGB")
        buffer = io.BytesIO()
        with warnings.catch_warnings(action="ignore", category=DeprecationWarning):  # of a kind
            _picture(mode).resize((16, 16)).save(buffer, kind)
        found.append(buffer.getvalue())
    return found


def _bomb(made: tuple[int, int, int, int]) -> bytes:
    """A PNG that says it is large, with rows of zeros as far as they go."""
    width, height, depth, colours = made
    header = struct.pack(">IIBBBBB", width, height, depth, colours, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1 << 20), 9)), (b"IEND", b"")]
    return png(chunks)


def _bombs() -> SearchStrategy[bytes]:
    side = st.sampled_from([*INTERESTING[7:], 9000, 13_000, 20_000])
    return st.tuples(side, side, st.sampled_from([1, 8, 16]), st.sampled_from([0, 2, 3, 4, 6])).map(
        _bomb
    )


TOKENS = (b"\xff\xd8\xff", b"\xff\xc4", b"\xff\xda", b"Exif\0\0", b"acTL", b"fcTL", b"iCCP",
          b"RIFF", b"VP8X", b"ANMF", b"\0;", b"\x21\xff\x0b", b"%!PS", b"\0\0\0\0")  # fmt: skip


def _behind(share: float) -> Callable[[bytes], SearchStrategy[bytes]]:
    """Change what lies behind a share of a file: most of its header stays."""
    return lambda data: mutated(data, TOKENS, start=12 + int(len(data) * share))


def files() -> SearchStrategy[bytes]:
    """Images that were valid, and some that are of no known kind."""
    whole = seeds()
    pngs = [data for data in whole if data.startswith(b"\x89PNG") and png_chunks(data)]
    return st.one_of(
        *(st.sampled_from(whole).flatmap(_behind(share)) for share in (0.1, 0.3, 0.5, 0.5)),
        st.sampled_from(whole).flatmap(lambda data: mutated(data, TOKENS)),
        st.sampled_from(pngs).flatmap(mutated_png),
        st.sampled_from(foreign()).flatmap(lambda data: mutated(data, most=1)),
        _bombs(),
    )


def lay_out(folder: Path) -> None:
    (folder / FILE).write_bytes(seeds()[0])


def starts(folder: Path, _words: tuple[str, ...]) -> object:
    """Whether Pillow knows the kind; a picture that is too large is of one."""
    with contextlib.suppress(Image.DecompressionBombError):
        Image.open(folder / FILE, formats=decoding.FORMATS)
    return True


def read(folder: Path, _words: tuple[str, ...]) -> object:
    from featkit.data.sources import open_source

    (folder / FILE).rename(folder / "image.png")
    try:
        source = open_source(str(folder))
        source.digest(0)
        image = source.read(0)
        assert image.mode == "RGB"
        return [list(image.size), image.resize((1, 1)).getpixel((0, 0))]
    finally:
        (folder / "image.png").rename(folder / FILE)


IMAGES = Target(
    name="images",
    kind="images",
    modules=("featkit.data.decoding", "featkit.data.files"),
    lay_out=lay_out,
    cases=lambda _: files().map(lambda data: Case({FILE: data})),
    starts=starts,
    read=read,
    megabytes=1500,
    output=(".",),
)
