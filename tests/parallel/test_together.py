"""Two processes give what one gives."""

from __future__ import annotations

import json
import shutil

import numpy as np
import pytest
import torch
from PIL import Image

import featkit
from featkit.errors import UsageError
from featkit.parallel.launch import RankError, run_on_ranks
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


def test_more_processes_than_parts(tmp_path, found_by_ranks):
    rng = np.random.default_rng(0)
    (tmp_path / "photos").mkdir()
    for number in range(20):
        pixels = rng.integers(0, 256, (32, 32, 3), np.uint8)
        Image.fromarray(pixels).save(tmp_path / "photos" / f"{number:02d}.png")
    photos = str(tmp_path / "photos")
    run_on_ranks(tasks.extract_few, {"photos": photos, "store": str(tmp_path / "three")}, 3)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        tasks.extract_few(photos, str(tmp_path / "one"))
    finally:
        torch.set_num_threads(threads)
    one, three = (featkit.open_store(tmp_path / name).table_files() for name in ("one", "three"))
    assert [file.read_bytes() for file in one] == [file.read_bytes() for file in three]
    assert len(one) == 1


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
    check_alike(alone / method, together / method)


def check_alike(one, other):
    """Compare weights and running statistics by ‖w - w'‖ / ‖w‖ over all of them.

    In one process torch adds up a batch's numbers of a channel, some 10⁵, in float32.
    """
    found = [tasks.weights(run) for run in (one, other)]
    assert found[0].keys() == found[1].keys()
    for is_running, most in ((False, 1e-5), (True, 1e-4)):
        names = [name for name in found[0] if ("running" in name) == is_running]
        if names:
            w, v = (np.concatenate([own[name].ravel() for name in names]) for own in found)
            assert np.linalg.norm(w - v) < most * np.linalg.norm(w)


def test_one_process_goes_on_where_two_were_killed(tmp_path, found_by_ranks):
    with pytest.raises(RankError, match="SIGKILL"):
        run_on_ranks(tasks.train_until_killed, {"run": str(tmp_path / "killed")}, 2)
    assert json.loads((tmp_path / "killed" / "run.json").read_text())["chosen"] is None
    tasks.train("simclr", tmp_path / "killed", epochs=3)
    tasks.train("simclr", tmp_path / "whole", epochs=3)
    check_alike(tmp_path / "whole", tmp_path / "killed")


def test_representations_are_the_same_up_to_rounding(alone, together):
    check_psi(alone, together)


def check_psi(alone, together):
    one, two = (featkit.open_store(f / "store")["ensemble-psi"].numpy() for f in (alone, together))
    difference = np.linalg.norm(one - two, axis=1) / np.linalg.norm(one, axis=1)
    assert difference.max() < 1e-4
    assert np.median(difference) < 1e-5


def ignore_psi(folder, names):
    """Leave out what an ensemble has written."""
    return [name for name in names if "psi" in name]


def test_an_ensemble_goes_on_with_any_number_of_processes(alone, tmp_path, found_by_ranks):
    """Where two were killed one goes on; others may start anew, if they are told to."""
    killed, other = tmp_path / "killed", tmp_path / "other"
    shutil.copytree(alone / "store", killed / "store", ignore=ignore_psi)
    with pytest.raises(RankError, match="SIGKILL"):
        run_on_ranks(tasks.fit_until_killed, {"folder": str(killed)}, 2)
    shutil.copytree(killed, other)
    with pytest.raises(UsageError, match="other features or settings"):
        tasks.fit(other, lr=1e-4)
    run_on_ranks(tasks.fit_anew, {"folder": str(other)}, 2)
    tasks.fit(killed)
    check_psi(alone, killed)
    tasks.fit(killed, overwrite=True, lr=1e-4)
    check_psi(killed, other)
