"""The ``featkit`` command: finds its subcommands, and turns errors into one line."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import sys
from collections.abc import Sequence
from functools import cache
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import NoReturn

import click

from featkit.errors import FeatkitError, UsageError
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
}


@cache
def analyses() -> dict[str, EntryPoint]:
    """Return every installed analysis by the name of its command.

    Raises:
        UsageError: Two packages offer the same name, or one offers a name of ours.
    """
    found: dict[str, EntryPoint] = {}
    for point in entry_points(group="featkit.analyses"):
        if point.name in COMMANDS or point.name in found:
            raise UsageError(
                f"analysis {point.name!r} of {point.value} has the name of another command; "
                f"uninstall one of their packages"
            )
        found[point.name] = point
    return found


def _summary(point: EntryPoint) -> str:
    """Read the first line of an analysis's docstring without importing it."""
    try:
        spec = importlib.util.find_spec(point.module)
    except ImportError:
        spec = None
    if spec is None or spec.origin is None:
        return f"(cannot be imported: {point.value})"
    tree = ast.parse(Path(spec.origin).read_text(encoding="utf-8"))
    for node in tree.body:
        if isinstance(node, ast.ClassDef) and node.name == point.attr:
            return (ast.get_docstring(node) or "").partition("\n")[0]
    return ""


class Commands(click.Group):
    """Subcommands that are imported when they are called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return the names, the way from images to answers first."""
        return [*COMMANDS, *sorted(analyses())]

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:  # noqa: ARG002
        """Import one command."""
        if cmd_name in COMMANDS:
            module, _, name = COMMANDS[cmd_name][0].partition(":")
            command: click.Command = getattr(importlib.import_module(module), name)
            return command
        if cmd_name in analyses():
            from featkit_cli.analysis import analysis_command

            return analysis_command(cmd_name, analyses()[cmd_name].load())
        return None

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
            formatter.write_dl([(n, _summary(analyses()[n])) for n in sorted(analyses())])


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
    given = list(sys.argv[1:] if arguments is None else arguments)
    debug = "--debug" in given
    given = [argument for argument in given if argument != "--debug"]
    try:
        with lasting_interrupts() as stop:
            cli.main(given, prog_name="featkit", standalone_mode=False)
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
    sys.exit(stop.exit_status)


def _explain(error: BaseException) -> int:
    """Say in one line what went wrong, and return the exit status."""
    if isinstance(error, FeatkitError):
        click.echo(f"featkit: {error}", err=True)
        return error.exit_status
    if isinstance(error, click.ClickException):
        hint = ""
        if isinstance(error, click.UsageError) and error.ctx is not None:
            hint = f" (see {error.ctx.command_path} --help)"
        click.echo(f"featkit: {error.format_message()}{hint}", err=True)
        return UsageError.exit_status
    if isinstance(error, BrokenPipeError):
        sys.stderr.close()
        return 0
    if isinstance(error, OSError):
        what = f"{error.filename or 'input/output'}: {error.strerror or error}"
    else:
        reason = (str(error).strip() or "no message").splitlines()[0]
        what = (
            f"unexpected {type(error).__name__}: {reason} (this is a bug in featkit; --debug shows "
            f"where)"
        )
    click.echo(f"featkit: {what}", err=True)
    return 1
