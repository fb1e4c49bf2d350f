"""Classification by the votes of the nearest neighbours, as a scikit-learn estimator."""

from __future__ import annotations

from typing import Any, Self, TypeAlias

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import (
    check_consistent_length,
    check_is_fitted,
    column_or_1d,
    validate_data,
)

from featkit.errors import UsageError
from featkit.ops.approximate import ApproximateNeighbors, Kind
from featkit.ops.neighbors import (
    Floats,
    Integers,
    Rows,
    as_rows,
    check_finite,
    nearest_neighbors,
    unit_rows,
)
from featkit.ops.row_sources import RowSource, is_mapped
from featkit.ops.votes import dino_vote, majority_vote, vote_weights

Given: TypeAlias = npt.ArrayLike | torch.Tensor | RowSource


class KNNClassifier(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify by the labels of the most similar training rows, by cosine similarity.

    ``argmax_c Σ_{j ≤ k} w_j [y_j = c]``, with w = 1 (majority) or exp(sim / T) (dino); of tied
    classes the one with the nearest neighbour.

    Args:
        k: Neighbours that vote, 1 ≤ k ≤ training rows.
        vote: ``majority`` or ``dino``.
        temperature: T > 0 of the dino vote.
        device: ``auto``, ``cpu`` or ``cuda``.
        approximate: ``ivf`` or ``hnsw`` to look for most of the neighbours in a part of the time,
            as :class:`featkit.ops.approximate.ApproximateNeighbors`; None for all.
        recall: Share of the ``k`` nearest that is then to be found, in (0, 1].

    Attributes:
        classes_: The distinct labels, sorted, (c).
        n_features_in_: d.
        neighbors_: The index, ``approximate`` given; its ``measure(X)`` tells the recall for X.

    Cost: ``fit`` keeps 4·n·d bytes; ``predict`` as
    :func:`featkit.ops.neighbors.nearest_neighbors`. Training rows that are a memory map, a table of
    a store or another source of rows (:class:`featkit.ops.row_sources.RowSource`) are not kept, but
    read and normalised at each search, so that they may be larger than memory.

    Source: Wu et al. 2018, arXiv:1805.01978, sec. 3.4 (weighted vote); Caron et al. 2021,
    arXiv:2104.14294 (T = 0.07; k = 20 was the best there).

    Example:
        >>> bank, labels = [[1.0, 0.0], [1.0, 0.2], [0.0, 1.0]], ["cat", "cat", "dog"]
        >>> KNNClassifier(k=1, device="cpu").fit(bank, labels).predict([[0.1, 2.0]])
        array(['dog'], dtype='<U3')
    """

    def __init__(
        self,
        k: int = 20,
        vote: str = "majority",
        temperature: float = 0.07,
        device: str = "auto",
        approximate: Kind | None = None,
        recall: float = 0.95,
    ) -> None:
        self.k = k
        self.vote = vote
        self.temperature = temperature
        self.device = device
        self.approximate = approximate
        self.recall = recall

    def fit(self, X: Given, y: npt.ArrayLike) -> Self:  # noqa: N803
        """Keep the normalised rows and their labels.

        Args:
            X: (n, d), finite; float32, float16 and float64 are read as they are, and what is mapped
                into memory must stay as it is.
            y: labels (n), whole numbers or strings.

        Returns:
            This estimator.

        Raises:
            UsageError: shapes or values cannot be used.
        """
        features, labels = self._validated(X, y=y)
        self._temperature()
        self.classes_, self._labels = np.unique(labels, return_inverse=True)
        self._bank: Rows
        if isinstance(features, np.ndarray) and not is_mapped(features):
            self._bank = unit_rows(features, name="X")
        else:
            check_finite(as_rows(features, "X"), "X")
            self._bank = features
        if self.approximate is not None:
            self.neighbors_ = ApproximateNeighbors(
                self.k, self.approximate, self.recall, self.device
            ).fit(self._bank)
        return self

    def kneighbors(
        self,
        X: Given | None = None,  # noqa: N803
        n_neighbors: int | None = None,
    ) -> tuple[Floats, Integers]:
        """Find the most similar training rows.

        Args:
            X: (q, d), or None for the training rows themselves, each without itself.
            n_neighbors: Neighbours of each row; ``k`` if None.

        Returns:
            Similarities (not distances), float32 (q, n_neighbors) in [-1, 1], decreasing, and
            training rows, int64 (q, n_neighbors).

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: shapes, values or ``n_neighbors`` cannot be used.
        """
        check_is_fitted(self)
        k = self.k if n_neighbors is None else n_neighbors
        if self.approximate is not None:
            queries = None if X is None else self._validated(X, reset=False)[0]
            return self.neighbors_.kneighbors(queries, k)
        if X is None:
            return nearest_neighbors(
                self._bank, self._bank, k, exclude_self=True, device=self.device
            )
        (queries,) = self._validated(X, reset=False)
        return nearest_neighbors(queries, self._bank, k, device=self.device)

    def predict(self, X: Given) -> npt.NDArray[Any]:  # noqa: N803
        """Predict the class of each row.

        Args:
            X: (q, d), finite.

        Returns:
            Labels (q), of the type that ``fit`` saw.

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: shapes, values or parameters cannot be used.
        """
        similarities, labels, temperature = self._votes(X)
        k, c = labels.shape[1], len(self.classes_)
        if temperature is None:
            winners = majority_vote(similarities, labels, c, [k])[k]
        else:
            winners = dino_vote(similarities, labels, c, [k], temperature=temperature)[k]
        return self.classes_[winners]

    def predict_proba(self, X: Given) -> npt.NDArray[np.float64]:  # noqa: N803
        """Return the share of the vote of each class.

        ``Σ_j w_j [y_j = c] / Σ_j w_j``. Where classes tie, ``predict`` takes the nearer one and
        ``argmax`` over these shares the first in ``classes_``.

        Args:
            X: (q, d), finite.

        Returns:
            float64 (q, c) in [0, 1]; columns as in ``classes_``, rows sum to 1.

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: shapes, values or parameters cannot be used.
        """
        similarities, labels, temperature = self._votes(X)
        weights = vote_weights(similarities, temperature)
        shares = np.zeros((len(labels), len(self.classes_)))
        rows = np.arange(len(labels))
        for j in range(labels.shape[1]):
            shares[rows, labels[:, j]] += weights[:, j]
        shares /= weights.sum(axis=1, keepdims=True)
        return shares

    def _votes(self, X: Given) -> tuple[Floats, Integers, float | None]:  # noqa: N803
        check_is_fitted(self)
        temperature = self._temperature()
        similarities, rows = self.kneighbors(X)
        return similarities, self._labels[rows], temperature

    def _temperature(self) -> float | None:
        if self.vote not in {"majority", "dino"}:
            raise UsageError(f"vote is {self.vote!r}: give majority or dino")
        return self.temperature if self.vote == "dino" else None

    def _validated(self, X: Any, **checks: Any) -> tuple[Any, ...]:  # noqa: N803
        """Check as scikit-learn does, but say it in one line; ``unit_rows`` looks for NaN.

        Of a source of rows the first is checked, whose form is that of all.
        """
        if isinstance(X, torch.Tensor):
            X = (X.float() if X.dtype == torch.bfloat16 else X).detach().cpu().numpy()  # noqa: N806
        streamed = isinstance(X, RowSource) and not isinstance(X, np.ndarray)
        try:
            if streamed and "y" in checks:
                labels = column_or_1d(checks.pop("y"), warn=True)
                check_consistent_length(X, labels)
            found = validate_data(
                self,
                np.asarray(X[:1]) if streamed else X,
                dtype=[np.float32, np.float16, np.float64],
                ensure_all_finite=False,
                **checks,
            )
            if streamed:
                found = (X, labels) if "reset" not in checks else X
            if isinstance(found, tuple):
                check_classification_targets(found[1])
        except ValueError as error:
            raise UsageError(" ".join(str(error).split())) from error
        return found if isinstance(found, tuple) else (found,)
