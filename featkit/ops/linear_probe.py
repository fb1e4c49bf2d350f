"""The linear probe: logistic regression, its penalty chosen on held-out rows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
from scipy.special import expit, softmax  # type: ignore[import-untyped]
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted

from featkit.errors import UsageError
from featkit.ops.average_precision import eleven_point_average_precision
from featkit.ops.hold_out import hold_out
from featkit.ops.logistic import Doubles, LogisticPath, fit_logistic
from featkit.ops.matrices import row_numbers
from featkit.ops.neighbors import BLOCK, Array, Integers

PENALTIES = tuple(np.logspace(-6, 5, 45).tolist())


class LinearProbe(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify by logistic regression, with the best of several penalties.

    ``min Σ_i -log softmax(W x_i + b)_{y_i} + λ/2 ‖W‖²`` for each λ on a random part of the rows; of
    the λ that classify the others best the first is taken, and learns once more from all rows.
    Features are taken as they are. Where rows can have several labels there is one classifier a
    column, ``log(1 + exp(∓(w_k·x + b_k)))``, judged by the mean 11-point average precision.

    Args:
        penalties: λ, each 0 or more; 0 alone is the unregularised probe.
        validation: Share of the rows that is held out, in (0, 1); None for one penalty, which is
            then not judged.
        tol: A fit ends with the step that promises less than this share of its objective.
        max_iter: Newton steps of a fit, at most.
        random_state: Seed of :func:`~featkit.ops.hold_out.hold_out`, which draws the rows that are
            held out.
        max_memory: GB that a fit may take beside its rows and labels; None for up to 10. Where rows
            do not fit, they are read in every pass.

    Attributes:
        classes_: The distinct labels, sorted, (c); of columns their numbers.
        coef_: float64 (c, d).
        intercept_: float64 (c).
        penalty_: The λ chosen.
        validation_scores_: float64 (q), one for each λ, in [0, 1].
        held_out_: Places in ``y`` of the rows that were held out, in the order drawn, (h).
        held_out_logits_: Their logits, by the classifier with the λ chosen that has not seen them,
            float64 (h, c); -inf for a class of which it has seen no row.
        converged_: Whether the last fit met ``tol``.
        n_features_in_: d.

    Cost: that of :func:`featkit.ops.logistic.fit_logistic` for all λ, and for one. Memory-mapped
    rows are read block by block, those held out twice, of columns once more than there are λ.

    Source: Ericsson, Gouk and Hospedales 2021, arXiv:2011.13377, and their code: 45 λ from 1e-6 to
    1e5, a fifth held out, the last fit on all rows.

    Example:
        >>> x, y = [[0.0], [0.2], [0.1], [0.9], [1.0], [1.1]] * 4, ["low"] * 3 + ["high"] * 3
        >>> probe = LinearProbe().fit(x, y * 4)
        >>> probe.predict([[-1.0], [3.0]])
        array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        penalties: Sequence[float] = PENALTIES,
        validation: float | None = 0.2,
        tol: float = 1e-5,
        max_iter: int = 100,
        random_state: int = 0,
        max_memory: float | None = None,
    ) -> None:
        self.penalties = penalties
        self.validation = validation
        self.tol = tol
        self.max_iter = max_iter
        self.random_state = random_state
        self.max_memory = max_memory

    def fit(
        self,
        X: npt.ArrayLike,  # noqa: N803
        y: npt.ArrayLike,
        rows: npt.ArrayLike | None = None,
    ) -> Self:
        """Choose a penalty and learn with it.

        Args:
            X: (n, d); the rows that take part are finite.
            y: Of each row that takes part: its label (m), whole numbers or strings; or 0 and 1,
                (m, k).
            rows: Those of ``X`` that take part, different whole numbers (m); all if None.

        Returns:
            This estimator.

        Raises:
            UsageError: Shapes, values or parameters cannot be used; there is one class only.
        """
        x, targets, order = self._checked(X, y, rows)
        penalties = [float(penalty) for penalty in self.penalties]
        start = None
        best = 0
        if self.validation is not None:
            self.held_out_, others = hold_out(len(order), self.validation, self.random_state)
            kept = np.sort(others)
            path, known = self._tried(x, targets, order, kept, penalties)
            self.validation_scores_ = self._judged(x, targets, order, path, known)
            best = int(self.validation_scores_.argmax())
            self.held_out_logits_ = self._of_held_out(x, order, path, known, best)
            if len(known) == len(self.classes_):
                start = path.weights[[best]], path.biases[[best]]
        elif len(penalties) != 1:
            raise UsageError(
                f"{len(penalties)} penalties and validation None: give one, or a share to hold out"
            )
        self.penalty_ = penalties[best]
        found = fit_logistic(
            x, _placed(targets, order, len(x)), len(self.classes_), [self.penalty_], rows=order,
            start=start, tol=self.tol, max_iter=self.max_iter, max_memory=self.max_memory,
        )  # fmt: skip
        self.coef_, self.intercept_ = found.weights[0], found.biases[0]
        self.converged_ = bool(found.converged[0])
        return self

    def logits(self, X: npt.ArrayLike, rows: npt.ArrayLike | None = None) -> Doubles:  # noqa: N803
        """Return the logits of rows, one for each class.

        Args:
            X: (n, d); the rows that are asked are finite.
            rows: Those of ``X`` that are asked, whole numbers (m); all if None.

        Returns:
            float64 (m, c).

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: Shapes or values cannot be used.
        """
        check_is_fitted(self)
        x = np.asarray(X)
        if x.ndim != 2 or x.shape[1] != self.n_features_in_:
            raise UsageError(f"features are {x.shape}: give (rows, {self.n_features_in_})")
        order = row_numbers(rows, len(x))
        logits = np.empty((len(order), len(self.intercept_)))
        for begin in range(0, len(order), BLOCK):
            part = slice(begin, begin + BLOCK)
            with np.errstate(invalid="ignore", over="ignore"):  # refused below
                logits[part] = x[order[part]] @ self.coef_.T + self.intercept_
        if not np.isfinite(logits).all():
            raise UsageError("features hold NaN or infinity: leave those rows out")
        return logits

    def decision_function(self, X: npt.ArrayLike) -> Doubles:  # noqa: N803
        """Return the logits of rows, (m, c); of two classes the second's less the first's, (m)."""
        logits = self.logits(X)
        if len(self.classes_) == 2 and not self._has_columns:
            return logits[:, 1] - logits[:, 0]
        return logits

    def predict_proba(self, X: npt.ArrayLike) -> Doubles:  # noqa: N803
        """Return the probability of each class, (m, c); of each label by itself for columns."""
        logits = self.logits(X)
        found: Doubles = expit(logits) if self._has_columns else softmax(logits, axis=1)
        return found

    def predict(self, X: npt.ArrayLike) -> Array:  # noqa: N803
        """Return the most probable label of each row, (m); 0 and 1, (m, k), for columns."""
        logits = self.logits(X)
        if self._has_columns:
            return (logits > 0).astype(np.int64)
        labels: Array = self.classes_[logits.argmax(1)]
        return labels

    def score(
        self,
        X: npt.ArrayLike,  # noqa: N803
        y: npt.ArrayLike,
        sample_weight: npt.ArrayLike | None = None,
    ) -> float:
        """Return the accuracy; for columns the mean 11-point average precision, unweighted."""
        check_is_fitted(self)
        if self._has_columns:
            return _precision(self.logits(X), np.asarray(y))
        return float(super().score(X, y, sample_weight))

    def __sklearn_tags__(self) -> Any:
        tags = super().__sklearn_tags__()
        tags.classifier_tags.multi_label = True
        return tags

    def _checked(
        self, given: npt.ArrayLike, labels: npt.ArrayLike, rows: npt.ArrayLike | None
    ) -> tuple[Array, Array, Integers]:
        x, y = np.asarray(given), np.asarray(labels)
        if x.ndim != 2 or y.ndim not in (1, 2) or (rows is None and len(x) != len(y)):
            raise UsageError(f"X is {x.shape} and y {y.shape}: give (n, d), and (n) or (n, k)")
        order = row_numbers(rows, len(x))
        if len(order) != len(y):
            raise UsageError(f"{len(order)} rows and {len(y)} in y: give one for each")
        self.n_features_in_ = x.shape[1]
        self._has_columns = y.ndim == 2
        if self._has_columns:
            self.classes_ = np.arange(y.shape[1])
            return x, y, order
        try:
            with np.errstate(invalid="ignore"):  # NaN is refused
                check_classification_targets(y)
        except ValueError as error:
            said = " ".join(str(error).split())
            raise UsageError(
                f"y is {y.dtype}: give labels, whole numbers or strings ({said})"
            ) from error
        self.classes_, numbers = np.unique(y, return_inverse=True)
        if len(self.classes_) < 2:
            raise UsageError(f"one class only, {self.classes_[0]!s}: give rows of two or more")
        return x, numbers, order

    def _tried(
        self, x: Array, targets: Array, order: Integers, kept: Integers, penalties: list[float]
    ) -> tuple[LogisticPath, Integers]:
        """Fit every penalty on those kept among the rows; return also which classes these have."""
        known = np.arange(len(self.classes_)) if self._has_columns else np.unique(targets[kept])
        numbers = targets
        if not self._has_columns:
            if len(known) < 2:
                raise UsageError(
                    f"the {len(kept)} samples that are not held out are of one class: give more"
                )
            # rows of other classes are not among those kept
            numbers = np.searchsorted(known, targets).clip(max=len(known) - 1)
        path = fit_logistic(
            x, _placed(numbers, order, len(x)), len(known), penalties, rows=order[kept],
            tol=self.tol, max_iter=self.max_iter, max_memory=self.max_memory,
        )  # fmt: skip
        return path, known

    def _judged(
        self, x: Array, targets: Array, order: Integers, path: LogisticPath, known: Integers
    ) -> Doubles:
        """Return the score of each penalty on the rows held out; labels are read in one pass."""
        wanted, q = targets[self.held_out_], len(path.weights)
        if self._has_columns:
            logits = (self._of_held_out(x, order, path, known, index) for index in range(q))
            return np.array([_precision(found, wanted) for found in logits])
        right = np.zeros(q)
        for part, rows in self._held_out_rows(x, order):
            for index in range(q):
                found = (rows @ path.weights[index].T + path.biases[index]).argmax(1)
                right[index] += (known[found] == wanted[part]).sum()
        return right / len(wanted)

    def _of_held_out(
        self, x: Array, order: Integers, path: LogisticPath, known: Integers, index: int
    ) -> Doubles:
        """Return the logits of the rows held out for one penalty, (h, c)."""
        logits = np.full((len(self.held_out_), len(self.classes_)), -np.inf)
        for part, rows in self._held_out_rows(x, order):
            logits[part[:, None], known] = rows @ path.weights[index].T + path.biases[index]
        return logits

    def _held_out_rows(self, x: Array, order: Integers) -> Iterator[tuple[Integers, Doubles]]:
        """Give places and rows of those held out, block by block, as they lie in a file."""
        numbers = order[self.held_out_]
        ascending = np.argsort(numbers)
        for begin in range(0, len(numbers), BLOCK):
            part = ascending[begin : begin + BLOCK]
            yield part, x[numbers[part]].astype(np.float64)


def _placed(targets: Array, order: Integers, n: int) -> Array:
    """Return targets at the numbers of their rows; 0 for rows that take no part."""
    if len(order) == n and (order == np.arange(n)).all():
        return targets
    placed = np.zeros((n, *targets.shape[1:]), targets.dtype)
    placed[order] = targets
    return placed


def _precision(logits: Array, targets: Array) -> float:
    """Return the mean average precision of the columns that have any."""
    asked = targets.any(0)
    if not asked.any():
        raise UsageError("none of the rows that are judged has a label: give more rows")
    return float(eleven_point_average_precision(logits, targets)[asked].mean())
