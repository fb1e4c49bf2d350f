"""Hostile and broken files: what each holds, and what becomes of it."""

from __future__ import annotations

import gzip
import io
import json
import marshal
import os
import struct
import tarfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.backbones.checkpoints.handmade import (
    FLOATS,
    LEGACY,
    NONE,
    Record,
    archive,
    array,
    call,
    dic,
    done,
    entry,
    index,
    legacy,
    legacy_storage,
    lst,
    name,
    number,
    numbers,
    raw,
    real,
    safe,
    stack_name,
    storage,
    swap,
    tensor,
    text,
    torch_zip,
    tup,
)

REFUSED = "refused"
EITHER = "refused or harmless"

Expected = str | list[str]
Files = bytes | dict[str, bytes]


def zip_cases() -> dict[str, tuple[Files, Expected]]:
    good, w = dic(w=tensor()), Record("net/data/0", FLOATS)
    pickled = Record("net/data.pkl", done(good))
    whole = torch_zip(good)
    code = done(call(name("os.system"), text("touch proof")))
    squeezed = zlib.compressobj(9, zlib.DEFLATED, -15)
    bomb = squeezed.compress(bytes(50 << 20)) + squeezed.flush()
    deflated = Record("net/data/0", bomb, method=8, size=50 << 20)
    zip64 = struct.pack("<HHQ", 1, 8, 1 << 62)
    far = struct.pack("<HHQ", 1, 8, (1 << 64) - 1)
    locator = struct.pack("<IIQI", 0x07064B50, 0, 0, 9)
    end64 = struct.pack(
        "<IQHHIIQQQQ", 0x06064B50, 44, 45, 45, 0, 0, 1 << 60, 1 << 60, 1 << 60, 1 << 60
    )
    # fmt: off
    return {
        "zip: whole": (whole, ["w"]),
        "zip: code as byteorder": (archive(pickled, w, Record("net/byteorder", code)), REFUSED),
        "zip: code as version": (archive(pickled, w, Record("net/version", code)), ["w"]),
        "zip: code as a storage": (archive(pickled, Record("net/data/0", code)), EITHER),
        "zip: code in other records": (
            torch_zip(
                good, Record("net/hook.pkl", code), Record("net/.data/serialization_id", code),
                Record("net/code/net.py", b"open('proof', 'w')"), Record("sitecustomize.py", code),
            ), ["w"],
        ),
        "zip: two data.pkl of one name": (archive(pickled, w, Record("net/data.pkl", code)), []),
        "zip: two data.pkl in two folders": (
            archive(pickled, w, Record("evil/data.pkl", code)), ["w"],
        ),
        "zip: TorchScript": (torch_zip(good, Record("net/constants.pkl", code)), REFUSED),
        "zip: nested": (archive(Record("net/data.pkl", whole)), REFUSED),
        "zip: only a zip": (archive(Record("net.zip", whole)), REFUSED),
        "zip: nothing": (archive(), REFUSED),
        "zip: npz": (archive(Record("arr_0.npy", b"\x93NUMPY\x01\0")), REFUSED),
        "zip: climbing names": (
            torch_zip(good, Record("../../proof", b"x"), Record("/proof", b"x"),
                      Record("net/data/../../proof", b"x"), Record("C:\\proof", b"x")), ["w"],
        ),
        "zip: climbing folder": (torch_zip(good, folder="../../"), ["w"]),
        "zip: absolute folder": (torch_zip(good, folder="/tmp/"), ["w"]),
        "zip: climbing key": (
            torch_zip(dic(w=tensor(store=storage(text("../../../../etc/passwd"))))), REFUSED,
        ),
        "zip: names that are no UTF-8": (
            torch_zip(good, Record("net/\udcff\udcfe", b"x", flags=0x800)), EITHER,
        ),
        "zip: a name of nothing": (torch_zip(good, Record("", b"x"), Record("\0", b"x")), EITHER),
        "zip: big-endian": (
            archive(pickled, w, Record("net/byteorder", b"big")), REFUSED,
        ),
        "zip: no byteorder": (archive(pickled, w), ["w"]),
        "zip: encrypted": (
            archive(Record("net/data.pkl", done(good), flags=1), w), REFUSED,
        ),
        "zip: patched": (archive(Record("net/data.pkl", done(good), flags=0x20), w), REFUSED),
        "zip: deflated": (archive(pickled, deflated), REFUSED),
        "zip: deflated and lying": (archive(pickled, Record("net/data/0", bomb, method=8)),
                                    REFUSED),
        "zip: deflated pickle": (
            archive(Record("net/data.pkl", bomb, method=8, size=50 << 20), w), REFUSED,
        ),
        "zip: unknown method": (archive(pickled, Record("net/data/0", FLOATS, method=99)),
                                REFUSED),
        "zip: overlapping": (
            archive(pickled, Record("net/data/0", bytes(100_000)),
                    *(Record(f"net/data/{i}", bytes(100_000), offset=300) for i in range(1, 500))),
            REFUSED,
        ),
        "zip: storage over another": (
            archive(pickled, Record("net/data/0", FLOATS, offset=0)), EITHER,
        ),
        "zip: storage far away": (
            archive(pickled, Record("net/data/0", FLOATS, offset=(1 << 32) - 2)), REFUSED,
        ),
        "zip: pickle at the very end": (
            archive(w, Record("net/data.pkl", b"", offset=250)), REFUSED,
        ),
        "zip: pickle within the last bytes": (
            archive(Record("net/data.pkl", b"", offset=78)), REFUSED,
        ),
        "zip: storage of 2^62 bytes": (
            archive(pickled, Record("net/data/0", FLOATS, size=0xFFFFFFFF, extra=zip64)), REFUSED,
        ),
        "zip: pickle of 2^62 bytes": (
            archive(Record("net/data.pkl", done(good), size=0xFFFFFFFF, packed=0xFFFFFFFF,
                           extra=struct.pack("<HHQQ", 1, 16, 1 << 62, 1 << 62)), w), REFUSED,
        ),
        "zip: storage at 2^64": (
            archive(pickled, Record("net/data/0", FLOATS, offset=0xFFFFFFFF, extra=far)), REFUSED,
        ),
        "zip: pickle at 2^64": (
            archive(w, Record("net/data.pkl", done(good), offset=0xFFFFFFFF, extra=far)), REFUSED,
        ),
        "zip: empty zip64 field": (
            archive(pickled, Record("net/data/0", FLOATS, size=0xFFFFFFFF,
                                    extra=struct.pack("<HH", 1, 0))), REFUSED,
        ),
        "zip: cut extra field": (
            archive(pickled, Record("net/data/0", FLOATS, extra=b"\1\0\xff\xff")), EITHER,
        ),
        "zip: zip64 on many disks": (archive(pickled, w, before_end=locator), EITHER),
        "zip: a pickle on many disks": (
            done(dic(a=array())) + archive(pickled, w, before_end=locator), EITHER,
        ),
        "zip: zip64 end of nonsense": (
            archive(pickled, w, before_end=end64 + struct.pack("<IIQI", 0x07064B50, 0, 0, 1)),
            REFUSED,
        ),
        "zip: directory far away": (archive(pickled, w, offset=0xFFFFFF00), REFUSED),
        "zip: directory too long": (archive(pickled, w, size=0xFFFFFF00), REFUSED),
        "zip: more entries than there are": (archive(pickled, w, here=9999, count=9999), EITHER),
        "zip: another disk": (archive(pickled, w, disk=7, first=7), EITHER),
        "zip: cut in two": (whole[: len(whole) // 2], REFUSED),
        "zip: without its end": (whole[:-22], REFUSED),
        "zip: without its start": (whole[40:], REFUSED),
        "zip: without its local headers": (whole.replace(b"PK\3\4", b"PK\0\0"), REFUSED),
        "zip: only the end": (whole[-22:], REFUSED),
        "zip: only the magic": (b"PK\3\4", REFUSED),
        "zip: wrong CRC of data.pkl": (
            archive(Record("net/data.pkl", done(good), crc=1), w), REFUSED,
        ),
        "zip: wrong CRC of a storage": (
            archive(pickled, Record("net/data/0", FLOATS, crc=1)), REFUSED,
        ),
        "zip: storage shorter in the header": (
            archive(pickled, Record("net/data/0", FLOATS, size=8)), REFUSED,
        ),
        "zip: storage missing": (archive(pickled), REFUSED),
        "zip: empty data.pkl": (archive(Record("net/data.pkl"), w), REFUSED),
        "zip: 20,000 records": (
            torch_zip(good, *(Record(f"net/{i}", b"") for i in range(20_000))), ["w"],
        ),
        "zip: a zip behind a pickle": (done(dic(a=array())) + whole, ["w"]),
        "zip: a comment of pickles": (whole[:-2] + struct.pack("<H", len(code)) + code, ["w"]),
    }
    # fmt: on


def tensor_cases() -> dict[str, tuple[Files, Expected]]:
    """One tensor ``w`` of a storage of four floats, described in impossible ways."""
    v3 = name("torch._utils._rebuild_tensor_v3")
    parameter = name("torch._utils._rebuild_parameter")
    from_type = name("torch._tensor._rebuild_from_type_v2")
    huge = 1 << 4000

    def typed(dtype: bytes) -> bytes:
        return call(
            v3, storage(), number(0), numbers(4), numbers(1), b"\x89", call(b"]0N"), dtype
        ).replace(call(b"]0N"), NONE)

    def viewed(view: bytes, offset: bytes = number(0)) -> bytes:
        kind = name("torch.FloatStorage")
        return tensor(numbers(1), numbers(1), offset, storage(text("0"), number(4), kind, view))

    def deep(levels: int) -> bytes:
        return parameter * levels + tensor() + b"\x85R" * levels

    described = {
        "size beyond the storage": tensor(numbers(5)),
        "offset beyond the storage": tensor(offset=number(1)),
        "offset far beyond the storage": tensor(offset=number(1 << 40)),
        "stride beyond the storage": tensor(numbers(2), numbers(4)),
        "negative size": tensor(numbers(-4)),
        "two negative sizes": tensor(numbers(-2, -2), numbers(1, 1)),
        "negative stride": tensor(stride=numbers(-1)),
        "negative stride and offset": tensor(stride=numbers(-1), offset=number(3)),
        "negative offset": tensor(numbers(1), numbers(1), number(-1)),
        "size of floats": tensor(tup(real(4.0))),
        "size of infinity": tensor(tup(real(float("inf")))),
        "size of booleans": tensor(tup(b"\x88")),
        "size of strings": tensor(tup(text("4"))),
        "size of tensors": tensor(tup(tensor())),
        "size a string": tensor(text("4")),
        "size a number": tensor(number(4)),
        "size a dictionary": tensor(b"}" + number(4) + NONE + b"s"),
        "size nothing": tensor(NONE),
        "stride a float": tensor(stride=tup(real(1.0))),
        "stride nothing": tensor(stride=NONE),
        "fewer strides": tensor(numbers(2, 2), numbers(2)),
        "more strides": tensor(numbers(4), numbers(1, 1)),
        "offset a float": tensor(offset=real(0.0)),
        "offset a string": tensor(offset=text("0")),
        "offset a list": tensor(offset=lst()),
        "size 2^63": tensor(numbers(1 << 63)),
        "size 2^64": tensor(numbers(1 << 64)),
        "size 2^4000": tensor(numbers(huge)),
        "offset 2^4000": tensor(offset=number(huge)),
        "product overflows": tensor(numbers(1 << 32, 1 << 32), numbers(0, 0)),
        "product overflows to four": tensor(numbers(1 << 62, 4, 4), numbers(0, 0, 0)),
        "a billion repetitions": tensor(numbers(1 << 30), numbers(0)),
        "strides overflow": tensor(numbers(3, 3), numbers(1 << 62, 1 << 62)),
        "storage missing": tensor(store=storage(text("7"))),
        "key missing": tensor(store=tup(text("storage"), name("torch.FloatStorage")) + b"Q"),
        "key negative": tensor(store=storage(number(-1))),
        "key a float": tensor(store=storage(real(0.0))),
        "key a list": tensor(store=storage(lst(text("0")))),
        "key of 2^20000": tensor(store=storage(number(1 << 20000))),
        "key a deep tuple": tensor(store=storage(b")" + b"\x85" * 100_000)),
        "key a billion laughs": tensor(store=storage(laughs(b"]", b"aa"))),
        "storage nothing": tensor(store=NONE),
        "storage a number": tensor(store=number(0)),
        "storage a class": tensor(store=name("torch.FloatStorage")),
        "storage a tensor": tensor(store=tensor()),
        "id nothing": tensor(store=NONE + b"Q"),
        "id a number": tensor(store=number(0) + b"Q"),
        "id a string": tensor(store=text("storage") + b"Q"),
        "id a line": tensor(store=b"Pstorage\n"),
        "id empty": tensor(store=b")Q"),
        "id a list": tensor(store=lst(text("storage")) + b"Q"),
        "id of numbers": tensor(store=numbers(1, 2, 3, 4, 5) + b"Q"),
        "id a dictionary": tensor(store=dic(a=NONE) + b"Q"),
        "id an id": tensor(store=storage() + b"Q"),
        "type unknown": tensor(store=storage(kind=name("os.system"))),
        "type a string": tensor(store=storage(kind=text("FloatStorage"))),
        "type nothing": tensor(store=storage(kind=NONE)),
        "view of nothing more": viewed(tup()),
        "view a number": viewed(number(3)),
        "view before the storage": viewed(tup(text("v"), number(-1), number(1))),
        "view beyond the storage": viewed(tup(text("v"), number(4), number(1))),
        "view at 2^4000": viewed(tup(text("v"), number(huge), number(1))),
        "view at a float": viewed(tup(text("v"), real(1.0), number(1))),
        "view at a float from 2^4000": viewed(tup(text("v"), real(1.0), NONE), number(huge)),
        "view at a string": viewed(tup(text("v"), text("1"), number(1))),
        "view a dictionary": viewed(dic(a=NONE)),
        "too few arguments": call(name("torch._utils._rebuild_tensor_v2"), storage()),
        "no arguments": call(name("torch._utils._rebuild_tensor_v2")),
        "parameter of nothing": call(parameter),
        "type of nothing": call(from_type),
        "type a string instead": call(from_type, text("a"), NONE, text("abc"), NONE),
    }
    refused = {f"tensor: {case}": (dic(w=what), REFUSED) for case, what in described.items()}
    tolerated = {
        "storage larger than its record": tensor(store=storage(numel=number(1 << 40))),
        "storage of nothing": tensor(store=storage(numel=NONE)),
        "no elements, size 2^80": tensor(numbers(0, 1 << 80), numbers(1, 1)),
        "no elements, product overflows": tensor(numbers(0, 1 << 62, 1 << 62), numbers(1, 1, 1)),
        "no elements, stride 2^80": tensor(numbers(0), numbers(1 << 80)),
        "no elements, offset 2^80": tensor(numbers(0), numbers(1), number(1 << 80)),
        "no elements, offset 2^62": tensor(numbers(0), numbers(1), number(1 << 62)),
        "one element, stride 2^63": tensor(numbers(1), numbers(1 << 63)),
        "one element, stride 2^4000": tensor(numbers(1), numbers(huge)),
        "100 dimensions": tensor(numbers(*[1] * 100), numbers(*[1] * 100)),
        "100 strided dimensions": tensor(numbers(2, *[1] * 99), numbers(*[2] * 100), number(1)),
        "100,000 dimensions": tensor(tup(number(1) * 100_000), tup(number(1) * 100_000)),
        "sizes of 2^8000000": tensor(
            number((1 << 8_000_000) + 1) + b"r\0\0\0\1" + b"0" + tup(b"j\0\0\0\1" * 200),
            tup(number(0) * 200),
        ),
        "a list for a size": tensor(lst(number(4)), lst(number(1))),
        "an integer as key": tensor(store=storage(number(0))),
        "type of a module that does not exist": tensor(
            store=storage(kind=name("no.such.FloatStorage"))
        ),
        "dtype a lazy module": typed(name("torch._dynamo")),
        "dtype another lazy module": typed(name("torch._inductor")),
        "dtype torch.onnx": typed(name("torch.onnx")),
        "dtype a function": typed(name("torch.load")),
        "dtype torch.classes": typed(name("torch.classes.evil")),
        "dtype an attribute's attribute": typed(name("torch.float32.itemsize")),
        "dtype nothing": typed(NONE),
        "dtype empty": typed(stack_name(text(""), text(""))),
        "dtype unknown": typed(name("torch.float99")),
        "dtype wider than the storage": typed(name("torch.complex128")),
        "parameters 500 deep": deep(500),
        "parameters 50,000 deep": deep(50_000),
        "rebuilt from itself": call(
            from_type, from_type, NONE, b"](" + from_type + NONE + b"eq\1h\1a"
        ),
        "only the function": name("torch._utils._rebuild_tensor_v2"),
    }
    refused |= {f"tensor: {case}": (dic(w=what), EITHER) for case, what in tolerated.items()}
    named = {
        "of two lines": "a\nb",
        "that clears the screen": "\x1b[2J\x1b]0;evil\x07",
        "with a lone surrogate": "\ud800",
        "of a megabyte": "a" * (1 << 20),
        "that climbs": "../../../../proof",
    }
    for case, key in named.items():
        refused[f"tensor: name {case}, damaged"] = (dic(**{key: tensor(numbers(5))}), EITHER)
        refused[f"tensor: name {case}"] = (dic(**{key: tensor()}), EITHER)
    hostile = stack_name(text("a\n\x1b[2J"), text("b" * 100_000))
    refused["tensor: type of a hostile name"] = (
        dic(w=tensor(store=storage(kind=hostile))),
        REFUSED,
    )
    return {case: (torch_zip(content), wanted) for case, (content, wanted) in refused.items()}


def laughs(start: bytes, grow: bytes, levels: int = 60) -> bytes:
    """An object of two of an object of two …, by the memo."""
    code = start + b"q\0"
    for i in range(levels):
        here, last = bytes([i + 1]), b"h" + bytes([i])
        code += start + b"q" + here + last + grow[:1] + last + grow[1:]
    return code


def array_cases() -> dict[str, tuple[Files, Expected]]:
    encode = name("_codecs.encode")
    described = {
        "shape too large": array(numbers(5)),
        "shape negative": array(numbers(-4)),
        "shape of two negatives": array(numbers(-2, -2)),
        "shape of floats": array(tup(real(4.0))),
        "shape of strings": array(tup(text("4"))),
        "shape a string that is repeated": array(tup(text("x" * 1000), number(10_000_000))),
        "shape a string that is repeated beyond memory": array(
            tup(text("x" * 1000), number(1 << 40))
        ),
        "shape a list that is repeated": array(tup(lst(NONE), number(1 << 40))),
        "shape overflows": array(tup(number(1 << 2000), real(1.0))),
        "shape infinite": array(tup(real(float("inf")))),
        "shape a number": array(number(4)),
        "shape nothing": array(NONE),
        "shape a dictionary": array(b"}" + number(4) + NONE + b"s"),
        "shape bytes": array(raw(b"\4")),
        "no elements, shape 2^80": array(numbers(0, 1 << 80), data=raw(b"")),
        "no elements, shape overflows": array(numbers(0, 1 << 62, 1 << 62), data=raw(b"")),
        "100 dimensions": array(numbers(4, *[1] * 99)),
        "type f3": array(code=text("f3")),
        "type f1": array(code=text("f1")),
        "type b8": array(code=text("b8")),
        "type of bytes": array(code=raw(b"f4")),
        "type a number": array(code=number(4)),
        "type a list": array(code=lst(text("f4"))),
        "type with a line": array(code=text("f4\n")),
        "type a megabyte": array(code=text("x" * (1 << 20))),
        "byte order unknown": array(order=text("evil")),
        "byte order a number": array(order=number(1)),
        "byte order nothing": array(order=NONE),
        "data nothing": array(data=NONE),
        "data a number": array(data=number(16)),
        "data a list of strings": array(data=lst(*[text("a")] * 16)),
        "data a list of large numbers": array(data=lst(*[number(256)] * 16)),
        "data a tuple": array(data=tup(*[NONE] * 16)),
        "data a string that is no Latin-1": array(data=text("\u20ac" * 16)),
        "data made of no Latin-1": array(data=call(encode, text("\u20ac" * 16))),
        "data made of nothing": array(data=call(encode)),
        "data made of a number": array(data=call(encode, number(16))),
        "data a class": array(data=name("os.system")),
        "state nothing": array() + NONE + b"b",
        "state a number": array() + number(4) + b"b",
        "state short": array() + numbers(1) + b"b",
        "state long": array() + numbers(1, 2, 3, 4, 5, 6) + b"b",
        "state a billion laughs": array() + laughs(b"]", b"aa") + b"b",
    }
    cases = {
        f"array: {case}": (done(dic(a=array(), w=what)), EITHER) for case, what in described.items()
    }
    for case in ("type unknown", "type of objects", "type of dates", "type of text"):
        code = {"unknown": "q9", "objects": "O8", "dates": "M8", "text": "U3"}[case.split()[-1]]
        cases[f"array: {case}"] = (done(dic(w=array(code=text(code)))), EITHER)
    return cases


def pickle_cases() -> dict[str, tuple[Files, Expected]]:
    million, flood = 1_000_000, (1 << 61) - 1
    ten = struct.pack("<Q", 10 << 30)
    system, touch = name("os.system"), tup(text("touch proof"))

    def keys(values: list[int]) -> bytes:
        return b"".join(number(value) + NONE for value in values)

    def large(letter: str) -> bytes:
        return text(letter * million)

    long_names = large("a") + b"q\0" + large("b") + b"q\1}q\2"
    for level in range(2, 32):
        above = b"h" + bytes([level])
        long_names += b"}(h\0" + above + b"h\1" + above + b"uq" + bytes([level + 1])
    # fmt: off
    cases: dict[str, tuple[bytes, Expected]] = {
        "no STOP": (b"\x80\x02}", REFUSED),
        "STOP alone": (b".", REFUSED),
        "PROTO alone": (b"\x80\x02.", REFUSED),
        "PROTO 200": (b"\x80\xc8N.", EITHER),
        "a PROTO in the middle": (done(b"}\x80\x05\x80\x00"), []),
        "unknown instruction": (done(b"}\xff"), REFUSED),
        "unknown byte first": (b"\xfe\xff" * 100, REFUSED),
        "code after STOP": (done(b"}") + done(system + touch + b"R"), []),
        "POP of nothing": (done(b"0N"), REFUSED),
        "POP of a mark": (done(b"(0N"), []),
        "POP_MARK without a mark": (done(b"1N"), REFUSED),
        "TUPLE without a mark": (done(b"t"), REFUSED),
        "TUPLE3 of two": (done(b"NN\x87"), REFUSED),
        "DUP of nothing": (done(b"2"), REFUSED),
        "a mark taken by REDUCE": (done(system + b"(R"), REFUSED),
        "REDUCE of a number": (done(number(1) + touch + b"R"), EITHER),
        "REDUCE with a number": (done(system + number(1) + b"R"), EITHER),
        "REDUCE of REDUCE": (done((system + touch + b"R") + b")R" * 1000), []),
        "BUILD of a number": (done(number(1) + dic(a=NONE) + b"b"), EITHER),
        "BUILD of itself": (done(system + b")R" + b"2b"), []),
        "BUILD with modules": (
            done(system + b")R" + dic(_modules=number(3), _parameters=text("x"), _buffers=NONE)
                 + b"b"), [],
        ),
        "BUILD with modules that are code": (
            done(system + b")R" + dic(_modules=dic(a=system + touch + b"R"), _parameters=b"]",
                                      _buffers=system) + b"b"), [],
        ),
        "APPEND to a number": (done(number(1) + NONE + b"a"), REFUSED),
        "APPEND to a dictionary": (done(b"}Na"), REFUSED),
        "APPENDS to bytes": (done(b"\x96" + struct.pack("<Q", 1) + b"a(" + number(999) + b"e"),
                             REFUSED),
        "SETITEM to a list": (done(b"]NNs"), REFUSED),
        "SETITEM to a number": (done(number(1) + b"NNs"), REFUSED),
        "SETITEMS of an odd count": (done(b"}(NNNu"), REFUSED),
        "DICT of an odd count": (done(b"(NNNd"), REFUSED),
        "key a list": (done(b"}]Ns"), EITHER),
        "key a dictionary": (done(b"}}Ns"), EITHER),
        "key an object": (done(b"}" + system + touch + b"RNs"), []),
        "key a set": (done(b"}\x8fNs"), EITHER),
        "GET of nothing": (done(b"h\x05"), REFUSED),
        "LONG_BINGET of nothing": (done(b"j\xff\xff\xff\xff"), REFUSED),
        "GET of text": (done(b"gabc\n"), REFUSED),
        "GET of a huge number": (done(b"g" + b"9" * 4000 + b"\n"), REFUSED),
        "LONG_BINPUT at 2^31": (done(b"}r" + struct.pack("<I", 1 << 31)), []),
        "LONG_BINPUT at 2^32": (done(b"}r\xff\xff\xff\xff"), []),
        "PUT at a negative place": (done(b"}p-1\n"), EITHER),
        "PUT of nothing": (done(b"q\0"), REFUSED),
        "MEMOIZE of nothing": (done(b"\x94"), REFUSED),
        "NEXT_BUFFER": (done(b"\x97"), REFUSED),
        "READONLY_BUFFER": (done(b"N\x98"), REFUSED),
        "GLOBAL without an end": (b"\x80\x02cos\nsystem", REFUSED),
        "GLOBAL of nothing": (done(b"c\n\n)R"), []),
        "GLOBAL with blanks": (done(b"cos path\nsystem now\n)R"), []),
        "GLOBAL that is no ASCII": (done(b"c\xff\xfe\nx\n"), REFUSED),
        "GLOBAL climbing": (done(b"c../../proof\nx\n)R"), []),
        "STACK_GLOBAL of numbers": (done(number(1) + number(2) + b"\x93"), REFUSED),
        "STACK_GLOBAL of bytes": (done(raw(b"os") + raw(b"system") + b"\x93"), REFUSED),
        "STACK_GLOBAL of one": (done(text("os") + b"\x93"), REFUSED),
        "STACK_GLOBAL of lines": (
            done(stack_name(text("os\nimport os\n"), text("a b.c\r\x1b[2J")) + b")R"), [],
        ),
        "STACK_GLOBAL of other scripts": (
            done(stack_name(text("οs"), text("ｓｙｓｔｅｍ\u202e")) + b")R"), [],
        ),
        "STACK_GLOBAL of a lone surrogate": (
            done(stack_name(text("\ud800"), text("\udfff")) + b")R"), [],
        ),
        "STACK_GLOBAL of objects": (done(stack_name(system + touch + b"R", text("x"))), REFUSED),
        "STACK_GLOBAL of large names": (
            done(large("a") + b"q\0" + b"h\0h\0\x93" * 4000), EITHER,
        ),
        "INST of nothing": (done(b"ios\nsystem\n"), REFUSED),
        "OBJ of nothing": (done(b"(o"), REFUSED),
        "OBJ without a mark": (done(system + b"o"), REFUSED),
        "NEWOBJ_EX of two": (done(system + b")\x92"), REFUSED),
        "NEWOBJ_EX of numbers": (done(number(1) * 3 + b"\x92"), EITHER),
        "EXT1 of 0": (done(b"\x82\0)R"), EITHER),
        "EXT4 of -1": (done(b"\x84\xff\xff\xff\xff)R"), EITHER),
        "BINUNICODE8 of 10 GB": (done(b"\x8d" + ten + b"a"), REFUSED),
        "BINUNICODE8 of 2^64": (done(b"\x8d" + b"\xff" * 8 + b"a"), REFUSED),
        "BINUNICODE of 4 GB": (done(b"X\xff\xff\xff\xffa"), REFUSED),
        "BINUNICODE that is no UTF-8": (done(b"X\x02\0\0\0\xff\xfe"), REFUSED),
        "BINBYTES8 of 10 GB": (done(b"\x8e" + ten + b"a"), REFUSED),
        "BINBYTES8 of 2^63": (done(b"\x8e" + b"\xff" * 7 + b"\x7fa"), REFUSED),
        "BYTEARRAY8 of 10 GB": (done(b"\x96" + ten + b"a"), REFUSED),
        "BINSTRING of 2 GB": (done(b"T\xff\xff\xff\x7fa"), REFUSED),
        "BINSTRING of -1": (done(b"T\xff\xff\xff\xffa"), REFUSED),
        "LONG4 of 2 GB": (done(b"\x8b\xff\xff\xff\x7fa"), REFUSED),
        "LONG4 of -1": (done(b"\x8b\xff\xff\xff\xff"), REFUSED),
        "LONG4 of 4 MB": (done(b"\x8b\0\0\x40\0" + b"\x7f" * (4 << 20)), EITHER),
        "FRAME of 10 GB": (b"\x80\x04\x95" + ten + b"}.", EITHER),
        "FRAME of 2^64": (b"\x80\x04\x95" + b"\xff" * 8 + b"}.", EITHER),
        "INT of a million digits": (done(b"I" + b"9" * million + b"\n"), REFUSED),
        "LONG of a million digits": (done(b"L" + b"9" * million + b"L\n"), REFUSED),
        "INT of words": (done(b"Iimport os\n"), REFUSED),
        "FLOAT of words": (done(b"F__import__('os')\n"), REFUSED),
        "FLOAT of a million digits": (done(b"F" + b"9" * million + b"\n"), EITHER),
        "STRING with escapes": (done(b"S'\\x41\\n\\101\\'\\\\'\n"), EITHER),
        "STRING with wrong escapes": (done(b"S'\\q\\xZZ'\n"), EITHER),
        "STRING without quotes": (done(b"Sabc\n"), REFUSED),
        "STRING of a megabyte with one quote": (done(b"S'" + b"a" * million + b"\n"), REFUSED),
        "UNICODE with wrong escapes": (done(b"V\\u00\n"), REFUSED),
        "PERSID of a path": (done(b"P../../etc/passwd\n"), EITHER),
        "PERSID without an end": (b"Pabc", REFUSED),
        "marks": (b"(" * 4_100_000, REFUSED),
        "names": (b"ca\nb\n" * 4_100_000, REFUSED),
        "tuples a million deep": (done(b")" + b"\x85" * million), []),
        "tuples a million deep as a key": (done(b"})" + b"\x85" * million + b"Ns"), []),
        "lists a million deep": (done(b"]" * million + b"a" * (million - 1)), []),
        "dictionaries 100,000 deep": (
            done((b"}" + text("a")) * 100_000 + b"N" + b"s" * 100_000), EITHER,
        ),
        "objects 100,000 deep": (done(system + (b"\x85" + system + b"\x85\x86") * 100_000), []),
        "states 100,000 deep": (done((system + b")R") * 100_000 + b"b" * 99_999), []),
        "billion laughs of lists": (done(laughs(b"]", b"aa")), []),
        "billion laughs of objects": (done(laughs(system + b")R", b"aa")), []),
        "billion laughs of dictionaries": (
            done(b"}q\0" + b"".join(
                b"}(" + text("a") + b"h" + bytes([i]) + text("b") + b"h" + bytes([i]) + b"uq"
                + bytes([i + 1]) for i in range(60)
            )), EITHER,
        ),
        "billion laughs as a key": (done(b"}" + laughs(b"]", b"aa") + b"Ns"), EITHER),
        "a dictionary in itself": (done(b"}q\0" + text("a") + b"h\0s"), EITHER),
        "a dictionary in itself twice": (
            done(b"}q\0(" + text("a") + b"h\0" + text("b") + b"h\0u"), EITHER,
        ),
        "a list in itself": (done(b"]q\0h\0a"), []),
        "a module in itself": (
            done(system + b")Rq\0" + dic(_modules=dic(a=b"h\0"), _parameters=b"}", _buffers=b"}")
                 + b"b"), EITHER,
        ),
        "long names in long names": (done(long_names), EITHER),
        "keys of one hash": (
            done(b"}(" + keys([k * flood for k in range(1, 200_000)]) + b"u"), EITHER,
        ),
        "keys of one hash, negative": (
            done(b"}(" + keys([-k * flood for k in range(1, 200_000)]) + b"u"), EITHER,
        ),
        "places of one hash": (
            done(b"}" + b"".join(b"p%d\n" % (k * flood) for k in range(1, 100_000))), EITHER,
        ),
    }
    # fmt: on
    return {f"pickle: {case}": what for case, what in cases.items()}


def legacy_cases() -> dict[str, tuple[Files, Expected]]:
    def count(value: int, data: bytes = FLOATS) -> bytes:
        return struct.pack("<Q", value) + data

    many = lst(*[text(str(i)) for i in range(50_000)])
    big = dic(protocol_version=number(1001), little_endian=b"\x89")

    def keyed(key: bytes, view: bytes = NONE) -> bytes:
        return legacy((*LEGACY[:3], dic(w=tensor(store=legacy_storage(key, view))), lst(key)))

    return {
        "legacy: whole": (legacy(), ["w"]),
        "legacy: count 2^60": (legacy(data=count(1 << 60)), REFUSED),
        "legacy: count 2^64 - 1": (legacy(data=count((1 << 64) - 1)), REFUSED),
        "legacy: count 2^62, which overflows": (legacy(data=count(1 << 62)), REFUSED),
        "legacy: count 5": (legacy(data=count(5)), REFUSED),
        "legacy: count 3": (legacy(data=count(3)), REFUSED),
        "legacy: count 0": (legacy(data=count(0)), REFUSED),
        "legacy: no data": (legacy(data=b""), REFUSED),
        "legacy: half a count": (legacy(data=b"\4\0"), REFUSED),
        "legacy: cut data": (legacy(data=count(4)[:-1]), REFUSED),
        "legacy: only the magic": (done(LEGACY[0]), REFUSED),
        "legacy: no keys": (legacy(swap(4, lst())), REFUSED),
        "legacy: keys a number": (legacy(swap(4, number(3))), REFUSED),
        "legacy: keys a dictionary": (legacy(swap(4, dic(a=NONE))), REFUSED),
        "legacy: keys that no tensor uses": (legacy(swap(4, many)), EITHER),
        "legacy: a key twice": (legacy(swap(4, lst(text("0"), text("0")))), EITHER),
        "legacy: a key of 2^20000": (keyed(number(1 << 20000)), REFUSED),
        "legacy: another key of 2^20000": (legacy(swap(4, lst(number(1 << 20000)))), REFUSED),
        "legacy: a key a hundred thousand deep": (keyed(b")" + b"\x85" * 100_000), REFUSED),
        "legacy: keys a billion laughs": (legacy(swap(4, laughs(b"]", b"aa"))), REFUSED),
        "legacy: a key a billion laughs": (keyed(laughs(b"]", b"aa")), REFUSED),
        "legacy: big-endian": (legacy(swap(2, big)), REFUSED),
        "legacy: byte order a string": (legacy(swap(2, dic(little_endian=text("yes")))), REFUSED),
        "legacy: system a list": (legacy(swap(2, lst())), REFUSED),
        "legacy: version a bomb": (legacy(swap(1, laughs(b"]", b"aa"))), ["w"]),
        "legacy: a view beyond": (
            keyed(text("0"), tup(text("v"), number(4), number(4))),
            REFUSED,
        ),
        "legacy: types that disagree": (
            legacy(
                swap(3, dic(w=tensor(), x=tensor(store=storage(kind=name("torch.DoubleStorage")))))
            ),
            REFUSED,
        ),
        "legacy: ids that are no storages": (
            legacy(swap(3, dic(w=tensor(), x=numbers(1, 2, 3, 4, 5) + b"Q", y=NONE + b"Q"))),
            ["w"],
        ),
    }


def safetensors_cases() -> dict[str, tuple[Files, Expected]]:
    deep = b'{"w":' + b"[" * 1_000_000
    header = json.dumps({"w": entry()}).encode()
    described: dict[str, tuple[bytes, Expected]] = {
        "whole": (safe({"w": entry()}), ["w"]),
        "header of 10 GB": (safe({"w": entry()}, length=10 << 30), REFUSED),
        "header of 2^64": (safe({"w": entry()}, length=(1 << 64) - 1), REFUSED),
        "header beyond the end": (safe({"w": entry()}, length=1 << 20), REFUSED),
        "header too short": (safe({"w": entry()}, length=5), REFUSED),
        "header of garbage": (safe(b"{garbage" + bytes(range(256))), REFUSED),
        "header that is no UTF-8": (safe(b'{"\xff\xfe": 1}'), REFUSED),
        "header a million deep": (safe(deep), REFUSED),
        "header of nothing": (safe(b"{}", b""), []),
        "header of nothing, data of something": (safe(b"{}"), EITHER),
        "header of numbers": (safe({"w": 3}), REFUSED),
        "nothing behind the header": (safe({"w": entry()}, b""), REFUSED),
        "too little data": (safe({"w": entry()}, FLOATS[:-1]), REFUSED),
        "too much data": (safe({"w": entry()}, FLOATS * 2), EITHER),
        "overlapping": (safe({"w": entry(), "v": entry()}), EITHER),
        "overlapping in part": (
            safe({"w": entry(), "v": entry(data_offsets=[8, 24])}, FLOATS * 2),
            REFUSED,
        ),
        "out of range": (safe({"w": entry(data_offsets=[16, 32])}), REFUSED),
        "far out of range": (safe({"w": entry(data_offsets=[1 << 60, (1 << 60) + 16])}), REFUSED),
        "backwards": (safe({"w": entry(data_offsets=[16, 0])}), REFUSED),
        "negative": (safe({"w": entry(data_offsets=[-16, 0])}), REFUSED),
        "offsets that are no numbers": (safe({"w": entry(data_offsets=["0", None])}), REFUSED),
        "a name twice": (safe(b'{"w":%b,"w":%b}' % ((json.dumps(entry()).encode(),) * 2)), EITHER),
        "no type": (safe({"w": {"shape": [4], "data_offsets": [0, 16]}}), REFUSED),
        "type unknown": (safe({"w": entry(dtype="EVIL")}), REFUSED),
        "type of another size": (safe({"w": entry(dtype="F64")}), REFUSED),
        "shape of another size": (safe({"w": entry(shape=[5])}), REFUSED),
        "shape overflows": (safe({"w": entry(shape=[1 << 62, 1 << 62])}), REFUSED),
        "shape negative": (safe({"w": entry(shape=[-4])}), REFUSED),
        "shape of floats": (safe({"w": entry(shape=[4.0])}), REFUSED),
        "shape a string": (safe({"w": entry(shape="4")}), REFUSED),
        "shape of 2^63 nothings": (
            safe({"w": entry(shape=[0, 1 << 63], data_offsets=[0, 0])}, b""),
            EITHER,
        ),
        "shape of 2^62 nothings": (
            safe({"w": entry(shape=[0, 1 << 62, 1 << 62], data_offsets=[0, 0])}, b""),
            EITHER,
        ),
        "100,000 dimensions": (safe({"w": entry(shape=[4] + [1] * 100_000)}), EITHER),
        "metadata of numbers": (safe({"__metadata__": {"a": 1}, "w": entry()}), REFUSED),
        "metadata of code": (
            safe({"__metadata__": {"format": "os.system('touch proof')"}, "w": entry()}),
            EITHER,
        ),
        "names of lines": (safe({"a\n\x1b[2J": entry(dtype="F64")}), REFUSED),
        "a name of a megabyte": (safe({"a" * (1 << 20): entry(dtype="F64")}), REFUSED),
        "cut in the header": (safe(header)[: len(header) // 2], REFUSED),
        "pickle behind the header": (
            safe({"w": entry()}) + done(call(name("os.system"), text("touch proof"))),
            EITHER,
        ),
    }
    for dtype in ("F4", "F6_E2M3", "F6_E3M2", "F8_E8M0", "F8_E4M3", "F8_E5M2", "C64", "U16", "U64"):
        bits = 64 if dtype in ("C64", "U64") else int(dtype[1:3].rstrip("_"))
        shape = [16 * 8 // bits] if bits != 6 else [16]
        size = shape[0] * bits // 8
        header_entry = entry(dtype=dtype, shape=shape, data_offsets=[0, size])
        described[f"type {dtype}"] = (safe({"w": header_entry}, bytes(size)), EITHER)
    cases: dict[str, tuple[Files, Expected]] = {f"safe: {k}": v for k, v in described.items()}

    first, other = "net.safetensors.index.json", safe({"w": entry()})

    def shards(names: Any) -> Files:
        return {first: index(names), "a.safetensors": other, "b.index.json": index({"w": first})}

    huge = "9" * 1_000_000
    files: dict[str, tuple[Files, Expected]] = {
        "whole": (shards({"w": "a.safetensors"}), ["w"]),
        "code for a shard": (
            {
                first: index({"x": "x.bin"}),
                "x.bin": done(dic(x=call(name("os.system"), text("touch proof")))),
            },
            REFUSED,
        ),
        "a million deep": ({first: b'{"weight_map":' + b"[" * 1_000_000}, REFUSED),
        "dictionaries a million deep": ({first: b'{"a":' * 1_000_000}, REFUSED),
        "no JSON": ({first: b"weight_map"}, REFUSED),
        "no UTF-8": ({first: b'{"weight_map": {"\xff": "\xfe"}}'}, REFUSED),
        "null bytes": ({first: bytes(1000)}, REFUSED),
        "a huge number": ({first: b'{"weight_map": {"w": %b}}' % huge.encode()}, REFUSED),
        "another huge number": ({first: b'{"a": %b, "weight_map": {}}' % huge.encode()}, EITHER),
        "a list": ({first: b"[]"}, REFUSED),
        "a number": ({first: b"3"}, REFUSED),
        "no weight_map": ({first: b"{}"}, REFUSED),
        "weight_map a list": (shards([["w", "a.safetensors"]]), REFUSED),
        "weight_map a string": (shards("a.safetensors"), REFUSED),
        "weight_map nothing": (shards(None), REFUSED),
        "weight_map empty": (shards({}), []),
        "a number for a file": (shards({"w": 3}), REFUSED),
        "nothing for a file": (shards({"w": None}), REFUSED),
        "a list for a file": (shards({"w": ["a.safetensors"]}), REFUSED),
        "an empty file name": (shards({"w": ""}), REFUSED),
        "the folder": (shards({"w": "."}), REFUSED),
        "the folder above": (shards({"w": ".."}), REFUSED),
        "climbing": (shards({"w": "../../../../etc/passwd"}), REFUSED),
        "climbing from within": (shards({"w": "a/../a.safetensors"}), REFUSED),
        "absolute": (shards({"w": "/etc/passwd"}), REFUSED),
        "of Windows": (shards({"w": "..\\a.safetensors"}), REFUSED),
        "an address": (shards({"w": "http://localhost/a.safetensors"}), REFUSED),
        "a null byte in a name": (shards({"w": "a.safetensors\0.txt"}), REFUSED),
        "a lone surrogate in a name": (shards({"w": "\ud800"}), REFUSED),
        "lines in a name": (shards({"w": "a\nb\x1b[2J"}), REFUSED),
        "a name of 100,000 letters": (shards({"w": "a" * 100_000}), REFUSED),
        "a missing file": (shards({"w": "c.safetensors"}), REFUSED),
        "a missing tensor": (shards({"w": "a.safetensors", "v": "a.safetensors"}), REFUSED),
        "a missing tensor of lines": (
            shards({"w": "a.safetensors", "v\n\x1b[2J": "a.safetensors"}),
            REFUSED,
        ),
        "itself": (shards({"w": first}), REFUSED),
        "one that names it": (shards({"w": "b.index.json"}), REFUSED),
        "200,000 tensors": (
            shards({str(i): "a.safetensors" for i in range(200_000)}),
            REFUSED,
        ),
    }
    return cases | {f"index: {case}": what for case, what in files.items()}


def other_cases() -> dict[str, tuple[Files, Expected]]:
    tar = io.BytesIO()
    with tarfile.open(fileobj=tar, mode="w") as file:
        for part in ("storages", "tensors", "pickle", "sys_info"):
            code = done(call(name("os.system"), text("touch proof")))
            info = tarfile.TarInfo(part)
            info.size = len(code)
            file.addfile(info, io.BytesIO(code))
    files = {
        "empty": b"",
        "one byte": b"\x80",
        "zeros": bytes(10_000),
        "text": b"Not Found\n" * 100,
        "code": b"import os\nos.system('touch proof')\n",
        "HTML": b"<!DOCTYPE html><html><body>404</body></html>",
        "HTML without a type": b"<html><body>404</body></html>",
        "XML": b"<?xml version='1.0'?><Error><Code>AccessDenied</Code></Error>",
        "JSON": b'{"error": "not found"}',
        "JSON with a brace at byte 8": b'[[[[[[[[{"a": 1}',
        "Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n",
        "gzip": gzip.compress(torch_zip(dic(w=tensor()))),
        "PNG": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(100),
        "JPEG": b"\xff\xd8\xff\xe0\0\x10JFIF" + bytes(100),
        "HDF5": b"\x89HDF\r\n\x1a\n" + bytes(100),
        "ELF": b"\x7fELF\2\1\1" + bytes(100),
        "7z": b"7z\xbc\xaf\x27\x1c" + bytes(100),
        "npy": b"\x93NUMPY\x01\0v\0{'descr': '<f4', 'shape': (4,)}" + FLOATS,
        "npy of objects": b"\x93NUMPY\x01\0v\0{'descr': '|O'}"
        + done(call(name("os.system"), text("touch proof"))),
        "ONNX": b"\x08\x07\x12\x07pytorch\x1a\x05" + bytes(50),
        "GGUF": b"GGUF\3\0\0\0" + bytes(100),
        "tar": tar.getvalue(),
        "marshalled code": marshal.dumps(compile("open('proof', 'w')", "x", "exec")),
    }
    return {f"other: {kind}": (data, REFUSED) for kind, data in files.items()}


GROUPS = (
    zip_cases,
    tensor_cases,
    array_cases,
    pickle_cases,
    legacy_cases,
    safetensors_cases,
    other_cases,
)

SPECIAL: dict[str, Callable[[Path], object]] = {
    "a folder": lambda path: path.mkdir(),
    "a pipe": os.mkfifo,
    "nothing": lambda path: None,
    "a link to nothing": lambda path: path.symlink_to("nowhere"),
    "a link to itself": lambda path: path.symlink_to(path),
    "a link to /dev/zero": lambda path: path.symlink_to("/dev/zero"),
    "a link to /dev/null": lambda path: path.symlink_to("/dev/null"),
}
