"""The energy of directions as a loss that keeps them apart."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from featkit.errors import UsageError
from featkit.ops.hyperspherical_energy import Kernel, Space, check_potential, potential

SHORT = 1e-12  # rows up to this length have no direction
FLOOR = 4.0  # roundings of ‖a‖² + ‖b‖²: squared distances up to this, and as near to 4, stand still
UNIT = 8.0  # roundings of 1, the length of rows: distances up to this stand still
HELD = 1e-12  # share of the largest number that the slope of one pair may reach


class HypersphericalLoss(nn.Module):
    """Mean energy of the directions of weights or features: the closer they are, the more.

    ``1 / (n (n - 1)) · Σ_{i≠j} ‖v̂_i - v̂_j‖^-s``, ``log 1/‖v̂_i - v̂_j‖`` for s = 0. Added to another
    loss it keeps the units of a layer, or the features of a batch, from becoming alike.

    It equals the mean of :func:`featkit.ops.hyperspherical_energy.hyperspherical_energy` unless
    pairs coincide: a pair at the rounding of its distance has the energy of that rounding and no
    gradient, since equal rows have no direction in which to part. For a = v̂_i - μ, b = v̂_j - μ, μ
    the mean direction, ε the machine epsilon, squared distances round at 4·ε·(‖a‖² + ‖b‖²), and
    distances at 8·ε: among directions all over the sphere a pair stands still below 1e-3 (float32;
    4e-8 in float64), but where all collapse into one they part from 1e-6 on (2e-15). Large powers
    stand still earlier, where the gradient would be no number. Rows of zeros count for nothing and
    have no gradient.

    Args:
        power: s, 0 or more.
        space: ``half`` also takes the opposite -v̂_i of every direction, so that lines part.
        kernel: ``angular`` has the angle in radians in place of the distance.

    Raises:
        UsageError: There is no such energy.

    Source: Liu et al. 2018, arXiv:1805.09298.

    Example:
        >>> loss = HypersphericalLoss(power=2)
        >>> loss(torch.eye(3))
        tensor(0.5000)
    """

    def __init__(
        self, power: float = 1, space: Space = "full", kernel: Kernel = "euclidean"
    ) -> None:
        super().__init__()
        check_potential(power, space, kernel)
        self.power, self.space, self.kernel = float(power), space, kernel

    def forward(self, x: Tensor) -> Tensor:
        """Compute the loss.

        Args:
            x: (n, …), floating point: a vector each, such as the weight of a linear or
                convolutional layer, or features.

        Returns:
            A scalar, float32, or float64 for float64; 0 where there is no pair.

        Raises:
            UsageError: ``x`` is no matrix, or not of floating point.

        Cost: 2·n²·d operations, as much again twice for the gradient; memory some 10·n².
        """
        if x.ndim < 2 or not x.is_floating_point():
            given = f"{str(x.dtype).removeprefix('torch.')} {tuple(x.shape)}"
            raise UsageError(f"x is {given}: give floating point in the shape (rows, features)")
        with torch.autocast(x.device.type, enabled=False):
            squares, counts = self._squares(x.flatten(1))
            n = counts.diagonal().sum()
            counts = counts.fill_diagonal_(False)
            energies = potential(squares, self.power, self.space, self.kernel)
            total = energies.masked_fill(~counts, 0).sum()
            if self.space == "full":
                return total / (n * (n - 1)).clamp(min=1)
            own = potential(squares.new_tensor(4.0), self.power, "full", self.kernel)
            return (2 * total + 2 * n * own) / (2 * n * (2 * n - 1)).clamp(min=1)

    def _squares(self, rows: Tensor) -> tuple[Tensor, Tensor]:
        """Return squared distances, (n, n), and which are between rows that are not zero."""
        rows = rows.to(torch.promote_types(rows.dtype, torch.float32))
        lengths = torch.linalg.vector_norm(rows, dim=1, keepdim=True)
        has_length = lengths > SHORT
        unit = rows / lengths.where(has_length, 1)
        points = unit - unit.detach().mean(0)  # distances stay and keep their digits
        lengths = points.square().sum(1)
        both = lengths[:, None] + lengths
        squares = both - 2 * points @ points.T
        counts = has_length & has_length.T
        is_other = ~torch.eye(len(rows), dtype=torch.bool, device=rows.device)
        floor = (FLOOR * torch.finfo(rows.dtype).eps * both.detach()).clamp(self._least(rows.dtype))
        return squares.where(counts & is_other, 2).clamp(floor, 4 - floor), counts

    def _least(self, dtype: torch.dtype) -> float:
        """Return the squared distance that unit rows hold, and whose potential has a slope."""
        held = torch.finfo(dtype)
        steep = (self.power / HELD / held.max) ** (1 / (self.power / 2 + 1))
        return max((UNIT * held.eps) ** 2, float(steep))
