"""CSV tables ``path[,label]`` of images."""

from __future__ import annotations

import csv
import os
import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from featkit.data.files import FileSource
from featkit.data.packed import PackedStrings
from featkit.errors import SourceError
from featkit.registry import did_you_mean


class _Row(NamedTuple):
    line: int
    path: str
    label: str | None


def open_table(name: str, table: Path, root: Path | None = None) -> FileSource:
    """Read a CSV table that names images and, if it has a column ``label``, their classes.

    The delimiter is a comma, the text UTF-8; columns are found by name and others ignored. A label
    cell may hold several classes, ``a;b``; then an empty cell means none of them.

    Args:
        name: The source as the user wrote it.
        table: The CSV file.
        root: The folder that paths are relative to; None: the table's own.

    Returns:
        The images in the order of the table. Classes are ordered by name, by number where all are
        whole numbers.

    Raises:
        SourceError: The table cannot be read, or a row has no path, a path twice, outside ``root``
            or without a file, or no label while others have one. The message names the line.

    Cost:
        One pass over the table and one ``stat`` a row.
    """
    base = Path(os.path.abspath(root or table.parent))  # noqa: PTH100 - Path keeps ".."
    if not base.is_dir():
        raise SourceError(f"{name!r}: root={str(root)!r} is not a folder; give an existing one")
    try:
        with table.open(newline="", encoding="utf-8-sig") as file:
            rows = list(_rows(name, file))
    except UnicodeDecodeError:
        raise SourceError(f"{name!r} is not UTF-8 text; save the table as UTF-8") from None
    except OSError as error:
        raise SourceError(f"{name!r} cannot be read: {error.strerror}") from error
    if not rows:
        raise SourceError(f"{name!r} lists no image; give one row an image below the header")
    ids = _relative_paths(name, base, rows)
    _require_files(name, base, rows, ids)
    labels, classes = _labels(name, rows)
    return FileSource(name, base, PackedStrings(ids), labels, classes)


def _rows(name: str, lines: Iterable[str]) -> Iterator[_Row]:
    reader = csv.reader(lines, strict=True)
    try:
        header = [column.strip() for column in next(reader, [])]
        column_of = _columns(name, header)
        for cells in reader:
            if not cells:
                continue
            if len(cells) > len(header):
                raise SourceError(
                    f"{name!r}, line {reader.line_num}: {len(cells)} cells under {len(header)} "
                    'columns; put "…" around text that holds a comma'
                )
            cells.extend([""] * (len(header) - len(cells)))
            label = cells[column_of["label"]].strip() if "label" in column_of else None
            yield _Row(reader.line_num, cells[column_of["path"]], label)
    except csv.Error as error:
        raise SourceError(f"{name!r}, line {reader.line_num}: {error}") from None


def _columns(name: str, header: list[str]) -> dict[str, int]:
    for column in ("path", "label"):
        if header.count(column) > 1:
            raise SourceError(f"{name!r} has two columns {column!r}; keep one")
    if "path" not in header:
        raise SourceError(
            f"{name!r} has no column 'path' ({did_you_mean('path', header)}); the first line names "
            "the columns, separated by commas: path,label"
        )
    return {column: place for place, column in enumerate(header) if column}


def _relative_paths(name: str, base: Path, rows: list[_Row]) -> list[str]:
    """Return each row's POSIX path relative to ``base``."""
    folder = os.path.join(base, "")  # noqa: PTH118 - here and below strings, for a million rows
    line_of: dict[str, int] = {}
    for line, path, _ in rows:
        where = f"{name!r}, line {line}"
        if not path or "\0" in path:
            raise SourceError(f"{where}: the path is {'invalid' if path else 'empty'}")
        full = os.path.normpath(folder + path if not path.startswith(os.sep) else path)
        if not full.startswith(folder):
            raise SourceError(
                f"{where}: {path!r} is not inside {str(base)!r}; give ?root=DIR, the folder that "
                "holds all images"
            )
        relative = full.removeprefix(folder).replace(os.sep, "/")
        if relative in line_of:
            raise SourceError(f"{where}: {path!r} is listed on line {line_of[relative]} already")
        line_of[relative] = line
    return list(line_of)


def _require_files(name: str, base: Path, rows: list[_Row], ids: list[str]) -> None:
    missing = [
        f"{path!r} (line {row.line})"
        for row, path in zip(rows, ids, strict=True)
        if not os.path.isfile(f"{base}/{path}")  # noqa: PTH113
    ]
    if missing:
        first = ", ".join(missing[:3]) + (", …" if len(missing) > 3 else "")
        raise SourceError(
            f"{name!r}: {len(missing)} of {len(ids)} paths name no file under {str(base)!r}: "
            f"{first}; correct them or give ?root=DIR"
        )


def _labels(
    name: str, rows: list[_Row]
) -> tuple[NDArray[Any], tuple[str, ...]] | tuple[None, None]:
    cells = [row.label or "" for row in rows]
    if not any(cells):
        return None, None
    if any(";" in cell for cell in cells):
        return _memberships(cells)
    for row in rows:
        if not row.label:
            raise SourceError(
                f"{name!r}, line {row.line}: no label while other rows have one; fill it in, or "
                "leave the column out"
            )
    classes = _in_order(cells)
    index = {label: i for i, label in enumerate(classes)}
    return np.array([index[cell] for cell in cells], dtype=np.int64), classes


def _memberships(cells: list[str]) -> tuple[NDArray[np.uint8], tuple[str, ...]]:
    """Return the (n, k) table of 0 and 1, and the k classes."""
    sets = [{part.strip() for part in cell.split(";")} - {""} for cell in cells]
    classes = _in_order(set().union(*sets))
    index = {label: i for i, label in enumerate(classes)}
    members = np.zeros((len(sets), len(classes)), dtype=np.uint8)
    for row, labels in enumerate(sets):
        members[row, [index[label] for label in labels]] = 1
    return members, classes


def _in_order(labels: Iterable[str]) -> tuple[str, ...]:
    """Order distinct labels by name, or by number where all are whole numbers.

    Example:
        >>> _in_order(["10", "9", "9"]), _in_order(["10", "9", "x"])
        (('9', '10'), ('10', '9', 'x'))
    """
    distinct = sorted(set(labels))
    if all(re.fullmatch(r"[+-]?[0-9]{1,18}", label) for label in distinct):
        distinct.sort(key=int)
    return tuple(distinct)
