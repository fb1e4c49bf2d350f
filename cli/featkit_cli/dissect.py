"""``featkit dissect``: which concepts the units of a network detect."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import click

from featkit.analyses.dissect.config import DissectConfig
from featkit_cli.analysis import options, print_result, save_result
from featkit_cli.kinds import CONCEPTS, DEVICE, BackboneSpec, Folder, Source

EXAMPLES = """\b
Examples:
  featkit dissect photos/ -b torchvision:resnet50 --tap layer4 --concepts color -o seen
  featkit dissect camvid/images -b offline:efficientnet_lite0 --tap blocks.6 \\
      --concepts masks:camvid/labels --concepts texture --parts quad -o lite0
"""


@click.command(epilog=EXAMPLES)
@click.argument("source", type=Source())
@click.option(
    "-b",
    "--backbone",
    type=BackboneSpec(),
    required=True,
    metavar="[NAME=]BACKBONE",
    help="torchvision:NAME, timm:NAME, offline:NAME, or FILE?arch=NAME; NAME?size=PIXELS for "
    "another input size.",
)
@click.option("--tap", required=True, metavar="PATH", help="Module whose units are looked at.")
@click.option(
    "-c",
    "--concepts",
    type=CONCEPTS,
    multiple=True,
    required=True,
    metavar="CONCEPTS",
    help="masks:DIR, panoptic:JSON, color, texture, torchvision:NAME, hf:OWNER/REPO or "
    "upp:CHECKPOINT. Repeatable.",
)
@click.option(
    "-o",
    "--output",
    type=Folder(),
    required=True,
    metavar="DIR",
    help="Folder for page and result.",
)
@click.option(
    "--precision",
    type=click.Choice(["fp32", "bf16", "fp16"]),
    default="fp32",
    show_default=True,
    help="Number format of the forward.",
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=16, show_default=True, help="Images at a time."
)
@click.option(
    "--workers", type=click.IntRange(0), help="Decoding processes; 0 for none. Default: by device."
)
@click.option(
    "--device", type=DEVICE, default="auto", show_default=True, help="auto, cpu, cuda, mps."
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json, nothing else.")
def dissect(
    source: str,
    backbone: str,
    tap: str,
    concepts: tuple[str, ...],
    output: str,
    precision: str,
    batch_size: int,
    workers: int | None,
    device: str,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Find the concept that each unit of a network detects.

    SOURCE is a folder of images, a CSV or torchvision:NAME; CONCEPTS say what its pixels show.
    """
    from featkit.analyses.base import result_folder
    from featkit.analyses.dissect.analysis import dissect as run
    from featkit.errors import UsageError
    from featkit.report.dissection import PAGE, PICTURES, write_page

    into = Path(output).resolve()
    for given_folder in [source, *(c.removeprefix("masks:") for c in concepts)]:
        folder = Path(given_folder.partition("?")[0]).resolve()
        if folder.is_dir() and into.is_relative_to(folder):
            raise UsageError(
                f"{output} lies in {given_folder}: its pictures would be taken for images there"
            )
        if folder.is_dir() and folder.is_relative_to(into / PICTURES):
            raise UsageError(
                f"{given_folder} lies in {Path(output, PICTURES)}, where pictures are replaced:"
                " give another folder"
            )
    with result_folder(output, "dissect"):
        found = run(
            source,
            backbone,
            tap,
            concepts,
            DissectConfig(**given),
            precision=precision,
            batch_size=batch_size,
            workers=workers,
            device=device,
            progress=not quiet,
        )
        Path(output, PAGE).unlink(missing_ok=True)  # it is of what was there before
        save_result(found.result, output)
        page = write_page(found.result, found.gallery, output)
    print_result(found.result, output, as_json)
    if not as_json:
        click.echo(f"open {page}")
        click.echo(f"next: featkit lce {shlex.quote(output)} OTHER… -o lce, with other networks")


dissect.params += options(DissectConfig)
