"""Decoding against hand-made pixels, in files written by Pillow (or byte by byte)."""

import io
import struct
import tracemalloc
import warnings
import zlib

import numpy as np
import pytest
from PIL import Image

from featkit.data import decoding
from featkit.data.decoding import decode, to_rgb
from featkit.errors import DecodeError

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def encode(image, kind, **options):
    stream = io.BytesIO()
    image.save(stream, kind, **options)
    return stream.getvalue()


def noise(shape, seed=0):
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def decoded(data):
    image = decode(data)
    assert image.mode == "RGB"
    return np.asarray(image)


@pytest.mark.parametrize(
    ("kind", "options"),
    [
        ("PNG", {}),
        ("BMP", {}),
        ("PPM", {}),
        ("QOI", {}),
        ("TIFF", {}),
        ("TIFF", {"compression": "tiff_lzw"}),
        ("TIFF", {"compression": "tiff_deflate"}),
        ("WEBP", {"lossless": True}),
    ],
)
def test_lossless_colour_comes_back_exactly(kind, options):
    pixels = noise((11, 17, 3))
    np.testing.assert_array_equal(decoded(encode(Image.fromarray(pixels), kind, **options)), pixels)


@pytest.mark.parametrize(
    ("kind", "options"), [("JPEG", {}), ("JPEG", {"progressive": True}), ("WEBP", {}), ("AVIF", {})]
)
def test_lossy_flat_colour_is_close(kind, options):
    if kind == "AVIF":
        pytest.importorskip("PIL._avif")
    flat = np.full((32, 48, 3), (200, 60, 30), np.uint8)
    got = decoded(encode(Image.fromarray(flat), kind, quality=95, **options))
    assert np.abs(got.astype(int) - flat).max() <= 4


def test_greyscale_fills_three_channels():
    grey = noise((5, 7))
    got = decoded(encode(Image.fromarray(grey), "PNG"))
    for channel in range(3):
        np.testing.assert_array_equal(got[..., channel], grey)


@pytest.mark.parametrize("kind", ["PNG", "TIFF"])
def test_alpha_is_dropped_and_not_blended(kind):
    rgba = noise((5, 7, 4))
    got = decoded(encode(Image.fromarray(rgba), kind))
    np.testing.assert_array_equal(got, rgba[..., :3])


def test_grey_with_alpha_is_dropped_and_not_blended():
    la = noise((5, 7, 2))
    image = Image.merge("LA", [Image.fromarray(la[..., band].copy()) for band in (0, 1)])
    np.testing.assert_array_equal(decoded(encode(image, "PNG"))[..., 1], la[..., 0])


def test_palette():
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    image.putdata([3, 2, 1, 0])
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert decoded(encode(image, kind))[0].tolist() == [[*WHITE], [*BLUE], [*GREEN], [*RED]]


@pytest.mark.parametrize("transparency", [1, bytes([0, 128, 255, 10])])
def test_palette_with_transparency_keeps_its_colours_without_a_warning(transparency):
    image = Image.new("P", (4, 1))
    image.putpalette([*RED, *GREEN, *BLUE, *WHITE])
    image.putdata([3, 2, 1, 0])
    data = encode(image, "PNG", transparency=transparency)
    assert "transparency" in Image.open(io.BytesIO(data)).info
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        got = decoded(data)
        to_rgb(Image.open(io.BytesIO(data)))
    assert got[0].tolist() == [[*WHITE], [*BLUE], [*GREEN], [*RED]]
    assert caught == []


def test_one_bit():
    bits = Image.fromarray(np.array([[0, 255], [255, 255]], np.uint8)).convert("1")
    for kind in ("PNG", "TIFF", "PPM", "BMP"):
        assert decoded(encode(bits, kind))[..., 2].tolist() == [[0, 255], [255, 255]]


@pytest.mark.parametrize(
    ("ink", "colour"),
    [
        ((0, 0, 0, 0), WHITE),
        ((0, 255, 255, 0), RED),
        ((255, 0, 255, 0), GREEN),
        ((255, 255, 0, 0), BLUE),
        ((0, 0, 0, 255), (0, 0, 0)),
    ],
)
def test_cmyk(ink, colour):
    image = Image.new("CMYK", (16, 16), ink)
    assert decoded(encode(image, "TIFF"))[3, 3].tolist() == [*colour]
    jpeg = encode(image, "JPEG", quality=100)
    assert b"Adobe" in jpeg  # Adobe's ink is stored inverted
    assert np.abs(decoded(jpeg)[3, 3].astype(int) - colour).max() <= 3


WIDE = np.array([[0, 1, 128, 129, 257, 300], [385, 386, 32896, 65279, 65406, 65535]], np.uint16)
# round(x / 257), by hand
NARROW = [[0, 0, 0, 1, 1, 1], [1, 2, 128, 254, 254, 255]]


