"""Class blocks against the Hessian of automatic differentiation, and what they are used for."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from featkit.ops import logistic_blocks, logistic_curvature, logistic_rows
from featkit.ops.logistic import fit_logistic
from featkit.ops.logistic_blocks import ClassBlocks, class_block
from featkit.ops.logistic_curvature import Curvature, Hessians
from featkit.ops.logistic_losses import Loss, OneVersusRest, Softmax
from featkit.ops.logistic_rows import Rows

N, D, C = 240, 4, 3
COUNTS = torch.from_numpy(np.random.default_rng(3).integers(1, 4, N)).float()


def made(loss: Loss) -> tuple[Rows, Tensor]:
    """Return rows and coefficients about their mean, biases last, (k, c, d + 1)."""
    rng = np.random.default_rng(0)
    x = rng.standard_normal((N, D)) * [3, 1, 1, 0.3] + 2
    if isinstance(loss, Softmax):
        targets = torch.from_numpy(rng.integers(0, C, N))
        shape = (1, C, D + 1)
    else:
        targets = torch.from_numpy(rng.choice([-1.0, 1.0], (C, N)))
        shape = (C, 1, D + 1)
    return Rows(x, targets, np.arange(N)), torch.from_numpy(rng.standard_normal(shape))


def hessian(loss: Loss, rows: Rows, coefficients: Tensor, penalty: float) -> Tensor:
    """Torch's own losses, rows as often as they count, differentiated twice in float64.

    Returns:
        (k, c, d + 1, c, d + 1).
    """
    x = torch.from_numpy(np.c_[rows.features - rows.features.mean(0), np.ones(N)])
    decay = torch.tensor([penalty] * D + [0.0], dtype=torch.float64)

    def of(column: int) -> Any:
        def objective(w: Tensor) -> Tensor:
            logits = x @ w.T
            if isinstance(loss, Softmax):
                lost = torch.nn.functional.cross_entropy(logits, rows.targets, reduction="none")
            else:
                lost = torch.nn.functional.softplus(-rows.targets[column] * logits[:, 0])
            return COUNTS.double() @ lost + (decay * w.square()).sum() / 2

        return objective

    found = [
        torch.autograd.functional.hessian(of(column), own)
        for column, own in enumerate(coefficients)
    ]
    return torch.stack([part for part in found if isinstance(part, Tensor)])


def weights_of(loss: Loss, rows: Rows, coefficients: Tensor) -> Tensor:
    k, c, _ = coefficients.shape
    weights = torch.empty(k, c, len(rows))

    def keep(part: slice, block: Tensor) -> None:
        weights[:, :, part] = block.float()

    rows.evaluate(loss, coefficients, torch.ones(k), torch.arange(k), keep)
    return weights


def turned(curvature: Curvature) -> Tensor:
    """Return what turns coefficients into the basis, (d + 1, r + 1)."""
    return curvature.inside(torch.eye(D + 1, dtype=torch.float64)).double()


@pytest.mark.parametrize("loss", [Softmax(), OneVersusRest()])
def test_blocks_are_those_on_the_diagonal_of_the_hessian(
    loss: Loss, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logistic_blocks, "DRAWS", 1_000_000)  # of each row about its weight
    monkeypatch.setattr(logistic_blocks, "COMMON", 0.0)
    rows, coefficients = made(loss)
    curvature = Curvature(rows, loss, COUNTS)
    wanted, turn = hessian(loss, rows, coefficients, 7.0), turned(curvature)
    bends = loss.bends(weights_of(loss, rows, coefficients), rows.targets)
    k, c, _ = coefficients.shape
    for column in range(k):
        for name in range(c):
            block = turn.T @ wanted[column, name, :, name] @ turn
            found = class_block(curvature, bends[column, name], 7.0)
            np.testing.assert_allclose(found, block, atol=1e-4 * float(block.abs().max()))


@pytest.mark.parametrize("block", [4096, 64])
def test_rows_drawn_are_few_and_stand_for_all(block: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Against numpy's weighted sum of squares in float64."""
    monkeypatch.setattr(logistic_blocks, "BLOCK", block)
    rng = np.random.default_rng(0)
    x, bend = rng.standard_normal((20_000, 3)), rng.exponential(size=20_000) ** 4
    targets = torch.zeros(20_000, dtype=torch.int64)
    counts = rng.uniform(0.5, 10, len(x))
    rows = Rows(x, targets, np.arange(20_000))
    curvature = Curvature(rows, Softmax(), torch.from_numpy(counts).float())
    monkeypatch.setattr(logistic_blocks, "DRAWS", 200)
    found = class_block(curvature, torch.from_numpy(bend).float(), 5.0)
    centred = torch.from_numpy(np.c_[x - x.mean(0), np.ones(len(x))])
    wide = curvature.inside(centred).double().numpy()
    wanted = (wide * (bend * counts)[:, None]).T @ wide + np.diag([5.0, 5, 5, 0])
    np.testing.assert_allclose(found, wanted, atol=0.15 * wanted.max())
    np.testing.assert_allclose(found[-1, -1], wanted[-1, -1], rtol=1e-2)


