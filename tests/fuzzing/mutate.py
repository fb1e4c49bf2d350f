"""Valid bytes, texts and JSON, changed in a few places."""

from __future__ import annotations

import copy
import json
import struct
import zlib
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

INTERESTING = (
    0, 1, 2, 7, 8, 16, 31, 32, 64, 100, 127, 128, 255, 256, 1000, 1024, 4096, 32767, 32768, 65535,
    65536, 2**24, 2**31 - 1, 2**31, 2**32 - 1,
)  # fmt: skip

CONSTANTS: tuple[Any, ...] = (
    None, True, False, 0, -1, 1, 2, 1.5, -0.0, 1e308, 10**18, 2**63, 2**64, 10**400, "", " ", "x",
    "..", "../x", "/etc/passwd", "\0", "a\nb", "\u202e", "\ud800", "é" * 300, [], {}, [[]], [None],
    {"": 0}, {"x": {}}, float("nan"), float("inf"),
)  # fmt: skip

_PLACES = 1 << 16


def _change(data: bytearray, how: str, place: int, value: int, tokens: Sequence[bytes]) -> None:
    at = place * len(data) // _PLACES
    if how == "flip":
        data[at : at + 1] = bytes(b ^ 1 << value % 8 for b in data[at : at + 1])
    elif how == "byte":
        data[at : at + 1] = bytes([value % 256])
    elif how in ("<H", ">H", "<I", ">I"):
        size = struct.calcsize(how)
        data[at : at + size] = struct.pack(how, INTERESTING[value % 25] % (1 << 8 * size))
    elif how == "cut":
        del data[at : at + 1 + value]
    elif how == "repeat":
        data[at:at] = data[at : at + 1 + value]
    elif how == "end":
        del data[at:]
    elif tokens:
        token = tokens[value % len(tokens)]
        data[at : at + (len(token) if how == "over" else 0)] = token


HOW = ("flip", "byte", "<H", ">H", "<I", ">I", "cut", "repeat", "over", "insert", "end")


def changes(most: int = 4) -> SearchStrategy[list[tuple[str, int, int]]]:
    """Kinds of changes with a place and a value each."""
    one = st.tuples(st.sampled_from(HOW), st.integers(0, _PLACES - 1), st.integers(0, 255))
    return st.lists(one, min_size=1, max_size=most)


def changed(
    data: bytes, made: list[tuple[str, int, int]], tokens: Sequence[bytes] = (), start: int = 0
) -> bytes:
    """Return the bytes with the changes made behind ``start``."""
    rest = bytearray(data[start:])
    for how, place, value in made:
        _change(rest, how, place, value, tokens)
    return data[:start] + bytes(rest)


def mutated(
    data: bytes, tokens: Sequence[bytes] = (), start: int = 0, most: int = 4
) -> SearchStrategy[bytes]:
    """Bytes with one to ``most`` changes behind ``start``."""
    return changes(most).map(lambda made: changed(data, made, tokens, start))


def json_values(extra: Sequence[Any] = ()) -> SearchStrategy[Any]:
    """Values that stand where another was expected."""
    deep = (json.loads("[" * depth + "1" + "]" * depth) for depth in (30, 900))
    return st.sampled_from([*CONSTANTS, *extra, *deep])


def _paths(value: Any, before: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    items = value.items() if isinstance(value, dict) else ()
    items = enumerate(value) if isinstance(value, list) else items
    found = []
    for key, item in list(items)[:40]:
        found += [(*before, key), *_paths(item, (*before, key))]
    return found


def mutated_json(content: Any, extra: Sequence[Any] = ()) -> SearchStrategy[bytes]:
    """JSON with one to three places of a value changed, renamed, left out or doubled."""
    paths = _paths(content)
    one = st.tuples(
        st.sampled_from(paths), st.sampled_from(["set", "drop", "rename", "wrap", "double"]),
        json_values(extra),
    )  # fmt: skip

    def apply(made: list[tuple[Any, ...]]) -> bytes:
        changed_value = json.loads(json.dumps(content))
        for path, how, value in made:
            _set(changed_value, path, how, copy.deepcopy(value))
        return json.dumps(changed_value).encode("utf-8", "surrogatepass")

    return st.lists(one, min_size=1, max_size=3).map(apply)


def _set(content: Any, path: tuple[Any, ...], how: str, value: Any) -> None:
    for key in path[:-1]:
        try:
            content = content[key]
        except (LookupError, TypeError):
            return
    last = path[-1]
    if isinstance(content, dict) and last in content:
        old = content[last]
        if how == "drop":
            del content[last]
        elif how == "rename":
            content[str(value)] = content.pop(last)
        elif how == "double":
            content[f"{last}2"] = old
        else:
            content[last] = [old] if how == "wrap" else value
    elif isinstance(content, list) and isinstance(last, int) and last < len(content):
        if how == "drop":
            del content[last]
        elif how == "double":
            content.append(content[last])
        else:
            content[last] = [content[last]] if how == "wrap" else value


BROKEN_JSON: tuple[bytes, ...] = (
    b"", b"{", b"[" * 100_000, b'{"a":' * 50_000, b"\xff\xfe{\0}\0", b"nul", b"1" * 5000,
    b"\xef\xbb\xbf{}", b'"\\ud800"', b"{}{}", b"NaN", b'{"a":1,"a":2}', b"\0" * 100,
)  # fmt: skip


def any_json(content: Any, extra: Sequence[Any] = ()) -> SearchStrategy[bytes]:
    """JSON, mostly well formed."""
    whole = json.dumps(content).encode()
    return st.one_of(
        mutated_json(content, extra),
        mutated_json(content, extra),
        mutated_json(content, extra),
        mutated(whole, [b'"', b"{", b"[", b"]", b"}", b",", b"1e999", b"-", b"null"]),
        st.sampled_from(BROKEN_JSON),
    )


def png_chunks(data: bytes) -> list[tuple[bytes, bytes]]:
    """Split a PNG into types and contents of its chunks."""
    chunks, at = [], 8
    while at + 8 <= len(data):
        (size,) = struct.unpack(">I", data[at : at + 4])
        chunks.append((data[at + 4 : at + 8], data[at + 8 : at + 8 + size]))
        at += size + 12
    return chunks


def png(chunks: Sequence[tuple[bytes, bytes]]) -> bytes:
    """Join chunks to a PNG, with their checksums."""
    parts = [b"\x89PNG\r\n\x1a\n"]
    for kind, data in chunks:
        parts.append(struct.pack(">I", len(data)) + kind + data)
        parts.append(struct.pack(">I", zlib.crc32(kind + data)))
    return b"".join(parts)


def mutated_png(data: bytes) -> SearchStrategy[bytes]:
    """A PNG with a chunk changed under a right checksum; pixels are packed again."""
    chunks = png_chunks(data)

    def apply(made: tuple[int, bool, list[tuple[str, int, int]]]) -> bytes:
        which, inside, changes_made = made
        new = list(chunks)
        kind, content = new[which % len(new)]
        if kind == b"IDAT" and inside:
            content = zlib.compress(changed(zlib.decompress(content), changes_made))
        else:
            content = changed(content, changes_made, [b"\0\0\xff\xff", b"\x7f\xff\xff\xff"])
        new[which % len(new)] = (kind, content)
        return png(new)

    return st.tuples(st.integers(0, 50), st.booleans(), changes(3)).map(apply)
