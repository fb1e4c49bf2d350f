"""Make a command of any analysis: arguments from its inputs, options from its ``Config``."""

from __future__ import annotations

import dataclasses
import types
from collections.abc import Container, Mapping, Sequence
from contextlib import nullcontext
from itertools import chain
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

import click

from featkit.analyses.base import Analysis, Input, Result, check_requirements, result_folder
from featkit.progress import clock
from featkit.store.reader import FeatureTable, open_store
from featkit.store.selectors import split_selector
from featkit_cli.kinds import CommaSeparated, Folder, ResultFolder, Selector, TableName, TapName
from featkit_cli.render import counted, note, table_text, value_text


def _click_type(annotation: Any) -> Any:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return click.Choice([str(choice) for choice in arguments])
    if origin is tuple:
        return CommaSeparated(_click_type(arguments[0]))
    if origin in (Union, types.UnionType):
        return _click_type(next(a for a in arguments if a is not type(None)))
    return click.types.convert_type(annotation)


_NAMED = {"taps": CommaSeparated(TapName()), "features": CommaSeparated(TableName())}
"""Fields that name parts of the tables which are read."""


def options(
    config: type[Any],
    defaults: Mapping[str, Any] | None = None,
    without: Container[str] = (),
) -> list[click.Option]:
    """Return an option for each field of a ``Config``.

    Args:
        config: A frozen dataclass.
        defaults: What goes before those of its fields.
        without: Fields that are no options.
    """
    hints = get_type_hints(config)
    made = []
    for field in dataclasses.fields(config):
        if field.name in without:
            continue
        flag = "--" + field.name.replace("_", "-")
        help_text = field.metadata.get("help", "")
        default: Any = (defaults or {}).get(field.name, field.default)
        if field.metadata.get("source") and default == field.default:
            help_text += f" [{field.metadata['source']}]"
        if hints[field.name] is bool:
            made.append(click.Option([f"{flag}/--no-{flag[2:]}"], default=default, help=help_text))
            continue
        kind = _NAMED.get(field.name) or _click_type(hints[field.name])
        several = isinstance(default, tuple)
        if several:
            default = [",".join(map(str, default))] if default else []
        shown = default not in ("", [], None)
        made.append(
            click.Option(
                [flag], type=kind, default=default, help=help_text, show_default=shown,
                multiple=several, callback=_joined if several else None,
            )
        )  # fmt: skip
    return made


def _joined(ctx: click.Context, param: click.Parameter, given: tuple[Any, ...]) -> tuple[Any, ...]:  # noqa: ARG001
    """Join the lists of an option that was given several times."""
    return tuple(chain.from_iterable(given))


def _read(asked: Input, given: Sequence[str], vectors: bool) -> tuple[list[Any], list[str]]:
    """Return what selectors or folders name, and notes on what is left out.

    Args:
        asked: Whether tables or results are meant.
        given: Selectors, or folders.
        vectors: Whether only rows of numbers are of use; a selector that names no tap then means
            those, if there are any.
    """
    if asked.of != "tables":
        return [Result.load(folder, asked.of) for folder in given], []
    tables: list[FeatureTable] = []
    notes = []
    for selector in given:
        folder, pattern = split_selector(selector)
        found = open_store(folder).select(pattern)
        rows = [table for table in found if len(table.shape) == 2]
        if vectors and rows and "/" not in (pattern or ""):
            if len(rows) < len(found):
                left = counted(len(found) - len(rows), "table")
                notes.append(f"{selector}: {left} of maps or tokens left out")
            found = rows
        tables += found
    return tables, notes


def _argument(given: Input) -> click.Parameter:
    name = given.name.lower()
    kind = Selector() if given.of == "tables" else ResultFolder(given.of)
    if given.optional:
        return click.Option([f"--{name}"], type=kind, metavar=given.name, help=given.help)
    return click.Argument(
        [name],
        type=kind,
        metavar=f"{given.name}..." if given.several else given.name,
        nargs=-1 if given.several else 1,
        required=True,
    )


