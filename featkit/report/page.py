"""One page, in one file, of any results: to look through, to print, to hand on."""

from __future__ import annotations

import base64
import importlib.metadata
import io
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import jinja2
from PIL import Image

from featkit.analyses.base import RESULT_FILE, Result
from featkit.documents import parse_json
from featkit.errors import UsageError, one_line
from featkit.report.dissection import PAGE, PICTURES, picture_name
from featkit.report.figures import described, draw_figure
from featkit.store.files import explain_full_disk, write_whole

ROWS = 20
"""Rows of a table that the page shows; the rest is in its CSV."""

UNITS = 24
"""Units of a dissection whose images the page shows, those of the largest IoU."""

LONG = 200
"""Characters of a text in a cell."""

LARGEST = 64_000_000
"""Bytes of an image that goes into the page; a figure has some thousands."""


@dataclass(frozen=True)
class Picture:
    """An image in the page.

    Attributes:
        data: As a ``data:`` address.
        text: What it shows, for those who do not see it.
        width: In pixels.
        height: In pixels.
    """

    data: str
    text: str
    width: int
    height: int


@dataclass(frozen=True)
class Table:
    """A table in the page.

    Attributes:
        name: In the result.
        columns: Their names.
        numeric: Those of numbers.
        rows: The first of them, a text a cell.
        count: Rows of the whole table.
        more: What is left out, and where that is.
    """

    name: str
    columns: list[str]
    numeric: set[str]
    rows: list[list[str]]
    count: int
    more: str


@dataclass
class Section:
    """What the page shows of one result."""

    name: str
    result: Result
    folder: str
    tables: list[Table]
    figures: list[Picture] = field(default_factory=list)
    units: list[tuple[str, Picture]] = field(default_factory=list)
    gallery: str = ""
    missing: list[str] = field(default_factory=list)


def write_report(
    results: Sequence[str | Path | Result], file: str | Path, title: str = "featkit report"
) -> Path:
    """Write one HTML page that needs nothing beside it.

    Of every result it has the scalars, tables, figures, notes, settings and provenance; of a
    dissection also the images of the best units.

    Args:
        results: Folders that hold a ``result.json``, or results that were made here.
        file: The page; one that is there is replaced as a whole, or stays.
        title: What it is called.

    Returns:
        The page.

    Raises:
        DiskFullError: The disk is full; a page that was there is as it was.
        UsageError: There is no result, one is not whole, or the page cannot be written.

    Example:
        >>> import tempfile
        >>> found = Result("width", {"scale": 1.0}, scalars={"widest": 64})
        >>> with tempfile.TemporaryDirectory() as folder:
        ...     page = write_report([found], Path(folder) / "page.html")
        ...     "widest" in page.read_text()
        True
    """
    if not results:
        raise UsageError("no result given: give folders that hold a result.json")
    text = _render(title, [_section(result) for result in results])
    file = Path(file)
    try:
        with explain_full_disk("the page", file.parent):
            file.parent.mkdir(parents=True, exist_ok=True)
            write_whole(file, text.encode("utf-8", "backslashreplace"))
    except OSError as error:
        raise UsageError(
            f"cannot write the page to {file} ({error.strerror}): give another file"
        ) from error
    return file


def _render(title: str, sections: Sequence[Section]) -> str:
    environment = jinja2.Environment(
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
        undefined=jinja2.StrictUndefined,
        loader=jinja2.PackageLoader("featkit.report", "."),
    )
    environment.filters |= {"shown": shown, "words": _words}
    page = environment.get_template("page.html")
    version = importlib.metadata.version("featkit")
    return page.render(title=title, sections=sections, version=version, flat=_flat)


def _section(given: str | Path | Result) -> Section:
    if isinstance(given, Result):
        section = Section(given.analysis, given, "", [_table(*t, "") for t in given.tables.items()])
        for figure in given.figures:
            section.figures.append(_picture(draw_figure(figure, given), described(figure), "png"))
        return section
    folder = Path(given)
    result = Result.load(folder)
    name = folder.name or folder.resolve().name
    tables = [_table(*table, str(folder)) for table in result.tables.items()]
    section = Section(name, result, str(folder), tables)
    for figure_name in _figure_names(folder):
        try:
            section.figures.append(_read_picture(folder / f"{figure_name}.png", figure_name))
        except (OSError, ValueError, Image.DecompressionBombError):
            section.missing.append(f"{figure_name}.png")
    if (folder / PICTURES).is_dir():
        section.units = list(_best_units(folder, result))
        if (folder / PAGE).is_file():
            section.gallery = str(folder / PAGE)
    return section


