"""``featkit report``: one page of any results."""

from __future__ import annotations

import click

from featkit_cli.kinds import FilePath, ResultFolder
from featkit_cli.render import AS_JSON, counted, print_json

EXAMPLES = """\b
Examples:
  featkit report answer -o page.html
  featkit report runs/* knn probe --title "Four ResNets" -o page.html
"""


@click.command(epilog=EXAMPLES)
@click.argument("results", type=ResultFolder(), metavar="RESULT...", nargs=-1, required=True)
@click.option(
    "-o", "--output", type=FilePath(), required=True, metavar="FILE", help="The page, an HTML file."
)
@click.option("--title", default="featkit report", show_default=True, help="What it is called.")
@AS_JSON
def report(results: tuple[str, ...], output: str, title: str, as_json: bool) -> None:
    """Write one page of any results, in one file that needs nothing beside it.

    RESULT is a folder that holds a result.json: what -o of an analysis, a dissection, an ensemble
    or a training has written. Tables of many rows are cut, and stay whole in their CSVs.
    """
    from featkit.analyses.base import Result
    from featkit.report.page import write_report
    from featkit.store.files import size_text

    page = write_report(results, output, title)
    size = page.stat().st_size
    if as_json:
        told = [{"folder": given, "analysis": Result.load(given).analysis} for given in results]
        print_json("report", {"page": output, "bytes": size, "results": told})
        return
    click.echo(f"{output}: {counted(len(results), 'result')}, {size_text(size)}")