def test_inverses_solve_their_blocks_and_leave_out_what_changes_no_share() -> None:
    rng = np.random.default_rng(0)
    root = rng.standard_normal((6, 5, 5))
    inverses = torch.from_numpy(np.linalg.inv(root @ root.swapaxes(1, 2) + np.eye(5))).float()
    x = torch.from_numpy(rng.standard_normal((4, 1, 5))).float()
    alone = ClassBlocks(inverses, torch.tensor([5, 0, 2, 2]))
    wanted = torch.stack([inverses[name] @ v[0] for name, v in zip([5, 0, 2, 2], x, strict=True)])
    torch.testing.assert_close(alone.solve(x)[:, 0], wanted)
    picked = alone.of(torch.tensor([True, False, False, True])).solve(x[[0, 3]])
    torch.testing.assert_close(picked[:, 0], wanted[[0, 3]])
    together = ClassBlocks(inverses, torch.zeros(2, dtype=torch.int64))
    y = torch.from_numpy(rng.standard_normal((2, 6, 5))).float()
    solved = together.solve(y)
    torch.testing.assert_close(solved.mean(1), torch.zeros(2, 5), atol=1e-6, rtol=0)
    torch.testing.assert_close(together.solve(y + 3), solved, atol=1e-5, rtol=0)
    assert ((solved * y).sum((1, 2)) > 0).all()


