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
        click.echo(f"{'WRONG' if check.problems else 'ok':<8} {check.name}")
        for line in (*check.problems, *check.remarks):
            click.echo(f"           {line}")
    if damaged:
        raise DamagedError(
            f"{store}: something is wrong with {damaged} file{'s' * (damaged != 1)}, as listed; "
            f"what is damaged can be deleted and extracted again"
        )
