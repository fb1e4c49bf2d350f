"""``featkit extract``: images through backbones into a store."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from featkit_cli.kinds import DEVICE, BackboneSpec, Source, StoreFolder, Tap, Words
from featkit_cli.ranks import DEVICES, done_by_others
from featkit_cli.render import AS_JSON, counted, duration, note, print_json, table_text

if TYPE_CHECKING:
    from featkit.extraction.pipeline import Summary
    from featkit.extraction.planning import Plan
    from featkit.store.reader import Store
    from featkit.store.writer import TableSpec

EXAMPLES = """\b
Examples:
  featkit extract photos/ -b torchvision:resnet50 -o features
  featkit extract photos/ -b timm:vit_small_patch16_224 --tap blocks.11:cls -o features
  featkit extract digits -b offline:efficientnet_lite0 -b offline:efficientnet_lite1 -o digits
"""


@click.command(epilog=EXAMPLES)
@click.argument("source", type=Source())
@click.option(
    "-b",
    "--backbone",
    "backbones",
    type=BackboneSpec(),
    multiple=True,
    required=True,
    metavar="[NAME=]BACKBONE",
    help="torchvision:NAME, timm:NAME, hf:OWNER/REPO[/FILE], offline:NAME, or FILE?arch=NAME. "
    "Repeatable.",
)
@click.option(
    "-o",
    "--output",
    "store",
    type=StoreFolder(),
    required=True,
    metavar="STORE",
    help="Folder to fill.",
)
@click.option(
    "--tap",
    "taps",
    type=Tap(),
    multiple=True,
    metavar="[BACKBONE/]PATH[:POOLING]",
    help="Module to read, pooled by avg, max, cls, flatten, none, or avgKsSpP: means of K x K "
    "positions, S apart, P zeros around. Default: what the classifier reads. Repeatable.",
)
@click.option(
    "--precision",
    type=Words(("auto", "fp32", "bf16", "fp16")),
    default="auto",
    show_default=True,
    metavar="auto|fp32|bf16|fp16",
    help="Number format of the forward; auto takes the fastest that agrees with fp32.",
)
@click.option(
    "--dtype",
    type=Words(("float32", "float16")),
    default="float32",
    show_default=True,
    metavar="float32|float16",
    help="Stored type.",
)
@click.option("--batch-size", type=int, default=32, show_default=True, help="Images at a time.")
@click.option("--workers", type=int, help="Decoding processes; 0 for none. Default: by device.")
@click.option(
    "--device", type=DEVICE, default="auto", show_default=True, help="auto, cpu, cuda, mps."
)
@click.option("--compile", "compiled", is_flag=True, help="Run through torch.compile.")
@click.option(
    "--on-error",
    type=click.Choice(["skip", "fail"]),
    default="skip",
    show_default=True,
    help="What to do with an image that cannot be read.",
)
@click.option("--overwrite", is_flag=True, help="Make tables anew that are there already.")
@click.option("--dry-run", is_flag=True, help="Only say what would be written.")
@click.option("--quiet", is_flag=True, help="No progress bar.")
@AS_JSON
def extract(
    source: str,
    backbones: tuple[str, ...],
    store: str,
    taps: tuple[str, ...],
    compiled: bool,
    on_error: str,
    dry_run: bool,
    quiet: bool,
    devices: int | None,
    num_nodes: int | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Run every image of SOURCE through every backbone once, and keep the activations.

    SOURCE is a folder of images (class subfolders become labels), a CSV with path[,label],
    torchvision:CIFAR10/train?root=DIR, or digits. A run that was stopped goes on where it was.
    """
    from featkit.backbones.resolve import load_backbone
    from featkit.data.sources import open_source
    from featkit.extraction.pipeline import run_plan
    from featkit.extraction.planning import Options, plan_extraction

    asked = (None, None) if dry_run else (devices, num_nodes)
    if done_by_others(*asked, options["device"]):
        return
    chosen = Options(compiled=compiled, fail_fast=on_error == "fail", **options)
    images = open_source(source)
    loaded = [load_backbone(text) for text in backbones]
    plan = plan_extraction(images, loaded, Path(store), taps, chosen, progress=not quiet)
    for text in plan.notes:
        note(text)
    said = len(plan.notes)
    if dry_run:
        if as_json:
            plan.check_disk()
            _print_json(plan, None)
        else:
            _show_plan(plan)
        return
    summary = run_plan(plan, progress=not quiet)
    for text in summary.notes[said:]:
        note(text)
    if as_json:
        _check_any_read(plan, summary)
        _print_json(plan, summary)
    else:
        _show_summary(plan, summary)


