"""``featkit train``: a network of one's own, which is a backbone afterwards."""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource
from click.shell_completion import CompletionItem

from featkit.parallel.group import is_first
from featkit.registry import did_you_mean
from featkit_cli.analysis import options, print_result, show_result
from featkit_cli.kinds import DEVICE, Folder, Source
from featkit_cli.ranks import DEVICES, done_by_others

if TYPE_CHECKING:
    from featkit.analyses.base import Result

METHODS = {
    "deepcluster": "Train by the clusters of the network's own features, made anew every cycle.",
    "simclr": "Contrast two views of each image with those of all others.",
    "treenet": "Train separate pathways by the moving average of what they say together.",
}
"""Methods of :data:`featkit.trainers.training.METHODS`, and what their help begins with."""

_SHOWN = 10
"""Epochs or cycles that a terminal shows."""

EXAMPLES = """\b
Examples:
  featkit train {name} photos/ -o run --preset cpu
  featkit train {name} photos/ -o run {given}
  featkit extract photos/ -b run -b 'run?epoch=10' -o features

Sections are of {source}.
"""

_SAID = {
    "deepcluster": {
        "given": "--arch alexnet32 --clusters 100 --cycles 30 --halt 20",
        "source": "Mustapha, Unsupervised deep learning: inter-model interpretation and deep\n"
        "clustering",
    },
    "simclr": {
        "given": "--size 224 --arch resnet50 --blur 0.5",
        "source": "Malviya and Sudhakar, Feature diversity in self-supervised learning",
    },
    "treenet": {
        "given": "--leaves 48 --patience 5",
        "source": "Grant, Dias, Kulkarni, Spontaneous decomposition from grouped network pathways",
    },
}
"""What the end of its help says of each method."""


_SURVEY = click.Option(
    ["--survey"],
    type=click.IntRange(1),
    metavar="N",
    help="Train nothing: describe N untrained networks, with and without sobel where both are "
    "there, by how their clusters align with labels and by scores that need none. RUN is then the "
    "folder of a result, and options of training mean nothing.",
)