@pytest.mark.parametrize("kind", ["PNG", "TIFF", "PPM"])
def test_16_bit_greyscale_is_scaled_and_not_clipped(kind):
    got = decoded(encode(Image.fromarray(WIDE), kind))
    assert got[..., 0].tolist() == NARROW
    assert got[..., 2].tolist() == NARROW


def test_16_bit_big_endian_and_32_bit_tiff():
    assert decoded(_tiff(WIDE.astype(">u2"), ">"))[..., 0].tolist() == NARROW
    assert Image.open(io.BytesIO(_tiff(WIDE.astype(">u2"), ">"))).mode == "I;16B"
    wide = Image.fromarray(WIDE.astype(np.int32))
    assert wide.mode == "I"
    assert decoded(encode(wide, "TIFF"))[..., 1].tolist() == NARROW


def _tiff(pixels, order):
    """Write an uncompressed one-strip TIFF byte by byte."""
    height, width = pixels.shape
    bits = 8 * pixels.itemsize
    tags = [(256, width), (257, height), (258, bits), (259, 1), (262, 1), (273, 8)]
    tags += [(277, 1), (278, height), (279, pixels.nbytes)]
    entries = b"".join(struct.pack(order + "HHII", t, 4, 1, v) for t, v in tags)
    mark = b"MM" if order == ">" else b"II"
    head = mark + struct.pack(order + "HI", 42, 8 + pixels.nbytes)
    directory = struct.pack(order + "H", len(tags)) + entries + bytes(4)
    return head + pixels.tobytes() + directory


@pytest.mark.parametrize("value", [-1, 65536, 2**30])
def test_32_bit_beyond_16_is_refused(value):
    image = Image.fromarray(np.array([[0, value]], np.int32))
    with pytest.raises(DecodeError, match=r"outside 0\.\.65535"):
        decode(encode(image, "TIFF"))


def test_floating_point_is_refused():
    image = Image.fromarray(np.array([[0.5, 1.0]], np.float32))
    with pytest.raises(DecodeError, match="floating-point pixels"):
        decode(encode(image, "TIFF"))


def test_first_frame_of_an_animation():
    frames = [Image.new("RGB", (4, 4), colour) for colour in (RED, GREEN, BLUE)]
    for kind, options in {"GIF": {}, "PNG": {}, "WEBP": {"lossless": True}, "TIFF": {}}.items():
        data = encode(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert Image.open(io.BytesIO(data)).n_frames == 3
        assert decoded(data)[0, 0].tolist() == [*RED]


# The corner of the upright picture at which the stored first pixel lies, and the one at which the
# stored last pixel of the first row lies: "0th row, 0th column" of the EXIF 2.3 standard, p. 30.
CORNERS = {
    1: ("top left", "top right"),
    2: ("top right", "top left"),
    3: ("bottom right", "bottom left"),
    4: ("bottom left", "bottom right"),
    5: ("top left", "bottom left"),
    6: ("top right", "bottom right"),
    7: ("bottom right", "top right"),
    8: ("bottom left", "top left"),
}


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "TIFF-LZW"])
def test_exif_orientation(orientation, kind):
    stored = np.full((24, 40, 3), 128, np.uint8)
    stored[:8, :8], stored[:8, -8:] = RED, BLUE
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"compression": "tiff_lzw"} if kind == "TIFF-LZW" else {}
    data = encode(Image.fromarray(stored), kind[:4], exif=exif, **options)
    got = decoded(data)
    assert got.shape == ((24, 40, 3) if orientation < 5 else (40, 24, 3))
    places = {
        "top left": got[3, 3],
        "top right": got[3, -4],
        "bottom left": got[-4, 3],
        "bottom right": got[-4, -4],
    }
    first, last = CORNERS[orientation]
    assert places[first].argmax() == 0
    assert places[first].max() > 200
    assert places[last].argmax() == 2
    assert places[last].max() > 200


@pytest.mark.parametrize("value", [0, 9, 65535])
def test_meaningless_orientation_counts_as_upright(value):
    exif = Image.Exif()
    exif[0x0112] = value
    pixels = noise((3, 5, 3))
    data = encode(Image.fromarray(pixels), "PNG", exif=exif)
    np.testing.assert_array_equal(decoded(data), pixels)


def test_damaged_exif_costs_no_pixels():
    pixels = noise((3, 5, 3))
    for block in (b"Exif\0\0II*\0\xff\xff\xff\xff", b"Exif\0\0nonsense", b"Exif\0\0"):
        data = encode(Image.fromarray(pixels), "PNG", exif=block)
        np.testing.assert_array_equal(decoded(data), pixels)


def test_a_binary_file_is_read(tmp_path):
    path = tmp_path / "a.png"
    Image.fromarray(noise((3, 5, 3))).save(path)
    with path.open("rb") as file:
        np.testing.assert_array_equal(np.asarray(decode(file)), noise((3, 5, 3)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"", "empty file"),
        (b"hello", "not an image"),
        (bytes(5000), "not an image"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "not an image"),
        (b"\x89PNG\r\n\x1a\n", "not an image"),
    ],
)
def test_reasons(data, reason):
    with pytest.raises(DecodeError) as caught:
        decode(data)
    assert str(caught.value) == reason


