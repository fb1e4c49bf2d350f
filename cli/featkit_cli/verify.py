"""``featkit verify``: check every byte of a store."""

from __future__ import annotations

from dataclasses import asdict

import click

from featkit_cli.kinds import StoreFolder
from featkit_cli.render import AS_JSON, print_json


@click.command()
@click.argument("store", type=StoreFolder())
@AS_JSON
def verify(store: str, as_json: bool) -> None:
    """Hash every file of STORE again and check shapes, rows and numbers.

    Exit status 1 if anything is wrong; --json prints what was found then too.
    """
    from featkit.errors import DamagedError
    from featkit.store.verify import verify_store

    checks, damaged = [], 0
    for check in verify_store(store):
        damaged += bool(check.problems)
        checks.append(asdict(check))
        if as_json:
            continue
        click.echo(f"{'WRONG' if check.problems else 'ok':<8} {check.name}")
        for line in (*check.problems, *check.remarks):
            click.echo(f"           {line}")
    if as_json:
        print_json("verify", {"store": store, "sound": not damaged, "files": checks})
    if damaged:
        raise DamagedError(
            f"{store}: something is wrong with {damaged} file{'s' * (damaged != 1)}, as listed; "
            f"what is damaged can be deleted and extracted again"
        )
