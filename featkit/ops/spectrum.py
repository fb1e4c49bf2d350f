"""The singular values of a matrix with many rows."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError

BLOCK_FLOATS = 2**22  # numbers widened at once: 32 MiB


def singular_values(x: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Return the singular values of the rows as they are, not centred.

    Roots of the eigenvalues of ``XᵀX``, or of ``XXᵀ`` where that is smaller, added up block by
    block in float64. Squaring costs half of the digits: values below some 1e-8 of the largest are
    rounding.

    Args:
        x: (n, d), any real dtype, finite. Memory-mapped arrays are read block by block.

    Returns:
        float64 (min(n, d)), descending, 0 or more.

    Raises:
        UsageError: ``x`` is no matrix of finite real numbers.

    Cost: 2·n·d·m operations and an eigendecomposition of m³, m = min(n, d); memory 16·m².

    Example:
        >>> singular_values([[3.0, 0.0], [0.0, 0.0], [0.0, 4.0]])
        array([4., 3.])
    """
    matrix = np.asarray(x)
    if matrix.ndim != 2 or matrix.dtype.kind not in "biuf" or not matrix.size:
        given = f"{matrix.dtype} {matrix.shape}"
        raise UsageError(f"features are {given}: give real numbers in the shape (rows, features)")
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.T
    products = np.zeros((tall.shape[1], tall.shape[1]))
    step = max(1, BLOCK_FLOATS // tall.shape[1])
    for start in range(0, len(tall), step):
        block = tall[start : start + step].astype(np.float64)
        with np.errstate(over="ignore", invalid="ignore"):  # refused below
            products += block.T @ block
    if not np.isfinite(products).all():
        raise UsageError("features hold NaN, infinity or numbers above 1e150: leave them out")
    squares = np.linalg.eigvalsh(products)[::-1]
    values: npt.NDArray[np.float64] = np.sqrt(squares.clip(min=0))
    return values
