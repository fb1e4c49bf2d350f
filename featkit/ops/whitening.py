"""Principal components of unit variance, of features that are many and wide."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import torch
from scipy.linalg import eigh  # type: ignore[import-untyped]
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.row_blocks import centred_blocks, check_rows, mean_row

_Pairs: TypeAlias = tuple[Tensor, Tensor]  # eigenvalues, the largest first, and (d, …) vectors

NO_VARIANCE = 2.0**-23  # of the largest variance, or of the squared mean: rounding of float32
ACCURACY = 1e-3  # of an eigenvalue: how far A v may be from λ v
WIDE, FEW = 1024, 8  # features from which, and a part of them up to which, passes are cheaper
STEP = 64  # directions that a pass over the rows adds


@dataclass(frozen=True, slots=True)
class Whitening:
    """``y = P (x - μ)``, of mean 0 and unit covariance over the rows that it was fitted to.

    Attributes:
        mean: μ, float32 (d).
        projection: P, float32 (count, d): principal axes over the standard deviations along them,
            the most varying first; zeros for those along which the rows do not vary.
    """

    mean: Tensor
    projection: Tensor

    @torch.no_grad()
    def __call__(self, rows: Tensor) -> Tensor:
        """Return float32 (b, count) for float32 rows (b, d) on the same device.

        Cost: 2·b·d·count operations.
        """
        whitened = rows.new_empty(len(rows), len(self.projection))
        for part, block in centred_blocks(rows, self.mean):
            torch.mm(block, self.projection.T, out=whitened[part])
        return whitened


@torch.no_grad()
def fit_whitening(x: Tensor, count: int, seed: int = 0) -> Whitening:
    """Find the directions in which rows vary most, and how much.

    Pairs λ, v of the covariance ``A = Σ_i (x_i - μ)(x_i - μ)ᵀ / n``. Below 1,024 features, or for
    more than d/8 components, A is added up in float64 and decomposed. Otherwise a Krylov space
    grows by 64 directions a pass over the rows, until ``‖A v - λ v‖ ≤ λ/1000`` for all pairs, which
    leaves variances exact to some 1e-6; one that would outgrow d/2 is given up for A itself.

    No variance is one up to 1.2e-7 of the largest, or 1.4e-14 of ``‖μ‖²``: rounding of float32.

    Args:
        x: (n, d), float32, finite, on any device. Memory-mapped rows are read block by block.
        count: Components, 1 ≤ count ≤ d.
        seed: Of the directions that the Krylov space starts from.

    Raises:
        UsageError: ``x`` or ``count`` cannot be used.

    Cost: 4·n·d·m operations and 16·d·m bytes for a space of m directions (256 for 32 pairs and 768
    for 256 of 2,048 eigenvalues that fall like 1/i²); or 2·n·d², some 2·d³ and 24·d² bytes for A.

    Source: Caron et al. 2018, arXiv:1807.05520, sec. 4 (PCA and whitening before k-means; in its
    code faiss' ``PCAMatrix`` with ``eigen_power=-0.5``); Golub and Underwood 1977, The block
    Lanczos method for computing eigenvalues.

    Example:
        >>> whiten = fit_whitening(torch.tensor([[0.0, 1.0], [4.0, 1.0]]), 2)
        >>> whiten(torch.tensor([[4.0, 1.0], [2.0, 9.0]]))
        tensor([[1., 0.],
                [0., 0.]])
    """
    check_rows(x)
    n, d = x.shape
    if not 1 <= count <= d:
        raise UsageError(f"{count} components of {d} features: give 1 to {d}")
    mean, wanted = mean_row(x), min(count, n)
    few = d >= WIDE and FEW * wanted <= d
    found = _by_passes(x, mean, wanted, seed) if few else None
    values, vectors = found or _by_covariance(x, mean, wanted)
    varies = values > max(NO_VARIANCE * values[0], NO_VARIANCE**2 * mean.double().square().sum())
    scale = torch.where(varies, values, torch.inf).rsqrt()
    largest = vectors.gather(0, vectors.abs().argmax(0, keepdim=True))
    projection = x.new_zeros(count, d)
    projection[:wanted] = (vectors * largest.sign() * scale).T
    return Whitening(mean, projection)


def _by_covariance(x: Tensor, mean: Tensor, count: int) -> _Pairs:
    d = x.shape[1]
    products = torch.zeros(d, d, dtype=torch.float64, device=x.device)
    for _, block in centred_blocks(x, mean):
        wide = block.double()
        products.addmm_(wide.T, wide)
    covariance = (products / len(x)).cpu().numpy()
    values, vectors = eigh(covariance, subset_by_index=(d - count, d - 1), overwrite_a=True)
    descending = (torch.from_numpy(a[..., ::-1].copy()).to(x.device) for a in (values, vectors))
    return next(descending), next(descending)


def _by_passes(x: Tensor, mean: Tensor, count: int, seed: int) -> _Pairs | None:
    def multiply(directions: Tensor) -> Tensor:
        narrow = directions.float()
        products = torch.zeros_like(narrow, dtype=torch.float64)
        for _, block in centred_blocks(x, mean):
            products += block.T @ (block @ narrow)
        return products / len(x)

    random = torch.Generator().manual_seed(seed)
    start = torch.randn(x.shape[1], STEP, generator=random, dtype=torch.float64)
    return _block_lanczos(multiply, start.to(x.device), count)


def _block_lanczos(
    multiply: Callable[[Tensor], Tensor], start: Tensor, count: int
) -> _Pairs | None:
    """Return the largest eigenpairs of a symmetric matrix A (d, d), or None if they stay inexact.

    The space is kept orthonormal in full, so that no eigenvector comes twice.

    Args:
        multiply: Q (d, step) to A Q.
        start: Random directions, float64 (d, step).
        count: Pairs wanted.
    """
    d, step = start.shape
    basis, projected = torch.linalg.qr(start).Q, start.new_empty(0, 0)
    while True:
        size = basis.shape[1]
        image = multiply(basis[:, -step:])
        along = basis.T @ image
        image -= basis @ along
        projected = torch.cat([projected, along[: size - step]], 1)
        projected = torch.cat([projected, along.T], 0)
        outside, length = torch.linalg.qr(image)
        if size >= count:
            values, inner = torch.linalg.eigh((projected + projected.T) / 2)
            values, inner = values.flip(0)[:count], inner.flip(1)[:, :count]
            error = torch.linalg.vector_norm(length @ inner[-step:], dim=0)
            if ((error <= ACCURACY * values) | (values + error <= NO_VARIANCE * values[0])).all():
                return values, basis @ inner
        if size + step > d // 2:
            return None
        outside -= basis @ (basis.T @ outside)
        basis = torch.cat([basis, torch.linalg.qr(outside).Q], 1)
