"""What a training keeps to go on from."""

from __future__ import annotations

import json
from pathlib import Path

from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy
from safetensors.torch import load, save

from featkit.store.tensors import with_tensors_digest
from tests.fuzzing import checkpoints, documents, hdf5
from tests.fuzzing.mutate import any_json
from tests.fuzzing.target import Case, Target

STATE = "run/state.safetensors"
ABOUT = {"epoch": 1, "step": 3, "loss": 2.5, "rows": [{"epoch": 0, "loss": None}]}


def lay_out(folder: Path) -> None:
    documents.make_run(folder)
    about = {"about": json.dumps(ABOUT)}
    state = save(checkpoints.state(), with_tensors_digest(about, checkpoints.state()))
    (folder / STATE).write_bytes(state)


def read(folder: Path, _words: tuple[str, ...]) -> object:
    from featkit.backbones.training_runs import read_run
    from featkit.trainers.loop import read_progress
    from featkit.trainers.run_folder import RunFolder

    run = RunFolder(folder / "run", read_run(folder / "run"), is_new=False)
    found = run.read_state()
    assert found is not None
    tensors, about = found
    with run.reading_state():
        progress = read_progress(about)
    return [{name: hdf5.summary(t.numpy()) for name, t in tensors.items()}, progress]


def _cases(folder: Path) -> SearchStrategy[Case]:
    """Other progress, under the sha256 that belongs to it or under another."""
    tensors = load((folder / STATE).read_bytes())
    old = with_tensors_digest({"about": json.dumps(ABOUT)}, tensors)["sha256"]

    def made(data: bytes, is_told: bool) -> Case:
        about = {"about": data.decode("utf-8", "replace")}
        metadata = with_tensors_digest(about, tensors) if is_told else about | {"sha256": old}
        return Case({STATE: save(tensors, metadata)})

    return st.builds(made, any_json(ABOUT, ([{}], [1])), st.sampled_from([True, True, False]))


STATES = Target(
    name="state of a run", kind="states",
    modules=("featkit.trainers.run_folder", "featkit.store.tensors"), lay_out=lay_out,
    cases=_cases, starts=lambda folder, _: (folder / STATE).read_bytes()[8:9] == b"{", read=read,
)  # fmt: skip
