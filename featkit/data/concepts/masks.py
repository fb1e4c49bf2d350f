"""Folders of label maps: one number a pixel, in layouts that are known or told."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from featkit.data.concepts.base import MOST_CODE, CodeBook, Concept, Labels
from featkit.data.concepts.grid import Grid
from featkit.data.concepts.pairing import Pairing, manifest_digest
from featkit.data.decoding import decode_errors, open_image
from featkit.documents import parse_json
from featkit.errors import DecodeError, SourceError, one_line

Codes = NDArray[np.integer[Any]]


@dataclass(frozen=True, eq=False)
class MaskFiles:
    """Label maps in files, one or several an image: a `ConceptSource`.

    Attributes:
        name: The source as the user wrote it.
        layout: What the files were taken for.
        root: The folder that the files are relative to.
        files: The files of each image.
        book: What the numbers in them stand for.
        read: From the files of one image to its numbers, (layers, h, w).
    """

    name: str
    layout: str
    root: Path
    files: Pairing[tuple[str, ...]]
    book: CodeBook
    read: Callable[[Sequence[Path]], Codes]

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The concepts that the numbers stand for."""
        return self.book.concepts

    def identity(self) -> dict[str, Any]:
        """The meaning of the numbers, and the names and contents of all files.

        Cost: one pass over the files, the first time.
        """
        return {"layout": self.layout, "codes": self.book.digest(), "files": self._manifest}

    @cached_property
    def _manifest(self) -> str:
        names = (name for group in self.files.items.values() for name in group)
        return manifest_digest((name, self.root / name) for name in names)

    def check(self, ids: Sequence[str]) -> None:
        """Refuse images without a label map."""
        self.files.check(ids)

    def label(self, sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Read the image's files and sample them at the cells."""
        names = self.files[sample]
        where = f"{self.name!r}: {names[0]}"
        try:
            codes = self.read([self.root / name for name in names])
        except DecodeError as error:
            raise SourceError(f"{where} cannot be read: {error}") from error
        check_shape(where, codes, image)
        sampled = grid.sample(codes, image.size).astype(np.int32)
        is_covered = grid.sample(np.broadcast_to(np.True_, codes.shape[-2:]), image.size)
        labels = self.book.labels(np.where(is_covered, sampled, -1))
        if labels.min() < 0:
            raise SourceError(
                f"{where} holds the number {_unknown(self.book, codes)}, which the layout "
                f"{self.layout} does not have; say what its numbers mean in {CLASSES}: {_EXAMPLE}"
            )
        return labels


CLASSES = "classes.json"
_EXAMPLE = '{"8": {"name": "car", "category": "object"}}'


def check_shape(where: str, codes: NDArray[Any], image: Image.Image) -> None:
    """Refuse a label map of another shape than its image; another resolution is fine.

    Raises:
        SourceError: The proportions differ by more than the rounding to pixels.
    """
    height, width = codes.shape[-2:]
    if abs(width * image.height - height * image.width) > image.width + image.height:
        raise SourceError(
            f"{where} has {width}x{height} pixels and its image {image.width}x{image.height}: "
            f"they are not of one picture (an EXIF rotation of the image is applied)"
        )


def read_index(path: Path) -> Codes:
    """Read a greyscale or palette image as its stored numbers, (h, w) of their own type.

    Raises:
        DecodeError: It holds colours, or cannot be decoded.
    """
    with decode_errors(), open_image(path) as image:
        if image.mode not in {"1", "L", "P", "I", "I;16", "I;16B"}:
            raise DecodeError(f"its mode is {image.mode}, and label maps hold one number a pixel")
        return np.array(image, dtype=np.uint8 if image.mode == "1" else None)


def read_colours(path: Path) -> Codes:
    """Read an image of red, green and blue that code numbers, (3, h, w) uint8.

    Raises:
        DecodeError: It holds no colours, or cannot be decoded.
    """
    with decode_errors(), open_image(path) as image:
        if image.mode not in {"RGB", "RGBA"}:
            raise DecodeError(f"its mode is {image.mode}, and numbers are coded in RGB here")
        return np.moveaxis(np.asarray(image)[..., :3], -1, 0)


def read_one(paths: Sequence[Path]) -> Codes:
    """Read the one label map of an image, (1, h, w)."""
    return read_index(paths[0])[None]


def read_classes(name: str, path: Path) -> CodeBook:
    """Read what the numbers of label maps mean.

    Args:
        name: Of the source, for messages.
        path: JSON such as ``{"8": {"name": "car", "category": "object"}}``.

    Raises:
        SourceError: It cannot be read, or is something else.
    """
    try:
        content = parse_json(path.read_bytes())
    except OSError as error:
        raise SourceError(f"{name!r}: {path.name} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise SourceError(f"{name!r}: {path.name} is no JSON: {one_line(error)}") from error
    if not isinstance(content, dict) or not content:
        raise SourceError(f"{name!r}: {path.name} maps numbers to concepts: {_EXAMPLE}")
    return CodeBook([_read_class(name, path.name, *each) for each in content.items()])


def short_names(synonyms: Sequence[str]) -> list[str]:
    """Return the first synonym of each name, or all of them where two begin with the same.

    Example:
        >>> short_names(["building;edifice", "bar", "bar, saloon"])
        ['building', 'bar', 'bar, saloon']
    """
    first = [re.split(r"[,;]\s*", text.strip())[0].strip() for text in synonyms]
    whole = [text.strip() for text in synonyms]
    return [f if first.count(f) == 1 else w for f, w in zip(first, whole, strict=True)]


def _read_class(name: str, file: str, code: str, meaning: Any) -> tuple[int, Concept]:
    if not code.isdecimal() or len(code) > 8 or int(code) > MOST_CODE:
        raise SourceError(f"{name!r}: {file}: {code!r} is no number that a pixel can hold")
    fields = meaning if isinstance(meaning, Mapping) else {}
    texts = [fields.get(key) for key in ("name", "category")]
    if len(fields) != 2 or not all(isinstance(text, str) and text.strip() for text in texts):
        raise SourceError(
            f"{name!r}: {file}: {code} has a name and a category, as in {_EXAMPLE}; not "
            f"{one_line(json.dumps(meaning), most=100)}"
        )
    return int(code), Concept(str(texts[0]).strip(), str(texts[1]).strip())


def _unknown(book: CodeBook, codes: Codes) -> int:
    present = np.unique(codes)
    return int(present[book.labels(present) < 0][0])
