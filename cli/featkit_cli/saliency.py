"""``featkit saliency``: which pixels the leaves of a TreeNet look at."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from featkit.analyses.saliency.config import SaliencyConfig
from featkit_cli.analysis import options, show_result
from featkit_cli.kinds import DEVICE, BackboneSpec, Folder, Source

EXAMPLES = """\b
Examples:
  featkit train treenet photos/ -o run --preset cpu && featkit saliency run photos/ -o seen
  featkit saliency "treenet(leaves=8)?weights=none&seed=1" photos/ -o chance
  featkit saliency run photos/ --overlay 3,7,12 --shap -o seen
"""


@click.command(epilog=EXAMPLES)
@click.argument("run", type=BackboneSpec(), metavar="RUN")
@click.argument("source", type=Source())
@click.option(
    "-o", "--output", type=Folder(), required=True, metavar="DIR", help="Folder for the result."
)
@click.option(
    "--batch-size", type=click.IntRange(1), default=8, show_default=True, help="Images at a time."
)
@click.option(
    "--workers", type=click.IntRange(0), help="Decoding processes; 0 for none. Default: by device."
)
@click.option(
    "--device", type=DEVICE, default="auto", show_default=True, help="auto, cpu, cuda, mps."
)
@click.option("--quiet", is_flag=True, help="No progress bars.")
@click.option("--json", "as_json", is_flag=True, help="Print result.json, nothing else.")
def saliency(
    run: str,
    source: str,
    output: str,
    batch_size: int,
    workers: int | None,
    device: str,
    quiet: bool,
    as_json: bool,
    **given: Any,
) -> None:
    """Map which pixels move each leaf of a TreeNet, and tell what kind of learner each is.

    RUN is a folder that featkit train has written, or any BACKBONE, whose features are then the
    only leaf; SOURCE is a folder of images, a CSV or torchvision:NAME.
    """
    from featkit.analyses.base import result_folder
    from featkit.analyses.saliency.analysis import saliency as look
    from featkit.errors import UsageError

    folder = Path(source.partition("?")[0]).resolve()
    if folder.is_dir() and Path(output).resolve().is_relative_to(folder):
        raise UsageError(f"{output} lies in {source}: its pictures would be taken for images there")
    with result_folder(output, "saliency"):
        result = look(
            run,
            source,
            SaliencyConfig(**given),
            batch_size=batch_size,
            workers=workers,
            device=device,
            progress=not quiet,
        )
        show_result(result, output, as_json)


saliency.params += options(SaliencyConfig)
