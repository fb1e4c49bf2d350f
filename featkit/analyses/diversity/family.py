"""What is known of the models that are compared: a small table."""

from __future__ import annotations

import csv
import io
import math
import re
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from torch import nn

from featkit.backbones.architectures import UnsetWeights, build
from featkit.backbones.layer_names import classifier_path
from featkit.backbones.nets.norms import LayerNorm2d
from featkit.errors import BackboneError, UsageError, one_line
from featkit.registry import did_you_mean
from featkit.store.reader import FeatureTable

_METHODS = {
    "DINO": "DINO",
    "MoCo v3": "MoCo v3",
    "SimCLR v2, converted": "SimCLR v2",
    "SimSiam": "SimSiam",
}
"""Layouts of checkpoints that one method alone leaves."""

_NORMS: dict[str, tuple[type[nn.Module], ...]] = {
    "batch": (nn.modules.batchnorm._BatchNorm,),  # noqa: SLF001 - what all have in common
    "layer": (nn.LayerNorm, LayerNorm2d),
    "group": (nn.GroupNorm,),
}


@dataclass(frozen=True)
class Model:
    """One model; None where nothing is known.

    Attributes:
        epochs: It was trained for.
        width: Factor on the channels.
        depth: Layers, as its name counts them.
        norm: ``batch``, ``layer``, ``group``.
        method: It was trained with.
        parameters: Without its classifier or head.
        error: Share of wrong answers, in [0, 1].
    """

    epochs: float | None = None
    width: float | None = None
    depth: float | None = None
    norm: str | None = None
    method: str | None = None
    parameters: float | None = None
    error: float | None = None

    def known(self) -> dict[str, Any]:
        """Return the columns of a table."""
        return asdict(self)


_NUMBERS = {field.name for field in fields(Model)} - {"norm", "method"}


def describe_model(table: FeatureTable) -> Model:
    """Read off a table what its backbone is: from its architecture, its checkpoint and its spec.

    Training runs of featkit say their method and epochs. What cannot be told is None.
    """
    given = table.provenance.get("backbone")
    architecture = str(given.get("architecture", "")) if isinstance(given, dict) else ""
    report = table.checkpoint or {}
    epochs = report.get("epochs")
    model = Model(
        epochs=None if epochs is None else float(epochs),
        method=report.get("method") or _METHODS.get(str(report.get("layout", ""))),
    )
    if not architecture:
        return model
    try:
        with UnsetWeights():
            network = build(architecture)
    except BackboneError:
        return model
    head = network.head or classifier_path(network.module)
    named = re.search(
        r"resnet(\d+)(?:(?:w|(?<=wide_resnet50)_|(?<=wide_resnet101)_)(\d+))?", architecture
    )
    return replace(
        model,
        depth=float(named[1]) if named else None,
        width=float(named[2] or 1) if named else None,
        norm=_norm(network.module),
        parameters=float(
            sum(
                p.numel()
                for name, p in network.module.named_parameters()
                if not name.startswith(f"{head}.")
            )
        ),
    )


def _norm(module: nn.Module) -> str | None:
    counts = {
        name: sum(isinstance(child, kind) for child in module.modules())
        for name, kind in _NORMS.items()
    }
    best = max(counts, key=lambda name: counts[name])
    return best if counts[best] else None


def read_family(path: str | Path) -> dict[str, Model]:
    """Read a CSV of models: ``backbone`` and any of the columns of :class:`Model`.

    Cells may be empty, and there may be spaces about names and cells. Semicolons or tabs may take
    the place of commas, as spreadsheets write them where numbers have a comma: ``0,25`` is then
    read as 0.25.

    Raises:
        UsageError: The file cannot be read, a column is unknown, a number is none, or a backbone
            comes twice.
    """
    try:
        text = Path(path).read_text("utf-8-sig")
        header = text.partition("\n")[0]
        delimiter = max(",;\t", key=header.count)
        reader = csv.DictReader(io.StringIO(text, newline=""), restval="", delimiter=delimiter)
        reader.fieldnames = columns = [name.strip() for name in reader.fieldnames or ()]
        rows = list(reader)
    except (OSError, UnicodeDecodeError, csv.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else "not a CSV in UTF-8"
        raise UsageError(f"family {path}: cannot be read ({reason})") from error
    known = ["backbone", *(field.name for field in fields(Model))]
    twice = [name for name in columns if columns.count(name) > 1]
    if twice:
        raise UsageError(f"family {path}: column {twice[0]!r} comes twice")
    unknown = [name for name in columns if name not in known]
    if unknown:
        raise UsageError(
            f"family {path}: unknown column {one_line(unknown[0], 60)!r}: "
            f"{did_you_mean(unknown[0], known)}"
        )
    if "backbone" not in columns:
        found = one_line(header, 60) if header.strip() else "nothing"
        raise UsageError(
            f"family {path}: its first line is {found!r}: give a column backbone and a row for each"
        )
    models: dict[str, Model] = {}
    for number, row in enumerate(rows, 2):
        where = f"family {path}, line {number}"
        if None in row:
            raise UsageError(f"{where}: has more cells than there are columns")
        backbone = row.pop("backbone").strip()
        if not backbone or backbone in models:
            said = f"{backbone} comes twice" if backbone else "no backbone"
            raise UsageError(f"{where}: {said}")
        if delimiter != ",":
            row |= {name: row[name].replace(",", ".") for name in _NUMBERS & row.keys()}
        values: dict[str, Any] = {name: _value(name, row[name], where) for name in row}
        models[backbone] = Model(**values)
    return models


def _value(name: str, text: str, where: str) -> float | str | None:
    text = text.strip()
    if not text:
        return None
    if name not in _NUMBERS:
        return text
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or number < 0 or (name == "error" and number > 1):
        wanted = "a share in [0, 1]" if name == "error" else "a number, 0 or more"
        raise UsageError(f"{where}: {name} is {text!r}: give {wanted}")
    return number


def merge(told: Model, given: Model | None) -> Model:
    """Return what was read off a table, with what the user gave in its place."""
    if given is None:
        return told
    return replace(told, **{n: v for n, v in asdict(given).items() if v is not None})
