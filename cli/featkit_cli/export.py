"""``featkit export``: a store as one file for other tools."""

from __future__ import annotations

from pathlib import Path

import click

from featkit_cli.kinds import FilePath, Selector
from featkit_cli.render import AS_JSON, counted, print_json


@click.command()
@click.argument("store", type=Selector())
@click.option(
    "-o",
    "--output",
    type=FilePath(),
    required=True,
    metavar="FILE",
    help="Its ending says the format: .npz, .parquet or .h5.",
)
@AS_JSON
def export(store: str, output: str, as_json: bool) -> None:
    """Write the tables of STORE (or STORE:BACKBONE/TAP) with paths and labels into one file."""
    from featkit.progress import clock
    from featkit.store.export import export_tables
    from featkit.store.files import size_text
    from featkit.store.reader import open_store
    from featkit.store.selectors import split_selector

    folder, pattern = split_selector(store)
    opened = open_store(folder)
    tables = opened.select(pattern)
    path = Path(output)
    with clock("export"):
        export_tables(opened.samples, tables, path)
    size = path.stat().st_size
    if as_json:
        names = [table.name for table in tables]
        said = {"file": output, "samples": len(opened), "tables": names, "bytes": size}
        print_json("export", said)
        return
    click.echo(
        f"{path}: {counted(len(opened), 'sample')}, {counted(len(tables), 'table')}, "
        f"{size_text(size)}"
    )
