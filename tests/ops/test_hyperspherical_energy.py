"""Energies against closed forms, all pairs in float64, and the published code."""

from __future__ import annotations

import math
from contextlib import contextmanager
from itertools import product

import numpy as np
import pytest
import torch
from scipy.spatial.distance import cdist, pdist
from torch.utils._python_dispatch import TorchDispatchMode

from featkit.errors import UsageError
from featkit.ops import directions
from featkit.ops import hyperspherical_energy as module
from featkit.ops.hyperspherical_energy import (
    Energy,
    hyperspherical_energy,
    measure_energies,
    measure_energy,
)
from featkit.ops.hyperspherical_loss import HypersphericalLoss
from featkit.ops.neighbors import unit_rows

POWERS = [0, 0.5, 1, 2]
VARIANTS = list(product(["full", "half"], ["euclidean", "angular"]))
every_variant = pytest.mark.parametrize(("space", "kernel"), VARIANTS)


def rows(n, d, mean=0.0, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal((n, d)) + mean) * rng.uniform(0.01, 100, (n, 1))


def value(r, power):
    return -np.log(r) if power == 0 else r ** -float(power)


def all_pairs(x, power, space, kernel):
    """Return the energy of each unordered pair of different points, by their differences."""
    x = np.asarray(x, np.float64)
    x = x[np.any(x != 0, axis=1)]
    x = x / np.abs(x).max(axis=1, keepdims=True)
    points = x / np.linalg.norm(x, axis=1, keepdims=True)
    if space == "half":
        points = np.vstack([points, -points])
    r = pdist(points)
    if kernel == "angular":
        r = 2 * np.arctan2(r, cdist(points, -points)[np.triu_indices(len(points), 1)])
    return value(r[r > 1e-9], power)


def assert_is_that_of_all_pairs(x, rtol, powers=POWERS, variants=VARIANTS):
    for power, (space, kernel) in product(powers, variants):
        wanted = all_pairs(x, power, space, kernel)
        found = measure_energy(x, power, space, kernel)
        assert found.pairs == 2 * len(wanted)
        atol = rtol * np.abs(wanted).mean() if power == 0 else 0
        what = f"{power} {space} {kernel}"
        np.testing.assert_allclose(found.mean, wanted.mean(), rtol=rtol, atol=atol, err_msg=what)
        np.testing.assert_allclose(
            found.total, 2 * wanted.sum(), rtol=rtol, atol=atol * found.pairs, err_msg=what
        )


@pytest.fixture(params=["by rows", "by columns"])
def rough(request, monkeypatch):
    """Products in float32 for few rows, too."""
    monkeypatch.setattr(module, "FEW", 0)
    if request.param == "by columns":
        by_columns(monkeypatch)


def by_columns(monkeypatch):
    """Products of tiles are added up over blocks of columns, as those of wide rows are."""
    for name, number in {"TILE": 50, "PANEL_FLOATS": 1, "BLOCK_FLOATS": 200}.items():
        monkeypatch.setattr(module, name, number)


@pytest.fixture
def formats(monkeypatch):
    """The formats of the products that are taken."""
    seen = []
    panel = directions.Directions.panel
    monkeypatch.setattr(
        directions.Directions, "panel", lambda *given: seen.append(given[2]) or panel(*given)
    )
    return seen


@pytest.mark.parametrize("power", [*POWERS, 3.7])
@pytest.mark.parametrize("d", [1, 2, 5, 60])
def test_simplex(d, power):
    x = 7 * (np.eye(d + 1) - 1 / (d + 1))  # d + 1 points of which every two have cosine -1/d
    assert hyperspherical_energy(x, power) == pytest.approx(
        value(math.sqrt(2 + 2 / d), power), rel=1e-12
    )
    assert hyperspherical_energy(x, power, kernel="angular") == pytest.approx(
        value(math.acos(-1 / d), power), rel=1e-7
    )


