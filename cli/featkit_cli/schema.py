"""``featkit schema``: what ``--json`` prints, as a JSON Schema."""

from __future__ import annotations

import importlib.resources
import json
from typing import Any

import click

from featkit.registry import did_you_mean
from featkit_cli.kinds import CommandName

_RESULT = "result"


def schema_of(command: str) -> dict[str, Any]:
    """Return the JSON Schema (draft 2020-12) of what a command prints with ``--json``.

    Args:
        command: Its name; those without a schema of their own print a result.

    Example:
        >>> schema_of("ls")["title"], schema_of("knn")["title"]
        ('featkit ls --json', 'result.json')
    """
    folder = importlib.resources.files("featkit_cli") / "schemas"
    file = folder / f"{command}.json"
    if not file.is_file():
        file = folder / f"{_RESULT}.json"
    schema: dict[str, Any] = json.loads(file.read_text("utf-8"))
    return schema


@click.command()
@click.argument("command", type=CommandName())
def schema(command: str) -> None:
    """Print the JSON Schema of what COMMAND prints with --json.

    That of an analysis is the one of result.json, which featkit schema result prints too.
    """
    from featkit_cli.main import known_commands

    known = [*known_commands(), _RESULT]
    if command not in known:
        raise click.UsageError(f"no command {command!r}: {did_you_mean(command, known)}")
    if command in ("schema", "completion"):
        raise click.UsageError(f"{command} prints no document of its own: name another command")
    click.echo(json.dumps(schema_of(command), indent=1, ensure_ascii=False))
