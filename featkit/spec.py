"""The ``NAME?key=value&key=value`` notation of sources and backbones."""

from __future__ import annotations

import os
import re
import stat
from collections.abc import Iterable
from pathlib import Path
from typing import Literal

from featkit.errors import UsageError
from featkit.registry import did_you_mean


def split_query(text: str) -> tuple[str, dict[str, str]]:
    """Split ``NAME?key=value&…`` into the name and its options.

    Nothing is decoded: ``+`` and ``%`` stand for themselves.

    Args:
        text: What the user wrote.

    Returns:
        The name, and the options as strings.

    Raises:
        UsageError: An option has no value or appears twice.

    Example:
        >>> split_query("torchvision:resnet50?weights=none&seed=0")
        ('torchvision:resnet50', {'weights': 'none', 'seed': '0'})
    """
    name, _, query = text.partition("?")
    options: dict[str, str] = {}
    for pair in query.split("&") if query else []:
        key, _, value = pair.partition("=")
        if not key or not value:
            raise UsageError(f"{text!r}: options are written ?key=value&key=value")
        if key in options:
            raise UsageError(f"{text!r}: option {key} is given twice")
        options[key] = value
    return name, options


def check_options(text: str, options: Iterable[str], known: Iterable[str]) -> None:
    """Refuse options that nothing reads.

    Args:
        text: What the user wrote, for the message.
        options: Names of the options given.
        known: Names of the options that are read here.

    Raises:
        UsageError: An option is unknown.

    Example:
        >>> check_options("a?sed=1", ["sed"], ["seed", "weights"])
        Traceback (most recent call last):
        featkit.errors.UsageError: 'a?sed=1': unknown option 'sed': did you mean seed?
    """
    names = sorted(known)
    for option in options:
        if option not in names:
            raise UsageError(f"{text!r}: unknown option {option!r}: {did_you_mean(option, names)}")


def int_option(text: str, options: dict[str, str], name: str, default: int | None) -> int | None:
    """Return one option as a whole number.

    Raises:
        UsageError: The value is not a whole number.

    Example:
        >>> int_option("a?size=96", {"size": "96"}, "size", None)
        96
    """
    value = options.get(name)
    if value is None:
        return default
    try:
        return int(value)
    except ValueError:
        raise UsageError(f"{text!r}: {name} is a whole number, not {value!r}") from None


def kind_at(path: str | Path) -> Literal["file", "folder", "other", ""]:
    """Return what lies at a path that a user wrote; nothing where no path can be so.

    Example:
        >>> kind_at("."), kind_at("no such file"), kind_at("x" * 5000)
        ('folder', '', '')
    """
    try:
        mode = Path(path).stat().st_mode
    except (OSError, ValueError):  # not there, a name too long, or one with a NUL
        return ""
    return "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "other"


def slugify(name: str) -> str:
    """Return the nearest usable name: every other character becomes ``-``.

    Example:
        >>> slugify("vit_b.in1k@rev 2")
        'vit_b.in1k-rev-2'
    """
    return re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip(".-") or "unnamed"


def given_path(text: str | Path) -> Path:
    """Return the path that a user has written.

    ``~`` is the home of the user, and ``~name`` that of another; one without a home is a name.

    Example:
        >>> given_path("~nobody.of.this.name/photos").as_posix()
        '~nobody.of.this.name/photos'
    """
    return Path(os.path.expanduser(text))  # noqa: PTH111 - pathlib's raises where there is no home
