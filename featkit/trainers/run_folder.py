"""The folder of a training: what is written while it runs, so that a kill loses nothing.

Every file appears whole, by rename. ``run.json`` is written after the weights that it names, so
that what it names is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import filelock
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from featkit.backbones.base import Network
from featkit.backbones.training_runs import (
    RUN_FILE,
    WEIGHTS_FOLDER,
    RunRecord,
    is_run,
    read_run,
    weights_file,
)
from featkit.errors import ConflictError, DamagedError, StoreError, UsageError
from featkit.store.files import explain_write_errors, write_whole
from featkit.store.fingerprint import differences

STATE_FILE = "state.safetensors"
LOCK_FILE = ".lock"


@dataclass
class RunFolder:
    """A training's folder, held by the process that trains.

    Attributes:
        path: Of the folder.
        record: What ``run.json`` says.
    """

    path: Path
    record: RunRecord

    def keep_weights(self, epoch: int, network: Network) -> None:
        """Write the weights of an epoch, and say so in ``run.json``."""
        content = save(_weights(network))
        with self._writing("weights"):
            write_whole(weights_file(self.path, epoch), content)
        digest = hashlib.sha256(content).hexdigest()
        self._rewrite(weights={**self.record.weights, epoch: digest})

    def drop_weights(self, wanted: set[int]) -> None:
        """Delete the weights of all epochs but these."""
        superfluous = self.record.weights.keys() - wanted
        if superfluous:
            self._rewrite(weights={e: d for e, d in self.record.weights.items() if e in wanted})
        for epoch in superfluous:
            weights_file(self.path, epoch).unlink(missing_ok=True)

    def write_state(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep what is needed to go on, in place of what was kept before."""
        content = save(
            {name: tensor.contiguous() for name, tensor in tensors.items()},
            {"about": json.dumps(about)},
        )
        with self._writing("the state"):
            write_whole(self.path / STATE_FILE, content)

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept last; None if nothing was.

        Raises:
            DamagedError: It cannot be read.
        """
        path = self.path / STATE_FILE
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt") as file:
                about = json.loads((file.metadata() or {})["about"])
                return {name: file.get_tensor(name) for name in file.keys()}, about  # noqa: SIM118
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise DamagedError(
                f"{path} is damaged ({error}): epochs that {self.path} keeps can still be used "
                f"(?epoch=); start again with --overwrite"
            ) from error

    def finish(self, chosen: int) -> None:
        """Say which epoch the run stands for; what was needed to go on is deleted."""
        self._rewrite(chosen=chosen)
        (self.path / STATE_FILE).unlink(missing_ok=True)

    def _rewrite(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        with self._writing(RUN_FILE):
            write_whole(self.path / RUN_FILE, self.record.to_json().encode())

    def _writing(self, what: str) -> Any:
        return explain_write_errors(what, self.path)


@contextmanager
def open_run(path: Path, record: RunRecord, overwrite: bool = False) -> Iterator[RunFolder]:
    """Make the folder of a training, or go on in it; no other process can meanwhile.

    Args:
        path: The folder.
        record: What is to be trained, without weights.
        overwrite: Whether to start again where a training is.

    Raises:
        UsageError: The folder holds something else.
        ConflictError: It holds a training with other settings.
        StoreError: Another process trains there, or it cannot be written to.
    """
    with explain_write_errors("the run", path):
        path.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(path / LOCK_FILE)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            raise StoreError(
                f"{path}: another process is training here; wait until it has finished"
            ) from None
    try:
        if is_run(path) and not overwrite:
            record = _same(path, read_run(path), record)
        else:
            _clear(path)
            with explain_write_errors("the run", path):
                (path / WEIGHTS_FOLDER).mkdir(exist_ok=True)
                write_whole(path / RUN_FILE, record.to_json().encode())
        yield RunFolder(path, record)
    finally:
        lock.release()


def _clear(path: Path) -> None:
    """Delete a training, and refuse a folder that holds something else."""
    others = {entry.name for entry in path.iterdir()} - {LOCK_FILE}
    if others and not is_run(path) and others != {WEIGHTS_FOLDER}:
        raise UsageError(f"{path} is not empty, and no training run: give another folder")
    (path / RUN_FILE).unlink(missing_ok=True)
    for file in (path / STATE_FILE, *(path / WEIGHTS_FOLDER).glob("*.safetensors*")):
        with suppress(FileNotFoundError):
            file.unlink()


def _same(path: Path, there: RunRecord, asked: RunRecord) -> RunRecord:
    """Return the record that is there, if it is of the training that is asked for."""
    found = differences(*(_decides(record) for record in (there, asked)))
    if found:
        raise ConflictError(
            f"{path} holds another training ({'; '.join(found)}): give another folder, the same "
            f"settings to go on, or --overwrite to start again"
        )
    return there


def _decides(record: RunRecord) -> dict[str, Any]:
    return {
        "method": record.method,
        "architecture": record.architecture,
        "preprocessing": record.preprocessing.as_dict(),
        **record.settings,
    }


def _weights(network: Network) -> dict[str, Tensor]:
    """Name the tensors of a network for :mod:`featkit.backbones.checkpoints.layouts`."""
    head = f"{network.head}."
    named = {}
    for name, tensor in network.module.state_dict().items():
        inside = name.startswith(head)
        named["head." + name.removeprefix(head) if inside else f"backbone.{name}"] = (
            tensor.detach().cpu().contiguous()
        )
    return named
