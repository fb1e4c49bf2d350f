"""``featkit backbones``: find backbones by name."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict
from typing import Any

import click

from featkit_cli.render import AS_JSON, print_json, table_text


@click.command()
@click.argument("pattern", default="*")
@click.option(
    "--zoo",
    is_flag=True,
    help="List published checkpoints that are fetched when they are first used, into "
    "~/.cache/featkit (or $FEATKIT_CACHE).",
)
@AS_JSON
def backbones(pattern: str, zoo: bool, as_json: bool) -> None:
    """List the backbones whose name matches PATTERN (* and ? as in file names)."""
    from featkit.errors import BackboneError

    found = _listed(pattern, zoo)
    if not found:
        example = "simclr" if zoo else "resnet"
        what = "published checkpoint" if zoo else "backbone"
        raise BackboneError(
            f"no {what} matches {pattern!r}; try a part of the name, as in {example}"
        )
    if as_json:
        print_json("backbones", {"backbones": found})
    elif zoo:
        click.echo("\n".join(_zoo_lines(found)))
    else:
        click.echo(table_text(found))


def _listed(pattern: str, zoo: bool) -> list[dict[str, Any]]:
    if not zoo:
        from featkit.backbones.catalogue import list_backbones

        return [{"backbone": b.spec, "weights": b.weights} for b in list_backbones(pattern)]
    from featkit.backbones.zoo import list_zoo

    entries = [asdict(entry) for entry in list_zoo(pattern)]
    return [{"backbone": f"zoo:{entry.pop('name')}", **entry} for entry in entries]


def _zoo_lines(found: Sequence[Mapping[str, Any]]) -> Iterator[str]:
    """A table with the notes below the rows that have one."""
    rows = [
        {
            "checkpoint": entry["backbone"],
            "method": entry["method"],
            "network": entry["network"],
            "epochs": entry["epochs"],
            "source": entry["source"].partition(" ")[0].rpartition("/")[2].rstrip(","),
        }
        for entry in found
    ]
    header, *lines = table_text(rows).splitlines()
    yield header
    for entry, line in zip(found, lines, strict=True):
        yield line
        if entry["note"]:
            yield f"    {entry['note']}"
    yield f"\nnext: featkit extract SOURCE -b {found[0]['backbone']} -o STORE"
