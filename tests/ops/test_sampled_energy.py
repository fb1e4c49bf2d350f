"""Sampled energies against those of all pairs: the mean, its error, and how often they fit."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops.directions import Directions
from featkit.ops.hyperspherical_energy import hyperspherical_energy, measure_energy
from featkit.ops.sampled_energy import EnergyEstimate, energy_of_blocks, sample_energy

DRAWS = 200
RNG = np.random.default_rng(0)
CENTRES = 2 * RNG.standard_normal((6, 8))
CLUSTERED = CENTRES[RNG.integers(0, 6, 400)] + RNG.standard_normal((400, 8))
CLUSTERED[:130] *= 0.1
CLUSTERED[:130] += CENTRES[0]  # rows that are close to a third of all: their effects differ


def draws(x: np.ndarray, count: int, **given: Any) -> tuple[np.ndarray, np.ndarray]:
    """Return many estimates and their errors."""
    found = [sample_energy(x, seed=seed, **given) for seed in range(count)]
    return np.array([one.mean for one in found]), np.array([one.error for one in found])


def ways(rows: tuple[int, ...], b: int, count: int) -> Iterator[list[tuple[int, ...]]]:
    """Yield every way of dealing rows into as many blocks of b."""
    if not count:
        yield []
        return
    for first in itertools.combinations(rows, b):
        rest = tuple(row for row in rows if row not in first and row > first[0])
        for others in ways(rest, b, count - 1):
            yield [first, *others]


@pytest.mark.parametrize(
    ("n", "b", "count", "how"),
    [
        (8, 4, 2, {"power": 1}),
        (9, 4, 2, {"power": 2, "kernel": "angular"}),
        (9, 4, 2, {"power": 0, "space": "half"}),
    ],
)
def test_mean_and_variance_have_no_bias(n: int, b: int, count: int, how: dict[str, Any]) -> None:
    """Over all ways of dealing, none left out."""
    x = CLUSTERED[np.linspace(0, 399, n).astype(int)]
    points = Directions(x)
    told = [how["power"], how.get("space", "full"), how.get("kernel", "euclidean")]
    found = [
        energy_of_blocks(points, np.array(way), *told) for way in ways(tuple(range(n)), b, count)
    ]
    means, errors = np.array([[one.mean, one.error] for one in found]).T
    assert means.mean() == pytest.approx(hyperspherical_energy(x, **how), rel=1e-9)
    assert np.mean(errors**2) == pytest.approx(means.var(), rel=1e-9)


@pytest.mark.parametrize(
    "given",
    [{"block": 80}, {"block": 40, "samples": 80}, {"block": 80, "power": 2, "space": "half"}],
)
def test_intervals_hold_what_they_promise(given: dict[str, Any]) -> None:
    how = {name: value for name, value in given.items() if name not in ("block", "samples")}
    exact = hyperspherical_energy(CLUSTERED, **how)
    means, errors = draws(CLUSTERED, DRAWS, **given)
    covered = np.mean(np.abs(means - exact) < 1.96 * errors)
    assert 0.9 <= covered <= 0.99
    assert errors.mean() == pytest.approx(means.std(), rel=0.2)


def test_what_single_rows_add_falls_out_where_all_are_dealt() -> None:
    """The naive error, of blocks or of pairs that share nothing, would be several times off."""
    _, of_all = draws(CLUSTERED, 3, block=25)
    _, of_some = draws(CLUSTERED, 3, block=25, samples=200)
    assert of_some.mean() > 4 * of_all.mean()


@pytest.mark.parametrize("how", [{}, {"space": "half"}, {"kernel": "angular", "power": 2}])
def test_one_block_of_all_rows_is_exact(how: dict[str, Any]) -> None:
    """Copies, opposites, zeros and near copies are those of the exact energy."""
    near = CLUSTERED[5:6] * (1 + 1e-7) + 1e-9
    x = np.concatenate([CLUSTERED[:60], CLUSTERED[:2], -CLUSTERED[2:4], np.zeros((3, 8)), near])
    exact = measure_energy(x, **how)
    found = sample_energy(x, **how)
    assert found.mean == pytest.approx(exact.mean, rel=1e-9)
    n, points = len(x) - 3, 2 if how.get("space") == "half" else 1
    assert found == EnergyEstimate(
        found.mean, found.error, n * (n - 1) // 2, n, exact.duplicates // (2 * points), 3
    )
    assert found.error == pytest.approx(0, abs=1e-12)


def test_copies_are_left_out_without_bias() -> None:
    x = np.concatenate([CLUSTERED[:20], CLUSTERED[:20]])
    means, errors = draws(x, DRAWS, block=20)
    off = errors.mean() / DRAWS**0.5
    assert means.mean() == pytest.approx(hyperspherical_energy(x), abs=4 * off)
    assert errors.mean() == pytest.approx(means.std(), rel=0.2)


def test_only_some_rows_take_part(tmp_path) -> None:
    np.save(tmp_path / "x.npy", CLUSTERED)
    spoilt = np.load(tmp_path / "x.npy", mmap_mode="c")
    spoilt[[3, 300]] = np.nan
    kept = np.delete(np.arange(400), [3, 300])
    found = sample_energy(spoilt, rows=kept, block=64, seed=4)
    assert found == sample_energy(CLUSTERED[kept], block=64, seed=4)
    assert found != sample_energy(CLUSTERED[kept], block=64, seed=5)
    with pytest.raises(UsageError, match="2 of 400 rows of features hold NaN .* row 3: leave"):
        sample_energy(spoilt)


@pytest.mark.parametrize(
    ("x", "given", "message"),
    [
        (CLUSTERED, {"block": 3}, "block is 3: give 4 or more"),
        (CLUSTERED, {"samples": 100}, "samples is 100, less than a block of 256: give more"),
        (CLUSTERED, {"samples": 0}, "samples is 0: give a whole number, 1 or more"),
        (np.eye(4)[:3], {}, "energy of 3 rows, 0 of them zeros, .* give 4 or more"),
        (np.ones((9, 2)), {}, "all pairs that were drawn point the same way"),
        (CLUSTERED, {"power": -1}, "power is -1"),
        (CLUSTERED, {"rows": [1, 2, 3, 3]}, "some come twice"),
    ],
)
def test_what_cannot_be_sampled(x: np.ndarray, given: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        sample_energy(x, **given)
