"""Rows drawn by how much they bend: against automatic differentiation, and sums over all rows."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from featkit.ops import logistic_draws, logistic_rows
from featkit.ops.logistic import fit_logistic
from featkit.ops.logistic_draws import draw_rows, inclusion_chances
from featkit.ops.logistic_losses import Loss, OneVersusRest, Softmax
from featkit.ops.logistic_rows import Rows

N, D, C = 300, 3, 4


def made(loss: Loss, seed: int = 0) -> tuple[Rows, Tensor]:
    """Return rows, and coefficients of three penalties (3, k, c, d + 1)."""
    rng = np.random.default_rng(seed)
    x = 2 * rng.standard_normal((N, D)) + 1
    if isinstance(loss, Softmax):
        targets, shape = torch.from_numpy(rng.integers(0, C, N)), (3, 1, C, D + 1)
    else:
        targets, shape = torch.from_numpy(rng.choice([-1.0, 1.0], (C, N))), (3, C, 1, D + 1)
    return Rows(x, targets, np.arange(N)), torch.from_numpy(rng.standard_normal(shape))


@pytest.mark.parametrize("loss", [Softmax(), OneVersusRest()])
def test_bends_are_second_derivatives(loss: Loss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_rows, "BLOCK", 64)
    rows, start = made(loss)
    at = start[0]
    columns = torch.arange(len(at))
    found = torch.cat([bends for _, bends in rows.bends(loss, at, columns)], 1)
    assert [part.start for part, _ in rows.bends(loss, at, columns)] == [0, 64, 128, 192, 256]
    x = torch.from_numpy(np.c_[rows.features - rows.features.mean(0), np.ones(N)])
    for i in range(0, N, 7):

        def of(logits: Tensor, i: int = i) -> Tensor:
            if isinstance(loss, Softmax):
                return torch.nn.functional.cross_entropy(logits, rows.targets[i])
            return torch.nn.functional.softplus(-rows.targets[:, i] * logits).sum()

        hessian = torch.autograd.functional.hessian(of, at.flatten(0, 1) @ x[i])
        assert isinstance(hessian, Tensor)
        torch.testing.assert_close(found[:, i], hessian.diagonal())


@pytest.mark.parametrize("loss", [Softmax(), OneVersusRest()])
def test_sums_over_the_drawn_are_those_over_all(loss: Loss) -> None:
    """On the average over draws; each draw holds as many rows as asked for, none twice."""
    rows, start = made(loss)
    values = np.c_[np.ones(N), rows.features, rows.features[:, :1] ** 2]
    sums = []
    for seed in range(300):
        kept, counts = draw_rows(rows, loss, start, 90, np.random.default_rng(seed))
        assert len(kept) == len(set(kept.tolist())) == len(counts) == 90
        assert (np.diff(kept) > 0).all()
        assert 1 <= float(counts.min()) <= float(counts.max()) < 10 * N / 90 + 1e-3
        sums.append(counts.numpy() @ values[kept])
    error = np.std(sums, axis=0) / 300**0.5
    assert (np.abs(np.mean(sums, axis=0) - values.sum(0)) < 4 * error).all()


def test_rows_that_bend_are_drawn_for_sure_however_few_they_are() -> None:
    rng = np.random.default_rng(0)
    x = 100.0 * rng.choice([-1, 1], (5000, 1))
    bending = np.arange(7, 5000, 500)
    x[bending] = rng.standard_normal((10, 1))
    rows = Rows(x, torch.from_numpy((x[:, 0] > 0).astype(np.int64)), np.arange(5000))
    start = torch.tensor([[[[1.0, 0.0], [-1.0, 0.0]]]], dtype=torch.float64)
    kept, counts = draw_rows(rows, Softmax(), start, 60, rng)
    assert set(bending) <= set(kept)
    assert (counts[np.isin(kept, bending)] == 1).all()
    flat = torch.full_like(start, 1e4)  # nothing bends at all
    kept, counts = draw_rows(rows, Softmax(), flat, 60, rng)
    np.testing.assert_allclose(counts, 5000 / 60, rtol=1e-5)


def test_as_many_are_drawn_of_a_rare_label_as_bend_it() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 2))
    common, rare = rng.random(20_000) < 0.5, np.arange(20_000) % 500 == 0
    x[:, 1] += 8 * rare
    targets = torch.from_numpy(np.where([common, rare], 1.0, -1.0))
    rows = Rows(x, targets, np.arange(20_000))
    start = torch.tensor([[[[0.0, 0.0, 0.0]], [[0.0, 3.0, -12.0]]]], dtype=torch.float64)
    kept, _ = draw_rows(rows, OneVersusRest(), start, 400, rng)
    near = np.flatnonzero(x[:, 1] > 2.5)  # what bends the second label
    assert len(near) < 400
    assert np.isin(near, kept).mean() > 0.4
    assert len(kept) - np.isin(kept, near).sum() > 150  # the first one bends everywhere


def test_a_penalty_whose_classes_are_apart_counts_like_others() -> None:
    """One bends everywhere, the other hardly anywhere; both say which rows are drawn."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20_000, 1))
    rows = Rows(x, torch.from_numpy((x[:, 0] > 0).astype(np.int64)), np.arange(20_000))
    start = torch.tensor([[[[0.0, 0.0], [0.0, 0.0]]], [[[-1e4, 0.0], [1e4, 0.0]]]]).double()
    kept, counts = draw_rows(rows, Softmax(), start, 200, rng)
    near = np.flatnonzero(np.abs(x[:, 0] - x.mean()) < 2e-4)
    assert len(near) < 20
    assert np.isin(near, kept).all()
    assert float(counts.max()) < 300


