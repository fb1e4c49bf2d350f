"""From what a user writes after ``--concepts`` to a source that needs no network."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from featkit.data.concepts.base import ConceptSource
from featkit.data.concepts.color import Colors
from featkit.data.concepts.layouts import open_masks
from featkit.data.concepts.panoptic import open_panoptic
from featkit.data.concepts.texture import Textures
from featkit.errors import SourceError
from featkit.spec import check_options, given_path, split_query

Opener = Callable[[str], ConceptSource]


def _masks(spec: str) -> ConceptSource:
    return open_masks(spec, _path(spec, spec.partition(":")[2]))


def _panoptic(spec: str) -> ConceptSource:
    path, options = _path(spec, spec.partition(":")[2]), dict[str, str]()
    if not path.exists():
        target, options = split_query(spec)
        path = _path(spec, target.partition(":")[2])
    check_options(spec, options, ["masks"])
    folder = given_path(options["masks"]) if "masks" in options else None
    return open_panoptic(spec, path, folder)


def _path(spec: str, text: str) -> Path:
    if not text:
        kind = spec.partition(":")[0]
        wanted = {"masks": "a folder, masks:DIR", "panoptic": "a file, panoptic:JSON"}[kind]
        raise SourceError(f"{spec!r}: {kind} needs {wanted}")
    return given_path(text)


def _bare(make: Callable[[str], ConceptSource]) -> Opener:
    def open_bare(spec: str) -> ConceptSource:
        kind, more, _ = spec.replace("?", ":", 1).partition(":")
        if more:
            raise SourceError(f"{spec!r}: {kind} takes nothing more; write {kind}")
        return make(spec)

    return open_bare


LABELLED: Mapping[str, Opener] = {
    "masks": _masks,
    "panoptic": _panoptic,
    "color": _bare(Colors),
    "texture": _bare(Textures),
}
"""How a source is opened, by the word that its specification begins with."""
