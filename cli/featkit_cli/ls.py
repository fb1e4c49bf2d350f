"""``featkit ls``: the tables of a store."""

from __future__ import annotations

from pathlib import Path

import click

from featkit_cli.render import table_text


@click.command()
@click.argument("store")
def ls(store: str) -> None:
    """List the tables of STORE, finished and unfinished."""
    from featkit.store.files import size_text
    from featkit.store.reader import open_store
    from featkit.store.writer import unfinished_tables

    opened = open_store(store)
    samples = opened.samples
    labels = f", {len(samples.classes)} classes" if samples.classes else ", no labels"
    click.echo(f"{len(samples):,} samples from {samples.source}{labels}")
    rows = [
        {
            "table": table.name,
            "shape": " × ".join(f"{size:,}" for size in table.shape),
            "dtype": str(table.dtype),
            "precision": table.provenance["precision"],
            "unreadable": int((~table.valid).sum()),
            "size": size_text(table.path.stat().st_size),
            "backbone": table.spec,
        }
        for table in opened.tables()
    ]
    click.echo(f"\n{table_text(rows)}" if rows else "no finished table")
    unfinished = unfinished_tables(Path(store))
    if unfinished:
        click.echo("\nunfinished (the same extract command goes on):")
        click.echo(
            table_text(
                [{"table": u.name, "rows done": u.rows_done, "of": u.rows} for u in unfinished],
                indent="  ",
            )
        )
