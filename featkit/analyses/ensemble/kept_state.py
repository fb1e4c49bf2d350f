"""The state of an unfinished fit, kept after every epoch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from featkit.analyses.ensemble.learning import Learner
from featkit.analyses.ensemble.settings import is_number
from featkit.documents import parse_json
from featkit.errors import DamagedError, UsageError, one_line
from featkit.parallel.group import first
from featkit.store.files import appearing, explain_full_disk, make_folder, write_whole
from featkit.store.fingerprint import signed_json
from featkit.store.tensors import check_tensors, with_tensors_digest

STATE_FILE = "state.safetensors"
KEPT = "epochs done so far are safe"


class OtherRunError(UsageError):
    """A state that another run has left."""


class KeptState:
    """The state after the last whole epoch, in one file."""

    def __init__(self, folder: str | Path, learner: Learner) -> None:
        self.path = Path(folder) / STATE_FILE
        self.learner = learner
        self.run = first(lambda: _fingerprint(learner))

    def restore(self) -> dict[str, list[float]]:
        """Go on from the file if there is one, and return what was measured so far.

        Raises:
            OtherRunError: It is of other features or settings.
            DamagedError: It cannot be read, or is not what was written.

        Cost: the first process reads it once more than what it takes of it (1.3 s a GB), in blocks
        that stay on disk.
        """
        if not first(self.path.is_file):
            return {}
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
                first(lambda: self._check_run(about))
                first(lambda: check_tensors(about, file.keys(), file.get_tensor))
                found = _read_recovery(about["recovery"])
                self.learner.restore(file.get_tensor)
        except OtherRunError:
            raise
        except (SafetensorError, OSError, LookupError, ValueError) as error:
            raise DamagedError(f"{self.path}: damaged ({one_line(error)}); delete it") from error
        return found

    def _check_run(self, about: Mapping[str, str]) -> None:
        if about.get("run") != self.run:
            raise OtherRunError(
                f"{self.path} is the state of an unfinished run with other features or settings; "
                f"choose another folder, or delete it"
            )

    def write(self, recovery: Mapping[str, list[float]]) -> None:
        """Keep the state of the learner.

        Raises:
            UsageError: The folder cannot be written to.

        Cost: one write, and a pass for the sha256, which takes a fifth of that.
        """
        about = {"run": self.run, "recovery": json.dumps(recovery)}
        state = self.learner.state()
        first(lambda: write_tensors(self.path, state, with_tensors_digest(about, state)))


def _read_recovery(text: str) -> dict[str, list[float]]:
    """Return what was measured so far.

    Raises:
        ValueError: It is no such thing.
    """
    found = parse_json(text)
    if not isinstance(found, dict) or not all(
        isinstance(row, list) and all(is_number(value) for value in row) for row in found.values()
    ):
        raise ValueError("it does not say what was measured")
    return found


def write_tensors(
    path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None = None
) -> None:
    """Write tensors so that the file is whole at any moment; make its folder.

    Raises:
        DiskFullError: The disk is full; a file that was there is as it was.
        UsageError: It cannot be written; likewise.
    """
    try:
        make_folder(path.parent)
        with explain_full_disk(path.name, path.parent, KEPT), appearing(path) as temporary:
            _save(temporary, tensors, about)
            mask = os.umask(0)
            os.umask(mask)
            temporary.chmod(0o666 & ~mask)  # safetensors lets nobody else read
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})") from error


def _save(path: Path, tensors: Mapping[str, Tensor], about: dict[str, str] | None) -> None:
    """Write tensors; what the system refuses is an ``OSError``, as everywhere.

    safetensors begins with a file of a name of its own, which a kill leaves: it gets a folder of
    its own, which the next call empties.
    """
    own = path.with_name(path.name + ".d")
    shutil.rmtree(own, ignore_errors=True)
    own.mkdir()
    try:
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        save_file(plain, own / path.name, about)
        (own / path.name).replace(path)
    except SafetensorError as error:
        number = re.search(r"os error (\d+)", str(error))
        if number is None:
            raise
        raise OSError(int(number[1]), os.strerror(int(number[1]))) from error
    finally:
        shutil.rmtree(own, ignore_errors=True)


def write_signed(path: Path, content: Mapping[str, Any]) -> None:
    """Write JSON with its sha256, for ``check_digest``, so that the file is whole at any moment.

    Raises:
        DiskFullError: The disk is full.
        UsageError: It cannot be written.
    """
    try:
        with explain_full_disk(path.name, path.parent, KEPT):
            write_whole(path, signed_json(content).encode())
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})") from error


def _fingerprint(learner: Learner) -> str:
    """Return what tells one run from another: settings and features."""
    digest = hashlib.sha256(repr(learner.settings).encode())
    for _, parts in learner.targets.blocks(slice(0, len(learner.targets))):
        for part in parts:
            digest.update(part.numpy().data)
    return digest.hexdigest()
