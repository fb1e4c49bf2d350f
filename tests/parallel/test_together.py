"""Two processes give what one gives."""

from __future__ import annotations

import json

import numpy as np
import pytest

import featkit
from featkit.store.verify import verify_store
from tests.parallel import tasks


def test_tables_have_the_same_bytes(alone, together):
    one, two = (featkit.open_store(folder / "store") for folder in (alone, together))
    own = [file.relative_to(one.path) for file in one.table_files() if "psi" not in str(file)]
    assert len(own) == 2
    for file in [*own, "samples.h5"]:
        assert (one.path / file).read_bytes() == (two.path / file).read_bytes()
    assert not any(check.problems for check in verify_store(two.path))
    assert not list((two.path / ".partial").glob("*"))


def test_both_processes_have_extracted(together):
    lines = (together / "store" / "runs.jsonl").read_text().splitlines()
    finished = json.loads(lines[1])
    assert finished["processes"] == 2
    assert finished["images"] == 1797


@pytest.mark.parametrize("method", tasks.TINY)
def test_networks_are_the_same_up_to_rounding(alone, together, method):
    """By plain gradient descent: Adam makes steps of rounding errors where gradients are 0."""
    one, two = (featkit.analyses.base.Result.load(f / method, method) for f in (alone, together))
    for a, b in zip(one.tables["epochs"], two.tables["epochs"], strict=True):
        assert b["loss"] == (a["loss"] and pytest.approx(a["loss"], rel=1e-5))
    own, other = (tasks.weights(folder / method) for folder in (alone, together))
    assert own.keys() == other.keys()
    one, two = (np.concatenate([w.ravel() for w in ws.values()]) for ws in (own, other))
    assert 0 < np.linalg.norm(one - two) < 1e-5 * np.linalg.norm(one)


def test_representations_are_the_same_up_to_rounding(alone, together):
    one, two = (featkit.open_store(f / "store")["ensemble-psi"].numpy() for f in (alone, together))
    difference = np.linalg.norm(one - two, axis=1) / np.linalg.norm(one, axis=1)
    assert difference.max() < 1e-4
    assert np.median(difference) < 1e-5
