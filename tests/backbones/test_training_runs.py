"""Runs in which a disk or a hand has changed something."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from featkit.backbones.resolve import load_backbone
from featkit.backbones.training_runs import read_run, verify_run
from featkit.errors import BackboneError, CheckpointError
from featkit.store.fingerprint import signed_json
from tests.fuzzing.documents import make_run

WEIGHTS = "weights/epoch-0003.safetensors"


@pytest.fixture
def run(tmp_path: Path) -> Path:
    make_run(tmp_path)
    return tmp_path / "run"


def wrong(run: Path) -> list[str]:
    return [check.name for check in verify_run(run) if check.problems]


def test_a_changed_number_is_said(run: Path) -> None:
    assert wrong(run) == []
    assert load_backbone(str(run)).preprocessing.mean[0] == 0.485
    path = run / "run.json"
    path.write_text(path.read_text().replace("0.485", "0.475"))
    with pytest.raises(CheckpointError, match="does not say what was written"):
        load_backbone(str(run))
    assert wrong(run) == ["run.json"]


def test_runs_of_before_have_no_digest(run: Path) -> None:
    path = run / "run.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))
    assert read_run(run).chosen == 3


def test_a_lost_bit_that_leaves_the_time_is_said(run: Path) -> None:
    """The digest of a file is kept with its size and time, which a disk does not change."""
    load_backbone(str(run))
    path = run / WEIGHTS
    times, content = path.stat(), bytearray(path.read_bytes())
    content[-3] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    with pytest.raises(CheckpointError, match="damaged, or another file"):
        load_backbone(str(run))
    assert wrong(run) == [WEIGHTS]


def test_weights_that_are_gone_are_said(run: Path) -> None:
    (run / WEIGHTS).unlink()
    assert wrong(run) == [WEIGHTS]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("mean", [0.5, None, 0.5]), ("mean", "abc"), ("std", [1, 1, "1"]),
        ("std", [1, 1, 10**400]), ("size", [32, 32.5]),
        ("size", 32), ("resize", "x"), ("resize", [1e9]),
    ],
)  # fmt: skip
def test_preprocessing_is_made_of_numbers(run: Path, name: str, value: Any) -> None:
    path = run / "run.json"
    content = json.loads(path.read_text())
    content.pop("sha256")
    content["preprocessing"][name] = value
    path.write_text(signed_json(content))
    with pytest.raises(CheckpointError, match=r"run\.json is damaged"):
        load_backbone(str(run))


def test_a_name_too_long_for_a_file_is_no_backbone() -> None:
    with pytest.raises(BackboneError, match="neither a file nor a training run"):
        load_backbone("9" * 5000)
