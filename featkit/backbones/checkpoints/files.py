"""What a checkpoint file holds: plain values, and tensors that are read when they are wanted.

torch's own reader is not used. It makes every object of the file, optimizer included, before
anything can be asked of it; it does not compare the checksums that its files carry; and releases
that featkit supports have run code from hostile files under ``weights_only=True``
(CVE-2025-32434). Here nothing but the bytes of the wanted tensors leaves the file.
"""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any, BinaryIO

from torch import Tensor

from featkit.backbones.checkpoints.tensors import (
    Span,
    StoredTensor,
    element_size,
    named_tensors,
    storage_key,
    tensor_shape,
)
from featkit.backbones.checkpoints.unpickle import Reference, unpickle
from featkit.documents import parse_json
from featkit.errors import CheckpointError, one_line

LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
"""First value of the files that torch wrote before release 1.6."""

_LARGEST_INDEX = 100_000_000

_MISTAKEN = {
    b"version https://git-lfs": "a Git LFS pointer, not the file itself; run git lfs pull",
    b"<!DOCTYPE": "a web page, not a checkpoint; the download went wrong",
    b"<html": "a web page, not a checkpoint; the download went wrong",
    b"\x89HDF": "an HDF5 file, not a PyTorch checkpoint; convert it to a state dict first",
    b"\x1f\x8b": "compressed with gzip; unpack it first",
}


def open_checkpoint(path: Path) -> dict[str, StoredTensor]:
    """List the tensors of a checkpoint; their bytes are read when they are wanted.

    Args:
        path: A PyTorch file (zip or legacy), a pickle, a safetensors file, or the
            ``.safetensors.index.json`` of several.

    Returns:
        Tensors by name, in the file's order; the names of the dictionaries around one come before
        it with slashes, as in ``state_dict/conv1.weight``.

    Raises:
        CheckpointError: The file does not exist, is damaged, or is of another kind. A tensor that
            is damaged raises it when it is read.

    Cost:
        About 1 µs an instruction of the pickle; memory in proportion to it.
    """
    if path.name.endswith(".index.json"):
        with _errors_of(path):
            return _open_shards(path)
    return _open_one(path)


def _open_one(path: Path) -> dict[str, StoredTensor]:
    with _errors_of(path):
        tensors = _open_file(path)
    return {
        name: StoredTensor(tensor.shape, partial(_read, path, name, tensor))
        for name, tensor in tensors.items()
    }


@contextmanager
def _errors_of(path: Path, place: str = "") -> Iterator[None]:
    """Turn whatever damaged bytes can cause into an error of one line that names the file."""
    try:
        yield
    except Exception as error:
        raise CheckpointError(f"{path}: {one_line(place + _reason(error))}") from error


def _reason(error: Exception) -> str:
    if isinstance(error, CheckpointError):
        return str(error)
    if isinstance(error, OSError):
        return error.strerror or str(error)
    return f"damaged ({one_line(error)})"


def _read(path: Path, name: str, tensor: StoredTensor) -> Tensor:
    with _errors_of(path, f"tensor {one_line(name, most=100)}: "):
        value = tensor.read()
        if value.shape != tensor.shape:
            raise CheckpointError(f"of a type that is not known ({value.dtype})")
        return value


def _open_file(path: Path) -> dict[str, StoredTensor]:
    if not path.is_file():
        raise CheckpointError("no such checkpoint file")
    with path.open("rb") as file:
        start = file.read(32)
    hint = next((hint for magic, hint in _MISTAKEN.items() if start.startswith(magic)), None)
    if hint or not start:
        raise CheckpointError(hint or "an empty file")
    if start[8:9] == b"{":
        return _open_safetensors(path)
    if start.startswith(b"PK") or zipfile.is_zipfile(path):
        return _open_zip(path)
    return _open_stream(path)


def _open_safetensors(path: Path) -> dict[str, StoredTensor]:
    from safetensors import SafetensorError, safe_open

    def read(name: str) -> Tensor:
        tensor: Tensor = file.get_tensor(name)
        return tensor.clone()

    try:
        file: Any = safe_open(path, framework="pt")
        shapes = {
            name: tensor_shape(file.get_slice(name).get_shape())
            for name in file.keys()  # noqa: SIM118
        }
    except SafetensorError as error:
        raise CheckpointError(f"damaged safetensors file ({error})") from error
    return {name: StoredTensor(shape, partial(read, name)) for name, shape in shapes.items()}


