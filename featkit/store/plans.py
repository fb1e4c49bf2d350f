"""Unfinished tables: what each will be, and how its rows are cut into parts."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path

from featkit.documents import parse_json
from featkit.store.fingerprint import Provenance, check_digest, fingerprint, signed_json
from featkit.store.schema import PARTIAL_FOLDER, table_file

PLAN_FILE = "plan.json"

DROPPED = ".dropped"
"""Ending of a folder in ``.partial`` that is being deleted."""

DAMAGES = (OSError, ValueError, KeyError, TypeError)
"""What reading a plan raises that is not as it should be."""


@dataclass(frozen=True)
class PartPlan:
    """How the rows of an unfinished table are computed; a resumed run keeps to it.

    Attributes:
        batch_size: Rows that go through the network together.
        part_rows: Rows in a part file, a multiple of ``batch_size``.
        compiled: Whether the network ran through ``torch.compile``.
    """

    batch_size: int
    part_rows: int
    compiled: bool


@dataclass(frozen=True)
class Unfinished:
    """An unfinished table as its folder describes it."""

    name: str
    rows: int
    rows_done: int
    provenance: Provenance
    plan: PartPlan
    folder: Path


def unfinished_tables(store: Path) -> list[Unfinished]:
    """List the unfinished tables of a store; folders without a readable plan are left out."""
    found = []
    for plan_file in sorted((store / PARTIAL_FOLDER).glob(f"*/{PLAN_FILE}")):
        if plan_file.parent.suffix == DROPPED:
            continue
        with suppress(*DAMAGES):
            found.append(read_plan(plan_file))
    return found


def plan_text(name: str, rows: int, provenance: Provenance, plan: PartPlan) -> str:
    """Return the content of ``plan.json``, with the sha256 of all of it."""
    described = {"name": name, "rows": rows, "provenance": provenance, "plan": asdict(plan)}
    return signed_json(described)


def read_plan(plan_file: Path) -> Unfinished:
    """Read ``plan.json``.

    Raises:
        OSError: It is not there.
        KeyError: It lacks something.
        ValueError: It is damaged, or about another table than its folder.
        TypeError: As ``ValueError``.
    """
    described = parse_json(plan_file.read_bytes())
    if not isinstance(described, dict):
        raise TypeError("it is no object")
    described = check_digest(described)
    name, rows, plan = described["name"], described["rows"], PartPlan(**described["plan"])
    counts = (rows, plan.batch_size, plan.part_rows)
    if not all(type(count) is int and count > 0 for count in counts):
        raise ValueError("its numbers of rows are none")
    if type(plan.compiled) is not bool or plan.part_rows % plan.batch_size:
        raise ValueError("its parts are not made of batches")
    if fingerprint(described["provenance"]) != plan_file.parent.name:
        raise ValueError("it is about another table")
    backbone, _, rest = str(name).partition("/")
    table_file(backbone, *rest.rpartition(".")[::2])
    parts = len(list(plan_file.parent.glob("part-*.h5")))
    done = min(parts * plan.part_rows, rows)
    return Unfinished(name, rows, done, described["provenance"], plan, plan_file.parent)
