"""What arguments are: plain texts, that a shell can complete."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeAlias

import click
from click.shell_completion import CompletionItem

from featkit.spec import given_path

Item: TypeAlias = Any
"""A ``CompletionItem``, which newer releases of click made generic."""

SAMPLES_FILE, RESULT_FILE, RUN_FILE = "samples.h5", "result.json", "run.json"
"""What tells a store, a result and a run; their rooms, which say so too, take long to import."""

POOLINGS = ("avg", "max", "cls", "flatten", "none")
_KINDS = ("hf:", "offline:", "timm:", "torchvision:", "zoo:")
_CONCEPTS = ("color", "texture", "masks:", "panoptic:", "torchvision:", "hf:", "upp:")


class Kind(click.ParamType):  # type: ignore[type-arg]  # generic since click 8.4
    """A text of one kind; a subclass says what it may be."""

    name = "text"

    def shell_complete(
        self, ctx: click.Context, param: click.Parameter, incomplete: str
    ) -> list[Item]:
        """Return what a text that begins so may be."""
        return list(self.items(ctx, param, incomplete))

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:
        """Yield what a text that begins so may be."""
        raise NotImplementedError


class Words(Kind):
    """One of some words, or what else the command understands."""

    def __init__(self, words: Sequence[str]) -> None:
        self.words = tuple(words)

    def to_info_dict(self) -> Any:
        """Describe it, with its words."""
        return {**super().to_info_dict(), "words": self.words}

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the words that begin so."""
        yield from _those(self.words, text)


class CommaSeparated(Kind):
    """Values of one type, separated by commas."""

    name = "list"

    def __init__(self, item: Any) -> None:
        self.item = item

    def to_info_dict(self) -> Any:
        """Describe it, with what its parts are."""
        return {**super().to_info_dict(), "item": self.item.to_info_dict()}

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[Any, ...]:
        """Split a text and convert every part."""
        parts = [part.strip() for part in value.split(",")]
        return tuple(self.item.convert(part, param, ctx) for part in parts if part)

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:
        """Yield what the last part may be, behind those before it."""
        before, comma, last = text.rpartition(",")
        for item in self.item.shell_complete(ctx, param, last):
            yield CompletionItem(before + comma + item.value, type=item.type, help=item.help)


class CommandName(Kind):
    """The name of a command."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the commands that begin so."""
        from featkit_cli.main import known_commands

        yield from _those(known_commands(), text)


class FilePath(Kind):
    """A file, read or written."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Leave it to the shell."""
        yield CompletionItem(text, type="file")


class Folder(Kind):
    """A folder that something is written to."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Leave it to the shell."""
        yield CompletionItem(text, type="dir")


class StoreFolder(Kind):
    """A store."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the stores that begin so, and folders to look further in."""
        yield from _folders_with(SAMPLES_FILE, text)
        yield CompletionItem(text, type="dir")


class Selector(Kind):
    """``STORE``, or tables of one as ``STORE:BACKBONE[/TAP[.POOLING]]``."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield stores, and the tables of the one that is named."""
        folder, colon, _ = text.rpartition(":")
        store = folder if colon else text
        if text and (Path(store) / SAMPLES_FILE).is_file():
            yield from _those((f"{store}:{name}" for name in table_patterns(Path(store))), text)
        if not colon:
            yield from _folders_with(SAMPLES_FILE, text)
            yield CompletionItem(text, type="dir")


class ResultFolder(Kind):
    """A folder that holds a result.

    Args:
        of: The analysis that must have made it; empty for any.
    """

    def __init__(self, of: str = "") -> None:
        self.of = of

    def to_info_dict(self) -> Any:
        """Describe it, with its analysis."""
        return {**super().to_info_dict(), "of": self.of}

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the results that begin so, and folders to look further in."""
        for item in _folders_with(RESULT_FILE, text):
            analysis = _analysis_of(Path(item.value) / RESULT_FILE)
            if self.of in ("", analysis):
                yield CompletionItem(item.value, help=analysis)
        yield CompletionItem(text, type="dir")


class Source(Kind):
    """Images: a folder, a CSV, a set of torchvision, or digits."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield what begins so."""
        from featkit_cli.remembered import data_sets

        if text.startswith("torchvision:"):
            yield from _those(data_sets(), text)
            return
        yield from _those(("digits", "torchvision:"), text)
        yield CompletionItem(text, type="file")