def _figure_names(folder: Path) -> list[str]:
    """Return the names of the figures beside a result that are names of files there."""
    names = parse_json((folder / RESULT_FILE).read_bytes()).get("figures")
    listed = names if isinstance(names, list) else []
    named = [name for name in listed if isinstance(name, str) and Path(name).name == name]
    return list(dict.fromkeys(named))


def _table(name: str, rows: Sequence[Mapping[str, Any]], folder: str) -> Table:
    columns = list(dict.fromkeys(column for row in rows for column in row))
    numeric = {
        column
        for column in columns
        if all(type(row.get(column)) in (int, float, type(None)) for row in rows)
    }
    more = ""
    if len(rows) > ROWS:
        where = f"; all are in {Path(folder, name)}.csv" if folder else ""
        more = f"The first {ROWS} of {len(rows):,} rows{where}."
    cells = [
        _aligned([row.get(column) for row in rows[:ROWS]])
        if column in numeric
        else [shown(row.get(column)) for row in rows[:ROWS]]
        for column in columns
    ]
    return Table(name, columns, numeric, list(map(list, zip(*cells, strict=True))), len(rows), more)


def _aligned(values: Sequence[Any]) -> list[str]:
    """Return the numbers of a column, all with four decimals where that shows what they are.

    Example:
        >>> _aligned([0.84, 0.8233, 0, None]), _aligned([1e-6, 0.5]), _aligned([1.0, 2000.0])
        (['0.8400', '0.8233', '0.0000', '–'], ['1e-06', '0.5'], ['1', '2,000'])
    """
    sizes = [abs(value) for value in values if value]
    are_parts = any(value % 1 for value in values if value)
    if not (are_parts and all(1e-3 <= size < 100 for size in sizes)):
        return [shown(value) for value in values]
    return [f"{value:.4f}" if value is not None else shown(None) for value in values]


def _read_picture(file: Path, name: str) -> Picture:
    if not file.is_file() or file.stat().st_size > LARGEST:
        raise ValueError(f"no file of at most {LARGEST:,} bytes")
    content = file.read_bytes()
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        kind, text = (image.format or "").lower(), str(image.info.get("Title") or name)
    if kind not in ("png", "jpeg"):
        raise ValueError(kind)
    return _picture(content, text, kind)


def _picture(content: bytes, text: str, kind: str) -> Picture:
    with warnings.catch_warnings(action="ignore"), Image.open(io.BytesIO(content)) as image:
        width, height = image.size
    data = f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
    return Picture(data, one_line(text), width, height)


def _best_units(folder: Path, result: Result) -> Iterator[tuple[str, Picture]]:
    """Yield what the units of a dissection with the largest IoU detect, and their images."""
    rows = [row for row in result.tables.get("units", []) if _is_unit(row)]
    for row in sorted(rows, key=lambda row: -row["iou"])[:UNITS]:
        said = f"unit {row['unit']}: {row.get('concept') or 'no concept'}, IoU {row['iou']:.3f}"
        said += "" if row.get("detector") else ", too little to detect it"
        text = f"Images that excite {said} most, with what excites it outlined"
        try:
            picture = _read_picture(folder / PICTURES / picture_name(row["unit"]), text)
        except (OSError, ValueError, Image.DecompressionBombError):
            continue
        yield said, picture


def _is_unit(row: Mapping[str, Any]) -> bool:
    iou = row.get("iou")
    return type(row.get("unit")) is int and isinstance(iou, int | float)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """Yield every single value within a value, with the names that lead to it."""
    if isinstance(value, Mapping) and value:
        for key, item in value.items():
            yield from _flat(item, f"{name} › {key}" if name else str(key))
    elif isinstance(value, list) and any(isinstance(item, dict | list) for item in value):
        for number, item in enumerate(value, 1):
            yield from _flat(item, f"{name} {number}")
    else:
        yield name, value


def shown(value: Any) -> str:
    """Return one value for people.

    Example:
        >>> shown(12345), shown(0.83452), shown(1e-6), shown(None), shown(True), shown([1, 2])
        ('12,345', '0.8345', '1e-06', '–', 'yes', '1, 2')
    """
    if value is None or value in ("", [], {}):
        return "–"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, int):
        return f"{value:,}"
    if isinstance(value, float):
        return f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    if isinstance(value, list):
        return one_line(", ".join(map(shown, value)), LONG)
    return one_line(value, LONG)


def _words(name: str) -> str:
    return one_line(name.replace("_", " "), LONG)
