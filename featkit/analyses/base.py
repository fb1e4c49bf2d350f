"""What an analysis is, and what it gives back."""

from __future__ import annotations

import csv
import dataclasses
import hashlib
import importlib.metadata
import io
import json
import platform
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray

from featkit.analyses.figure import Figure as Figure  # noqa: PLC0414 - others take it from here
from featkit.documents import parse_json
from featkit.errors import DamagedError, UsageError, one_line
from featkit.registry import Registry
from featkit.store.arrays import ARRAYS_FORMAT, write_arrays
from featkit.store.files import (
    check_seal,
    explain_full_disk,
    explain_write_errors,
    holding,
    make_folder,
    write_whole,
)
from featkit.store.fingerprint import check_digest, signed_json
from featkit.store.reader import FeatureTable
from featkit.store.verify import Check

RESULT_FILE = "result.json"
ARRAYS_FILE = "arrays.h5"
LOCK_FILE = ".lock"
_ASKED = ("analysis", "config", "provenance")
"""Parts of a ``result.json`` that are the same where the same was asked of the same."""

_SAVED = ("analysis", "config", "scalars", "tables", "provenance", "notes")


def option(default: Any, help: str, source: str = "") -> Any:  # noqa: A002 - as click calls it
    """Declare a field of a ``Config`` with its help and the source of its default.

    Args:
        default: Its value when the user says nothing; immutable.
        help: One line for ``--help``.
        source: Where the default comes from.
    """
    return field(default=default, metadata={"help": help, "source": source})


@dataclass(frozen=True)
class Input:
    """One argument of an analysis: a selector of tables, or the folder of a result.

    Attributes:
        name: As shown in the usage line, such as ``TRAIN``; in lower case it is the name under
            which ``run`` finds what was given.
        help: One line for ``--help``.
        several: Whether any number can be given; tables and results come in that order.
        optional: Whether it can be left out; it is then an option, such as ``--test``, and ``run``
            finds no such name.
        of: What is given: ``tables``, or ``results`` of the analysis of that name.
    """

    name: str
    help: str
    several: bool = False
    optional: bool = False
    of: str = "tables"


@dataclass
class Result:
    """What an analysis found.

    Attributes:
        analysis: Name of the analysis.
        config: Every option with its value.
        scalars: Single numbers by name.
        tables: Lists of flat rows by name.
        arrays: Arrays by name.
        figures: Pictures of them.
        provenance: Keys of the tables read, versions, seed.
        notes: What the reader must know, a line each.
        shown: Tables that a terminal shows, each with its columns, none for all; without any, the
            first table.
        origin: The folder that it was loaded from, ``result``, and the ``sha256`` of its
            ``result.json``; empty for one that was made here.
    """

    analysis: str
    config: dict[str, Any]
    scalars: dict[str, float | int | str] = field(default_factory=dict)
    tables: dict[str, list[dict[str, Any]]] = field(default_factory=dict)
    arrays: dict[str, NDArray[Any]] = field(default_factory=dict)
    figures: list[Figure] = field(default_factory=list)
    provenance: dict[str, Any] = field(default_factory=dict)
    notes: list[str] = field(default_factory=list)
    shown: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    origin: Mapping[str, str] = field(default_factory=dict)

    def to_json(self) -> str:
        """Return ``result.json``; numbers that are not finite become null.

        Of arrays and figures it has the names.
        """
        version = importlib.metadata.version("featkit")
        content: dict[str, Any] = {"analysis": self.analysis, "featkit": version}
        content |= {name: getattr(self, name) for name in _SAVED}
        content["arrays"] = list(self.arrays)
        content["figures"] = [figure.name for figure in self.figures]
        return signed_json(_plain(content))

    @classmethod
    def load(cls, folder: str | Path, analysis: str | None = None) -> Result:
        """Read ``result.json``, without arrays and figures.

        Args:
            folder: Where a result was saved.
            analysis: What must have made it; None for anything.

        Raises:
            UsageError: There is none, it is not whole, or another analysis made it.
        """
        path = Path(folder) / RESULT_FILE
        wanted = f"give a folder that featkit {analysis or 'COMMAND'} -o has written"
        if path.exists() and not path.is_file():
            raise UsageError(f"{folder} holds no result ({RESULT_FILE} is no file): {wanted}")
        try:
            text = path.read_bytes()
            content = check_digest(parse_json(text))
            result = cls(**{name: content[name] for name in _SAVED})
            _check_kinds(result)
        except OSError as error:
            raise UsageError(f"{folder} holds no result ({error.strerror}): {wanted}") from error
        except (ValueError, KeyError, TypeError, AttributeError) as error:
            raise UsageError(f"{path} is not whole, or not featkit's: {wanted}") from error
        if analysis is not None and result.analysis != analysis:
            raise UsageError(f"{folder} holds a result of {result.analysis}: {wanted}")
        result.origin = {"result": str(folder), "sha256": hashlib.sha256(text).hexdigest()}
        return result

    def save(self, folder: str | Path) -> None:
        """Write ``result.json``, one CSV a table and ``arrays.h5``.

        Args:
            folder: Made if it is not there. The tables, arrays and figures of the result that it
                holds are replaced, or removed; other files stay.

        Raises:
            DiskFullError: The disk is full; no file is half there.
            UsageError: The folder cannot be made or written to.
        """
        folder, text = Path(folder), self.to_json()
        try:
            with explain_full_disk("the result", folder):
                make_folder(folder)
                held, new = _held(folder), json.loads(text)
                if any(held.get(name) != new[name] for name in _ASKED):
                    delete_result(folder)  # of two results no file may be left beside the other's
                for file in _files(held) - _files(new):
                    (folder / file).unlink(missing_ok=True)
                for name, rows in self.tables.items():
                    write_whole(folder / f"{name}.csv", _csv(rows))
                if self.arrays:
                    write_arrays(folder / ARRAYS_FILE, self.arrays)
                write_whole(folder / RESULT_FILE, text.encode())
        except OSError as error:
            raise UsageError(
                f"cannot write the result to {folder} ({error.strerror}): give another folder"
            ) from error


