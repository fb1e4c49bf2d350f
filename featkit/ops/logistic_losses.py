"""The two losses of logistic regression on a block of rows, for many problems at once."""

from __future__ import annotations

from typing import Protocol

import torch
from torch import Tensor


class Loss(Protocol):
    """What a solver must know of a loss.

    Logits are (p, c, b): problems, classes, rows. ``columns`` (p) says which column of the targets
    a problem predicts. The ``weights`` of a block are whatever describes its second derivatives.
    """

    def evaluate(
        self, logits: Tensor, targets: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return the summed losses, float64 (p), their derivatives and the weights; both (p, c, b).

        ``logits`` are overwritten.
        """
        ...

    def curve(self, weights: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Return the change of the derivatives where the logits change a little, both (p, c, b)."""
        ...

    def moments(self, weights: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Return the second derivatives summed over rows, each ``counts`` (b) times, (p, c, c)."""
        ...

    def bends(self, weights: Tensor, targets: Tensor) -> Tensor:
        """Return each row's second derivative by each logit, (p, c, b)."""
        ...


class Softmax:
    """``-log softmax(z)_y``; targets are classes, int64 (b).

    The derivative by the logit of the right class is ``softmax(z)_y - 1``, which float32 rounds to
    0 for rows that are fitted well, and those decide where the penalty is small. It is taken as
    minus the sum of the others. The weights are the shares, 0 at the right class.
    """

    def evaluate(
        self, logits: Tensor, targets: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return summed losses, derivatives, and shares of the wrong classes."""
        right = targets.expand(len(columns), 1, -1)
        logits -= logits.amax(1, keepdim=True)
        margin = logits.gather(1, right)
        shares = logits.exp_()
        own = shares.gather(1, right)
        shares.scatter_(1, right, 0.0)
        others = shares.sum(1, keepdim=True)
        total = own + others
        losses = torch.where(others < own, torch.log1p(others / own), total.log() - margin)
        shares /= total
        residuals = shares.scatter(1, right, -others / total)
        return losses.sum((1, 2), dtype=torch.float64), residuals, shares

    def curve(self, weights: Tensor, change: Tensor, targets: Tensor) -> Tensor:
        """Return ``p ∘ (u - p·u)``, that of the right class as minus the sum of the others."""
        right = targets.expand(len(weights), 1, -1)
        wrong = weights.sum(1, keepdim=True)
        own = change.gather(1, right)
        moved = weights * change
        mean = moved.sum(1, keepdim=True).addcmul_(wrong, own, value=-1)
        moved.addcmul_(weights, mean + own, value=-1)
        return moved.scatter_(1, right, mean * (wrong - 1))

    def moments(self, weights: Tensor, targets: Tensor, counts: Tensor) -> Tensor:
        """Return ``Σ_i counts_i (diag(p_i) - p_i p_iᵀ)``; its rows add up to 0."""
        right = targets.expand(len(weights), 1, -1)
        shares = weights.scatter(1, right, 1 - weights.sum(1, keepdim=True))
        products = -(shares * counts) @ shares.mT
        products.diagonal(dim1=1, dim2=2).zero_()
        return products - torch.diag_embed(products.sum(2))

    def bends(self, weights: Tensor, targets: Tensor) -> Tensor:
        """Return ``p ∘ (1 - p)``, that of the right class from the sum of the others."""
        right = targets.expand(len(weights), 1, -1)
        wrong = weights.sum(1, keepdim=True)
        return (weights * (1 - weights)).scatter_(1, right, wrong * (1 - wrong))


class OneVersusRest:
    """``log(1 + exp(-s z))``, s = ±1, a problem a column; targets are s, (k, b).

    The weights are ``σ(z) σ(-z)``.
    """

    def evaluate(
        self, logits: Tensor, targets: Tensor, columns: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Return summed losses, derivatives, and weights."""
        signs = targets[columns].unsqueeze(1).to(logits.dtype)
        margins = logits.mul_(signs)
        wrong = torch.sigmoid(-margins)
        losses = torch.nn.functional.softplus(-margins, threshold=50)
        return (
            losses.sum((1, 2), dtype=torch.float64),
            -signs * wrong,
            wrong * torch.sigmoid(margins),
        )

    def curve(self, weights: Tensor, change: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights times the change."""
        return weights * change

    def moments(self, weights: Tensor, targets: Tensor, counts: Tensor) -> Tensor:  # noqa: ARG002
        """Return the sum of the weights, each ``counts`` times."""
        return (weights * counts).sum(2, keepdim=True)

    def bends(self, weights: Tensor, targets: Tensor) -> Tensor:  # noqa: ARG002
        """Return the weights."""
        return weights
