"""Pickles, zip, legacy and safetensors files put together by hand, byte by byte."""

from __future__ import annotations

import json
import struct
import zlib
from dataclasses import dataclass
from typing import Any

VALUES = [1.0, 2.0, 3.0, 4.0]
FLOATS = struct.pack("<4f", *VALUES)


def text(value: str) -> bytes:
    data = value.encode("utf-8", "surrogatepass")
    return b"X" + struct.pack("<I", len(data)) + data


def raw(data: bytes) -> bytes:
    return b"B" + struct.pack("<I", len(data)) + data


def number(value: int) -> bytes:
    data = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    if len(data) < 256:
        return b"\x8a" + bytes([len(data)]) + data
    return b"\x8b" + struct.pack("<i", len(data)) + data


def real(value: float) -> bytes:
    return b"G" + struct.pack(">d", value)


def tup(*items: bytes) -> bytes:
    return b"(" + b"".join(items) + b"t"


def numbers(*values: int) -> bytes:
    return tup(*map(number, values))


def lst(*items: bytes) -> bytes:
    return b"](" + b"".join(items) + b"e"


def dic(**items: bytes) -> bytes:
    return b"}(" + b"".join(text(k) + v for k, v in items.items()) + b"u"


def name(path: str) -> bytes:
    module, _, attribute = path.rpartition(".")
    return b"c" + f"{module}\n{attribute}\n".encode()


def stack_name(module: bytes, attribute: bytes) -> bytes:
    return module + attribute + b"\x93"


def call(function: bytes, *args: bytes) -> bytes:
    return function + tup(*args) + b"R"


def done(content: bytes, protocol: int = 2) -> bytes:
    return b"\x80" + bytes([protocol]) + content + b"."


NONE = b"N"


def storage(
    key: bytes = text("0"),
    numel: bytes = number(4),
    kind: bytes = name("torch.FloatStorage"),
    *rest: bytes,
) -> bytes:
    return tup(text("storage"), kind, key, text("cpu"), numel, *rest) + b"Q"


def legacy_storage(key: bytes = text("0"), view: bytes = NONE) -> bytes:
    return storage(key, number(4), name("torch.FloatStorage"), view)


def tensor(
    size: bytes = numbers(4),
    stride: bytes = numbers(1),
    offset: bytes = number(0),
    store: bytes | None = None,
) -> bytes:
    hooks = call(name("collections.OrderedDict"))
    store = storage() if store is None else store
    return call(
        name("torch._utils._rebuild_tensor_v2"), store, offset, size, stride, b"\x89", hooks
    )


def array(
    shape: bytes = numbers(4),
    code: bytes = text("f4"),
    order: bytes = text("<"),
    data: bytes = raw(FLOATS),
) -> bytes:
    kind = call(name("numpy.dtype"), code, b"\x89", b"\x88")
    kind += tup(number(3), order, NONE, NONE, NONE, number(-1), number(-1), number(0)) + b"b"
    made = call(
        name("numpy._core.multiarray._reconstruct"), name("numpy.ndarray"), numbers(0), raw(b"b")
    )
    return made + tup(number(1), shape, kind, b"\x89", data) + b"b"


@dataclass
class Record:
    """An entry of a zip archive whose headers may lie."""

    name: str
    data: bytes = b""
    method: int = 0
    flags: int = 0
    crc: int | None = None
    size: int | None = None
    packed: int | None = None
    offset: int | None = None
    extra: bytes = b""


def archive(*records: Record, before_end: bytes = b"", **end: int) -> bytes:
    body, directory = bytearray(), bytearray()
    for record in records:
        encoded = record.name.encode("utf-8", "surrogateescape")
        crc = zlib.crc32(record.data) if record.crc is None else record.crc
        size = len(record.data) if record.size is None else record.size
        packed = len(record.data) if record.packed is None else record.packed
        offset = len(body) if record.offset is None else record.offset
        common = struct.pack(
            "<HHHHIIIHH",
            *(record.flags, record.method, 0, 33, crc, packed, size, len(encoded)),
            len(record.extra),
        )
        if record.offset is None:
            body += struct.pack("<IH", 0x04034B50, 20) + common + encoded + record.extra
            body += record.data
        directory += struct.pack("<IHH", 0x02014B50, 20, 20) + common
        directory += struct.pack("<HHHII", 0, 0, 0, 0, offset) + encoded + record.extra
    fields = {"disk": 0, "first": 0, "here": len(records), "count": len(records)}
    fields |= {"size": len(directory), "offset": len(body)} | end
    end_record = struct.pack("<IHHHHIIH", 0x06054B50, *fields.values(), 0)
    return bytes(body + directory + before_end + end_record)


def torch_zip(content: bytes, *more: Record, folder: str = "net/") -> bytes:
    return archive(
        Record(f"{folder}data.pkl", done(content)),
        Record(f"{folder}byteorder", b"little"),
        Record(f"{folder}data/0", FLOATS),
        Record(f"{folder}version", b"3\n"),
        *more,
    )


LEGACY = (
    number(0x1950A86A20F9469CFC6C),
    number(1001),
    dic(protocol_version=number(1001), little_endian=b"\x88"),
    dic(w=tensor(store=legacy_storage())),
    lst(text("0")),
)


def legacy(parts: tuple[bytes, ...] = LEGACY, data: bytes = struct.pack("<Q", 4) + FLOATS) -> bytes:
    return b"".join(map(done, parts)) + data


def swap(index: int, part: bytes) -> tuple[bytes, ...]:
    return (*LEGACY[:index], part, *LEGACY[index + 1 :])


def safe(header: Any, data: bytes = FLOATS, length: int | None = None) -> bytes:
    encoded = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(encoded) if length is None else length) + encoded + data


def entry(**changes: Any) -> dict[str, Any]:
    return {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | changes


def index(names: Any) -> bytes:
    return json.dumps({"metadata": {}, "weight_map": names}).encode()
