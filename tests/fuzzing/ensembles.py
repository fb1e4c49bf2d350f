"""The files of an ensemble, and of one that is not finished."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors import safe_open
from safetensors.torch import load, save

from featkit.analyses.ensemble.representation import EnsembleRepresentation
from featkit.analyses.ensemble.stored import Member, StoredEnsemble, verify_ensemble
from featkit.store.tensors import with_tensors_digest
from tests.fuzzing import hdf5
from tests.fuzzing.documents import is_json, resealed_changes
from tests.fuzzing.mutate import any_json
from tests.fuzzing.target import Case, Target

MODEL, WEIGHTS, MEMBERS = "e/model.json", "e/model.safetensors", "e/members.json"
STATE = "kept/state.safetensors"


def _features() -> list[Any]:
    rng = np.random.default_rng(0)
    return [rng.random((20, width), np.float32) for width in (4, 5)]


def _learner(folder: Path | None = None) -> EnsembleRepresentation:
    return EnsembleRepresentation(epochs=2, batch_size=10, lr=1e-3, init="pca", checkpoint=folder)


@cache
def _files() -> dict[str, bytes]:
    with TemporaryDirectory() as place:
        folder = Path(place)
        ensemble = _learner(folder / "kept").fit(_features())
        members = [Member(f"net{j}/fc.none", {"backbone": {"arch": "a"}}) for j in range(2)]
        StoredEnsemble("e", members, ["a" * 64, "b" * 64], ensemble).save(folder / "e")
        return {name: (folder / name).read_bytes() for name in (MODEL, WEIGHTS, MEMBERS, STATE)}


def lay_out(folder: Path) -> None:
    for name, data in _files().items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_bytes(data)


def read(folder: Path, _words: tuple[str, ...]) -> object:
    """Return what an ensemble is, and where it begins with a few images."""
    found = StoredEnsemble.load(folder / "e")
    ensemble = found.ensemble
    rows = [np.ones((2, width), np.float32) for width in ensemble.widths_]
    members = [[member.table, member.made_by] for member in found.members]
    return [
        found.table, members, found.fitted_on, ensemble.get_params(), ensemble.digest(),
        hdf5.summary(ensemble.start(rows)),
    ]  # fmt: skip


def verify(folder: Path, _words: tuple[str, ...]) -> object:
    return [[check.name, check.problems] for check in verify_ensemble(folder / "e")]


def go_on(folder: Path, _words: tuple[str, ...]) -> object:
    """Go on from the state."""
    ensemble = _learner(folder / "kept").fit(_features())
    return [hdf5.summary(ensemble.embedding_), ensemble.recovery_]


def _cases(name: str, extra: tuple[Any, ...]) -> Any:
    def cases(folder: Path) -> SearchStrategy[Case]:
        content = json.loads((folder / name).read_bytes())
        return resealed_changes(content, extra).map(lambda data: Case({name: data}))

    return cases


_MODULES = ("featkit.analyses.ensemble.representation", "featkit.analyses.ensemble.stored")

MODELS = Target(
    name="model.json", kind="JSON", modules=_MODULES, lay_out=lay_out,
    cases=_cases(MODEL, ("pca", "average", [4, 4], [4, 10**9], [True], 2**40, {"depth": 10**7})),
    starts=is_json(MODEL), read=read,
)  # fmt: skip
MEMBERSHIP = Target(
    name="members.json", kind="JSON", modules=_MODULES, lay_out=lay_out,
    cases=_cases(MEMBERS, ("../../x", ["net0/fc.none"], {"table": "x", "made_by": {}})),
    starts=is_json(MEMBERS), read=read,
)  # fmt: skip


def _state_cases(folder: Path) -> SearchStrategy[Case]:
    """Other measurements, or tensors of other kinds, under the sha256 that belongs to them."""
    with safe_open(folder / STATE, framework="pt") as file:
        about = file.metadata()
    tensors = load((folder / STATE).read_bytes())

    def made(text: bytes, name: str, other: torch.Tensor | None) -> Case:
        told = {"run": about["run"], "recovery": text.decode("utf-8", "replace")}
        changed = {n: t for n, t in tensors.items() if n != name}
        changed |= {} if other is None else {name: other}
        return Case({STATE: save(changed, with_tensors_digest(told, changed))})

    others = (
        None, torch.zeros(()), torch.tensor(2**62), torch.tensor(float("nan")),
        torch.ones(20, 9, dtype=torch.float64), torch.zeros(0), torch.ones(1, 1, 1),
    )  # fmt: skip
    recovery = st.one_of(
        st.just(about["recovery"].encode()), any_json(json.loads(about["recovery"]))
    )
    return st.builds(
        made, recovery, st.sampled_from([*sorted(tensors), "more"]), st.sampled_from(others)
    )


def _starts(folder: Path, _words: tuple[str, ...]) -> object:
    with safe_open(folder / STATE, framework="pt") as file:
        return "run" in file.metadata()


STATES = Target(
    name="state of an ensemble", kind="states",
    modules=("featkit.analyses.ensemble.kept_state", "featkit.store.tensors"),
    lay_out=lay_out, cases=_state_cases, starts=_starts, read=go_on, output=(".",), is_fresh=True,
)  # fmt: skip