def _png_header(width, height):
    body = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + body + struct.pack(">I", zlib.crc32(body))


def test_decompression_bomb():
    idat = b"IDAT" + zlib.compress(b"")
    data = _png_header(60000, 60000) + struct.pack(">I", len(idat) - 4) + idat
    with pytest.raises(DecodeError, match=r"^decompression bomb: Image size \(3600000000 pixels\)"):
        decode(data)


def test_large_images_below_the_bomb_limit_give_no_warning(monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 100)
    assert decode(encode(Image.new("RGB", (11, 11)), "PNG")).size == (11, 11)


FILES = {
    "jpeg": ("JPEG", {}),
    "progressive": ("JPEG", {"progressive": True}),
    "png": ("PNG", {}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "tiff-lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "webp": ("WEBP", {}),
    "ppm": ("PPM", {}),
}


def _file(name):
    kind, options = FILES[name]
    image = Image.fromarray(noise((23, 31, 3)))
    return encode(image.quantize(64) if kind == "GIF" else image, kind, **options)


@pytest.mark.parametrize("name", FILES)
def test_a_file_cut_anywhere_never_decodes_to_other_pixels(name):
    data = _file(name)
    whole = decoded(data)
    failed = 0
    for kept in range(0, len(data), 1 if len(data) < 1200 else 3):
        try:
            got = decoded(data[:kept])
        except DecodeError:
            failed += 1
        else:  # what was cut off holds no pixels: a check sum, an end mark, padding
            assert len(data) - kept <= 20
            np.testing.assert_array_equal(got, whole)
    assert failed > 0.98 * (len(data) // (1 if len(data) < 1200 else 3))


@pytest.mark.parametrize("name", ["jpeg", "progressive", "png"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9, 0.97])
def test_truncated_photographs_say_so(name, share):
    kind, options = FILES[name]
    data = encode(Image.fromarray(noise((200, 300, 3))), kind, **options)
    with pytest.raises(DecodeError, match=r"^truncated: image file is truncated"):
        decode(data[: int(share * len(data))])


@pytest.mark.parametrize("name", FILES)
def test_random_damage_gives_pixels_or_one_clean_line(name):
    rng = np.random.default_rng(sum(map(ord, name)))
    data = np.frombuffer(_file(name), np.uint8)
    outcomes = {"pixels": 0, "errors": 0}
    for trial in range(60):
        damaged = data.copy()
        reach = 120 if trial % 2 else len(data)  # every other time in the headers
        places = rng.integers(0, min(reach, len(data)), rng.integers(1, 8))
        damaged[places] = rng.integers(0, 256, len(places))
        try:
            assert decode(damaged.tobytes()).mode == "RGB"
            outcomes["pixels"] += 1
        except DecodeError as error:
            reason = str(error)
            assert 0 < len(reason) < 200
            assert reason.isprintable()
            assert "0x" not in reason
            with pytest.raises(DecodeError) as again:
                decode(damaged.tobytes())
            assert str(again.value) == reason
            outcomes["errors"] += 1
    assert outcomes["errors"] > 0
    assert outcomes["pixels"] > 0 or name == "png"  # whose check sums find any damage


@pytest.mark.parametrize(
    "error",
    [
        *(SyntaxError, struct.error, ValueError, KeyError, EOFError, RecursionError, zlib.error),
        *(IndexError, TypeError, AttributeError, OverflowError, MemoryError, AssertionError),
        *(OSError, NotImplementedError, Warning),
    ],
)
def test_no_other_exception_leaks(error, monkeypatch):
    def fail(*args, **kwargs):
        raise error("at <x object at 0x7f00> in /home/somebody/x.png")

    monkeypatch.setattr(decoding.Image, "open", fail)
    with pytest.raises(DecodeError) as caught:
        decode(b"x")
    assert "0x" not in str(caught.value)
    assert "/home" not in str(caught.value)


def test_interrupts_pass(monkeypatch):
    def stop(*args, **kwargs):
        raise KeyboardInterrupt

    monkeypatch.setattr(decoding.Image, "open", stop)
    with pytest.raises(KeyboardInterrupt):
        decode(b"x")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX"])
def test_every_byte_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (2, 3))).mode == "RGB"


@pytest.mark.parametrize("mode", ["CMYK", "YCbCr", "HSV", "I", "I;16", "I;16B", "I;16L"])
def test_every_other_mode_becomes_rgb(mode):
    assert to_rgb(Image.new(mode, (2, 3))).mode == "RGB"


def test_memory_is_a_few_bytes_a_pixel():
    """A picture may have 179 million of them before Pillow calls it a bomb."""
    side = 1500
    data = encode(Image.fromarray(np.full((side, side), 40_000, np.uint16)), "PNG")
    tracemalloc.start()
    image = decode(data)
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert image.getpixel((0, 0)) == (156, 156, 156)
    assert most < 8 * side**2