def analysis_command(name: str, analysis: type[Analysis]) -> click.Command:
    """Return the command ``featkit NAME`` of an analysis."""
    parameters: list[click.Parameter] = [_argument(given) for given in analysis.inputs]
    parameters += options(analysis.Config)
    parameters += [
        click.Option(
            ["-o", "--output"],
            type=Folder(),
            metavar="DIR",
            help="Save result.json, CSV, arrays.h5 and figures here.",
        ),
        click.Option(["--json", "as_json"], is_flag=True, help="Print result.json, nothing else."),
    ]

    def callback(output: str | None, as_json: bool, **given: Any) -> None:
        with nullcontext() if output is None else result_folder(output, name):
            _answer(name, analysis, given, output, as_json)

    lines = [f"{i.name}: {i.help}" for i in analysis.inputs if not i.optional]
    text = f"{analysis.__doc__ or ''}".partition("\n\n")[0] + "\n\n\b\n" + "\n".join(lines)
    return click.Command(name, params=parameters, callback=callback, help=text)


def _answer(
    name: str,
    analysis: type[Analysis],
    given: Mapping[str, Any],
    output: str | None,
    as_json: bool,
) -> None:
    """Run an analysis as its options say, and show what it found."""
    config = analysis.Config(
        **{field.name: given[field.name] for field in dataclasses.fields(analysis.Config)}
    )
    requires = analysis.requires
    if getattr(config, "taps", ()):
        requires -= {"vectors"}  # maps of these taps are made vectors
    inputs, notes = {}, []
    for asked in analysis.inputs:
        selected = given[asked.name.lower()]
        selectors = [selected] if isinstance(selected, str) else selected or ()
        if selectors:
            found, left_out = _read(asked, selectors, "vectors" in requires)
            inputs[asked.name.lower()] = found
            notes += left_out
    tables = {i.name.lower() for i in analysis.inputs if i.of == "tables"}
    check_requirements(requires, {name: given for name, given in inputs.items() if name in tables})
    with clock(name):
        result = analysis(config).run(inputs)
    result.notes += dict.fromkeys(notes)
    show_result(result, output, as_json)


def show_result(
    result: Result,
    output: str | None,
    as_json: bool,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Print a result, and save it with its figures where asked.

    Args:
        result: What was found.
        output: Folder, or None.
        as_json: Whether to print ``result.json`` and nothing else.
        shown: Rows to print; None for what the result names.
    """
    if output is not None:
        save_result(result, output)
    print_result(result, output, as_json, shown)


def save_result(result: Result, output: str) -> None:
    """Save a result with its figures."""
    from featkit.report.figures import draw_figures

    result.save(output)
    draw_figures(result, output)


def print_result(
    result: Result,
    output: str | None,
    as_json: bool,
    shown: Sequence[Mapping[str, Any]] | None = None,
) -> None:
    """Print a result that was saved in a folder, or in none; see :func:`show_result`."""
    for text in result.notes:
        note(text)
    if as_json:
        click.echo(result.to_json(), nl=False)
        return
    first: Mapping[str, tuple[str, ...]] = dict.fromkeys(list(result.tables)[:1], ())
    texts = [
        table_text(
            [{name: row.get(name) for name in columns or row} for row in result.tables[table]]
        )
        for table, columns in (result.shown or first).items()
        if result.tables.get(table)
    ]
    if shown is not None:
        texts = [table_text(shown)] if shown else []
    if texts:
        click.echo("\n\n".join(texts))
    scalars = [f"{name.replace('_', ' ')} {value_text(v)}" for name, v in result.scalars.items()]
    if scalars:
        click.echo("\n" + ", ".join(scalars))
    if output is not None:
        click.echo(
            f"saved in {output}: result.json, tables, {counted(len(result.figures), 'figure')}"
        )