def _print_json(plan: Plan, summary: Summary | None) -> None:
    """Print what was done, or, without a summary, what would be."""
    said = {
        "store": str(plan.store),
        "dry_run": summary is None,
        "samples": len(plan.samples),
        "images": 0 if summary is None else summary.images,
        "seconds": 0.0 if summary is None else summary.seconds,
        "tables": [_described(plan, spec, summary is not None) for spec in plan.asked],
        "failures": dict(summary.failures) if summary is not None else {},
        "notes": plan.notes if summary is None else summary.notes,
    }
    print_json("extract", said)


def _described(plan: Plan, spec: TableSpec, is_there: bool) -> dict[str, Any]:
    from featkit.store.reader import open_store

    precision = spec.provenance.get("precision")
    if is_there:
        precision = open_store(plan.store)[spec.name].provenance["precision"]
    return {
        "table": spec.name,
        "shape": [spec.rows, *spec.row_shape],
        "dtype": spec.dtype,
        "precision": precision,
        "bytes": spec.nbytes,
        "was_there": spec.name in plan.finished,
    }


def _check_any_read(plan: Plan, summary: Summary) -> None:
    from featkit.errors import SourceError

    count = len(plan.samples)
    if len(summary.failures) == count:
        raise SourceError(f"none of the {counted(count, 'image')} could be read")


extract.params += DEVICES


def _show_plan(plan: Plan) -> None:
    from featkit.store.files import free_bytes, size_text

    rows = [
        {
            "table": spec.name,
            "rows × dims × dtype": f"{spec.rows:,} × "
            f"{' × '.join(map(str, spec.row_shape))} × {spec.dtype}",
            "size": size_text(spec.nbytes),
            "": "is there" if spec.name in plan.finished else "",
        }
        for spec in plan.asked
    ]
    click.echo(table_text(rows))
    total = sum(spec.nbytes for spec in plan.pending)
    click.echo(
        f"\nto write: {size_text(total)}; free at {plan.store}: {size_text(free_bytes(plan.store))}"
    )
    plan.check_disk()


def _show_summary(plan: Plan, summary: Summary) -> None:
    from featkit.store.files import size_text
    from featkit.store.reader import open_store

    store = open_store(plan.store)
    rows = []
    for spec in plan.asked:
        table = store[spec.name]
        rows.append(
            {
                "table": table.name,
                "shape": " × ".join(f"{size:,}" for size in table.shape),
                "dtype": str(table.dtype),
                "precision": table.provenance["precision"],
                "size": size_text(spec.nbytes),
                "": "was there" if spec.name in plan.finished else "",
            }
        )
    click.echo(table_text(rows))
    if summary.failures:
        click.echo(
            f"\n{len(summary.failures):,} of {counted(len(store), 'image')} could not be read:"
        )
        for path, reason in list(summary.failures.items())[:10]:
            click.echo(f"  {path}: {reason}")
        if len(summary.failures) > 10:
            click.echo(f"  … featkit verify {plan.store} lists all")
    if summary.images:
        rate = summary.images / summary.seconds
        click.echo(
            f"\n{counted(summary.images, 'image')} in {duration(summary.seconds)} "
            f"({rate:,.0f} images/s)"
        )
    else:
        click.echo("\nnothing to do: every table was there")
    _check_any_read(plan, summary)
    click.echo(f"next: {_next_command(store)}")


def _next_command(store: Store) -> str:
    """The command that most users want now: k-NN where it can run."""
    folder = shlex.quote(str(store.path))
    labels = store.samples.labels
    tables = store.tables()
    vectors = [table for table in tables if len(table.shape) == 2]
    if labels is None or labels.ndim > 1 or not vectors or vectors[0].valid.sum() < 2:
        return f"featkit ls {folder}"
    if len(vectors) < len(tables):
        folder = shlex.quote(f"{store.path}:{vectors[0].name}")
    few = int(vectors[0].valid.sum()) <= 20
    return f"featkit knn {folder} {folder}" + " --k 1" * few
