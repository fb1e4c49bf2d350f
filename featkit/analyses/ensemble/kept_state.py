"""The state of an unfinished fit, kept after every epoch."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
from collections.abc import Mapping
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from featkit.analyses.ensemble.learning import Learner
from featkit.errors import DamagedError, UsageError
from featkit.parallel.group import first
from featkit.store.files import appearing, explain_full_disk, make_folder, write_whole

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
            DamagedError: It cannot be read.
        """
        if not first(self.path.is_file):
            return {}
        try:
            with safe_open(self.path, framework="pt") as file:
                about = file.metadata() or {}
                if first(lambda: about.get("run") != self.run):
                    raise OtherRunError(
                        f"{self.path} is the state of an unfinished run with other features or "
                        f"settings; choose another folder, or delete it"
                    )
                self.learner.restore(file.keys(), file.get_tensor)
        except (SafetensorError, OSError) as error:
            raise DamagedError(f"{self.path}: damaged ({error}); delete it") from error
        found: dict[str, list[float]] = json.loads(about["recovery"])
        return found

    def write(self, recovery: Mapping[str, list[float]]) -> None:
        """Keep the state of the learner.

        Raises:
            UsageError: The folder cannot be written to.
        """
        about = {"run": self.run, "recovery": json.dumps(recovery)}
        state = self.learner.state()
        first(lambda: write_tensors(self.path, state, about))


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


def write_text(path: Path, text: str) -> None:
    """Write a text so that the file is whole at any moment.

    Raises:
        DiskFullError: The disk is full.
        UsageError: It cannot be written.
    """
    try:
        with explain_full_disk(path.name, path.parent, KEPT):
            write_whole(path, text.encode())
    except OSError as error:
        raise UsageError(f"cannot write {path} ({error.strerror})") from error


def _fingerprint(learner: Learner) -> str:
    """Return what tells one run from another: settings and features."""
    digest = hashlib.sha256(repr(learner.settings).encode())
    for _, parts in learner.targets.blocks(slice(0, len(learner.targets))):
        for part in parts:
            digest.update(part.numpy().data)
    return digest.hexdigest()
