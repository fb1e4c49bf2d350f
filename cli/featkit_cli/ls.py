"""``featkit ls``: the tables of a store."""

from __future__ import annotations

from pathlib import Path

import click

from featkit_cli.render import counted, note, table_text


@click.command()
@click.argument("store")
def ls(store: str) -> None:
    """List the tables of STORE, finished and unfinished."""
    from featkit.errors import StoreError, printable
    from featkit.store.files import size_text
    from featkit.store.plans import unfinished_tables
    from featkit.store.reader import FeatureTable, open_store

    opened = open_store(store)
    samples = opened.samples
    labels = f", {len(samples.classes)} classes" if samples.classes else ", no labels"
    click.echo(f"{counted(len(samples), 'sample')} from {printable(samples.source)}{labels}")
    rows, broken = [], []
    for file in opened.table_files():
        try:
            table = FeatureTable(file, samples)
        except StoreError as error:
            broken.append(str(error))
            continue
        rows.append(
            {
                "table": table.name,
                "shape": " × ".join(f"{size:,}" for size in table.shape),
                "dtype": str(table.dtype),
                "precision": table.provenance["precision"],
                "unreadable": int((~table.valid).sum()),
                "size": size_text(table.path.stat().st_size),
                "backbone": table.spec,
            }
        )
    click.echo(f"\n{table_text(rows)}" if rows else "no finished table")
    for line in broken:
        note(line)
    unfinished = unfinished_tables(Path(store))
    if unfinished:
        click.echo("\nunfinished (the same extract command goes on; or delete the folder):")
        click.echo(
            table_text(
                [
                    {
                        "table": u.name,
                        "rows done": u.rows_done,
                        "of": u.rows,
                        "folder": str(u.folder),
                    }
                    for u in unfinished
                ],
                indent="  ",
            )
        )
