"""Singular values against LAPACK's in float64."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from featkit.errors import UsageError
from featkit.ops import spectrum
from featkit.ops.spectrum import singular_values


def rows(n, d, seed=0, mean=0.0):
    rng = np.random.default_rng(seed)
    return rng.standard_normal((n, d)) * np.linspace(5, 0.01, d) + mean


def exact(x):
    return np.linalg.svd(np.asarray(x, dtype=np.float64), compute_uv=False)


@pytest.mark.parametrize("floats", [1, 100, 2**22])
@pytest.mark.parametrize(("n", "d"), [(200, 12), (12, 200), (30, 30), (1, 9), (9, 1), (31, 30)])
@pytest.mark.parametrize("mean", [0.0, 10.0])
def test_equals_lapack_whatever_the_blocks(monkeypatch, floats, n, d, mean):
    monkeypatch.setattr(spectrum, "BLOCK_FLOATS", floats)
    x = rows(n, d, mean=mean)
    found, wanted = singular_values(x), exact(x)
    assert found.dtype == np.float64
    assert found.shape == (min(n, d),)
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-7 * wanted[0])
    assert (np.diff(found) <= 0).all()


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.int8])
def test_narrow_types_are_widened_before_they_are_multiplied(dtype):
    x = (20 * rows(3000, 6) / 5).clip(-100, 100).astype(dtype)
    np.testing.assert_allclose(singular_values(x), exact(x), rtol=1e-9, atol=1e-6)
    large = np.full((500, 4), 60_000 if dtype != np.int8 else 120, dtype)
    wanted = float(large[0, 0]) * 2000**0.5
    np.testing.assert_allclose(singular_values(large), [wanted, 0, 0, 0], atol=1e-7 * wanted)


def test_values_are_accurate_to_1e_8_of_the_largest():
    rng = np.random.default_rng(0)
    u, _ = np.linalg.qr(rng.standard_normal((300, 20)))
    v, _ = np.linalg.qr(rng.standard_normal((20, 20)))
    wanted = np.logspace(0, -19, 20)
    for x in ((u * wanted) @ v.T, ((u * wanted) @ v.T).T):
        found = singular_values(x)
        np.testing.assert_allclose(found[:6], wanted[:6], rtol=1e-4)
        assert (found >= 0).all()
        np.testing.assert_allclose(found, wanted, atol=1e-7)


def test_a_memory_mapped_array_is_not_read_at_once(tmp_path, monkeypatch):
    monkeypatch.setattr(spectrum, "BLOCK_FLOATS", 2**15)
    x = rows(20_000, 32, mean=1.0).astype(np.float32)
    np.save(tmp_path / "x.npy", x)
    mapped = np.load(tmp_path / "x.npy", mmap_mode="r")
    tracemalloc.start()
    try:
        found, wide = singular_values(mapped), singular_values(mapped.T)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < x.nbytes / 2
    np.testing.assert_allclose(found, exact(x), rtol=1e-7)
    np.testing.assert_allclose(wide, exact(x), rtol=1e-7)


def test_rows_of_zeros_have_no_spectrum():
    np.testing.assert_array_equal(singular_values(np.zeros((5, 3))), np.zeros(3))


@pytest.mark.parametrize(
    "x", [np.ones(3), np.ones((2, 2, 2)), np.ones((0, 3)), np.ones((3, 0)), np.eye(2) * 1j, [["a"]]]
)
def test_what_is_no_matrix(x):
    with pytest.raises(UsageError, match="give real numbers in the shape"):
        singular_values(x)


@pytest.mark.parametrize("value", [np.nan, np.inf, 1e200])
def test_numbers_without_squares(value):
    x = rows(10, 3)
    x[4, 1] = value
    with pytest.raises(UsageError, match="hold NaN"):
        singular_values(x)
