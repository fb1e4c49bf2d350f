"""``featkit verify``: check every byte of a store."""

from __future__ import annotations

import click


@click.command()
@click.argument("store")
def verify(store: str) -> None:
    """Hash every file of STORE again and check shapes, rows and numbers.

    Exit status 1 if anything is wrong.
    """
    from featkit.errors import DamagedError
    from featkit.store.verify import verify_store

    damaged = 0
    for check in verify_store(store):
        damaged += bool(check.problems)
        click.echo(f"{'DAMAGED' if check.problems else 'ok':<8} {check.name}")
        for line in (*check.problems, *check.remarks):
            click.echo(f"           {line}")
    if damaged:
        raise DamagedError(
            f"{store}: {damaged} file{'s' * (damaged != 1)} damaged; delete what is listed and run "
            f"featkit extract again"
        )
