"""What an image source is, and how one is found from what the user wrote."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.arrays import open_digits
from featkit.data.folder import open_folder
from featkit.data.table import open_table
from featkit.data.torchvision_sets import PREFIX, open_torchvision
from featkit.errors import SourceError
from featkit.registry import did_you_mean
from featkit.spec import check_options, given_path, kind_at, split_query

_WANTED = (
    "a source is a folder of images, a CSV table path[,label], torchvision:NAME/SPLIT?root=DIR "
    "or digits"
)


@runtime_checkable
class Source(Protocol):
    """n images in a fixed order, with their labels where known. Sources can be pickled."""

    @property
    def name(self) -> str:
        """The source as the user wrote it."""

    @property
    def ids(self) -> Sequence[str]:
        """Unique, stable names of samples: POSIX paths relative to the root, or row numbers."""

    @property
    def labels(self) -> NDArray[Any] | None:
        """(n,) int64 class indices, or (n, k) uint8 memberships, or None."""

    @property
    def classes(self) -> tuple[str, ...] | None:
        """The names that labels index."""

    @property
    def notes(self) -> tuple[str, ...]:
        """One-line remarks that the user should be told."""

    def read(self, row: int) -> Image.Image:
        """Return sample ``row`` as an RGB image, or raise `DecodeError`."""

    def digest(self, row: int) -> bytes:
        """Return the sha256 (32 bytes) of the sample's content; never raises."""

    def stamps(self) -> NDArray[np.int64] | None:
        """Return (n, 2) file sizes and modification times in ns; None without files."""


def open_source(spec: str | Path | Source) -> Source:
    """Open the images that ``spec`` names.

    Args:
        spec: A folder, a CSV table (``list.csv?root=DIR``), ``torchvision:NAME/SPLIT?root=DIR``,
            ``digits``, or a source, which is returned as it is. A folder that is itself called
            ``digits`` is written ``./digits``.

    Returns:
        The source. Its images are listed and not yet decoded.

    Raises:
        SourceError: The source does not exist or cannot be understood.
        UsageError: An option after ``?`` is not known.

    Example:
        >>> open_source("digits").read(0).size
        (8, 8)
        >>> open_source("torchvison:CIFAR10")
        Traceback (most recent call last):
        featkit.errors.SourceError: 'torchvison:CIFAR10': did you mean torchvision:CIFAR10?
    """
    if not isinstance(spec, str | Path):
        if isinstance(spec, Source):
            return spec
        raise SourceError(f"{type(spec).__name__} is no image source; {_WANTED}")
    name = str(spec)
    if isinstance(spec, str) and spec.startswith(PREFIX):
        return open_torchvision(spec)
    path, options = given_path(spec), dict[str, str]()
    if isinstance(spec, str) and not kind_at(path):
        stem, options = split_query(spec)
        path = given_path(stem)
    if isinstance(spec, str) and path == Path("digits") and "/" not in spec:
        check_options(name, options, [])
        return open_digits(name)
    if not name or not kind_at(path):
        raise SourceError(_unknown(name, path))
    if path.is_dir():
        check_options(name, options, [])
        return open_folder(name, path)
    if path.suffix.lower() != ".csv":
        raise SourceError(f"{name!r} is a file and no CSV table; {_WANTED}")
    check_options(name, options, ["root"])
    root = given_path(options["root"]) if "root" in options else None
    return open_table(name, path, root)


def _unknown(name: str, path: Path) -> str:
    """Say that nothing is called ``name``, with the likeliest intention."""
    scheme, colon, rest = name.partition(":")
    if colon and "did you mean" in (hint := did_you_mean(scheme, ["torchvision"])):
        return f"{name!r}: {hint.removesuffix('?')}:{rest}?"
    try:
        names = sorted(entry.name for entry in path.parent.iterdir())
    except (OSError, ValueError):
        names = []
    visible = [each for each in names if not each.startswith(".")]
    hint = did_you_mean(path.name, [*visible, *([] if "/" in name else ["digits"])])
    told = f" ({hint})" if "did you mean" in hint else ""
    return f"{name!r} does not exist{told}; {_WANTED}"
