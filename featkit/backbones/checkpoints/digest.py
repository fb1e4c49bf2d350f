"""The sha256 of files, computed once."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import tempfile
from pathlib import Path

from featkit.backbones.cache import cache_folder
from featkit.backbones.checkpoints.files import shard_names
from featkit.data.files import file_stamps
from featkit.documents import parse_json


def file_sha256(path: Path, anew: bool = False) -> str:
    """Return the sha256 of a file in hexadecimal.

    It is kept in the cache folder with the file's path, size and time of change; a cache that
    cannot be read or written costs time only.

    Args:
        path: Of the file.
        anew: Whether to hash what is there now, whatever is kept: a disk that loses a bit leaves
            size and time as they were.

    Raises:
        OSError: The file cannot be read.

    Cost:
        One pass over the file (some 0.7 s a GB), the first time.

    Example:
        >>> import tempfile
        >>> with tempfile.NamedTemporaryFile() as file:
        ...     file_sha256(Path(file.name))[:8]
        'e3b0c442'
    """
    place = path.resolve()
    size, changed = file_stamps([place])[0].tolist()
    stamp = [str(place), size, changed]
    note = cache_folder() / "sha256" / hashlib.sha256(str(place).encode()).hexdigest()[:32]
    with contextlib.suppress(OSError, ValueError, LookupError, TypeError):
        known = parse_json(note.read_bytes())
        is_same = changed > 0 and known["stamp"] == stamp
        if not anew and is_same and len(known["sha256"]) == 64:
            return str(known["sha256"])
    with place.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if changed > 0:
        with contextlib.suppress(OSError):
            _write(note, json.dumps({"stamp": stamp, "sha256": digest}))
    return digest


def checkpoint_sha256(path: Path, anew: bool = False) -> str:
    """Return what identifies a checkpoint's bytes.

    Of a file it is the sha256; of an index of several it is the sha256 over what the command
    ``sha256sum`` prints for the index and then the others in alphabetical order.

    Args:
        path: Of the checkpoint.
        anew: See :func:`file_sha256`.

    Raises:
        CheckpointError: It is no index.
        OSError: A file cannot be read.
    """
    if not path.name.endswith(".index.json"):
        return file_sha256(path, anew)
    files = [path, *(path.with_name(name) for name in sorted(set(shard_names(path).values())))]
    lines = (f"{file_sha256(file, anew)}  {file.name}\n" for file in files)
    return hashlib.sha256("".join(lines).encode()).hexdigest()


def _write(note: Path, text: str) -> None:
    note.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=note.parent)
    with os.fdopen(handle, "w", encoding="utf-8") as file:
        file.write(text)
    Path(name).replace(note)
