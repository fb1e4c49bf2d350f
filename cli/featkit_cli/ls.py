"""``featkit ls``: the tables of a store."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featkit_cli.kinds import StoreFolder
from featkit_cli.render import AS_JSON, counted, note, print_json, table_text

if TYPE_CHECKING:
    from featkit.store.plans import Unfinished
    from featkit.store.reader import Store


@click.command()
@click.argument("store", type=StoreFolder())
@AS_JSON
def ls(store: str, as_json: bool) -> None:
    """List the tables of STORE, finished and unfinished."""
    from featkit.errors import printable
    from featkit.store.plans import unfinished_tables
    from featkit.store.reader import open_store

    opened = open_store(store)
    tables, broken = _tables(opened)
    unfinished = unfinished_tables(Path(store))
    for line in broken:
        note(line)
    if as_json:
        _print_json(opened, tables, broken, unfinished)
        return
    samples = opened.samples
    labels = f", {len(samples.classes)} classes" if samples.classes else ", no labels"
    click.echo(f"{counted(len(samples), 'sample')} from {printable(samples.source)}{labels}")
    _show(tables, unfinished)


def _tables(store: Store) -> tuple[list[dict[str, Any]], list[str]]:
    """Return a row a finished table, and what is wrong with files that cannot be read."""
    from featkit.errors import StoreError
    from featkit.store.reader import FeatureTable

    rows, broken = [], []
    for file in store.table_files():
        try:
            table = FeatureTable(file, store.samples)
        except StoreError as error:
            broken.append(str(error))
            continue
        rows.append(
            {
                "table": table.name,
                "shape": list(table.shape),
                "dtype": str(table.dtype),
                "precision": table.provenance["precision"],
                "unreadable": int((~table.valid).sum()),
                "bytes": table.path.stat().st_size,
                "backbone": table.spec,
            }
        )
    return rows, broken


def _print_json(
    store: Store, tables: list[dict[str, Any]], broken: list[str], unfinished: list[Unfinished]
) -> None:
    samples = store.samples
    begun = [
        {"table": u.name, "rows_done": u.rows_done, "rows": u.rows, "folder": str(u.folder)}
        for u in unfinished
    ]
    said = {
        "store": str(store.path),
        "source": samples.source,
        "samples": len(samples),
        "classes": None if samples.classes is None else list(samples.classes),
        "tables": tables,
        "broken": broken,
        "unfinished": begun,
    }
    print_json("ls", said)


def _show(tables: list[dict[str, Any]], unfinished: list[Unfinished]) -> None:
    from featkit.store.files import size_text

    rows = [
        {
            "table": row["table"],
            "shape": " × ".join(f"{size:,}" for size in row["shape"]),
            "dtype": row["dtype"],
            "precision": row["precision"],
            "unreadable": row["unreadable"],
            "size": size_text(row["bytes"]),
            "backbone": row["backbone"],
        }
        for row in tables
    ]
    click.echo(f"\n{table_text(rows)}" if rows else "no finished table")
    if unfinished:
        click.echo("\nunfinished (the same extract command goes on; or delete the folder):")
        begun = [
            {"table": u.name, "rows done": u.rows_done, "of": u.rows, "folder": str(u.folder)}
            for u in unfinished
        ]
        click.echo(table_text(begun, indent="  "))
