"""``featkit backbones``: find backbones by name."""

from __future__ import annotations

from collections.abc import Iterator

import click

from featkit_cli.render import table_text


@click.command()
@click.argument("pattern", default="*")
@click.option(
    "--zoo",
    is_flag=True,
    help="List published checkpoints that are fetched when they are first used, into "
    "~/.cache/featkit (or $FEATKIT_CACHE).",
)
def backbones(pattern: str, zoo: bool) -> None:
    """List the backbones whose name matches PATTERN (* and ? as in file names)."""
    from featkit.errors import BackboneError

    lines = list(_zoo_lines(pattern) if zoo else _lines(pattern))
    if not lines:
        example = "simclr" if zoo else "resnet"
        what = "published checkpoint" if zoo else "backbone"
        raise BackboneError(
            f"no {what} matches {pattern!r}; try a part of the name, as in {example}"
        )
    click.echo("\n".join(lines))


def _lines(pattern: str) -> Iterator[str]:
    from featkit.backbones.catalogue import list_backbones

    found = list_backbones(pattern)
    if found:
        yield table_text([{"backbone": b.spec, "weights": b.weights} for b in found])


def _zoo_lines(pattern: str) -> Iterator[str]:
    """A table with the notes below the rows that have one."""
    from featkit.backbones.zoo import list_zoo

    found = list_zoo(pattern)
    if not found:
        return
    rows = [
        {
            "checkpoint": f"zoo:{entry.name}",
            "method": entry.method,
            "network": entry.network,
            "epochs": entry.epochs,
            "source": entry.source.partition(" ")[0].rpartition("/")[2].rstrip(","),
        }
        for entry in found
    ]
    header, *lines = table_text(rows).splitlines()
    yield header
    for entry, line in zip(found, lines, strict=True):
        yield line
        if entry.note:
            yield f"    {entry.note}"
    yield f"\nnext: featkit extract SOURCE -b zoo:{found[0].name} -o STORE"
