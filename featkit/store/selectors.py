"""``STORE``, ``STORE:BACKBONE``, ``STORE:BACKBONE/TAP``, ``STORE:BACKBONE/TAP.POOLING``."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from featkit.errors import SelectorError
from featkit.registry import did_you_mean
from featkit.spec import kind_at


def split_selector(text: str) -> tuple[Path, str | None]:
    """Split a selector into the store's folder and the pattern of its tables.

    A folder that exists is taken as it is, colons included.

    Example:
        >>> split_selector("features/train:resnet50/avgpool")
        (PosixPath('features/train'), 'resnet50/avgpool')
        >>> split_selector("train")
        (PosixPath('train'), None)
    """
    if kind_at(text) or ":" not in text:
        return Path(text), None
    folder, _, pattern = text.rpartition(":")
    return Path(folder), pattern or None


def match_tables(
    names: Sequence[str], pattern: str | None, store: str, one: bool = False
) -> list[str]:
    """Return the table names that a pattern stands for.

    Args:
        names: Every ``backbone/tap.pooling`` of the store.
        pattern: ``backbone``, ``backbone/tap`` or ``backbone/tap.pooling``; None for all.
        store: The store, for messages.
        one: Whether exactly one is wanted.

    Raises:
        SelectorError: Nothing matches, or several do where one is wanted.

    Example:
        >>> names = ["a/fc.none", "a/layer4.avg", "a/layer4.max"]
        >>> match_tables(names, "a/layer4", "train")
        ['a/layer4.avg', 'a/layer4.max']
        >>> match_tables(names, "a/layer4.max", "train", one=True)
        ['a/layer4.max']
    """
    if pattern is None:
        found = list(names)
    elif pattern in names:
        found = [pattern]
    else:
        found = [
            name for name in names if pattern in (name.partition("/")[0], name.rpartition(".")[0])
        ]
    asked = store if pattern is None else f"{store}:{pattern}"
    if not names:
        raise SelectorError(f"{store}: no finished table; featkit ls {store} shows what is begun")
    if not found:
        known = [name.partition("/")[0] for name in names] + list(names)
        hint = did_you_mean(pattern or "", dict.fromkeys(known))
        if "none like it" in hint:
            hint = f"featkit ls {store} lists the {len(names)} that are there"
        raise SelectorError(f"{asked}: no such table; {hint}")
    if one and len(found) > 1:
        raise SelectorError(
            f"{asked}: {len(found)} tables match and one is wanted; say which of {', '.join(found)}"
        )
    return found
