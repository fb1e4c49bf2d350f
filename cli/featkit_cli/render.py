"""Text for the terminal."""

from __future__ import annotations

import importlib.metadata
import json
from collections.abc import Mapping, Sequence
from typing import Any

import click

from featkit.errors import printable
from featkit.parallel.group import is_first

AS_JSON = click.option("--json", "as_json", is_flag=True, help="Print JSON, nothing else.")
"""The option of every command that is no analysis; ``featkit schema`` says what is printed."""


def print_json(command: str, content: Mapping[str, Any]) -> None:
    """Print what a command has done as one JSON document.

    Example:
        >>> print_json("ls", {"tables": []})  # doctest: +ELLIPSIS
        {
         "command": "ls",
         "featkit": "...",
         "tables": []
        }
    """
    said = {"command": command, "featkit": importlib.metadata.version("featkit"), **content}
    click.echo(json.dumps(said, indent=1, allow_nan=False))


def table_text(rows: Sequence[Mapping[str, Any]], indent: str = "") -> str:
    """Return rows as aligned columns, numbers to the right.

    Example:
        >>> print(table_text([{"name": "a", "top1": 0.5}, {"name": "long", "top1": 1}]))
        name   top1
        a     0.500
        long      1
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    cells = [columns, *([value_text(row.get(name)) for name in columns] for row in rows)]
    widths = [max(len(line[i]) for line in cells) for i in range(len(columns))]
    numeric = [
        all(isinstance(row.get(name), int | float | None) for row in rows) for name in columns
    ]
    lines = []
    for line in cells:
        padded = [
            text.rjust(width) if right else text.ljust(width)
            for text, width, right in zip(line, widths, numeric, strict=True)
        ]
        lines.append((indent + "  ".join(padded)).rstrip())
    return "\n".join(lines)


def value_text(value: Any) -> str:
    """Return one value for people.

    Example:
        >>> value_text(12345), value_text(0.5), value_text(1e-6), value_text(None), value_text(True)
        ('12,345', '0.500', '1e-06', '-', 'yes')
    """
    if value is None:
        return "-"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:.2g}" if 0 < abs(value) < 5e-4 else f"{value:.3f}"
    return printable(str(value))


def counted(count: int, what: str) -> str:
    """Return a number of things.

    Example:
        >>> counted(1, "image"), counted(1200, "image")
        ('1 image', '1,200 images')
    """
    return f"{count:,} {what}{'s' * (count != 1)}"


def note(text: str) -> None:
    """Tell the user something on stderr; of several processes the first one does."""
    if is_first():
        click.echo(f"note: {printable(text)}", err=True)


def duration(seconds: float) -> str:
    """Return a time for people.

    Example:
        >>> duration(7.26), duration(130)
        ('7.3 s', '2 min 10 s')
    """
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"