class Methods(click.Group):
    """A subcommand for each method, made when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:  # noqa: ARG002
        """Return their names."""
        return list(METHODS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """Make the command of one method; for a shell that completes, read what it was like."""
        if cmd_name not in METHODS:
            return None
        if ctx.resilient_parsing:
            from featkit_cli.remembered import remembered_command

            make = partial(_command, cmd_name)
            return remembered_command(f"train {cmd_name}", "featkit_cli", make)
        return _command(cmd_name)

    def shell_complete(self, ctx: click.Context, incomplete: str) -> list[Any]:
        """Return the methods that begin so, with what they do, without importing them."""
        found = [name for name in METHODS if name.startswith(incomplete)]
        return [CompletionItem(name, help=METHODS[name]) for name in found] + super(
            click.Group, self
        ).shell_complete(ctx, incomplete)

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """Find the method, or say which one was meant."""
        if args and args[0] not in METHODS:
            raise click.UsageError(f"no method {args[0]!r}: {did_you_mean(args[0], METHODS)}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:  # noqa: ARG002
        """Write the list of methods without importing them."""
        with formatter.section("Methods"):
            formatter.write_dl(list(METHODS.items()))


@click.group(cls=Methods, subcommand_metavar="METHOD [ARGS]...")
def train() -> None:
    """Train a network of your own.

    RUN is a backbone afterwards, for every command. A training that was stopped, however, goes on
    when the same command runs again.
    """


def _command(name: str) -> click.Command:
    from featkit.trainers.settings import Training
    from featkit.trainers.training import decided, find_method

    method = find_method(name)
    presets = click.Choice(list(method.presets))
    survey = [_SURVEY] if name == "deepcluster" else []
    parameters: list[click.Parameter] = [
        click.Argument(["source"], type=Source()),
        click.Option(
            ["-o", "--output"],
            type=Folder(),
            required=True,
            metavar="RUN",
            help="Folder of the run.",
        ),
        click.Option(
            ["--preset"],
            type=presets,
            default="paper",
            show_default=True,
            help="Settings to start from; the defaults below are those of paper. cpu takes minutes "
            "on a few cores, tiny seconds.",
        ),
        *survey,
        *options(method.Config),
        *options(Training, method.presets["paper"], without=decided(method)),
        click.Option(
            ["--device"],
            type=DEVICE,
            default="auto",
            show_default=True,
            help="auto, cpu, cuda, mps.",
        ),
        click.Option(["--workers"], type=int, help="Decoding processes. Default: by device."),
        *DEVICES,
        click.Option(["--overwrite"], is_flag=True, help="Start again where a training is."),
        click.Option(["--quiet"], is_flag=True, help="No progress bar."),
        click.Option(["--json", "as_json"], is_flag=True, help="Print result.json, nothing else."),
    ]

    def callback(
        source: str, output: str, preset: str, quiet: bool, as_json: bool, **given: Any
    ) -> None:
        from featkit.analyses.base import RESULT_FILE
        from featkit.trainers.training import train as run_training

        starts = given.pop("survey", None)
        devices, num_nodes = given.pop("devices"), given.pop("num_nodes")
        if starts is None and done_by_others(devices, num_nodes, given["device"]):
            return
        fixed = {name: given.pop(name) for name in ("device", "workers", "overwrite")}
        source_of = click.get_current_context().get_parameter_source
        changes = {n: v for n, v in given.items() if source_of(n) is not ParameterSource.DEFAULT}
        options = {"preset": preset, "progress": not quiet, **fixed, **changes}
        if starts is not None:
            if (devices, num_nodes) != (None, None):
                raise click.UsageError("--devices is for trainings, and --survey trains nothing")
            _survey(source, output, starts, as_json, options)
            return
        result = run_training(name, source, output, draw=_draw, **options)
        if not is_first():
            return
        had_finished = bool(result.origin)
        if had_finished and as_json:
            click.echo((Path(output) / RESULT_FILE).read_text("utf-8"), nl=False)
            return
        folder = None if had_finished else output
        print_result(result, folder, as_json, _shown(result.tables))
        if not as_json:
            click.echo(f"next: featkit extract {shlex.join([source, '-b', output])} -o features")

    return click.Command(
        name,
        params=parameters,
        callback=callback,
        help=f"{(method.__doc__ or '').strip()}\n\nOf images with labels some are held out, and "
        "judged by their neighbours every few epochs.",
        epilog=EXAMPLES.format(name=name, **_SAID[name]),
    )


def _draw(result: Result, folder: Path) -> None:
    from featkit.report.figures import draw_figures  # when a training has ended

    draw_figures(result, folder)


def _survey(source: str, output: str, starts: int, as_json: bool, options: dict[str, Any]) -> None:
    from featkit.analyses.base import result_folder
    from featkit.backbones.training_runs import is_run
    from featkit.trainers.alignment import SURVEY, survey
    from featkit.trainers.training import check_outside

    if options.pop("overwrite"):
        raise click.UsageError("--overwrite is for trainings, and --survey trains nothing")
    if is_run(Path(output)):
        raise click.UsageError(f"{output} holds a training: give another folder")
    check_outside(source, Path(output))
    with result_folder(output, SURVEY):
        show_result(survey(source, starts, **options), output, as_json)


_OF_EPOCHS: tuple[str, ...] = ("epoch", "loss", "lr", "knn_top1")
_OF_CYCLES: tuple[str, ...] = ("cycle", "loss", "clusters", "nmi_previous", "nmi_labels")


def _shown(tables: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Return what a terminal shows: of cycles or of judged epochs, the first and the latest."""
    rows, columns = tables.get("cycles", ()), _OF_CYCLES
    if not rows:
        rows = [row for row in tables["epochs"] if row["knn_top1"] is not None] or tables["epochs"]
        columns = _OF_EPOCHS
    chosen = rows if len(rows) <= _SHOWN else [rows[0], *rows[1 - _SHOWN :]]
    return [{name: row[name] for name in columns} for row in chosen]
