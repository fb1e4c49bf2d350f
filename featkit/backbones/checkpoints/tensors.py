"""From an unpickled checkpoint to its named tensors."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.checkpoints.unpickle import Reference, Stub
from featkit.errors import CheckpointError

MOST_ITEMS = 1_000_000
"""Items that are looked through in search of tensors."""

DEEPEST = 32
"""Dictionaries and modules inside one another that are looked through."""

LONGEST_NAME = 10_000
"""Characters of a name, with those of the dictionaries around it, that are looked at."""

_MOST_DIMENSIONS = 64

_MOST_WRAPPERS = 8

_PART = 1 << 20

_TENSOR = re.compile(
    r"torch\._utils\._rebuild_tensor(_v[23])?"
    r"|numpy\._?core\.(multiarray\._reconstruct|numeric\._frombuffer)"
)

_STORAGES = {
    "BFloat16Storage": torch.bfloat16,
    "BoolStorage": torch.bool,
    "ByteStorage": torch.uint8,
    "CharStorage": torch.int8,
    "ComplexDoubleStorage": torch.complex128,
    "ComplexFloatStorage": torch.complex64,
    "DoubleStorage": torch.float64,
    "FloatStorage": torch.float32,
    "HalfStorage": torch.float16,
    "IntStorage": torch.int32,
    "LongStorage": torch.int64,
    "QInt32Storage": torch.qint32,
    "QInt8Storage": torch.qint8,
    "QUInt2x4Storage": torch.quint2x4,
    "QUInt4x2Storage": torch.quint4x2,
    "QUInt8Storage": torch.quint8,
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}

_DTYPES = {str(dtype): dtype for dtype in vars(torch).values() if isinstance(dtype, torch.dtype)}

_ARRAY_TYPES = ("b1", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "c16")


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Its shape.
        read: Reads it into memory of its own, on the CPU.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(eq=False)
class Span:
    """Bytes of a file, with the checksum that they should have, if one is known."""

    path: Path
    offset: int
    size: int
    crc: int | None = None

    def read(self, start: int, stop: int) -> Tensor:
        """Read some of the bytes.

        Raises:
            CheckpointError: They are not there any more, or do not all fit the checksum.

        Cost:
            One pass over them; the first time over all, for the checksum. Memory for them.
        """
        buffer = torch.empty(stop - start, dtype=torch.uint8)
        view: Any = buffer.numpy()
        with self.path.open("rb") as file:
            file.seek(self.offset + start)
            if file.readinto(view) != stop - start:
                raise CheckpointError("the file is shorter than it was")
            if self.crc is not None:
                found = zlib.crc32(view) if len(view) == self.size else self._checksum(file)
                if found != self.crc:
                    raise CheckpointError("damaged (it does not fit its checksum)")
                self.crc = None
        return buffer

    def _checksum(self, file: BinaryIO) -> int:
        found, left = 0, self.size
        file.seek(self.offset)
        while part := file.read(min(left, _PART)):
            found, left = zlib.crc32(part, found), left - len(part)
        return found


def element_size(reference: Reference) -> int:
    """Return the bytes of an element of a storage; 0 where the reference means something else."""
    dtype = _storage_dtype(reference)
    return dtype.itemsize if dtype else 0


def storage_key(key: Any) -> str:
    """Return a storage's key as text.

    Raises:
        CheckpointError: It is neither text nor a number.
    """
    if isinstance(key, str) or (type(key) is int and 0 <= key < 2**64):
        return str(key)
    raise CheckpointError("its storage has no key")


def tensor_shape(size: Any) -> tuple[int, ...]:
    """Return a shape as a file has it.

    Raises:
        CheckpointError: It is not one, or no tensor can have it.
    """
    is_one = isinstance(size, tuple | list) and len(size) <= _MOST_DIMENSIONS
    if not is_one or not all(type(n) is int and 0 <= n < 2**62 for n in size):
        raise CheckpointError("its shape is not one")
    return tuple(size)


def named_tensors(content: Any, spans: Mapping[str, Span]) -> dict[str, StoredTensor]:
    """Name every tensor in nested dictionaries and modules.

    Args:
        content: From :func:`featkit.backbones.checkpoints.unpickle.unpickle`.
        spans: The storages' bytes by key.

    Returns:
        Tensors by name, in order. What follows a dictionary's name follows a slash, what follows a
        module's name a dot: ``state_dict/layer1.0.conv1.weight``.

    Raises:
        CheckpointError: There is no end of items, or a tensor has an impossible shape. One that
            lies outside of its storage, or is of a type that is not known, raises it when it is
            read: what a network does not need may be of any kind.

    Example:
        >>> named_tensors({"state_dict": {"epoch": 3}}, {})
        {}
    """
    tensors: dict[str, StoredTensor] = {}
    for count, (name, value) in enumerate(_walk(content, "", 0)):
        if count > MOST_ITEMS:
            raise CheckpointError(f"more than {MOST_ITEMS:,} items")
        try:
            call = _maker(value)
            if call is not None:
                tensors[name] = _describe(call, spans)
        except Exception as error:  # damaged descriptions can break any step
            raise CheckpointError(f"damaged (tensor {name[:100]}: {_reason(error)})") from error
    return tensors


def _walk(value: Any, prefix: str, depth: int) -> Iterator[tuple[str, Any]]:
    """Yield the items of dictionaries and modules by name; numbered ones are no state dict's."""
    state = value.state if isinstance(value, Stub) else None
    parts, joint = [value], "/"
    if isinstance(state, dict) and "_modules" in state:
        parts, joint = [state.get(k) for k in ("_parameters", "_buffers", "_modules")], "."
    for part in parts:
        entries = part.entries if isinstance(part, Stub) else part
        for name, item in entries.items() if isinstance(entries, dict) else ():
            if isinstance(name, str) and len(prefix) + len(name) <= LONGEST_NAME:
                yield prefix + name, item
                if depth < DEEPEST:
                    yield from _walk(item, f"{prefix}{name}{joint}", depth + 1)


