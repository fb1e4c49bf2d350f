"""Named things of one kind that can be looked up, with helpful failures."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Iterator
from typing import Generic, TypeVar

from featkit.errors import UsageError

T = TypeVar("T")


def did_you_mean(name: str, known: Iterable[str]) -> str:
    """Return a clause that names the known names most like ``name``.

    Args:
        name: What was given.
        known: What exists.

    Returns:
        ``"did you mean …?"``, or the list of known names when none is alike.

    Example:
        >>> did_you_mean("resnet5", ["resnet50", "vgg16"])
        'did you mean resnet50?'
        >>> did_you_mean("x", ["a", "b"])
        'there is a, b'
        >>> did_you_mean("x", [])
        'there is none'
    """
    names = list(known)
    alike = difflib.get_close_matches(name, names, n=3, cutoff=0.6)
    if alike:
        return f"did you mean {' or '.join(alike)}?"
    if not names:
        return "there is none"
    if len(names) > 12:
        return f"there are {len(names)}, none like it"
    return f"there is {', '.join(names)}"


class Registry(Generic[T]):
    """A mapping from unique names to things of one kind.

    Args:
        kind: What the things are, in the singular; it appears in messages.

    Example:
        >>> shapes = Registry[int]("shape")
        >>> shapes.register("square", 4)
        4
        >>> shapes["square"]
        4
        >>> shapes["sqare"]
        Traceback (most recent call last):
        featkit.errors.UsageError: unknown shape 'sqare': did you mean square?
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._items: dict[str, T] = {}

    def register(self, name: str, item: T) -> T:
        """Add ``item`` under ``name`` and return it.

        Raises:
            UsageError: The name is taken.
        """
        if name in self._items:
            raise UsageError(f"{self.kind} {name!r} is registered already; choose another name")
        self._items[name] = item
        return item

    def __getitem__(self, name: str) -> T:
        if name not in self._items:
            raise UsageError(f"unknown {self.kind} {name!r}: {did_you_mean(name, self._items)}")
        return self._items[name]

    def __contains__(self, name: object) -> bool:
        return name in self._items

    def __iter__(self) -> Iterator[str]:
        return iter(sorted(self._items))

    def __len__(self) -> int:
        return len(self._items)
