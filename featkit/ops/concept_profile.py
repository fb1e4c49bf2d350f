"""Which concepts the units of models detect, and how often."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
import numpy.typing as npt

from featkit.errors import UsageError
from featkit.ops.matrices import Doubles, real_matrix

Integers: TypeAlias = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AbstractedProfile:
    """Profiles by category.

    Attributes:
        categories: (q) in the order of their first concept.
        units: What the profiles hold, summed over the concepts of a category, (m, q).
        unique: Concepts of a category that a model has a unit for, int64 (m, q).
    """

    categories: tuple[str, ...]
    units: Doubles
    unique: Integers


def check_profiles(counts: npt.ArrayLike, categories: Sequence[str]) -> Doubles:
    """Return profiles as float64, or refuse what are none.

    Args:
        counts: D(m, c) ≥ 0, (m, c): the units of model m that detect concept c.
        categories: The category of each concept, (c).

    Raises:
        UsageError: They do not fit together, or a value is negative or not finite.
    """
    matrix = real_matrix(counts, "profiles").astype(np.float64)
    if matrix.shape[1] != len(categories):
        raise UsageError(
            f"profiles of {matrix.shape[1]} concepts and categories of {len(categories)}: give one"
            " category a concept"
        )
    if not np.isfinite(matrix).all() or (matrix < 0).any():
        raise UsageError("profiles hold NaN, infinity or negative numbers: give numbers of units")
    return matrix


def category_sizes(categories: Sequence[str]) -> Integers:
    """Return for each concept how many there are of its category, int64 (c).

    Example:
        >>> category_sizes(["object", "color", "object"])
        array([2, 1, 2])
    """
    _, members, sizes = np.unique(np.asarray(categories), return_inverse=True, return_counts=True)
    return np.asarray(sizes[members], np.int64)


def normalize_profiles(counts: npt.ArrayLike, categories: Sequence[str]) -> Doubles:
    """Divide what each concept counts by the number of concepts of its category.

    ``D(m_i, c_j) / t_cat(c_j)``; t is counted over the columns, the super-set of concepts.

    Args:
        counts: D(m, c) ≥ 0, (m, c).
        categories: The category of each concept, (c).

    Returns:
        float64 (m, c), ≥ 0.

    Raises:
        UsageError: As :func:`check_profiles`.

    Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep
    clustering (thesis, American University of Beirut), sec. 3.4.

    Example:
        >>> normalize_profiles([[4, 6, 1]], ["object", "object", "color"])
        array([[2., 3., 1.]])
    """
    return check_profiles(counts, categories) / category_sizes(categories)


def abstract_profiles(counts: npt.ArrayLike, categories: Sequence[str]) -> AbstractedProfile:
    """Sum profiles by category, and count the concepts of each that are there at all.

    Args:
        counts: D(m, c) ≥ 0, (m, c).
        categories: The category of each concept, (c).

    Raises:
        UsageError: As :func:`check_profiles`.

    Source: Mustapha 2021 (as :func:`normalize_profiles`), sec. 3.5 and fig. 3.4.

    Example:
        >>> found = abstract_profiles([[4, 6, 1], [0, 3, 0]], ["object", "object", "color"])
        >>> found.categories, found.units.tolist(), found.unique.tolist()
        (('object', 'color'), [[10.0, 1.0], [3.0, 0.0]], [[2, 1], [1, 0]])
    """
    matrix = check_profiles(counts, categories)
    names = tuple(dict.fromkeys(categories))
    belongs = np.array([[category == name for name in names] for category in categories], float)
    unique = (matrix > 0) @ belongs
    return AbstractedProfile(names, matrix @ belongs, unique.astype(np.int64))
