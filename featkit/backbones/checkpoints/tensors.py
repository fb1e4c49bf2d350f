"""From an unpickled checkpoint to its named tensors."""

from __future__ import annotations

import math
import re
import zlib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from featkit.backbones.checkpoints.unpickle import Reference, Stub
from featkit.errors import CheckpointError

MOST_ITEMS = 1_000_000
"""Items that are looked through in search of tensors."""

DEEPEST = 32
"""Dictionaries and modules inside one another that are looked through."""

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
    "ShortStorage": torch.int16,
    "UntypedStorage": torch.uint8,
}


@dataclass(frozen=True, eq=False)
class StoredTensor:
    """A tensor in a file.

    Attributes:
        shape: Its shape.
        read: Reads it into memory of its own, on the CPU.
    """

    shape: tuple[int, ...]
    read: Callable[[], Tensor]


@dataclass(frozen=True)
class Span:
    """Bytes of a file, with the checksum that they should have, if one is known."""

    path: Path
    offset: int
    size: int
    crc: int | None = None

    def read(self) -> Tensor:
        """Read the bytes.

        Raises:
            CheckpointError: They are not there any more, or do not fit the checksum.
        """
        buffer = torch.empty(self.size, dtype=torch.uint8)
        view: Any = buffer.numpy()
        with self.path.open("rb") as file:
            file.seek(self.offset)
            if file.readinto(view) != self.size:
                raise CheckpointError(f"{self.path}: shorter than it was; it has changed")
        if self.crc is not None and zlib.crc32(view) != self.crc:
            raise CheckpointError(f"{self.path}: damaged (a tensor does not fit its checksum)")
        return buffer


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


def named_tensors(content: Any, spans: Mapping[str, Span]) -> dict[str, StoredTensor]:
    """Name every tensor in nested dictionaries and modules.

    Args:
        content: From :func:`featkit.backbones.checkpoints.unpickle.unpickle`.
        spans: The storages' bytes by key.

    Returns:
        Tensors by name, in order. What follows a dictionary's name follows a slash, what follows a
        module's name a dot: ``state_dict/layer1.0.conv1.weight``.

    Raises:
        CheckpointError: A tensor lies outside of its storage, or is of a type that is not known, or
            there is no end of items.

    Example:
        >>> named_tensors({"state_dict": {"epoch": 3}}, {})
        {}
    """
    tensors: dict[str, StoredTensor] = {}
    for count, (name, value) in enumerate(_walk(content, "", 0)):
        if count > MOST_ITEMS:
            raise CheckpointError(f"more than {MOST_ITEMS:,} items")
        try:
            tensor = _tensor(value, spans)
        except (TypeError, ValueError, AttributeError, LookupError, OverflowError) as error:
            reason = str(error) if isinstance(error, CheckpointError) else "not described as one"
            raise CheckpointError(f"damaged (tensor {name[:200]!r}: {reason})") from error
        if tensor is not None:
            tensors[name] = tensor
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
            if isinstance(name, str):
                yield prefix + name, item
                if depth < DEEPEST:
                    yield from _walk(item, f"{prefix}{name}{joint}", depth + 1)


def _tensor(value: Any, spans: Mapping[str, Span]) -> StoredTensor | None:
    if not isinstance(value, Stub) or value.args is None:
        return None
    library, _, maker = value.name.rpartition(".")
    if maker in ("_rebuild_parameter", "_rebuild_parameter_with_state"):
        return _tensor(value.args[0], spans)
    if maker == "_rebuild_from_type_v2":
        return _tensor(Stub(value.args[0].name, value.args[2]), spans)
    if library == "torch._utils" and re.fullmatch(r"_rebuild_tensor(_v[23])?", maker):
        return _torch_tensor(value.args, spans)
    if re.fullmatch(r"numpy\._?core\.multiarray\._reconstruct", value.name):
        return _numpy_array(value.state)
    return None


def _storage_dtype(reference: Reference) -> torch.dtype | None:
    key = reference.key
    if not isinstance(key, tuple) or len(key) < 5 or not isinstance(key[1], Stub):
        return None
    return _STORAGES.get(key[1].name.rpartition(".")[2])


def _torch_tensor(args: tuple[Any, ...], spans: Mapping[str, Span]) -> StoredTensor:
    """Describe what ``torch._utils._rebuild_tensor…`` would make.

    Args:
        args: The storage, the offset in it, size and strides; ``v3`` has the type at index 6.
        spans: The storages' bytes by key.
    """
    reference, offset, size, stride = args[:4]
    dtype = _storage_dtype(reference)
    if len(args) > 6 and isinstance(args[6], Stub):
        dtype = getattr(torch, args[6].name.removeprefix("torch."), None)
    if not isinstance(dtype, torch.dtype):
        raise CheckpointError(f"of a type that is not known ({reference.key[1].name})")
    key = storage_key(reference.key[2])
    if key not in spans:
        raise CheckpointError("its bytes are missing")
    if len(reference.key) > 5 and reference.key[5] is not None:
        offset += reference.key[5][1]
    span = spans[key]
    if not all(type(n) is int and n >= 0 for n in (offset, *size, *stride)):
        raise CheckpointError("its shape is not one")
    last = offset + sum((n - 1) * step for n, step in zip(size, stride, strict=True))
    if 0 not in size and max(last + 1, math.prod(size)) * dtype.itemsize > span.size:
        raise CheckpointError("it lies outside of its storage")

    def read() -> Tensor:
        storage = span.read()
        storage = storage[: len(storage) // dtype.itemsize * dtype.itemsize].view(dtype)
        tensor = storage.as_strided(size, stride, offset)
        whole = tensor.is_contiguous() and tensor.numel() == storage.numel()
        return tensor if whole else tensor.contiguous().clone()

    return StoredTensor(tuple(size), read)


def _numpy_array(state: Any) -> StoredTensor:
    """Describe an array by what NumPy would restore it from.

    Args:
        state: Version, shape, type, whether the order is Fortran's, and the bytes.
    """
    _, shape, kind, fortran, data = state
    code = kind.args[0]
    if not re.fullmatch(r"[fiub][1248]", code):
        raise CheckpointError(f"an array of a type that is not known ({code!r})")
    dtype = np.dtype(code).newbyteorder(kind.state[1] if kind.state else "=")
    if isinstance(data, Stub):
        data = data.args[0] if data.args else b""
    if len(data) != math.prod(shape) * dtype.itemsize:
        raise CheckpointError("its bytes do not fit its shape")

    def read() -> Tensor:
        content = data.encode("latin-1") if isinstance(data, str) else bytes(data)
        array = np.frombuffer(content, dtype).reshape(shape, order="F" if fortran else "C")
        return torch.from_numpy(array.astype(dtype.newbyteorder("="), order="C"))

    return StoredTensor(tuple(shape), read)