def test_orthogonal_directions():
    x = np.diag([1.0, 5.0, 0.1, 3.0])
    assert hyperspherical_energy(x) == pytest.approx(1 / math.sqrt(2), rel=1e-14)
    assert hyperspherical_energy(x, 2) == pytest.approx(0.5, rel=1e-14)
    assert hyperspherical_energy(x, 0) == pytest.approx(-math.log(2) / 2, rel=1e-14)
    assert hyperspherical_energy(x, 1, kernel="angular") == pytest.approx(2 / math.pi, rel=1e-14)
    assert hyperspherical_energy(x, 2, reduction="sum") == pytest.approx(12 * 0.5, rel=1e-14)
    for power in POWERS:  # of the other 7 points, 6 are orthogonal and one is opposite
        found = hyperspherical_energy(x, power, "half")
        wanted = (6 * value(math.sqrt(2), power) + value(2.0, power)) / 7
        assert found == pytest.approx(wanted, rel=1e-14)
        found = hyperspherical_energy(x, power, "half", "angular")
        wanted = (6 * value(math.pi / 2, power) + value(math.pi, power)) / 7
        assert found == pytest.approx(wanted, rel=1e-14)


@pytest.mark.parametrize("power", POWERS)
def test_opposite_directions(power):
    x = np.array([[0.0, 3.0], [0.0, -0.5]])
    assert hyperspherical_energy(x, power) == pytest.approx(value(2.0, power), rel=1e-14)
    assert hyperspherical_energy(x, power, kernel="angular") == pytest.approx(
        value(math.pi, power), rel=1e-14
    )
    found = measure_energy(x, power, "half")  # two points, twice each
    assert (found.pairs, found.duplicates) == (8, 4)
    assert found.mean == pytest.approx(value(2.0, power), rel=1e-14)


@pytest.mark.parametrize("n", [3, 64, 2601])
def test_points_on_a_circle(n, formats):
    angles = 2 * np.pi * np.arange(n) / n + 0.3
    x = np.column_stack([np.cos(angles), np.sin(angles)])

    def energies(n):
        steps = np.arange(1, n)
        return {  # the product of all distances from one point is n
            0: -n * math.log(n),
            1: n * (1 / (2 * np.sin(np.pi * steps / n))).sum(),
            2: n * (n**2 - 1) / 12,
        }

    for power, wanted in energies(n).items():
        found = hyperspherical_energy(x, power, reduction="sum")
        assert found == pytest.approx(wanted, rel=1e-6, abs=1e-7 * n**2)
    if n % 2:  # points and opposites are 2n points on the circle
        for power, wanted in energies(2 * n).items():
            found = hyperspherical_energy(x, power, "half", reduction="sum")
            assert found == pytest.approx(wanted, rel=1e-6, abs=1e-7 * n**2)
    assert (torch.float32 in formats) == (n > 2048)


@pytest.mark.parametrize("is_wide", [False, True])
@pytest.mark.parametrize("mean", [0, 2])
def test_few_rows_have_the_digits_of_float64(monkeypatch, mean, is_wide):
    if is_wide:
        by_columns(monkeypatch)
    x = rows(130, 9, mean)
    assert_is_that_of_all_pairs(x, 1e-12, [*POWERS, 7, 30.5])


@pytest.mark.parametrize("mean", [0, 2])
def test_float32_products_are_exact_enough(rough, formats, mean):
    assert_is_that_of_all_pairs(rows(130, 9, mean), 2e-7)
    assert torch.float32 in formats


def test_many_rows(formats):
    x = np.maximum(rows(2100, 24, mean=1.0), 0).astype(np.float32)
    assert_is_that_of_all_pairs(x, 1e-7, [0, 1, 2], [("full", "euclidean")])
    assert_is_that_of_all_pairs(x, 1e-7, [1], [("half", "euclidean"), ("full", "angular")])
    assert formats[0] == torch.float32


def test_float32_products_are_for_many_rows_and_low_powers(formats):
    for n, power, expected in [
        (2048, 1, torch.float64),
        (2049, 1, torch.float32),
        (2049, 2, torch.float32),
        (2049, 2.1, torch.float64),
    ]:
        formats.clear()
        hyperspherical_energy(rows(n, 40), power)
        assert set(formats) == {expected}


