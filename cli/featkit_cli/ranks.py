"""Commands that several processes carry out together."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import click

DEVICES = [
    click.Option(
        ["--devices"],
        type=click.IntRange(1),
        metavar="N",
        help="Processes on this machine, each with a GPU of its own if the device is one. Default: "
        "1, or as many as torchrun or srun has started.",
    ),
    click.Option(
        ["--num-nodes"],
        type=click.IntRange(1),
        metavar="M",
        help="Machines. The same command runs on each, with MASTER_ADDR, MASTER_PORT and NODE_RANK "
        "set, or by torchrun or srun.",
    ),
]
"""Options of a command that calls :func:`done_by_others`."""


def done_by_others(devices: int | None, num_nodes: int | None, device: str = "cpu") -> bool:
    """Let new processes carry out the command that runs, if it asks for several.

    Args:
        devices: Of :data:`DEVICES`.
        num_nodes: Of :data:`DEVICES`.
        device: That networks run on.

    Returns:
        Whether they have. If not, this process is to do it, maybe as one of several.
    """
    from featkit.parallel.group import is_first
    from featkit.parallel.launch import run_on_ranks, starts_others

    if not starts_others(devices, num_nodes):
        click.get_current_context().call_on_close(_leave)
        if not is_first():
            sys.stdout = Path(os.devnull).open("w")  # noqa: SIM115 - until the process ends
        return False
    given = click.get_current_context().find_root().obj
    run_on_ranks(_repeat, {"arguments": given, "device": device}, devices, num_nodes)
    return True


def _leave() -> None:
    """Part from the others, unless something has gone wrong here."""
    from featkit.parallel.group import leave

    if sys.exc_info()[0] is None:
        leave()


def _repeat(arguments: list[str], device: str) -> None:  # noqa: ARG001 - who starts it looks at it
    """Carry out a command line as one of several processes."""
    from featkit_cli.main import cli

    with cli.make_context("featkit", list(arguments), obj=arguments) as context:
        cli.invoke(context)
