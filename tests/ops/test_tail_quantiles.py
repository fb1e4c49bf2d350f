"""Levels of streams are NumPy's quantiles of all numbers."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
import torch

from featkit.errors import UsageError
from featkit.ops.tail_quantiles import TailQuantiles


def numbers(kind: str, units: int, n: int) -> torch.Tensor:
    drawn = torch.randn(units, n, generator=torch.Generator().manual_seed(1))
    return {
        "normal": drawn,
        "relu": drawn.relu(),
        "sparse": torch.where(drawn > 2.5, drawn, 0),
        "silent": torch.zeros(units, n),
        "negative": drawn - 100,
        "rising": drawn.sort(1).values,
        "falling": drawn.sort(1, descending=True).values,
        "few values": drawn.round(),
    }[kind]


def levels(x: torch.Tensor, share: float, step: int) -> np.ndarray:
    tail = TailQuantiles(len(x), x.shape[1], share)
    for part in x.split(step, 1):
        tail.add(part)
    return tail.levels().numpy()


@pytest.mark.parametrize(
    "kind",
    ["normal", "relu", "sparse", "silent", "negative", "rising", "falling", "few values"],
)
@pytest.mark.parametrize("share", [0.005, 0.01, 5 / 999, 0.3, 0.97])
@pytest.mark.parametrize("step", [1, 7, 250, 2000, 5000])
def test_levels_are_those_of_numpy(kind: str, share: float, step: int) -> None:
    x = numbers(kind, 5, 2000 if step > 1 else 150)
    wanted = np.quantile(x.double().numpy(), 1 - share, axis=1)
    np.testing.assert_allclose(levels(x, share, step), wanted, rtol=2e-7, atol=1e-9)


@pytest.mark.parametrize("n", [2, 3, 10, 99])
def test_streams_shorter_than_a_share(n: int) -> None:
    x = numbers("normal", 3, n)
    wanted = np.quantile(x.double().numpy(), 0.99, axis=1)
    np.testing.assert_allclose(levels(x, 0.01, 2), wanted, rtol=2e-7)


def test_units_are_independent() -> None:
    x = torch.cat([numbers(kind, 2, 900) for kind in ("rising", "falling", "silent", "normal")])
    alone = [levels(one[None], 0.02, 64)[0] for one in x]
    np.testing.assert_array_equal(levels(x, 0.02, 64), alone)


def test_the_share_that_is_above_is_the_share_asked() -> None:
    x = numbers("normal", 20, 10_000)
    above = (x > torch.from_numpy(levels(x, 0.01, 512))[:, None]).sum(1)
    assert above.tolist() == [100] * 20


def test_memory_is_that_of_the_share() -> None:
    """Ten times as many numbers in streams of the same share of them: the tail only."""
    units, n, share = 50, 40_000, 0.005
    tail = TailQuantiles(units, n, share)
    held = sum(t.numel() * t.element_size() for t in vars(tail).values() if torch.is_tensor(t))
    assert held < 1.1 * 8 * units * share * n
    x = numbers("normal", units, 400)
    tracemalloc.start()
    for _ in range(n // 400):
        tail.add(x)
    tail.levels()
    assert tracemalloc.get_traced_memory()[1] < 1e6
    tracemalloc.stop()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_numbers_that_are_not_finite(bad: float) -> None:
    x = torch.zeros(4, 10)
    x[2, 3] = bad
    with pytest.raises(UsageError, match="unit 2 hold NaN or infinity"):
        TailQuantiles(4, 10, 0.1).add(x)


def test_fewer_numbers_than_announced_have_their_own_quantile() -> None:
    x = torch.from_numpy(np.random.default_rng(0).standard_normal((3, 700))).float()
    tail = TailQuantiles(3, 1000, 0.02)
    for part in x.split(90, 1):
        tail.add(part)
    np.testing.assert_allclose(tail.levels(), np.quantile(x.double(), 0.98, axis=1), rtol=1e-6)


def test_too_many_or_too_few_numbers() -> None:
    tail = TailQuantiles(1, 10, 0.1)
    tail.add(torch.zeros(1, 1))
    with pytest.raises(UsageError, match="1 numbers a unit have no quantiles"):
        tail.levels()
    with pytest.raises(UsageError, match="more than the 10 numbers a unit"):
        tail.add(torch.zeros(1, 10))


@pytest.mark.parametrize(
    ("units", "total", "share"), [(0, 10, 0.1), (1, 1, 0.1), (1, 10, 0), (1, 10, 1)]
)
def test_what_cannot_be_used(units: int, total: int, share: float) -> None:
    with pytest.raises(UsageError, match="give 1 unit, 2 numbers and a share in"):
        TailQuantiles(units, total, share)
