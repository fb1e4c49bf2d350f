"""The ``featkit`` command: finds its subcommands, and turns errors into one line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import os
import re
import sys
from collections.abc import Sequence
from functools import cache, partial
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NoReturn, cast

import click
from click.shell_completion import CompletionItem

from featkit.errors import FeatkitError, UsageError, one_line
from featkit.registry import did_you_mean
from featkit_cli.interrupts import Stop, lasting_interrupts

COMMANDS = {
    "extract": ("featkit_cli.extract:extract", "Run images through backbones into a store."),
    "layers": ("featkit_cli.layers:layers", "List what can be tapped in a backbone."),
    "backbones": ("featkit_cli.backbones:backbones", "Find backbones by name."),
    "ensemble-fit": (
        "featkit_cli.ensemble:ensemble_fit",
        "Learn one representation for several models.",
    ),
    "ensemble-transform": (
        "featkit_cli.ensemble:ensemble_transform",
        "Find that representation of other images.",
    ),
    "train": ("featkit_cli.train:train", "Train a network of your own."),
    "dissect": ("featkit_cli.dissect:dissect", "Find which concepts the units detect."),
    "saliency": ("featkit_cli.saliency:saliency", "Find which pixels the leaves look at."),
    "ls": ("featkit_cli.ls:ls", "List the tables of a store."),
    "verify": ("featkit_cli.verify:verify", "Check every byte of a store."),
    "export": ("featkit_cli.export:export", "Write a store as npz, parquet or one HDF5 file."),
    "demo": ("featkit_cli.demo:demo", "See it all work, without a network."),
    "report": ("featkit_cli.report:report", "Write one page of any results."),
    "schema": ("featkit_cli.schema:schema", "Say what --json prints, as a JSON Schema."),
    "completion": ("featkit_cli.completion:completion", "Write what makes Tab complete commands."),
}


LITTLE = 2**28
"""Bytes of free memory below which what fails without a reason has failed for want of it."""


@cache
def analyses() -> dict[str, list[EntryPoint]]:
    """Return every installed analysis by its name; more than one where packages do not agree."""
    found: dict[str, list[EntryPoint]] = {}
    for point in entry_points(group="featkit.analyses"):
        found.setdefault(point.name, []).append(point)
    return found


def known_commands() -> list[str]:
    """Return the names of all commands, the way from images to answers first."""
    return [*COMMANDS, *sorted(set(analyses()) - set(COMMANDS))]


def summary(command: str) -> str:
    """Return what a command does, in a line, without importing it."""
    return COMMANDS[command][1] if command in COMMANDS else _summary(analyses()[command])


def _load(name: str) -> type[Any]:
    """Import an analysis.

    Raises:
        UsageError: Two packages offer one of this name.
        FeatkitError: It cannot be imported.
    """
    point, *others = analyses()[name]
    if others:
        raise UsageError(f"analysis {name!r}: {_clash(analyses()[name])}")
    try:
        return cast("type[Any]", point.load())
    except Exception as error:
        package = point.dist.name if point.dist is not None else point.module
        raise FeatkitError(
            f"analysis {name!r} of the package {package} cannot be imported "
            f"({type(error).__name__}: {one_line(error, 200)}); repair or uninstall it"
        ) from error


def _clash(points: Sequence[EntryPoint]) -> str:
    values = " and ".join(point.value for point in points)
    return f"offered by {values}; uninstall one of their packages"


def _summary(points: Sequence[EntryPoint]) -> str:
    """Read the first line of an analysis's docstring without importing it."""
    if len(points) > 1:
        return f"({_clash(points)})"
    (point,) = points
    try:
        spec = importlib.util.find_spec(point.module)
        tree = ast.parse(Path(spec.origin or "").read_bytes()) if spec else None
    except Exception:  # noqa: BLE001 - a package of someone else may raise anything
        tree = None
    if tree is None:
        return f"(cannot be imported: {point.value})"
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


def _command(name: str) -> click.Command:
    if name not in COMMANDS:
        from featkit_cli.analysis import analysis_command

        return analysis_command(name, _load(name))
    module, _, attribute = COMMANDS[name][0].partition(":")
    command: click.Command = getattr(importlib.import_module(module), attribute)
    return command


