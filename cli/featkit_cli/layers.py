"""``featkit layers``: what can be tapped in a backbone."""

from __future__ import annotations

import click

from featkit_cli.render import table_text


@click.command()
@click.argument("backbone")
def layers(backbone: str) -> None:
    """List every module of BACKBONE with its output, in the order in which they end.

    The stride is that of maps, input pixels a position; parameters include those of the parts.
    """
    from featkit.backbones.probe import default_tap, probe
    from featkit.backbones.resolve import load_backbone
    from featkit.backbones.taps import token_layout
    from featkit.errors import BackboneError

    loaded = load_backbone(backbone)
    layout = token_layout(loaded.module)
    outputs = probe(loaded)
    height = loaded.preprocessing.size[0]
    rows = []
    for output in outputs.values():
        shape = output.shape
        stride = None
        if shape is not None and len(shape) == 3:
            rows_of_map = shape[0] if layout.is_channels_last(output.path, shape) else shape[1]
            stride = height // rows_of_map
        rows.append(
            {
                "tap": output.path,
                "kind": output.kind,
                "output": "not one row an image" if shape is None else " × ".join(map(str, shape)),
                "stride": stride,
                "parameters": output.parameters,
            }
        )
    click.echo(table_text(rows))
    total = sum(p.numel() for p in loaded.module.parameters())
    click.echo(f"\n{loaded.network.architecture}, {total:,} parameters, input {height} px")
    try:
        click.echo(f"default tap: {default_tap(loaded, outputs)}")
    except BackboneError:
        click.echo("default tap: none, name one with --tap")
