"""Activations as maps of units, whatever the network."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from featkit.backbones.base import Backbone
from featkit.backbones.probe import Probe, resolve_taps
from featkit.backbones.taps import Tap, TapRunner, TokenLayout, token_layout
from featkit.errors import BackboneError, UsageError


def map_tap(backbone: Backbone, asked: str, outputs: Probe) -> Tap:
    """Return the tap of a module whose output has places.

    Args:
        backbone: The network.
        asked: A name or path, without pooling.
        outputs: From :func:`featkit.backbones.probe.probe`.

    Raises:
        UsageError: A pooling is named, which leaves no places.
        BackboneError: There is no such tap, or it gives neither a map nor patch tokens.
    """
    if ":" in asked:
        raise UsageError(f"tap {asked!r}: a map is not pooled; write {asked.partition(':')[0]!r}")
    (tap,) = resolve_taps(backbone, [asked], outputs)
    tap = Tap(tap.path, "none", tap.alias)
    places(outputs[tap.path].shape or (), tap, token_layout(backbone.module), backbone)
    return tap


def places(
    shape: Sequence[int], tap: Tap, layout: TokenLayout, backbone: Backbone
) -> tuple[int, int]:
    """Return the height and width of a tap's maps.

    Args:
        shape: (c, h, w), (h, w, c) or (t, c): the output without its batch.
        tap: The tap on it.
        layout: The network's token layout.
        backbone: The network; maps and the patches of its input are as high and wide in proportion.

    Raises:
        BackboneError: The output has no places.
    """
    height, width = backbone.preprocessing.size
    if len(shape) == 3:
        last = layout.is_channels_last(tap.path, shape)
        size = (shape[0], shape[1]) if last else (shape[1], shape[2])
        # what is as high and wide as there are tokens, or out of proportion, is inside of attention
        tokens = (layout.patches or 0) + layout.prefix_tokens
        apart = abs(size[0] * width - size[1] * height)  # less than a place, by rounding
        if size not in {(1, 1), (tokens, tokens)} and apart < max(height, width):
            return size
    if len(shape) == 2:
        patches = shape[0] - layout.prefix_of(shape[0])
        rows = round((patches * height / width) ** 0.5)
        if rows > 0 and patches == rows * round(rows * width / height):
            return rows, patches // rows
    raise BackboneError(
        f"{backbone.name}: tap {tap.name} gives {' × '.join(map(str, shape)) or 'no tensor'} an"
        f" image, which has no places; tap a module that gives a map (featkit layers"
        f" {backbone.spec} lists all)"
    )


class MapRunner(nn.Module):
    """A network that gives the maps of one tap.

    Args:
        backbone: It carries a hook until :meth:`close`.
        tap: From :func:`map_tap`.
        outputs: From :func:`featkit.backbones.probe.probe`.

    Attributes:
        size: Height and width of the maps.
        units: How many there are.
    """

    def __init__(self, backbone: Backbone, tap: Tap, outputs: Probe) -> None:
        super().__init__()
        shape = outputs[tap.path].shape or ()
        self._layout = token_layout(backbone.module)
        self.size = places(shape, tap, self._layout, backbone)
        last = len(shape) == 2 or self._layout.is_channels_last(tap.path, shape)
        self.units = shape[-1] if last else shape[0]
        self._runner = TapRunner(backbone.module, [tap], {tap.path: outputs[tap.path].calls})

    def forward(self, images: Tensor) -> Tensor:
        """Map images (b, 3, h, w) to float32 (b, units, *size)."""
        output: Tensor = self._runner(images)[0]
        if output.ndim == 3:
            prefix = self._layout.prefix_of(output.shape[1])
            output = output[:, prefix:].transpose(1, 2).reshape(len(output), -1, *self.size)
        return output

    def close(self) -> None:
        """Remove the hook."""
        self._runner.close()
