"""``featkit layers``: what can be tapped in a backbone."""

from __future__ import annotations

from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import click

from featkit_cli.kinds import BackboneSpec
from featkit_cli.render import AS_JSON, print_json, table_text

if TYPE_CHECKING:
    from featkit.backbones.base import Backbone, CheckpointReport
    from featkit.backbones.probe import Probe


@click.command()
@click.argument("backbone", type=BackboneSpec())
@AS_JSON
def layers(backbone: str, as_json: bool) -> None:
    """List every module of BACKBONE with its output, in the order in which they end.

    A tap is a module's path, or a name that means the same in all networks of a kind ("also"). The
    stride is that of maps, input pixels a position; parameters include those of the parts.
    """
    from featkit.backbones.probe import default_tap, probe
    from featkit.backbones.resolve import load_backbone
    from featkit.errors import BackboneError

    loaded = load_backbone(backbone)
    outputs = probe(loaded)
    rows = _rows(loaded, outputs)
    try:
        default = str(default_tap(loaded, outputs))
    except BackboneError:
        default = None
    total = sum(p.numel() for p in loaded.module.parameters())
    if as_json:
        report = loaded.network.checkpoint
        said = {
            "backbone": backbone,
            "architecture": loaded.network.architecture,
            "parameters": total,
            "preprocessing": asdict(loaded.preprocessing),
            "checkpoint": None if report is None else asdict(report),
            "default_tap": default,
            "taps": rows,
        }
        print_json("layers", said)
        return
    _show(loaded, rows, total)
    click.echo(f"default tap: {default or 'none, name one with --tap'}")


def _rows(loaded: Backbone, outputs: Probe) -> list[dict[str, Any]]:
    """Return a row a module, in the order in which they end."""
    from featkit.backbones.layer_names import OWN, layer_names
    from featkit.backbones.taps import token_layout

    layout = token_layout(loaded.module)
    height = loaded.preprocessing.size[0]
    common = layer_names(loaded.network)
    names: dict[str, list[str]] = {}
    for name, (path, _) in common.items():
        if name != path:
            names.setdefault(path, []).append(name)
    hidden = {name for name, (path, _) in common.items() if name != path}
    rows = []
    for output in outputs.values():
        shape = output.shape
        stride = None
        if shape is not None and len(shape) == 3:
            rows_of_map = shape[0] if layout.is_channels_last(output.path, shape) else shape[1]
            stride = height // rows_of_map
        rows.append(
            {
                "tap": OWN + output.path if output.path in hidden else output.path,
                "also": names.get(output.path, []),
                "kind": output.kind,
                "output": None if shape is None else list(shape),
                "stride": stride,
                "parameters": output.parameters,
            }
        )
    return rows


def _show(loaded: Backbone, rows: list[dict[str, Any]], total: int) -> None:
    recipe, report = loaded.preprocessing, loaded.network.checkpoint
    shown = [
        {
            **row,
            "also": ", ".join(row["also"]),
            "output": "not one row an image"
            if row["output"] is None
            else " × ".join(map(str, row["output"])),
        }
        for row in rows
    ]
    click.echo(table_text(shown))
    is_assumed = report is not None and report.preprocessing == "architecture"
    click.echo(f"\n{loaded.network.architecture}, {total:,} parameters, input {recipe.size[0]} px")
    click.echo(
        f"preprocessing: resize {recipe.resize} {recipe.interpolation}, "
        f"mean {_numbers(recipe.mean)}, std {_numbers(recipe.std)}"
        + (" (the usual one; the file does not tell)" if is_assumed else "")
    )
    if report is not None:
        click.echo(_report_text(report))


def _numbers(values: tuple[float, ...]) -> str:
    return " ".join(f"{value:g}" for value in values)


def _report_text(report: CheckpointReport) -> str:
    others = f" (also there: {', '.join(report.others)})" if report.others else ""
    lines = {
        "checkpoint": f"{report.file}, sha256 {report.sha256}",
        "layout": f"{report.layout}, weights: {report.weights}{others}",
        "loaded": f"{report.tensors} tensors, every one of the network",
        "head": ", ".join(report.heads) or "none",
        "left out": ", ".join(report.left_out),
    }
    return "\n".join(f"{name}: {text}" for name, text in lines.items() if text)