def shard_names(index: Path) -> dict[str, str]:
    """Read which file of the same folder holds which tensor.

    Args:
        index: A ``.safetensors.index.json``.

    Raises:
        CheckpointError: It is no such index, or names a file elsewhere.
    """
    if not index.is_file():
        raise CheckpointError("no such checkpoint file")
    if index.stat().st_size > _LARGEST_INDEX:
        raise CheckpointError("too large for an index of safetensors files")
    try:
        names = parse_json(index.read_bytes())["weight_map"].items()
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError("not an index of safetensors files (no weight_map)") from error
    for _, file in names:
        is_name = isinstance(file, str) and file.isprintable() and "\\" not in file
        if not is_name or file == "" or Path(file).name != file:
            raise CheckpointError(f"names the file {file!r}, which is not one beside it")
    return dict(names)


def _open_shards(index: Path) -> dict[str, StoredTensor]:
    names = shard_names(index)
    shards = {file: _open_one(index.with_name(file)) for file in sorted(set(names.values()))}
    for name, file in names.items():
        if name not in shards[file]:
            raise CheckpointError(f"{file} lacks the tensor {name}")
    return {name: shards[file][name] for name, file in names.items()}


def _open_zip(path: Path) -> dict[str, StoredTensor]:
    with zipfile.ZipFile(path) as archive:
        entries = {entry.filename: entry for entry in archive.infolist()}
        pickled = next((name for name in entries if name.endswith("data.pkl")), None)
        if pickled is None:
            raise CheckpointError("a zip archive, but not one of PyTorch (no data.pkl)")
        folder = pickled.removesuffix("data.pkl")
        if f"{folder}constants.pkl" in entries:
            raise CheckpointError("a TorchScript archive; save its module's state_dict")
        _check_sizes(path, entries.values())
        if f"{folder}byteorder" in entries and archive.read(f"{folder}byteorder") != b"little":
            raise CheckpointError("written on a big-endian machine")
        content = unpickle(io.BytesIO(archive.read(pickled)))
    prefix = f"{folder}data/"
    with path.open("rb") as file:
        spans = {
            name.removeprefix(prefix): _span(path, file, entry)
            for name, entry in entries.items()
            if name.startswith(prefix)
        }
    return named_tensors(content, spans)


def _check_sizes(path: Path, entries: Iterable[zipfile.ZipInfo]) -> None:
    """Refuse archives that would become larger than they are."""
    if any(entry.compress_type != zipfile.ZIP_STORED for entry in entries):
        raise CheckpointError("compressed, which PyTorch files never are")
    if sum(entry.file_size for entry in entries) > path.stat().st_size:
        raise CheckpointError("damaged (its parts are larger than the file)")


def _span(path: Path, file: BinaryIO, entry: zipfile.ZipInfo) -> Span:
    """Find an uncompressed entry's bytes, which follow its local header."""
    file.seek(entry.header_offset)
    header = file.read(30)
    if len(header) < 30 or header[:4] != b"PK\3\4":
        raise CheckpointError("damaged (an entry of the archive is not where it should be)")
    name, extra = struct.unpack("<HH", header[26:])
    return Span(path, entry.header_offset + 30 + name + extra, entry.file_size, entry.CRC)


def _open_stream(path: Path) -> dict[str, StoredTensor]:
    """Read a pickle, or several with the bytes of tensors behind them."""
    with path.open("rb") as file:
        content = unpickle(file)
        if content != LEGACY_MAGIC:
            return named_tensors(content, {})
        _version, system = unpickle(file), unpickle(file)
        if not isinstance(system, dict) or system.get("little_endian") is not True:
            raise CheckpointError("written on a big-endian machine, or damaged")
        references: list[Reference] = []
        content = unpickle(file, references)
        keys = unpickle(file)
        return named_tensors(content, _legacy_spans(path, file, references, keys))


def _legacy_spans(
    path: Path, file: BinaryIO, references: list[Reference], keys: object
) -> dict[str, Span]:
    """Find the bytes of each storage, which come in the order of the keys after their counts."""
    sizes = {storage_key(r.key[2]): element_size(r) for r in references if element_size(r)}
    end = path.stat().st_size
    spans: dict[str, Span] = {}
    for key in keys if isinstance(keys, list) else []:
        count = int.from_bytes(file.read(8), "little")
        name = storage_key(key)
        size = count * sizes.get(name, 0)
        if not size and count:
            raise CheckpointError("damaged (a storage that no tensor uses)")
        if file.tell() + size > end:
            raise CheckpointError("damaged (its tensors go beyond the end of the file)")
        spans[name] = Span(path, file.tell(), size)
        file.seek(size, io.SEEK_CUR)
    return spans
