"""The log of a store."""

from __future__ import annotations

from pathlib import Path

from featkit.store.runs import asked_order, log_run, read_runs


def test_a_line_that_a_full_disk_has_cut_off_costs_no_other(tmp_path: Path) -> None:
    log_run(tmp_path, "started", ["a"])
    log_run(tmp_path, "started", ["b"])
    log = tmp_path / "runs.jsonl"
    log.write_bytes(log.read_bytes()[:-9])
    log_run(tmp_path, "started", ["c"], images=3)
    log_run(tmp_path, "started", ["a"])
    assert [run["tables"] for run in read_runs(tmp_path)] == [["a"], ["c"], ["a"]]
    assert asked_order(tmp_path) == {"a": 0, "c": 1}
    assert len(log.read_bytes().splitlines()) == 4
