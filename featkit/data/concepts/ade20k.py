"""The full ADE20K: object and part numbers coded in colours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from featkit.data.concepts.base import CodeBook, Concept
from featkit.data.concepts.masks import Codes, MaskFiles, read_colours, short_names
from featkit.data.concepts.pairing import Pairing
from featkit.errors import SourceError, one_line

_INDEX = "index_ade20k.mat"
_PARTS = 1 << 14  # added to the numbers of parts; objects and parts are numbered together


def open_ade20k(name: str, folder: Path, files: Sequence[str]) -> MaskFiles:
    """Open a folder of ``*_seg.png`` with, where an image has parts, ``*_parts_1.png``.

    A pixel of red R and green G has the number ``⌊R / 10⌋ 256 + G`` in the list of names of
    ``index_ade20k.mat``; 0, and the name ``-``, are unlabelled. Deeper levels of parts are not
    read. A name is an object's if some occurrence is no part, and a part's if some is.

    Args:
        name: The source as the user wrote it.
        folder: Of the files; the index lies in it or in one of the five folders above.
        files: The PNG files below it.

    Raises:
        SourceError: The index is missing or damaged.

    Source: Zhou et al. 2017, Scene Parsing through ADE20K Dataset, section 2 and the data's README.
    """
    places = [folder.absolute(), *list(folder.absolute().parents)[:5]]
    index = next((place / _INDEX for place in places if (place / _INDEX).is_file()), None)
    if index is None:
        raise SourceError(
            f"{name!r} looks like ADE20K (files *_seg.png), and the names of its classes are in "
            f"{_INDEX}, which is neither in it nor above it; put it there"
        )
    present = set(files)
    pairs: dict[str, tuple[str, ...]] = {}
    for file in files:
        if file.endswith("_seg.png"):
            stem = file.removesuffix("_seg.png")
            parts = f"{stem}_parts_1.png"
            pairs[stem] = (file, parts) if parts in present else (file,)
    book = _read_names(name, index)
    return MaskFiles(name, "ADE20K", folder.absolute(), Pairing(name, pairs), book, _read)


def _read(paths: Sequence[Path]) -> Codes:
    colours = [read_colours(path)[:2].astype(np.uint16) for path in paths]
    return np.stack([c[0] // 10 * 256 + c[1] + i * _PARTS for i, c in enumerate(colours)])


def _read_names(name: str, index: Path) -> CodeBook:
    from scipy.io import loadmat  # type: ignore[import-untyped]

    try:
        table = loadmat(index, squeeze_me=True, variable_names=["index"])["index"]
        names = [str(text) for text in table["objectnames"][()]]
        share = np.asarray(table["proportionClassIsPart"][()], dtype=np.float64)
        pairs = list(zip(short_names(names), share.tolist(), strict=True))
    except Exception as error:  # a damaged file makes scipy raise nearly anything
        raise SourceError(f"{name!r}: {index.name} cannot be read: {one_line(error)}") from error
    named = [(i + 1, text, part) for i, (text, part) in enumerate(pairs) if text != "-"]
    codes = [(code, Concept(text, "object")) for code, text, part in named if part < 1]
    codes += [(code + _PARTS, Concept(text, "part")) for code, text, part in named if part > 0]
    return CodeBook(codes)