@pytest.mark.parametrize("is_rough", [False, True])
@pytest.mark.parametrize(
    ("spread", "cosine"), [(1e-2, 0.999), (1e-4, 0.9999999), (1e-6, 0.99999999999)]
)
def test_narrow_cones_keep_their_digits(monkeypatch, formats, is_rough, spread, cosine):
    monkeypatch.setattr(module, "FEW", 0 if is_rough else 2048)
    x = 1 + spread * np.abs(np.random.default_rng(0).standard_normal((200, 48)))
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    assert (v @ v.T).min() > cosine
    assert_is_that_of_all_pairs(x, 3e-7 if is_rough else 1e-8)
    assert set(formats) == {torch.float32 if is_rough else torch.float64}  # nothing was repeated


CLOSE = {
    "pairs": lambda g, rng: np.vstack([g, g * rng.uniform(1, 2, (len(g), 1)) + 1e-4 * g[::-1]]),
    "very close pairs": lambda g, rng: np.vstack([g, g + 1e-7 * g[::-1]]),
    "clusters": lambda g, rng: g[:5].repeat(len(g) // 5, 0) + 0.05 * g,
    "tight clusters": lambda g, rng: g[:5].repeat(len(g) // 5, 0) + 1e-5 * g,
    "opposite cones": lambda g, rng: (1 + 0.02 * g) * rng.choice([-1, 1], (len(g), 1)),
    "tight opposite cones": lambda g, rng: (1 + 1e-6 * g) * rng.choice([-1, 1], (len(g), 1)),
    "few directions": lambda g, rng: g[:, :2] @ rng.standard_normal((2, g.shape[1])),
    "a cone and others": lambda g, rng: np.where(np.arange(len(g))[:, None] < 40, 1 + 1e-3 * g, g),
}


@pytest.mark.parametrize("crowded", [0, 0.01, 1])
@pytest.mark.parametrize("name", CLOSE)
def test_close_pairs_keep_their_digits(rough, monkeypatch, formats, name, crowded):
    monkeypatch.setattr(module, "CROWDED", crowded)
    rng = np.random.default_rng(1)
    x = CLOSE[name](rng.standard_normal((120, 30)), rng)
    assert_is_that_of_all_pairs(x, 5e-7)
    assert (torch.float64 in formats) or crowded > 0
    assert (torch.float64 not in formats) or crowded < 1


def test_rows_and_their_opposites(rough):
    x = np.random.default_rng(0).standard_normal((80, 5))
    assert_is_that_of_all_pairs(np.vstack([x, -x]), 2e-7, [0, 1, 2], [("full", "angular")])


def test_a_very_close_pair_in_float64_products():
    x = rows(100, 20)
    for distance in (1e-3, 1e-5, 1e-7):
        x[7] = x[50] + distance * np.linalg.norm(x[50]) * np.eye(20)[3]
        assert_is_that_of_all_pairs(x, 1e-7, [0, 1, 2, 12])


def brute_counts(x, space):
    """Count points, pairs of points and pairs of equal points in whole numbers."""
    kept = [r for r in x.tolist() if any(r)]
    points = []
    for r in kept:
        divisor = math.gcd(*map(int, r))
        points.append(tuple(int(c) // divisor for c in r))
    if space == "half":
        points += [tuple(-c for c in p) for p in points]
    equal = sum(a == b for a in points for b in points) - len(points)
    return len(points) * (len(points) - 1) - equal, equal, len(x) - len(kept)


@pytest.mark.parametrize("tile", [3, 512])  # above 3 pairs, copies are found by their bytes
@pytest.mark.parametrize("few", [0, 2048])
@every_variant
def test_equal_directions_and_zeros_are_counted_and_left_out(monkeypatch, tile, few, space, kernel):
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "TILE", tile)
    x = np.random.default_rng(0).integers(-2, 3, (70, 3)).astype(np.float32)
    x[[10, 44]] = 0
    x[20] = x[3] * 3
    x[69] = x[2]
    x[68] = -x[2]
    for power in POWERS:
        wanted = all_pairs(x, power, space, kernel)
        found = measure_energy(x, power, space, kernel)
        assert (found.pairs, found.duplicates, found.zeros) == brute_counts(x, space)
        assert found.pairs == 2 * len(wanted)
        assert found.zeros >= 2
        assert found.duplicates >= 44
        assert found.mean == pytest.approx(wanted.mean(), rel=1e-6)
        assert found.total == pytest.approx(2 * wanted.sum(), rel=1e-6)


@pytest.mark.parametrize("few", [0, 2048])
def test_what_counts_as_equal(monkeypatch, few):
    monkeypatch.setattr(module, "FEW", few)
    near = measure_energy([[1.0, 0.0], [1.0, 0.9e-9], [0.0, 1.0]])
    assert (near.pairs, near.duplicates) == (4, 2)
    assert near.mean == pytest.approx(1 / math.sqrt(2))
    apart = measure_energy([[1.0, 0.0], [1.0, 1.1e-9], [0.0, 1.0]])
    assert (apart.pairs, apart.duplicates) == (6, 0)
    assert apart.total == pytest.approx(2 / 1.1e-9, rel=1e-6)
    bunch = np.array([[1.0, 0.0], [1.0, 0.9e-9], [1.0, 3e-9]])  # nothing is far from the mean
    found = measure_energy(bunch)
    assert (found.pairs, found.duplicates) == (4, 2)
    assert found.total == pytest.approx(2 / 3e-9 + 2 / 2.1e-9, rel=1e-6)


def test_a_set_of_copies():
    x = np.tile([3.0, 4.0, 12.0], (700, 1)) * 2.0 ** np.arange(-350, 350)[:, None]
    for y in (x[:2], x):
        with pytest.raises(UsageError, match=f"all {len(y)} rows point the same way"):
            hyperspherical_energy(y)
    found = measure_energy(x, 2, "half")
    assert found == Energy(
        total=2 * 700**2 / 4, pairs=2 * 700**2, duplicates=2 * 700 * 699, zeros=0
    )


@pytest.mark.parametrize("few", [0, 2048])
@pytest.mark.parametrize(
    "settings",
    [
        {"TILE": 4, "TILES": 1},
        {"TILE": 7, "TILES": 3},
        {"TILE": 16, "TILES": 8},
        {"TILE": 16, "PANEL_FLOATS": 1},
        {"TILE": 16, "TILES": 8, "PANEL_FLOATS": 16 * 12 * 3},
        {"BLOCK_FLOATS": 1},
        {"BLOCK_FLOATS": 500},
        {"TILE": 16, "PANEL_FLOATS": 1, "BLOCK_FLOATS": 80},
        {"CHUNK_FLOATS": 1},
        {"CHUNK_FLOATS": 100},
    ],
    ids=str,
)
def test_blocks_change_nothing(monkeypatch, few, settings):
    monkeypatch.setattr(module, "FEW", few)
    x = np.vstack([rows(90, 12, seed=3), rows(7, 12), 2 * rows(7, 12), np.zeros((3, 12))])
    x = x[np.random.default_rng(0).permutation(len(x))]
    before = [measure_energy(x, 1, *variant) for variant in VARIANTS]
    for name, number in settings.items():
        monkeypatch.setattr(directions if name == "CHUNK_FLOATS" else module, name, number)
    for variant, one in zip(VARIANTS, before, strict=True):
        other = measure_energy(x, 1, *variant)
        assert other.mean == pytest.approx(one.mean, rel=1e-12 if few else 1e-7)
        counts = (one.pairs, one.duplicates, one.zeros)
        assert (other.pairs, other.duplicates, other.zeros) == counts
        assert one.duplicates == (14 if variant[0] == "full" else 28)


def test_half_of_the_products_is_taken(monkeypatch, formats):
    monkeypatch.setattr(module, "TILE", 16)
    monkeypatch.setattr(module, "TILES", 2)
    taken = []
    add = module._Pairs._add
    monkeypatch.setattr(
        module._Pairs, "_add", lambda *given: taken.append(given[4:6]) or add(*given)
    )
    hyperspherical_energy(rows(100, 6))
    starts = range(0, 100, 16)
    assert sorted(taken) == [
        (row, column) for row, column in product(starts, starts) if row <= column
    ]
    assert len(formats) == 4 + 5 + 3 + 1  # two tiles are held while those that are left pass by


@pytest.mark.parametrize(
    ("n", "d", "blocks"),
    [(40, 60_000, 3), (80, 20_000, 2), (40, 20_000, 0), (520, 2500, 0)],
)
def test_few_rows_and_long_ones_are_read_in_blocks_of_columns(formats, monkeypatch, n, d, blocks):
    """Blocks are of 2²⁰ numbers: 26,214 columns of 40 rows, 13,107 of 80."""
    taken = []
    take = module._Pairs._by_columns
    monkeypatch.setattr(
        module._Pairs, "_by_columns", lambda *given: taken.append(given) or take(*given)
    )
    x = np.maximum(rows(n, d, mean=0.5), 0).astype(np.float32)
    x[7] = x[11] + 1e-4 * x[3]
    wanted = all_pairs(x, 1, "full", "euclidean")
    found = measure_energy(x)
    assert found.mean == pytest.approx(wanted.mean(), rel=1e-9)
    assert found.pairs == 2 * len(wanted)
    assert bool(taken) == bool(blocks)
    if blocks:  # one side is enough for the products of a tile with itself
        assert len(formats) == blocks


class Largest(TorchDispatchMode):
    """Notes the largest tensor that is made."""

    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        for tensor in made if isinstance(made, tuple | list) else [made]:
            if isinstance(tensor, torch.Tensor):
                self.numbers = max(self.numbers, tensor.numel())
        return made


@pytest.mark.parametrize(
    ("n", "d", "most"),
    [(3500, 8, 512 * 10), (600, 120, 2**13), (300, 1000, 64 * 130), (20, 5000, 20 * 411)],
    ids=["tiles", "panels", "wide", "few and wide"],
)
@every_variant
def test_memory_does_not_grow_with_pairs(monkeypatch, n, d, most, space, kernel):
    for name, number in {"TILE": 64, "PANEL_FLOATS": 2**13, "BLOCK_FLOATS": 2**13}.items():
        monkeypatch.setattr(module, name, number)
    monkeypatch.setattr(directions, "CHUNK_FLOATS", 2**11)
    with Largest() as largest:
        hyperspherical_energy(rows(n, d), 1, space, kernel)
    assert most / 2 < largest.numbers <= most


@pytest.mark.parametrize("dtype", ["f2", "f4", "f8", ">f4", ">f8", "i1", "u2", "i8", "g", "?"])
def test_types_of_numbers(dtype):
    x = rows(40, 6)
    x = {"?": x > 0, "u2": np.abs(x)}.get(dtype, x.clip(-100, 100)).astype(dtype)
    assert_is_that_of_all_pairs(x, 1e-12, [1])


def test_kinds_of_rows(tmp_path):
    x = rows(60, 8).astype(np.float32)
    wanted = all_pairs(x, 1, "full", "euclidean").mean()
    np.save(tmp_path / "x.npy", x)
    kept = x.copy()
    for kind in (
        np.load(tmp_path / "x.npy", mmap_mode="r"),
        np.asfortranarray(x),
        np.repeat(x, 2, axis=1)[:, ::2],
        x.tolist(),
        torch.from_numpy(x),
        torch.from_numpy(x).requires_grad_(),
        torch.from_numpy(x.T.copy()).T,
    ):
        assert hyperspherical_energy(kind) == pytest.approx(wanted, rel=1e-12)
    np.testing.assert_array_equal(x, kept)
    assert hyperspherical_energy(unit_rows(x)) == pytest.approx(wanted, rel=1e-6)
    half = torch.from_numpy(x).bfloat16()
    wanted = all_pairs(half.float().numpy(), 1, "full", "euclidean").mean()
    assert hyperspherical_energy(half) == pytest.approx(wanted, rel=1e-12)


@pytest.mark.parametrize("factor", [1e-310, 1e-200, 1e200, 1e305])
def test_lengths_whose_squares_no_float_holds(factor):
    x = np.random.default_rng(0).standard_normal((50, 4))
    scaled = x.copy()
    scaled[::3] *= factor
    assert hyperspherical_energy(scaled) == pytest.approx(hyperspherical_energy(x), rel=1e-9)
    found = measure_energy(np.array([[5e-324, 5e-324], [1.0, 1.0], [0.0, 5e-324], [0.0, 0.0]]))
    assert (found.pairs, found.duplicates, found.zeros) == (4, 2, 1)
    assert found.mean == pytest.approx(1 / (2 * math.sin(math.pi / 8)))


def published(x, model, is_half):
    """`_add_thomson_constraint` of MHE, with its constants: mean over the pairs of filters."""
    filters = np.asarray(x, np.float64).T  # dim x n_filt
    if is_half:
        filters = np.concatenate([filters, -filters], axis=1)
    n = filters.shape[1]
    norms = np.sqrt((filters**2).sum(0, keepdims=True) + 1e-4)
    inner = (filters.T @ filters) / (norms.T @ norms)
    above = np.triu(np.ones((n, n)), 1).astype(bool)
    count = n * (n - 1) / 2
    if model in {"0", "1", "2"}:
        squares = 2.0 - 2.0 * inner + np.eye(n)
        loss = {
            "0": lambda: -np.log(squares),
            "1": lambda: squares**-0.5,
            "2": lambda: squares**-1.0,
        }[model]()
        return loss[above].sum() / count
    angles = np.arccos(inner[above]) / np.pi + 1e-4
    return {
        "a0": lambda: -np.log(angles).sum(),
        "a1": lambda: 0.1 * (angles**-1).sum(),
        "a2": lambda: 0.1 * (angles**-2).sum(),
    }[model]() / count


@pytest.mark.parametrize("space", ["full", "half"])
def test_published_code_up_to_its_units(space):
    x = 1000 * np.random.default_rng(2).standard_normal((40, 16))  # to which 1e-4 adds nothing
    is_half = space == "half"
    for power, factor in ((0, 2), (1, 1), (2, 1)):
        found = hyperspherical_energy(x, power, space)
        assert factor * found == pytest.approx(published(x, str(power), is_half), rel=1e-8)
    zero, one, two = (hyperspherical_energy(x, s, space, "angular") for s in (0, 1, 2))
    # an angle of θ/π + 1e-4 is 1e-4/(θ/π) more than θ/π: a half of 1e-3 at most
    assert published(x, "a0", is_half) == pytest.approx(zero + math.log(math.pi), abs=1e-3)
    assert published(x, "a1", is_half) == pytest.approx(0.1 * math.pi * one, rel=1e-3)
    assert published(x, "a2", is_half) == pytest.approx(0.1 * math.pi**2 * two, rel=2e-3)


def with_copies_and_close_pairs():
    x = rows(150, 7, mean=0.5)
    return np.vstack([x, 3 * x[:4], -x[4:8], x[8:20] + 1e-5 * x[20:32], np.zeros((2, 7))])


@pytest.mark.parametrize("few", [0, 2048])
@every_variant
def test_several_powers_at_once_are_those_of_all_pairs(monkeypatch, few, space, kernel):
    monkeypatch.setattr(module, "FEW", few)
    monkeypatch.setattr(module, "TILE", 64)
    x = with_copies_and_close_pairs()
    powers = (2, 0, 1, 0.5)
    found = measure_energies(x, powers, space, kernel)
    for power, energy in zip(powers, found, strict=True):
        wanted = all_pairs(x, power, space, kernel)
        assert energy.pairs == 2 * len(wanted)
        assert energy.total == pytest.approx(2 * wanted.sum(), rel=1e-6)
        assert (energy.duplicates, energy.zeros) == (found[0].duplicates, 2)
    assert found[0].duplicates >= 8
    alone = tuple(measure_energy(x, power, space, kernel) for power in powers)
    assert found == alone


def test_every_power_has_the_digits_that_the_steepest_needs(formats):
    x = rows(2100, 24, mean=1.0).astype(np.float32)
    powers = (1, 12)
    for power, energy in zip(powers, measure_energies(x, powers), strict=True):
        wanted = all_pairs(x, power, "full", "euclidean")
        assert energy.mean == pytest.approx(wanted.mean(), rel=1e-9)
    assert set(formats) == {torch.float64}
    formats.clear()
    measure_energies(x, (0, 2, 1))
    assert set(formats) == {torch.float32}


def test_distances_are_computed_once_for_all_powers(rough, monkeypatch, formats):
    found = []
    close = module._Pairs._close
    monkeypatch.setattr(module._Pairs, "_close", lambda *a: found.append(close(*a)) or found[-1])
    x = with_copies_and_close_pairs()
    counts = []
    for powers in ((1,), (0, 1, 2)):
        formats.clear(), found.clear()
        measure_energies(x, powers)
        counts.append((len(formats), len(found)))
    assert counts[0] == counts[1]
    assert min(counts[0]) > 0


def test_an_infinite_energy_leaves_the_others_finite():
    x = [[1.0, 0.0], [1.0, 1e-8], [0.0, 1.0]]
    steep, flat = measure_energies(x, (1000, 1))
    assert steep.total == math.inf
    assert flat == measure_energy(x, 1)
    assert measure_energy(x, 38.52).total == math.inf  # twice 1.4e308


@every_variant
def test_angles_are_arc_cosines(space, kernel):
    x = rows(30, 5)
    v = x / np.linalg.norm(x, axis=1, keepdims=True)
    v = np.vstack([v, -v]) if space == "half" else v
    cosines = (v @ v.T)[~np.eye(len(v), dtype=bool)].clip(-1, 1)
    r = np.arccos(cosines) if kernel == "angular" else np.sqrt(2 - 2 * cosines)
    assert hyperspherical_energy(x, 1, space, kernel) == pytest.approx((1 / r).mean(), rel=1e-7)


@every_variant
def test_turning_and_scaling_change_nothing(space, kernel):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((80, 10)) + 1
    turned = x @ np.linalg.qr(rng.standard_normal((10, 10)))[0] * rng.uniform(0.01, 100, (80, 1))
    for power in POWERS:
        one = hyperspherical_energy(x, power, space, kernel)
        assert hyperspherical_energy(turned, power, space, kernel) == pytest.approx(one, rel=1e-11)
    signs = rng.choice([-1, 1], (80, 1))
    flipped = hyperspherical_energy(x * signs, 1, space, kernel)
    is_same = flipped == pytest.approx(hyperspherical_energy(x, 1, space, kernel), rel=1e-6)
    assert is_same == (space == "half")


def test_by_default_the_mean_of_inverse_distances():
    x = rows(20, 4)
    r = pdist(x / np.linalg.norm(x, axis=1, keepdims=True))
    assert hyperspherical_energy(x) == pytest.approx((1 / r).mean(), rel=1e-12)
    assert hyperspherical_energy(x, reduction="sum") == pytest.approx(2 * (1 / r).sum(), rel=1e-12)
    assert measure_energy(x).total == pytest.approx(2 * (1 / r).sum(), rel=1e-12)
    assert type(hyperspherical_energy(x)) is float


@contextmanager
def reduced_products(matmul, setting):
    if matmul is None:
        before = torch.get_float32_matmul_precision()
        torch.set_float32_matmul_precision(setting)
    else:
        before, matmul.fp32_precision = matmul.fp32_precision, setting
    try:
        yield
    finally:
        if matmul is None:
            torch.set_float32_matmul_precision(before)
        else:
            matmul.fp32_precision = before


def test_settings_of_the_process_take_no_digits(rough, monkeypatch, formats):
    x = rows(300, 64, mean=1)
    wanted = all_pairs(x, 2, "full", "euclidean").mean()
    with torch.autocast("cpu"):
        assert hyperspherical_energy(x, 2) == pytest.approx(wanted, rel=1e-7)
    assert set(formats) == {torch.float32}
    matmul = getattr(torch.backends.mkldnn, "matmul", None)
    is_new = hasattr(matmul, "fp32_precision")
    for setting in ("bf16", "tf32", "ieee") if is_new else ("medium", "high", "highest"):
        formats.clear()
        with reduced_products(matmul if is_new else None, setting):
            assert hyperspherical_energy(x, 2) == pytest.approx(wanted, rel=1e-7)
        assert (torch.float64 in formats) == (setting not in {"ieee", "highest"})


@pytest.mark.parametrize("power", [-1, -1e-9, math.nan, math.inf, "1", None, True, 1j])
def test_what_is_no_power(power):
    with pytest.raises(UsageError, match="power is .*: give a number, 0 or more"):
        hyperspherical_energy(np.eye(3), power)


def test_what_are_no_powers():
    with pytest.raises(UsageError, match="powers are empty: give one or more"):
        measure_energies(np.eye(3), ())
    with pytest.raises(UsageError, match="power is -1: give a number, 0 or more"):
        measure_energies(np.eye(3), (1, -1))


def test_kinds_of_powers():
    x = rows(20, 3)
    for power in (2, 2.0, np.float32(2), np.int64(2)):
        assert hyperspherical_energy(x, power) == hyperspherical_energy(x, 2)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("space", "space 'whole' is unknown: give full or half"),
        ("kernel", "kernel 'whole' is unknown: give euclidean or angular"),
        ("reduction", "reduction 'whole' is unknown: give mean or sum"),
    ],
)
def test_unknown_names(name, message):
    with pytest.raises(UsageError, match=message):
        hyperspherical_energy(np.eye(3), **{name: "whole"})


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (np.ones((0, 3)), "energy of 0 rows, 0 of them zeros: give two or more"),
        (np.ones((1, 3)), "energy of 1 rows"),
        (np.zeros((5, 3)), "energy of 5 rows, 5 of them zeros"),
        (np.eye(4) * [0, 0, 0, 1], "energy of 4 rows, 3 of them zeros"),
        (np.ones(3), "give real numbers"),
        (np.ones((3, 2, 2)), "give real numbers"),
        (np.ones((3, 0)), "give real numbers"),
        (np.array([["a"], ["b"]]), "give real numbers"),
        (np.eye(3) * 1j, r"features are complex128 \(3, 3\)"),
    ],
    ids=str,
)
def test_rows_that_have_no_energy(x, message):
    for space in ("full", "half"):
        with pytest.raises(UsageError, match=message) as error:
            hyperspherical_energy(x, space=space)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_rows_that_are_not_finite(monkeypatch, dtype, bad):
    x = rows(20, 3).astype(dtype)
    x[[6, 13], 1] = bad
    for floats in (6, 2**16):
        monkeypatch.setattr(directions, "CHUNK_FLOATS", floats)
        with pytest.raises(
            UsageError, match="2 of 20 rows of features hold NaN or infinity, the first is row 6"
        ):
            hyperspherical_energy(x)


def test_filters_are_flattened_by_the_user() -> None:
    """A loss flattens weights as they are; a measure says what the rows are to be."""
    filters = np.random.default_rng(0).standard_normal((6, 3, 2, 2))
    with pytest.raises(UsageError, match=r"\(6, 3, 2, 2\): .* as reshape\(len\(x\), -1\) makes of"):
        hyperspherical_energy(filters)
    flat = hyperspherical_energy(filters.reshape(len(filters), -1))
    assert HypersphericalLoss()(torch.from_numpy(filters)).item() == pytest.approx(flat)