def _maker(value: Any) -> Stub | None:
    """Return the call that would make a tensor, out of the parameters and subclasses around it."""
    for _ in range(_MOST_WRAPPERS):
        if not isinstance(value, Stub) or value.args is None:
            return None
        maker, args = value.name.rpartition(".")[2], value.args
        if maker in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
            value = args[0]
        elif maker == "_rebuild_from_type_v2":
            value = Stub(args[0].name, args[2])
        else:
            return value if _TENSOR.fullmatch(value.name) else None
    return None


def _describe(call: Stub, spans: Mapping[str, Span]) -> StoredTensor:
    args: Any = call.args
    if call.name.startswith("torch."):
        shape = tensor_shape(args[2])
        return StoredTensor(shape, _reader(_torch_reader, shape, args, spans))
    if call.name.endswith("_frombuffer"):
        data, kind, size, order = args[:4]
    else:
        _, size, kind, is_fortran, data = call.state
        order = "F" if is_fortran else "C"
    shape = tensor_shape(size)
    return StoredTensor(shape, _reader(_array_reader, shape, kind, order, data))


def _reader(prepare: Callable[..., Callable[[], Tensor]], *args: Any) -> Callable[[], Tensor]:
    """Return what reads a tensor, or what says why it cannot be read."""
    try:
        return prepare(*args)
    except Exception as error:  # noqa: BLE001 - as above; raised when it is read
        return partial(_refuse, _reason(error))


def _reason(error: Exception) -> str:
    return str(error) if isinstance(error, CheckpointError) else "not described as one"


def _refuse(reason: str) -> Tensor:
    raise CheckpointError(reason)


def _storage_dtype(reference: Reference) -> torch.dtype | None:
    key = reference.key
    if not isinstance(key, tuple) or len(key) < 5 or not isinstance(key[1], Stub):
        return None
    return _STORAGES.get(key[1].name.rpartition(".")[2])


def _torch_reader(
    shape: tuple[int, ...], args: tuple[Any, ...], spans: Mapping[str, Span]
) -> Callable[[], Tensor]:
    """Prepare what ``torch._utils._rebuild_tensor…`` would do.

    Args:
        shape: Of the tensor.
        args: The storage, the offset in it, size and strides, whether it needs a gradient, hooks,
            and, from ``v3``, the type; after them the marks of conjugated and negated views.
        spans: The storages' bytes by key.
    """
    reference, offset, _, stride, *more = args
    dtype, marks = _storage_dtype(reference), more[2:]
    if marks and isinstance(marks[0], Stub):
        dtype = _DTYPES.get(marks[0].name)
    if dtype is None:
        raise CheckpointError(f"of a type that is not known ({reference.key[1].name})")
    if any(isinstance(mark, dict) and mark for mark in marks):
        raise CheckpointError("a conjugated or negated view")
    key = storage_key(reference.key[2])
    if key not in spans:
        raise CheckpointError("its bytes are missing")
    if len(reference.key) > 5 and reference.key[5] is not None:
        offset += reference.key[5][1]
    span = spans[key]
    steps = tensor_shape(stride)
    if type(offset) is not int or not 0 <= offset < 2**62:
        raise CheckpointError("its offset is not one")
    last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
    if 0 not in shape and max(last + 1, math.prod(shape)) * dtype.itemsize > span.size:
        raise CheckpointError("it lies outside of its storage")

    def read() -> Tensor:
        if 0 in shape:
            return torch.empty(shape, dtype=dtype)
        storage = span.read(offset * dtype.itemsize, (last + 1) * dtype.itemsize).view(dtype)
        return storage.as_strided(shape, steps).contiguous()

    return read


def _array_reader(
    shape: tuple[int, ...], kind: Stub, order: Literal["C", "F"], data: Any
) -> Callable[[], Tensor]:
    """Prepare what NumPy would do to restore an array.

    Args:
        shape: Of the array.
        kind: Its type: code, and byte order in the state.
        order: ``"C"`` or ``"F"``.
        data: Bytes, or the call that makes them of a string in Latin-1.
    """
    code, swapped = kind.args[0] if kind.args else None, kind.state[1] if kind.state else "="
    if code not in _ARRAY_TYPES or swapped not in ("<", ">", "=", "|") or order not in ("C", "F"):
        raise CheckpointError("an array of a type that is not known")
    dtype = np.dtype(code).newbyteorder(swapped)
    if isinstance(data, Stub):
        data = data.args[0] if data.args else b""
    content = data.encode("latin-1") if isinstance(data, str) else data
    if not isinstance(content, bytes | bytearray):
        raise CheckpointError("its bytes are missing")
    if len(content) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError("its bytes do not fit its shape")

    def read() -> Tensor:
        array = np.ndarray(shape, dtype, content, order=order)
        return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C"))

    return read