def test_few_rows_that_bend_may_be_missed_by_those_that_are_looked_at(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The share of rows that are drawn anyway stays what it is."""
    monkeypatch.setattr(logistic_draws, "FEW", 10)
    rows, start = made(Softmax())
    for seed in range(20):
        _, counts = draw_rows(rows, Softmax(), 20 * start, 30, np.random.default_rng(seed))
        assert float(counts.max()) < 10 * N / 30 + 1e-3


def test_chances_are_in_proportion_to_sizes_up_to_one() -> None:
    rng = np.random.default_rng(0)
    for count in (1, 10, 100, 199):
        sizes = rng.exponential(size=200) ** 4 + 1e-3
        chances = inclusion_chances(sizes, count)
        np.testing.assert_allclose(chances.sum(), count)
        assert (chances <= 1).all()
        free = chances < 1
        assert sizes[free].max() <= sizes[~free].min(initial=np.inf)
        ratio = chances[free] / sizes[free]
        np.testing.assert_allclose(ratio, ratio[0])


@pytest.mark.parametrize("held", [60, 300])
def test_classes_far_apart_find_their_optimum_from_few_rows(held: int) -> None:
    """Against the fit that holds all; hardly more rows than features, of which few bend."""
    rng = np.random.default_rng(0)
    y = rng.integers(0, 2, 4000)
    x = rng.standard_normal((4000, 40))
    x[:, 0] += 5 * y
    wanted = fit_logistic(x, y, 2, [0.1, 0.01], tol=1e-10)
    start = wanted.weights[[0]], wanted.biases[[0]]
    few = held * 41 * 40 / 1e9
    found = fit_logistic(x, y, 2, [0.01], start=start, max_memory=few, max_iter=30)
    assert found.converged.all()
    np.testing.assert_allclose(found.objectives, wanted.objectives[[1]], rtol=2e-5)
    path = fit_logistic(x, y, 2, [0.1, 0.01], max_memory=few, max_iter=60)
    assert path.converged.all()
    np.testing.assert_allclose(path.objectives, wanted.objectives, rtol=2e-5)
    cut = fit_logistic(x, y, 2, [0.01], start=start, max_memory=few, max_iter=2)
    assert not cut.converged.any()
    assert cut.iterations == [2]


def test_fewer_rows_than_features_lead_out_of_what_they_span() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2000, 40)), rng.integers(0, 3, 2000)
    wanted = fit_logistic(x, y, 3, [1.0], tol=1e-10)
    found = fit_logistic(x, y, 3, [1.0], max_memory=25 * 41 * 40 / 1e9)
    assert found.converged.all()
    np.testing.assert_allclose(found.objectives, wanted.objectives, rtol=2e-5)


def test_rare_columns_find_their_optimum_from_few_rows() -> None:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((8000, 12))
    y = (x @ rng.standard_normal((12, 6)) + 2 * rng.standard_normal((8000, 6)) > 0).astype(int)
    y[:, 5] = 4 * x[:, 5] + rng.standard_normal(8000) > 10
    assert 20 < y[:, 5].sum() < 200
    wanted = fit_logistic(x, y, 6, [1.0, 0.01], tol=1e-10)
    found = fit_logistic(x, y, 6, [1.0, 0.01], max_memory=300 * 13 * 40 / 1e9, max_iter=60)
    assert found.converged.all()
    np.testing.assert_allclose(found.objectives, wanted.objectives, rtol=2e-5)
