"""What is fuzzed: how its inputs are made, what reads them, and which modules that is."""

from __future__ import annotations

import base64
import importlib
import os
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from hypothesis.strategies import SearchStrategy


@dataclass(frozen=True)
class Case:
    """One input.

    Attributes:
        files: Contents by name, put over those that the target lays out; None: none of this name.
        words: What a user would write: a source, a selector, the arguments of a command.
        links: Symbolic links, where they point to by name.
    """

    files: Mapping[str, bytes | None] = field(default_factory=dict)
    words: tuple[str, ...] = ()
    links: Mapping[str, str] = field(default_factory=dict)

    def write(self, folder: Path) -> None:
        """Put the files of the case into the folder."""
        for name, data in self.files.items():
            path = folder / name
            if data is None:
                path.unlink(missing_ok=True)
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            times = path.stat() if path.is_file() else None
            path.write_bytes(data)
            if times is not None:  # as a disk changes a file
                os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
        for name, place in self.links.items():
            (folder / name).unlink(missing_ok=True)
            (folder / name).symlink_to(place)

    def shown(self) -> dict[str, Any]:
        """Return the case as JSON holds it."""
        files = {
            name: None if data is None else base64.b64encode(data).decode()
            for name, data in self.files.items()
        }
        words = [word.encode("utf-8", "backslashreplace").decode() for word in self.words]
        return {"files": files, "words": words, "links": dict(self.links)}


@dataclass(frozen=True)
class Target:
    """A parser.

    Attributes:
        name: Of the parser.
        kind: Of the inputs, as the table groups them.
        modules: Those whose lines are counted.
        lay_out: Writes the valid files that cases go over into a folder.
        cases: Makes cases from a folder so laid out.
        starts: Whether an input gets past the first check; it may raise anything.
        read: What featkit does with the input; returns what two readings are compared by.
        valid: Words of cases without a change, which all are accepted.
        megabytes: Memory that an input may take.
        output: Folders that may be written to, beside ``read``'s own.
        is_fresh: Whether the folder is laid out anew for each case, since reading changes it.
    """

    name: str
    kind: str
    modules: tuple[str, ...]
    lay_out: Callable[[Path], None]
    cases: Callable[[Path], SearchStrategy[Case]]
    starts: Callable[[Path, tuple[str, ...]], object]
    read: Callable[[Path, tuple[str, ...]], object]
    valid: tuple[tuple[str, ...], ...] = ((),)
    megabytes: int = 500
    output: tuple[str, ...] = ()
    is_fresh: bool = False

    def warm(self) -> None:
        """Read what is valid once, so that all is imported that reading needs."""
        with tempfile.TemporaryDirectory() as place:
            folder = Path(place).resolve()
            self.lay_out(folder)
            before = os.getcwd()  # noqa: PTH109
            os.chdir(folder)
            for words in self.valid:
                self.starts(folder, words)
                self.read(folder, words)
            os.chdir(before)

    def files(self) -> list[str]:
        """Return the files of the modules whose lines are counted."""
        return [str(importlib.import_module(name).__file__) for name in self.modules]
