"""Folders of images, flat or with one subfolder a class."""

from __future__ import annotations

import os
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from featkit.data.files import FileSource, shown
from featkit.data.packed import PackedStrings
from featkit.errors import SourceError

EXTENSIONS = frozenset(
    {"jpg", "jpeg", "jpe", "jfif", "mpo", "png", "apng", "gif", "bmp", "tif", "tiff", "webp"}
    | {"ppm", "pgm", "pbm", "pnm", "avif", "qoi"}
)
"""Endings, in lower case and without the dot, of the files that count as images."""

_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})


@dataclass
class _Found:
    """What lies under a folder, as POSIX paths relative to it, in no order."""

    images: list[str] = field(default_factory=list)
    others: list[str] = field(default_factory=list)
    folders: list[str] = field(default_factory=list)
    loops: list[str] = field(default_factory=list)


def open_folder(name: str, root: Path) -> FileSource:
    """List the images of a folder and its subfolders.

    Each subfolder of ``root`` is a class, whatever the depth of the images in it, unless images
    also lie directly in ``root``. Hidden files and folders are skipped, links are followed.

    Args:
        name: The source as the user wrote it.
        root: The folder.

    Returns:
        The images ordered by path (code points); classes ordered by name.

    Raises:
        SourceError: No image is there, a folder cannot be listed, or a name is not UTF-8.

    Cost:
        One listing of each folder; 8 bytes and its path an image.
    """
    found = _scan(name, root)
    if not found.images:
        raise SourceError(
            f"{name!r} holds no image ({len(found.others)} other files); give a folder with "
            "image files (.jpg, .png, .tif, .webp, …) in it or in one subfolder a class"
        )
    images = sorted(found.images)
    notes = _notes(found)
    nested = [path for path in images if "/" in path]
    labels, classes = None, None
    if len(nested) == len(images):
        tops = [path.partition("/")[0] for path in images]
        classes = tuple(sorted(set(tops)))
        index = {top: i for i, top in enumerate(classes)}
        labels = np.array([index[top] for top in tops], dtype=np.int64)
        if "train" in classes and _SPLITS.issuperset(classes):
            notes.append(f"the classes are {shown(classes)}: for one split give its own folder")
    elif nested:
        notes.append(
            f"no labels: {len(images) - len(nested)} images lie beside the subfolders "
            f"({shown([path for path in images if '/' not in path])})"
        )
    return FileSource(name, root.absolute(), PackedStrings(images), labels, classes, tuple(notes))


def _notes(found: _Found) -> list[str]:
    notes = []
    if found.others:
        files = "file" if len(found.others) == 1 else "files"
        notes.append(
            f"left out {len(found.others)} {files} without an image extension: "
            f"{shown(sorted(found.others))}"
        )
    if found.loops:
        notes.append(f"left out links to a folder they lie in: {shown(sorted(found.loops))}")
    tops = {path.partition("/")[0] for path in found.images if "/" in path}
    empty = sorted(set(found.folders) - tops)
    if tops and empty:
        notes.append(f"left out subfolders without an image: {shown(empty)}")
    return notes


def _scan(name: str, root: Path) -> _Found:
    """Walk the folder; a link to a folder it lies in ends there."""
    found = _Found()
    try:
        pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [("", (_identity(root.stat()),))]
        while pending:
            prefix, ancestors = pending.pop()
            with os.scandir(root / prefix) as entries:
                visible = [entry for entry in entries if not entry.name.startswith(".")]
            for entry in visible:
                path = prefix + entry.name
                if not _is_folder(entry):
                    _file_under(found, path, entry)
                elif (identity := _identity(entry.stat())) in ancestors:
                    found.loops.append(path)
                else:
                    pending.append((path + "/", (*ancestors, identity)))
                    if not prefix:
                        found.folders.append(path)
    except OSError as error:
        where = shown([str(error.filename or root)])
        raise SourceError(f"{name!r}: {where} cannot be listed: {error.strerror}") from error
    for path in found.images:
        if not _is_utf8(path):
            raise SourceError(
                f"{name!r}: the file name {shown([path])} is not UTF-8; rename the file"
            )
    return found


def _file_under(found: _Found, path: str, entry: os.DirEntry[str]) -> None:
    """Sort a file to the images or the others; a broken link keeps its row, a pipe does not."""
    extension = os.path.splitext(entry.name)[1][1:].lower()  # noqa: PTH122 - a million times
    readable = entry.is_symlink() or entry.is_file()
    (found.images if extension in EXTENSIONS and readable else found.others).append(path)


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _identity(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino


def _is_utf8(name: str) -> bool:
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True