def _check_kinds(result: Result) -> None:
    """Refuse what is no result: values of other kinds than every result has.

    Raises:
        TypeError: One is.
    """
    is_whole = isinstance(result.analysis, str) and all(
        isinstance(value, dict)
        for value in (result.config, result.scalars, result.tables, result.provenance)
    )
    rows = [row for table in result.tables.values() for row in table] if is_whole else []
    is_whole = is_whole and all(isinstance(row, dict) for row in rows)
    if not is_whole or not all(isinstance(text, str) for text in result.notes):
        raise TypeError("not what a result holds")


def check_folder(folder: str | Path, analysis: str | None = None) -> None:
    """Refuse, before the work, a folder that could not be written to afterwards; make nothing.

    Args:
        folder: Where a result is to be saved.
        analysis: What will make it; None where any result in the folder may be replaced.

    Raises:
        UsageError: It is a file or has no name, it or the folder that it is to be made in cannot be
            written to, or it holds a result of another analysis.
    """
    if not str(folder):
        raise UsageError("the folder to write to has no name: give one")
    path = Path(folder).absolute()
    there = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=there):
            pass
    except OSError as error:
        raise UsageError(
            f"cannot write to {folder} ({error.strerror}): give another folder"
        ) from error
    held = _held(path).get("analysis", analysis)
    if analysis is not None and held != analysis:
        raise UsageError(f"{folder} holds a result of {one_line(held, 60)}: give another folder")


@contextmanager
def result_folder(folder: str | Path, analysis: str | None = None) -> Iterator[None]:
    """Hold a folder from before the work until all of a result is in it.

    What was made for a result that did not come is taken away.

    Args:
        folder: As for :func:`check_folder`, which is asked first.
        analysis: Likewise.

    Raises:
        UsageError: The folder cannot be used.
        StoreError: Another process is making a result there.
    """
    check_folder(folder, analysis)
    path = Path(folder).absolute()
    made = [each for each in (path, *path.parents) if not each.exists()]
    with ExitStack() as held:
        with explain_write_errors("the result", path, kept=""):
            held.enter_context(holding(path, LOCK_FILE, "making a result there"))
        try:
            yield
        finally:
            with suppress(OSError):  # not empty, most likely
                (path / LOCK_FILE).unlink(missing_ok=True)
                for each in made:
                    each.rmdir()


def verify_result(folder: Path) -> Iterator[Check]:
    """Compare a saved result with what was written.

    Yields:
        One check a file: ``result.json``, then ``arrays.h5`` if it has one.

    Cost: one read of both.
    """
    again = "it does not say what was written; make the result again"
    try:
        content = check_digest(parse_json((folder / RESULT_FILE).read_bytes()))
    except (OSError, ValueError, AttributeError):
        yield Check(RESULT_FILE, (again,))
        return
    yield Check(RESULT_FILE)
    if content.get("arrays"):
        try:
            check_seal(folder / ARRAYS_FILE, ARRAYS_FORMAT)
            yield Check(ARRAYS_FILE)
        except (OSError, DamagedError):
            yield Check(ARRAYS_FILE, (again,))


def delete_result(folder: Path) -> None:
    """Delete the result that a folder holds; other files stay."""
    for file in _files(_held(folder)):
        (folder / file).unlink(missing_ok=True)
    (folder / RESULT_FILE).unlink(missing_ok=True)


def _held(folder: Path) -> dict[str, Any]:
    """Return the ``result.json`` of a folder; empty if there is none that can be read."""
    try:
        content = parse_json((folder / RESULT_FILE).read_bytes())
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _files(content: Mapping[str, Any]) -> set[str]:
    """Return the files beside a ``result.json`` that are part of the result."""
    files = {ARRAYS_FILE} if content.get("arrays") else set()
    for part, suffix in (("tables", "csv"), ("figures", "png")):
        names = content.get(part)
        files |= {f"{n}.{suffix}" for n in (names if isinstance(names, dict | list) else ())}
    return {file for file in files if Path(file).name == file and file.isprintable()}


