"""``featkit verify``: check every byte of a store, a training run, an ensemble or a result."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING

import click

from featkit_cli.kinds import StoreFolder
from featkit_cli.render import AS_JSON, print_json

if TYPE_CHECKING:
    from featkit.store.verify import Check


@click.command()
@click.argument("folder", metavar="STORE", type=StoreFolder())
@AS_JSON
def verify(folder: str, as_json: bool) -> None:
    """Hash every file of STORE again and check shapes, rows and numbers.

    The folder of a training run, an ensemble or a saved result is checked too. Exit status 1 if
    anything is wrong; --json prints what was found then too.
    """
    from featkit.errors import DamagedError, printable

    checks, damaged = [], 0
    for check in _checks(Path(folder)):
        damaged += bool(check.problems)
        checks.append(asdict(check))
        if as_json:
            continue
        click.echo(f"{'WRONG' if check.problems else 'ok':<8} {printable(check.name)}")
        for line in (*check.problems, *check.remarks):
            click.echo(f"           {printable(line)}")
    if as_json:
        print_json("verify", {"store": folder, "sound": not damaged, "files": checks})
    if damaged:
        raise DamagedError(
            f"{folder}: something is wrong with {damaged} file{'s' * (damaged != 1)}, as listed; "
            f"what is damaged can be deleted and made again"
        )


def _checks(folder: Path) -> Iterator[Check]:
    from featkit.analyses.base import RESULT_FILE, verify_result
    from featkit.analyses.ensemble.stored import is_ensemble, verify_ensemble
    from featkit.backbones.training_runs import is_run, verify_run
    from featkit.store.schema import SAMPLES_FILE
    from featkit.store.verify import verify_store

    has_result = (folder / RESULT_FILE).is_file()
    has_network = is_run(folder) or is_ensemble(folder)
    if (folder / SAMPLES_FILE).is_file() or not (has_result or has_network):
        return verify_store(folder)
    return chain(
        verify_run(folder) if is_run(folder) else (),
        verify_ensemble(folder) if is_ensemble(folder) else (),
        verify_result(folder) if has_result else (),
    )
