"""Files in which a disk has changed something, and what reads and what verifies them."""

from __future__ import annotations

import random
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import h5py
import numpy as np

from featkit.analyses.base import Result, verify_result
from featkit.backbones.training_runs import verify_run
from featkit.errors import StoreError, one_line
from featkit.store.datasets import DAMAGES
from tests.fuzzing import checkpoints, documents, ensembles, hdf5, states
from tests.fuzzing.target import Case, Target

KINDS = ("bit", "byte", "cut")


@dataclass(frozen=True)
class Subject:
    """A file that is damaged.

    Attributes:
        name: Of the kind of file.
        reader: Reads it, as commands do.
        file: Says which it is, in a folder that the reader has laid out.
        words: What the reader is given.
        verifier: What ``featkit verify`` does; None where nothing verifies it.
    """

    name: str
    reader: Target
    file: Callable[[Path], str]
    words: tuple[str, ...] = ()
    verifier: Target | None = None


def damage(data: bytes, kind: str, rng: random.Random) -> bytes:
    """Return the bytes with one bit or one byte changed, or without their end."""
    at = rng.randrange(len(data))
    if kind == "cut":
        return data[:at]
    mask = 1 << rng.randrange(8) if kind == "bit" else rng.randrange(1, 256)
    return data[:at] + bytes([data[at] ^ mask]) + data[at + 1 :]


def cases(whole: bytes, file: str, subject: Subject, each: int, seed: int) -> Iterator[Case]:
    """Yield ``each`` bits, a third as many bytes, and a sixth as many cuts."""
    rng = random.Random(f"{subject.name} {seed}")
    for kind, count in zip(KINDS, (each, each // 3, each // 6), strict=True):
        for _ in range(count):
            yield Case({file: damage(whole, kind, rng)}, subject.words)


def _target(name: str, lay_out: Callable[[Path], None], read: Callable[..., object],
            words: tuple[tuple[str, ...], ...] = ((),), **more: object) -> Target:  # fmt: skip
    return Target(name=name, kind="flips", modules=(), lay_out=lay_out, read=read, valid=words,
                  cases=None, starts=lambda *_: True, **more)  # type: ignore[arg-type]  # fmt: skip


def _lay_out_result(folder: Path) -> None:
    documents.make_dissections(folder)
    arrays = {"x": np.arange(60.0).reshape(12, 5), "names": np.array(["a", "b"])}
    Result("knn", {"k": 1}, {"top1": 0.5}, {"rows": [{"a": 1}]}, arrays).save(folder / "saved")


def _read_arrays(folder: Path, _words: tuple[str, ...]) -> object:
    """Read the arrays as a user would, with h5py, whose errors are its own."""
    try:
        with h5py.File(folder / "saved" / "arrays.h5") as file:
            names = [str(name) for name in file["names"].asstr()[...]]
            return [hdf5.summary(file["x"][...]), names]
    except DAMAGES as error:
        raise StoreError(one_line(error)) from error


def _lay_out_checkpoints(folder: Path) -> None:
    for kind in ("zip", "legacy", "safetensors"):
        (folder / f"net.{kind}").write_bytes(checkpoints.whole(kind))
    checkpoints.make_shards(folder)


def _problems(checks: Callable[[Path], object], place: str) -> Callable[..., object]:
    def read(folder: Path, _words: tuple[str, ...]) -> object:
        return [[check.name, check.problems] for check in checks(folder / place)]  # type: ignore[attr-defined]

    return read


_VERIFY_STORE = _target("verify store", hdf5.lay_out, hdf5.verify)
_READ_STORE = _target("read store", hdf5.lay_out, hdf5.read_store)
_FINISH = _target("go on with a table", hdf5.make_store, hdf5.finish, output=(".",), is_fresh=True)
_SEARCH = _target("search by an index", hdf5.make_indexes, hdf5.search, (("ivf",), ("hnsw",)),
                  output=(".",), is_fresh=True)  # fmt: skip
_VERIFY_INDEXES = _target("verify indexes", hdf5.make_indexes, hdf5.verify)
_NET = lambda _, words: documents.features(words[0])  # noqa: E731
_RUN = _target("read run", documents.make_run, _NET, (("run",),))
_VERIFY_RUN = _target("verify run", documents.make_run, _problems(verify_run, "run"))
_STATE = _target("read state", states.lay_out, states.read)
_ENSEMBLE = _target("read ensemble", ensembles.lay_out, ensembles.read)
_VERIFY_ENSEMBLE = _target("verify ensemble", ensembles.lay_out, ensembles.verify)
_GO_ON = _target(
    "go on with an ensemble", ensembles.lay_out, ensembles.go_on, output=(".",), is_fresh=True
)
_LCE = _target("read result", _lay_out_result, documents.lce, output=(".",), is_fresh=True)
_ARRAYS = _target("read arrays", _lay_out_result, _read_arrays)
_VERIFY_ARRAYS = _target("verify arrays", _lay_out_result, _problems(verify_result, "saved"))
_VERIFY_RESULT = _target("verify result", _lay_out_result, _problems(verify_result, "a"))
_CHECKPOINT = _target("read checkpoint", _lay_out_checkpoints, _NET, (("net.zip",),))


def _named(file: str) -> Callable[[Path], str]:
    return lambda _: file


SUBJECTS = (
    Subject("store: samples.h5", _READ_STORE, _named("samples.h5"), (), _VERIFY_STORE),
    Subject("store: a table", _READ_STORE, _named(hdf5.TABLE), (), _VERIFY_STORE),
    Subject("store: a part", _FINISH, hdf5.part_file, (), _VERIFY_STORE),
    *(Subject(f"store: an index, {kind}", _SEARCH, partial(hdf5.index_file, kind=kind), (kind,),
              _VERIFY_INDEXES) for kind in hdf5.INDEXED),
    Subject("store: plan.json", _FINISH, documents.plan_file, (), _VERIFY_STORE),
    Subject("store: runs.jsonl", _READ_STORE, _named("runs.jsonl")),
    Subject("result: result.json", _LCE, _named("a/result.json"), (), _VERIFY_RESULT),
    Subject("result: arrays.h5", _ARRAYS, _named("saved/arrays.h5"), (), _VERIFY_ARRAYS),
    Subject("run: run.json", _RUN, _named("run/run.json"), ("run",), _VERIFY_RUN),
    Subject("run: weights", _RUN, _named("run/weights/epoch-0003.safetensors"), ("run",),
            _VERIFY_RUN),
    Subject("run: state.safetensors", _STATE, _named(states.STATE)),
    *(Subject(f"ensemble: {Path(file).name}", _ENSEMBLE, _named(file), (), _VERIFY_ENSEMBLE)
      for file in (ensembles.MODEL, ensembles.WEIGHTS, ensembles.MEMBERS)),
    Subject("ensemble: state.safetensors", _GO_ON, _named(ensembles.STATE)),
    *(Subject(f"checkpoint: {kind}", _CHECKPOINT, _named(f"net.{kind}"), (f"net.{kind}",))
      for kind in ("zip", "legacy", "safetensors")),
    Subject("checkpoint: a part of safetensors", _CHECKPOINT, _named("one.safetensors"),
            (checkpoints.INDEX,)),
    Subject("checkpoint: index.json", _CHECKPOINT, _named(checkpoints.INDEX),
            (checkpoints.INDEX,)),
)  # fmt: skip

READERS = {t.name: t for s in SUBJECTS for t in (s.reader, s.verifier) if t is not None}
