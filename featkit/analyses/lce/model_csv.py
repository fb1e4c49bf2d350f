"""What the user knows of the models: a small table."""

from __future__ import annotations

import csv
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from featkit.errors import UsageError
from featkit.registry import did_you_mean

Cells = dict[str, dict[str, str]]
"""The cells of each model by the name of their column."""


def read_groups(path: str, models: Sequence[str]) -> list[str]:
    """Read the group of each model from a CSV: ``model``, ``group``.

    Raises:
        UsageError: The file cannot be read as such, or a model is unknown or has no group.
    """
    columns, cells = _read(path, "groups", models)
    if columns != ["group"]:
        raise UsageError(f"groups {path}: give the columns model and group, and no others")
    without = [name for name in models if not cells.get(name, {}).get("group")]
    if without:
        raise UsageError(f"groups {path}: no group of {', '.join(without)}: give every model one")
    return [cells[name]["group"] for name in models]


def read_scores(path: str, models: Sequence[str]) -> dict[str, NDArray[np.float64]]:
    """Read a CSV of numbers: ``model`` and any other columns.

    Args:
        path: The file; cells may be empty, and models may be missing.
        models: Their names, in order.

    Returns:
        The numbers of each column, float64 (m), NaN where there is none.

    Raises:
        UsageError: The file cannot be read as such, or a model is unknown.
    """
    columns, cells = _read(path, "scores", models)
    if not columns:
        raise UsageError(f"scores {path}: give a column of numbers beside model")
    return {
        column: np.array([_number(path, name, column, cells) for name in models])
        for column in columns
    }


def _read(path: str, what: str, models: Sequence[str]) -> tuple[list[str], Cells]:
    """Return the columns beside ``model``, and the cells of each model that has a row."""
    try:
        with Path(path).open(newline="", encoding="utf-8-sig") as file:
            reader = csv.DictReader(file, restval="", skipinitialspace=True, strict=True)
            rows = [(reader.line_num, row) for row in reader]
            columns = [name.strip() for name in reader.fieldnames or ()]
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a CSV in UTF-8"
        raise UsageError(f"{what} {path}: cannot be read ({reason})") from error
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UsageError(f"{what} {path}: column {twice[0]!r} comes twice")
    if "model" not in columns or "" in columns:
        wanted = "give a column model and a row for each" if "" not in columns else "name it"
        said = "no column model" if "" not in columns else "a column without a name"
        raise UsageError(f"{what} {path}: {said}: {wanted}")
    cells: Cells = {}
    for number, row in rows:
        where = f"{what} {path}, line {number}"
        if None in row:
            raise UsageError(f"{where}: has more cells than there are columns")
        told = {str(name).strip(): text.strip() for name, text in row.items()}
        model = told.pop("model")
        if model not in models:
            raise UsageError(f"{where}: no model {model!r}: {did_you_mean(model, models)}")
        if model in cells:
            raise UsageError(f"{where}: {model} comes twice")
        cells[model] = told
    return [name for name in columns if name != "model"], cells


def _number(path: str, model: str, column: str, cells: Cells) -> float:
    text = cells.get(model, {}).get(column, "")
    if not text:
        return math.nan
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number):
        raise UsageError(
            f"scores {path}: {column} of {model} is {text!r}: give a number, or leave the cell "
            "empty"
        )
    return number
