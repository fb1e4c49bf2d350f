"""Linear evaluation: logistic regression by SGD, its weight decay chosen on held-out rows."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import numpy.typing as npt
import torch
from sklearn.base import BaseEstimator, ClassifierMixin
from sklearn.utils.multiclass import check_classification_targets
from sklearn.utils.validation import check_is_fitted, validate_data
from torch import Tensor

from featkit.errors import UsageError
from featkit.ops.hold_out import hold_out
from featkit.ops.neighbors import BLOCK, whole_number

MOMENTUM = 0.9


class LinearEvaluation(ClassifierMixin, BaseEstimator):  # type: ignore[misc]
    """Classify by logistic regression, trained by SGD with the best of several weight decays.

    Each weight decay λ is tried on a random part of the training rows and judged on the others; of
    equally accurate ones the first is taken. The best one trains once more on all rows. Features
    are taken as they are: whether to normalise them is the caller's choice.

    Args:
        epochs: Passes over the rows.
        batch_size: Rows in a step.
        lr: Learning rate of the first step.
        weight_decays: λ, each 0 or more.
        validation: Share of the rows that is held out, in (0, 1).
        random_state: Seed of the ``torch.Generator`` that draws in turn the rows that are held out,
            by :func:`~featkit.ops.hold_out.hold_out`, one ``randperm`` of the others an epoch, and
            one ``randperm(n)`` an epoch of the last training.

    Attributes:
        classes_: The distinct labels, sorted, (c).
        coef_: float32 (c, d).
        intercept_: float32 (c).
        weight_decay_: The λ chosen.
        validation_accuracy_: float64, one for each λ, in [0, 1]; 0 where training diverged.
        n_features_in_: d.

    Cost: ``fit`` takes 4·n·d·c·(q + 1) operations an epoch for q weight decays; memory 4·n·d bytes,
    unless ``X`` is float32, contiguous and writable, and 4·q·c·(batch_size + 3·d).

    Source: Wallace et al. 2021, arXiv:2110.10293, appendix A.2: the defaults. It names neither the
    loss nor the rest, and "a protocol similar to" Grill et al. 2020, arXiv:2006.07733, and
    Kornblith et al. 2019, arXiv:1805.08974. From these are logistic regression, Nesterov momentum
    of 0.9, and the last training on all rows. Ours are a cosine decay of the learning rate to 0,
    the start from zero, and that biases do not decay.

    Example:
        >>> X, y = [[0.0], [0.2], [0.1], [0.9], [1.0], [1.1]] * 2, ["low"] * 3 + ["high"] * 3
        >>> LinearEvaluation(epochs=50).fit(X, y * 2).predict([[-1.0], [3.0]])
        array(['low', 'high'], dtype='<U4')
    """

    def __init__(
        self,
        epochs: int = 1000,
        batch_size: int = 4096,
        lr: float = 1.6,
        weight_decays: Sequence[float] = (1e-6, 1e-5, 1e-4, 1e-3, 1e-2),
        validation: float = 0.1,
        random_state: int = 0,
    ) -> None:
        self.epochs = epochs
        self.batch_size = batch_size
        self.lr = lr
        self.weight_decays = weight_decays
        self.validation = validation
        self.random_state = random_state

    def fit(self, X: npt.ArrayLike, y: npt.ArrayLike) -> Self:  # noqa: N803
        """Choose a weight decay and train with it.

        Args:
            X: (n, d), finite.
            y: labels (n), whole numbers or strings.

        Returns:
            This estimator.

        Raises:
            UsageError: shapes, values or parameters cannot be used; every training diverged.
        """
        decays = self._checked_decays()
        x, labels = self._validated(X, y=y)
        self.classes_, numbers = np.unique(labels, return_inverse=True)
        features = torch.from_numpy(np.require(x, requirements=["C", "W"]))
        targets = torch.from_numpy(numbers)
        generator = torch.Generator().manual_seed(int(self.random_state))
        drawn = hold_out(len(features), self.validation, generator)
        held_out, kept = map(torch.from_numpy, drawn)
        tried = self._trained(features, targets, kept, decays, generator)
        self.validation_accuracy_ = _accuracies(features, targets, held_out, *tried)
        best = int(self.validation_accuracy_.argmax())
        self.weight_decay_ = decays[best]
        everything = torch.arange(len(features))
        weights, biases = self._trained(
            features, targets, everything, [self.weight_decay_], generator
        )
        self.coef_, self.intercept_ = weights[0].numpy(), biases[0].numpy()
        return self

    def predict(self, X: npt.ArrayLike) -> npt.NDArray[Any]:  # noqa: N803
        """Predict the class of each row.

        Args:
            X: (m, d), finite.

        Returns:
            Labels (m), of the type that ``fit`` saw.

        Raises:
            NotFittedError: ``fit`` has not been called.
            UsageError: shapes or values cannot be used.
        """
        logits = self.logits(X)
        labels: npt.NDArray[Any] = self.classes_[logits.argmax(1)]
        return labels

    def logits(self, X: npt.ArrayLike) -> npt.NDArray[np.float32]:  # noqa: N803
        """Return the logits of rows, float32 (m, c); ``X`` and ``Raises`` as in ``predict``."""
        check_is_fitted(self)
        (x,) = self._validated(X, reset=False)
        found: npt.NDArray[np.float32] = x @ self.coef_.T + self.intercept_
        return found

    def _trained(
        self,
        features: Tensor,
        labels: Tensor,
        rows: Tensor,
        decays: Sequence[float],
        generator: torch.Generator,
    ) -> tuple[Tensor, Tensor]:
        weights, biases = train_softmax(
            features,
            labels,
            rows,
            len(self.classes_),
            decays,
            epochs=self.epochs,
            batch_size=self.batch_size,
            lr=self.lr,
            generator=generator,
        )
        if not _finite(weights, biases).any():
            raise UsageError(
                f"training diverged with lr {self.lr} and weight decay"
                f" {', '.join(map(str, decays))}: lower lr, or normalise the features"
            )
        return weights, biases

    def _checked_decays(self) -> list[float]:
        whole_number(self.epochs, "epochs")
        whole_number(self.batch_size, "batch_size")
        if not 0 < self.lr < np.inf:
            raise UsageError(f"lr is {self.lr}: give a positive number, such as 1.6")
        if not isinstance(self.random_state, int | np.integer):
            raise UsageError(f"random_state is {self.random_state!r}: give a whole number")
        decays = list(self.weight_decays)
        if not decays or not all(0 <= decay < np.inf for decay in decays):
            raise UsageError(f"weight_decays are {decays}: give some numbers, each 0 or more")
        return decays

    def _validated(self, X: Any, **checks: Any) -> tuple[Any, ...]:  # noqa: N803
        """Check as scikit-learn does, but say it in one line."""
        try:
            found = validate_data(self, X, dtype=np.float32, **checks)
            if "y" in checks:
                check_classification_targets(found[1])
        except ValueError as error:
            raise UsageError(" ".join(str(error).split())) from error
        return found if "y" in checks else (found,)


def train_softmax(
    features: Tensor,
    labels: Tensor,
    rows: Tensor,
    n_classes: int,
    decays: Sequence[float],
    *,
    epochs: int,
    batch_size: int,
    lr: float,
    generator: torch.Generator,
) -> tuple[Tensor, Tensor]:
    """Train logistic regressions that differ in weight decay, all of them on the same batches.

    SGD with Nesterov momentum from zero on the batch's mean of ``-log softmax(W x + b)_y``, to
    whose gradient λ W is added; after t of T steps the learning rate is
    ``lr (1 + cos(π t / T)) / 2``.

    Args:
        features: float32 (n, d), contiguous.
        labels: int64 (n) in [0, n_classes).
        rows: int64 (m), those to train on.
        n_classes: c.
        decays: λ, q of them.
        epochs: Passes over ``rows``.
        batch_size: Rows in a step; the last of an epoch may have fewer.
        lr: Learning rate.
        generator: Draws one ``randperm(m)`` an epoch.

    Returns:
        Weights (q, c, d) and biases (q, c), float32; not finite where training diverged.

    Cost: 4·m·d·q·c operations an epoch. A batch's rows are copied to one place, and all products
    are one with a matrix (q·c, d). Classes come before rows in memory, since a softmax over
    neighbouring numbers takes 20 times as long.
    """
    (_, d), q, c = features.shape, len(decays), n_classes
    most = min(batch_size, len(rows))
    weights, biases = torch.zeros(q * c, d), torch.zeros(q * c)
    momentum, bias_momentum = torch.zeros_like(weights), torch.zeros_like(biases)
    gradient = torch.empty_like(weights)
    decay = torch.tensor(decays, dtype=torch.float32).repeat_interleave(c)[:, None]
    gathered, memory = torch.empty(most, d), torch.empty(q * c * most)
    minus_one = torch.tensor(-1.0)
    step, steps = 0, epochs * math.ceil(len(rows) / batch_size)
    for _ in range(epochs):
        order = rows.index_select(0, torch.randperm(len(rows), generator=generator))
        for batch in torch.split(order, batch_size):
            b = len(batch)
            x = torch.index_select(features, 0, batch, out=gathered[:b])
            logits = memory[: q * c * b].view(q * c, b)
            torch.addmm(biases[:, None], weights, x.T, out=logits)
            shares = logits.view(q, c, b)
            shares.sub_(shares.amax(1, keepdim=True)).exp_()
            shares.div_(shares.sum(1, keepdim=True))
            target = labels.index_select(0, batch).expand(q, 1, b)
            shares.scatter_add_(1, target, minus_one.expand(q, 1, b))
            torch.mul(weights, decay, out=gradient).addmm_(logits, x, alpha=1 / b)
            rate = lr * (1 + math.cos(math.pi * step / steps)) / 2
            _nesterov_step(weights, gradient, momentum, rate)
            _nesterov_step(biases, logits.mean(1), bias_momentum, rate)
            step += 1
    return weights.view(q, c, d), biases.view(q, c)


def _nesterov_step(values: Tensor, gradient: Tensor, momentum: Tensor, lr: float) -> None:
    momentum.mul_(MOMENTUM).add_(gradient)
    values.sub_(gradient.add_(momentum, alpha=MOMENTUM), alpha=lr)


def _finite(weights: Tensor, biases: Tensor) -> Tensor:
    return weights.isfinite().all(2).all(1) & biases.isfinite().all(1)


def _accuracies(
    features: Tensor, labels: Tensor, rows: Tensor, weights: Tensor, biases: Tensor
) -> npt.NDArray[np.float64]:
    """Return each training's share of right rows (q), 0 for those that diverged."""
    right = torch.zeros(len(weights), dtype=torch.float64)
    for part in torch.split(rows, BLOCK):
        logits = features[part] @ weights.mT + biases[:, None]
        right += (logits.argmax(2) == labels[part]).sum(1)
    return (right / len(rows) * _finite(weights, biases)).numpy()