def _listed(name: str) -> str:
    """What the list of analyses says; one that has the name of a command of ours is left out."""
    if name not in COMMANDS:
        return summary(name)
    return f"(left out: it has the name of a command; {_clash(analyses()[name])})"


class Commands(click.Group):
    """Subcommands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, the way from images to answers first."""
        return known_commands()

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Import one command; for a shell that completes, read what it was like."""
        if cmd_name not in COMMANDS and cmd_name not in analyses():
            return None
        if ctx.resilient_parsing and cmd_name != "train":
            from featkit_cli.remembered import remembered_command

            package = "featkit_cli"
            if cmd_name not in COMMANDS:
                package = analyses()[cmd_name][0].module.partition(".")[0]
            return remembered_command(cmd_name, package, partial(_command, cmd_name))
        return _command(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the names that begin so, with what they do, without importing them."""
        found = [name for name in known_commands() if name.startswith(incomplete)]
        return [CompletionItem(name, help=summary(name)) for name in found] + super(
            click.Group, self
        ).shell_complete(ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the command, or say which one was meant."""
        known = self.list_commands(ctx)
        if args and args[0] not in known:
            raise click.UsageError(f"no command {args[0]!r}: {did_you_mean(args[0], known)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of commands without importing them."""
        with formatter.section("Stores"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])
        with formatter.section("Analyses"):
            formatter.write_dl([(name, _listed(name)) for name in sorted(analyses())])


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="featkit", message="featkit %(version)s")
def cli() -> None:
    """Analyse the features of pretrained vision backbones.

    Every image goes through every network once; the activations lie in a store; every question is
    answered from there. Try: featkit demo

    --debug with any command shows the traceback of an error.
    """


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit.

    0: done, 1: failed, 2: cannot be done as asked, 130: stopped by Ctrl-C, 143: by SIGTERM.
    """
    if "_FEATKIT_COMPLETE" in os.environ:
        from featkit_cli.completion import complete

        complete(cli)
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with lasting_interrupts() as stop:
            cli.main(given, prog_name="featkit", standalone_mode=False, obj=given)
    except BaseException as error:
        if stop.number is not None or isinstance(error, KeyboardInterrupt | click.Abort):
            _leave_stopped(given, stop)
        if debug or isinstance(error, SystemExit):
            raise
        sys.exit(_explain(error))
    sys.exit(0)


def _leave_stopped(given: Sequence[str], stop: Stop) -> NoReturn:
    """Say whether the same command goes on, and exit."""
    goes_on = given[:1] in (["extract"], ["demo"], ["ensemble-fit"])
    goes_on |= given[:1] == ["train"] and not {"--overwrite", "--survey"} & set(given)
    what = "goes on from here" if goes_on else "begins again"
    click.echo(f"featkit: stopped; the same command {what}", err=True)
    # an interrupt that has passed through code made of text, as that of a dataclass, would have
    # ``python -m`` end by the signal; Python forgets it with the next such code
    exec("")  # noqa: S102
    sys.exit(stop.exit_status)


def _lacks_memory(error: BaseException) -> bool:
    """Whether an error means that there is no memory: Python's, torch's, CUDA's, or oneDNN's.

    oneDNN does not say why it cannot go on.
    """
    said = str(error)
    if isinstance(error, MemoryError) or re.search("an(no|')t allocate memory", said):
        return True
    if "could not create a primitive" in said:
        from featkit.ops.free_memory import free_memory

        return free_memory() < LITTLE
    return type(error).__name__ == "OutOfMemoryError"


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong, and return the exit status."""
    if isinstance(error, FeatkitError):
        click.echo(f"featkit: {error}", err=True)
        return error.exit_status
    if isinstance(error, click.ClickException):
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        click.echo(f"featkit: {one_line(error.format_message(), 2000)}{hint}", err=True)
        return UsageError.exit_status
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return 0
    if isinstance(error, OSError):
        what = f"{error.filename or 'input/output'}: {error.strerror or error}"
    elif _lacks_memory(error):
        what = (
            "no memory is left for this process: give it more, or bound what the command holds "
            "(--max-memory, where it is an option)"
        )
    else:
        reason = (str(error).strip() or "no message").splitlines()[0]
        what = (
            f"unexpected {type(error).__name__}: {reason} (this is a bug in featkit; --debug shows "
            f"where)"
        )
    click.echo(f"featkit: {what}", err=True)
    return 1