@pytest.mark.parametrize("loss", [Softmax(), OneVersusRest()])
@pytest.mark.parametrize("negligible", [0.0, 1.0, 30.0])
def test_products_are_those_of_the_hessian(
    loss: Loss, negligible: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Rows that are left out stand in as their share of all rows' sum."""
    monkeypatch.setattr(logistic_curvature, "NEGLIGIBLE", negligible)
    rows, coefficients = made(loss)
    coefficients *= 3
    curvature = Curvature(rows, loss, COUNTS)
    weights, k = weights_of(loss, rows, coefficients), len(coefficients)
    hessians = Hessians(curvature, weights, torch.full((k,), 7.0, dtype=torch.float64))
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(coefficients.shape))
    found = curvature.outside(hessians.product(torch.arange(k), curvature.inside(direction)))
    wanted = torch.einsum("kcdef,kef->kcd", hessian(loss, rows, coefficients, 7.0), direction)
    if negligible == 0:
        assert hessians.kept.all()
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-4)
        return
    left = int((~hessians.kept).sum())
    assert left == 0 or left >= N // 2
    if negligible == 30.0:
        assert left == N
        counts = COUNTS.double()
        mean = loss.bends(weights, rows.targets).double() @ counts / counts.sum()
        x = torch.from_numpy(np.c_[rows.features - rows.features.mean(0), np.ones(N)])
        squares = (x.T * counts) @ x
        squares[-1, :-1] = squares[:-1, -1] = 0  # they are about their mean
        wanted = mean[:, :, None] * (direction @ squares) + 7 * direction * (
            torch.arange(D + 1) < D
        )
        torch.testing.assert_close(found, wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("loss", [Softmax(), OneVersusRest()])
def test_a_row_that_stands_for_several_is_as_they_are(loss: Loss) -> None:
    rows, coefficients = made(loss)
    often = np.repeat(np.arange(N), COUNTS.int())
    each = Rows(rows.features, rows.targets[..., often], often, rows.mean)
    k, turned = len(coefficients), []
    direction = torch.from_numpy(np.random.default_rng(1).standard_normal(coefficients.shape))
    for some, counts in ((rows, COUNTS), (each, torch.ones(len(often)))):
        curvature = Curvature(some, loss, counts)
        weights = weights_of(loss, some, coefficients)
        penalties = torch.full((k,), 7.0, dtype=torch.float64)
        metric = curvature.metric(weights, torch.arange(k), penalties)
        turned.append(curvature.outside(metric.solve(curvature.inside(direction))))
        turned.append(curvature.alone(direction, metric, penalties))
    torch.testing.assert_close(turned[0], turned[2], rtol=1e-4, atol=1e-6)
    torch.testing.assert_close(turned[1], turned[3], rtol=1e-5, atol=0)


def overlapping(n: int = 600, d: int = 12, c: int = 5) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(0)
    x = rng.standard_normal((n, d)) * np.logspace(0, 1, d)
    y = (x @ rng.standard_normal((d, c)) / 4 + 3 * rng.gumbel(size=(n, c))).argmax(1)
    return x, y


@pytest.mark.parametrize("columns", [False, True])
def test_the_optimum_is_the_same_with_and_without(
    columns: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = overlapping()
    targets = np.eye(5, dtype=int)[y] if columns else y
    found, formed = {}, {}
    for patience in (0.0, 1e9):
        used = []
        original = logistic_blocks.Preconditioning._form

        def form(self: Any, *given: Any, original: Any = original, used: Any = used) -> None:
            used.append(1)
            original(self, *given)

        with monkeypatch.context() as patch:
            patch.setattr(logistic_blocks, "PATIENCE", patience)
            patch.setattr(logistic_blocks.Preconditioning, "_form", form)
            found[patience] = fit_logistic(x, targets, 5, np.logspace(-6, 4, 11), tol=1e-11)
        formed[patience] = len(used)
    assert formed[0.0] > 0
    assert formed[1e9] == 0
    np.testing.assert_allclose(found[0.0].weights, found[1e9].weights, atol=1e-4)
    np.testing.assert_allclose(found[0.0].objectives, found[1e9].objectives, rtol=1e-9)
    assert found[0.0].converged.all()


def test_blocks_save_products_where_classes_differ_in_shape(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Each class varies in its own way, so that no one sum of squares fits them all."""
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((3000, 60)), rng.integers(0, 4, 3000)
    for label in range(4):
        x[y == label] = 0.3 * x[y == label] @ rng.standard_normal((60, 60))
    x[:, :4] += 6 * np.eye(4)[y]
    count = []
    product = Hessians.product

    def counted(self: Hessians, *given: Any) -> Tensor:
        count.append(1)
        return product(self, *given)

    monkeypatch.setattr(Hessians, "product", counted)
    spent = {}
    for patience in (0.5, 1e9):
        monkeypatch.setattr(logistic_blocks, "PATIENCE", patience)
        count.clear()
        assert fit_logistic(x, y, 4, [1e-3]).converged.all()
        spent[patience] = len(count)
    assert spent[0.5] < 0.5 * spent[1e9]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_rows_that_are_held_are_those_that_are_read(dtype: type) -> None:
    x, y = overlapping(100)
    rows = Rows(x.astype(dtype), torch.from_numpy(y), np.arange(0, 100, 3))
    read = torch.cat([block.clone() for _, block in rows.blocks()])
    rows.hold()
    held = [(part, block) for part, block in rows.blocks()]
    torch.testing.assert_close(torch.cat([block for _, block in held]), read, atol=0, rtol=0)
    assert [part for part, _ in held] == [slice(0, 34)]
    assert held[0][1].dtype == (torch.float64 if dtype is np.float64 else torch.float32)
    wanted = x[::3] - x[::3].mean(0)
    np.testing.assert_allclose(held[0][1][:, :-1], wanted, atol=1e-5)


def test_blocks_of_rows_that_are_held_cover_them(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logistic_rows, "BLOCK", 30)
    x, y = overlapping(100)
    rows = Rows(x, torch.from_numpy(y), np.arange(100))
    rows.hold()
    parts = [part for part, _ in rows.blocks()]
    assert parts == [slice(0, 30), slice(30, 60), slice(60, 90), slice(90, 100)]
