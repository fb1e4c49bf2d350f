"""The Learned Concepts Embedding: models placed by the concepts that their units detect."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Self

import numpy as np
import numpy.typing as npt
from sklearn.base import BaseEstimator, TransformerMixin
from sklearn.utils.validation import check_is_fitted

from featkit.errors import UsageError
from featkit.ops.concept_profile import category_sizes, check_profiles
from featkit.ops.matrices import BLOCK_FLOATS, ROUNDING, Doubles, real_matrix


class LearnedConceptsEmbedding(TransformerMixin, BaseEstimator):  # type: ignore[misc]
    """Place models along the directions in which their concepts differ most.

    Principal components of ``D(m_i, c_j) / t_cat(c_j)``, centred and not scaled
    (the eigenvectors of the covariance). The largest coefficient of each component is positive; of
    several that are as large, the first.

    Args:
        categories: The category of each concept (column), (c); t counts them.
        n_components: Components, at least 1; as many as the profiles span are found.

    Attributes:
        components_: Orthonormal rows, float64 (k, c), k ≤ ``n_components``.
        mean_: The mean normalised profile, float64 (c).
        explained_variance_: Variance along each component (divisor m - 1), decreasing, (k).
        explained_variance_ratio_: The same as shares of the whole variance, in (0, 1], (k).
        n_features_in_: c.

    Cost: one singular value decomposition, m·c·min(m, c).

    Source: Mustapha 2021, Unsupervised deep learning: inter-model interpretation and deep
    clustering (thesis, American University of Beirut), sec. 3.4; the signs are ours.

    Example:
        >>> lce = LearnedConceptsEmbedding(["object", "object", "color"], n_components=2)
        >>> lce.fit_transform([[8, 4, 1], [8, 0, 1], [0, 4, 1], [0, 0, 1]])
        array([[ 2.,  1.],
               [ 2., -1.],
               [-2.,  1.],
               [-2., -1.]])
        >>> lce.explained_variance_ratio_
        array([0.8, 0.2])
    """

    def __init__(self, categories: Sequence[str], n_components: int = 3) -> None:
        self.categories = categories
        self.n_components = n_components

    def fit(self, X: npt.ArrayLike, y: object = None) -> Self:  # noqa: N803, ARG002
        """Find the components.

        Args:
            X: D ≥ 0, (m, c), m ≥ 2: the units of each model that detect each concept.
            y: Not used.

        Returns:
            This estimator.

        Raises:
            UsageError: Shapes, values or parameters cannot be used, or all profiles are the same.
        """
        if self.n_components < 1:
            raise UsageError(f"n_components is {self.n_components}: give 1 or more")
        profiles = self._normalized(X)
        if len(profiles) < 2:
            raise UsageError("profiles of 1 model: give those of two or more")
        self.n_features_in_ = profiles.shape[1]
        self.mean_ = profiles.mean(0)
        _, scales, directions = np.linalg.svd(profiles - self.mean_, full_matrices=False)
        rank = int((scales > ROUNDING * np.abs(profiles).max(initial=0)).sum())
        if not rank:
            raise UsageError(f"the profiles of all {len(profiles)} models are the same")
        kept = min(rank, self.n_components)
        self.explained_variance_ = scales[:kept] ** 2 / (len(profiles) - 1)
        self.explained_variance_ratio_ = scales[:kept] ** 2 / (scales**2).sum()
        self.components_ = _with_fixed_signs(directions[:kept])
        return self

    def transform(self, X: npt.ArrayLike) -> Doubles:  # noqa: N803
        """Return the places of models, float64 (m, k).

        Args:
            X: D ≥ 0, (m, c), of the same concepts; normalised with the t of ``categories``.

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: Shapes or values cannot be used.
        """
        check_is_fitted(self)
        places: Doubles = (self._normalized(X) - self.mean_) @ self.components_.T
        return places

    def _normalized(self, counts: npt.ArrayLike) -> Doubles:
        return check_profiles(counts, self.categories) / category_sizes(self.categories)


def _with_fixed_signs(components: Doubles) -> Doubles:
    """Turn each row so that its largest entry is positive; rounding does not decide between two."""
    sizes = np.abs(components)
    first = (sizes >= sizes.max(1, keepdims=True) * (1 - 1e-9)).argmax(1)
    turned: Doubles = components * np.sign(components[np.arange(len(components)), first])[:, None]
    return turned


def explained_by_chance(
    profiles: npt.ArrayLike, n_components: int, draws: int, seed: int = 0
) -> Doubles:
    """Measure how much variance components explain where no two concepts belong together.

    Every column is permuted over the rows by itself, which leaves its variance and breaks its ties
    to the others; few rows nearly always fit a few axes. What exceeds this need not be concepts
    that belong together: that some models detect more of everything does it too.

    Args:
        profiles: Normalised profiles, finite (m, c), m ≥ 2, not all rows the same.
        n_components: Components that are looked at, at least 1.
        draws: Permutations, at least 1.
        seed: Of the permutations.

    Returns:
        The share of the variance that each component explains in each draw, float64
        (draws, min(n_components, m)), in [0, 1], decreasing along a row.

    Raises:
        UsageError: Values or shapes cannot be used.

    Cost: draws·m²·(c + m).

    Source: Horn 1965, doi:10.1007/BF02289447 (parallel analysis); Buja and Eyuboglu 1992,
    doi:10.1207/s15327906mbr2704_2 (by permutation).

    Example:
        >>> chance = explained_by_chance([[4.0, 1.0], [1.0, 4.0], [0.0, 0.0]], 2, draws=99)
        >>> chance.shape, bool(np.allclose(chance.sum(1), 1))
        ((99, 2), True)
    """
    matrix = real_matrix(profiles, "profiles").astype(np.float64)
    if not np.isfinite(matrix).all():
        raise UsageError("profiles hold NaN or infinity: leave them out")
    if min(n_components, draws) < 1:
        raise UsageError(f"{n_components} components, {draws} draws: give 1 or more of both")
    centred = matrix - matrix.mean(0)
    whole = (centred**2).sum()
    if not whole:
        raise UsageError(f"the profiles of all {len(matrix)} models are the same")
    rng = np.random.default_rng(seed)
    step = max(1, BLOCK_FLOATS // centred.size)
    shares = []
    for start in range(0, draws, step):
        copies = np.tile(centred, (min(step, draws - start), 1, 1))
        rng.permuted(copies, axis=1, out=copies)
        spectra = np.linalg.eigvalsh(copies @ copies.transpose(0, 2, 1))[:, ::-1]
        shares.append(spectra[:, :n_components].clip(0) / whole)
    return np.concatenate(shares)
