"""``runs.jsonl``: what was run on a store, when, and how fast; nothing depends on it but order."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from featkit.documents import parse_json
from featkit.store.files import explain_write_errors
from featkit.store.schema import RUNS_FILE


def log_run(store: Path, event: str, tables: Sequence[str], **facts: Any) -> None:
    """Append one line to the store's log.

    Args:
        store: The store's folder.
        event: ``started`` or ``finished``.
        tables: Names of the tables asked for, in order.
        **facts: Whatever else is worth knowing, JSON-able.
    """
    now = datetime.now(UTC).isoformat(timespec="seconds")
    line = json.dumps({"time": now, "event": event, "tables": list(tables), **facts})
    with explain_write_errors("the log", store, kept=""), (store / RUNS_FILE).open("ab+") as file:
        file.seek(-min(1, file.tell()), os.SEEK_CUR)
        cut_off = file.read(1) not in (b"", b"\n")  # by a full disk: only that line is lost
        file.write(b"\n" * cut_off + line.encode() + b"\n")


def read_runs(store: Path) -> list[dict[str, Any]]:
    """Return the log's lines; a line cut off by a crash is left out."""
    path = store / RUNS_FILE
    runs = []
    for line in path.read_text("utf-8", "replace").splitlines() if path.exists() else ():
        try:
            run = parse_json(line)
        except ValueError:
            continue
        if isinstance(run, dict):
            runs.append(run)
    return runs


def asked_order(store: Path) -> dict[str, int]:
    """Return the position at which each table was first asked for, by name."""
    order: dict[str, int] = {}
    for run in read_runs(store):
        tables = run.get("tables")
        for name in tables if isinstance(tables, list) else ():
            order.setdefault(str(name), len(order))
    return order
