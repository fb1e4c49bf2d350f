"""Published checkpoints by short names, fetched once into a cache.

A name is ``METHOD_NETWORK[_EPOCHSep][_VARIANT…]``. Where VISSL has trained a network anew, the
plain name is VISSL's file, as arXiv:2110.10293 used it, and ``_authors`` marks that of the method's
authors; ``_full`` marks the state of training where the backbone is also published alone.

They are listed in ``zoo.csv``, each address as it stands in the document that is named with it.
"""

from __future__ import annotations

import csv
import fnmatch
import re
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from urllib.parse import urlsplit

from featkit.backbones.cache import cache_folder
from featkit.errors import BackboneError
from featkit.registry import Registry, did_you_mean


@dataclass(frozen=True)
class ZooEntry:
    """A published checkpoint.

    Attributes:
        name: What to write after ``zoo:``.
        url: Where it lies.
        network: Such as ``ResNet-50 ×2`` (twice as wide) or ``ViT-S/16``.
        method: How it was trained.
        epochs: For how long; None if the source does not say.
        source: The document that ``url`` was copied from.
        sha256: The first digits of the file's checksum; None if none is published.
        note: What sets it apart.
    """

    name: str
    url: str
    network: str
    method: str
    epochs: int | None
    source: str
    sha256: str | None = None
    note: str = ""


def _read_zoo() -> Registry[ZooEntry]:
    zoo = Registry[ZooEntry]("checkpoint")
    with Path(__file__).with_name("zoo.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            epochs = int(row.pop("epochs") or 0) or None
            entry = ZooEntry(epochs=epochs, sha256=row.pop("sha256") or None, **row)
            zoo.register(entry.name, entry)
    return zoo


ZOO = _read_zoo()
"""Every published checkpoint that featkit knows, by name."""


def list_zoo(pattern: str = "*") -> list[ZooEntry]:
    """List the published checkpoints whose name matches a pattern.

    Args:
        pattern: With ``*`` and ``?`` as in file names; without them, a part of the name.

    Returns:
        In the order of their names, numbers by size.

    Example:
        >>> [entry.name for entry in list_zoo("simclr_rn101")]
        ['simclr_rn101_100ep', 'simclr_rn101_1000ep']
    """
    pattern = pattern.lower().removeprefix("zoo:")
    if not any(c in pattern for c in "*?["):
        pattern = f"*{pattern}*"
    return [ZOO[name] for name in sorted(ZOO, key=_natural) if fnmatch.fnmatchcase(name, pattern)]


def zoo_entry(name: str) -> ZooEntry:
    """Look up a published checkpoint.

    Args:
        name: Without the ``zoo:`` in front.

    Raises:
        BackboneError: There is none of this name.

    Example:
        >>> entry = zoo_entry("simclr_rn50w2_1000ep")
        >>> entry.method, entry.network, entry.epochs
        ('SimCLR', 'ResNet-50 ×2', 1000)
    """
    if name not in ZOO:
        parts = [entry.name for entry in list_zoo(name)] if name else []
        known = parts if 0 < len(parts) <= 12 else ZOO
        raise BackboneError(
            f"no published checkpoint zoo:{name}: {did_you_mean(name, known)} "
            f"(featkit backbones --zoo lists all)"
        )
    return ZOO[name]


def zoo_file(name: str, progress: bool = False) -> Path:
    """Fetch a published checkpoint into the cache, or find it there.

    Args:
        name: Without the ``zoo:`` in front.
        progress: Whether to draw a bar on stderr.

    Returns:
        The file.

    Raises:
        BackboneError: There is none of this name.
        DownloadError: It could not be fetched.
    """
    from featkit.backbones.download import download

    entry = zoo_entry(name)
    suffixes = "".join(PurePosixPath(urlsplit(entry.url).path).suffixes)
    target = cache_folder() / "zoo" / f"{name}{suffixes}"
    return download(entry.url, target, entry.sha256, progress)


def _natural(name: str) -> list[str | int]:
    return [int(part) if part.isdigit() else part for part in re.split(r"(\d+)", name)]
