"""Broden: objects, parts, materials, colours, scenes and textures, several labels a pixel."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.concepts.base import MOST_CODE, CodeBook, Concept, Labels
from featkit.data.concepts.grid import Grid
from featkit.data.concepts.masks import check_shape, read_colours
from featkit.data.concepts.pairing import Pairing, manifest_digest
from featkit.data.files import inside
from featkit.errors import DecodeError, SourceError, one_line

_SUFFIXES = {"color": "-c", "scene": "-s"}  # with which Broden keeps equal names apart

Channel = tuple[int, str | int]
"""The number of a category, and a PNG below ``images`` or one label number for all pixels."""


@dataclass(frozen=True, eq=False)
class Broden:
    """The label maps of the Broadly and Densely Labeled Dataset: a `ConceptSource`.

    A pixel of red R and green G has the label number ``R + 256 G``; a label of a whole image
    (scenes, textures) holds at every pixel. Each map and each whole-image label is one layer.

    Attributes:
        name: The source as the user wrote it.
        root: The folder with ``index.csv``.
        channels: The layers of each image.
        book: Label numbers of category c begin at c · stride.
        stride: More than the largest label number.

    Source: Bau et al. 2017, arXiv:1704.05796, section 2.1, and the README of the data.
    """

    name: str
    root: Path
    channels: Pairing[tuple[Channel, ...]]
    book: CodeBook
    stride: int

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """Every label in each of its categories."""
        return self.book.concepts

    def identity(self) -> dict[str, Any]:
        """The meaning of the numbers, the index, and the contents of all maps.

        Cost: one pass over the files, the first time.
        """
        return {"layout": "Broden", "codes": self.book.digest(), "files": self._manifest}

    @cached_property
    def _manifest(self) -> str:
        return manifest_digest(
            (f"{sample} {category} {data}", self.root / "images" / str(data))
            for sample, channels in self.channels.items.items()
            for category, data in channels
        )

    def check(self, ids: Sequence[str]) -> None:
        """Refuse images that the index does not list."""
        self.channels.check(ids)

    def label(self, sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Stack the image's maps and whole-image labels, sampled at the cells."""
        whole = np.zeros((image.height, image.width), dtype=np.int32)
        layers = [grid.sample(whole, image.size)]
        for category, data in self.channels[sample]:
            if isinstance(data, int):
                sampled = grid.sample(np.full_like(whole, data), image.size)
            else:
                sampled = grid.sample(self._read(data, image), image.size).astype(np.int32)
            layers.append(np.where(sampled > 0, sampled + category * self.stride, -1))
        return self.book.labels(np.stack(layers[1:] or layers))

    def _read(self, file: str, image: Image.Image) -> NDArray[np.uint16]:
        where = f"{self.name!r}: {file}"
        try:
            red, green, _ = read_colours(self.root / "images" / file)
        except DecodeError as error:
            raise SourceError(f"{where} cannot be read: {error}") from error
        check_shape(where, red, image)
        codes: NDArray[np.uint16] = red + 256 * green.astype(np.uint16)
        if codes.max() >= self.stride:
            raise SourceError(f"{where} holds the label {codes.max()}, not in label.csv")
        return codes


def open_broden(name: str, root: Path) -> Broden:
    """Open a folder with ``index.csv``, ``label.csv`` and ``category.csv``.

    Args:
        name: The source as the user wrote it.
        root: The folder; maps lie below its folder ``images``.

    Raises:
        SourceError: A table lacks a column, or holds something else.
    """
    try:
        categories = [row["name"] for row in _rows(root / "category.csv")]
        labels = list(_labels(root / "label.csv"))
        stride = 1 + max(number for number, _, _ in labels)
        channels = {
            str(PurePosixPath(row["image"]).with_suffix("")): tuple(
                (i, int(item) if item.isdecimal() else inside(f"{name!r}: index.csv", item))
                for i, category in enumerate(categories)
                for item in row[category].split(";")
                if item
            )
            for row in _rows(root / "index.csv")
        }
    except SourceError:
        raise
    except (KeyError, ValueError, TypeError, AttributeError, csv.Error) as error:
        raise SourceError(
            f"{name!r}: index.csv, label.csv or category.csv is not as in Broden "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    except OSError as error:
        raise SourceError(f"{name!r}: {error.filename} cannot be read: {error.strerror}") from error
    whole = {each for layers in channels.values() for _, each in layers if isinstance(each, int)}
    if too_large := sorted(each for each in whole if each >= stride):
        raise SourceError(f"{name!r}: index.csv holds the label {too_large[0]}, not in label.csv")
    codes = [
        (categories.index(category) * stride + number, Concept(text, category))
        for number, text, category in labels
        if category in categories
    ]
    if not codes or min(codes)[0] < 0 or max(codes)[0] > MOST_CODE:
        raise SourceError(f"{name!r}: label.csv numbers no label of the categories from 0 on")
    return Broden(name, root.absolute(), Pairing(name, channels), CodeBook(codes), stride)


def _rows(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8-sig") as file:
        return list(csv.DictReader(file))


def _labels(path: Path) -> Iterator[tuple[int, str, str]]:
    """Yield number, name and category; the column is such as ``object(210);part(3)``."""
    for row in _rows(path):
        for entry in row["category"].split(";"):
            category = re.sub(r"\(\d+\)$", "", entry)
            text = row["name"].removesuffix(_SUFFIXES.get(category, "\0"))
            yield int(row["number"]), text, category
