"""Maps of activations, brought to the grid of their labels."""

from __future__ import annotations

from typing import Literal, get_args

import torch
from torch import Tensor

from featkit.errors import UsageError

Border = Literal["fade", "clamp", "corner"]

SMALL = 256  # places of a map, up to which one product with all places of the grid is fastest


class Upsampling:
    """Bilinear interpolation of maps, as a product with fixed matrices.

    Cell i of a grid of H cells lies at ``(i + 1/2)·h / H - 1/2`` on a map of h places.

    ``fade``: outside of the map is 0, so that half a place at the border fades. ``clamp``: outside
    is as at the border; where the grid is the coarser one, places are averaged over a triangle of
    the width of a cell. ``corner``: cells lie at ``i·h / H - 1/2``, half a cell further to the top
    left; outside is as at the border.

    Args:
        have: Height and width (h, w) of the maps.
        want: Height and width (H, W) of the grid.
        border: Which of the three.

    Raises:
        UsageError: A size or the border cannot be used.

    Cost: 2·h·w·H·W operations a map of up to 256 places; else 2·w·W·(h + H).

    Source: ``fade`` is dissect (Bau et al. 2020, arXiv:2009.05041; davidbau/dissect at 9421eaa,
    ``netdissect/upsample.py``: ``grid_sample``, zero padding). ``clamp`` is NetDissect-Lite
    (``scipy.misc.imresize`` of mode F, which is Pillow's bilinear filter). ``corner`` is NetDissect
    (Bau et al. 2017, arXiv:1704.05796; ``src/upsample.py``: a spline of degree 1 through the
    centres of receptive fields, read at whole numbers), which rounds these centres to whole pixels
    where h does not divide H.

    Example:
        >>> Upsampling((1, 2), (1, 4), "fade")(torch.tensor([[[0.0, 4.0]]])).tolist()
        [[[0.0, 1.0, 3.0, 3.0]]]
        >>> Upsampling((1, 2), (1, 4), "clamp")(torch.tensor([[[0.0, 4.0]]])).tolist()
        [[[0.0, 1.0, 3.0, 4.0]]]
        >>> Upsampling((1, 2), (1, 4), "corner")(torch.tensor([[[0.0, 4.0]]])).tolist()
        [[[0.0, 0.0, 2.0, 4.0]]]
    """

    def __init__(self, have: tuple[int, int], want: tuple[int, int], border: Border) -> None:
        if border not in get_args(Border):
            raise UsageError(f"border {border!r} is unknown: give {' or '.join(get_args(Border))}")
        if min(*have, *want) < 1:
            raise UsageError(f"maps {have} and grid {want}: give heights and widths of 1 or more")
        self.have, self.want = have, want
        self.down, self.across = (
            _weights(h, size, border) for h, size in zip(have, want, strict=True)
        )
        is_small = have[0] * have[1] <= SMALL and have != want
        self.whole = torch.kron(self.down, self.across).T.contiguous() if is_small else None

    def __call__(self, maps: Tensor, cells: Tensor | None = None) -> Tensor:
        """Return (n, H, W) of maps (n, h, w), float32; or (n, m) at some cells, int64 (m)."""
        n = len(maps)
        if self.whole is not None:
            weights = self.whole if cells is None else self.whole[:, cells]
            found = (maps.flatten(1).double() @ weights).float()
            return found.view(n, *self.want) if cells is None else found
        if self.have == self.want and torch.equal(self.down, torch.eye(self.have[0]).double()):
            found = maps.float()
        else:
            found = (self.down @ (maps.double() @ self.across.T)).float()
        return found if cells is None else found.flatten(1)[:, cells]


def _weights(have: int, want: int, border: Border) -> Tensor:
    """Return how much of each place each cell takes, float64 (want, have)."""
    cells, places = torch.arange(want, dtype=torch.float64), torch.arange(have, dtype=torch.float64)
    shift = 0.0 if border == "corner" else 0.5
    where = (cells + shift) * have / want - 0.5
    width = max(1.0, have / want) if border == "clamp" else 1.0
    if border == "corner":
        where = where.clamp(0, have - 1)
    weights = (1 - (where[:, None] - places).abs() / width).clamp(min=0)
    if border == "clamp":
        weights /= weights.sum(1, keepdim=True)
    return weights
