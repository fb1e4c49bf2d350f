"""``featkit backbones``: find backbones by name."""

from __future__ import annotations

import click

from featkit_cli.render import table_text


@click.command()
@click.argument("pattern", default="*")
def backbones(pattern: str) -> None:
    """List the backbones whose name matches PATTERN (* and ? as in file names)."""
    from featkit.backbones.catalogue import list_backbones
    from featkit.errors import BackboneError

    found = list_backbones(pattern)
    if not found:
        raise BackboneError(
            f"no backbone matches {pattern!r}; try a part of the name, as in resnet"
        )
    click.echo(table_text([{"backbone": b.spec, "weights": b.weights} for b in found]))
