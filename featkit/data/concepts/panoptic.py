"""COCO panoptic annotations: one JSON, and a PNG an image whose colours are segments."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
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
from featkit.documents import parse_json
from featkit.errors import DecodeError, SourceError, one_line


@dataclass(frozen=True)
class Segmented:
    """The annotation of one image.

    Attributes:
        file: Its PNG.
        categories: The category of each segment's id.
    """

    file: str
    categories: Mapping[int, int]


@dataclass(frozen=True, eq=False)
class Panoptic:
    """Things and stuff of COCO panoptic annotations, as objects: a `ConceptSource`.

    A pixel of colours R, G, B belongs to segment ``R + 256 G + 256² B``; 0 is unlabelled. Segments
    of one category get one label; crowds count as what they are crowds of.

    Attributes:
        name: The source as the user wrote it.
        folder: Of the PNG files.
        images: The annotation of each image.
        book: What the category numbers stand for.

    Source: Kirillov et al. 2019, arXiv:1801.00868; the data format on https://cocodataset.org.
    """

    name: str
    folder: Path
    images: Pairing[Segmented]
    book: CodeBook

    @property
    def concepts(self) -> tuple[Concept, ...]:
        """The categories."""
        return self.book.concepts

    def identity(self) -> dict[str, Any]:
        """The meaning of the numbers, and the names, segments and contents of all PNG files.

        Cost: one pass over the files, the first time.
        """
        return {"layout": "panoptic", "codes": self.book.digest(), "files": self._manifest}

    @cached_property
    def _manifest(self) -> str:
        return manifest_digest(
            (f"{each.file} {sorted(each.categories.items())}", self.folder / each.file)
            for each in self.images.items.values()
        )

    def check(self, ids: Sequence[str]) -> None:
        """Refuse images without an annotation."""
        self.images.check(ids)

    def label(self, sample: str, image: Image.Image, grid: Grid) -> Labels:
        """Read the image's segments and sample them at the cells."""
        entry = self.images[sample]
        where = f"{self.name!r}: {entry.file}"
        try:
            colours = read_colours(self.folder / entry.file)
        except DecodeError as error:
            raise SourceError(f"{where} cannot be read: {error}") from error
        check_shape(where, colours, image)
        red, green, blue = grid.sample(colours, image.size).astype(np.int32)
        segments: Labels = red + 256 * green + 65536 * blue
        return self.book.labels(self._categories(where, segments, entry.categories))[None]

    def _categories(
        self, where: str, segments: Labels, categories: Mapping[int, int]
    ) -> NDArray[np.int64]:
        ids, places = np.unique(segments, return_inverse=True)
        if missing := [each for each in ids.tolist() if each and each not in categories]:
            raise SourceError(f"{where} holds the segment {missing[0]}, which the JSON does not")
        numbers = np.array([categories[each] if each else -1 for each in ids.tolist()])
        return numbers[places].reshape(segments.shape)


def open_panoptic(name: str, path: Path, folder: Path | None = None) -> Panoptic:
    """Open COCO panoptic annotations.

    Args:
        name: The source as the user wrote it.
        path: The JSON, such as ``panoptic_val2017.json``.
        folder: Of the PNG files; None for the one called like the JSON.

    Raises:
        SourceError: A file is missing or damaged.
    """
    folder = path.with_suffix("") if folder is None else folder
    if not folder.is_dir():
        raise SourceError(f"{name!r}: there is no folder {folder} of PNG files; give ?masks=DIR")
    try:
        content = parse_json(path.read_bytes())
        names = {int(c["id"]): str(c["name"]) for c in content["categories"]}
        images = {
            str(PurePosixPath(each["file_name"]).with_suffix("")): Segmented(
                inside(f"{name!r}: {path.name}", str(each["file_name"])),
                {int(s["id"]): int(s["category_id"]) for s in each["segments_info"]},
            )
            for each in content["annotations"]
        }
    except OSError as error:
        raise SourceError(f"{name!r}: {path} cannot be read: {error.strerror}") from error
    except SourceError:
        raise
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise SourceError(
            f"{name!r}: {path.name} is no panoptic annotation with categories and segments_info "
            f"({type(error).__name__}: {one_line(error)})"
        ) from error
    used = {code for each in images.values() for code in each.categories.values()}
    if unnamed := sorted(used - names.keys()):
        raise SourceError(f"{name!r}: {path.name} names no category {unnamed[0]}")
    if not names or min(names) < 0 or max(names) > MOST_CODE:
        raise SourceError(
            f"{name!r}: {path.name} has no categories, or numbers of them outside 0..{MOST_CODE}"
        )
    book = CodeBook([(code, Concept(text, "object")) for code, text in names.items()])
    return Panoptic(name, folder.absolute(), Pairing(name, images), book)