def _plain(value: Any) -> Any:
    """Return a value as JSON knows it."""
    if isinstance(value, Mapping):
        return {str(name): _plain(item) for name, item in value.items()}
    if isinstance(value, np.ndarray | list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, np.generic):
        value = value.item()
    if isinstance(value, float) and not np.isfinite(value):
        return None
    return value


def _csv(rows: Sequence[Mapping[str, Any]]) -> bytes:
    columns = list(dict.fromkeys(name for row in rows for name in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode()


@runtime_checkable
class Analysis(Protocol):
    """A question that is answered from tables, or from other results.

    A class that fits is made a command ``featkit NAME`` by an entry point in the group
    ``featkit.analyses``: its arguments come from ``inputs``, its options from ``Config``.

    Attributes:
        inputs: The arguments, in order; each is one or more tables, or results.
        requires: What must hold before any work: ``labels`` (every table has one label a sample),
            ``any labels`` (one or several), ``vectors`` (rows are (d,); where ``Config`` has
            ``taps`` and some are given, ``run`` sees to that).
        Config: Frozen dataclass of options, made with :func:`option`.
    """

    inputs: ClassVar[tuple[Input, ...]]
    requires: ClassVar[frozenset[str]]
    Config: ClassVar[type[Any]]

    def __init__(self, config: Any = None) -> None: ...

    def run(self, inputs: Mapping[str, Sequence[Any]]) -> Result:
        """Answer the question from the tables, or results, of each input."""
        ...


def check_requirements(
    requires: frozenset[str], inputs: Mapping[str, Sequence[FeatureTable]]
) -> None:
    """Refuse tables that an analysis cannot use, before any work.

    Raises:
        UsageError: A requirement does not hold, or does not exist.
    """
    for name, tables in inputs.items():
        if not tables:
            raise UsageError(f"{name}: no table given")
        for table in tables:
            for requirement in sorted(requires):
                holds, message = _REQUIREMENTS[requirement]
                if not holds(table):
                    raise UsageError(f"{table.path}: {message(table)}")


def _has_labels(table: FeatureTable) -> bool:
    return table.labels is not None and table.labels.ndim == 1


_LABELLED = "extract from class subfolders, or a CSV with a label column"
_Requirement = tuple[Callable[[FeatureTable], bool], Callable[[FeatureTable], str]]
_REQUIREMENTS: Registry[_Requirement] = Registry("requirement of an analysis")
_REQUIREMENTS.register(
    "labels",
    (
        _has_labels,
        lambda t: (
            "needs one label a sample, and its images have "
            + ("none: " if t.labels is None else "several: ")
            + _LABELLED
        ),
    ),
)
_REQUIREMENTS.register(
    "any labels",
    (
        lambda t: t.labels is not None,
        lambda _: f"needs labels, and its images have none: {_LABELLED}",
    ),
)
_REQUIREMENTS.register(
    "vectors",
    (
        lambda t: len(t.shape) == 2,
        lambda t: (
            f"needs rows of d numbers, and these are {t.shape[1:]}: select other tables, or "
            "extract the tap with pooling avg, max, cls or flatten"
        ),
    ),
)


def short_names(tables: Sequence[FeatureTable]) -> list[str]:
    """Name tables ``backbone/tap``, with more only where two would be called the same.

    More is the pooling; the store's folder; both; or the table's file.
    """
    spelled = []
    for table in tables:
        short, store = f"{table.backbone}/{table.tap}", table.path.parents[1].name
        longer = (table.name, f"{store}:{short}", f"{store}:{table.name}", str(table.path))
        spelled.append((short, *longer))
    counts = [Counter(names) for names in zip(*spelled, strict=True)]
    return [
        next(
            (name for name, count in zip(names, counts, strict=True) if count[name] == 1), names[-1]
        )
        for names in spelled
    ]


def describe_run(
    config: Any,
    inputs: Mapping[str, Sequence[FeatureTable | Result]],
    libraries: Sequence[str] = (),
) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the ``config`` and the ``provenance`` of a result.

    Args:
        config: The analysis's frozen dataclass.
        inputs: The tables or results that it reads.
        libraries: Packages whose version matters to the numbers.
    """
    provenance = {
        "inputs": {name: [_told(one) for one in given] for name, given in inputs.items()},
        "versions": {
            "python": platform.python_version(),
            **{library: importlib.metadata.version(library) for library in libraries},
        },
    }
    return dataclasses.asdict(config), provenance


def _told(given: FeatureTable | Result) -> dict[str, str]:
    if isinstance(given, Result):
        return dict(given.origin)
    return {"table": str(given.path), "key": given.key}
