"""The gradients of what recovery lacks, written out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from featkit.ops.mappers import Mappers


class RecoveryGradients:
    """Cosines and gradients of ``scale · Σ_j Σ_i 1 - cos(φ_j(ψ_i), z_i^j)``.

    Automatic differentiation gives the same, but takes new memory for the gradient of every weight
    in every step: where they have tens of megabytes, the system clears that memory for longer than
    the products take.

    Args:
        mappers: φ.
        dtype: Of the products; cosines and what is returned are float32.
        learns: Whether φ gets gradients.

    Cost: the products of :class:`Mappers` three times, twice where φ does not learn; memory for the
    gradients of φ, and two copies of it in another dtype than float32.
    """

    def __init__(self, mappers: Mappers, dtype: torch.dtype, learns: bool) -> None:
        self.relus = mappers.relus
        last = list(zip(mappers.last_weights, mappers.last_biases, strict=True))
        layers = [[pair] for pair in zip(mappers.weights, mappers.biases, strict=True)]
        self.layers = [
            [_Layer(weight, bias, dtype, learns) for weight, bias in pairs]
            for pairs in [*layers, last]
        ]

    def refresh(self) -> None:
        """Take over the weights of φ after they have changed."""
        for parts in self.layers:
            for part in parts:
                part.refresh()

    def __call__(
        self, psi: Tensor, targets: Sequence[Tensor], scale: float, moves: bool
    ) -> tuple[Tensor, Tensor | None]:
        """Compute cosines and gradients.

        Args:
            psi: (b, w), float32.
            targets: (b, d_j) each, rows of length 1 or 0.
            scale: Of the loss.
            moves: Whether ψ gets a gradient.

        Returns:
            Cosines (m, b), and the gradient of ψ (b, w) or None, float32. Gradients of φ are in
            ``grad`` of its parameters.
        """
        inputs, mapped = self._forward(psi, len(targets))
        found = [
            _cosine_and_slope(y, z, scale, relu)
            for y, z, relu in zip(mapped, targets, self.relus, strict=True)
        ]
        slopes = [slope.to(inputs[0].dtype) for _, slope in found]
        cosines = torch.stack([cosine for cosine, _ in found])
        return cosines, self._backward(inputs, slopes, moves)

    def cosines(self, psi: Tensor, targets: Sequence[Tensor]) -> Tensor:
        """Compute the cosines (m, b) alone; see :meth:`__call__`."""
        _, mapped = self._forward(psi, len(targets))
        return torch.stack(
            [
                _cosine_and_slope(y, z, 1.0, relu)[0]
                for y, z, relu in zip(mapped, targets, self.relus, strict=True)
            ]
        )

    def _forward(self, psi: Tensor, count: int) -> tuple[list[Tensor], list[Tensor]]:
        """Return what goes into each layer, (m, b, ·), and what the last gives, (b, d_j) each."""
        dtype = self.layers[0][0].product.dtype
        inputs = [psi.to(dtype).expand(count, *psi.shape).contiguous()]
        for (layer,) in self.layers[:-1]:
            inputs.append(layer.forward(inputs[-1]).relu_())
        last = self.layers[-1]
        mapped = [
            y
            for layer, x in zip(last, inputs[-1].chunk(len(last)), strict=True)
            for y in layer.forward(x)
        ]
        return inputs, mapped

    def _backward(self, inputs: list[Tensor], slopes: list[Tensor], moves: bool) -> Tensor | None:
        last = self.layers[-1]
        outer = [torch.stack(slopes)] if len(last) == 1 else [slope[None] for slope in slopes]
        for number in range(len(self.layers) - 1, -1, -1):
            layers = self.layers[number]
            for layer, x, slope in zip(
                layers, inputs[number].chunk(len(layers)), outer, strict=True
            ):
                layer.learn(x, slope)
            if number == 0 and not moves:
                return None
            inner = [layer.below(slope) for layer, slope in zip(layers, outer, strict=True)]
            outer = [inner[0] if len(inner) == 1 else torch.cat(inner)]
            if number > 0:
                outer[0] = _through_relu(outer[0], inputs[number])
        return outer[0].float().sum(0)


class _Layer:
    """One layer of perceptrons of equal shape, with the memory for its gradients."""

    def __init__(self, weight: Tensor, bias: Tensor, dtype: torch.dtype, learns: bool) -> None:
        self.weight, self.bias, self.learns = weight, bias, learns
        self.product = weight.detach().to(dtype)
        if learns:
            weight.grad, bias.grad = torch.zeros_like(weight), torch.zeros_like(bias)
        is_same = dtype == weight.dtype or not learns
        self.slope = weight.grad if is_same else torch.empty_like(self.product)

    def refresh(self) -> None:
        if self.product.dtype != self.weight.dtype:
            self.product.copy_(self.weight.detach())

    def forward(self, x: Tensor) -> Tensor:
        return torch.baddbmm(self.bias.detach().to(x.dtype), x, self.product)

    def learn(self, x: Tensor, slope: Tensor) -> None:
        if not self.learns:
            return
        assert self.slope is not None  # noqa: S101 - made where it learns
        assert self.weight.grad is not None and self.bias.grad is not None  # noqa: S101, PT018
        torch.bmm(x.transpose(1, 2), slope, out=self.slope)
        if self.slope is not self.weight.grad:
            self.weight.grad.copy_(self.slope)
        self.bias.grad.copy_(slope.sum(1, keepdim=True))

    def below(self, slope: Tensor) -> Tensor:
        return torch.bmm(slope, self.product.transpose(1, 2))


def _cosine_and_slope(y: Tensor, z: Tensor, scale: float, relu: bool) -> tuple[Tensor, Tensor]:
    """Return the cosine of each row, and the gradient of ``scale · Σ 1 - cos`` before the ReLU.

    ``∂ cos / ∂y = (ẑ - cos ŷ) / ‖y‖``, and 0 where y is.
    """
    y = y.float()
    if relu:
        y = y.relu()
    lengths = y.norm(dim=1, keepdim=True)
    inverse = torch.where(lengths > 0, 1 / lengths, 0)
    unit = y * inverse
    cosine = (unit * z).sum(1, keepdim=True)
    slope = (unit * cosine).sub_(z).mul_(inverse * scale)
    return cosine[:, 0], _through_relu(slope, y) if relu else slope


def _through_relu(slope: Tensor, y: Tensor) -> Tensor:
    """Return the gradient before a ReLU that gave y, faster than a product with ``y > 0``."""
    before: Tensor = torch.ops.aten.threshold_backward(slope, y, 0)
    return before
