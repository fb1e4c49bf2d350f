"""``featkit ensemble-fit`` and ``ensemble-transform``: one representation for several models."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from featkit.analyses.ensemble.representation import PRESETS, EnsembleRepresentation
from featkit.analyses.ensemble.settings import Settings
from featkit.analyses.ensemble.study import StudyConfig
from featkit.parallel.group import is_first
from featkit_cli.analysis import options, print_result
from featkit_cli.kinds import CommaSeparated, Folder, Selector, StoreFolder, TableName
from featkit_cli.ranks import DEVICES, done_by_others
from featkit_cli.render import AS_JSON, note, print_json

if TYPE_CHECKING:
    from featkit.analyses.base import Result

FIT_EXAMPLES = """\b
Examples:
  featkit ensemble-fit train --test test -o four
  featkit ensemble-fit train --features resnet20/avgpool,resnet56/avgpool -o two --preset paper

Sections are of Wallace et al. 2021, arXiv:2110.10293.
"""


@click.command("ensemble-fit", epilog=FIT_EXAMPLES)
@click.argument("train", type=Selector())
@click.option(
    "--test", type=StoreFolder(), metavar="STORE", help="Other images, of the same backbones."
)
@click.option(
    "--features",
    type=CommaSeparated(TableName()),
    default="",
    metavar="TABLE,…",
    help="BACKBONE[/TAP[.POOLING]] of each model. Default: every table of vectors but ensembles.",
)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    metavar="DIR",
    help="Folder for model and result.",
)
@click.option("--name", help="ψ is stored as backbone ensemble-NAME. Default: name of DIR.")
@click.option(
    "--preset",
    type=click.Choice(list(PRESETS)),
    default="paper-stable",
    show_default=True,
    help="Settings to start from; the defaults below are those of paper-stable.",
)
@click.option("--overwrite", is_flag=True, help="Replace an ensemble in DIR, and its tables.")
@click.option(
    "--max-memory",
    type=float,
    metavar="GB",
    help="Of ψ and its optimizer; what is more lies in mapped files in DIR. Default: no bound.",
)
@click.option("--quiet", is_flag=True, help="No progress bar.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json, nothing else.")
def ensemble_fit(
    train: str,
    test: str | None,
    features: tuple[str, ...],
    output: str,
    name: str | None,
    preset: str,
    overwrite: bool,
    max_memory: float | None,
    quiet: bool,
    as_json: bool,
    devices: int | None,
    num_nodes: int | None,
    **given: Any,
) -> None:
    """Learn one representation of the images of TRAIN, from which every model can be recovered.

    It is written back into TRAIN and the store of --test, where every analysis can read it.
    """
    from featkit.analyses.ensemble.run import fit_ensemble
    from featkit.errors import UsageError
    from featkit.report.figures import draw_figures
    from featkit.store.reader import open_store
    from featkit.store.selectors import split_selector

    if done_by_others(devices, num_nodes):
        return
    source_of = click.get_current_context().get_parameter_source
    folder, pattern = split_selector(train)
    if pattern is not None and features:
        raise UsageError(f"{train}: names tables, and so does --features; give one of them")
    if test is not None and split_selector(test)[1] is not None:
        raise UsageError(f"--test {test}: give the store alone; its tables are those of TRAIN")
    judged = {field: given.pop(field) for field in ("k", "linear")}
    changes = {
        field: value
        for field, value in given.items()
        if source_of(field) is not ParameterSource.DEFAULT
    }
    ensemble = EnsembleRepresentation.from_preset(
        preset, verbose=not quiet, max_memory=max_memory, **changes
    )
    result = fit_ensemble(
        open_store(folder),
        output,
        ensemble,
        test=open_store(test) if test is not None else None,
        features=features or ((pattern,) if pattern is not None else ()),
        name=name,
        config=StudyConfig(**judged),
        overwrite=overwrite,
        draw=draw_figures,
    )
    if not is_first():
        return
    print_result(result, output, as_json, _accuracy_by_k(result))
    if not as_json:
        command = ["ls", str(folder)]
        if result.tables["knn"]:
            click.echo("* the ensemble is better, ° worse (paired test, 5 %)")
            backbone = result.provenance["table"].partition("/")[0]
            command = ["knn", *(f"{side}:{backbone}" for side in (folder, test or folder))]
        click.echo(f"next: featkit {shlex.join(command)}")


ensemble_fit.params += [*DEVICES, *options(StudyConfig), *options(Settings)]


def _accuracy_by_k(result: Result) -> list[dict[str, Any]]:
    """A row a set of features, a column a k; * where ψ is better, ° where it is worse."""
    rows: dict[str, dict[str, Any]] = {}
    ours = {row["k"]: row["top1"] for row in result.tables["knn"] if row["features"] == "ensemble"}
    for found in result.tables["knn"]:
        differs = found["p"] is not None and found["p"] < 0.05
        mark = ("*" if ours[found["k"]] > found["top1"] else "°") if differs else " "
        row = rows.setdefault(found["features"], {"features": found["features"]})
        row[f"k = {found['k']}"] = f"{found['top1']:.3f}{mark}"
    return list(rows.values())


@click.command("ensemble-transform")
@click.argument("folder", type=Folder(), metavar="DIR")
@click.argument("store", type=StoreFolder())
@click.option("--name", help="Store ψ as backbone ensemble-NAME. Default: the ensemble's.")
@click.option("--overwrite", is_flag=True, help="Replace a table of this name.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@AS_JSON
def ensemble_transform(
    folder: str,
    store: str,
    name: str | None,
    overwrite: bool,
    quiet: bool,
    devices: int | None,
    num_nodes: int | None,
    as_json: bool,
) -> None:
    """Find the representation of the images of STORE by the ensemble in DIR, and store it."""
    if done_by_others(devices, num_nodes):
        return
    from featkit.analyses.ensemble.run import transform_store
    from featkit.store.reader import open_store

    opened = open_store(store)
    table, was_there = transform_store(folder, opened, name, not quiet, overwrite)
    if as_json:
        shape_of = list(opened[table].shape)
        said = {"store": store, "table": table, "shape": shape_of, "was_there": was_there}
        print_json("ensemble-transform", said)
        return
    shape = " × ".join(f"{size:,}" for size in opened[table].shape)
    click.echo(f"{store}:{table}  {shape}{'  was there' * was_there}")
    note(f"read it as {shlex.quote(f'{store}:{table}')} in any analysis")


ensemble_transform.params += DEVICES
