"""What a shell asks again and again, and what takes seconds to import, kept in the cache.

The options of most commands are fields of dataclasses in modules that import torch. What they are
is written down when it was seen once, and read until a file of the package changes.
"""

from __future__ import annotations

import contextlib
import importlib.metadata
import importlib.util
import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from featkit.backbones.cache import cache_folder
from featkit_cli import kinds


def remembered_command(
    words: str, package: str, make: Callable[[], click.Command]
) -> click.Command:
    """Return a command that has the parameters of another, and does nothing.

    Args:
        words: What calls the command.
        package: Top-level package that it comes from.
        make: Imports the command.
    """

    def describe() -> Any:
        return [parameter.to_info_dict() for parameter in make().params]

    described = _remembered(
        f"command {words}", _state_of("featkit", "featkit_cli", package), describe
    )
    return click.Command(words.rpartition(" ")[2], params=_parameters(described))


def backbones() -> list[str]:
    """Return every backbone that ``featkit backbones`` lists."""

    def describe() -> list[str]:
        from featkit.backbones.catalogue import list_backbones

        return [listed.spec for listed in list_backbones()]

    names: list[str] = _remembered(
        "backbones", _versions("featkit", "timm", "torchvision"), describe
    )
    return names


def data_sets() -> list[str]:
    """Return every set of torchvision, as a source."""

    def describe() -> list[str]:
        from torchvision import datasets

        return [f"torchvision:{name}" for name in sorted(datasets.__all__) if name[:1].isupper()]

    names: list[str] = _remembered("data-sets", _versions("torchvision"), describe)
    return names


def _remembered(name: str, state: str, describe: Callable[[], Any]) -> Any:
    """Return what was described in this state before, or describe it and keep that."""
    file = cache_folder() / "completion" / f"{name.replace(' ', '-')}.json"
    with contextlib.suppress(OSError, ValueError, KeyError, TypeError):
        kept = json.loads(file.read_bytes())
        if kept["state"] == state:
            return kept["content"]
    content = json.loads(json.dumps(describe(), default=str))
    with contextlib.suppress(OSError):
        file.parent.mkdir(parents=True, exist_ok=True)
        part = file.with_suffix(f".{os.getpid()}")
        part.write_text(json.dumps({"state": state, "content": content}), "utf-8")
        part.replace(file)
    return content


def _versions(*packages: str) -> str:
    return " ".join(f"{name} {importlib.metadata.version(name)}" for name in packages)


def _state_of(*packages: str) -> str:
    """Say how many files some packages have, and when the newest was written."""
    times = []
    for package in sorted(set(packages)):
        spec = importlib.util.find_spec(package)
        if spec is None or spec.origin is None:
            continue
        own = Path(spec.origin)
        files = own.parent.rglob("*.py") if spec.submodule_search_locations else (own,)
        times += [file.stat().st_mtime_ns for file in files]
    return f"{_versions('featkit', 'click')} {len(times)} {max(times, default=0)}"


def _parameters(described: Any) -> list[click.Parameter]:
    made: list[click.Parameter] = []
    for one in described:
        if one["param_type_name"] == "argument":
            made.append(click.Argument([one["name"]], nargs=one["nargs"], type=_type(one["type"])))
            continue
        flags = list(one["opts"])
        if one["secondary_opts"]:
            flags = [f"{one['opts'][-1]}/{one['secondary_opts'][-1]}"]
        option = {"type": _type(one["type"])} if not one["is_flag"] else {}
        if one["is_flag"] and not one["secondary_opts"]:
            option["is_flag"] = True
        made.append(
            click.Option(
                [one["name"], *flags], help=one["help"], multiple=one["multiple"], **option
            )
        )
    return made


def _type(described: Any) -> Any:
    kind = described["param_type"]
    if kind == "Choice":
        return click.Choice(described["choices"])
    if kind == "CommaSeparated":
        return kinds.CommaSeparated(_type(described["item"]))
    if kind == "Words":
        return kinds.Words(described["words"])
    if kind == "ResultFolder":
        return kinds.ResultFolder(described["of"])
    own = getattr(kinds, kind, None)
    return own() if isinstance(own, type) and issubclass(own, kinds.Kind) else click.STRING
