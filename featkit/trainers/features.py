"""Features of a network in training, from the images that are decoded already."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from featkit.backbones.base import Network
from featkit.backbones.precision import computing_in
from featkit.backbones.taps import Tap, TapRunner
from featkit.ops.neighbors import Integers
from featkit.parallel.group import all_of, here, is_first, rows_to_first
from featkit.parallel.place import ALONE
from featkit.trainers.images import TrainingImages

_TOGETHER = 256


class FeaturePass:
    """What a tap gives of images, with the network in evaluation mode.

    Args:
        network: Its mode is afterwards what it was.
        tap: That gives (b, d).
        calls: How often its module runs in a forward.
        images: Decoded, and larger than the network's input or as large: the middle is cut out.
    """

    def __init__(self, network: Network, tap: Tap, calls: int, images: TrainingImages) -> None:
        self.network, self.tap, self.calls, self.images = network, tap, calls, images

    def __call__(
        self,
        rows: Integers,
        precision: str,
        device: torch.device,
        out: Tensor | None = None,
        views: Callable[[Tensor], Tensor] | None = None,
    ) -> Tensor:
        """Return (n, d) float32 on the CPU.

        Args:
            rows: (n), 1 or more, of the images.
            precision: ``fp32`` or ``bf16``.
            device: Where the network is.
            out: What is written to and returned; None makes it.
            views: Makes (b, 3, s, s) in [0, 1] of (b, 3, h, w) uint8 in place of the cut.

        Cost: a forward of n images.
        """
        module, recipe = self.network.module, self.network.preprocessing
        was_training = module.training
        runner = TapRunner(module.eval(), [self.tap], {self.tap.path: self.calls})
        try:
            with computing_in(precision, device):
                for start in range(0, len(rows), _TOGETHER):
                    part = torch.from_numpy(rows[start : start + _TOGETHER])
                    pixels = self.images.pixels[part].to(device)
                    if views is None:
                        pixels = recipe.normalize(_middle(pixels, recipe.size[0]))
                    else:
                        pixels = recipe.normalize_views(views(pixels))
                    (found,) = runner(pixels)
                    out = torch.empty(len(rows), found.shape[1]) if out is None else out
                    out[start : start + len(part)] = found
        finally:
            runner.close()
            module.train(was_training)
        assert out is not None  # noqa: S101 - there is a row
        return out

    def shared(
        self, rows: Integers, precision: str, device: torch.device, out: Tensor | None = None
    ) -> Tensor | None:
        """Return (n, d) in the first of several processes, None in others; each makes its share.

        Args:
            rows: As when called.
            precision: As when called.
            device: As when called.
            out: Of the first process.
        """
        if here() == ALONE:
            return self(rows, precision, device, out)
        groups = here().share(-(-len(rows) // _TOGETHER))  # batches are those of one process
        start, stop = (min(edge * _TOGETHER, len(rows)) for edge in (groups.start, groups.stop))
        own = self(rows[start:stop], precision, device) if start < stop else torch.empty(0)
        width = max(all_of(own.shape[-1]))
        if is_first() and out is None:
            out = torch.empty(len(rows), width)
        rows_to_first(own, out, slice(start, stop))
        return out


def _middle(pixels: Tensor, size: int) -> Tensor:
    """Cut (b, size, size, 3) from the middle of (b, 3, h, w)."""
    start = round((pixels.shape[2] - size) / 2)
    inside = slice(start, start + size)
    return pixels.permute(0, 2, 3, 1)[:, inside, inside]
