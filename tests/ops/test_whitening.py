"""Whitening against scikit-learn, faiss, and eigenvectors in float64."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch
from sklearn.decomposition import PCA

from featkit.errors import UsageError
from featkit.ops import row_blocks, whitening
from featkit.ops.unit_vectors import unit_vectors
from featkit.ops.whitening import fit_whitening

NARROW, WIDE = (300, 12, 5), (500, 400, 40)  # n, d, count: A itself, and a Krylov space


def rows(n, d, decay=2.0, seed=0, mean=1.0):
    """Rows whose variances fall like 1/i^decay, in directions drawn at random."""
    random = torch.Generator().manual_seed(seed)
    scales = torch.arange(1, d + 1, dtype=torch.float64) ** (-decay / 2)
    turn = torch.linalg.qr(torch.randn(d, d, generator=random, dtype=torch.float64)).Q
    drawn = torch.randn(n, d, generator=random, dtype=torch.float64)
    return ((drawn * scales) @ turn + mean).float()


def exact(x, count):
    """Return whitened rows and variances, by LAPACK in float64."""
    centred = x.double() - x.double().mean(0)
    u, s, _ = torch.linalg.svd(centred, full_matrices=False)
    return u[:, :count] * len(x) ** 0.5, s[:count] ** 2 / len(x)


def same_signs(found, wanted):
    return found * (found * wanted).sum(0).sign()


def cosines(points):
    units = unit_vectors(points)
    return units @ units.T


@pytest.fixture
def small(monkeypatch):
    """A Krylov space for 256 features or more, so that tests are short."""
    monkeypatch.setattr(whitening, "WIDE", 256)
    monkeypatch.setattr(whitening, "STEP", 16)


@pytest.fixture
def taken(monkeypatch):
    """Names of the ways that are taken."""
    names = []

    def record(name, way):
        monkeypatch.setattr(whitening, name, lambda *a: names.append(name) or way(*a))

    record("_by_passes", whitening._by_passes)
    record("_by_covariance", whitening._by_covariance)
    return names


@pytest.mark.parametrize("mean", [0, 1, 1e3])
def test_equals_scikit_learn(mean):
    x = rows(300, 12, mean=mean)
    wanted = PCA(12, whiten=True, svd_solver="full").fit(x.double().numpy())
    points = wanted.transform(x.double().numpy()) * (300 / 299) ** 0.5
    whiten = fit_whitening(x, 12)
    found = whiten(x)
    np.testing.assert_allclose(same_signs(found, torch.from_numpy(points)), points, atol=2e-3)
    np.testing.assert_allclose(whiten.mean, wanted.mean_, rtol=1e-6, atol=1e-7)
    assert whiten.projection.dtype == whiten.mean.dtype == found.dtype == torch.float32


@pytest.mark.parametrize("mean", [0, 30])
@pytest.mark.parametrize("decay", [2.0, 2.4])  # of the first variance to the 128th: 2e4 and 1e5
def test_a_krylov_space_holds_the_largest_components(mean, decay, taken):
    x = rows(1300, 1100, decay, mean=mean)
    wanted, variances = exact(x, 128)
    whiten = fit_whitening(x, 128)
    assert taken == ["_by_passes"]
    found = whiten(x)
    np.testing.assert_allclose(cosines(found), cosines(wanted), atol=2e-3)
    np.testing.assert_allclose(found.double().var(0, correction=0), torch.ones(128), atol=2e-3)
    lengths = whiten.projection.double().norm(dim=1) ** -2
    np.testing.assert_allclose(lengths, variances, rtol=1e-3)
    np.testing.assert_allclose(same_signs(found, wanted)[:, :30], wanted[:, :30].float(), atol=0.05)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("n", "d", "count"), [NARROW, WIDE])
def test_unit_rows_are_those_of_faiss(n, d, count):
    x = rows(n, d, mean=0)  # whose products faiss adds up in float32 before it takes the mean off
    peer = faiss.PCAMatrix(d, count, -0.5)
    peer.train(x.numpy())
    theirs = torch.from_numpy(peer.apply(x.numpy()))
    found = fit_whitening(x, count)(x)
    np.testing.assert_allclose(cosines(found), cosines(theirs), atol=2e-3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("n", "d", "count"), [NARROW, WIDE])
def test_whitened_rows_are_uncorrelated_with_the_most_varying_first(n, d, count):
    x = rows(n, d)
    whiten = fit_whitening(x, count)
    found = whiten(x).double()
    np.testing.assert_allclose(found.mean(0), torch.zeros(count), atol=1e-4)
    np.testing.assert_allclose(found.T @ found / n, torch.eye(count), atol=2e-3)
    lengths = whiten.projection.norm(dim=1)
    assert bool((lengths[1:] >= lengths[:-1]).all())
    assert bool((whiten.projection.max(1).values >= -whiten.projection.min(1).values).all())


@pytest.mark.usefixtures("small")
def test_both_ways_give_the_same(monkeypatch):
    x = rows(500, 400)
    found = fit_whitening(x, 40)(x)
    monkeypatch.setattr(whitening, "WIDE", 10**9)
    torch.testing.assert_close(found, fit_whitening(x, 40)(x), atol=5e-3, rtol=0)


@pytest.mark.usefixtures("small")
def test_without_a_decay_the_space_is_given_up(taken):
    x = torch.randn(900, 400, generator=torch.Generator().manual_seed(0))
    wanted, _ = exact(x, 50)
    found = fit_whitening(x, 50)(x)
    assert taken == ["_by_passes", "_by_covariance"]
    np.testing.assert_allclose(cosines(found), cosines(wanted), atol=1e-3)


def test_eigenvectors_that_share_an_eigenvalue_come_once_each():
    values = torch.cat([torch.full((50,), 9.0), torch.full((30,), 4.0), torch.full((920,), 1e-6)])
    matrix = torch.diag(values.double())
    start = torch.randn(1000, 64, generator=torch.Generator().manual_seed(0)).double()
    found, vectors = whitening._block_lanczos(lambda q: matrix @ q, start, 80)
    np.testing.assert_allclose(found, values[:80], rtol=1e-9)
    np.testing.assert_allclose(vectors.T @ vectors, torch.eye(80), atol=1e-9)
    np.testing.assert_allclose(matrix @ vectors, vectors * found, atol=1e-5)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("d", [6, 400])
@pytest.mark.parametrize("value", [0.0, 0.1, -3e5, 1e-12])
def test_rows_that_are_all_equal_are_zeros(d, value):
    x = torch.full((500, d), value) * torch.linspace(1, 2, d)
    points = unit_vectors(fit_whitening(x, 5)(x))
    assert torch.equal(points, torch.zeros(500, 5))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("d", [6, 400])
def test_rows_that_differ_by_rounding_are_zeros(d):
    x = torch.linspace(1, 2, d).repeat(500, 1)
    x[torch.rand(x.shape, generator=torch.Generator().manual_seed(0)) < 0.5] *= 1 + 2**-24
    x[::2, 0] = torch.nextafter(x[::2, 0], torch.tensor(9.0))
    assert torch.equal(fit_whitening(x, 5)(x), torch.zeros(500, 5))


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("d", [40, 400])
@pytest.mark.parametrize("rank", [1, 3, 20])
@pytest.mark.parametrize("mean", [0.0, 30.0])
def test_components_beyond_the_rank_are_zeros(d, rank, mean):
    x = (rows(700, rank, 0.5) @ rows(rank, d, 0.0, mean=0)) + mean
    found = fit_whitening(x, 40)(x)
    wanted, _ = exact(x, rank)
    varies = found.double().var(0, correction=0)
    np.testing.assert_allclose(varies[:rank], torch.ones(rank), atol=1e-3)
    assert torch.equal(varies[rank:], torch.zeros(40 - rank, dtype=torch.float64))
    np.testing.assert_allclose(cosines(found), cosines(wanted), atol=5e-3)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("d", [50, 400])
@pytest.mark.parametrize("n", [1, 2, 9])
def test_fewer_rows_than_components(n, d):
    x = torch.randn(n, d, generator=torch.Generator().manual_seed(0))
    whiten = fit_whitening(x, 50)
    found = whiten(x)
    assert whiten.projection.isfinite().all()
    assert found.shape == (n, 50)
    assert torch.equal(found[:, n - 1 :], torch.zeros(n, 51 - n))
    gram = found.double() @ found.double().T
    np.testing.assert_allclose(gram, n * torch.eye(n) - torch.ones(n, n), atol=1e-3)


@pytest.mark.usefixtures("small")
def test_the_seed_decides_no_more_than_rounding():
    x = rows(500, 400)
    one, other, third = (fit_whitening(x, 40, seed) for seed in (0, 0, 1))
    assert torch.equal(one.projection, other.projection)
    assert not torch.equal(one.projection, third.projection)
    torch.testing.assert_close(one(x), third(x), atol=5e-3, rtol=0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("n", "d", "count"), [NARROW, WIDE])
@pytest.mark.parametrize("factor", [1e-9, 1e9])
def test_scale_turn_and_order_leave_cosines(n, d, count, factor):
    x = rows(n, d)
    wanted = cosines(fit_whitening(x, count)(x))
    turn = torch.linalg.qr(rows(d, d, 0.0, seed=5)).Q
    order = torch.randperm(n, generator=torch.Generator().manual_seed(1))
    for y in (x * factor, x @ turn):
        torch.testing.assert_close(cosines(fit_whitening(y, count)(y)), wanted, atol=2e-3, rtol=0)
    again = fit_whitening(x[order], count)(x)
    torch.testing.assert_close(cosines(again), wanted, atol=2e-3, rtol=0)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize(("n", "d", "count"), [NARROW, WIDE])
def test_a_memory_mapped_tensor_in_other_blocks(n, d, count, tmp_path, monkeypatch):
    x = rows(n, d)
    np.save(tmp_path / "x.npy", x.numpy())
    mapped = torch.from_numpy(np.load(tmp_path / "x.npy", mmap_mode="r+"))
    wanted = fit_whitening(x, count)(x)
    monkeypatch.setattr(row_blocks, "BLOCK_FLOATS", 37 * d)
    torch.testing.assert_close(fit_whitening(mapped, count)(mapped), wanted, atol=5e-3, rtol=0)


def test_new_rows_are_whitened_like_the_old():
    x = rows(300, 12)
    whiten = fit_whitening(x, 5)
    torch.testing.assert_close(whiten(x[7:9]), whiten(x)[7:9])
    assert whiten(x[:0]).shape == (0, 5)
    assert not fit_whitening(x.requires_grad_(), 5).projection.requires_grad


@pytest.mark.parametrize(
    ("x", "count", "says"),
    [
        (torch.eye(4), 5, "5 components of 4 features: give 1 to 4"),
        (torch.eye(4), 0, "0 components"),
        (torch.eye(4).double(), 2, "torch.float64 .* give float32"),
        (torch.ones(4), 2, "give float32 in the shape"),
        (torch.ones(0, 4), 2, "give float32 in the shape"),
    ],
)
def test_what_cannot_be_whitened(x, count, says):
    with pytest.raises(UsageError, match=says):
        fit_whitening(x, count)


@pytest.mark.usefixtures("small")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e30])
@pytest.mark.parametrize(("n", "d", "count"), [NARROW, WIDE])
def test_numbers_without_squares(n, d, count, value):
    x = torch.ones(n, d)
    x[n - 1, 3] = value
    with pytest.raises(UsageError, match="hold NaN, infinity"):
        fit_whitening(x, count)
