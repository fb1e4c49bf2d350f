"""Which rows give the second derivatives of a logistic regression where not all can be held."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from featkit.ops.logistic_losses import Loss
from featkit.ops.logistic_rows import Rows
from featkit.ops.matrices import Doubles, Integers

SCORED = 3  # penalties whose coefficients say how much a row bends
DEFENSIVE = 0.1  # share of the chances that is the same for all rows
FEW = 2**15  # rows that say how much all bend
RARE = 1e-3  # of the class that bends most: one that bends less counts as this much
SCORES = 2**13  # logits of a row that are looked at together


def draw_rows(
    rows: Rows, loss: Loss, start: Tensor, count: int, rng: np.random.Generator
) -> tuple[Integers, Tensor]:
    """Draw rows in proportion to how much they bend the objective, some of them anyway.

    Of classes that are well apart few rows bend anything. What a row bends is its share of what all
    rows bend in a class, so that enough are drawn for one that is rare.

    Args:
        rows: (m, d).
        loss: Of one row.
        start: Coefficients of penalties that ascend or descend, float64 (q, k, c, d + 1).
        count: Rows to draw.
        rng: Draws them.

    Returns:
        Which rows, ascending, (count), and how many each stands for, the inverse of its chance,
        float32.

    Source: second derivatives of the loss as chances, Xu et al. 2016, arXiv:1607.00559, without the
    lengths of the rows; a defensive part that is uniform, Owen & Zhou 2000, JASA 95:135.
    """
    q, k, c, _ = start.shape
    places = np.linspace(0, q - 1, SCORED if SCORED * k * c <= SCORES else 1)
    scored = start[np.unique(places.round().astype(int))].flatten(0, 1)
    columns = torch.arange(k).repeat(len(scored) // k)
    few = rows.sample(np.sort(rng.permutation(len(rows))[:FEW]))
    sums = torch.stack([bends.sum(1) for _, bends in few.bends(loss, scored, columns)]).sum(0)
    means = (sums / len(few)).view(-1, k * c)
    means = means.maximum(RARE * means.amax(1, keepdim=True)).clamp_(min=1e-30).view(-1, 1)
    sizes = np.empty(len(rows))
    for part, bends in rows.bends(loss, scored, columns):
        sizes[part] = (bends / means).mean(0).numpy()
    sizes *= (1 - DEFENSIVE) / max(float(sizes.mean()), 1e-30)
    sizes += DEFENSIVE
    chances = inclusion_chances(sizes, count)
    order = rng.permutation(len(rows))  # rows may lie in a rhythm
    places = chances[order]
    np.floor(np.cumsum(places, out=places) + rng.random(), out=places)
    kept = np.sort(order[np.append(places[0] > 0, places[1:] > places[:-1])])
    return kept, torch.from_numpy(1 / chances[kept]).float()


def inclusion_chances(sizes: Doubles, count: int) -> Doubles:
    """Return chances in proportion to sizes, of which none is above 1 and the sum is ``count``.

    Args:
        sizes: Above 0, (m).
        count: Less than m.

    Example:
        >>> inclusion_chances(np.array([1.0, 1, 2, 16]), 2)
        array([0.25, 0.25, 0.5 , 1.  ])
    """
    chances: Doubles = sizes * (count / sizes.sum())
    sure = chances > 1
    while (chances > 1).any():
        chances[sure] = 1
        chances[~sure] *= (count - sure.sum()) / chances[~sure].sum()
        sure |= chances > 1
    return chances