class BackboneSpec(Kind):
    """``[NAME=]BACKBONE``: a network by name, a file, or a run."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield what begins so; of names, when the library is named."""
        named, equals, rest = text.partition("=")
        before = named + equals if equals and not set(named) & set(":?/") else ""
        spec = rest if before else text
        kind = spec.partition(":")[0] + ":"
        found: Iterable[str] = (*_KINDS, *networks(()))
        if ":" in spec:
            found = networks((kind,)) if kind in _KINDS else ()
        else:
            yield from _folders_with(RUN_FILE, spec, before)
            yield CompletionItem(text, type="file")
        yield from _those((before + name for name in found), text)


def networks(kinds: Sequence[str]) -> list[str]:
    """Return the networks of some libraries by name; without any, those of our own."""
    if kinds == ("zoo:",):
        from featkit.backbones.zoo import list_zoo

        return [f"zoo:{entry.name}" for entry in list_zoo()]
    from featkit_cli.remembered import backbones

    wanted = kinds or ("",)
    return [name for name in backbones() if name[: name.find(":") + 1] in wanted]


class Tap(Kind):
    """``[BACKBONE/]PATH[:POOLING]``."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield poolings, and the taps that the store which is written to has."""
        path, colon, _ = text.partition(":")
        if colon:
            yield from _those((f"{path}:{pooling}" for pooling in POOLINGS), text)
            return
        yield from _those(dict.fromkeys(tap for _, tap, _ in _given_tables(ctx)), text)


class TapName(Kind):
    """A tap of the tables that are read, or ``all``."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the taps that the given stores have."""
        taps = dict.fromkeys(tap for _, tap, _ in _given_tables(ctx))
        yield from _those(("all", *taps), text)


class TableName(Kind):
    """``BACKBONE[/TAP[.POOLING]]`` of a store that is read."""

    def items(self, ctx: click.Context, param: click.Parameter, text: str) -> Iterator[Item]:  # noqa: ARG002
        """Yield the tables that the given stores have."""
        stores = _given_stores(ctx)
        yield from _those(dict.fromkeys(n for store in stores for n in table_patterns(store)), text)


def tables_of(store: Path) -> list[tuple[str, str, str]]:
    """Return backbone, tap and pooling of each table of a store, by the names of its files."""
    found = []
    for file in sorted(store.glob("[!.]*/*.h5")):
        tap, _, pooling = file.stem.rpartition(".")
        found.append((file.parent.name, tap, pooling))
    return found


def table_patterns(store: Path) -> list[str]:
    """Return what names tables of a store: backbones, and taps with poolings where they differ."""
    tables = tables_of(store)
    taps = [f"{backbone}/{tap}" for backbone, tap, _ in tables]
    names = [
        tap if taps.count(tap) == 1 else f"{tap}.{pooling}"
        for tap, (_, _, pooling) in zip(taps, tables, strict=True)
    ]
    return [*dict.fromkeys(backbone for backbone, _, _ in tables), *names]


def _given_stores(ctx: click.Context) -> list[Path]:
    """Return the stores among what was given before; click leaves some of it without a name."""
    stores = []
    for value in (*ctx.params.values(), *ctx.args):
        for text in (value,) if isinstance(value, str) else value or ():
            if isinstance(text, str):
                folders = (Path(text), Path(text.rpartition(":")[0]))
                stores += [f for f in folders if f.name and (f / SAMPLES_FILE).is_file()][:1]
    return stores


def _given_tables(ctx: click.Context) -> Iterator[tuple[str, str, str]]:
    for store in _given_stores(ctx):
        yield from tables_of(store)


def _those(words: Iterable[str], text: str) -> Iterator[Item]:
    return (CompletionItem(word) for word in words if word.startswith(text))


def _folders_with(file: str, text: str, before: str = "") -> Iterator[Item]:
    """Yield the folders whose path begins so and that hold a file of this name."""
    parent = text.rpartition("/")[0] + "/" * ("/" in text)
    try:
        entries = sorted(given_path(parent or ".").iterdir())
    except OSError:
        return
    for entry in entries:
        path = parent + entry.name
        if path.startswith(text) and (entry / file).is_file():
            yield CompletionItem(before + path)


def _analysis_of(file: Path) -> str:
    """Return the analysis of a ``result.json``, which begins with it."""
    with given_path(file).open("rb") as content:
        found = re.search(rb'"analysis": "([^"\\]*)"', content.read(300))
    return found[1].decode(errors="replace") if found else ""


CONCEPTS = Words(_CONCEPTS)
DEVICE = Words(("auto", "cpu", "cuda", "mps"))
