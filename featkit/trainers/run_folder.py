"""The folder of a training: what is written while it runs, so that a kill loses nothing.

Every file appears whole, by rename. ``run.json`` is written after the weights that it names, so
that what it names is there.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from featkit.analyses.base import delete_result
from featkit.backbones.base import Network
from featkit.backbones.training_runs import (
    RUN_FILE,
    SHARED_PIXELS,
    WEIGHTS_FOLDER,
    RunRecord,
    is_run,
    read_run,
    weights_file,
)
from featkit.documents import parse_json
from featkit.errors import ConflictError, DamagedError, UsageError, one_line
from featkit.parallel.group import first
from featkit.store.files import (
    explain_write_errors,
    holding,
    make_folder,
    sync_folder,
    write_whole,
)
from featkit.store.fingerprint import differences
from featkit.store.tensors import check_tensors, with_tensors_digest

STATE_FILE = "state.safetensors"
LOCK_FILE = ".lock"
KEPT = "what the run kept before is safe"
_OF_A_KILL = {LOCK_FILE, f"{RUN_FILE}.tmp"}
"""What a training may leave that was killed before it was there."""


@dataclass
class RunFolder:
    """A training's folder, held by the process that trains.

    Attributes:
        path: Of the folder.
        record: What ``run.json`` says, or will say.
        is_new: Whether a training begins, maybe in place of another.
    """

    path: Path
    record: RunRecord
    is_new: bool

    def begin(self) -> None:
        """Write that the training is here; what is left of another, or of a kill, is deleted."""
        if self.is_new:
            (self.path / STATE_FILE).unlink(missing_ok=True)
            with self._writing("the run"):
                sync_folder(
                    self.path
                )  # a power cut must not bring it back beside this run's record
                make_folder(self.path / WEIGHTS_FOLDER)
            self._rewrite()
            delete_result(self.path)
            self.is_new = False
        self.sweep()

    def keep_weights(self, epoch: int, network: Network) -> None:
        """Write the weights of an epoch, and say so in ``run.json``."""
        content = save(_weights(network))
        with self._writing("weights"):
            write_whole(weights_file(self.path, epoch), content)
        digest = hashlib.sha256(content).hexdigest()
        self._rewrite(weights={**self.record.weights, epoch: digest})

    def drop_weights(self, wanted: set[int]) -> None:
        """Delete the weights of all epochs but these."""
        kept = {epoch: d for epoch, d in self.record.weights.items() if epoch in wanted}
        if kept != self.record.weights:
            self._rewrite(weights=kept)
        self.sweep()

    def sweep(self) -> None:
        """Delete files of a training that ``run.json`` does not name."""
        named = {weights_file(self.path, epoch) for epoch in self.record.weights}
        found = set((self.path / WEIGHTS_FOLDER).glob("epoch-*.safetensors*"))
        found.add((self.path / STATE_FILE).with_suffix(".safetensors.tmp"))
        if self.record.chosen is not None:
            found.add(self.path / STATE_FILE)
        for file in (found | set(_pixels(self.path))) - named:
            file.unlink(missing_ok=True)

    def write_state(self, tensors: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
        """Keep what is needed to go on, in place of what was kept before."""
        plain = {name: tensor.contiguous() for name, tensor in tensors.items()}
        content = save(plain, with_tensors_digest({"about": json.dumps(about)}, plain))
        with self._writing("the state"):
            write_whole(self.path / STATE_FILE, content)

    def read_state(self) -> tuple[dict[str, Tensor], dict[str, Any]] | None:
        """Return what was kept last; None if nothing was.

        Of several processes the first compares it with its sha256.

        Raises:
            DamagedError: It cannot be read, or is not what was written.
        """
        path = self.path / STATE_FILE
        if not path.is_file():
            return None
        with self.reading_state(), safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
            first(lambda: check_tensors(metadata, tensors, tensors.__getitem__))
            about = parse_json(metadata["about"])
            if not isinstance(about, dict):
                raise TypeError("it does not say how far the training had come")
            return tensors, about

    @contextmanager
    def reading_state(self) -> Iterator[None]:
        """Turn what fails with a state that is damaged into an error that says what to do.

        Raises:
            DamagedError: Something has failed.
        """
        try:
            yield
        except (SafetensorError, OSError, LookupError, TypeError, ValueError) as error:
            raise DamagedError(
                f"{self.path / STATE_FILE} is damaged ({one_line(error)}): epochs that {self.path} "
                f"keeps can still be used (?epoch=); start again in another folder, or with "
                f"--overwrite"
            ) from error

    def finish(self, chosen: int) -> None:
        """Say which epoch the run stands for; what was needed to go on is deleted."""
        self._rewrite(chosen=chosen)
        self.sweep()

    def _rewrite(self, **changes: Any) -> None:
        self.record = replace(self.record, **changes)
        with self._writing(RUN_FILE):
            write_whole(self.path / RUN_FILE, self.record.to_json().encode())

    def _writing(self, what: str) -> Any:
        return explain_write_errors(what, self.path, KEPT)


@contextmanager
def open_run(path: Path, record: RunRecord, overwrite: bool = False) -> Iterator[RunFolder]:
    """Hold the folder of a training; no other process can meanwhile.

    Nothing is written before :meth:`RunFolder.begin`; if that is not reached, a folder that was not
    there is not there afterwards.

    Args:
        path: The folder.
        record: What is to be trained, without weights.
        overwrite: Whether to start again where a training is.

    Raises:
        UsageError: The folder holds something else.
        ConflictError: It holds a training with other settings.
        StoreError: Another process trains there, or it cannot be written to.
    """
    check_place(path)
    was_there = path.exists()
    with ExitStack() as held:
        with explain_write_errors("the run", path, KEPT):
            held.enter_context(holding(path, LOCK_FILE, "training here"))
        held.callback(_leave, path, was_there)
        goes_on = is_run(path) and not overwrite
        there = _same(path, read_run(path), record) if goes_on else record
        yield RunFolder(path, there, is_new=not goes_on)


def _leave(path: Path, was_there: bool) -> None:
    """Take away what was made for a training that has not begun."""
    if is_run(path):
        return
    for file in (*_pixels(path), *(path / name for name in _OF_A_KILL)):
        file.unlink(missing_ok=True)
    with suppress(OSError):  # it was never made, or holds what others have put there
        (path / WEIGHTS_FOLDER).rmdir()
    with suppress(OSError):
        if not was_there:
            path.rmdir()


def _pixels(path: Path) -> list[Path]:
    """List files of decoded images that processes shared which were killed."""
    return list(path.glob(SHARED_PIXELS.format("*")))


def check_place(path: Path) -> None:
    """Refuse a folder that holds something else, or could not be named after ``-b``.

    Raises:
        UsageError: It does.
    """
    name = path.resolve().name
    if not name or set(name) & set("?="):
        raise UsageError(f"{path}: a run with ? or = in its name is no backbone: give another name")
    if is_run(path):
        read_run(path)
        return
    of_a_kill = _OF_A_KILL | {file.name for file in _pixels(path)}
    others = {entry.name for entry in path.iterdir()} - of_a_kill if path.is_dir() else set()
    weights = path / WEIGHTS_FOLDER
    if others and (others != {WEIGHTS_FOLDER} or not weights.is_dir() or any(weights.iterdir())):
        raise UsageError(f"{path} is not empty, and no training run: give another folder")


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
        **json.loads(json.dumps(record.settings)),  # as the file gives them back: lists, no tuples
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
